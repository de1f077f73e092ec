"""What the pipeline asks of an exchange.

What does not belong here: which exchanges there are (`adapters`), or what their frames mean (`decoding`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from btc_core.market.frames import AnyFrame, Trade
    from btc_core.market.messages import GapNotice
    from btc_core.settings import ExchangeSettings

Request = dict[str, Any]
"""What is sent on the socket, as JSON."""


class Exchange(Protocol):
    """Public market data of one exchange; what it does not have, it does not make up.

    Its connection is alive while anything but answers to pings comes, so it has to be asked for heartbeats where it
    does not send them by itself.
    """

    name: str
    channels: tuple[str, ...]
    """Followed for each symbol: `trade`, `ticker`, and `book` where the exchange proves its book by checksums."""
    side_channels: tuple[str, ...]
    """Asked for once a connection: heartbeats, reference data."""
    time_path: str
    """Of REST, for asking whether the exchange is there."""
    rest_pause_s: float
    """Between two requests, so that the exchange answers them all."""
    decode: Callable[[bytes | str], AnyFrame]
    """One frame of the socket, or one made by `bars_frame` or `missing_trades`; raises `BadFrame`."""

    def __init__(self, settings: ExchangeSettings) -> None: ...

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> Request:
        """`subscribe` to a channel, with a snapshot where there is one, or `unsubscribe`; `number` may come back."""

    def ping(self, number: int) -> Request | None:
        """A request whose answer tells the exchange's clock, where there is one."""

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """Closed minute bars (dtype `bars.BARS`) of up to the last `days`, and their source; raises `ExchangeError`."""

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """Bars (dtype `bars.BARS`) as a frame for the log."""

    def missing_trades(self, gap: GapNotice, cursor: int | None) -> tuple[dict[int, bytes], int | None]:
        """One request for trades of a gap: frames for the log by trade_id, and the cursor of the next request.

        The cursor is None at first, and when the gap is behind. Raises `ExchangeError`.
        """

    def trades_since(self, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        """A page of trades later than `since_ns`, oldest first, and the cursor of the next one, ns.

        Raises `NotOffered` when the exchange does not find trades by time, else `ExchangeError`.
        """
