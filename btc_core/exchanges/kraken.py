"""The adapter of Kraken: the requests of its WebSocket v2 and its public REST API.

What does not belong here: its frames (`market.frames`), or when to send a request (`streaming`, `btc_assets`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.clock import NS_PER_S, NS_PER_US, from_ns
from btc_core.errors import ExchangeError
from btc_core.exchanges.rest import closed_bars, drop_open_bar, fetch, fetch_json, next_page_ns, unexpected_form
from btc_core.market import frames
from btc_core.market.checked_bars import parse_csv
from btc_core.market.frames import KRAKEN, Candle, OhlcFrame, Trade, TradeFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from btc_core.market.frames import AnyFrame
    from btc_core.market.messages import GapNotice
    from btc_core.settings import ExchangeSettings

_answer_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_frame_encoder = msgspec.json.Encoder(decimal_format="number")

MAX_TRADES = 1_000
"""The largest number of trades in one answer."""
CLOCK_STEP_NS = 5 * NS_PER_S
"""How far the time of a trade may be from its place in the order of ids: the exchange's clock sometimes steps."""
REST_ASSETS = {"BTC": "XBT"}
"""The names that REST uses for assets with another name on the WebSocket."""
INSTRUMENT = "instrument"
CHANNEL_OPTIONS: dict[str, dict[str, object]] = {"ticker": {"event_trigger": "bbo"}, "book": {"depth": 10}}
"""`ticker` is sent on every change of the best bid or offer; the book has ten levels on each side."""


class RestTrade(msgspec.Struct, frozen=True, array_like=True):
    """A row of the REST answer `Trades`, with the digits of the wire."""

    price: Decimal
    qty: Decimal
    time_s: Decimal
    side: str
    """`b` (buy) or `s` (sell)."""
    ord_type: str
    """`m` (market) or `l` (limit)."""
    misc: str
    trade_id: int

    def trade(self, symbol: str) -> Trade:
        """Convert the row to the trade that the WebSocket would have sent, whose time has microseconds.

        Raises `ExchangeError` if the price or the quantity is not a finite number.
        """
        if not (self.price.is_finite() and self.qty.is_finite()):
            raise ExchangeError(f"trade {self.trade_id}: price {self.price} or quantity {self.qty} is not finite")
        side = {"b": "buy", "s": "sell"}.get(self.side, self.side)
        ord_type = {"m": "market", "l": "limit"}.get(self.ord_type, self.ord_type)
        timestamp = from_ns(int(self.time_s * 1_000_000) * NS_PER_US)
        return Trade(symbol, side, self.price, self.qty, ord_type, self.trade_id, timestamp)


def rest_pair(symbol: str) -> str:
    """Return the name of a pair in REST requests.

    >>> rest_pair("BTC/USD")
    'XBTUSD'
    """
    base, _, quote = symbol.partition("/")
    return f"{REST_ASSETS.get(base, base)}{REST_ASSETS.get(quote, quote)}"


def trade_frame(trade: Trade) -> bytes:
    """Encode a trade as the frame that the WebSocket would have sent."""
    return _frame_encoder.encode(TradeFrame("update", [trade]))


class Kraken:
    """The adapter; `interface.Exchange` describes its attributes and methods."""

    name = KRAKEN
    channels: tuple[str, ...] = ("trade", "ticker", "book")
    side_channels: tuple[str, ...] = (INSTRUMENT,)
    time_path = "/0/public/Time"
    rest_pause_s = 1.05
    """REST accepts one request a second for each address and pair."""
    decode: Callable[[bytes | str], AnyFrame] = staticmethod(frames.decode)

    def __init__(self, settings: ExchangeSettings) -> None:
        self._settings = settings

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> dict[str, Any]:
        """Return the message; a subscription asks for a snapshot, which shows what the connection missed."""
        params: dict[str, object] = {"channel": channel}
        if channel != INSTRUMENT:
            params |= {"symbol": list(symbols), **CHANNEL_OPTIONS.get(channel, {})}
        if method == "subscribe":
            params["snapshot"] = True
        return {"method": method, "params": params, "req_id": number}

    def ping(self, number: int) -> dict[str, Any]:
        """Return a ping; its answer contains the exchange's time."""
        return {"method": "ping", "req_id": number}

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """Read the published file (`history`) if there is one, else the last 720 minutes from REST (`rest`)."""
        if self._settings.history_url:
            url = f"{self._settings.history_url}/{rest_pair(symbol)}_1.csv"
            return drop_open_bar(parse_csv(fetch(url, {"days": days}).text, url)), "history"
        result = self.get("OHLC", pair=rest_pair(symbol), interval=1)
        try:
            rows = [(row[0], row[1], row[2], row[3], row[4], row[6], row[7]) for row in _pair_rows(result)]
            return closed_bars(rows, "OHLC"), "rest"
        except (IndexError, TypeError, ValueError, StopIteration) as error:
            raise unexpected_form("OHLC", error) from error

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """Encode the bars as the frame that the WebSocket would send."""
        candles = [
            Candle(symbol, opened, high, low, close, volume, from_ns(ts_ns), 1)
            for ts_ns, opened, high, low, close, volume, _trades in bars.tolist()
        ]
        return _frame_encoder.encode(OhlcFrame("snapshot", candles))

    def missing_trades(self, gap: GapNotice, cursor: int | None) -> tuple[dict[int, bytes], int | None]:
        """Request trades by time, with a margin of `CLOCK_STEP_NS` around the gap; the cursor is a time."""
        begin_ns, end_ns = sorted((gap.after_ns, gap.before_ns))
        since_ns = max(0, begin_ns - CLOCK_STEP_NS) if cursor is None else cursor
        page, newest_ns = self.trades_since(gap.symbol, since_ns)
        found = {trade.trade_id: trade_frame(trade) for trade in page if gap.first_id <= trade.trade_id <= gap.last_id}
        return found, None if newest_ns > end_ns + CLOCK_STEP_NS or not page else next_page_ns(since_ns, newest_ns)

    def trades_since(self, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        """Fetch up to `MAX_TRADES` trades."""
        result = self.get("Trades", pair=rest_pair(symbol), since=since_ns, count=MAX_TRADES)
        try:
            rows = msgspec.convert(_pair_rows(result), list[RestTrade])
            return [row.trade(symbol) for row in rows], int(result["last"])
        except (KeyError, StopIteration, TypeError, ValueError, msgspec.ValidationError) as error:
            raise unexpected_form("Trades", error) from error

    def get(self, path: str, **params: str | int) -> dict[str, Any]:
        """Send one GET under `/0/public` and return the `result` object; its numbers keep the digits of the wire.

        Raises `ExchangeError`, also for an error that the exchange sends with the status 200.
        """
        answer = fetch_json(f"{self._settings.rest_url}/0/public/{path}", params, _answer_decoder)
        if answer.get("error"):
            raise ExchangeError(f"the exchange refused {path}: {', '.join(map(str, answer['error']))}")
        if not isinstance(answer.get("result"), dict):
            raise ExchangeError(f"the exchange answered {path} without a result")
        return answer["result"]  # type: ignore[no-any-return]


def _pair_rows(result: dict[str, Any]) -> Any:
    """Return the rows of a result. Their key is the pair, which REST may spell in another way than the request."""
    return next(value for name, value in result.items() if name != "last")
