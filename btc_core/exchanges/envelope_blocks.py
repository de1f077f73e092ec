"""Messages of the log as lines of a recording, many at a time, in compiled code and without the GIL.

The lines are those of `recorded_lines.envelope_line`. If one message of a batch is not an envelope in the form in which ingest
writes them today, `decode_envelope` decodes the whole batch. What does not belong here: reading the log (`stores.kafka`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.compiled import njit
from btc_core.errors import BadFrame
from btc_core.exchanges.recorded_blocks import Block, block_of, blocks_of
from btc_core.exchanges.recorded_lines import RecordedMessage
from btc_core.market.messages import decode_envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEAD_BYTES = 128
"""A line is at most this much longer than its message: the numbers are written as text."""
_FEWEST_FIELDS, _MOST_FIELDS = 8, 11
_ARRAY, _SHORT_TEXT, _TEXT_8 = 0x90, 0xA0, 0xD9
_NIL, _FALSE, _TRUE, _BYTES_8, _BYTES_32 = 0xC0, 0xC2, 0xC3, 0xC4, 0xC6
_WHOLE_8, _WHOLE_64, _SIGNED_8, _SIGNED_64 = 0xCC, 0xCF, 0xD0, 0xD3
_TIME, _CHANNEL, _ORIGIN, _RAW, _BOOK_OK, _EXCHANGE, _AHEAD, _QUALIFIED = 0, 3, 4, 5, 6, 7, 8, 9
_SPACE, _NEW_LINE, _RETURN, _COLON, _AT, _PLUS, _ZERO = (ord(sign) for sign in " \n\r:@+0")
_LAST_SIGN = 0x7E


def blocks_of_values(batches: Iterable[tuple[list[bytes], list[int]]], partition: int) -> Iterator[Block]:
    """Messages of a partition, as their values and offsets in the order of the log, in blocks.

    What is no envelope is left out.
    """
    for values, offsets in batches:
        block = _block_of(values, offsets, partition)
        if block is not None:
            yield block
        else:
            yield from blocks_of(_decoded(values, offsets, partition))


def _decoded(values: list[bytes], offsets: list[int], partition: int) -> Iterator[RecordedMessage]:
    for value, offset in zip(values, offsets, strict=True):
        try:
            yield RecordedMessage(decode_envelope(value), partition, offset)
        except BadFrame:  # every reader of the log leaves it out
            continue


def _block_of(values: list[bytes], offsets: list[int], partition: int) -> Block | None:
    """Messages as a block; None if one of them has an unusual form."""
    data = b"".join(values)
    stops = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    text = np.empty(len(data) + len(values) * _HEAD_BYTES, np.uint8)
    size = _write_lines(np.frombuffer(data, np.uint8), stops, np.array(offsets, np.int64), partition, text)
    if size < 0:
        return None
    block = block_of(text[:size].tobytes(), only_frames=False)
    return block if isinstance(block, Block) else None


@njit
def _write_lines(data: Any, stops: Any, offsets: Any, partition: int, text: Any) -> int:
    """Write the lines of all messages; returns their size, or −1 if a message has an unusual form."""
    begins, ends = np.zeros(_MOST_FIELDS, np.int64), np.zeros(_MOST_FIELDS, np.int64)
    at, begin = 0, 0
    for number in range(len(stops)):
        stop = stops[number]
        if not _find_fields(data, begin, stop, begins, ends):
            return -1
        at = _write_head(data, begins, ends, partition, offsets[number], text, at)
        for place in range(begins[_RAW], ends[_RAW]):
            sign = data[place]
            text[at] = _SPACE if sign in (_NEW_LINE, _RETURN) else sign
            at += 1
        text[at] = _NEW_LINE
        at += 1
        begin = stop
    return at


@njit
def _find_fields(data: Any, at: int, stop: int, begins: Any, ends: Any) -> bool:
    """Find the fields of an envelope: texts and bytes by their place, numbers by their value in `begins`.

    An envelope has 8 to 11 fields, and a missing one has its default. The first eight are required, because a line contains
    the exchange.
    """
    if at >= stop:
        return False
    count = data[at] - _ARRAY
    if not _FEWEST_FIELDS <= count <= _MOST_FIELDS:
        return False
    begins[_AHEAD], begins[_QUALIFIED] = 0, 0
    at += 1
    for field in range(count):
        if at >= stop:
            return False
        if field in (_CHANNEL, _ORIGIN, _EXCHANGE):
            at = _text_field(data, at, stop, field, begins, ends)
        elif field == _RAW:
            at = _bytes_field(data, at, stop, begins, ends)
        elif field == _BOOK_OK or field >= _QUALIFIED:
            at = _truth_field(data, at, field, begins)
        else:
            at = _number_field(data, at, stop, field, begins)
        if at < 0:
            return False
    return at == stop


@njit
def _text_field(data: Any, at: int, stop: int, field: int, begins: Any, ends: Any) -> int:
    sign = data[at]
    if _SHORT_TEXT <= sign < _SHORT_TEXT + 32:
        begin, size = at + 1, sign - _SHORT_TEXT
    elif sign == _TEXT_8 and at + 1 < stop:
        begin, size = at + 2, np.int64(data[at + 1])
    else:
        return -1
    end = begin + size
    if end > stop:
        return -1
    for place in range(begin, end):
        if data[place] <= _SPACE or data[place] > _LAST_SIGN or data[place] == _COLON:
            return -1
    begins[field], ends[field] = begin, end
    return int(end)


@njit
def _bytes_field(data: Any, at: int, stop: int, begins: Any, ends: Any) -> int:
    if not _BYTES_8 <= data[at] <= _BYTES_32:
        return -1
    width = 1 << (data[at] - _BYTES_8)
    if at + 1 + width > stop:
        return -1
    size = 0
    for place in range(at + 1, at + 1 + width):
        size = size << 8 | data[place]
    begins[_RAW] = at + 1 + width
    ends[_RAW] = begins[_RAW] + size
    return ends[_RAW] if ends[_RAW] <= stop else -1


@njit
def _truth_field(data: Any, at: int, field: int, begins: Any) -> int:
    """A truth value as 1 or 0. Only whether the checksum of a book is right may be unknown, −1."""
    if data[at] in (_FALSE, _TRUE):
        begins[field] = 1 if data[at] == _TRUE else 0
        return at + 1
    begins[field] = -1
    return at + 1 if field == _BOOK_OK and data[at] == _NIL else -1


@njit
def _number_field(data: Any, at: int, stop: int, field: int, begins: Any) -> int:
    """A number. An unknown or negative clock offset, which no other field may have, becomes 0: a line has only positive ones."""
    sign = data[at]
    if sign < 0x80:
        begins[field] = sign
        return at + 1
    if field == _AHEAD and (sign == _NIL or sign >= 0xE0):
        begins[field] = 0
        return at + 1
    is_whole, is_signed = _WHOLE_8 <= sign <= _WHOLE_64, field == _AHEAD and _SIGNED_8 <= sign <= _SIGNED_64
    if not is_whole and not is_signed:
        return -1
    width = 1 << (sign - (_WHOLE_8 if is_whole else _SIGNED_8))
    if at + 1 + width > stop:
        return -1
    if data[at + 1] >= 0x80 and (is_signed or width == 8):
        begins[field] = 0
        return at + 1 + width if is_signed else -1
    value = 0
    for place in range(at + 1, at + 1 + width):
        value = value << 8 | data[place]
    begins[field] = value
    return int(at + 1 + width)


@njit
def _write_head(data: Any, begins: Any, ends: Any, partition: int, offset: int, text: Any, at: int) -> int:
    at = _write_number(text, at, begins[_TIME])
    if begins[_AHEAD] > 0:
        text[at] = _PLUS
        at = _write_number(text, at + 1, begins[_AHEAD])
    text[at] = _AT
    at = _write_number(text, at + 1, partition)
    for number in (offset, begins[1], begins[2]):
        text[at] = _COLON
        at = _write_number(text, at + 1, number)
    for field in (_ORIGIN, _CHANNEL, _EXCHANGE):
        text[at] = _COLON
        at += 1
        if field == _EXCHANGE and begins[_QUALIFIED]:
            text[at] = _AT
            at += 1
        for place in range(begins[field], ends[field]):
            text[at] = data[place]
            at += 1
    text[at] = _COLON
    at += 1
    if begins[_BOOK_OK] >= 0:
        text[at] = _ZERO + begins[_BOOK_OK]
        at += 1
    text[at] = _SPACE
    return at + 1


@njit
def _write_number(text: Any, at: int, value: int) -> int:
    """Write a number that is not below zero; returns the place behind it."""
    size, rest = 1, value // 10
    while rest:
        size += 1
        rest //= 10
    for place in range(at + size - 1, at - 1, -1):
        text[place] = _ZERO + value % 10
        value //= 10
    return at + size
