"""Quotes and trades of Kraken from many lines of a recording at a time, in compiled code and without the GIL.

Only frames in the form that Kraken sends are read here. A line with anything else, such as a field twice, an exponent, an
escape, or a value that fails a check, is left to `decoding.events_of`, which every other reader uses. What is read is equal to
its result to the last bit: a number with at most 15 digits is its digits divided by a power of ten, both exact as float64, and
a division rounds correctly.
What does not belong here: the form of a line (`recorded_blocks`), or which trades are new (`market.continuity`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.compiled import njit
from btc_core.exchanges.recorded_blocks import is_at
from btc_core.market.events import (
    FUTURE_S,
    MAX_AHEAD_S,
    MAX_NOTIONAL,
    MAX_QTY,
    QUOTE,
    TRADE,
    max_price,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from btc_core.exchanges.recorded_blocks import Block

TICK = np.dtype(
    [
        ("line", "i8"),  # its number in the block
        ("symbol", "i8"),  # its number in `Ticks.symbols`
        ("received_ns", "i8"), ("ts_ns", "i8"), ("kind", "i8"),
        ("item", "i8"), ("trade_id", "i8"),
        ("slot_0", "f8"), ("slot_1", "f8"), ("slot_2", "f8"), ("slot_3", "f8"),  # as `features.state.EVENT`
    ],
    align=True,
)  # fmt: skip
"""A quote or a trade that passed all checks."""
MAX_SYMBOLS = 64
"""The most markets of one block; the lines of further ones are left to the usual decoder."""
SYMBOL_BYTES = 32
_ENTRY_BYTES = 64
"""The fewest bytes of an entry of a frame, which bound the number of rows of a block."""
_KINDS = ((b"ticker", QUOTE), (b"trade", TRADE))


class Ticks(msgspec.Struct, frozen=True):
    """The quotes and trades of a block, as far as they have the usual form."""

    rows: Any
    """In the order of the log, dtype `TICK`."""
    is_read: Any
    """For each line of the block whether all of its entries are in `rows`."""
    symbols: list[str]


def ticks_of(block: Block) -> Ticks:
    """The quotes and trades of a block that Kraken sent in the usual form and that pass the checks of `market.events`."""
    lines = block.lines
    is_read = np.zeros(len(lines), np.bool_)
    is_tick = lines["is_frame"] & ~lines["is_book"]
    size = int((lines["end"] - lines["begin"])[is_tick].sum()) // _ENTRY_BYTES + 1
    rows = np.empty(size, TICK)
    names = np.zeros((MAX_SYMBOLS, SYMBOL_BYTES), np.uint8)
    sizes = np.zeros(MAX_SYMBOLS, np.int64)
    count = _read_lines(block.data(), lines, is_tick, rows, is_read, names, sizes) if len(lines) else 0
    symbols = [names[at, : sizes[at]].tobytes().decode() for at in range(int(np.count_nonzero(sizes)))]
    return _checked(Ticks(rows[:count], is_read, symbols))


def with_ticks(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks with their ticks."""
    for block in blocks:
        block.ticks = ticks_of(block)
        yield block


def _checked(ticks: Ticks) -> Ticks:
    """Without the lines of which an entry has a price beyond the limit of its market."""
    if not len(ticks.rows):
        return ticks
    most = np.array([max_price(symbol) for symbol in ticks.symbols])[ticks.rows["symbol"]]
    highest = np.where(ticks.rows["kind"] == QUOTE, ticks.rows["slot_2"], ticks.rows["slot_0"])
    is_fine = highest <= most
    if is_fine.all():
        return ticks
    ticks.is_read[ticks.rows["line"][~is_fine]] = False
    return msgspec.structs.replace(ticks, rows=ticks.rows[ticks.is_read[ticks.rows["line"]]])


