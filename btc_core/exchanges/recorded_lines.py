"""The lines of a recording: a frame with its receive time, and optionally everything else that the log knows of it.

`btc record` and the archives of the log write such lines, and `btc replay` reads them.
What does not belong here: feature rows of a recording (`features.file_replay`), or where archives are (`days.log_archive`).
"""

from __future__ import annotations

import gzip
import io
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import msgspec
import pyarrow as pa

from btc_core.clock import to_ns
from btc_core.errors import BadFrame, InvalidInput
from btc_core.exchanges.decoding import DECODERS
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
_NEW_LINES = bytes.maketrans(b"\r\n", b"  ")
_PLACE_FIELDS = 8


class BadLine(msgspec.Struct, frozen=True):
    """A line of a recording, or an entry of its frame, that was refused."""

    line: int
    reason: str
    message: str


class RecordedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of a recording with its place in the log."""

    envelope: Envelope
    partition: int
    """The partition of `market.events`; 0 if the line does not name it."""
    offset: int
    """The offset in the partition; the number of the line if the line does not name it."""


def envelope_line(envelope: Envelope, partition: int, offset: int) -> bytes:
    """Return one line of a recording: `<receive time>[+<clock offset>]@<place> <frame>`.

    Both times are in ns. The clock offset is `Envelope.clock_offset_ns`; an offset that is not above zero is left out,
    because it does not change which events are accepted. The place is
    `<partition>:<offset>:<connection>:<sequence>:<origin>:<channel>:<exchange>:<1 if the book's checksum is right, 0 if not>`.
    The exchange has an `@` before its name if the symbols of the frame are qualified with it (`Envelope.qualified`).
    A line break in a frame becomes a space, which means the same in JSON.
    """
    ahead_ns = envelope.clock_offset_ns or 0
    ahead = f"+{ahead_ns}" if ahead_ns > 0 else ""
    book = "" if envelope.book_ok is None else int(envelope.book_ok)
    head = (
        f"{envelope.ts_recv_ns}{ahead}@{partition}:{offset}:{envelope.connection}:{envelope.sequence}:{envelope.origin}:"
        f"{envelope.channel}:{'@' if envelope.qualified else ''}{envelope.exchange}:{book} "
    )
    return head.encode() + envelope.raw.translate(_NEW_LINES) + b"\n"


def read_lines(path: Path, exchange: str = KRAKEN) -> Iterator[tuple[int, RecordedMessage | BadLine]]:
    """Yield each non-empty line of a recording as a message, with its line number from 1.

    A line is a raw frame, a receive time with a frame, or what `envelope_line` returns. `exchange` sent the frames of lines
    that do not name one. A line without a receive time gets the latest exchange time in its frame; if the frame has no time
    either, the receive time is 0 and its events are refused.
    The file may be packed by gzip or zstd. Raises `InvalidInput` for a damaged packed file.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_unpacked(file, path), start=1):
                text = line.removeprefix(_BOM if number == 1 else b"").strip()
                if text:
                    yield number, parse_line(number, text, exchange)
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


def parse_line(number: int, text: bytes, exchange: str = KRAKEN) -> RecordedMessage | BadLine:
    """Return the message of one line without its line break."""
    head, _, rest = text.partition(b" ")
    times, at, place = head.partition(b"@")
    received, plus, ahead = times.partition(b"+")
    is_time = all(part.isdigit() and len(part) <= NS_DIGITS for part in ((received, ahead) if plus else (received,)))
    has_receive_time = is_time and rest.startswith(b"{")
    if has_receive_time and int(received) in OTHER_UNITS:
        return BadLine(number, "bad_receive_time", f"the receive time {int(received)} is not in ns since 1970")
    clock_offset_ns = int(ahead) if has_receive_time and plus else None
    if has_receive_time and at:
        return _placed_message(number, int(received), clock_offset_ns, place, rest)
    raw = rest if has_receive_time else text
    try:
        frame = DECODERS[exchange](raw)
    except BadFrame as error:
        return BadLine(number, error.reason, str(error))
    channel = "" if isinstance(frame, Reply) else str(frame.__struct_config__.tag)
    ts_recv_ns = int(received) if has_receive_time else _latest_exchange_time_ns(frame)
    envelope = Envelope(ts_recv_ns, 0, number, channel, "file", raw, exchange=exchange, clock_offset_ns=clock_offset_ns)
    return RecordedMessage(envelope, 0, number)


def _placed_message(
    number: int, ts_recv_ns: int, clock_offset_ns: int | None, place: bytes, raw: bytes
) -> RecordedMessage | BadLine:
    """The message of a line that names its place in the log. Its frame is decoded by the reader of the message."""
    fields = place.decode(errors="replace").split(":")
    if len(fields) != _PLACE_FIELDS or not all(field.isdecimal() for field in fields[:4]):
        return BadLine(number, "bad_place", f"the line has no readable place in the log: {place[:80]!r}")
    partition, offset, connection, sequence = map(int, fields[:4])
    origin, channel, exchange, book = fields[4:]
    book_ok = book == "1" if book else None
    qualified, name = exchange.startswith("@"), exchange.removeprefix("@") or KRAKEN
    envelope = Envelope(
        ts_recv_ns, connection, sequence, channel, origin, raw, book_ok, name, clock_offset_ns, qualified
    )
    return RecordedMessage(envelope, partition, offset)


def _latest_exchange_time_ns(frame: object) -> int:
    """Return the latest exchange time in a frame; 0 if the frame has none."""
    data = getattr(frame, "data", None)
    times = [getattr(entry, "timestamp", None) for entry in data] if isinstance(data, list) else []
    if isinstance(frame, OhlcFrame):  # a recorded bar was closed, so its receive time is not before its close
        times += [candle.interval_begin + timedelta(minutes=candle.interval) for candle in frame.data]
    return max((to_ns(time) for time in times if time is not None), default=0)
