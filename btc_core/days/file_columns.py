"""The columns of a file of market data: finding them, and converting them to numbers, times and sides.

What does not belong here: which columns each kind of file has (`bar_files`, `trade_files`), and the bounds of the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_MS, NS_PER_S, NS_PER_US
from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.days.market_files import MarketFile

BUYS, SELLS = ("b", "buy"), ("s", "sell")
"""The words that files use for the side of the taker, in upper or lower case."""
A_TIME = "a number of s, ms, µs or ns since 1970, or an ISO 8601 time"
"""What `times` reads, for messages."""
MAX_NS = 2**63 - 1
MAX_EXACT_FLOAT = 2**53
_UNITS = ((10**11, NS_PER_S), (10**14, NS_PER_MS), (10**17, NS_PER_US))
"""Times of this century in s have ten digits, in ms 13, in µs 16 and in ns 19: each is below the bound of its unit."""
_DECIMAL = pa.decimal128(38, 9)
_NUMBER = r"^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$"
_ZONED = r"[T ][0-9]{2}(:?[0-9]{2}).*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_ARROW_UNIT_NS = {"s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US, "ns": 1}


class Column(msgspec.Struct, frozen=True):
    """The values of a column, and the rows without one."""

    values: np.ndarray
    is_missing: np.ndarray
    is_unreadable: np.ndarray


def key_of(name: str) -> str:
    """A column's name without upper case, blanks and signs, so that `Open time`, `openTime` and `open_time` are equal."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


class FileForm(msgspec.Struct, frozen=True):
    """The columns that files of one kind of market data have."""

    names: Mapping[str, Sequence[str]]
    """The names that files use for each of our columns, in the form of `key_of`, the preferred one first."""
    required: tuple[str, ...]
    headless: Mapping[int, tuple[str, ...]]
    """Our columns of the files without a header, in order, by their number of columns."""
    description: str
    """The forms that can be read, for messages."""

    def places(self, file: MarketFile, **found_otherwise: int | None) -> dict[str, int]:
        """The position of each column that the file has; raises `InvalidInput` when a required one is missing.

        `found_otherwise` are positions of columns for which the file has none of the names.
        """
        if not file.names:
            if file.width not in self.headless:
                msg = f"{file.label} has {file.width} columns and no header. {self.description}."
                raise InvalidInput(msg)
            return {name: place for place, name in enumerate(self.headless[file.width])}
        keys = [key_of(name) for name in file.names]
        found = dict(found_otherwise)
        for ours, theirs in self.names.items():
            found[ours] = next((keys.index(name) for name in theirs if name in keys), found.get(ours))
        places = {name: place for name, place in found.items() if place is not None}
        missing = [name for name in self.required if name not in places]
        if missing:
            msg = (
                f"{file.label} has no column for {', '.join(missing)}; its columns are {', '.join(file.names)}. "
                f"{self.description}."
            )
            raise InvalidInput(msg)
        return places


def numbers(column: pa.Array) -> Column:
    """A column as float64; what is missing or cannot be read is NaN."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # Arrow's own cast is not exact in the last digit.
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _converted(column, pa.float64(), np.nan)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return _unreadable(column, np.float64)
    values = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return Column(values, np.isnan(values), np.zeros(len(values), bool))


def whole_numbers(column: pa.Array) -> Column:
    """A column as int64; what is missing or cannot be read is 0. A number as `90000001.0` is a whole number."""
    if pa.types.is_integer(column.type):
        return _converted(column, pa.int64(), 0)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        found = _converted(column, pa.int64(), 0)
        if not found.is_unreadable.any():
            return found
        texts = pc.utf8_trim_whitespace(column.cast(pa.string())).to_pylist()
        whole = [text.partition(".")[0] if text and _WHOLE.fullmatch(text) else text for text in texts]
        return _converted(pa.array(whole, pa.string()), pa.int64(), 0)
    as_float = numbers(column)
    is_whole = (np.abs(as_float.values) < MAX_EXACT_FLOAT) & (as_float.values == np.rint(as_float.values))
    values = np.where(is_whole, as_float.values, 0.0).astype(np.int64)
    return Column(values, as_float.is_missing, ~is_whole & ~as_float.is_missing)


def sides(column: pa.Array) -> Column:
    """Whether the taker bought, as bool."""
    words = _lower_case(column)
    is_missing = words.is_null().to_numpy(zero_copy_only=False)
    is_buy, is_sell = (
        pc.is_in(words, pa.array(side, pa.string())).to_numpy(zero_copy_only=False) for side in (BUYS, SELLS)
    )
    return Column(is_buy, is_missing, ~is_buy & ~is_sell & ~is_missing)


def sides_of_makers(column: pa.Array) -> Column:
    """Whether the taker bought, as bool, of a column that tells whether the buyer was the maker."""
    words = _lower_case(column)
    is_missing = words.is_null().to_numpy(zero_copy_only=False)
    is_sell, is_buy = (
        pc.is_in(words, pa.array(flags, pa.string())).to_numpy(zero_copy_only=False)
        for flags in (("true", "1"), ("false", "0"))
    )
    return Column(is_buy, is_missing, ~is_buy & ~is_sell & ~is_missing)


def times(column: pa.Array) -> Column:
    """Times in ns since 1970, UTC; what is missing or cannot be read is 0.

    Numbers count s, ms, µs or ns since 1970, and the size of each tells its unit. Text may be ISO 8601; a text or a
    timestamp without a time zone is UTC.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _of_counts(column.cast(pa.int64()), _ARROW_UNIT_NS[kind.unit])
    if pa.types.is_date(kind):
        return _of_counts(column.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()), NS_PER_DAY)
    if pa.types.is_integer(kind):
        return _of_counts(column.cast(pa.int64(), safe=False), None)
    if pa.types.is_floating(kind):
        return _of_floats(numbers(column))
    if pa.types.is_decimal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_texts(column.cast(pa.string()))
    return _unreadable(column, np.int64)