def _text(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_QUOTE_SIGN, _COMMA, _BRACE, _BRACE_END, _MINUS, _DOT, _ZERO, _NINE, _COLON, _Z, _BACKSLASH, _T = (
    ord(sign) for sign in '",{}-.09:Z\\T'
)
_HEADS = tuple(_text(b":%b:" % name) for name, _ in _KINDS)
_TICKER_HEAD, _TRADE_HEAD = _HEADS
_KRAKEN = _text(b"kraken:")
_TICKER_FRAMES = (
    _text(b'{"channel":"ticker","type":"update","data":['),
    _text(b'{"channel":"ticker","type":"snapshot","data":['),
)
_TRADE_FRAMES = (
    _text(b'{"channel":"trade","type":"update","data":['),
    _text(b'{"channel":"trade","type":"snapshot","data":['),
)
_TICKER_UPDATE, _TICKER_SNAPSHOT = _TICKER_FRAMES
_TRADE_UPDATE, _TRADE_SNAPSHOT = _TRADE_FRAMES
_FRAME_END = _text(b"]}")
_SYMBOL, _BID, _BID_QTY, _ASK, _ASK_QTY, _TIMESTAMP, _SIDE, _PRICE, _QTY, _TRADE_ID, _ORD_TYPE = (
    _text(name)
    for name in (
        b"symbol", b"bid", b"bid_qty", b"ask", b"ask_qty", b"timestamp", b"side", b"price", b"qty", b"trade_id", b"ord_type",
    )
)  # fmt: skip
_BUY, _SELL = _text(b"buy"), _text(b"sell")
_IS_SYMBOL, _IS_TIME, _IS_A, _IS_B, _IS_C, _IS_D, _IS_TRADE_ID, _IS_TYPE = (1 << bit for bit in range(8))
_WHOLE_QUOTE = _IS_SYMBOL | _IS_TIME | _IS_A | _IS_B | _IS_C | _IS_D
_WHOLE_TRADE = _IS_SYMBOL | _IS_TIME | _IS_A | _IS_B | _IS_C | _IS_TRADE_ID
_POWERS = np.array([float(10**exponent) for exponent in range(16)])
_EXACT_DIGITS, _SKIPPED_DIGITS = 15, 40  # of a number, and of one that is not needed
_DAYS_BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365])
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
_S_NS = 1_000_000_000
_MOST_AHEAD_NS = (MAX_AHEAD_S - FUTURE_S) * _S_NS
_FUTURE_NS = FUTURE_S * _S_NS
_FAILED = -1


@njit
def _is_word(text: Any, at: int, stop: int, word: Any) -> bool:
    """Whether a range is this word."""
    return stop - at == len(word) and is_at(text, at, stop, word)


@njit
def _end_of_text(text: Any, at: int, stop: int) -> int:
    """The place of the quotation mark that ends a text without escapes and with plain signs only; −1 if it has others."""
    while at < stop and text[at] != _QUOTE_SIGN:
        if text[at] < 0x20 or text[at] > 0x7E or text[at] == _BACKSLASH:
            return _FAILED
        at += 1
    return at if at < stop else _FAILED


@njit
def _digits(text: Any, at: int, count: int) -> int:
    """A number of exactly so many digits; −1 if one is not a digit."""
    value = 0
    for place in range(at, at + count):
        if text[place] < _ZERO or text[place] > _NINE:
            return _FAILED
        value = value * 10 + (text[place] - _ZERO)
    return value


@njit
def _decimal(text: Any, at: int, stop: int, most_digits: int) -> Any:
    """A JSON number without an exponent: its digits, how many are decimals, and the place behind it.

    The place is −1 if the number has another form or too many digits. A minus sign is skipped, and the second value is then
    below zero.
    """
    is_negative = at < stop and text[at] == _MINUS
    at += 1 if is_negative else 0
    begin, value, decimals, point = at, 0, 0, _FAILED
    while at < stop and (_ZERO <= text[at] <= _NINE or (text[at] == _DOT and point == _FAILED)):
        if text[at] == _DOT:
            point = at
        else:
            value = value * 10 + (text[at] - _ZERO)
        at += 1
        if at - begin > most_digits + 1:
            return 0, 0, _FAILED
    whole = (at if point == _FAILED else point) - begin
    decimals = 0 if point == _FAILED else at - point - 1
    has_form = whole > 0 and (whole == 1 or text[begin] != _ZERO) and (point == _FAILED or decimals > 0)
    if not has_form or whole + decimals > most_digits:
        return 0, 0, _FAILED
    return value, (-1 - decimals if is_negative else decimals), at


