"""Rows at the closes of sealed days in QuestDB: those of the live forecast worker, and those of imported trades."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, column_ns, now_ns
from btc_core.days.closing_rows import closing_rows
from btc_core.days.gold import make_gold
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import read_day
from btc_core.days.trade_files import PAST
from btc_core.days.trade_import import plan_trades, write_trades
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.utc_day import day_of
from tests.service.past_day import DAY, MIDNIGHT_NS, day_of_symbol, keep_nothing

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB


def test_a_day_of_imported_trades_has_features_of_trades_and_nothing_that_a_stream_could_equal(db: QuestDB) -> None:
    symbol, begin_ns = f"PAST{now_ns()}/USD", MIDNIGHT_NS - NS_PER_DAY
    day = day_of(begin_ns)
    trades = np.zeros(600, PAST)
    trades["ts_ns"] = begin_ns + np.arange(1, 601) * NS_PER_S
    trades["trade_id"], trades["qty"], trades["buy"] = np.arange(1, 601), 0.5, True
    trades["price"] = 60_000.0 + np.arange(600) % 7
    write_trades(db, symbol, plan_trades(db, symbol, trades, has_sides=True).new, "an-import")
    proof = prove(db, symbol, day, keep_nothing)
    assert (proof.rows, proof.rows_streamed, proof.late_trades) == (600, 0, 600)
    make_gold(db, GOLD_1MIN_SEALED, day)
    found = closing_rows(db, None, symbol, begin_ns)
    assert ((found.origin_ns - begin_ns) // NS_PER_MIN).tolist() == list(range(1, 11))
    last = dict(zip(MODEL_FEATURES, found.matrix[-1].tolist(), strict=True))
    assert np.isfinite(
        [last[name] for name in ("log_rv_5m", "log_parkinson_5m", "log_volume_5m", "log_trades_5m")]
    ).all()
    assert np.isnan([last[name] for name in ("spread_bps", "ofi_60s", "log_quotes_1m", "log_rv_5s_1m")]).all()


def test_rows_at_the_closes_are_those_that_the_forecast_worker_read_and_need_a_seal(
    stream: Settings, db: QuestDB
) -> None:
    symbol = day_of_symbol(stream, "CLOSES", late={})
    assert not len(closing_rows(db, None, symbol, MIDNIGHT_NS).origin_ns), "no day of it is sealed"
    make_gold(db, GOLD_1MIN_SEALED, DAY)
    found = closing_rows(db, None, symbol, MIDNIGHT_NS)
    whole = read_day(db, SILVER_FEATURES, DAY)
    rows = whole.filter(np.asarray(whole["symbol"]) == symbol).sort_by(
        [("kafka_offset", "ascending"), ("frame_item", "ascending")]
    )
    clock_ns, newest = 0, {}
    for index, ts_ns in enumerate(column_ns(rows["ts_event"]).tolist()):
        clock_ns = max(clock_ns, ts_ns)  # as the tracker of outcomes counts
        newest[(clock_ns // NS_PER_MIN + 1) * NS_PER_MIN] = index
    assert found.origin_ns.tolist() == list(newest)[: len(found.origin_ns)]
    assert len(found.origin_ns) == 5
    fifth = closing_rows(db, None, symbol, MIDNIGHT_NS, 5)
    assert fifth.origin_ns.tolist() == found.origin_ns[4:].tolist()
    assert np.array_equal(fifth.matrix, found.matrix[4:], equal_nan=True)
    for place, name in enumerate(MODEL_FEATURES):
        expected = rows[name].to_numpy()[[newest[close] for close in found.origin_ns.tolist()]]
        assert np.array_equal(found.matrix[:, place], expected, equal_nan=True), name
