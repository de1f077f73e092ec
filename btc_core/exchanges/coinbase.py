"""The adapter of Coinbase: the requests of its Exchange feed and its public REST API. Neither needs a key.

Coinbase offers less than Kraken. It sends no checksums of its book, so the book is not followed. It answers no ping with
its time, so the difference between the clocks follows from the times in its frames (`streaming.exchange_clock`). It sends
a ticker with each match, not with each change of the best bid or offer. REST finds trades by trade_id, not by time. Its
minute bars go back for years.

What does not belong here: its frames (`coinbase_frames`), or when to send a request (`streaming`, `btc_assets`).
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_S, from_ns, now_ns, to_ns
from btc_core.errors import NotOffered
from btc_core.exchanges import coinbase_frames
from btc_core.exchanges.coinbase_frames import CHANNEL_NAMES, Candles, Match, product_of
from btc_core.exchanges.decoding import COINBASE
from btc_core.exchanges.interface import GapSearch, PageTrade, TradePage
from btc_core.exchanges.rest import budget_of, closed_bars, fetch_json, retry_when_rate_limited, unexpected_form
from btc_core.market.frames import Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from btc_core.exchange_settings import ExchangeSettings
    from btc_core.market.frames import AnyFrame
    from btc_core.market.messages import GapNotice

Answer = TypeVar("Answer")

MAX_TRADES = 1_000
"""The largest number of trades in one answer."""
MAX_CANDLES = 300
"""The largest number of candles in one answer; a request for more is refused."""
MINUTES_A_DAY = 1_440


class RestTrade(msgspec.Struct, frozen=True):
    """A row of the REST answer `trades`, which is sorted newest first. `side` is the maker's side."""

    trade_id: int
    side: str
    size: Decimal
    price: Decimal
    time: Timestamp

    def match(self, product_id: str) -> bytes:
        """Encode the trade as the frame that the WebSocket would have sent."""
        return msgspec.json.encode(Match(product_id, self.trade_id, self.side, self.size, self.price, self.time))


_trades_decoder = msgspec.json.Decoder(list[RestTrade])
_candles_decoder = msgspec.json.Decoder(list[list[float]])


class Coinbase:
    """The adapter; `interface.Exchange` describes its attributes and methods."""

    name = COINBASE
    channels: tuple[str, ...] = ("trade", "ticker")
    side_channels: tuple[str, ...] = ("heartbeat",)
    routes: Mapping[str, tuple[str, ...]] = {"": (*channels, *side_channels)}
    requests_per_s = 10.0
    """Coinbase accepts 100 messages a second; a new connection sends three."""
    sends_snapshots = True
    time_path = "/time"
    rest_pause_s = 0.2
    """REST accepts ten requests a second from one address."""
    decode: Callable[[bytes | str], AnyFrame] = staticmethod(coinbase_frames.decode)

    def __init__(self, settings: ExchangeSettings) -> None:
        self._settings = settings
        self.budget = budget_of(self.name)

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> dict[str, Any]:
        """Return the message; answers to it contain no request number."""
        del number
        return {
            "type": method,
            "product_ids": [product_of(symbol) for symbol in symbols],
            "channels": [CHANNEL_NAMES[channel]],
        }

    def ping(self, number: int) -> None:
        """Return None: Coinbase answers no ping."""

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """Fetch all requested days, 300 minutes in each request; a minute without a trade has no bar."""
        end_ns = now_ns() // NS_PER_MIN * NS_PER_MIN
        rows: list[list[float]] = []
        for minute in range(-days * MINUTES_A_DAY, 0, MAX_CANDLES):
            begin_ns = end_ns + minute * NS_PER_MIN
            last_ns = min(begin_ns + (MAX_CANDLES - 1) * NS_PER_MIN, end_ns)
            rows += retry_when_rate_limited(partial(self._candles, symbol, begin_ns, last_ns), self.rest_pause_s)
        try:
            bars = [(begin_s, first, high, low, last, volume, -1) for begin_s, low, high, first, last, volume in rows]
        except ValueError as error:
            raise unexpected_form("candles", error) from error
        return closed_bars(bars, "candles"), "rest"

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """Encode the bars as a `candles` frame, whose rows have the form of the REST answer."""
        rows = [
            (ts_ns // NS_PER_S, low, high, opened, close, volume)
            for ts_ns, opened, high, low, close, volume, _trades in bars.tolist()
        ]
        return msgspec.json.encode(Candles(product_of(symbol), rows))

    def gap_search(self, gap: GapNotice) -> GapSearch:
        """Search from the trade after the gap down to the trade before it; a cursor is an id, made negative, to stay below."""
        return GapSearch((-(gap.last_id + 2),), 1 - gap.first_id)

    def trade_page(self, symbol: str, cursor: int) -> TradePage:
        """Request the `MAX_TRADES` trades whose ids are below the cursor's. A page less than half full is the last one."""
        rows = self._get(symbol, "trades", _trades_decoder, after=-cursor, limit=MAX_TRADES)
        found = [
            PageTrade(row.trade_id, to_ns(row.time), row.match(product_of(symbol)))
            for row in rows
            if row.trade_id < -cursor
        ]
        return TradePage(found, None if len(found) < MAX_TRADES // 2 else -min(trade.trade_id for trade in found))

    def trades_since(self, symbol: str, since_ns: int) -> NoReturn:
        """Raise `NotOffered`: Coinbase finds trades by trade_id only."""
        raise NotOffered(
            f"Coinbase finds trades by trade_id, not by time; import the trades of {symbol} since "
            f"{from_ns(since_ns):%Y-%m-%d} from a file with `btc import-trades`"
        )

    def _candles(self, symbol: str, begin_ns: int, last_ns: int) -> list[list[float]]:
        span = {"start": from_ns(begin_ns).isoformat(), "end": from_ns(last_ns).isoformat()}
        return self._get(symbol, "candles", _candles_decoder, granularity=60, **span)

    def _get(self, symbol: str, path: str, decoder: msgspec.json.Decoder[Answer], **params: str | int) -> Answer:
        url = f"{self._settings.rest_url}/products/{product_of(symbol)}/{path}"
        answer = fetch_json(url, params, decoder, self.budget, self.rest_pause_s)
        self.budget.answered()
        return answer
