"""The proof of a day's silver rows: a replay of its bronze rows, compared with what the stream wrote.

Two replays answer two questions. A replay in the order of the log leaves late trades out, as the stream did; it tells
whether the stream computed the right rows. A replay with every late or imported trade at its place tells what the rows of
the day should be. Without late trades both are the same replay.
Nothing is written before everything has been compared. If the replay would change too much, the proof refuses to write,
because then the replay itself is more likely to be wrong than the stored rows.
What does not belong here: the order of events (`day_replay`), or whether bronze holds all of the log (`bronze_proof`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_DAY
from btc_core.days.day_replay import events_around, in_log_order, leader_events, orders, replay
from btc_core.days.stored_days import read_rows
from btc_core.features.catalogue import DEPTH_FEATURES, FEATURE_NAMES, FEATURE_VERSION, LEADER_FEATURES, as_matrix
from btc_core.features.state import EVENT_FIELDS, slot_of
from btc_core.market.events import TRADE
from btc_core.stores.questdb import write_rows
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.days.day_replay import DayOrders
    from btc_core.days.replaced import Keep
    from btc_core.stores.questdb import QuestDB

MAX_CHANGED_SHARE = 0.2
"""The largest share of a day's rows that a proof changes unasked. A late trade changes the rows of the hour after it, which
are 4 % of a day, so five repaired outages pass."""
FEW_ROWS = 1_000
"""Up to this many changed rows are always accepted: on a quiet market one late trade can change a large share."""
MAX_MOVE_S = 900.0
"""The most that the place of a late trade may disagree with its time. A stamp may be ten minutes ahead of its receipt
(`events.MAX_AHEAD_S`); a larger difference means that its id belongs to another numbering."""
EXAMPLES = 10
_MAX_ITEMS = 1 << 16
_PLACE = "kafka_partition, kafka_offset, frame_item"
_TRADE_COLUMNS = ("trade_price", "trade_qty", "trade_side")
_COMPARED = (*_TRADE_COLUMNS, *FEATURE_NAMES)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing the stored rows of a day with its replay."""

    rows: int
    """Rows that the replay gives."""
    rows_streamed: int
    """Rows that the stream should have written. With 0, there was nothing to compare: nothing was streamed on the day, or only
    trades that were imported later are left of it."""
    rows_missing: int
    """Rows that were not stored. They have been written unless the proof was refused."""
    rows_different: int
    """Rows that were stored with other values. They have been replaced unless the proof was refused."""
    rows_unexplained: int
    """Missing or different rows that no late trade explains: the stream computed or stored them wrongly."""
    rows_extra: int
    """Stored rows that no replay gives."""
    books_proven: bool = True
    """Whether the features of the order book were compared. Without the day's messages they cannot be, and stay as stored."""
    leader_proven: bool = True
    """Whether the features of the leading market were compared. Without its quotes and trades they stay as stored."""
    rows_of_other_version: int
    """Rows of another feature version, which cannot be compared. They are part of `rows_different`."""
    late_trades: int
    """Trades that filled a gap or were imported."""
    max_abs_diff: dict[str, float]
    """The largest absolute difference in each column in which a row differs."""
    examples: tuple[dict[str, Any], ...]
    """The first unexplained rows."""
    refusal: str = ""
    """Why nothing was written; empty if everything that differed was written."""

    @property
    def stream_equals_replay(self) -> bool:
        """Whether every row that the stream wrote equals the replayed row to the last bit; look at `rows_streamed`, too."""
        return self.rows_unexplained == 0 and self.rows_extra == 0


def silver_rows(symbol: str, events: np.ndarray, rows: np.ndarray) -> pa.Table:
    """Replayed rows (dtype `features.catalogue.ROW`) of one market at their events (dtype `LOGGED`), as the table has them."""
    trade = events["kind"] == TRADE
    traded = {
        name: np.where(trade, events[slot_of(TRADE, field)], np.nan)
        for name, field in zip(_TRADE_COLUMNS, EVENT_FIELDS[TRADE], strict=True)
    }
    identity = {"ts_event_ns": events["ts_ns"], "ts_recv_ns": events["recv_ns"], "symbol": [symbol] * len(events)}
    place = {name: events[name] for name in ("partition", "offset", "item", "kind", "trade_id")}
    return table_rows.silver_features(identity | place | traded, as_matrix(rows))


