"""Reading trades from a file of an exchange or a data vendor, checked row by row with the bounds of the stream.

What does not belong here: opening the file (`market_files`), or storing trades (`trade_import`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_S, NS_PER_US, now_ns
from btc_core.days.bad_rows import BadRows
from btc_core.days.file_columns import (
    A_TIME,
    BUYS,
    SELLS,
    FileForm,
    numbers,
    sides,
    sides_of_makers,
    times,
    whole_numbers,
)
from btc_core.days.file_names import check_market
from btc_core.days.market_files import open_market_file
from btc_core.days.row_checks import RowChecks
from btc_core.market.checked_bars import EARLIEST, EARLIEST_NS, describe_time
from btc_core.market.events import FUTURE_S, MAX_NOTIONAL, MAX_QTY, max_price

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.days.market_files import Block

PAST = np.dtype([("ts_ns", "i8"), ("trade_id", "i8"), ("price", "f8"), ("qty", "f8"), ("buy", "?")], align=True)
"""A past trade. Its `trade_id` is `NO_ID` if the source has none."""
NO_ID = 0
_REQUIRED = ("time", "price", "qty")
_NAMES = {
    "time": ("tsevent", "ts", "timems", "time", "transacttime", "timestamp", "datetime", "date"),
    "price": ("price",),
    "qty": ("qty", "quantity", "volume", "size", "amount"),
    "side": ("side",),
    "maker": ("isbuyermaker", "buyermaker"),
    "trade_id": ("tradeid", "id"),
    "market": ("symbol", "pair", "market"),
}
"""The names that files use for each column, in the form of `key_of` and in order of preference."""
_HEADLESS = {
    3: _REQUIRED,
    7: ("trade_id", "price", "qty", "quote qty", "time", "maker", "best match"),
    # An aggregate stands for several trades, so its id is not the id of a trade.
    8: ("aggregate id", "price", "qty", "first id", "last id", "time", "maker", "best match"),
}
"""The columns of files without a header by their number: 3 is Kraken's, 7 Binance's trades, 8 its aggregated trades."""
FORMS = (
    "A file of trades has the columns time, price and qty by name, and may have side and trade_id; or it has no header "
    "and Kraken's 3 columns (time,price,volume) or Binance's 7 or 8; numbers have a point before their decimals and nothing "
    "between their thousands"
)
_FORM = FileForm(_NAMES, _REQUIRED, _HEADLESS, FORMS)


class TradeFile(msgspec.Struct, frozen=True):
    """The trades of a file."""

    trades: np.ndarray
    """Dtype `PAST`, sorted by time."""
    has_sides: bool
    """Whether the file says who was the taker; if not, the sides follow from the tick rule."""
    rows: int
    """The number of rows in the file."""
    repeated: int
    """Rows that repeat another one."""
    bad: BadRows
    """Rows that were left out."""


def read_trade_file(path: Path, symbol: str, *, skip_bad_rows: bool = False) -> TradeFile:
    """Read and check the trades of a file.

    Times are truncated to microseconds as on the exchange's socket. Without sides, a trade above the previous price
    counts as a buy and one below as a sell. Raises `InvalidInput` that names the file, the rows and the fault: when the
    file is of another market, when it cannot be read, and, unless bad rows are skipped, when a row is bad.
    """
    file = open_market_file(path, symbol)
    check_market(file.file_names, symbol)
    trades, numbered = [np.empty(0, PAST)], [np.empty(0, np.int64)]
    rows = 0
    with file.blocks() as blocks:
        places = _FORM.places(file)
        for block in blocks:
            part, is_good = _trades_of(block, places, symbol, file.bad)
            trades.append(part[is_good])
            numbered.append(block.numbers[is_good])
            rows += len(block.numbers)
    rows += file.malformed_lines
    found, repeated = _without_repeats(np.concatenate(trades), np.concatenate(numbered), file.bad)
    file.bad.refuse(file.label, rows, FORMS, are_skipped=skip_bad_rows)
    has_sides = "side" in places or "maker" in places
    if not has_sides:
        found["buy"] = _tick_rule(found["price"])
    return TradeFile(found, has_sides, rows, repeated, file.bad)


def _trades_of(block: Block, places: dict[str, int], symbol: str, bad: BadRows) -> tuple[np.ndarray, np.ndarray]:
    """The trades of a block, and the mask of the good ones."""
    checks = RowChecks(block.numbers, bad)
    raw = {name: block.columns[place] for name, place in places.items()}
    if "market" in raw:
        checks.market(raw["market"], symbol)
    trades = np.zeros(len(block.numbers), PAST)
    trades["ts_ns"] = checks.values("time", raw["time"], times(raw["time"]), A_TIME) // NS_PER_US * NS_PER_US
    for name in ("price", "qty"):
        trades[name] = checks.values(name, raw[name], numbers(raw[name]), "a number")
    _check_bounds(checks, trades, max_price(symbol))
    if "side" in raw:
        words = f"one of {', '.join(BUYS + SELLS)}"
        trades["buy"] = checks.values("side", raw["side"], sides(raw["side"]), words)
    elif "maker" in raw:
        column = sides_of_makers(raw["maker"])
        trades["buy"] = checks.values("is_buyer_maker", raw["maker"], column, "true or false")
    if "trade_id" in raw:
        ids = whole_numbers(raw["trade_id"])
        kind = "a whole number (without the column, trades are imported without ids)"
        values = checks.values("trade_id", raw["trade_id"], ids, kind, is_optional=True)
        checks.refuse("trade_id is 0; a trade without an id has none", (values == 0) & ~ids.is_missing)
        # Our own tables give trades without an id a negative one.
        trades["trade_id"] = np.where(ids.is_missing | (values < 0), NO_ID, values)
    return trades, checks.is_good


def _check_bounds(checks: RowChecks, trades: np.ndarray, most: float) -> None:
    ts_ns, price, qty = trades["ts_ns"], trades["price"], trades["qty"]
    latest_ns = now_ns() + FUTURE_S * NS_PER_S

    def time_of(row: int) -> str:
        return describe_time(int(ts_ns[row]))

    def size_of(row: int) -> str:
        return f"price {price[row]:.10g}, qty {qty[row]:.10g}"

    checks.refuse(f"the time is before {EARLIEST}", ts_ns < EARLIEST_NS, time_of)
    checks.refuse("the time lies in the future", ts_ns > latest_ns, time_of)
    with np.errstate(invalid="ignore", over="ignore"):
        is_price, is_qty = (price > 0) & (price <= most), (qty > 0) & (qty <= MAX_QTY)
        is_too_much = price * qty > MAX_NOTIONAL
    checks.refuse(f"price must be above zero and at most {most:.0e}", ~is_price, size_of)
    checks.refuse(f"qty must be above zero and at most {MAX_QTY:.0e}", ~is_qty, size_of)
    checks.refuse(f"price times qty must be at most {MAX_NOTIONAL:.0e}", is_too_much, size_of)


def _without_repeats(trades: np.ndarray, numbered: np.ndarray, bad: BadRows) -> tuple[np.ndarray, int]:
    """The trades in order of time without repeats, and the number of repeats; ids of different trades are bad rows."""
    if len(trades) > 1 and trades["ts_ns"][0] > trades["ts_ns"][-1] and (np.diff(trades["ts_ns"]) <= 0).all():
        trades, numbered = trades[::-1], numbered[::-1]  # newest first, also among trades of one moment
    is_repeat, is_conflicting = _repeated_ids(trades)
    is_repeat |= _repeated_runs(trades)
    places = np.flatnonzero(is_conflicting)

    def value_of(place: int) -> str:
        trade = trades[places[place]]
        moment = describe_time(int(trade["ts_ns"]))
        return f"id {trade['trade_id']}, {moment}, price {trade['price']:.10g}, qty {trade['qty']:.10g}"

    bad.add("another row has the same trade_id and other values", numbered[places].tolist(), value_of)
    kept = trades[~is_repeat & ~is_conflicting]
    return kept[np.argsort(kept["ts_ns"], kind="stable")], int((is_repeat & ~is_conflicting).sum())


def _repeated_ids(trades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The masks of the trades whose id came before with equal values, and of all trades whose id has several values."""
    is_repeat, is_conflicting = np.zeros(len(trades), bool), np.zeros(len(trades), bool)
    order = np.argsort(trades["trade_id"], kind="stable")
    order = order[trades["trade_id"][order] != NO_ID]
    ordered = trades[order]
    if len(ordered) > 1:
        is_again = ordered["trade_id"][1:] == ordered["trade_id"][:-1]
        is_equal = ordered[1:] == ordered[:-1]
        is_repeat[order[1:][is_again & is_equal]] = True
        is_conflicting[order] = np.isin(ordered["trade_id"], ordered["trade_id"][1:][is_again & ~is_equal])
    return is_repeat, is_conflicting


