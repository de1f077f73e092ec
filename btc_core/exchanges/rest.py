"""Requests to an exchange's REST API: one GET, retries when the exchange limits the rate, and the bars in an answer.

What does not belong here: the requests of an exchange (the adapters), or when to send one (`streaming`, `btc_assets`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, now_ns
from btc_core.errors import ExchangeError
from btc_core.market.checked_bars import bars_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Answer = TypeVar("Answer")

TIMEOUT_S = 120.0
"""Months of bars are about 10 MB, and the simulator needs seconds to generate them."""
RATE_LIMIT_ERRORS = ("Rate limit exceeded", "Too many requests", "429 Too Many Requests")
RATE_LIMIT_TRIES = 6
"""The pauses double, so together they last about a minute. Exchanges lift a rate limit within seconds."""


def fetch(url: str, params: dict[str, str | int]) -> httpx.Response:
    """Send one GET; raises `ExchangeError` if there is no answer or its status is not 200."""
    try:
        return httpx.get(url, params=params, timeout=TIMEOUT_S, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        raise ExchangeError(f"no answer from {url}: {error!r}") from error


def fetch_json(url: str, params: dict[str, str | int], decoder: msgspec.json.Decoder[Answer]) -> Answer:
    """Send one GET and decode its JSON; raises `ExchangeError` if there is no answer or its form is unexpected."""
    content = fetch(url, params).content
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unexpected_form(url, error) from error


def unexpected_form(what: str, error: Exception) -> ExchangeError:
    """Return the error for an answer whose JSON has another form than the exchange documents."""
    return ExchangeError(f"the exchange's answer has an unexpected form ({what}): {error!r}")


def retry_when_rate_limited(request: Callable[[], Answer], pause_s: float) -> Answer:
    """Return the result of `request`; while the exchange limits the rate, call it again after pauses that double."""
    for attempt in range(RATE_LIMIT_TRIES):
        try:
            return request()
        except ExchangeError as error:
            is_rate_limit = any(text in str(error) for text in RATE_LIMIT_ERRORS)
            if not is_rate_limit or attempt == RATE_LIMIT_TRIES - 1:
                raise
            time.sleep(max(pause_s, 1.0) * 2.0**attempt)
    raise AssertionError  # the last attempt returns or raises


def next_page_ns(since_ns: int, newest_ns: int) -> int | None:
    """Return the time from which to request the next page, or None after the last page.

    The current page was requested with `since_ns` (exclusive) and its newest trade is at `newest_ns`. The next page
    begins one nanosecond before that trade, because more trades may have the same time. If the whole page has one time,
    the next page begins after it.

    >>> next_page_ns(10, 20), next_page_ns(19, 20), next_page_ns(20, 20)
    (19, 20, None)
    """
    if newest_ns <= since_ns:
        return None
    return newest_ns - 1 if newest_ns - 1 > since_ns else newest_ns


def closed_bars(rows: Sequence[Sequence[Any]], source: str) -> np.ndarray:
    """Convert rows `time_s, open, high, low, close, volume, trades` to minute bars (dtype `BARS`) as `bars_of_rows`.

    Leaves out the bar that is still open. Raises `ValueError` if a row is not made of seven numbers.
    """
    return drop_open_bar(bars_of_rows(np.array(rows, np.float64).reshape(len(rows), 7), source))


def drop_open_bar(bars: np.ndarray) -> np.ndarray:
    """Return the minute bars that are closed now."""
    return bars[bars["ts_ns"] + NS_PER_MIN <= now_ns()]