class Comparison:
    """Compares the stored rows of one market with replayed ones, and collects what differs."""

    def __init__(self, db: QuestDB, symbol: str, unproven: tuple[str, ...] = ()) -> None:
        """Features in `unproven` cannot be replayed: a stored row keeps its own, and a row that is missing gets NaN."""
        self.db = db
        self.symbol = symbol
        self._unproven = unproven
        self.rows = self.missing = self.different = self.matched = self.other_version = 0
        self.suspect: list[np.ndarray] = []
        """Keys of rows that are missing, or that differ and have the present feature version."""
        self.max_abs_diff: dict[str, float] = {}
        self.examples: list[dict[str, Any]] = []

    def take(self, events: np.ndarray, rows: np.ndarray) -> pa.Table:
        """Compare one piece, and return the rows that are missing or different as the table should have them."""
        expected = silver_rows(self.symbol, events, rows)
        stored = self._stored(int(events["ts_ns"].min()), int(events["ts_ns"].max()) + 1)
        keys = _keys(events)
        pairs = _pairs(keys, _stored_keys(stored))
        present = np.zeros(len(keys), bool)
        present[pairs.here] = True
        current = np.ones(len(keys), bool)
        current[pairs.here] = stored["feature_version"].to_numpy()[pairs.there] == FEATURE_VERSION
        expected = self._with_unproven(expected, stored, pairs, current)
        wrong = self._different(events, expected, stored, pairs)
        self.rows += len(keys)
        self.matched += len(pairs.here)
        self.missing += int((~present).sum())
        self.different += int((wrong | ~current).sum())
        self.other_version += int((~current).sum())
        self.suspect.append(keys[~present | (wrong & current)])
        return expected.filter(pa.array(wrong | ~present | ~current))

    def _with_unproven(self, expected: pa.Table, stored: pa.Table, pairs: _Pairs, current: np.ndarray) -> pa.Table:
        """The replayed rows with the stored values of the features that cannot be replayed."""
        kept = current[pairs.here]
        for name in self._unproven:
            values = np.full(len(expected), np.nan)
            values[pairs.here[kept]] = stored[name].to_numpy()[pairs.there[kept]]
            place = expected.schema.get_field_index(name)
            expected = expected.set_column(place, expected.schema.field(place), pa.array(values))
        return expected

    def changed_share(self) -> float:
        """The share of the rows that were stored with other values of the present feature version."""
        return (self.different - self.other_version) / max(1, self.rows)

    def _different(self, events: np.ndarray, expected: pa.Table, stored: pa.Table, pairs: _Pairs) -> np.ndarray:
        """The mask of the events whose stored row has other values."""
        wrong = np.zeros(len(events), bool)
        for name in _COMPARED:
            there, here = stored[name].to_numpy()[pairs.there], expected[name].to_numpy()[pairs.here]
            differs = (there != here) & ~(np.isnan(there) & np.isnan(here))
            if not differs.any():
                continue
            wrong[pairs.here[differs]] = True
            gap = np.nan_to_num(
                np.abs(there - here)[differs], nan=np.inf
            )  # NaN against a number counts as an infinite difference
            self.max_abs_diff[name] = max(self.max_abs_diff.get(name, 0.0), float(gap.max()))
            self._add_examples(events[pairs.here[differs]], name, there[differs], here[differs])
        return wrong

    def _add_examples(self, events: np.ndarray, name: str, there: np.ndarray, here: np.ndarray) -> None:
        for event, stored, replayed in zip(events, there, here, strict=True):
            if len(self.examples) >= EXAMPLES:
                return
            place = {"offset": int(event["offset"]), "item": int(event["item"]), "ts_event_ns": int(event["ts_ns"])}
            self.examples.append(place | {"column": name, "stored": float(stored), "replayed": float(replayed)})

    def _stored(self, begin_ns: int, end_ns: int) -> pa.Table:
        names = ", ".join(_COMPARED)
        return self.db.query(
            f"SELECT {_PLACE}, feature_version, {names} FROM silver_features "  # noqa: S608 - names of the catalogue
            f"WHERE {of_symbol(self.symbol)} AND {within('ts_event', begin_ns, end_ns)}"
        )


class _Pairs(msgspec.Struct, frozen=True):
    """Indices of the rows that both sides have."""

    here: np.ndarray
    there: np.ndarray


def _pairs(here: np.ndarray, there: np.ndarray) -> _Pairs:
    """The rows with equal keys; a key is unique on each side."""
    _, first, second = np.intersect1d(here, there, assume_unique=True, return_indices=True)
    return _Pairs(first, second)


def _keys(events: np.ndarray) -> np.ndarray:
    """A number for each place in the log, or for the place of an imported trade."""
    return np.asarray((events["offset"] * _MAX_ITEMS + events["item"]) * 2 + (events["partition"] >= 0))


def _stored_keys(stored: pa.Table) -> np.ndarray:
    offset, item, partition = (stored[f"{n}"].to_numpy() for n in ("kafka_offset", "frame_item", "kafka_partition"))
    return np.asarray((offset.astype(np.int64) * _MAX_ITEMS + item) * 2 + (partition >= 0))


