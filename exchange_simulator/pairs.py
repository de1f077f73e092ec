"""The pairs that the simulated exchange lists: their names, price precision and typical price.

What does not belong here: how prices move (`market.generated`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable


V1_ASSETS = {"BTC": "XBT", "DOGE": "XDG"}
"""Assets that REST and the WebSocket v1 know by other names than the WebSocket v2."""


class Pair(msgspec.Struct, frozen=True):
    """One listed pair. Prices are integers of `10 ** -price_decimals` ("ticks") everywhere in this package."""

    symbol: str
    """The name on the WebSocket."""
    rest_name: str
    """The name in REST requests."""
    rest_key: str
    """The key of this pair in REST answers."""
    price_decimals: int
    base_price: float
    """The price around which the generated market moves, in the quote currency."""

    @property
    def v1_symbol(self) -> str:
        """The name on the old WebSocket v1, which REST's `AssetPairs` still gives as `wsname`.

        >>> PAIRS["DOGE/USD"].v1_symbol
        'XDG/USD'
        """
        return "/".join(V1_ASSETS.get(asset, asset) for asset in self.symbol.split("/"))

    @property
    def ticks_per_unit(self) -> int:
        """Ticks in one unit of the quote currency."""
        return 10**self.price_decimals  # type: ignore[no-any-return]

    def price_text(self, price_ticks: int) -> str:
        """The price as the WebSocket prints it.

        >>> BTC_USD.price_text(600_001)
        '60000.1'
        """
        whole, part = divmod(price_ticks, self.ticks_per_unit)
        return f"{whole}.{part:0{self.price_decimals}d}"


BTC_USD = Pair("BTC/USD", "XBTUSD", "XXBTZUSD", 1, 60_000.0)

_FIRST_PAIRS = (
    BTC_USD,
    Pair("ETH/USD", "ETHUSD", "XETHZUSD", 2, 3_000.0),
    Pair("SOL/USD", "SOLUSD", "SOLUSD", 2, 150.0),
    Pair("XRP/USD", "XRPUSD", "XXRPZUSD", 5, 0.6),
    Pair("LTC/USD", "LTCUSD", "XLTCZUSD", 2, 80.0),
    Pair("ADA/USD", "ADAUSD", "ADAUSD", 6, 0.4),
    Pair("BCH/USD", "BCHUSD", "BCHUSD", 2, 400.0),
    Pair("LINK/USD", "LINKUSD", "LINKUSD", 5, 15.0),
    Pair("DOGE/USD", "XDGUSD", "XDGUSD", 5, 0.12),
    Pair("XLM/USD", "XLMUSD", "XXLMZUSD", 5, 0.11),
    Pair("ETC/USD", "ETCUSD", "XETCZUSD", 3, 25.0),
    Pair("XMR/USD", "XMRUSD", "XXMRZUSD", 2, 160.0),
    Pair("ZEC/USD", "ZECUSD", "XZECZUSD", 2, 30.0),
    Pair("MLN/USD", "MLNUSD", "XMLNZUSD", 3, 18.0),
    Pair("REP/USD", "REPUSD", "XREPZUSD", 3, 1.2),
)
"""The first pairs of the listing. The REST names of most are not simply the symbol without the slash."""

_OTHER_PAIRS = """
AAVE 2 95      ALGO 5 0.15    APE 4 1.0      APT 4 8.0      ARB 4 0.9      ATOM 4 7.0     AVAX 2 30
AXS 3 6.5      BAL 3 3.0      BAND 3 1.3     BAT 5 0.2      COMP 2 50      CRV 4 0.35     DASH 3 28
DOT 4 6.0      DYDX 4 1.4     EGLD 2 35      ENJ 4 0.2      ENS 3 20       FET 4 1.3      FIL 3 5.0
FLOW 4 0.7     GMX 3 28       GRT 5 0.2      ICP 3 9.0      IMX 4 1.6      INJ 3 22       JUP 5 0.8
KAVA 4 0.45    KSM 2 25       LDO 3 1.8      MANA 5 0.35    MINA 4 0.6     NEAR 4 5.0     OP 4 1.8
PENDLE 4 4.0   PYTH 5 0.35    QTUM 4 2.6     RUNE 4 4.5     SAND 4 0.35    SEI 5 0.4      SNX 3 2.2
STX 4 1.7      SUI 4 1.1      TAO 2 350      TIA 4 7.0      TRX 6 0.12     UNI 3 8.0      XTZ 4 0.8
"""
"""Asset, decimals of its price, typical price in USD. REST uses the WebSocket symbol without the slash.

No asset costs less than 0.1 USD: the volume of a REST candle in lots must fit into 64 bits, and it grows as the price
falls."""


def _parsed(text: str) -> tuple[Pair, ...]:
    """The pairs of a table like `_OTHER_PAIRS`."""
    words = text.split()
    rows = zip(words[::3], words[1::3], words[2::3], strict=True)
    return tuple(
        Pair(f"{asset}/USD", f"{asset}USD", f"{asset}USD", int(decimals), float(price))
        for asset, decimals, price in rows
    )


PAIRS = {pair.symbol: pair for pair in (*_FIRST_PAIRS, *_parsed(_OTHER_PAIRS))}


def choose(symbols: Iterable[str]) -> tuple[Pair, ...]:
    """The pairs with these WebSocket symbols, in the given order; raises `ConfigError` for a symbol that is not listed."""
    chosen = []
    for symbol in symbols:
        if symbol not in PAIRS:
            msg = f"the simulator does not list {symbol!r}; it lists {', '.join(PAIRS)}"
            raise ConfigError(msg)
        chosen.append(PAIRS[symbol])
    return tuple(chosen)
