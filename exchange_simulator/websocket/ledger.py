"""The ledger: everything that was sent, so that tests can count against it.

One NDJSON line a frame, `{"seq", "connection", "sent_ns", "channel", "symbol", "frame"}` with the frame's exact text,
in segments `ledger-NNNNNN.ndjson`; the oldest segments go when the bound is reached, the counts and the trade ids stay.

What does not belong here: what should have been sent. That is the market's own count (`hub`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from io import BufferedWriter
    from pathlib import Path

    from exchange_simulator.websocket.wire import Frame

BYTES_PER_MB = 1_000_000
KIND_WITHIN = 60
"""The type of a ticker frame stands in its first characters."""
SEGMENTS = 4
"""The bound is kept by dropping a whole segment, so between 3/4 and all of it is on disk."""


class IdRanges:
    """A set of integers that come mostly in order, kept as inclusive ranges.

    >>> ids = IdRanges()
    >>> for number in (1, 2, 5, 3, 2):
    ...     ids.add(number)
    >>> ids.ranges(), len(ids), ids.repeats
    ([[1, 3], [5, 5]], 4, 1)
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.repeats = 0

    def add(self, number: int) -> None:
        """Take up one number; one that is there already counts as a repeat."""
        at = bisect_right(self._firsts, number) - 1
        if at >= 0 and number <= self._lasts[at]:
            self.repeats += 1
            return
        joins_left = at >= 0 and self._lasts[at] == number - 1
        joins_right = at + 1 < len(self._firsts) and self._firsts[at + 1] == number + 1
        if joins_left and joins_right:
            self._lasts[at] = self._lasts.pop(at + 1)
            del self._firsts[at + 1]
        elif joins_left:
            self._lasts[at] = number
        elif joins_right:
            self._firsts[at + 1] = number
        else:
            self._firsts.insert(at + 1, number)
            self._lasts.insert(at + 1, number)

    def ranges(self) -> list[list[int]]:
        """Inclusive [first, last] pairs in order."""
        return [[first, last] for first, last in zip(self._firsts, self._lasts, strict=True)]

    def summary(self) -> dict[str, int | None]:
        """How many there are, the first and the last."""
        first, last = (self._firsts[0], self._lasts[-1]) if self._firsts else (None, None)
        return {"count": len(self), "first_id": first, "last_id": last}

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in zip(self._firsts, self._lasts, strict=True))


class Ledger:
    """An append-only record on disk, and its running summary; used from the event loop only."""

    def __init__(self, folder: Path, *, limit_mb: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = int(limit_mb * BYTES_PER_MB / SEGMENTS)
        self._written_bytes = 0
        self._file: BufferedWriter | None = None
        self.seq = 0
        self.frames: Counter[str] = Counter()
        self.trade_ids: dict[str, IdRanges] = {}
        self.quotes: dict[str, Counter[str]] = {}
        """Ticker frames sent by symbol and type, `update` or `snapshot`; the extra ones of faults are not among them."""

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("ledger-*.ndjson"))

    def _open(self) -> BufferedWriter:
        segments = self._segments()
        number = int(segments[-1].stem.removeprefix("ledger-")) + 1 if segments else 1
        for old in segments[: max(0, len(segments) - SEGMENTS + 1)]:
            old.unlink()
        self._written_bytes = 0
        return (self._folder / f"ledger-{number:06d}.ndjson").open("ab")

    def record(self, connection: int, frame: Frame, sent_ns: int) -> None:
        """Write down that this connection was sent this frame at this moment of market time, ns."""
        self.seq += 1
        self.frames[frame.channel] += 1
        if frame.trade_ids:
            ids = self.trade_ids.setdefault(frame.symbol, IdRanges())
            for trade_id in frame.trade_ids:
                ids.add(trade_id)
        if frame.channel == "ticker":
            kind = "snapshot" if '"type":"snapshot"' in frame.text[:KIND_WITHIN] else "update"
            self.quotes.setdefault(frame.symbol, Counter())[kind] += 1
        if self._segment_bytes <= 0:
            return
        if self._file is None or self._written_bytes >= self._segment_bytes:
            self.close()
            self._file = self._open()
        line = (
            f'{{"seq":{self.seq},"connection":{connection},"sent_ns":{sent_ns},"channel":"{frame.channel}",'
            f'"symbol":"{frame.symbol}","frame":{msgspec.json.encode(frame.text).decode()}}}\n'
        ).encode()
        self._written_bytes += len(line)
        self._file.write(line)

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flush and close the segment; the next record opens a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def summary(self) -> dict[str, Any]:
        """Frames sent per channel, and per symbol the distinct trade ids and the ticker frames sent."""
        return {
            "seq": self.seq,
            "frames": dict(self.frames),
            "trades": {symbol: ids.summary() | {"repeats": ids.repeats} for symbol, ids in self.trade_ids.items()},
            "quotes": {symbol: dict(counts) for symbol, counts in self.quotes.items()},
        }
