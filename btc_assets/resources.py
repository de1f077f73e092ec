"""Dagster resources: they hand out clients of `btc_core`, so that tests can hand out others.

What does not belong here: configuration. Settings come from the environment of the process, as in every other program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from btc_core.names import CHALLENGER
from btc_core.settings import Settings, settings
from btc_core.stores import origin
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore

if TYPE_CHECKING:
    from btc_core.league.promotion import Renewal
    from btc_core.models.gate import Verdict
    from btc_core.names import Baseline, ModelKey
    from btc_core.registry.bundles import Model, Registration
    from btc_core.registry.promotion import Promotion
    from btc_core.registry.shadows import RefusedVersion, ShadowScore


def _check_origin(store: str) -> None:
    """Raise `ConfigError` if a store holds other data than the settings name; once in each process, when it answers."""
    origin.check_once(settings(), store)


class Environment(dg.ConfigurableResource[Any]):
    """The settings of this process."""

    def get(self) -> Settings:
        """All settings, frozen."""
        return settings()

    def check_log(self) -> None:
        """Raise `ConfigError` if Kafka holds other data, for an asset that reads its messages."""
        _check_origin(origin.LOG)


class Database(dg.ConfigurableResource[Any]):
    """QuestDB."""

    def connect(self) -> QuestDB:
        """A new client; use it in a `with`. Raises `ConfigError` if the database holds other data."""
        _check_origin(origin.TABLES)
        return QuestDB(settings().questdb)


class Lake(dg.ConfigurableResource[Any]):
    """The bucket of the object store that has the copies of tables."""

    def connect(self) -> ObjectStore:
        """A new client; use it in a `with`. Raises `ConfigError` if the object store holds other data."""
        _check_origin(origin.OBJECTS)
        return ObjectStore(settings().store)


class Registry(dg.ConfigurableResource[Any]):
    """The model registry in MLflow.

    Its methods import what they need, because models import numba, which takes a quarter of a second.
    """

    def register(  # noqa: PLR0913 - everything that MLflow keeps of a version
        self,
        key: ModelKey,
        model: Model,
        rows: Any,
        verdict: Verdict,
        *,
        params: dict[str, str],
        pictures: dict[str, bytes],
        alias: str = CHALLENGER,
    ) -> Registration:
        """Log the model and register it under an alias; raises `StoreError`."""
        from btc_core.registry import promotion  # noqa: PLC0415 - imports numba

        return promotion.publish(settings(), key, model, rows, verdict, params=params, pictures=pictures, alias=alias)

    def refused(self, key: ModelKey) -> RefusedVersion | None:
        """The version that the gate has refused, None if the newest training was not; raises `StoreError`."""
        from btc_core.registry import shadows  # noqa: PLC0415 - imports numba

        return shadows.refused_version(settings(), key)

    def release(self, key: ModelKey, alias: str) -> None:
        """Take an alias away, `refused` or `challenger`; raises `StoreError`."""
        from btc_core.registry import bundles  # noqa: PLC0415 - imports numba

        bundles.release(settings(), key, alias)

    def keep_shadow_score(self, key: ModelKey, version: str, score: ShadowScore) -> None:
        """Store how a refused version does; raises `StoreError`."""
        from btc_core.registry import shadows  # noqa: PLC0415 - imports numba

        shadows.keep_score(settings(), key, version, score)

    def promote_refused(self, key: ModelKey, version: str, reason: str) -> Promotion:
        """Make a version that won in shadow champion, unless trees have to wait; raises `StoreError`."""
        from btc_core.registry import promotion  # noqa: PLC0415 - imports numba

        return promotion.promote_refused(settings(), key, version, reason)

    def version(self, key: ModelKey, version: str) -> Model:
        """A version of a model; raises `StoreError` or `SchemaError`."""
        from btc_core.registry import bundles  # noqa: PLC0415 - imports numba

        return bundles.load_version(settings(), key, version)

    def promote_challenger(self, key: ModelKey) -> Promotion | None:
        """Make the challenger champion if it passed its gate; returns None if there is no such challenger."""
        from btc_core.registry import promotion  # noqa: PLC0415 - imports numba

        return promotion.promote_challenger(settings(), key)

    def demote(self, key: ModelKey, model: Model, baseline: Baseline, rows: Any, reason: str) -> Registration:
        """Make a baseline that is part of the champion champion itself; raises `StoreError`."""
        from btc_core.registry import promotion  # noqa: PLC0415 - imports numba

        return promotion.demote(settings(), key, model, baseline, rows, reason)

    def champion(self, key: ModelKey) -> Model:
        """The champion, as a serving process loads it; raises `NotReady` or `SchemaError`."""
        from btc_core.registry import bundles  # noqa: PLC0415 - imports numba

        return bundles.load_champion(settings(), key)

    def renew_user_model(self, symbol: str) -> Renewal:
        """Let the newest fit of the user's model that serves in a market take its place, if its gate lets it; raises `StoreError`."""
        from btc_core.league import promotion  # noqa: PLC0415 - imports numba

        return promotion.renew(settings(), symbol)

    def challenger(self, key: ModelKey) -> Model:
        """The challenger; raises `NotReady` if there is none, and `SchemaError` if this process cannot use it."""
        from btc_core.registry import bundles  # noqa: PLC0415 - imports numba

        return bundles.load_challenger(settings(), key)
