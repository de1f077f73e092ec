"""The adapter of each exchange by its name, and the adapter of a symbol.

What does not belong here: anything that concerns one exchange only (`kraken`, `coinbase`, `binance`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.exchanges.binance import Binance, BinancePerpetual
from btc_core.exchanges.coinbase import Coinbase
from btc_core.exchanges.kraken import Kraken
from btc_core.exchanges.qualified import QualifiedExchange
from btc_core.names import exchange_in, pair_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btc_core.exchange_settings import ExchangeSettings
    from btc_core.exchanges.interface import Exchange

EXCHANGES: Mapping[str, Callable[[ExchangeSettings], Exchange]] = {
    Kraken.name: Kraken,
    Coinbase.name: Coinbase,
    Binance.name: Binance,
    BinancePerpetual.name: BinancePerpetual,
}
"""The adapter class of each exchange. Its settings are those of one exchange, with pairs as symbols."""


def exchange_of(settings: ExchangeSettings, name: str = "") -> Exchange:
    """Return the adapter of the exchange with this name, or of the home exchange.

    The adapter of another exchange takes symbols that name the exchange, as everything behind the log knows them.
    """
    own = settings.only(name or settings.name)
    adapter = EXCHANGES[own.name](own.model_copy(update={"symbols": tuple(map(pair_of, own.symbols))}))
    return adapter if own.name == settings.name else QualifiedExchange(adapter)


def exchange_for(settings: ExchangeSettings, symbol: str) -> Exchange:
    """Return the adapter of the exchange of a symbol."""
    return exchange_of(settings, exchange_in(symbol))
