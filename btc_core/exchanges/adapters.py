"""The exchanges that the pipeline can follow, by the name in `BTC_EXCHANGE_NAME`.

What does not belong here: anything of one exchange (`kraken`, `coinbase`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.exchanges.coinbase import Coinbase
from btc_core.exchanges.kraken import Kraken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.exchanges.interface import Exchange
    from btc_core.settings import ExchangeSettings

EXCHANGES: Mapping[str, type[Exchange]] = {Kraken.name: Kraken, Coinbase.name: Coinbase}
"""The adapter class of each exchange."""


def exchange_of(settings: ExchangeSettings) -> Exchange:
    """The adapter of the exchange that the settings name."""
    return EXCHANGES[settings.name](settings)
