"""The outcome of a forecast of the variance of ticks is the label that training has of the same minute."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S
from btc_core.days.tick_labels import labels_of_day
from btc_core.models import intervals, level
from btc_core.names import HORIZONS_MIN
from btc_core.utc_day import day_ns, day_of
from streaming.outcomes import Outcome, OutcomeTracker, TrackerState, outcome_row
from tests.unit.streaming.test_outcomes import forecast

pytestmark = pytest.mark.unit

DAY = "2026-11-20"
BEGIN_NS = day_ns(DAY)
NORMAL = np.tile(np.asarray((-2.5758, *intervals.NORMAL[intervals.SCORED], 2.5758)), (len(HORIZONS_MIN), 1))
ROWS = 3_000


def rows_of_stream() -> pa.Table:
    """Rows about every 0.6 s in the order of the log: some out of order, one a minute late, some without a mid."""
    rng = np.random.default_rng(5)
    ts_ns = BEGIN_NS + np.cumsum(rng.integers(1, 1_200_000_000, ROWS))
    ts_ns[50::97] -= 900_000_000
    ts_ns[500] -= NS_PER_MIN
    mid = 60_000.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, ROWS)))
    mid[::83] = np.nan
    return pa.table(
        {
            "ts_event": pa.array(ts_ns, pa.timestamp("ns")),
            "kafka_partition": np.zeros(ROWS, np.int64),
            "kafka_offset": np.arange(ROWS),
            "frame_item": np.zeros(ROWS, np.int64),
            "trade_id": np.zeros(ROWS, np.int64),
            "mid": mid,
            "trade_price": np.full(ROWS, np.nan),
        }
    )


def outcomes_of(rows: pa.Table, restart_at: int | None = None) -> list[Outcome]:
    tracker, found = OutcomeTracker(NORMAL, NORMAL, volatility_target="ticks"), []
    ts_ns, mids = rows["ts_event"].cast(pa.int64()).to_numpy(), rows["mid"].to_numpy()
    clocks_ns = np.maximum.accumulate(ts_ns)
    for row in range(ROWS):
        if row == restart_at:
            saved = msgspec.msgpack.encode(tracker.save())
            tracker = OutcomeTracker.load(msgspec.msgpack.decode(saved, type=TrackerState))
        clock_ns = int(clocks_ns[row])
        found += tracker.advance(clock_ns)
        one = slice(row, row + 1)
        tracker.take_prices(ts_ns[one], clocks_ns[one], mids[one])
        if np.isfinite(mids[row]):
            made = forecast(clock_ns, float(mids[row]), tracker)
            tracker.observe(made, clock_ns, float(mids[row]), lambda: ({}, 0.0), (0.0,) * 5, "ticks")
    return found


def test_the_outcomes_of_the_stream_are_the_labels_of_the_sealed_day() -> None:
    rows = rows_of_stream()
    found = outcomes_of(rows)
    labels = labels_of_day(rows.take(np.random.default_rng(1).permutation(ROWS)), DAY)
    wanted = dict(zip(labels.origin_ns.tolist(), labels.realized.tolist(), strict=True))
    assert len(found) > 20
    for outcome in found:
        assert outcome.realized == wanted[outcome.origin.minute_ns], "to the last bit"
    assert outcome_row(found[0])["volatility_target"] == "ticks"
    assert outcome_row(found[0])["realized_5m_bps"] == pytest.approx(1e4 * found[0].realized[-1] ** 0.5)


def test_a_restart_changes_no_outcome_of_ticks() -> None:
    rows = rows_of_stream()
    assert outcomes_of(rows, restart_at=1_700) == outcomes_of(rows)


def test_a_label_does_not_change_with_rows_after_its_horizon_or_late_ones() -> None:
    rows = rows_of_stream()
    labels = labels_of_day(rows, DAY)
    ts_ns = rows["ts_event"].cast(pa.int64()).to_numpy()
    origin_ns = int(labels.origin_ns[10])
    mid = np.where(ts_ns >= origin_ns + 5 * NS_PER_MIN, 1.5, 1.0) * rows["mid"].to_numpy()
    mid[500] = 1.0
    changed = labels_of_day(rows.set_column(5, "mid", pa.array(mid)), DAY)
    assert changed.realized[:11].tolist() == labels.realized[:11].tolist()
    assert changed.realized[11, -1] > 0.1


def test_imported_trades_have_labels_without_their_bounce_and_a_day_without_prices_has_none() -> None:
    rng = np.random.default_rng(6)
    count = 20_000
    ts_ns = BEGIN_NS + np.arange(count) * NS_PER_S
    price = 60_000.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, count)) + 3e-4 * rng.choice([-1.0, 1.0], count))
    imported = pa.table(
        {
            "ts_event": pa.array(ts_ns, pa.timestamp("ns")),
            "kafka_partition": np.full(count, -1),
            "kafka_offset": ts_ns // 1_000 % 86_400_000_000,
            "frame_item": np.zeros(count, np.int64),
            "trade_id": np.arange(count),
            "mid": np.full(count, np.nan),
            "trade_price": price,
        }
    )
    labels = labels_of_day(imported, DAY)
    assert labels.realized[:, -1].mean() == pytest.approx(300 * 1e-8, rel=0.15)
    without = imported.set_column(6, "trade_price", pa.array(np.full(count, np.nan)))
    assert not len(labels_of_day(without, DAY).origin_ns)
    assert not len(labels_of_day(imported.slice(0, 0), day_of(BEGIN_NS + NS_PER_DAY)).origin_ns)


def test_a_model_of_another_target_begins_with_its_own_quantiles_and_level() -> None:
    tracker = OutcomeTracker(NORMAL, NORMAL, level_in_force=3.0)
    tracker.change_target("ticks", NORMAL * 2.0)
    assert tracker.level == level.START
    assert np.array_equal(tracker.volatility_quantiles, NORMAL * 2.0)
    assert tracker.save().volatility_target == "ticks"
