"""The units of the simulated market, and how the exchange prints quantities and times.

Quantities are integers of 1e-8 of the base asset ("lots"), prices are integers of the pair's smallest step ("ticks").
What does not belong here: facts about one pair (`pairs`), or the text of a whole frame (`websocket.wire`).
"""

from __future__ import annotations

from functools import lru_cache

from btc_core.clock import NS_PER_S, NS_PER_US, from_ns

MIN_PER_DAY = 1_440
BYTES_PER_MB = 1_000_000
QTY_DECIMALS = 8
LOTS_PER_UNIT = 10**QTY_DECIMALS


def qty_text(qty_lots: int) -> str:
    """The quantity as the exchange prints it.

    >>> qty_text(37_711)
    '0.00037711'
    """
    whole, part = divmod(qty_lots, LOTS_PER_UNIT)
    return f"{whole}.{part:08d}"


@lru_cache(256)
def _second_text(second: int) -> str:
    return from_ns(second * NS_PER_S).strftime("%Y-%m-%dT%H:%M:%S")


def time_text(ts_ns: int) -> str:
    """The time as the exchange prints it: RFC 3339 with microseconds.

    >>> time_text(1_500_000_000)
    '1970-01-01T00:00:01.500000Z'
    """
    second, rest_ns = divmod(ts_ns, NS_PER_S)
    return f"{_second_text(second)}.{rest_ns // NS_PER_US:06d}Z"
