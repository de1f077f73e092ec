"""Which models there are: one for each quantity of each market that has models of its own.

What does not belong here: how a model is called in MLflow (`btc_core.names.ModelKey`), and which markets have models
(`modelled_symbols` in the settings of the exchange).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput
from btc_core.names import QUANTITIES, ModelKey

if TYPE_CHECKING:
    from collections.abc import Sequence


def model_keys(modelled_symbols: Sequence[str]) -> tuple[ModelKey, ...]:
    """The keys of all models, market by market.

    >>> [key.name for key in model_keys(("BTC/USD", "ETH/USD"))]
    ['bid-price-model', 'volatility-model', 'bid-price-model-ETHUSD', 'volatility-model-ETHUSD']
    """
    return tuple(ModelKey(symbol, quantity) for symbol in modelled_symbols for quantity in QUANTITIES)


def key_of_name(name: str, modelled_symbols: Sequence[str]) -> ModelKey:
    """The key of a registered model; raises `InvalidInput` if no model has this name."""
    keys = {key.name: key for key in model_keys(modelled_symbols)}
    if name not in keys:
        msg = f"there is no model {name}; the models are {', '.join(keys)}"
        raise InvalidInput(msg)
    return keys[name]


def modelled_by(symbol: str, modelled_symbols: Sequence[str]) -> str:
    """The market whose models forecast `symbol`: its own if it has models, otherwise the first market that has.

    >>> modelled_by("ETH/USD", ("BTC/USD", "ETH/USD")), modelled_by("SOL/USD", ("BTC/USD", "ETH/USD"))
    ('ETH/USD', 'BTC/USD')
    """
    return symbol if symbol in modelled_symbols else modelled_symbols[0]
