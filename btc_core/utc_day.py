"""A UTC day as text: `2026-07-19`, its bounds, and ranges of days.

What does not belong here: what is stored of a day (`days`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from btc_core.clock import NS_PER_DAY, from_ns, to_ns
from btc_core.errors import InvalidInput

_FORM = re.compile(r"\d{4}-\d{2}-\d{2}")


def day_ns(day: str) -> int:
    """First nanosecond of a day; raises `InvalidInput` unless it reads as 2026-07-19.

    >>> day_ns("1970-01-02") == NS_PER_DAY
    True
    """
    try:
        moment = datetime.fromisoformat(day if _FORM.fullmatch(day) else "")
    except ValueError:
        msg = f"{day!r} is not a day; write it as 2026-07-19"
        raise InvalidInput(msg) from None
    return to_ns(moment.replace(tzinfo=UTC))


def day_of(ts_ns: int) -> str:
    """The UTC day of a moment.

    >>> day_of(NS_PER_DAY - 1)
    '1970-01-01'
    """
    return from_ns(ts_ns).date().isoformat()


def days_between(first: str, last: str) -> list[str]:
    """Every day from `first` to `last`, both included; raises `InvalidInput` when they are the wrong way round."""
    begin, end = day_ns(first), day_ns(last)
    if end < begin:
        msg = f"{first} is after {last}"
        raise InvalidInput(msg)
    return [day_of(ns) for ns in range(begin, end + 1, NS_PER_DAY)]
