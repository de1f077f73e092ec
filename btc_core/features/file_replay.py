"""The replay of a file of recorded frames: its lines, the feature rows they give, and the rows as an Arrow table.

The rows come from the `FeatureEngine` that the stream uses, so they equal the streamed rows to the last bit.
What does not belong here: the replay of a stored day (`days.day_replay`), or features of minute bars (`bar_features`).
"""

from __future__ import annotations

import gzip
import io
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import to_ns
from btc_core.errors import BadFrame, InvalidInput
from btc_core.exchanges.decoding import DECODERS, events_of
from btc_core.features.catalogue import FEATURE_NAMES, ROW
from btc_core.features.engine import FeatureEngine, Rows, run
from btc_core.market.events import EVENT_CHANNELS
from btc_core.market.frames import KRAKEN, OhlcFrame, Reply
from btc_core.market.messages import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""The first bytes of packed files."""
_PACKED_NAMES = (".gz", ".zst")
_BOM = b"\xef\xbb\xbf"
"""Some editors put this mark at the beginning of a text in UTF-8."""
NS_DIGITS = 19
"""The largest number of digits that a receive time in ns has before the year 2286."""
OTHER_UNITS = range(10**9, 10**18)
"""Numbers that are times of this century in s, ms or µs. As a time in ns, each would lie before 2002."""


class BadLine(msgspec.Struct, frozen=True):
    """A line of a recorded file, or an entry of its frame, that was refused."""

    line: int
    reason: str
    message: str


class FileReplay(msgspec.Struct, frozen=True):
    """The feature rows of a recorded file, its number of lines, and the refused ones."""

    rows: list[Rows]
    frames: int
    bad: list[BadLine]


def envelope_line(envelope: Envelope) -> bytes:
    """Return one line of a recorded file: `<receive time> <frame>`, or `<receive time>+<clock offset> <frame>`.

    Both numbers are in ns. The offset is `Envelope.clock_offset_ns`; an offset that is not above zero is left out,
    because it does not change which events are accepted.
    """
    offset_ns = envelope.clock_offset_ns or 0
    offset = b"+%d" % offset_ns if offset_ns > 0 else b""
    return b"%d%b %b\n" % (envelope.ts_recv_ns, offset, envelope.raw)


def read_lines(path: Path, exchange: str = KRAKEN) -> Iterator[tuple[int, Envelope | BadLine]]:
    """Yield each non-empty line of a recorded file as an envelope, with its line number from 1.

    A line is a raw frame, or what `envelope_line` returns. If a line has no receive time, it gets the latest exchange
    time in its frame; if the frame has no time either, the receive time is 0 and its events are refused.
    The file may be packed by gzip or zstd. Raises `InvalidInput` for a damaged packed file.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_unpacked(file, path), start=1):
                text = line.removeprefix(_BOM if number == 1 else b"").strip()
                if text:
                    yield number, _parse_line(number, text, exchange)
    except (EOFError, OSError, zlib.error) as error:
        msg = f"{path} cannot be read to its end: {error}"
        raise InvalidInput(msg) from error


def _unpacked(file: io.BufferedReader, path: Path) -> io.BufferedReader:
    """Return the content of a file. Its first bytes tell whether it is packed."""
    magic = file.peek(len(_ZSTD))
    if magic.startswith(_GZIP):
        return io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=file)))
    if magic.startswith(_ZSTD):
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
        return io.BufferedReader(cast("io.RawIOBase", stream))
    if path.suffix in _PACKED_NAMES:
        msg = f"{path} is named as a packed file, and its content is neither gzip nor zstd"
        raise InvalidInput(msg)
    return file


def _parse_line(number: int, text: bytes, exchange: str) -> Envelope | BadLine:
    head, _, rest = text.partition(b" ")
    received, plus, ahead = head.partition(b"+")
    is_time = all(part.isdigit() and len(part) <= NS_DIGITS for part in ((received, ahead) if plus else (received,)))
    has_receive_time = is_time and rest.startswith(b"{")
    if has_receive_time and int(received) in OTHER_UNITS:
        return BadLine(number, "bad_receive_time", f"the receive time {int(received)} is not in ns since 1970")
    raw = rest if has_receive_time else text
    try:
        frame = DECODERS[exchange](raw)
    except BadFrame as error:
        return BadLine(number, error.reason, str(error))
    channel = "" if isinstance(frame, Reply) else str(frame.__struct_config__.tag)
    ts_recv_ns = int(received) if has_receive_time else _latest_exchange_time_ns(frame)
    clock_offset_ns = int(ahead) if has_receive_time and plus else None
    return Envelope(ts_recv_ns, 0, number, channel, "file", raw, exchange=exchange, clock_offset_ns=clock_offset_ns)


def _latest_exchange_time_ns(frame: object) -> int:
    """Return the latest exchange time in a frame; 0 if the frame has none."""
    data = getattr(frame, "data", None)
    times = [getattr(entry, "timestamp", None) for entry in data] if isinstance(data, list) else []
    if isinstance(frame, OhlcFrame):  # a recorded bar was closed, so its receive time is not before its close
        times += [candle.interval_begin + timedelta(minutes=candle.interval) for candle in frame.data]
    return max((to_ns(time) for time in times if time is not None), default=0)


def replay_file(path: Path, exchange: str = KRAKEN) -> FileReplay:
    """Compute the feature rows of a recorded file; lines and entries that were refused are returned with their number.

    Raises `InvalidInput` if the file does not exist or is damaged, or if the exchange is unknown.
    """
    bad: list[BadLine] = []
    lines = 0

    def messages() -> Iterator[tuple[Envelope, int, int]]:
        nonlocal lines
        for number, line in read_lines(path, exchange):
            lines += 1
            if isinstance(line, BadLine):
                bad.append(line)
                continue
            if line.channel in EVENT_CHANNELS:
                bad.extend(_bad_entries(number, line))
                yield line, 0, number

    if not path.is_file():
        msg = f"{path} is not a file; name a recording with one frame per line (.jsonl or .jsonl.gz)"
        raise InvalidInput(msg)
    if exchange not in DECODERS:
        msg = f"the exchange {exchange!r} is unknown; choose one of {', '.join(DECODERS)}"
        raise InvalidInput(msg)
    rows = run(FeatureEngine(), messages())
    return FileReplay(rows, lines, bad)


def _bad_entries(number: int, envelope: Envelope) -> list[BadLine]:
    return [BadLine(number, event.reason, str(event)) for event in events_of(envelope) if isinstance(event, BadFrame)]


def rows_table(batches: list[Rows]) -> pa.Table:
    """Convert feature rows to an Arrow table: the columns that identify the event, then every feature."""
    columns: dict[str, pa.Array] = {}
    ids = [(batch.symbol, row) for batch in batches for row in batch.ids]
    timestamp = pa.timestamp("ns", tz="UTC")
    columns["ts_event"] = pa.array([row.ts_event_ns for _, row in ids], timestamp)
    columns["ts_recv"] = pa.array([row.ts_recv_ns for _, row in ids], timestamp)
    columns["symbol"] = pa.array([symbol for symbol, _ in ids], pa.string())
    for name in ("kind", "trade_id", "partition", "offset", "item"):
        columns[name] = pa.array([getattr(row, name) for _, row in ids], pa.int64())
    for name in ("trade_price", "trade_qty", "trade_side"):
        columns[name] = pa.array([getattr(row, name) for _, row in ids], pa.float64())
    values = np.concatenate([batch.values for batch in batches]) if batches else np.empty(0, ROW)
    for name in FEATURE_NAMES:
        columns[name] = pa.array(values[name])
    return pa.table(columns)
