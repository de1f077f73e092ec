"""The public REST API and the published history, answered from the tape of each symbol.

Errors are HTTP 200 with a non-empty `error` list, as on the exchange. No answer holds anything later than the present
of the market. What does not belong here: sockets and routes (`http_routes`), or how bars become candles (`candles`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from btc_core.clock import NS_PER_MIN, NS_PER_S, from_ns
from btc_core.errors import InvalidInput
from exchange_simulator.market.events import ALL_TRADES
from exchange_simulator.rate_limit import RateLimit, Throttle
from exchange_simulator.rest.candles import candle_rows, history_lines
from exchange_simulator.units import MIN_PER_DAY, QTY_DECIMALS, qty_text, time_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.market.events import Tape, Trade
    from exchange_simulator.pairs import Pair

RATE_LIMITED = "EAPI:Rate limit exceeded"
UNAVAILABLE = "EService:Unavailable"
"""Comes with HTTP 503."""
THROTTLED = "EGeneral:Too many requests"
"""Comes with HTTP 429 and a `Retry-After`. Every other error comes with 200."""
UNKNOWN_PAIR = "EQuery:Unknown asset pair"
INTERVALS_MIN = (1, 5, 15, 30, 60, 240, 1_440, 10_080, 21_600)
OHLC_ROWS = 720
MAX_TRADES = 1_000
OHLC_DAYS = 120
"""Older candles are left out: 720 candles of a day would take half a minute to compute."""
CHUNK_MIN = 10_080
"""About this many minutes are computed at once for candles; that bounds the memory to 1 MB."""
MAX_HISTORY_DAYS = 1_500
SECONDS_BELOW = 10**12
"""A `since` below this is in seconds, a common mistake that the exchange accepts; otherwise it is in ns."""
RATE_TOLERANCE_S = 0.05
"""A client that waits exactly as long as it must is not refused because of the jitter of its clock."""
PRICE_DECIMALS = 5
"""Kraken prints the prices of REST trades with at least five decimals."""


class Listing(NamedTuple):
    """One pair and the tape of its past."""

    pair: Pair
    tape: Tape


class ApiError(Exception):
    """An entry of the `error` list."""


def _whole_number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ApiError(f"EGeneral:Invalid arguments:{name}")
    return int(text)


def _unknown_method(_query: Mapping[str, str]) -> dict[str, Any]:
    raise ApiError("EGeneral:Unknown method")


class RestApi:
    """The answers to GET requests. Worker threads call it."""

    def __init__(self, listings: Mapping[str, Listing], clock: MarketClock, *, trades_per_s: float) -> None:
        self._listings = {
            name: listing
            for listing in listings.values()
            for name in (listing.pair.rest_name, listing.pair.rest_key, listing.pair.v1_symbol)
        }
        self._pairs = tuple(listing.pair for listing in listings.values())
        self._clock = clock
        self.system = "online"
        """The state of the exchange's engine that SystemStatus reports."""
        self.outage = ""
        """The error with which every request is answered; empty when there is no outage."""
        self.lag_ns = 0
        """How far the trades of REST are behind the market."""
        self.is_empty = False
        """Whether every page of trades is empty."""
        self.unlisted = ""
        """The symbol whose trades are refused as if it were not listed; empty for none."""
        self.throttle = Throttle(clock)
        """While it lasts, every request is refused with a `Retry-After`."""
        self._trades_per_s = trades_per_s
        """Trades requests a second for each address and pair; 0 for no limit."""
        self._closed_candles: dict[tuple[str, int], tuple[int, list[list[Any]]]] = {}
        """By symbol and interval: the minute up to which they were computed, and their rows."""
        self._limits: dict[tuple[str, str], RateLimit] = {}

    def answer(self, name: str, query: Mapping[str, str], client_ip: str) -> dict[str, Any]:
        """The JSON body of `/0/public/<name>`."""
        handlers = {
            "Time": self._time,
            "SystemStatus": self._system_status,
            "AssetPairs": self._asset_pairs,
            "OHLC": self._ohlc,
            "Trades": self._trades,
        }
        try:
            self._check_allowed(name, query.get("pair", ""), client_ip)
            return {"error": [], "result": handlers.get(name, _unknown_method)(query)}
        except (ApiError, InvalidInput) as error:
            text = str(error) if isinstance(error, ApiError) else f"EGeneral:Invalid arguments:{error}"
            return {"error": [text]}

    def _check_allowed(self, name: str, pair_name: str, client_ip: str) -> None:
        """Raise `ApiError` during an outage, and for a Trades request above the rate limit."""
        if self.outage:
            raise ApiError(self.outage)
        if self.throttle.retry_after_s():
            raise ApiError(THROTTLED)
        if name != "Trades" or self._trades_per_s <= 0:
            return
        listing = self._listings.get(pair_name)
        key = client_ip, listing.pair.symbol if listing else ""
        if key not in self._limits:
            self._limits[key] = RateLimit(self._trades_per_s / (1 - RATE_TOLERANCE_S * self._trades_per_s), 1.0)
        if not self._limits[key].allows(self._clock.monotonic_s()):
            raise ApiError(RATE_LIMITED)

    def _listing(self, pair_name: str) -> Listing:
        """The pair of this name; raises `ApiError` when it is not listed."""
        listing = self._listings.get(pair_name)
        if listing is None:
            raise ApiError(UNKNOWN_PAIR)
        return listing

    def _time(self, _query: Mapping[str, str]) -> dict[str, Any]:
        now_ns = self._clock.exchange_now_ns()
        return {"unixtime": now_ns // NS_PER_S, "rfc1123": from_ns(now_ns).strftime("%a, %d %b %y %H:%M:%S +0000")}

    def _system_status(self, _query: Mapping[str, str]) -> dict[str, Any]:
        second_ns = self._clock.exchange_now_ns() // NS_PER_S * NS_PER_S
        return {"status": self.system, "timestamp": time_text(second_ns)[:19] + "Z"}

    def _asset_pairs(self, _query: Mapping[str, str]) -> dict[str, Any]:
        return {
            pair.rest_key: {
                "altname": pair.rest_name,
                "wsname": pair.v1_symbol,
                "base": pair.v1_symbol.split("/")[0],
                "quote": pair.v1_symbol.split("/")[1],
                "pair_decimals": pair.price_decimals,
                "lot_decimals": QTY_DECIMALS,
                "tick_size": pair.price_text(1),
                "ordermin": "0.00005",
                "status": "online",
            }
            for pair in self._pairs
        }

    def _trades(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Trades after `since`; trades of one time are never split between pages."""
        pair, tape = self._listing(query.get("pair", ""))
        if pair.symbol == self.unlisted:
            raise ApiError(UNKNOWN_PAIR)
        count = _whole_number(query, "count", MAX_TRADES)
        if not 1 <= count <= MAX_TRADES:
            raise ApiError("EGeneral:Invalid arguments:count")
        since_ns, now_ns = _whole_number(query, "since", 0), self._clock.now_ns() - self.lag_ns
        since_ns *= NS_PER_S if since_ns < SECONDS_BELOW else 1
        if self.is_empty:
            trades = []
        elif "since" in query:
            trades = _page(tape.trades_since(since_ns, count + 1, now_ns), count)
        else:
            trades = tape.last_trades(count, now_ns)
        rows = [_trade_row(pair, trade) for trade in trades]
        return {pair.rest_key: rows, "last": str(trades[-1].ts_ns if trades else since_ns)}

    def _ohlc(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The last 720 candles of an interval, ending with the open one; `last` is the last closed one."""
        pair, tape = self._listing(query.get("pair", ""))
        interval_min = _whole_number(query, "interval", 1)
        if interval_min not in INTERVALS_MIN:
            raise ApiError("EGeneral:Invalid arguments:interval")
        now_ns = self._clock.now_ns()
        this_min = now_ns // NS_PER_MIN
        open_min = this_min // interval_min * interval_min
        closed = self._closed(pair, tape, interval_min, open_min)
        open_minute = tape.trades_since(this_min * NS_PER_MIN - 1, ALL_TRADES, now_ns)
        open_candle = candle_rows(pair, tape.minute_bars(open_min, this_min), open_minute, interval_min)
        since_s = _whole_number(query, "since", 0)
        rows = [row for row in [*closed, *open_candle] if row[0] > since_s]
        return {pair.rest_key: rows, "last": (open_min - interval_min) * 60}

    def _closed(self, pair: Pair, tape: Tape, interval_min: int, open_min: int) -> list[list[Any]]:
        """The closed candles before `open_min`, computed once for each interval and minute."""
        key = pair.symbol, interval_min
        computed_for, rows = self._closed_candles.get(key, (-1, []))
        if computed_for != open_min:
            span_min = min((OHLC_ROWS - 1) * interval_min, OHLC_DAYS * MIN_PER_DAY)
            chunk_min = interval_min * max(1, CHUNK_MIN // interval_min)
            rows = []
            for start_min in range((open_min - span_min) // interval_min * interval_min, open_min, chunk_min):
                bars = tape.minute_bars(start_min, min(open_min, start_min + chunk_min))
                rows += candle_rows(pair, bars, [], interval_min)
            self._closed_candles[key] = open_min, rows
        return rows

    def history_csv(self, pair_name: str, days: int) -> bytes:
        """Closed minute bars of the last `days` days as Kraken's OHLCVT CSV.

        Raises `ApiError` when the pair is not listed, `InvalidInput` when `days` is out of range.
        """
        listing = self._listing(pair_name)
        if not 1 <= days <= MAX_HISTORY_DAYS:
            msg = f"days must be 1 to {MAX_HISTORY_DAYS}"
            raise InvalidInput(msg)
        end_min = self._clock.now_ns() // NS_PER_MIN
        first_min = end_min - days * MIN_PER_DAY
        csv = bytearray()
        for start_min in range(first_min, end_min, MIN_PER_DAY):
            bars = listing.tape.minute_bars(start_min, min(end_min, start_min + MIN_PER_DAY))
            csv += history_lines(listing.pair, bars).encode()
        return bytes(csv)


def _page(trades: list[Trade], count: int) -> list[Trade]:
    """At most `count` trades, ending between two times, so that `last` as the next `since` skips no trade.

    When more than `count` trades have one time, the page is cut within it.
    """
    if len(trades) <= count:
        return trades
    end = count
    while end > 0 and trades[end - 1].ts_ns == trades[count].ts_ns:
        end -= 1
    return trades[: end or count]


def _trade_row(pair: Pair, trade: Trade) -> list[Any]:
    price = pair.price_text(trade.price)
    price += "0" * max(0, PRICE_DECIMALS - pair.price_decimals)
    return [
        price,
        qty_text(trade.qty),
        trade.ts_ns / NS_PER_S,
        "b" if trade.buy else "s",
        "m" if trade.market else "l",
        "",
        trade.trade_id,
    ]
