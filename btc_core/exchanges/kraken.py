"""The adapter of Kraken: the requests of its WebSocket v2 and its public REST API.

What does not belong here: its frames (`market.frames`), or when to send a request (`streaming`, `btc_assets`).
"""

from __future__ import annotations

import logging
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_US, from_ns, to_ns
from btc_core.errors import ExchangeError, NotOffered, RateLimited
from btc_core.exchanges.interface import GapSearch, PageTrade, TradePage
from btc_core.exchanges.rest import (
    budget_of,
    closed_bars,
    drop_open_bar,
    fetch,
    fetch_json,
    next_page_ns,
    rate_limited,
    unexpected_form,
)
from btc_core.market import frames
from btc_core.market.checked_bars import parse_csv
from btc_core.market.continuity import CLOCK_STEP_NS
from btc_core.market.frames import KRAKEN, Candle, OhlcFrame, Trade, TradeFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from btc_core.exchange_settings import ExchangeSettings
    from btc_core.market.frames import AnyFrame
    from btc_core.market.messages import GapNotice

log = logging.getLogger(__name__)

_answer_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_frame_encoder = msgspec.json.Encoder(decimal_format="number")

MAX_TRADES = 1_000
"""The largest number of trades in one answer."""
MAX_OUTAGE_NS = 7 * NS_PER_DAY
"""A gap whose two ends are further apart in time is taken to have one wrong time."""
SEARCH_BACK_NS = (NS_PER_MIN, 60 * NS_PER_MIN, NS_PER_DAY, 7 * NS_PER_DAY, 30 * NS_PER_DAY)
"""How far before the end of a gap a search begins if the time of its beginning is wrong: nearby first."""
REST_ASSETS = {"BTC": "XBT", "DOGE": "XDG"}
"""The names that REST uses for assets with another name on the WebSocket v2."""
PAIR_NAMES_MAX_AGE_S = 86_400.0
"""How long the answer of `AssetPairs` is used: pairs are listed and renamed within days, not minutes."""
PAIR_NAMES_RETRY_S = 60.0
"""Pause before `AssetPairs` is requested again after it failed."""
RATE_LIMIT_ERRORS = ("Rate limit exceeded", "Too many requests", "Temporary lockout")
REFUSALS = ("EQuery:", "EGeneral:Invalid arguments")
"""How the errors begin for which the same request will never succeed: the pair is unknown, or an argument is wrong."""
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

        REST sends the time as a float of seconds, which prints up to nine decimals: the time is rounded to the nearest
        microsecond. Raises `ExchangeError` if the price or the quantity is not a finite number.
        """
        if not (self.price.is_finite() and self.qty.is_finite()):
            raise ExchangeError(f"trade {self.trade_id}: price {self.price} or quantity {self.qty} is not finite")
        side = {"b": "buy", "s": "sell"}.get(self.side, self.side)
        ord_type = {"m": "market", "l": "limit"}.get(self.ord_type, self.ord_type)
        timestamp = from_ns(round(self.time_s * 1_000_000) * NS_PER_US)
        return Trade(symbol, side, self.price, self.qty, self.trade_id, timestamp, ord_type)


def rest_pair(symbol: str) -> str:
    """Return the usual name of a pair in REST requests and in published files, without asking REST.

    >>> rest_pair("BTC/USD"), rest_pair("DOGE/USD")
    ('XBTUSD', 'XDGUSD')
    """
    return _rest_assets(symbol).replace("/", "")


def _rest_assets(symbol: str) -> str:
    base, _, quote = symbol.partition("/")
    return f"{REST_ASSETS.get(base, base)}/{REST_ASSETS.get(quote, quote)}"


class PairNames:
    """The names of pairs in REST requests, by the names that `AssetPairs` gives for the WebSocket.

    `AssetPairs` has the names of the WebSocket v1 (`XBT/USD`), this project those of v2 (`BTC/USD`); both are found.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._expires_s = 0.0
        """When `AssetPairs` is requested again (monotonic)."""

    def name(self, symbol: str, asset_pairs: Callable[[], dict[str, Any]]) -> str:
        """Return the name for requests; `asset_pairs` requests the list of pairs. Raises `RateLimited`.

        Without an answer, and for a pair that the list does not have, this is the usual name (`rest_pair`).
        """
        if time.monotonic() >= self._expires_s:
            self._expires_s = time.monotonic() + PAIR_NAMES_RETRY_S
            try:
                self._names = {
                    str(pair["wsname"]): str(pair["altname"]) for pair in asset_pairs().values() if "wsname" in pair
                }
                self._expires_s = time.monotonic() + PAIR_NAMES_MAX_AGE_S
            except RateLimited:
                self._expires_s = 0.0
                raise
            except (ExchangeError, KeyError, TypeError, AttributeError) as error:
                log.warning("AssetPairs has no names of pairs (%r); the usual names are used", error)
        return self._names.get(symbol) or self._names.get(_rest_assets(symbol)) or rest_pair(symbol)

    def expire(self) -> None:
        """Request the list again before the next request, because REST refused a name."""
        self._expires_s = 0.0


