"""One request to an exchange's REST API, and another one when it finds us too fast.

What does not belong here: what is asked (the adapters), or when (`streaming`, `btc_assets`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import httpx

from btc_core.clock import NS_PER_MIN, now_ns
from btc_core.errors import ExchangeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

Answer = TypeVar("Answer")

TIMEOUT_S = 120.0
"""Months of bars are some 10 MB; a generated market needs seconds to make them."""
RATE_LIMITED = ("Rate limit exceeded", "Too many requests", "429 Too Many Requests")
RATE_LIMIT_TRIES = 6
"""With doubling pauses about a minute; exchanges forget within seconds."""


def fetch(url: str, params: dict[str, str | int]) -> httpx.Response:
    """One GET; raises `ExchangeError` for no answer and for one that is not 200."""
    try:
        return httpx.get(url, params=params, timeout=TIMEOUT_S, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        raise ExchangeError(f"no answer from {url}: {error!r}") from error


def patiently(ask: Callable[[], Answer], pause_s: float) -> Answer:
    """The answer, asked for again after longer and longer pauses while the exchange finds us too fast."""
    for attempt in range(RATE_LIMIT_TRIES):
        try:
            return ask()
        except ExchangeError as error:
            limited = any(words in str(error) for words in RATE_LIMITED)
            if not limited or attempt == RATE_LIMIT_TRIES - 1:
                raise
            time.sleep(max(pause_s, 1.0) * 2.0**attempt)
    raise AssertionError  # the last try returns or raises


def next_page_ns(since_ns: int, newest_ns: int) -> int | None:
    """Since when to ask for the page behind one that was asked for `since_ns` and ends at `newest_ns`; None behind the last.

    A nanosecond before its newest trade, for those of the same moment may go on; past it when nothing else was on it.

    >>> next_page_ns(10, 20), next_page_ns(19, 20), next_page_ns(20, 20)
    (19, 20, None)
    """
    if newest_ns <= since_ns:
        return None
    return newest_ns - 1 if newest_ns - 1 > since_ns else newest_ns


def closed(bars: np.ndarray) -> np.ndarray:
    """Minute bars without the one that is still open."""
    return bars[bars["ts_ns"] + NS_PER_MIN <= now_ns()]