def _repeated_runs(trades: np.ndarray) -> np.ndarray:
    """The mask of the trades without an id that an earlier part of the file has already.

    Trades of one moment may be equal, so equal rows in a row are different trades. Where the times of a file step back,
    another file was appended to it; what both parts hold is kept once.
    """
    is_repeat = np.zeros(len(trades), bool)
    rows = np.flatnonzero(trades["trade_id"] == NO_ID)
    run = np.cumsum(np.diff(trades["ts_ns"], prepend=trades["ts_ns"][:1]) < 0)[rows]
    if not len(rows) or run[-1] == run[0]:
        return is_repeat
    values = trades[rows]
    keys = (values["ts_ns"], values["price"], values["qty"], values["buy"])
    by_run = np.lexsort((run, *keys))  # the first key varies fastest
    occurrence = np.empty(len(rows), np.int64)
    occurrence[by_run] = rank_in_groups(_is_new(by_run, (*keys, run)))
    by_occurrence = np.lexsort((run, occurrence, *keys))
    is_repeat[rows[by_occurrence[~_is_new(by_occurrence, (*keys, occurrence))]]] = True
    return is_repeat


def _is_new(order: np.ndarray, keys: tuple[np.ndarray, ...]) -> np.ndarray:
    """The mask of the places of an order where any of the keys changes."""
    changed = np.zeros(len(order), bool)
    for key in keys:
        ordered = key[order]
        changed[1:] |= ordered[1:] != ordered[:-1]
    changed[:1] = True
    return changed


def rank_in_groups(is_first: np.ndarray) -> np.ndarray:
    """The position of each element within its group, where the mask marks the first element of each group.

    >>> rank_in_groups(np.array([True, False, False, True])).tolist()
    [0, 1, 2, 0]
    """
    places = np.arange(len(is_first))
    return np.asarray(places - np.maximum.accumulate(np.where(is_first, places, 0)))


def _tick_rule(price: np.ndarray) -> np.ndarray:
    moves = np.sign(np.diff(price, prepend=price[:1]))
    last_move = np.maximum.accumulate(np.where(moves != 0, np.arange(len(moves)), 0))
    return np.asarray(moves[last_move] >= 0)
