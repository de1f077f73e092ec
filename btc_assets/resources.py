"""Dagster resources: thin holders that hand out plain `btc_core` clients, so that assets can be tested with others.

What does not belong here: configuration. Settings come from the environment of the process, as everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from btc_core.settings import Settings, settings

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.bundle import BidModel, VolatilityModel
    from btc_core.object_store import ObjectStore
    from btc_core.questdb_client import QuestDB
    from btc_core.registry import Registered


class Environment(dg.ConfigurableResource[Any]):
    """The settings of this process."""

    def get(self) -> Settings:
        """All settings, frozen."""
        return settings()


class Database(dg.ConfigurableResource[Any]):
    """QuestDB."""

    def connect(self) -> QuestDB:
        """A client of its own; use it in a `with`."""
        from btc_core.questdb_client import QuestDB  # noqa: PLC0415 - pyarrow is slow to import

        return QuestDB(settings().questdb)


class Lake(dg.ConfigurableResource[Any]):
    """The bucket of copies on the object store."""

    def connect(self) -> ObjectStore:
        """A client of its own; use it in a `with`."""
        from btc_core.object_store import ObjectStore  # noqa: PLC0415 - boto3 is slow to import

        return ObjectStore(settings().store)


class Registry(dg.ConfigurableResource[Any]):
    """The MLflow model registry."""

    def register(self, folder: Path, params: dict[str, str]) -> Registered:
        """Log, register and promote the bundle in `folder`; raises `StoreError`."""
        from btc_core import registry  # noqa: PLC0415 - needs XGBoost's neighbours, slow to import

        return registry.register(settings(), folder, params)

    def champion(self, name: str) -> BidModel | VolatilityModel:
        """The champion, loaded with parity; raises `NotReady` or `SchemaError`."""
        from btc_core import registry  # noqa: PLC0415 - the same

        return registry.load_champion(settings(), name)