def prove(  # noqa: PLR0913 - what is compared, and how
    db: QuestDB, symbol: str, day: str, keep: Keep, *, insist: bool = False,
    books: np.ndarray | None = None, leader: str = "",
) -> Proof:  # fmt: skip
    """Replay a day, compare it with `silver_features`, and write the rows that are missing or different there.

    `keep` stores the old rows before they are replaced. If too much would change, nothing is written and `Proof.refusal`
    says why; `insist` writes it nevertheless. `books` are the market's events of the order book (`day_books`). Without
    them the features of the order book are not compared, and stored ones are kept. The same holds for the features of the
    `leader` (`BTC_LEADER`) if bronze has none of its quotes and trades.
    """
    begin_ns = day_ns(day)
    end_ns = begin_ns + NS_PER_DAY
    leads = leader_events(db, leader, day) if leader and leader != symbol else None
    parts = [events_around(db, symbol, day), *(part for part in (books, leads) if part is not None)]
    ordered = orders(in_log_order(np.concatenate(parts)))
    leader_is_missing = leads is not None and not len(leads)
    unproven = (*(DEPTH_FEATURES if books is None else ()), *(LEADER_FEATURES if leader_is_missing else ()))
    stored = _stored_rows(db, symbol, day)
    as_streamed = Comparison(db, symbol, unproven)
    for part, rows in replay(ordered.streamed, begin_ns, end_ns):
        as_streamed.take(part, rows)
    true = as_streamed
    if ordered.moved_trades:
        true = Comparison(db, symbol, unproven)
        for part, rows in replay(ordered.truth, begin_ns, end_ns):
            true.take(part, rows)
    suspects = [_joined(each.suspect) for each in (as_streamed, true)]
    unexplained = np.intersect1d(suspects[0], suspects[1])
    refusal = "" if insist else _refusal(symbol, day, ordered, true)
    if not refusal and true.missing + true.different:
        _write(Comparison(db, symbol, unproven), replay(ordered.truth, begin_ns, end_ns), keep)
    return Proof(
        rows=true.rows,
        rows_streamed=as_streamed.rows,
        rows_missing=true.missing,
        rows_different=true.different,
        rows_unexplained=len(unexplained),
        rows_extra=stored - true.matched,
        books_proven=books is not None,
        leader_proven=not leader_is_missing,
        rows_of_other_version=true.other_version,
        late_trades=ordered.moved_trades,
        max_abs_diff=true.max_abs_diff,
        examples=tuple(as_streamed.examples) if len(unexplained) else (),
        refusal=refusal,
    )


def _refusal(symbol: str, day: str, ordered: DayOrders, true: Comparison) -> str:
    """Why the rows of the replay must not be written without a person's consent; empty if they may."""
    if ordered.largest_move_s > MAX_MOVE_S:
        return (
            f"{symbol} on {day}: the replay puts a late trade {ordered.largest_move_s:.0f} s away from its time; at most "
            f"{MAX_MOVE_S:.0f} s are plausible, so its id probably belongs to another numbering"
        )
    changed = true.different - true.other_version
    if changed > FEW_ROWS and true.changed_share() > MAX_CHANGED_SHARE:
        return (
            f"{symbol} on {day}: the replay changes {changed} of {true.rows} stored feature rows "
            f"({true.changed_share():.0%}); at most {MAX_CHANGED_SHARE:.0%} are plausible"
        )
    return ""


def _write(comparison: Comparison, replayed: Iterator[tuple[np.ndarray, np.ndarray]], keep: Keep) -> None:
    """Write the replayed rows that are missing or different, after storing the rows that they replace."""
    db, symbol = comparison.db, comparison.symbol
    for part, rows in replayed:
        fresh = comparison.take(part, rows)
        if not len(fresh):
            continue
        keep(SILVER_FEATURES, _replaced_rows(db, symbol, part, fresh))
        write_rows(db, SILVER_FEATURES, fresh)


def _replaced_rows(db: QuestDB, symbol: str, events: np.ndarray, fresh: pa.Table) -> pa.Table:
    """The whole stored rows that `fresh` replaces."""
    span = within("ts_event", int(events["ts_ns"].min()), int(events["ts_ns"].max()) + 1)
    stored = read_rows(db, SILVER_FEATURES, f"{of_symbol(symbol)} AND {span}")
    return stored.filter(pa.array(np.isin(_stored_keys(stored), _stored_keys(fresh))))


def _stored_rows(db: QuestDB, symbol: str, day: str) -> int:
    begin_ns = day_ns(day)
    where = f"{of_symbol(symbol)} AND {within('ts_event', begin_ns, begin_ns + NS_PER_DAY)}"
    return int(db.execute(f"SELECT count() FROM silver_features WHERE {where}")[0][0])  # noqa: S608 - names of the catalogue


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