@njit
def _time_ns(text: Any, at: int, end: int) -> int:
    """The time `YYYY-MM-DDTHH:MM:SS[.ffffff]Z` in ns; −1 for any other form, and for a day or an hour that does not exist."""
    if end - at < 20 or end - at > 27 or end - at == 21 or text[end - 1] != _Z:
        return _FAILED
    is_formed = text[at + 4] == _MINUS and text[at + 7] == _MINUS and text[at + 10] == _T
    if not is_formed or text[at + 13] != _COLON or text[at + 16] != _COLON:
        return _FAILED
    year, month, day = _digits(text, at, 4), _digits(text, at + 5, 2), _digits(text, at + 8, 2)
    hour, minute, second = _digits(text, at + 11, 2), _digits(text, at + 14, 2), _digits(text, at + 17, 2)
    if min(hour, minute, second) < 0 or hour > 23 or minute > 59 or second > 59:
        return _FAILED
    if year < _FIRST_YEAR or year > _LAST_YEAR or month < 1 or month > 12 or day < 1:
        return _FAILED
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _DAYS_BEFORE[month] - _DAYS_BEFORE[month - 1] + (1 if is_leap and month == 2 else 0):
        return _FAILED
    before = year - 1
    leap_days = before // 4 - before // 100 + before // 400 - 477  # 477 were before 1970
    days = (year - 1970) * 365 + leap_days + _DAYS_BEFORE[month - 1] + (1 if is_leap and month > 2 else 0) + day - 1
    fraction = 0
    if end - at > 20:
        count = end - at - 21
        fraction = _digits(text, at + 20, count)
        if text[at + 19] != _DOT or fraction < 0:
            return _FAILED
        for _ in range(9 - count):
            fraction *= 10
    return int((days * 86_400 + hour * 3_600 + minute * 60 + second) * _S_NS + fraction)


@njit
def _symbol_number(text: Any, at: int, end: int, names: Any, sizes: Any) -> int:
    """The number of a symbol in `names`, to which a new one is added; −1 if there is no room."""
    if end == at or end - at > SYMBOL_BYTES:
        return _FAILED
    for number in range(MAX_SYMBOLS):
        if sizes[number] == 0:
            for i in range(end - at):
                names[number, i] = text[at + i]
            sizes[number] = end - at
            return number
        if sizes[number] == end - at and is_at(text, at, end, names[number, : sizes[number]]):
            return number
    return _FAILED


@njit
def _field_of(text: Any, at: int, end: int, kind: int) -> int:
    """Which field a name is; 0 for one that is not needed."""
    if _is_word(text, at, end, _SYMBOL):
        return _IS_SYMBOL
    if _is_word(text, at, end, _TIMESTAMP):
        return _IS_TIME
    if kind == TRADE:
        if _is_word(text, at, end, _PRICE):
            return _IS_A
        if _is_word(text, at, end, _QTY):
            return _IS_B
        if _is_word(text, at, end, _SIDE):
            return _IS_C
        if _is_word(text, at, end, _TRADE_ID):
            return _IS_TRADE_ID
        return _IS_TYPE if _is_word(text, at, end, _ORD_TYPE) else 0
    if _is_word(text, at, end, _BID):
        return _IS_A
    if _is_word(text, at, end, _BID_QTY):
        return _IS_B
    if _is_word(text, at, end, _ASK):
        return _IS_C
    return _IS_D if _is_word(text, at, end, _ASK_QTY) else 0


@njit
def _read_text(text: Any, at: int, end: int, field: int, row: Any, names: Any, sizes: Any) -> bool:
    """Set the field of an entry whose value is a text."""
    if field == _IS_SYMBOL:
        row.symbol = _symbol_number(text, at, end, names, sizes)
        return bool(row.symbol >= 0)
    if field == _IS_TIME:
        row.ts_ns = _time_ns(text, at, end)
        return bool(row.ts_ns > 0)
    if field == _IS_C and row.kind == TRADE:
        is_buy = _is_word(text, at, end, _BUY)
        row.slot_2 = 1.0 if is_buy else -1.0
        return bool(is_buy or _is_word(text, at, end, _SELL))
    return field == _IS_TYPE  # the type of an order is no part of the event


@njit
def _read_number(value: int, decimals: int, field: int, row: Any) -> bool:
    """Set the field of an entry whose value is a number."""
    if field == 0:
        return True
    if decimals < 0:  # no field may be negative
        return False
    number = value / _POWERS[decimals]
    if field == _IS_A:
        row.slot_0 = number
    elif field == _IS_B:
        row.slot_1 = number
    elif field == _IS_C and row.kind == QUOTE:
        row.slot_2 = number
    elif field == _IS_D:
        row.slot_3 = number
    elif field == _IS_TRADE_ID and decimals == 0:
        row.trade_id = value
    else:
        return False
    return True


