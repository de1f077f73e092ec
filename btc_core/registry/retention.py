"""Which versions of models are deleted from the registry: old ones without an alias, with their files.

What does not belong here: the user's own models, whose versions the league keeps (`btc_core.league`), and bundles that have served
(`served_models`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_DAY
from btc_core.names import ALIASES
from btc_core.registry.bundles import mlflow_of, version_of
from btc_core.registry.keys import model_keys

if TYPE_CHECKING:
    from btc_core.settings import Settings


def expire(settings: Settings, at_ns: int) -> list[str]:
    """Delete the versions older than `BTC_MLFLOW_KEEP_DAYS` that no alias names; returns their names. Raises `StoreError`."""
    mlflow = mlflow_of(settings)
    oldest_ns = at_ns - settings.mlflow.keep_days * NS_PER_DAY
    deleted = []
    for key in model_keys(settings.exchange.symbols):
        kept = {version_of(settings, key, alias) for alias in ALIASES}
        for version in mlflow.all_versions(key.name):
            if version.version not in kept and version.created_ns < oldest_ns:
                mlflow.delete_version(key.name, version)
                deleted.append(f"{key.name} {version.version}")
    return deleted
