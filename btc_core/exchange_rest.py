"""The exchange's public REST API and its published bar files, as far as we read them.

What does not belong here: when to ask (`streaming.history`, `btc_assets.history`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from btc_core.bars import bars_from, parse_csv
from btc_core.clock import NS_PER_MIN, now_ns
from btc_core.errors import ExchangeError

if TYPE_CHECKING:
    from btc_core.settings import ExchangeSettings

TIMEOUT_S = 120.0
"""Months of bars are some 10 MB; a generated market needs seconds to make them."""
REST_NAMES = {"BTC": "XBT"}
"""Assets that REST calls by another name than the socket."""


def rest_pair(symbol: str) -> str:
    """`BTC/USD` as REST takes it.

    >>> rest_pair("BTC/USD")
    'XBTUSD'
    """
    base, _, quote = symbol.partition("/")
    return f"{REST_NAMES.get(base, base)}{REST_NAMES.get(quote, quote)}"


def get(settings: ExchangeSettings, path: str, **params: str | int) -> dict[str, Any]:
    """One GET under `/0/public`; the `result` object.

    Raises `ExchangeError` with the exchange's words, also for errors that come as HTTP 200.
    """
    url = f"{settings.rest_url}/0/public/{path}"
    try:
        answer = _fetch(url, params).json()
    except ValueError as error:
        raise ExchangeError(f"the exchange at {url} answered something else than JSON: {error}") from error
    if answer.get("error"):
        msg = f"the exchange refused {path}: {', '.join(map(str, answer['error']))}"
        raise ExchangeError(msg)
    return answer["result"]  # type: ignore[no-any-return]


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
