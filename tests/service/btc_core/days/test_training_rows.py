"""A data set is the frame that training fits on, with the inputs and the seal of a sealed day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.days.dataset_series import INPUTS
from btc_core.days.gold import make_gold
from btc_core.days.history import History
from btc_core.days.lake import back_up
from btc_core.days.seals import seal_of
from btc_core.days.series import SERIES
from btc_core.days.training_rows import read_training_rows, seals_of_rows
from btc_core.models.dataset import make_frame
from btc_core.models.targets import BID_TARGETS, RV_TARGETS
from btc_core.stores.questdb import write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED
from btc_core.tables.catalogue import MINUTE_BARS, SILVER_FEATURES
from btc_core.tables.rows import minute_bars
from tests.service.past_day import DAY, MIDNIGHT_NS, day_of_symbol, lose_day
from tests.unit.btc_core.features.test_minute_columns import market

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB


def data_set(db: QuestDB, stream: Settings, symbol: str) -> tuple[pa.Table, dict[str, str]]:
    series, begin_ns, end_ns = SERIES["dataset"], MIDNIGHT_NS - NS_PER_DAY, MIDNIGHT_NS + NS_PER_DAY
    history = History(db, lambda: ObjectStore(stream.store))
    rows = pa.concat_tables(series.chunks(history, symbol, begin_ns, end_ns, series.columns(())))
    metadata = series.metadata(history, symbol, begin_ns, end_ns)
    history.close()
    return rows, metadata


def test_a_data_set_is_the_frame_of_training_with_the_rows_and_the_seal_of_a_sealed_day(
    stream: Settings, db: QuestDB
) -> None:
    symbol = day_of_symbol(stream, "DATASET", late={})
    bars = market(2_000, MIDNIGHT_NS - 1_900 * NS_PER_MIN)
    write_rows(db, MINUTE_BARS, minute_bars(bars, symbol, "file"))
    make_gold(db, GOLD_1MIN_SEALED, DAY)
    seal = f"{DAY}@{seal_of(db, DAY).id}"

    def check_equal() -> None:
        with ObjectStore(stream.store) as store:
            rows = read_training_rows(db, store, symbol, 10.0)
            frame = make_frame(rows.bars, stream=rows.stream).between(MIDNIGHT_NS - NS_PER_DAY - 1, 2**62)
            seals = seals_of_rows(db, store, symbol, int(frame.origin_ns[0]))
        assert frame.is_streamed is not None
        assert int(frame.is_streamed.sum()) == 5, "minutes of the day have passed through the stream"
        table, metadata = data_set(db, stream, symbol)
        assert column_ns(table["origin"]).tolist() == frame.origin_ns.tolist()
        inputs = np.column_stack([pc.fill_null(table[name], np.nan).to_numpy() for name in INPUTS])
        assert np.array_equal(inputs, np.hstack([frame.matrix, frame.columns]), equal_nan=True)
        labels = np.column_stack([table[name].to_numpy() for name in (*RV_TARGETS, *BID_TARGETS)])
        assert np.array_equal(labels, np.hstack([frame.realized, frame.bid_bps]))
        assert seals == (seal,)
        assert metadata["seals"] == seal

    check_equal()
    with ObjectStore(stream.store) as store:
        back_up(db, store, SILVER_FEATURES, DAY, seal.partition("@")[2])
    newer = day_of_symbol(stream, "NEWER", late={}, day=np.datetime_as_string(np.datetime64(DAY) + 1))
    assert newer
    lose_day(db, SILVER_FEATURES, DAY)
    check_equal()
