"""The adapter of each exchange, by the name in `BTC_EXCHANGE_NAME`.

What does not belong here: anything that concerns one exchange only (`kraken`, `coinbase`, `binance`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.exchanges.binance import Binance, BinancePerpetual
from btc_core.exchanges.coinbase import Coinbase
from btc_core.exchanges.kraken import Kraken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.exchanges.interface import Exchange
    from btc_core.settings import ExchangeSettings

EXCHANGES: Mapping[str, type[Exchange]] = {
    Kraken.name: Kraken,
    Coinbase.name: Coinbase,
    Binance.name: Binance,
    BinancePerpetual.name: BinancePerpetual,
}
"""The adapter class of each exchange."""


def exchange_of(settings: ExchangeSettings) -> Exchange:
    """Return the adapter of the exchange that the settings name."""
    return EXCHANGES[settings.name](settings)
