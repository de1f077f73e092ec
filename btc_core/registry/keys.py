"""Which models there are: one for each quantity of each market that is followed.

What does not belong here: how a model is called in MLflow (`btc_core.names.ModelKey`), and which markets are followed
(`symbols` in the settings of the exchange).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput
from btc_core.names import QUANTITIES, ModelKey

if TYPE_CHECKING:
    from collections.abc import Sequence


def model_keys(symbols: Sequence[str]) -> tuple[ModelKey, ...]:
    """The keys of all models, market by market.

    >>> [key.name for key in model_keys(("BTC/USD", "ETH/USD"))]
    ['bid-price-model', 'volatility-model', 'bid-price-model-ETHUSD', 'volatility-model-ETHUSD']
    """
    return tuple(ModelKey(symbol, quantity) for symbol in symbols for quantity in QUANTITIES)


def key_of_name(name: str, symbols: Sequence[str]) -> ModelKey:
    """The key of a registered model; raises `InvalidInput` if no model has this name."""
    keys = {key.name: key for key in model_keys(symbols)}
    if name not in keys:
        msg = f"there is no model {name}; the models are {', '.join(keys)}"
        raise InvalidInput(msg)
    return keys[name]
