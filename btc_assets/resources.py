"""Dagster resources: thin holders that hand out plain `btc_core` clients, so that assets can be tested with others.

What does not belong here: configuration. Settings come from the environment of the process, as everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec

from btc_core.errors import NotReady, SchemaError
from btc_core.names import CHALLENGER
from btc_core.settings import Settings, settings

if TYPE_CHECKING:
    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.models.gate import Verdict
    from btc_core.registry.bundles import Registered
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore


class Environment(dg.ConfigurableResource[Any]):
    """The settings of this process."""

    def get(self) -> Settings:
        """All settings, frozen."""
        return settings()


class Database(dg.ConfigurableResource[Any]):
    """QuestDB."""

    def connect(self) -> QuestDB:
        """A client of its own; use it in a `with`."""
        from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - pyarrow is slow to import

        return QuestDB(settings().questdb)


class Lake(dg.ConfigurableResource[Any]):
    """The bucket of copies on the object store."""

    def connect(self) -> ObjectStore:
        """A client of its own; use it in a `with`."""
        from btc_core.stores.s3 import ObjectStore  # noqa: PLC0415 - boto3 is slow to import

        return ObjectStore(settings().store)


class Promoted(msgspec.Struct, frozen=True):
    """A version that became champion, and why."""

    version: str
    reason: str


class Registry(dg.ConfigurableResource[Any]):
    """The MLflow model bundles."""

    def register(
        self,
        model: BidModel | VolatilityModel,
        rows: Any,
        verdict: Verdict,
        params: dict[str, str],
        pictures: dict[str, bytes],
    ) -> Registered:
        """Log the model and register it as challenger; raises `StoreError`."""
        from btc_core.registry import promotion  # noqa: PLC0415 - needs XGBoost's neighbours, slow to import

        return promotion.publish(settings(), model, rows, verdict, params=params, pictures=pictures)

    def promote_challenger(self, name: str) -> Promoted | None:
        """Make the challenger that passed its gate champion, for that gate's reason; None when there is none."""
        from btc_core.registry import promotion  # noqa: PLC0415 - the same

        found = [each for each in promotion.versions(settings(), name) if "challenger" in each.aliases]
        found = [each for each in found if each.gate_result == "passed"]
        if not found:
            return None
        promotion.promote(settings(), name, found[0].version, found[0].gate_reason)
        return Promoted(found[0].version, found[0].gate_reason)

    def demote(self, model: BidModel | VolatilityModel, rows: Any, reason: str) -> Registered:
        """Make the baseline inside the champion the champion; raises `StoreError`."""
        from btc_core.registry import promotion  # noqa: PLC0415 - the same

        return promotion.demote(settings(), model, rows, reason)

    def champion(self, name: str) -> BidModel | VolatilityModel:
        """The champion, loaded with parity; raises `NotReady` or `SchemaError`."""
        from btc_core.registry import bundles  # noqa: PLC0415 - the same

        return bundles.load_champion(settings(), name)

    def held(self, name: str) -> BidModel | VolatilityModel | None:
        """The champion, None when there is none that this process could use: then nothing stands in the way of a new one."""
        try:
            return self.champion(name)
        except (NotReady, SchemaError):
            return None

    def in_shadow(self, name: str) -> BidModel | VolatilityModel | None:
        """The challenger, None when there is none that this process could use."""
        from btc_core.registry import bundles  # noqa: PLC0415 - the same

        version = bundles.version_of(settings(), name, CHALLENGER)
        try:
            return None if version is None else bundles.load_version(settings(), name, version)
        except SchemaError:
            return None
