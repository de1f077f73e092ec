"""Outcomes are joined by time, only where all prices are known, and a restarted tracker continues without a difference."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.market.messages import ForecastRow
from btc_core.models import intervals, level
from btc_core.models.regimes import Coverage, recent_coverage
from btc_core.names import HORIZONS_MIN
from btc_core.tables.catalogue import PREDICTION_OUTCOMES
from streaming.outcomes import Outcome, OutcomeTracker, TrackerState, outcome_row, restore_tracker

START_NS = 1_700_000_100_000_000_000 // (5 * NS_PER_MIN) * 5 * NS_PER_MIN
NORMAL = np.tile(np.asarray((-2.5758, *intervals.NORMAL[intervals.SCORED], 2.5758)), (len(HORIZONS_MIN), 1))
SIGMA = [2.0, 3.0, 4.0, 5.0, 6.0]


def forecast(ts_ns: int, bid: float, tracker: OutcomeTracker) -> ForecastRow:
    sigma = np.array([SIGMA])
    bounds = intervals.bid_bounds_bps(tracker.bid_quantiles, np.zeros((1, 5)), sigma)[0]
    return ForecastRow(
        "BTC/USD", ts_ns, ts_ns, 0, 1, 0, ts_ns, bid, [bid] * 5, SIGMA, SIGMA, "1", "random_walk", "2", "harx", "f",
        (bid * np.exp(bounds / 1e4)).tolist(),
        intervals.volatility_bounds_bps(tracker.volatility_quantiles, sigma)[0].tolist(),
    )  # fmt: skip


def path(minutes: int, seed: int = 1) -> list[float]:
    return (60_000.0 * np.exp(np.random.default_rng(seed).normal(0.0, 3e-4, minutes).cumsum())).tolist()


def run(tracker: OutcomeTracker, bids: list[float], first: int = 0, skip: tuple[int, ...] = ()) -> list[Outcome]:
    """Observe a forecast two seconds before the end of each minute, except in the minutes of `skip`."""
    outcomes = []
    for minute in range(first, len(bids)):
        ts_ns = START_NS + (minute + 1) * NS_PER_MIN - 2 * NS_PER_S
        outcomes += tracker.advance(ts_ns)
        if minute not in skip:
            made = forecast(ts_ns, bids[minute], tracker)
            tracker.observe(made, ts_ns, bids[minute] + 0.05, lambda: ({"har": 5.0}, 0.25), (1e-10,) * 5)
    return outcomes


def test_an_outcome_is_what_the_market_did_in_the_five_minutes_after_its_origin() -> None:
    bids = path(30)
    outcomes = run(OutcomeTracker(NORMAL, NORMAL), bids)
    assert [outcome.origin.minute_ns for outcome in outcomes] == [START_NS + k * NS_PER_MIN for k in range(1, 25)]
    first = outcomes[0]
    assert first.return_bps == pytest.approx([1e4 * math.log(bids[k] / bids[0]) for k in range(1, 6)])
    steps = np.diff(np.log(np.array(bids[:6]) + 0.05))
    assert first.realized == pytest.approx(np.cumsum(steps**2))
    ratio = first.realized[-1] / (6e-4) ** 2
    assert first.qlike["model"] == pytest.approx(ratio - math.log(ratio) - 1.0)
    assert set(first.qlike) == {"model", "harx", "har"}
    assert outcome_row(first)["bid_ar_5m_bps"] == 0.25
    assert set(outcome_row(first)) == {column.name for column in PREDICTION_OUTCOMES.columns}


def test_outcomes_that_need_a_minute_without_a_fresh_forecast_are_left_out() -> None:
    outcomes = run(OutcomeTracker(NORMAL, NORMAL), path(30), skip=(10,))
    missing = {START_NS + k * NS_PER_MIN for k in range(6, 12)}
    assert not missing & {outcome.origin.minute_ns for outcome in outcomes}
    assert len(outcomes) == 24 - len(missing)


def test_only_outcomes_five_minutes_apart_move_the_intervals() -> None:
    tracker = OutcomeTracker(NORMAL, NORMAL)
    quantiles = [outcome.bid_quantiles for outcome in run(tracker, path(40))]
    changes = sum(a != b for a, b in itertools.pairwise(quantiles))
    assert changes == 6


def test_a_restarted_tracker_gives_the_outcomes_of_one_that_never_stopped() -> None:
    bids = path(200)
    whole = run(OutcomeTracker(NORMAL, NORMAL), bids)
    before = run(OutcomeTracker(NORMAL, NORMAL), bids[:101])
    last = before[-1]
    restarted = OutcomeTracker(np.array(last.bid_quantiles), np.array(last.volatility_quantiles), last.origin.minute_ns)
    after = run(restarted, bids, first=94)  # warmed up with the minutes whose outcomes were still open
    assert [each.origin.minute_ns for each in before + after] == [each.origin.minute_ns for each in whole]
    assert [each.bid_quantiles for each in before + after] == [each.bid_quantiles for each in whole]
    assert [each.volatility_quantiles for each in before + after] == [each.volatility_quantiles for each in whole]


def test_a_tracker_loaded_from_a_checkpoint_gives_the_outcomes_of_one_that_never_stopped() -> None:
    bids = path(120)
    whole = run(OutcomeTracker(NORMAL, NORMAL), bids)
    tracker = OutcomeTracker(NORMAL, NORMAL)
    before = run(tracker, bids[:70])
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(tracker.save()), type=TrackerState)
    after = run(OutcomeTracker.load(saved), bids, first=70)
    assert before + after == whole


def test_a_long_silence_has_no_outcomes() -> None:
    tracker = OutcomeTracker(NORMAL, NORMAL)
    run(tracker, path(10))
    assert tracker.advance(START_NS + 1_000_000 * NS_PER_MIN) == []


def test_outcomes_of_trees_move_the_level_which_a_checkpoint_keeps() -> None:
    tracker, harx = OutcomeTracker(NORMAL, NORMAL), OutcomeTracker(NORMAL, NORMAL)
    bids = path(40)
    for each, kind in ((tracker, "xgboost"), (harx, "harx")):
        for minute, bid in enumerate(bids):
            ts_ns = START_NS + (minute + 1) * NS_PER_MIN - 2 * NS_PER_S
            each.advance(ts_ns)
            made = msgspec.structs.replace(forecast(ts_ns, bid, each), volatility_model_kind=kind)
            each.observe(made, ts_ns, bid + 0.05, lambda: ({}, 0.0), (1e-10,) * 5)
    assert harx.level == 1.0
    assert tracker.level != 1.0
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(tracker.save()), type=TrackerState)
    assert OutcomeTracker.load(saved).level == tracker.level


def test_the_level_is_restored_from_the_served_forecasts_and_their_outcomes() -> None:
    rng = np.random.default_rng(3)
    current, rows = 1.0, []
    for step in range(500):
        raw_bps, realized_bps = 10.0, 10.0 * math.exp(rng.normal(0.2, 0.3))
        rows.append([START_NS + step * 5 * NS_PER_MIN, raw_bps * level.sigma_factor(current), realized_bps])
        rows.append([START_NS + (step * 5 + 1) * NS_PER_MIN, 1.0, 100.0])  # between two that move the level
        current = level.update(current, (realized_bps / raw_bps) ** 2)

    class Table:
        def execute(self, sql: str) -> list[list[object]]:
            if "bid_quantiles" in sql:
                kept = [
                    None if each is None else msgspec.json.encode(each).decode() for each in intervals.split(NORMAL)
                ]
                return [[rows[-1][0], *kept, *kept, None, *SIGMA]]
            if "bid_inside_90" in sql:
                assert sql.startswith(
                    "SELECT cast(ts_event AS LONG), sigma_5m_bps, bid_inside_90, volatility_inside_90 "
                )
                return [[rows[at][0], 6.0, at % 2 == 0, True] for at in (-3, -2, -1)]
            assert "late = false AND volatility_model_kind = 'xgboost'" in sql
            assert "(volatility_target = 'minutes' OR volatility_target IS NULL)" in sql
            return rows

    tracker = restore_tracker(Table(), "BTC/USD", NORMAL, NORMAL)  # type: ignore[arg-type]
    assert tracker.level == pytest.approx(current)
    assert current > 1.2
    assert tracker.coverage.whole == Coverage(3, 1 / 3, 1.0)


def test_an_outcome_keeps_the_quantiles_in_the_form_that_older_versions_read_and_the_tails_apart() -> None:
    unknown = np.tile(np.asarray(intervals.NORMAL), (len(HORIZONS_MIN), 1))
    for start, has_tails in ((NORMAL, True), (unknown, False)):
        last = run(OutcomeTracker(start, start), path(40))[-1]
        row = outcome_row(last)
        assert np.shape(msgspec.json.decode(row["bid_quantiles"])) == (5, 6)
        assert (row["bid_tails"] is not None) == has_tails
        kept = [row[f"{name}_{part}"] for name in ("bid", "volatility") for part in ("quantiles", "tails")]

        class Table:
            def execute(self, sql: str, kept: list[object] = kept) -> list[list[object]]:
                return [[START_NS, *kept, None, *SIGMA]] if "bid_quantiles" in sql else []

        restored = restore_tracker(Table(), "BTC/USD", start, start)  # type: ignore[arg-type]
        assert np.array_equal(restored.bid_quantiles, np.array(last.bid_quantiles), equal_nan=True)
        assert np.array_equal(restored.volatility_quantiles, np.array(last.volatility_quantiles), equal_nan=True)


def test_after_an_outcome_of_other_horizons_the_intervals_start_again() -> None:
    class Table:
        def execute(self, sql: str) -> list[list[object]]:
            assert "sigma_1m_bps, sigma_2m_bps" in sql
            return [[START_NS, "[[1.0]]", None, "[[1.0]]", None, None, 2.0, 3.0, 4.0, 5.0, None]]

    tracker = restore_tracker(Table(), "BTC/USD", NORMAL, NORMAL)  # type: ignore[arg-type]
    assert np.array_equal(tracker.bid_quantiles, NORMAL)
    outcomes = run(tracker, path(10))
    assert outcomes[0].origin.minute_ns > START_NS, "the origin of the row has its outcome already"


def test_the_coverage_is_that_of_the_outcomes_of_a_day_in_each_regime_and_a_checkpoint_and_the_table_keep_it() -> None:
    tracker, outcomes, day = OutcomeTracker(NORMAL, NORMAL), [], 24 * 60
    for minute, bid in enumerate(path(day + 40)):
        ts_ns = START_NS + (minute + 1) * NS_PER_MIN - 2 * NS_PER_S
        outcomes += tracker.advance(ts_ns)
        made = forecast(ts_ns, bid, tracker)
        wide = msgspec.structs.replace(made, sigma_path_bps=[*SIGMA[:-1], 6.0 + minute % 90])
        tracker.observe(wide, ts_ns, bid + 0.05, lambda: ({}, 0.25), (1e-10,) * 5)
    recent = [each for each in outcomes if each.origin.minute_ns > outcomes[-1].origin.minute_ns - day * NS_PER_MIN]
    assert len(recent) == day < len(outcomes)
    inside = sum(each.bid_inside[90] for each in recent), sum(each.volatility_inside[90] for each in recent)
    assert tracker.coverage.whole == Coverage(day, inside[0] / day, inside[1] / day)
    found, regime = tracker.coverage.at(7.0)
    low = [each for each in recent if each.origin.forecast.sigma_path_bps[-1] < tracker.coverage.terciles_bps[0]]
    assert (regime, found.outcomes) == ("low", len(low))
    assert found.bid == pytest.approx(sum(each.bid_inside[90] for each in low) / len(low))
    assert {tracker.coverage.at(sigma)[1] for sigma in (50.0, 90.0)} == {"normal", "high"}
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(tracker.save()), type=TrackerState)
    assert OutcomeTracker.load(saved).coverage == tracker.coverage
    rows = [outcome_row(each) for each in recent]
    kept = [(row["ts_event"], row["sigma_5m_bps"], row["bid_inside_90"], row["volatility_inside_90"]) for row in rows]
    assert recent_coverage(kept) == tracker.coverage
