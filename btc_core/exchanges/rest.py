"""Requests to an exchange's REST API: the request budget, one GET, retries under a rate limit, and the bars in an answer.

What does not belong here: the requests of an exchange (the adapters), or when to send one (`streaming`, `btc_assets`).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, now_ns
from btc_core.errors import ExchangeError, NotOffered, RateLimited
from btc_core.market.checked_bars import bars_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Answer = TypeVar("Answer")

TIMEOUT_S = 120.0
"""Months of bars are about 10 MB, and the simulator needs seconds to generate them."""
RATE_LIMIT_TRIES = 6
"""The pauses double, so together they last about a minute. Exchanges lift a rate limit within seconds."""
BLOCKING_STATUSES = (HTTPStatus.FORBIDDEN, HTTPStatus.IM_A_TEAPOT, HTTPStatus.TOO_MANY_REQUESTS)
"""How an exchange blocks an address that ignored its rate limit: 403 is sent by its proxy, 418 by Binance."""
PAUSE_FIRST_S, PAUSE_MAX_S = 2.0, 120.0
"""Pause after a refusal without `Retry-After`; it doubles with each further refusal until a request is answered."""
RETRY_AFTER_MAX_S = 3_600.0
"""The longest `Retry-After` that is obeyed; a longer one is a mistake, and one request an hour does no harm."""


class RequestBudget:
    """The requests that this process may send to the REST API of one exchange: one at a time, with a pause between two.

    It is a token bucket that holds one token, shared by everything in the process that asks REST: repair, history,
    imports. Exchanges limit the rate by address, and some also by pair; the budget does not distinguish pairs, so it
    stays below both limits. Two processes have two budgets, so together they may exceed the limit for a short time. Only
    repair asks continually; ingest asks for one page of bars for each symbol after a minute without data. A refusal makes
    the refused process wait, longer each time, and loses nothing, so a lower rate for each would only delay repairs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_s = 0.0
        """When the next request may be sent (monotonic)."""
        self._refusals = 0
        """Refusals since the last answer."""

    def ready_in_s(self) -> float:
        """Return the seconds until a request may be sent, 0 if one may be sent now."""
        with self._lock:
            return max(0.0, self._free_s - time.monotonic())

    def take(self, pause_s: float) -> None:
        """Wait until a request may be sent; the next one may be sent `pause_s` later."""
        with self._lock:
            now_s = time.monotonic()
            at_s = max(now_s, self._free_s)
            self._free_s = at_s + pause_s
        if at_s > now_s:
            time.sleep(at_s - now_s)

    def refused(self, retry_after_s: float | None) -> None:
        """Send nothing for as long as the exchange asks, or for a pause that doubles if it names no time."""
        with self._lock:
            pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2.0 ** min(self._refusals, 10))
            self._refusals += 1
            if retry_after_s is not None:
                pause_s = min(retry_after_s, RETRY_AFTER_MAX_S)
            self._free_s = max(self._free_s, time.monotonic() + pause_s)

    def answered(self) -> None:
        """Note that the exchange answers again."""
        with self._lock:
            self._refusals = 0


_budgets: defaultdict[str, RequestBudget] = defaultdict(RequestBudget)


def budget_of(exchange: str) -> RequestBudget:
    """The budget of this process for the exchange of this name; no exchange waits for another one."""
    return _budgets[exchange]


def fetch(url: str, params: dict[str, str | int], budget: RequestBudget) -> httpx.Response:
    """Send one GET; raises `ExchangeError` if there is no answer or its status is not 200.

    Raises `RateLimited` for the statuses 403, 418 and 429, and for any other that has a `Retry-After`; `NotOffered` for 404.
    """
    try:
        response = httpx.get(url, params=params, timeout=TIMEOUT_S, follow_redirects=True)
    except httpx.HTTPError as error:
        raise ExchangeError(f"no answer from {url}: {error!r}") from error
    if response.is_success:
        return response
    message = f"{url} answered with the status {response.status_code} {response.reason_phrase}: {response.text[:200]}"
    retry_after_s = _retry_after_s(response.headers.get("Retry-After"))
    if response.status_code in BLOCKING_STATUSES or retry_after_s is not None:
        raise rate_limited(message, budget, retry_after_s)
    raise NotOffered(message) if response.status_code == HTTPStatus.NOT_FOUND else ExchangeError(message)


def _retry_after_s(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait; None if there is no such header or it is unreadable.

    >>> _retry_after_s("120"), _retry_after_s(None), _retry_after_s("soon"), _retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT")
    (120.0, None, None, 0.0)
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def rate_limited(message: str, budget: RequestBudget, retry_after_s: float | None = None) -> RateLimited:
    """Make the request budget wait, and return the error for a request that exceeded the exchange's rate limit."""
    budget.refused(retry_after_s)
    asked = "" if retry_after_s is None else f"; it asks to wait {retry_after_s:.0f} s"
    return RateLimited(f"{message}{asked}")


def fetch_json(
    url: str,
    params: dict[str, str | int],
    decoder: msgspec.json.Decoder[Answer],
    budget: RequestBudget,
    pause_s: float,
) -> Answer:
    """Send one GET within the request budget and decode its JSON; the next request may follow after `pause_s`.

    Raises what `fetch` raises, and `ExchangeError` if the form of the answer is unexpected.
    """
    budget.take(pause_s)
    content = fetch(url, params, budget).content
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unexpected_form(url, error) from error


def unexpected_form(what: str, error: Exception) -> ExchangeError:
    """Return the error for an answer whose JSON has another form than the exchange documents."""
    return ExchangeError(f"the exchange's answer has an unexpected form ({what}): {error!r}")


def retry_when_rate_limited(request: Callable[[], Answer], pause_s: float) -> Answer:
    """Return the result of `request`; while the exchange limits the rate, call it again after pauses that double.

    The request budget makes the next call wait for the `Retry-After` of the exchange, if that is longer.
    """
    for attempt in range(RATE_LIMIT_TRIES):
        try:
            return request()
        except RateLimited:
            if attempt == RATE_LIMIT_TRIES - 1:
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
