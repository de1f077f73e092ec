"""Many lines of a recording at a time: where each line is in a text, and the numbers in its head.

An archive of the log has the lines already, so they can be hashed and chosen without taking them apart one by one.
What does not belong here: the form of a line (`recorded_lines`), or where texts come from (`days.log_archive`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from btc_core.compiled import njit
from btc_core.exchanges.recorded_lines import (
    NS_DIGITS,
    OTHER_UNITS,
    BadLine,
    RecordedMessage,
    envelope_line,
    parse_line,
)
from btc_core.market.frames import KRAKEN
from btc_core.market.messages import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from btc_core.exchanges.tick_lines import Ticks

_Item = TypeVar("_Item")
LINE = np.dtype(
    [
        ("begin", "i8"), ("end", "i8"),  # the line with its line break
        ("received_ns", "i8"),
        ("ahead_ns", "i8"),  # the clock offset; −1 if the line has none
        ("partition", "i8"), ("offset", "i8"), ("connection", "i8"), ("sequence", "i8"),
        ("origin", "i8"), ("frame", "i8"),  # where these begin
        ("is_book", "?"),
        ("is_frame", "?"),  # whether the frame begins as a JSON object
    ],
    align=True,
)  # fmt: skip
"""A line in a text."""
BLOCK_MESSAGES = 50_000
"""Messages that are put into a block when they come one by one."""
_NEW_LINE, _SPACE, _COLON, _AT, _PLUS, _BRACE = (ord(sign) for sign in "\n :@+{")
_ZERO, _NINE = ord("0"), ord("9")
_BOOK = np.frombuffer(b"book:", np.uint8)
_PLACE_DIGITS = 18
"""A number of a place with more digits would not fit into int64."""
_OTHER_FIRST, _OTHER_STOP = OTHER_UNITS.start, OTHER_UNITS.stop


class Block:
    """Consecutive messages of one partition, as lines in a text. `lines` has dtype `LINE`, in the order of the log."""

    def __init__(self, text: bytes, lines: np.ndarray) -> None:
        self.text = text
        self.lines = lines
        self.ticks: Ticks | None = None
        """Its quotes and trades, if they have been read (`tick_lines.with_ticks`)."""

    def data(self) -> np.ndarray:
        """The text as uint8."""
        return np.frombuffer(self.text, np.uint8)

    def where(self, mask: np.ndarray) -> Block:
        """Some of the lines, with the same text; all of them if the mask has no other."""
        return self if mask.all() else Block(self.text, self.lines[mask])

    def recording(self) -> bytes:
        """The lines as the text of a recording."""
        begins, ends = self.lines["begin"], self.lines["end"]
        if len(begins) and np.array_equal(begins[1:], ends[:-1]):
            return self.text[begins[0] : ends[-1]]
        return b"".join([self.text[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)])

    def messages(self, mask: np.ndarray | None = None) -> Iterator[RecordedMessage]:
        """The messages of the lines, or of some of them, in their order. Lines without a frame are left out."""
        chosen = self.lines["is_frame"] if mask is None else self.lines["is_frame"] & mask
        text = self.text
        names = ("received_ns", "ahead_ns", "partition", "offset", "connection", "sequence", "origin", "frame", "end")
        columns = (self.lines[name][chosen].tolist() for name in names)
        for received_ns, ahead_ns, partition, offset, connection, sequence, origin, frame, end in zip(
            *columns, strict=True
        ):
            source, channel, exchange, book_ok, qualified = _named(text[origin : frame - 1])
            raw = text[frame : end - 1]
            clock_offset_ns = None if ahead_ns < 0 else ahead_ns
            envelope = Envelope(
                received_ns, connection, sequence, channel, source, raw, book_ok, exchange, clock_offset_ns, qualified
            )
            yield RecordedMessage(envelope, partition, offset)


@lru_cache(maxsize=1024)
def _named(names: bytes) -> tuple[str, str, str, bool | None, bool]:
    """The origin, the channel, the exchange, the book and whether symbols are qualified, from the end of a head."""
    origin, channel, exchange, book = names.decode(errors="replace").split(":")
    book_ok = book == "1" if book else None
    return origin, channel, exchange.removeprefix("@") or KRAKEN, book_ok, exchange.startswith("@")


def block_of(text: bytes, *, only_frames: bool = True) -> Block | BadLine:
    """The lines of a text, of which each has a place in the log and ends with a line break; the first that has not, if any.

    With `only_frames`, a line whose frame is no JSON object is a bad line, too.
    """
    data = np.frombuffer(text, np.uint8)
    stops = np.flatnonzero(data == _NEW_LINE)
    if len(data) and data[-1] != _NEW_LINE:
        stops = np.append(stops, len(data))
    lines = np.empty(len(stops), LINE)
    read = _index(data, stops, lines) if len(lines) else 0
    if only_frames and not lines["is_frame"][:read].all():
        read = int(np.argmin(lines["is_frame"][:read]))
    if read < len(lines):
        begin = int(stops[read - 1]) + 1 if read else 0
        found = parse_line(read + 1, text[begin : stops[read]])
        return (
            found if isinstance(found, BadLine) else BadLine(read + 1, "bad_place", "the line has no place in the log")
        )
    return Block(text, lines)


def blocks_of(messages: Iterable[RecordedMessage], size: int = BLOCK_MESSAGES) -> Iterator[Block]:
    """Messages in blocks, in their order."""
    waiting: list[RecordedMessage] = []
    for message in messages:
        waiting.append(message)
        if len(waiting) >= size:
            yield _block_of_messages(waiting)
            waiting = []
    if waiting:
        yield _block_of_messages(waiting)


def _block_of_messages(messages: list[RecordedMessage]) -> Block:
    """The messages as lines. A line that no recording could hold, such as one of 1970, has a place and a hash, but no frame."""
    texts = [envelope_line(each.envelope, each.partition, each.offset) for each in messages]
    block = block_of(b"".join(texts), only_frames=False)
    if isinstance(block, Block):
        return block
    lines = np.zeros(len(texts), LINE)
    begin = 0
    for at, (text, message) in enumerate(zip(texts, messages, strict=True)):
        alone = block_of(text, only_frames=False)
        if isinstance(alone, Block):
            lines[at] = alone.lines[0]
        else:
            lines[at]["end"], lines[at]["partition"], lines[at]["offset"] = len(text), message.partition, message.offset
        for name in ("begin", "end", "origin", "frame"):
            lines[at][name] += begin
        begin += len(text)
    return Block(b"".join(texts), lines)


def read_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the items. Another thread makes the next one while the caller uses the present one."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = thread.submit(next, items, None)
            yield item


@njit
def _index(text: Any, stops: Any, lines: Any) -> int:
    """Fill `lines`, whose line breaks are at `stops`; returns how many could be read."""
    at = 0
    for count in range(len(lines)):
        line, stop = lines[count], stops[count]
        if stop == len(text):
            return count
        line.begin = at
        line.end = stop + 1
        value, place = _number(text, at, stop, NS_DIGITS)
        if place == at or place >= stop or _OTHER_FIRST <= value < _OTHER_STOP:
            return count
        line.received_ns = value
        line.ahead_ns = -1
        if text[place] == _PLUS:
            begin = place + 1
            value, place = _number(text, begin, stop, NS_DIGITS)
            if place == begin:
                return count
            line.ahead_ns = value
        sign = _AT
        for field in range(4):
            if place >= stop or text[place] != sign:
                return count
            begin = place + 1
            value, place = _number(text, begin, stop, _PLACE_DIGITS)
            if place == begin:
                return count
            sign = _COLON
            if field == 0:
                line.partition = value
            elif field == 1:
                line.offset = value
            elif field == 2:
                line.connection = value
            else:
                line.sequence = value
        if place >= stop or text[place] != _COLON:
            return count
        line.origin = place + 1
        colons, channel = 0, 0
        while place < stop and text[place] != _SPACE:
            if text[place] == _COLON:
                colons += 1
                channel = place + 1 if colons == 2 else channel
            place += 1
        if place >= stop or colons != 4:
            return count
        line.frame = place + 1
        line.is_frame = place + 1 < stop and text[place + 1] == _BRACE
        line.is_book = is_at(text, channel, stop, _BOOK)
        at = stop + 1
    return len(lines)


@njit
def _number(text: Any, at: int, stop: int, digits: int) -> Any:
    """The number at a place, and the place behind it, which is `at` if there is no number or if it is too long."""
    value, begin = 0, at
    while at < stop and _ZERO <= text[at] <= _NINE:
        value = value * 10 + (text[at] - _ZERO)
        at += 1
    return (0, begin) if at - begin > digits or value < 0 else (value, at)  # below zero: beyond int64


@njit
def is_at(text: Any, at: int, stop: int, word: Any) -> bool:
    """Whether a word begins at a place."""
    if at + len(word) > stop:
        return False
    for i in range(len(word)):
        if text[at + i] != word[i]:
            return False
    return True
