"""The adapter of an exchange besides the home exchange: it takes and returns symbols that name the exchange.

What does not belong here: the form of such a symbol (`btc_core.names`), or the symbols of frames in the log (`decoding`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.exchanges.decoding import qualified_frame
from btc_core.names import pair_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from btc_core.exchanges.interface import Exchange, GapSearch, Request, TradePage
    from btc_core.market.frames import AnyFrame, Trade
    from btc_core.market.messages import GapNotice


class QualifiedExchange:
    """Another adapter that is asked for pairs; `interface.Exchange` describes the attributes and methods.

    The frames of `bars_frame` and `trade_page` are for the log, so they hold pairs, as the exchange sends them.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.name = exchange.name
        self.channels = exchange.channels
        self.side_channels = exchange.side_channels
        self.routes = exchange.routes
        self.requests_per_s = exchange.requests_per_s
        self.sends_snapshots = exchange.sends_snapshots
        self.time_path = exchange.time_path
        self.rest_pause_s = exchange.rest_pause_s
        self.budget = exchange.budget
        self.decode: Callable[[bytes | str], AnyFrame] = self._decode

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> Request:
        """Return the message of the exchange for these symbols."""
        return self._exchange.request(method, channel, [pair_of(symbol) for symbol in symbols], number)

    def ping(self, number: int) -> Request | None:
        """Return the ping of the exchange."""
        return self._exchange.ping(number)

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """Fetch the bars of the pair."""
        return self._exchange.minute_bars(pair_of(symbol), days)

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """Encode the bars of the pair."""
        return self._exchange.bars_frame(pair_of(symbol), bars)

    def gap_search(self, gap: GapNotice) -> GapSearch:
        """Return where to look for the trades of the gap; no exchange looks at its symbol."""
        return self._exchange.gap_search(gap)

    def trade_page(self, symbol: str, cursor: int) -> TradePage:
        """Request trades of the pair."""
        return self._exchange.trade_page(pair_of(symbol), cursor)

    def trades_since(self, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        """Fetch trades of the pair."""
        return self._exchange.trades_since(pair_of(symbol), since_ns)

    def _decode(self, raw: bytes | str) -> AnyFrame:
        return qualified_frame(self._exchange.decode(raw), self.name)
