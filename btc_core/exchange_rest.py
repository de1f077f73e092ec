"""The exchange's public REST API and its published bar files, as far as we read them.

What does not belong here: when to ask (`streaming.history`, `btc_assets.history`).
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np

from btc_core.bars import BARS, bars_from, parse_csv
from btc_core.clock import NS_PER_MIN, NS_PER_US, now_ns
from btc_core.errors import ExchangeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import ExchangeSettings

_json: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)

TIMEOUT_S = 120.0
"""Months of bars are some 10 MB; a generated market needs seconds to make them."""
REST_PAUSE_S = 1.05
"""Between two pages of trades: the exchange takes one request a second for an address and pair."""
RATE_LIMITED = ("EAPI:Rate limit exceeded", "EGeneral:Too many requests")
RATE_LIMIT_TRIES = 6
"""With doubling pauses about a minute; the exchange forgets within seconds."""
TRADES = np.dtype([("trade_id", "i8"), ("ts_ns", "i8"), ("price", "f8"), ("qty", "f8")], align=True)
"""Trades of REST for bars; their times are rounded, so they are no record."""
MAX_TRADES = 1_000
"""Of one answer."""
REST_NAMES = {"BTC": "XBT"}
"""Assets that REST calls by another name than the socket."""


class RestTrade(msgspec.Struct, frozen=True, array_like=True):
    """A row of `Trades` with the digits of the wire."""

    price: str
    qty: str
    time_s: Decimal
    side: str
    """`b` or `s`."""
    ord_type: str
    """`m` or `l`."""
    misc: str
    trade_id: int

    @property
    def ts_ns(self) -> int:
        """Exchange time, ns; the digits beyond a microsecond are dropped, as on the socket."""
        return int(self.time_s * 1_000_000) * NS_PER_US


def rest_pair(symbol: str) -> str:
    """`BTC/USD` as REST takes it.

    >>> rest_pair("BTC/USD")
    'XBTUSD'
    """
    base, _, quote = symbol.partition("/")
    return f"{REST_NAMES.get(base, base)}{REST_NAMES.get(quote, quote)}"


def get(settings: ExchangeSettings, path: str, **params: str | int) -> dict[str, Any]:
    """One GET under `/0/public`; the `result` object, its numbers with the digits of the wire.

    Raises `ExchangeError` with the exchange's words, also for errors that come as HTTP 200.
    """
    url = f"{settings.rest_url}/0/public/{path}"
    try:
        answer = _json.decode(_fetch(url, params).content)
    except msgspec.DecodeError as error:
        raise ExchangeError(f"the exchange at {url} answered something else than JSON: {error}") from error
    if answer.get("error"):
        msg = f"the exchange refused {path}: {', '.join(map(str, answer['error']))}"
        raise ExchangeError(msg)
    return answer["result"]  # type: ignore[no-any-return]


def trades_page(settings: ExchangeSettings, symbol: str, since_ns: int) -> tuple[list[RestTrade], int]:
    """Up to a thousand trades later than `since_ns`, oldest first, and the cursor of the next page, ns.

    Raises `ExchangeError`.
    """
    result = get(settings, "Trades", pair=rest_pair(symbol), since=since_ns, count=MAX_TRADES)
    try:
        rows = next(value for name, value in result.items() if name != "last")
        return msgspec.convert(rows, list[RestTrade]), int(result["last"])
    except (KeyError, StopIteration, TypeError, ValueError, msgspec.ValidationError) as error:
        raise ExchangeError(f"the exchange's Trades answer has another form: {error!r}") from error


def minute_bars(settings: ExchangeSettings, symbol: str, days: int) -> tuple[np.ndarray, str]:
    """Closed minute bars (dtype `BARS`) of up to the last `days`, and their source: `history` or `rest`.

    The published file where there is one, else the last 720 minutes that REST has. Raises `ExchangeError`.
    """
    if settings.history_url:
        url = f"{settings.history_url}/{rest_pair(symbol)}_1.csv"
        return _closed(parse_csv(_fetch(url, {"days": days}).text, url)), "history"
    result = get(settings, "OHLC", pair=rest_pair(symbol), interval=1)
    try:
        rows = next(value for name, value in result.items() if name != "last")
        picked = [(row[0], row[1], row[2], row[3], row[4], row[6], row[7]) for row in rows]
        numbers = np.array(picked, np.float64).reshape(len(picked), 7)
    except (IndexError, TypeError, ValueError, StopIteration) as error:
        raise ExchangeError(f"the exchange's OHLC answer has another form: {error!r}") from error
    return _closed(bars_from(numbers, "OHLC")), "rest"


def _fetch(url: str, params: dict[str, str | int]) -> httpx.Response:
    try:
        return httpx.get(url, params=params, timeout=TIMEOUT_S, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        raise ExchangeError(f"no answer from {url}: {error!r}") from error


def _closed(bars: np.ndarray) -> np.ndarray:
    """Without the bar that is still open."""
    return bars[bars["ts_ns"] + NS_PER_MIN <= now_ns()]


def trades_between(
    settings: ExchangeSettings, symbol: str, begin_ns: int, end_ns: int, pause_s: float = REST_PAUSE_S
) -> Iterator[np.ndarray]:
    """Pages of trades (dtype `TRADES`) from `begin_ns` up to before `end_ns`, oldest first, each trade once.

    One request every `pause_s`; when the exchange still finds that too fast, longer pauses. Raises `ExchangeError`.
    """
    since_ns, last_id = begin_ns - 1, -1
    while True:
        rows, newest_ns = patient_page(settings, symbol, since_ns, pause_s)
        page = np.array([(row.trade_id, row.ts_ns, row.price, row.qty) for row in rows], TRADES)
        wanted = page[(page["trade_id"] > last_id) & (page["ts_ns"] < end_ns)]
        if len(wanted):
            last_id = int(wanted["trade_id"].max())
            yield wanted
        if not rows or newest_ns <= since_ns or newest_ns >= end_ns:
            return
        since_ns = newest_ns
        time.sleep(pause_s)


def patient_page(settings: ExchangeSettings, symbol: str, since_ns: int, pause_s: float) -> tuple[list[RestTrade], int]:
    """A `trades_page`, asked for again after longer and longer pauses while the exchange finds us too fast."""
    for attempt in range(RATE_LIMIT_TRIES):
        try:
            return trades_page(settings, symbol, since_ns)
        except ExchangeError as error:
            limited = any(words in str(error) for words in RATE_LIMITED)
            if not limited or attempt == RATE_LIMIT_TRIES - 1:
                raise
            time.sleep(max(pause_s, 1.0) * 2.0**attempt)
    raise AssertionError  # the last try returns or raises


def bars_of_trades(trades: np.ndarray) -> np.ndarray:
    """Minute bars (dtype `BARS`) of trades (dtype `TRADES`) in order of time; minutes without trades have none."""
    minutes = trades["ts_ns"] // NS_PER_MIN
    first = np.unique(minutes, return_index=True)[1]
    bars = np.zeros(len(first), BARS)
    if not len(first):
        return bars
    bars["ts_ns"] = minutes[first] * NS_PER_MIN
    bars["open"] = trades["price"][first]
    bars["close"] = trades["price"][np.append(first[1:], len(trades)) - 1]
    bars["high"] = np.maximum.reduceat(trades["price"], first)
    bars["low"] = np.minimum.reduceat(trades["price"], first)
    bars["volume"] = np.add.reduceat(trades["qty"], first)
    bars["trades"] = np.diff(np.append(first, len(trades)))
    return bars
