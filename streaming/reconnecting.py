"""When the next connection to the exchange may be opened: backoff, a budget, and what the exchange itself demands.

The edge of Kraken accepts about 150 connections in ten minutes from an address and then bans it for ten minutes.
What does not belong here: opening a connection (`exchange_link`).
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from websockets.exceptions import InvalidStatus

from streaming.backoff import backoff_s
from streaming.token_bucket import TokenBucket

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
"""Pause after a connection that ended early: random between the first value and a limit that doubles up to the second.
The exchange bans clients that reconnect in less than half a second."""
STABLE_S = 60.0
"""A connection that lived this long and delivered data is followed by the next one at once. Data alone is not enough: a
server that sends a snapshot and closes would be connected to eight times a second."""
CONNECTS_PER_S, CONNECTS_AT_ONCE = 1 / 6, 5
"""At most 105 connections in ten minutes, which leaves room for restarts of the process."""
BLOCKED_FIRST_S, BLOCKED_MAX_S = 60.0, 600.0
"""Pause after a handshake that was refused with 403 or 429 without `Retry-After`; it doubles after each."""
RETRY_AFTER_MAX_S = 3_600.0
"""The longest `Retry-After` that is obeyed; a longer one is a mistake or an attack."""
BLOCKED = (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)


class Reconnecting:
    """The pauses between the connections of one link, besides those of the budget that all links share."""

    def __init__(self) -> None:
        self._failures = 0
        self._blocks = 0

    def ended(self, lived_s: float, *, received_data: bool) -> None:
        """Note that a connection ended, `lived_s` after it was opened; 0 if it never was."""
        if lived_s > 0:
            self._blocks = 0
        self._failures = 0 if lived_s >= STABLE_S and received_data else self._failures + 1

    def pause_s(self, error: BaseException | None = None) -> float:
        """Seconds to wait before the next attempt; `error` ended the last one."""
        demanded_s = self._demanded_s(error) if isinstance(error, InvalidStatus) else 0.0
        if self._failures == 0:
            return demanded_s
        longest_s = backoff_s(self._failures, BACKOFF_FIRST_S, BACKOFF_MAX_S)
        return max(demanded_s, random.uniform(BACKOFF_FIRST_S, longest_s))  # noqa: S311 - jitter is no secret

    def _demanded_s(self, error: InvalidStatus) -> float:
        """The pause that the answer to a handshake demands."""
        retry_after_s = _retry_after_s("".join(error.response.headers.get_all("Retry-After")[:1]))
        if retry_after_s is not None:
            return retry_after_s
        if error.response.status_code not in BLOCKED:
            return 0.0
        self._blocks += 1
        return backoff_s(self._blocks - 1, BLOCKED_FIRST_S, BLOCKED_MAX_S)


def _retry_after_s(header: str) -> float | None:
    """The value of `Retry-After`, seconds or a date, as seconds from now; None if there is none or it is unreadable."""
    try:
        seconds = float(header) if header.strip().isdecimal() else _seconds_until(header)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), RETRY_AFTER_MAX_S)


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def new_budget() -> TokenBucket:
    """The budget of one address for connections."""
    return TokenBucket(CONNECTS_PER_S, CONNECTS_AT_ONCE)
