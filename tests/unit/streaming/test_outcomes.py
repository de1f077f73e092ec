"""Outcomes: joined by time and only when known, and a restarted tracker goes on as one that never stopped."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.market.messages import ForecastRow
from btc_core.models import intervals
from btc_core.names import HORIZONS_MIN
from btc_core.tables.catalogue import PREDICTION_OUTCOMES
from streaming.outcomes import Outcome, OutcomeTracker, TrackerState, row_of

START_NS = 1_700_000_100_000_000_000 // (5 * NS_PER_MIN) * 5 * NS_PER_MIN
NORMAL = np.tile(np.asarray(intervals.NORMAL), (len(HORIZONS_MIN), 1))
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
    """A row two seconds before the end of each minute, except in those of `skip`."""
    outcomes = []
    for minute in range(first, len(bids)):
        ts_ns = START_NS + (minute + 1) * NS_PER_MIN - 2 * NS_PER_S
        outcomes += tracker.advance(ts_ns)
        if minute not in skip:
            tracker.observe(
                forecast(ts_ns, bids[minute], tracker), bids[minute] + 0.05, lambda: ({"har": 5.0}, 0.25), (1e-10,) * 5
            )
    return outcomes


def test_an_outcome_is_what_the_market_did_in_the_five_minutes_after_the_origin() -> None:
    bids = path(30)
    outcomes = run(OutcomeTracker(NORMAL, NORMAL), bids)
    assert [outcome.origin.minute_ns for outcome in outcomes] == [START_NS + k * NS_PER_MIN for k in range(1, 25)]
    first = outcomes[0]
    assert first.return_bps == pytest.approx([1e4 * math.log(bids[k] / bids[0]) for k in range(1, 6)])
    steps = np.diff(np.log(np.array(bids[:6]) + 0.05))
    assert first.realized == pytest.approx(np.cumsum(steps**2))
    ratio = first.realized[-1] / (6e-4) ** 2
    assert first.qlike_5m["model"] == pytest.approx(ratio - math.log(ratio) - 1.0)
    assert set(first.qlike_5m) == {"model", "harx", "har"}
    assert row_of(first)["bid_ar_5m_bps"] == 0.25
    assert set(row_of(first)) == {column.name for column in PREDICTION_OUTCOMES.columns}


def test_a_minute_without_a_fresh_state_leaves_every_outcome_that_needs_it_open() -> None:
    outcomes = run(OutcomeTracker(NORMAL, NORMAL), path(30), skip=(10,))
    gone = {START_NS + k * NS_PER_MIN for k in range(6, 12)}
    assert not gone & {outcome.origin.minute_ns for outcome in outcomes}
    assert len(outcomes) == 24 - len(gone)


def test_only_outcomes_five_minutes_apart_move_the_intervals() -> None:
    tracker = OutcomeTracker(NORMAL, NORMAL)
    seen = [outcome.bid_quantiles for outcome in run(tracker, path(40))]
    changes = sum(a != b for a, b in itertools.pairwise(seen))
    assert changes == 6


def test_a_restarted_tracker_goes_on_as_one_that_never_stopped() -> None:
    bids = path(200)
    whole = run(OutcomeTracker(NORMAL, NORMAL), bids)
    before = run(OutcomeTracker(NORMAL, NORMAL), bids[:101])
    last = before[-1]
    again = OutcomeTracker(np.array(last.bid_quantiles), np.array(last.volatility_quantiles), last.origin.minute_ns)
    after = run(again, bids, first=94)  # warmed up with the minutes whose outcomes were still open
    assert [each.origin.minute_ns for each in before + after] == [each.origin.minute_ns for each in whole]
    assert [each.bid_quantiles for each in before + after] == [each.bid_quantiles for each in whole]
    assert [each.volatility_quantiles for each in before + after] == [each.volatility_quantiles for each in whole]


def test_a_tracker_out_of_a_checkpoint_goes_on_as_one_that_never_stopped() -> None:
    import msgspec

    bids = path(120)
    whole = run(OutcomeTracker(NORMAL, NORMAL), bids)
    tracker = OutcomeTracker(NORMAL, NORMAL)
    before = run(tracker, bids[:70])
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(tracker.save()), type=TrackerState)
    after = run(OutcomeTracker.loaded(saved), bids, first=70)
    assert before + after == whole


def test_a_long_silence_closes_no_minute_of_it() -> None:
    tracker = OutcomeTracker(NORMAL, NORMAL)
    run(tracker, path(10))
    assert tracker.advance(START_NS + 1_000_000 * NS_PER_MIN) == []
