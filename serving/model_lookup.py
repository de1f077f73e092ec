"""The loaded models, looked up by market and quantity.

What does not belong here: loading models and replacing them by newer ones (`btc_core.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.models.bundle import BidModel, VolatilityModel
from btc_core.names import BID, VOLATILITY, ModelKey, Quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

Model = BidModel | VolatilityModel


class ModelGeneration:
    """The models that were loaded at one moment.

    An answer takes one generation and keeps it, so that it cannot mix models from before and after a reload. A market
    without models of its own is forecast by those of the first market that has some.
    """

    def __init__(
        self, models: Mapping[ModelKey, Model], modelled_symbols: tuple[str, ...], reasons: tuple[str, ...]
    ) -> None:
        self._models = models
        self._modelled_symbols = modelled_symbols
        self.reasons = reasons
        """Why a model is missing or not the newest; empty if all is well."""

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model of this generation."""
        return tuple(self._models.values())

    def bid(self, symbol: str) -> BidModel | None:
        """The model that forecasts the bid of a market, None if there is none yet."""
        model = self._models.get(self._key(symbol, BID))
        return model if isinstance(model, BidModel) else None

    def volatility(self, symbol: str) -> VolatilityModel | None:
        """The model that forecasts the volatility of a market, None if there is none yet."""
        model = self._models.get(self._key(symbol, VOLATILITY))
        return model if isinstance(model, VolatilityModel) else None

    def can_forecast(self, symbol: str, quantity: Quantity) -> bool:
        """Whether there are models for a forecast of `quantity`. That of the bid needs both, that of the volatility its own."""
        return self.volatility(symbol) is not None and (quantity == VOLATILITY or self.bid(symbol) is not None)

    def _key(self, symbol: str, quantity: Quantity) -> ModelKey:
        return ModelKey(symbol if symbol in self._modelled_symbols else self._modelled_symbols[0], quantity)