def trade_frame(trade: Trade) -> bytes:
    """Encode a trade as the frame that the WebSocket would have sent."""
    return _frame_encoder.encode(TradeFrame("update", [trade]))


class Kraken:
    """The adapter; `interface.Exchange` describes its attributes and methods."""

    name = KRAKEN
    channels: tuple[str, ...] = ("trade", "ticker", "book")
    side_channels: tuple[str, ...] = (INSTRUMENT,)
    routes: Mapping[str, tuple[str, ...]] = {"": (*channels, *side_channels)}
    requests_per_s = 10.0
    """Half of the 20 requests a second that Kraken accepts on a connection."""
    sends_snapshots = True
    time_path = "/0/public/Time"
    rest_pause_s = 1.05
    """REST accepts one request a second for each address and pair."""
    decode: Callable[[bytes | str], AnyFrame] = staticmethod(frames.decode)

    def __init__(self, settings: ExchangeSettings) -> None:
        self._settings = settings
        self.budget = budget_of(self.name)
        self._pairs = PairNames()

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
            return drop_open_bar(parse_csv(fetch(url, {"days": days}, self.budget).text, url)), "history"
        result = self._get_of_pair("OHLC", symbol, interval=1)
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

    def gap_search(self, gap: GapNotice) -> GapSearch:
        """Search by time, with a margin of `CLOCK_STEP_NS` around the gap; a cursor is a time in ns.

        If the times at both ends of the gap are too far apart, the one that is nearer to the time of receipt counts.
        """
        after_ns, before_ns, seen_ns = gap.after_ns, gap.before_ns, gap.seen_ns
        begins: list[int] = []
        if abs(before_ns - after_ns) <= MAX_OUTAGE_NS:
            begins, end_ns = [min(after_ns, before_ns)], max(after_ns, before_ns)
        elif abs(before_ns - seen_ns) <= abs(after_ns - seen_ns):
            end_ns = before_ns
        else:
            begins, end_ns = [after_ns], max(after_ns, seen_ns)
        begins += [end_ns - back_ns for back_ns in SEARCH_BACK_NS]
        return GapSearch(tuple(max(0, begin_ns - CLOCK_STEP_NS) for begin_ns in begins), end_ns + CLOCK_STEP_NS)

    def trade_page(self, symbol: str, cursor: int) -> TradePage:
        """Request trades by time. A page that is less than half full reaches to the present of REST."""
        page, newest_ns = self.trades_since(symbol, cursor)
        next_ns = next_page_ns(cursor, newest_ns) if len(page) >= MAX_TRADES // 2 else None
        trades = [PageTrade(trade.trade_id, to_ns(trade.timestamp), trade_frame(trade)) for trade in page]
        return TradePage(trades, next_ns)

    def trades_since(self, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        """Fetch up to `MAX_TRADES` trades."""
        result = self._get_of_pair("Trades", symbol, since=since_ns, count=MAX_TRADES)
        try:
            rows = msgspec.convert(_pair_rows(result), list[RestTrade])
            return [row.trade(symbol) for row in rows], int(result["last"])
        except (KeyError, StopIteration, TypeError, ValueError, ArithmeticError, msgspec.ValidationError) as error:
            raise unexpected_form("Trades", error) from error

    def _get_of_pair(self, path: str, symbol: str, **params: str | int) -> dict[str, Any]:
        pair = self._pairs.name(symbol, lambda: self.get("AssetPairs"))
        try:
            return self.get(path, pair=pair, **params)
        except NotOffered as error:
            self._pairs.expire()
            raise NotOffered(f"{symbol}, which REST is asked for as {pair}: {error}") from error

    def get(self, path: str, **params: str | int) -> dict[str, Any]:
        """Send one GET under `/0/public` and return the `result` object; its numbers keep the digits of the wire.

        Raises `RateLimited` if the exchange limits the rate, `NotOffered` if it will always refuse this request, else
        `ExchangeError`; also for an error that the exchange sends with the status 200.
        """
        url = f"{self._settings.rest_url}/0/public/{path}"
        answer = fetch_json(url, params, _answer_decoder, self.budget, self.rest_pause_s)
        errors = ", ".join(map(str, answer.get("error") or ()))
        if any(text in errors for text in RATE_LIMIT_ERRORS):
            raise rate_limited(f"the exchange refused {path}: {errors}", self.budget)
        self.budget.answered()
        if errors:
            message = f"the exchange refused {path}: {errors}"
            raise NotOffered(message) if errors.startswith(REFUSALS) else ExchangeError(message)
        if not isinstance(answer.get("result"), dict):
            raise ExchangeError(f"the exchange answered {path} without a result")
        return answer["result"]  # type: ignore[no-any-return]


def _pair_rows(result: dict[str, Any]) -> Any:
    """Return the rows of a result. Their key is the pair, which REST may spell in another way than the request."""
    return next(value for name, value in result.items() if name != "last")
