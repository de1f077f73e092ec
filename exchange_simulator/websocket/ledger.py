"""The ledger: everything that was sent to clients, so that tests can compare what arrived with it.

A frame is one NDJSON line, `{"seq", "connection", "sent_ns", "channel", "symbol", "frame"}`, with its exact text. Lines
go to segments `ledger-NNNNNN.ndjson`. When the disk limit is reached the oldest segment is deleted; the counts and the
trade ids are kept. What does not belong here: what the market published, sent or not (`channels`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from exchange_simulator.units import BYTES_PER_MB
from exchange_simulator.websocket.id_ranges import IdRanges

if TYPE_CHECKING:
    from io import BufferedWriter
    from pathlib import Path

    from exchange_simulator.websocket.wire import Frame

TYPE_WITHIN = 60
"""The type of a ticker frame is within this many characters from its start."""
SEGMENTS = 4
"""The limit is kept by deleting a whole segment, so between 3/4 of it and all of it is on disk."""


class Ledger:
    """An append-only record on disk and its running summary. Only the event loop uses it."""

    def __init__(self, folder: Path, *, limit_mb: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = int(limit_mb * BYTES_PER_MB / SEGMENTS)
        self._written_bytes = 0
        self._file: BufferedWriter | None = None
        self.seq = 0
        """The number of frames so far, and of the last line."""
        self.frames: Counter[str] = Counter()
        """Frames sent, by channel."""
        self.trade_ids: dict[str, IdRanges] = {}
        """Ids of the trades sent, by symbol."""
        self.quotes: dict[str, Counter[str]] = {}
        """Ticker frames sent, by symbol and type (`update` or `snapshot`), without the frames that a fault injected."""

    def _open_segment(self) -> BufferedWriter:
        segments = sorted(self._folder.glob("ledger-*.ndjson"))
        number = int(segments[-1].stem.removeprefix("ledger-")) + 1 if segments else 1
        for oldest in segments[: max(0, len(segments) - SEGMENTS + 1)]:
            oldest.unlink()
        self._written_bytes = 0
        return (self._folder / f"ledger-{number:06d}.ndjson").open("ab")

    def record(self, connection: int, frame: Frame, sent_ns: int) -> None:
        """Record that this frame was sent to this connection at this market time, ns."""
        self.seq += 1
        self.frames[frame.channel] += 1
        if frame.trade_ids:
            ids = self.trade_ids.setdefault(frame.symbol, IdRanges())
            for trade_id in frame.trade_ids:
                ids.add(trade_id)
        if frame.channel == "ticker":
            kind = "snapshot" if '"type":"snapshot"' in frame.text[:TYPE_WITHIN] else "update"
            self.quotes.setdefault(frame.symbol, Counter())[kind] += 1
        if self._segment_bytes <= 0:
            return
        if self._file is None or self._written_bytes >= self._segment_bytes:
            self.close()
            self._file = self._open_segment()
        line = (
            f'{{"seq":{self.seq},"connection":{connection},"sent_ns":{sent_ns},"channel":"{frame.channel}",'
            f'"symbol":"{frame.symbol}","frame":{msgspec.json.encode(frame.text).decode()}}}\n'
        ).encode()
        self._written_bytes += len(line)
        self._file.write(line)

    def flush(self) -> None:
        """Write buffered lines to the file."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flush and close the segment; the next record opens a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def summary(self) -> dict[str, Any]:
        """Frames sent per channel, and for each symbol the distinct trade ids and the ticker frames sent."""
        return {
            "seq": self.seq,
            "frames": dict(self.frames),
            "trades": {symbol: ids.summary() | {"repeats": ids.repeats} for symbol, ids in self.trade_ids.items()},
            "quotes": {symbol: dict(counts) for symbol, counts in self.quotes.items()},
        }