@njit
def _passes(row: Any, latest_ns: int) -> bool:
    """The checks of `market.events`, except that of the highest price of a market."""
    if row.ts_ns > latest_ns:
        return False
    if row.kind == QUOTE:
        return bool(0.0 < row.slot_0 <= row.slot_2 and row.slot_1 <= MAX_QTY and row.slot_3 <= MAX_QTY)
    is_traded = row.slot_0 > 0.0 and 0.0 < row.slot_1 <= MAX_QTY and row.slot_0 * row.slot_1 <= MAX_NOTIONAL
    return bool(is_traded and row.trade_id > 0)


@njit
def _read_entry(text: Any, at: int, stop: int, row: Any, names: Any, sizes: Any) -> int:
    """Read the object that begins at a place; returns the place behind it, or −1 if it has another form."""
    if at >= stop or text[at] != _BRACE:
        return _FAILED
    seen = 0
    while True:
        at += 1
        if at >= stop or text[at] != _QUOTE_SIGN:
            return _FAILED
        end = _end_of_text(text, at + 1, stop)
        if end < 0 or end + 2 >= stop or text[end + 1] != _COLON:
            return _FAILED
        field = _field_of(text, at + 1, end, row.kind)
        if field & seen:
            return _FAILED
        seen |= field
        at = end + 2
        if text[at] == _QUOTE_SIGN:
            end = _end_of_text(text, at + 1, stop)
            if end < 0 or not _read_text(text, at + 1, end, field, row, names, sizes):
                return _FAILED
            at = end + 1
        else:
            value, decimals, at = _decimal(text, at, stop, _EXACT_DIGITS if field else _SKIPPED_DIGITS)
            if at < 0 or not _read_number(value, decimals, field, row):
                return _FAILED
        if at >= stop:
            return _FAILED
        if text[at] == _BRACE_END:
            break
        if text[at] != _COMMA:
            return _FAILED
    whole = _WHOLE_TRADE if row.kind == TRADE else _WHOLE_QUOTE
    return at + 1 if seen & whole == whole else _FAILED


@njit
def _begin_of_data(text: Any, line: Any, stop: int) -> Any:
    """The kind of a line of Kraken, and the place of its first entry; −1 if it is of another kind or exchange."""
    at, kind = line.origin, QUOTE
    while at < stop and text[at] != _COLON:
        at += 1
    if is_at(text, at, stop, _TICKER_HEAD):
        at += len(_TICKER_HEAD)
    elif is_at(text, at, stop, _TRADE_HEAD):
        at, kind = at + len(_TRADE_HEAD), TRADE
    else:
        return kind, _FAILED
    if not is_at(text, at, stop, _KRAKEN) or at + len(_KRAKEN) > line.frame:
        return kind, _FAILED
    update, snapshot = (_TICKER_UPDATE, _TICKER_SNAPSHOT) if kind == QUOTE else (_TRADE_UPDATE, _TRADE_SNAPSHOT)
    if is_at(text, line.frame, stop, update):
        return kind, line.frame + len(update)
    return kind, line.frame + len(snapshot) if is_at(text, line.frame, stop, snapshot) else _FAILED


@njit
def _read_line(text: Any, line: Any, number: int, rows: Any, first: int, names: Any, sizes: Any) -> int:
    """Read the entries of a line into `rows` from `first` on; returns where the next go, or −1 if it has another form."""
    stop = line.end - 1
    kind, at = _begin_of_data(text, line, stop)
    if at < 0:
        return _FAILED
    latest_ns = line.received_ns + min(max(line.ahead_ns, 0), _MOST_AHEAD_NS) + _FUTURE_NS
    count = first
    while count < len(rows):
        row = rows[count]
        row.line, row.kind, row.received_ns = number, kind, line.received_ns
        row.item, row.trade_id, row.slot_3 = count - first, 0, 0.0
        at = _read_entry(text, at, stop, row, names, sizes)
        if at < 0 or not _passes(row, latest_ns):
            return _FAILED
        count += 1
        if _is_word(text, at, stop, _FRAME_END):
            return count
        if at >= stop or text[at] != _COMMA:
            return _FAILED
        at += 1
    return _FAILED


@njit
def _read_lines(text: Any, lines: Any, is_tick: Any, rows: Any, is_read: Any, names: Any, sizes: Any) -> int:
    """Read the chosen lines, and mark those that could be read; returns the number of rows."""
    count = 0
    for number in range(len(lines)):
        if is_tick[number]:
            found = _read_line(text, lines[number], number, rows, count, names, sizes)
            if found >= 0:
                count = found
                is_read[number] = True
    return count
