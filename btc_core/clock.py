"""The clocks, and conversions of time. Every time of ours in data is read here; pauses may use `time.monotonic` itself.

What does not belong here: arithmetic on timestamps. They are plain integers, nanoseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Protocol

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_MIN = 60 * NS_PER_S
NS_PER_DAY = 86_400 * NS_PER_S


class Clock(Protocol):
    """The clock that a component is given, so that a test can choose the time."""

    def now_ns(self) -> int:
        """The wall clock, ns since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """The monotonic clock, seconds; only differences have a meaning."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now_ns(self) -> int:
        """The wall clock, ns since the epoch, UTC."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """The monotonic clock, seconds; only differences have a meaning."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()


def now_ns() -> int:
    """The wall clock of this machine, ns since the epoch, UTC."""
    return time.time_ns()


def from_ns(ts_ns: int) -> datetime:
    """Nanoseconds since the epoch as an aware UTC datetime, truncated to microseconds.

    >>> from_ns(1_500_000_000).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return datetime.fromtimestamp(ts_ns // NS_PER_S, UTC).replace(microsecond=ts_ns % NS_PER_S // NS_PER_US)


def column_ns(column: Any) -> Any:
    """An Arrow column of times as nanoseconds since the epoch, an int64 array."""
    return column.cast("timestamp[ns]").cast("int64").to_numpy()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ns(moment: datetime) -> int:
    """An aware datetime as nanoseconds since the epoch, exact to the microsecond.

    >>> to_ns(datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC))
    1500000000
    """
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * NS_PER_S + delta.microseconds * NS_PER_US
