"""Coinbase: what is asked on its Exchange feed, and its public REST API; neither needs a key.

What it does not offer is not made up. It proves no book by checksums, so no book is followed. It answers no ping, so
its clock counts as ours. Its ticker comes with each match, not with each change of the best bid or offer. REST finds
trades by trade_id, not by time; its minute bars go back for years.
What does not belong here: what its frames mean (`coinbase_frames`), or when to ask (`streaming`, `btc_assets`).
"""

from __future__ import annotations

import time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S, from_ns, now_ns
from btc_core.errors import ExchangeError, NotOffered
from btc_core.exchanges import coinbase_frames
from btc_core.exchanges.coinbase_frames import CHANNELS, Candles, Match, product
from btc_core.exchanges.decoding import COINBASE
from btc_core.exchanges.rest import closed, fetch, patiently
from btc_core.market.bars import bars_from
from btc_core.market.frames import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from btc_core.market.frames import AnyFrame
    from btc_core.market.messages import GapNotice
    from btc_core.settings import ExchangeSettings

MAX_TRADES = 1_000
"""Of one answer."""
MAX_CANDLES = 300
"""Of one answer; a request for more is refused."""
MINUTES_A_DAY = 1_440


class RestTrade(msgspec.Struct, frozen=True):
    """A row of `trades`, newest first; `side` is the maker's."""

    trade_id: int
    side: str
    size: Decimal
    price: Decimal
    time: Moment

    def match(self, product_id: str) -> bytes:
        """As the socket would have sent it."""
        return msgspec.json.encode(Match(product_id, self.trade_id, self.side, self.size, self.price, self.time))


class Coinbase:
    """The adapter; `exchange.Exchange` says what each part is for."""

    name = COINBASE
    channels: tuple[str, ...] = ("trade", "ticker")
    side_channels: tuple[str, ...] = ("heartbeat",)
    time_path = "/time"
    rest_pause_s = 0.2
    """REST takes ten requests a second from an address."""
    decode: Callable[[bytes | str], AnyFrame] = staticmethod(coinbase_frames.decode)

    def __init__(self, settings: ExchangeSettings) -> None:
        self._settings = settings

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> dict[str, Any]:
        """Its snapshot is the last match, or a ticker; no number comes back."""
        del number
        return {"type": method, "product_ids": [product(symbol) for symbol in symbols], "channels": [CHANNELS[channel]]}

    def ping(self, number: int) -> None:
        """Not offered."""

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """All days that are asked for, 300 minutes a request; minutes without a trade have no bar."""
        end_ns = now_ns() // NS_PER_MIN * NS_PER_MIN
        rows: list[list[float]] = []
        for minute in range(-days * MINUTES_A_DAY, 0, MAX_CANDLES):
            begin_ns = end_ns + minute * NS_PER_MIN
            last_ns = min(begin_ns + (MAX_CANDLES - 1) * NS_PER_MIN, end_ns)
            rows += patiently(partial(self._candles, symbol, begin_ns, last_ns), self.rest_pause_s)
            time.sleep(self.rest_pause_s)
        try:
            bars = [(begin_s, first, high, low, last, volume, -1) for begin_s, low, high, first, last, volume in rows]
        except ValueError as error:
            raise ExchangeError(f"the exchange's candles have another form: {error}") from error
        return closed(bars_from(np.array(bars, np.float64).reshape(len(bars), 7), "candles")), "rest"

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """As REST's rows."""
        rows = [
            (ts_ns // NS_PER_S, low, high, opened, close, volume)
            for ts_ns, opened, high, low, close, volume, _trades in bars.tolist()
        ]
        return msgspec.json.encode(Candles(product(symbol), rows))

    def missing_trades(self, gap: GapNotice, cursor: int | None) -> tuple[dict[int, bytes], int | None]:
        """From the end of the gap down to its beginning; the cursor is a trade_id, and older trades come."""
        above = gap.last_id + 1 if cursor is None else cursor
        limit = min(MAX_TRADES, above - gap.first_id)
        rows = self._get(gap.symbol, "trades", list[RestTrade], after=above, limit=limit)
        found = {row.trade_id: row.match(product(gap.symbol)) for row in rows if gap.first_id <= row.trade_id < above}
        lowest = min(found, default=gap.first_id)
        return found, lowest if lowest > gap.first_id else None

    def trades_since(self, symbol: str, since_ns: int) -> NoReturn:
        """Not offered."""
        raise NotOffered(
            f"Coinbase finds trades by trade_id, not by time: import those of {symbol} since "
            f"{from_ns(since_ns):%Y-%m-%d} from a file with `btc import-trades`"
        )

    def _candles(self, symbol: str, begin_ns: int, last_ns: int) -> list[list[float]]:
        span = {"start": from_ns(begin_ns).isoformat(), "end": from_ns(last_ns).isoformat()}
        rows: list[list[float]] = self._get(symbol, "candles", list[list[float]], granularity=60, **span)
        return rows

    def _get(self, symbol: str, what: str, form: Any, **params: str | int) -> Any:
        url = f"{self._settings.rest_url}/products/{product(symbol)}/{what}"
        try:
            return msgspec.json.decode(fetch(url, params).content, type=form)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ExchangeError(f"the exchange's {what} have another form: {error}") from error
