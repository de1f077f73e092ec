"""The newest feature row of each minute is one row, whoever reads it: training, the judge of a challenger, or a client."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, column_ns
from btc_core.days.closing_rows import closing_rows, newest_rows_of_copy
from btc_core.days.gold import make_gold
from btc_core.days.history import History
from btc_core.days.series import SERIES
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.stores.live_rows import features_at_minute_ends
from btc_core.stores.newest_rows import MINUTE_END, newest_rows
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_ns
from tests.service.made_up import made_up
from tests.service.workers import unique

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore

pytestmark = pytest.mark.service

DAY = "2026-02-03"
BEGIN_NS = day_ns(DAY)
# seconds of the day, offset, item
ROWS = [
    (58.0, 1, 0), (61.0, 2, 0), (59.9, 3, 0),  # the third row is late: it came when the clock was in the second minute
    (117.0, 4, 0), (119.0, 5, 0), (118.5, 6, 0),  # the sixth is the newest in the log, though not by its time
    (179.0, 7, 0), (179.0, 7, 1), (179.0, 7, 2),  # three trades of one frame
    (181.0, 8, 0),  # a quiet minute
    (299.0, 9, 0), (301.0, 11, 0), (299.5, 12, 0),  # late, and the row that passed the minute is outside of a read up to 300 s
]  # fmt: skip
NEWEST = {1: (1, 0), 2: (6, 0), 3: (7, 2), 4: (8, 0), 5: (9, 0), 6: (11, 0)}
"""Offset and item by the end of the minute."""


def rows_of(symbol: str) -> pa.Table:
    seconds, offsets, items = zip(*ROWS, strict=True)
    count = len(ROWS)
    return made_up(
        SILVER_FEATURES,
        DAY,
        count,
        ts_event=[BEGIN_NS + round(second * NS_PER_S) for second in seconds],
        symbol=[symbol] * count,
        feature_version=[FEATURE_VERSION] * count,
        kafka_partition=[0] * count,
        kafka_offset=offsets,
        frame_item=items,
        trade_id=[0] * count,
        bid=np.arange(count) + 0.5,
        log_rv_5m=np.arange(count) + 0.5,
    ).sort_by("ts_event")


def no_store() -> ObjectStore:
    raise AssertionError("no day has left QuestDB")


def minutes(ends_ns: np.ndarray) -> list[int]:
    return ((ends_ns - BEGIN_NS) // NS_PER_MIN).tolist()


def test_every_reader_takes_the_row_that_was_the_newest_when_the_minute_ended(
    servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol = unique("NEWEST")
    stored = rows_of(symbol)
    bid_at = dict(
        zip(
            zip(stored["kafka_offset"].to_pylist(), stored["frame_item"].to_pylist(), strict=True),
            stored["bid"].to_pylist(),
            strict=True,
        )
    )
    wanted = [bid_at[NEWEST[minute]] for minute in range(1, 6)]
    with QuestDB(servers("questdb").questdb) as db:
        ensure_tables(db)
        write_rows(db, SILVER_FEATURES, stored)
        history = History(db, no_store)
        monkeypatch.setattr(history, "days", lambda *_: [type("Day", (), {"day": DAY, "rows": 13, "copy": None})()])
        of_client = pa.concat_tables(
            SERIES["minute_features"].chunks(
                history, symbol, BEGIN_NS, BEGIN_NS + 5 * NS_PER_MIN, ("minute_end", "bid", "kafka_offset")
            )
        )
        assert minutes(column_ns(of_client["minute_end"])) == [1, 2, 3, 4, 5]
        assert of_client["bid"].to_pylist() == wanted
        ends_ns, of_judge = features_at_minute_ends(db, symbol, ("bid",), BEGIN_NS)
        assert minutes(ends_ns) == [1, 2, 3, 4, 5], "the running minute is left out"
        assert of_judge[:, 0].tolist() == wanted
        make_gold(db, GOLD_1MIN_SEALED, DAY)
        of_training = closing_rows(db, None, symbol, BEGIN_NS)
        assert minutes(of_training.origin_ns) == [1, 2, 3, 5], "models never read a row that is older than ten seconds"
        column = MODEL_FEATURES.index("log_rv_5m")
        assert of_training.matrix[:, column].tolist() == [wanted[each - 1] for each in (1, 2, 3, 5)]
        apart = next(newest_rows(db, symbol, BEGIN_NS, BEGIN_NS + NS_PER_DAY, ("bid",), every_min=3))
    assert minutes(column_ns(apart[MINUTE_END])) == [3, 6]
    sink = io.BytesIO()
    pq.write_table(stored, sink)
    of_copy = newest_rows_of_copy(pq.ParquetFile(sink), symbol, ("bid",), until_ns=BEGIN_NS + 5 * NS_PER_MIN)
    assert of_copy["bid"].to_pylist() == wanted
