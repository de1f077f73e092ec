"""Kraken: what is asked on its WebSocket v2, whose frames are those of `frames` as they are, and its public REST API.

What does not belong here: when to ask (`streaming`, `btc_assets`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_S, NS_PER_US, from_ns
from btc_core.errors import ExchangeError
from btc_core.exchanges.rest import closed, fetch, next_page_ns
from btc_core.market import frames
from btc_core.market.bars import bars_from, parse_csv
from btc_core.market.frames import KRAKEN, Candle, OhlcFrame, Trade, TradeFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from btc_core.market.frames import AnyFrame
    from btc_core.market.messages import GapNotice
    from btc_core.settings import ExchangeSettings

_json: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_wire = msgspec.json.Encoder(decimal_format="number")

MAX_TRADES = 1_000
"""Of one answer."""
OFF_NS = 5 * NS_PER_S
"""How far the times of trades may be from the order of their ids: an exchange's clock steps now and then."""
REST_NAMES = {"BTC": "XBT"}
"""Assets that REST calls by another name than the socket."""
INSTRUMENT = "instrument"
OPTIONS: dict[str, dict[str, object]] = {"ticker": {"event_trigger": "bbo"}, "book": {"depth": 10}}
"""`ticker` on every change of the best bid or offer; the book ten levels deep."""


class RestRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of `Trades` with the digits of the wire."""

    price: Decimal
    qty: Decimal
    time_s: Decimal
    side: str
    """`b` or `s`."""
    ord_type: str
    """`m` or `l`."""
    misc: str
    trade_id: int

    def trade(self, symbol: str) -> Trade:
        """As the socket would have sent it; digits of the time beyond a microsecond are dropped, as there.

        Raises `ExchangeError` when a price or quantity is no number: the log must hold frames that can be read.
        """
        if not (self.price.is_finite() and self.qty.is_finite()):
            raise ExchangeError(f"trade {self.trade_id} has {self.price} and {self.qty} where numbers belong")
        side = {"b": "buy", "s": "sell"}.get(self.side, self.side)
        ord_type = {"m": "market", "l": "limit"}.get(self.ord_type, self.ord_type)
        moment = from_ns(int(self.time_s * 1_000_000) * NS_PER_US)
        return Trade(symbol, side, self.price, self.qty, ord_type, self.trade_id, moment)


def rest_pair(symbol: str) -> str:
    """`BTC/USD` as REST takes it.

    >>> rest_pair("BTC/USD")
    'XBTUSD'
    """
    base, _, quote = symbol.partition("/")
    return f"{REST_NAMES.get(base, base)}{REST_NAMES.get(quote, quote)}"


def trade_frame(trade: Trade) -> bytes:
    """A trade of REST as the frame that the socket would have sent."""
    return _wire.encode(TradeFrame("update", [trade]))


class Kraken:
    """The adapter; `exchange.Exchange` says what each part is for."""

    name = KRAKEN
    channels: tuple[str, ...] = ("trade", "ticker", "book")
    side_channels: tuple[str, ...] = (INSTRUMENT,)
    time_path = "/0/public/Time"
    rest_pause_s = 1.05
    """REST takes one request a second for an address and pair."""
    decode: Callable[[bytes | str], AnyFrame] = staticmethod(frames.decode)

    def __init__(self, settings: ExchangeSettings) -> None:
        self._settings = settings

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> dict[str, Any]:
        """With the snapshot that shows what was missed; heartbeats come by themselves."""
        params: dict[str, object] = {"channel": channel}
        if channel != INSTRUMENT:
            params |= {"symbol": list(symbols), **OPTIONS.get(channel, {})}
        if method == "subscribe":
            params["snapshot"] = True
        return {"method": method, "params": params, "req_id": number}

    def ping(self, number: int) -> dict[str, Any]:
        """Its pong has the exchange's time."""
        return {"method": "ping", "req_id": number}

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """Of the published file (`history`) where there is one, else the last 720 minutes that REST has (`rest`)."""
        if self._settings.history_url:
            url = f"{self._settings.history_url}/{rest_pair(symbol)}_1.csv"
            return closed(parse_csv(fetch(url, {"days": days}).text, url)), "history"
        result = self.get("OHLC", pair=rest_pair(symbol), interval=1)
        try:
            rows = next(value for name, value in result.items() if name != "last")
            picked = [(row[0], row[1], row[2], row[3], row[4], row[6], row[7]) for row in rows]
            numbers = np.array(picked, np.float64).reshape(len(picked), 7)
        except (IndexError, TypeError, ValueError, StopIteration) as error:
            raise ExchangeError(f"the exchange's OHLC answer has another form: {error!r}") from error
        return closed(bars_from(numbers, "OHLC")), "rest"

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """As the socket would send them."""
        candles = [
            Candle(symbol, opened, high, low, close, volume, from_ns(ts_ns), 1)
            for ts_ns, opened, high, low, close, volume, _trades in bars.tolist()
        ]
        return _wire.encode(OhlcFrame("snapshot", candles))

    def missing_trades(self, gap: GapNotice, cursor: int | None) -> tuple[dict[int, bytes], int | None]:
        """REST finds trades by time: from before the gap to behind it, wider than its ends, whose times may be a little off."""
        begin_ns, end_ns = sorted((gap.after_ns, gap.before_ns))
        since_ns = max(0, begin_ns - OFF_NS) if cursor is None else cursor
        page, newest_ns = self.trades_since(gap.symbol, since_ns)
        found = {each.trade_id: trade_frame(each) for each in page if gap.first_id <= each.trade_id <= gap.last_id}
        return found, None if newest_ns > end_ns + OFF_NS or not page else next_page_ns(since_ns, newest_ns)

    def trades_since(self, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        """Up to a thousand trades."""
        result = self.get("Trades", pair=rest_pair(symbol), since=since_ns, count=MAX_TRADES)
        try:
            rows = next(value for name, value in result.items() if name != "last")
            return [row.trade(symbol) for row in msgspec.convert(rows, list[RestRow])], int(result["last"])
        except (KeyError, StopIteration, TypeError, ValueError, msgspec.ValidationError) as error:
            raise ExchangeError(f"the exchange's Trades answer has another form: {error!r}") from error

    def get(self, path: str, **params: str | int) -> dict[str, Any]:
        """One GET under `/0/public`; the `result` object, its numbers with the digits of the wire.

        Raises `ExchangeError` with the exchange's words, also for errors that come as HTTP 200.
        """
        url = f"{self._settings.rest_url}/0/public/{path}"
        try:
            answer = _json.decode(fetch(url, params).content)
        except msgspec.DecodeError as error:
            raise ExchangeError(f"the exchange at {url} answered something else than JSON: {error}") from error
        if answer.get("error"):
            raise ExchangeError(f"the exchange refused {path}: {', '.join(map(str, answer['error']))}")
        if not isinstance(answer.get("result"), dict):
            raise ExchangeError(f"the exchange answered {path} without a result")
        return answer["result"]  # type: ignore[no-any-return]
