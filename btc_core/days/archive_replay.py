"""The feature rows of an archived day: its frames through the `FeatureEngine`, after the warm-up window before it.

The rows of a day are those of the messages that were received on it, as in the archive.
What does not belong here: the replay of bronze rows, with late trades at their place (`day_replay`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days import user_features
from btc_core.days.day_replay import LOGGED, MARGIN_NS
from btc_core.days.fold_states import BOOKS_NS
from btc_core.days.log_archive import LogArchive, blocks_in_log_order, read_manifest, required_archive
from btc_core.days.silver_proof import Comparison
from btc_core.exchanges.recorded_blocks import read_ahead
from btc_core.exchanges.tick_lines import with_ticks
from btc_core.features.engine import FeatureEngine, Rows
from btc_core.features.state import EVENT_FIELDS, WARM_UP_S, slot_of
from btc_core.market.events import TRADE
from btc_core.tables import rows as table_rows
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns, day_of, days_between

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.features.user.values import UserFeatures
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore

BATCH_MESSAGES = 10_000
"""Messages that are folded at a time; their rows take about 8 MB."""


class DayMessages(msgspec.Struct, frozen=True):
    """The archives that a replay of a day reads."""

    day: str
    archives: tuple[LogArchive, ...]
    """Oldest first; the last is that of the day."""
    missing_days: tuple[str, ...]
    """Days of the warm-up window without an archive."""


def archives_around(store: ObjectStore, day: str) -> DayMessages:
    """The archive of a day and those of its warm-up window; raises `InvalidInput` if the day has none."""
    own = required_archive(store, day)
    before = days_between(day_of(_warm_from_ns(day)), day)[:-1]
    found = {each: read_manifest(store, each) for each in before}
    archives = tuple(archive for archive in found.values() if archive is not None)
    missing = tuple(each for each, archive in found.items() if archive is None)
    return DayMessages(day, (*archives, own), missing)


def replay_archived_day(
    store: ObjectStore, chosen: DayMessages, leader: str = "", features: UserFeatures | None = None, lead_ns: int = 0
) -> Iterator[Rows]:
    """Yield the feature rows of the messages that were received on the day; raises `StoreError` for a damaged archive.

    The rows begin `lead_ns` before the day, which is at most `MARGIN_NS`.
    """
    begin_ns = day_ns(chosen.day) - lead_ns
    partitions = sorted({each.partition for archive in chosen.archives for each in archive.partitions})
    for partition in partitions:
        engine = FeatureEngine(leader, features)
        is_warm = False
        blocks = blocks_in_log_order(store, chosen.archives, partition, _warm_from_ns(chosen.day))
        for block in read_ahead(with_ticks(blocks)):
            received_ns = block.lines["received_ns"]
            first = 0
            if not is_warm:
                is_of_day = received_ns >= begin_ns
                is_warm = bool(is_of_day.any())
                first = int(np.argmax(is_of_day)) if is_warm else len(is_of_day)
                needed = ~block.lines["is_book"] | (received_ns >= begin_ns - BOOKS_NS)
                needed[first:] = False
                engine.warm_up(block, needed)
            for count, message in enumerate(block.messages(np.arange(len(received_ns)) >= first), start=1):
                engine.push(message.envelope, message.partition, message.offset)
                if count % BATCH_MESSAGES == 0:
                    yield from _received_since(begin_ns, engine.flush())
            yield from _received_since(begin_ns, engine.flush(emit=is_warm))


def _warm_from_ns(day: str) -> int:
    return day_ns(day) - WARM_UP_S * NS_PER_S - MARGIN_NS


def _received_since(begin_ns: int, batches: list[Rows]) -> Iterator[Rows]:
    """The rows without those of messages that were received before the day and logged in it."""
    for batch in batches:
        kept = np.array([row.ts_recv_ns >= begin_ns for row in batch.ids])
        if kept.all():
            yield batch
        elif kept.any():
            yield batch.take(kept)


class ReplayComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The replayed rows of a day compared with those in `silver_features`."""

    rows: int
    stored_rows: int
    """Rows in `silver_features` that were received on the day."""
    equal: int
    """Replayed rows that equal their stored row to the last bit."""
    different: int
    not_stored: int
    """Replayed rows that are not stored."""
    other_version: int
    """Stored rows of another feature version, which are part of `different`."""
    user_values: int = 0
    """Replayed values of the user's features at closes of minutes."""
    user_equal: int = 0
    """Those that equal the stored value of the same version to the last bit."""

    @property
    def not_replayed(self) -> int:
        """Stored rows without a replayed row, such as those of late trades."""
        return self.stored_rows - self.equal - self.different


class StoredRows:
    """Compares replayed rows with `silver_features` batch by batch."""

    def __init__(self, db: QuestDB, day: str, features: UserFeatures | None = None) -> None:
        self._db = db
        self._day = day
        self._features = features
        self._markets: dict[str, Comparison] = {}
        self._user_values = self._user_equal = 0

    def take(self, batch: Rows) -> None:
        """Compare the rows of one batch."""
        comparison = self._markets.setdefault(batch.symbol, Comparison(self._db, batch.symbol))
        comparison.take(_logged(batch), batch.values)
        if self._features is not None and batch.user is not None and batch.user.closed:
            ids = [batch.ids[each.row] for each in batch.user.closed]
            replayed = table_rows.user_features(ids, batch.user.closed, self._features.files)
            self._user_values += len(replayed)
            self._user_equal += len(replayed) - len(user_features.different(self._db, batch.symbol, replayed))

    def result(self) -> ReplayComparison:
        """What all batches gave."""
        markets = self._markets.values()
        rows = sum(each.rows for each in markets)
        different, missing = sum(each.different for each in markets), sum(each.missing for each in markets)
        return ReplayComparison(
            rows=rows,
            stored_rows=sum(stored_rows(self._db, self._day, symbol) for symbol in self._markets),
            equal=rows - different - missing,
            different=different,
            not_stored=missing,
            other_version=sum(each.other_version for each in markets),
            user_values=self._user_values,
            user_equal=self._user_equal,
        )


def stored_rows(db: QuestDB, day: str, symbol: str) -> int:
    """The number of feature rows that were received on a day; of all markets if `symbol` is empty."""
    begin_ns = day_ns(day)
    where = within("ts_recv", begin_ns, begin_ns + NS_PER_DAY) + (f" AND {of_symbol(symbol)}" if symbol else "")
    return int(db.execute(f"SELECT count() FROM silver_features WHERE {where}")[0][0])  # noqa: S608 - names of the catalogue


def _logged(batch: Rows) -> np.ndarray:
    """The events of feature rows, dtype `LOGGED`, as far as a comparison uses them."""
    events = np.zeros(len(batch.ids), LOGGED)
    sources = {"ts_ns": "ts_event_ns", "recv_ns": "ts_recv_ns"}
    for name in ("ts_ns", "recv_ns", "kind", "partition", "offset", "item", "trade_id"):
        source = sources.get(name, name)
        events[name] = [getattr(row, source) for row in batch.ids]
    trades = np.flatnonzero(events["kind"] == TRADE)
    for field, source in zip(EVENT_FIELDS[TRADE], ("trade_price", "trade_qty", "trade_side"), strict=True):
        events[slot_of(TRADE, field)][trades] = [getattr(batch.ids[at], source) for at in trades]
    return events
