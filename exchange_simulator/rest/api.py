"""The public REST API and the published history, over the past of each symbol.

Errors are HTTP 200 with a non-empty `error` list, as on the exchange. Nothing later than the market's present is told.
What does not belong here: sockets and routing (`server`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S, from_ns
from btc_core.errors import InvalidInput
from exchange_simulator.pairs import Pair, qty_text
from exchange_simulator.websocket.connection import RateLimit
from exchange_simulator.websocket.wire import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.market.generated import Bars, Tape, Trade

RATE_LIMITED = "EAPI:Rate limit exceeded"
UNAVAILABLE = "EService:Unavailable"
"""Comes with HTTP 503; every other error with 200."""
INTERVALS_MIN = (1, 5, 15, 30, 60, 240, 1_440, 10_080, 21_600)
OHLC_ROWS = 720
MAX_TRADES = 1_000
MIN_PER_DAY = 1_440
OHLC_DAYS = 120
"""Candles longer ago are left out: 720 candles of a day would take half a minute to make."""
CHUNK_MIN = 10_080
"""Minutes made at once for candles, about: bounds the memory (1 MB)."""
MAX_HISTORY_DAYS = 1_500
SECONDS_BELOW = 10**12
"""A `since` below this is in seconds (a common mistake that the exchange forgives), above in ns."""
RATE_TOLERANCE_S = 0.05
"""A client that waits exactly as long as it must is not refused for the jitter of its clock."""


class Listing(NamedTuple):
    """One pair and its past."""

    pair: Pair
    tape: Tape


class ApiError(Exception):
    """An entry of the `error` list."""


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ApiError(f"EGeneral:Invalid arguments:{name}")
    return int(text)


def _unknown(_query: Mapping[str, str]) -> dict[str, Any]:
    raise ApiError("EGeneral:Unknown method")


class RestApi:
    """The answers to GET requests; called from worker threads."""

    def __init__(self, listings: Mapping[str, Listing], clock: MarketClock, *, trades_per_s: float) -> None:
        self._listings = {
            name: listing
            for listing in listings.values()
            for name in (listing.pair.rest_name, listing.pair.rest_key, listing.pair.symbol)
        }
        self._all = tuple(listings.values())
        self._clock = clock
        self.system = "online"
        self.outage = ""
        """What every request is answered with instead; empty when all is well."""
        self._trades_per_s = trades_per_s
        self._candles_made: dict[tuple[str, int], tuple[int, list[list[Any]]]] = {}
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
            self._admit(name, query.get("pair", ""), client_ip)
            return {"error": [], "result": handlers.get(name, _unknown)(query)}
        except (ApiError, InvalidInput) as error:
            text = str(error) if isinstance(error, ApiError) else f"EGeneral:Invalid arguments:{error}"
            return {"error": [text]}

    def _admit(self, name: str, pair_name: str, client_ip: str) -> None:
        if self.outage:
            raise ApiError(self.outage)
        if name != "Trades" or self._trades_per_s <= 0:
            return
        listing = self._listings.get(pair_name)
        key = client_ip, listing.pair.symbol if listing else ""
        if key not in self._limits:
            self._limits[key] = RateLimit(self._trades_per_s / (1 - RATE_TOLERANCE_S * self._trades_per_s), 1.0)
        if not self._limits[key].allows(self._clock.monotonic_s()):
            raise ApiError(RATE_LIMITED)

    def listing(self, query: Mapping[str, str]) -> Listing:
        """The pair that a query names; raises `ApiError` when it is not listed."""
        listing = self._listings.get(query.get("pair", ""))
        if listing is None:
            raise ApiError("EQuery:Unknown asset pair")
        return listing

    def _time(self, _query: Mapping[str, str]) -> dict[str, Any]:
        now_ns = self._clock.told_ns()
        return {"unixtime": now_ns // NS_PER_S, "rfc1123": from_ns(now_ns).strftime("%a, %d %b %y %H:%M:%S +0000")}

    def _system_status(self, _query: Mapping[str, str]) -> dict[str, Any]:
        second_ns = self._clock.told_ns() // NS_PER_S * NS_PER_S
        return {"status": self.system, "timestamp": time_text(second_ns)[:19] + "Z"}

    def _asset_pairs(self, _query: Mapping[str, str]) -> dict[str, Any]:
        return {
            pair.rest_key: {
                "altname": pair.rest_name,
                "wsname": pair.symbol,
                "base": pair.symbol.split("/")[0],
                "quote": pair.symbol.split("/")[1],
                "pair_decimals": pair.price_decimals,
                "lot_decimals": 8,
                "tick_size": pair.price_text(1),
                "ordermin": "0.00005",
                "status": "online",
            }
            for pair, _ in self._all
        }

    def _trades(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Trades later than `since`; trades of one moment are never split between pages."""
        pair, tape = self.listing(query)
        count = _whole(query, "count", MAX_TRADES)
        if not 1 <= count <= MAX_TRADES:
            raise ApiError("EGeneral:Invalid arguments:count")
        since_ns, now_ns = _whole(query, "since", 0), self._clock.now_ns()
        since_ns *= NS_PER_S if since_ns < SECONDS_BELOW else 1
        if "since" in query:
            trades = _whole_moments(tape.trades_since(since_ns, count + 1, now_ns), count)
        else:
            trades = tape.last_trades(count, now_ns)
        rows = [_trade_row(pair, trade) for trade in trades]
        return {pair.rest_key: rows, "last": str(trades[-1].ts_ns if trades else since_ns)}

    def _ohlc(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The last 720 candles of an interval, the open one last; `last` is the last closed one."""
        pair, tape = self.listing(query)
        interval_min = _whole(query, "interval", 1)
        if interval_min not in INTERVALS_MIN:
            raise ApiError("EGeneral:Invalid arguments:interval")
        now_ns = self._clock.now_ns()
        this_min = now_ns // NS_PER_MIN
        open_min = this_min // interval_min * interval_min
        closed = self._closed(pair, tape, interval_min, open_min)
        minutes = tape.trades_since(this_min * NS_PER_MIN - 1, 10**9, now_ns)
        opening = _candles(pair, tape.minute_bars(open_min, this_min), minutes, interval_min)
        since_s = _whole(query, "since", 0)
        rows = [row for row in [*closed, *opening] if row[0] > since_s]
        return {pair.rest_key: rows, "last": (open_min - interval_min) * 60}

    def _closed(self, pair: Pair, tape: Tape, interval_min: int, open_min: int) -> list[list[Any]]:
        """The closed candles before `open_min`, made once for each interval and moment."""
        key = pair.symbol, interval_min
        made_for, rows = self._candles_made.get(key, (-1, []))
        if made_for != open_min:
            span_min = min((OHLC_ROWS - 1) * interval_min, OHLC_DAYS * MIN_PER_DAY)
            chunk_min = interval_min * max(1, CHUNK_MIN // interval_min)
            rows = []
            for start_min in range((open_min - span_min) // interval_min * interval_min, open_min, chunk_min):
                bars = tape.minute_bars(start_min, min(open_min, start_min + chunk_min))
                rows += _candles(pair, bars, [], interval_min)
            self._candles_made[key] = open_min, rows
        return rows

    def history_csv(self, pair_name: str, days: int) -> bytes:
        """Closed minute bars of the last `days` days as Kraken's OHLCVT CSV; minutes without trades are left out."""
        listing = self.listing({"pair": pair_name})
        if not 1 <= days <= MAX_HISTORY_DAYS:
            msg = f"days must be 1 to {MAX_HISTORY_DAYS}"
            raise InvalidInput(msg)
        end_min = self._clock.now_ns() // NS_PER_MIN
        first_min = end_min - days * MIN_PER_DAY
        csv = bytearray()
        for start_min in range(first_min, end_min, MIN_PER_DAY):
            bars = listing.tape.minute_bars(start_min, min(end_min, start_min + MIN_PER_DAY))
            csv += _csv_lines(listing.pair, bars).encode()
        return bytes(csv)


def _csv_lines(pair: Pair, bars: Bars) -> str:
    price = pair.price_text
    return "".join(
        f"{minute * 60},{price(first)},{price(high)},{price(low)},{price(last)},{qty_text(volume)},{count}\n"
        for minute, (first, high, low, last, volume, count) in zip(
            bars.start_min.tolist(), bars.columns.tolist(), strict=True
        )
        if count
    )


def _whole_moments(trades: list[Trade], count: int) -> list[Trade]:
    """At most `count` trades, cut where a moment ends, so that `last` as the next `since` loses nothing."""
    if len(trades) <= count:
        return trades
    cut = count
    while cut > 0 and trades[cut - 1].ts_ns == trades[count].ts_ns:
        cut -= 1
    return trades[: cut or count]


def _trade_row(pair: Pair, trade: Trade) -> list[Any]:
    """Kraken prints REST prices with five decimals whatever the pair."""
    price = pair.price_text(trade.price)
    price += "0" * max(0, 5 - pair.price_decimals)
    seconds = trade.ts_ns / NS_PER_S
    return [
        price,
        qty_text(trade.qty),
        seconds,
        "b" if trade.buy else "s",
        "m" if trade.market else "l",
        "",
        trade.trade_id,
    ]


def _with_open_minute(
    bars: Bars, trades: list[Trade]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    if not trades:
        return bars.start_min, bars.columns, bars.value
    prices = [trade.price for trade in trades]
    volume = sum(trade.qty for trade in trades)
    row = [prices[0], max(prices), min(prices), prices[-1], volume, len(trades)]
    value = sum(float(trade.price) * trade.qty for trade in trades)
    return (
        np.append(bars.start_min, trades[0].ts_ns // NS_PER_MIN),
        np.vstack([bars.columns, np.array([row], np.int64)]),
        np.append(bars.value, value),
    )


def _candles(pair: Pair, bars: Bars, open_minute: list[Trade], interval_min: int) -> list[list[Any]]:
    minutes, columns, value = _with_open_minute(bars, open_minute)
    keep = columns[:, 5] > 0
    minutes, columns, value = minutes[keep], columns[keep], value[keep]
    if not len(minutes):
        return []
    starts = minutes // interval_min * interval_min
    first = np.flatnonzero(np.r_[True, starts[1:] != starts[:-1]])
    last = np.r_[first[1:], len(minutes)] - 1
    high, low = np.maximum.reduceat(columns[:, 1], first), np.minimum.reduceat(columns[:, 2], first)
    volume, count = np.add.reduceat(columns[:, 4], first), np.add.reduceat(columns[:, 5], first)
    total = np.add.reduceat(value, first)
    price = pair.price_text
    rows = []
    for i, start in enumerate(starts[first].tolist()):
        vwap = int(total[i] / volume[i])
        figures = (columns[first[i], 0], high[i], low[i], columns[last[i], 3], vwap)
        texts = [price(int(figure)) for figure in figures]
        rows.append([start * 60, *texts, qty_text(int(volume[i])), int(count[i])])
    return rows
