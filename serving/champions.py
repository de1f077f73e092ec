"""Champions from the MLflow registry, or from the cache on disk while it is away.

What does not belong here: when to load (`models`) and how (`btc_core.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from btc_core import registry
from btc_core.bundle import BID_MODEL, VOLATILITY_MODEL, BidModel, VolatilityModel
from btc_core.errors import SchemaError

if TYPE_CHECKING:
    from btc_core.settings import Settings

Model = TypeVar("Model", BidModel, VolatilityModel)


class RegistrySource:
    """The MLflow registry, and the cache on disk while it is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def champion_version(self, name: str) -> str | None:
        """Version of the champion, None when there is none."""
        return registry.champion_version(self._settings, name)

    def bid_model(self) -> BidModel:
        """Load the champion of the bid price."""
        return _expect(registry.load_champion(self._settings, BID_MODEL), BidModel)

    def volatility_model(self) -> VolatilityModel:
        """Load the champion of the volatility."""
        return _expect(registry.load_champion(self._settings, VOLATILITY_MODEL), VolatilityModel)


def _expect(model: object, kind: type[Model]) -> Model:
    if not isinstance(model, kind):
        msg = f"the registry holds a {type(model).__name__} where a {kind.__name__} belongs; train the model again"
        raise SchemaError(msg)
    return model