def _of_texts(column: pa.Array) -> Column:
    try:
        return _of_counts(column.cast(pa.int64()), None)
    except pa.ArrowInvalid:
        pass
    try:
        return _of_decimals(column.cast(_DECIMAL))
    except pa.ArrowInvalid:
        pass
    texts = pc.utf8_trim_whitespace(pc.replace_substring_regex(column, r"\s*UTC\s*$", "Z"))
    is_number = pc.match_substring_regex(texts, _NUMBER).fill_null(False).to_numpy(zero_copy_only=False)
    is_zoned = pc.match_substring_regex(texts, _ZONED).fill_null(False).to_numpy(zero_copy_only=False)
    parts: tuple[tuple[np.ndarray, Callable[[pa.Array], Column]], ...] = (
        (is_number, lambda part: _of_floats(_converted(part, pa.float64(), np.nan))),
        (is_zoned & ~is_number, lambda part: _of_stamps(part, pa.timestamp("ns", "UTC"))),
        (~is_zoned & ~is_number, lambda part: _of_stamps(part, pa.timestamp("ns"))),
    )
    values = np.zeros(len(texts), np.int64)
    is_missing, is_unreadable = np.zeros(len(texts), bool), np.zeros(len(texts), bool)
    for mask, convert in parts:
        if mask.any():
            found = convert(texts.filter(pa.array(mask)))
            values[mask], is_missing[mask], is_unreadable[mask] = found.values, found.is_missing, found.is_unreadable
    return Column(values, is_missing, is_unreadable)


def _of_stamps(texts: pa.Array, kind: pa.DataType) -> Column:
    found = _converted(texts, kind, 0)
    return Column(found.values.astype(np.int64), found.is_missing, found.is_unreadable)


def _of_counts(column: pa.Array, unit_ns: int | None) -> Column:
    """Times of whole numbers; without a unit, the size of each number tells it."""
    is_missing = column.is_null().to_numpy(zero_copy_only=False)
    counts = column.fill_null(0).to_numpy(zero_copy_only=False)
    units = np.full(len(counts), unit_ns) if unit_ns else _units_of(counts)
    is_unreadable = ~is_missing & ((counts < 0) | (counts > MAX_NS // units))
    return Column(np.where(is_unreadable, 0, counts) * units, is_missing, is_unreadable)


def _of_decimals(column: pa.Array) -> Column:
    """Times of numbers with up to nine decimals. Seconds are exact; other units are rounded to a microsecond."""
    found = _of_floats(numbers(column))
    is_seconds = _units_of(np.nan_to_num(numbers(column).values)) == NS_PER_S
    filled = column.fill_null(0)
    # Arrow stores a decimal as an integer of 128 bits, here in units of 1e-9. Seconds of it are ns, which fit into 64.
    low_half = np.frombuffer(filled.buffers()[1], np.int64)[::2][filled.offset : filled.offset + len(filled)]
    is_exact = is_seconds & ~found.is_missing & ~found.is_unreadable
    return Column(np.where(is_exact, low_half, found.values), found.is_missing, found.is_unreadable)


def _of_floats(column: Column) -> Column:
    """Times of numbers with decimals, rounded to a microsecond: a float has no more digits."""
    counts = np.nan_to_num(column.values, nan=0.0, posinf=-1.0, neginf=-1.0)
    units = _units_of(counts)
    is_unreadable = column.is_unreadable | ((counts < 0) | (counts > MAX_NS / units)) & ~column.is_missing
    micros = np.rint(np.where(is_unreadable, 0.0, counts) * (units / NS_PER_US)).astype(np.int64)
    return Column(micros * NS_PER_US, column.is_missing, is_unreadable)


def _units_of(counts: np.ndarray) -> np.ndarray:
    return np.select([counts < bound for bound, _ in _UNITS], [unit for _, unit in _UNITS], 1)


def _converted(column: pa.Array, kind: pa.DataType, filler: float) -> Column:
    """Cast a column; where that fails, cast every value alone to find those that cannot be cast."""
    is_missing = column.is_null().to_numpy(zero_copy_only=False)
    is_unreadable = np.zeros(len(column), bool)
    try:
        cast = column.cast(kind)
    except pa.ArrowInvalid:
        texts = column if not pa.types.is_string(column.type) else pc.utf8_trim_whitespace(column)
        cast, is_unreadable = _cast_each(texts, kind)
        is_missing |= cast.is_null().to_numpy(zero_copy_only=False) & ~is_unreadable
    numeric = cast.cast(pa.int64()) if pa.types.is_timestamp(kind) else cast
    return Column(numeric.fill_null(filler).to_numpy(zero_copy_only=False), is_missing, is_unreadable)


def _cast_each(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Cast what can be cast and return the mask of the rest; a blank text is null."""
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), None, column)
    is_unreadable = np.array([not _can_cast(value, kind) for value in column], bool)
    return pc.if_else(pa.array(is_unreadable), pa.scalar(None, column.type), column).cast(kind), is_unreadable


def _can_cast(value: pa.Scalar, kind: pa.DataType) -> bool:
    try:
        value.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _lower_case(column: pa.Array) -> pa.Array:
    """Words without blanks around them, null where there is none."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
    return pc.if_else(pc.equal(words, ""), None, words)


def _unreadable(column: pa.Array, kind: type[np.generic]) -> Column:
    """A column whose type holds no such values."""
    is_missing = column.is_null().to_numpy(zero_copy_only=False)
    return Column(np.zeros(len(column), kind), is_missing, ~is_missing)
