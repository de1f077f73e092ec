"""The interface that an adapter of an exchange implements.

What does not belong here: the list of exchanges (`adapters`), or the decoding of frames in the log (`decoding`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from btc_core.exchanges.rest import RequestBudget
    from btc_core.market.frames import AnyFrame, Trade
    from btc_core.market.messages import GapNotice

Request = dict[str, Any]
"""A message to the WebSocket, before it is encoded as JSON."""


class GapSearch(msgspec.Struct, frozen=True):
    """Where REST may have the trades of a gap.

    A cursor is a position in the order in which REST pages through trades; it grows from page to page.
    """

    begins: tuple[int, ...]
    """The cursors at which a search may begin, the best first. The next one is tried if a search leads to no trade before
    the gap, or takes far more pages than the gap can fill."""
    end: int
    """The cursor at which the search has passed the whole gap."""


class PageTrade(msgspec.Struct, frozen=True):
    """A trade in an answer of REST."""

    trade_id: int
    """Two trades have the same id if the ids restarted."""
    ts_ns: int
    """The exchange time."""
    frame: bytes
    """The frame for the log."""


class TradePage(msgspec.Struct, frozen=True):
    """One answer of REST: the trades behind a cursor, in any order."""

    trades: list[PageTrade]
    next: int | None
    """The cursor of the next page; None if REST has no further trades at the moment."""


class Exchange(Protocol):
    """The public market data of one exchange. An adapter never invents data that its exchange does not offer.

    A connection counts as working while frames other than answers to pings arrive. An adapter must therefore subscribe
    to heartbeats if its exchange does not send them unasked.
    """

    name: str
    channels: tuple[str, ...]
    """The channels to follow for each symbol: `trade`, `ticker`, `book` if its frames have checksums, and `mark_price`."""
    side_channels: tuple[str, ...]
    """The channels to subscribe to once per connection: heartbeats, reference data."""
    routes: Mapping[str, tuple[str, ...]]
    """By path, which is appended to the address of the WebSocket, the channels that the exchange sends there. Each path
    takes a connection of its own. Most exchanges send everything on one."""
    requests_per_s: float
    """Messages that may be sent on a connection in a second; as many may be sent at once."""
    sends_snapshots: bool
    """Whether a subscription brings a snapshot. Without one, only the acknowledgement shows that a quiet subscription works."""
    time_path: str
    """The REST path of the exchange's clock, used to check whether the exchange can be reached."""
    rest_pause_s: float
    """The pause after a REST request that keeps a process below the exchange's rate limit; the adapter itself keeps it."""
    budget: RequestBudget
    """The budget of REST requests, which all adapters of the exchange in a process share."""
    decode: Callable[[bytes | str], AnyFrame]
    """Decode a frame of the WebSocket, of `bars_frame` or of `trade_page`; raises `BadFrame`."""

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> Request:
        """Return the message that will `subscribe` to a channel, with a snapshot if there is one, or `unsubscribe`.

        An exchange that supports request numbers sends `number` back in its answer. An answer that confirms a request
        without naming a channel or a symbol confirms all of it.
        """

    def ping(self, number: int) -> Request | None:
        """Return a message whose answer contains the exchange's clock; None if the exchange has no such message."""

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """Fetch closed minute bars (dtype `bars.BARS`) of up to the last `days` days; return them and their source.

        Raises `ExchangeError`.
        """

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """Encode bars (dtype `bars.BARS`) as a frame for the log."""

    def gap_search(self, gap: GapNotice) -> GapSearch:
        """Return where to look for the trades of a gap. The times of the gap may be wrong, because a trade had a wrong time."""

    def trade_page(self, symbol: str, cursor: int) -> TradePage:
        """Send one request for the trades behind a cursor.

        Raises `NotOffered` if REST does not know the symbol, `RateLimited` if it refuses requests for a while, else
        `ExchangeError`.
        """

    def trades_since(self, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        """Fetch a page of trades after `since_ns`, oldest first; return them and the time of the newest one in ns.

        Raises `NotOffered` if the exchange cannot find trades by time or does not know the symbol, else `ExchangeError`.
        """
