"""Whether the log is still the one in which an offset was committed.

An offset alone means little: the topic may have been created again, the disk may have lost the end of the log, or the
offsets may come from another cluster. A mark is therefore stored with every committed offset and every checkpoint. It names
the log and holds a checksum of the message before the offset.
What does not belong here: reading the log (`btc_core.stores.kafka`), or what a worker does about a break (`assignment`).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

Problem = Literal["other_log", "shorter_log", "expired"]


class LogMark(msgspec.Struct, frozen=True):
    """Identifies the place in a log just before an offset."""

    log: str
    """Identity of the log (`btc_core.stores.kafka.log_id`)."""
    checksum: int | None = None
    """CRC-32 of the message before the offset; None when there was none."""
    ts_ms: int = 0
    """Kafka's timestamp of that message, ms since the epoch; 0 when there was none."""

    @classmethod
    def behind(cls, log: str, value: bytes, ts_ms: int) -> LogMark:
        """The mark of the offset behind a message."""
        return cls(log, zlib.crc32(value), ts_ms)


class LogBreak(msgspec.Struct, frozen=True):
    """Why a worker cannot continue at the offset that it committed."""

    problem: Problem
    words: str
    """The problem as a clause for the log."""
    expired: int = 0
    """Messages that left the log before they were handled."""


def encode_mark(mark: LogMark) -> str:
    """The mark as the metadata of a committed offset."""
    return msgspec.json.encode(mark).decode()


def decode_mark(metadata: str | None) -> LogMark | None:
    """The mark in the metadata of a committed offset; None when there is none."""
    try:
        return msgspec.json.decode(metadata or "", type=LogMark)
    except msgspec.DecodeError:
        return None


def find_break(
    offset: int, mark: LogMark | None, log: str, bounds: tuple[int, int], value_at: Callable[[int], bytes | None]
) -> LogBreak | None:
    """Compare the log with an offset that was committed in it and the offset's mark; None when they fit.

    `bounds` are the first offset of the log and the one behind its last message. `value_at` returns the message at an
    offset, and None when the log does not have it.
    """
    low, high = bounds
    if mark is not None and mark.log != log:
        return LogBreak("other_log", f"offset {offset} was committed in the log {mark.log}, and this log is {log}")
    if offset > high:
        return LogBreak("shorter_log", f"offset {offset} was committed, and the log ends at {high}")
    if offset < low:
        words = f"{low - offset} messages from offset {offset} on were removed from the log before they were handled"
        return LogBreak("expired", words, low - offset)
    if offset == low or mark is None or mark.checksum is None:
        return None
    value = value_at(offset - 1)
    if value is None or zlib.crc32(value) != mark.checksum:
        words = f"the message at offset {offset - 1} is another one than when offset {offset} was committed"
        return LogBreak("shorter_log", f"{words}: the log lost its end and was written again")
    return None
