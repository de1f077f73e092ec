"""The values of a user's features: the same bits in the stream, after a restart and in a replay, and no look-ahead."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.features.state import EVENT, WARM_UP_S
from btc_core.features.user.files import FeatureFile, read_feature
from btc_core.features.user.minutes import LONGEST, Minutes, fold_minutes, minutes_of_bars, new_minutes
from btc_core.features.user.values import MarketMinutes, UserFeatures, UserRows
from btc_core.market.bars import BARS
from btc_core.market.events import BAR, QUOTE, TRADE

pytestmark = pytest.mark.unit

BEGIN_MIN = 29_500_000
FLOW = """
import numpy as np

def feature(minutes):
    known = ~np.isnan(minutes.signed_volume)
    volume = np.sum(minutes.volume[known])
    return np.sum(minutes.signed_volume[known]) / volume if volume > 0.0 else np.nan
"""
SPREAD = """
import math
import numpy as np

def logs(values):
    return np.log(values)

def feature(minutes):
    return np.nanmean(logs(minutes.spread_bps)) + minutes.quotes[0] + minutes.end_min[-1] / 1e9
"""
RANGE = """
import numpy as np

def feature(minutes):
    return np.nanmax(minutes.high) - np.nanmin(minutes.low) + minutes.close[-1] - minutes.open[-1]
"""


def file(name: str, body: str, minutes: int) -> FeatureFile:
    return FeatureFile(name, "1", "an example", minutes, body.encode(), Path(f"{name}.py"))


@cache
def features() -> UserFeatures:
    return UserFeatures([file("flow", FLOW, 30), file("spread", SPREAD, 5), file("width", RANGE, LONGEST)])


def market(minutes: int, seed: int, *, silences: bool = False) -> np.ndarray:
    """Bars of two hours, then quotes and trades about every 7 s; with `silences` some minutes and hours have none."""
    rng = np.random.default_rng(seed)
    price = 60_000.0
    bar = (BAR, price, price + 9.0, price - 9.0, price + 1.0, 2.5)
    events = [(minute * NS_PER_MIN, *bar) for minute in range(BEGIN_MIN - 120, BEGIN_MIN)]
    now, end = BEGIN_MIN * NS_PER_MIN + 20 * NS_PER_S, (BEGIN_MIN + minutes) * NS_PER_MIN
    while now < end:
        now += int(rng.exponential(7.0) * NS_PER_S)
        if silences and rng.random() < 0.002:
            now += int(rng.choice([80, 100, 5_000]) * NS_PER_S)
        price = round(price * float(np.exp(rng.normal(0, 1e-4))), 1)
        if rng.random() < 0.3:
            side = 1.0 if rng.random() < 0.5 else -1.0
            events.append((now, TRADE, price, round(float(rng.exponential(0.2)), 8), side, 0.0, 0.0))
        else:
            events.append((now, QUOTE, price, *np.round(rng.exponential(1.0, 1), 8), price + 0.1, 0.5, 0.0))
    return np.array(events, EVENT)


def folded(events: np.ndarray, sizes: int = 10**9) -> UserRows:
    live = MarketMinutes(features())
    return joined([live.fold(events[at : at + sizes]) for at in range(0, len(events), sizes)])


def joined(parts: list[UserRows]) -> UserRows:
    return UserRows(np.concatenate([each.end_ns for each in parts]), np.concatenate([each.values for each in parts]))


def same(one: UserRows, other: UserRows) -> bool:
    return np.array_equal(one.end_ns, other.end_ns) and np.array_equal(one.values, other.values, equal_nan=True)


def test_values_do_not_depend_on_how_the_log_is_cut_into_batches() -> None:
    events = market(200, 1, silences=True)
    live = MarketMinutes(features())
    parts = [live.fold(events[at : at + 17]) for at in range(0, len(events), 17)]
    whole = MarketMinutes(features()).fold(events)
    assert same(joined(parts), whole)
    closed = [(each.end_ns, each.values.tobytes()) for part in parts for each in part.closed]
    assert closed == [(each.end_ns, each.values.tobytes()) for each in whole.closed]
    assert len(closed) > 100
    assert np.isfinite(whole.values[:, :2]).any(axis=0).all()


def test_no_value_changes_when_the_future_changes() -> None:
    events = market(120, 2)
    whole = folded(events)
    rng = np.random.default_rng(3)
    ticks = np.flatnonzero(events["kind"] != BAR)
    for row in rng.integers(100, len(ticks), 20).tolist():
        changed = events.copy()
        for slot in ("slot_0", "slot_1", "slot_2", "slot_3"):
            changed[slot][ticks[row] :] *= 1.5
        other = folded(changed)
        assert np.array_equal(other.values[: row + 1], whole.values[: row + 1], equal_nan=True)


@pytest.mark.parametrize("kind", ["steady", "silences"])
def test_a_restart_from_a_checkpoint_or_from_the_log_gives_the_rows_of_a_worker_that_never_stopped(kind: str) -> None:
    events = market(1_800, 4, silences=kind == "silences")
    whole = folded(events)
    rows_from = np.cumsum(events["kind"] != BAR)
    for cut in (len(events) // 3, len(events) - 500):
        before = MarketMinutes(features())
        before.fold(events[:cut])
        after = MarketMinutes(features())
        after.load(before.save())
        part = after.fold(events[cut:])
        assert np.array_equal(part.values, whole.values[rows_from[cut - 1] :], equal_nan=True)
    cut = len(events) - 500
    warm = MarketMinutes(features())
    oldest = int(events["ts_ns"][cut]) - WARM_UP_S * NS_PER_S
    warm.fold(events[(events["ts_ns"] >= oldest) & (np.arange(len(events)) < cut)], emit=False)
    part = warm.fold(events[cut:])
    assert np.array_equal(part.values, whole.values[rows_from[cut - 1] :], equal_nan=True)
    assert np.isfinite(part.values[:, :2]).any()


def bars_of(events: np.ndarray) -> np.ndarray:
    """The minute bars of the trades of a market, after its first bars."""
    trades = events[events["kind"] == TRADE]
    bars = [(bar["ts_ns"], *(bar[f"slot_{k}"] for k in range(5)), -1) for bar in events[events["kind"] == BAR]]
    for minute in np.unique(trades["ts_ns"] // NS_PER_MIN):
        part = trades[trades["ts_ns"] // NS_PER_MIN == minute]
        price, qty = part["slot_0"], part["slot_1"]
        bars.append((minute * NS_PER_MIN, price[0], price.max(), price.min(), price[-1], qty.sum(), len(part)))
    return np.array(bars, BARS)


def test_at_a_close_the_stream_and_its_bars_give_the_same_value() -> None:
    events = market(400, 5)
    whole = MarketMinutes(features()).fold(events)
    closes = [each for each in whole.closed if each.end_ns > (BEGIN_MIN + 2) * NS_PER_MIN]
    origins = np.array([each.end_ns for each in closes])
    bars = bars_of(events)
    bars = bars[bars["ts_ns"] != BEGIN_MIN * NS_PER_MIN]  # the stream has seen only a part of it
    values = features().of_bars(bars, origins)
    assert len(closes) > 390
    assert np.array_equal(values[:, 2], [each.values[2] for each in closes], equal_nan=True)
    assert np.isfinite(values[:, 2]).sum() > 300
    assert np.isnan(values[:, :2]).all(), "bars have neither quotes nor sides of trades"


def test_a_value_of_bars_does_not_change_with_later_bars_and_is_missing_beyond_them() -> None:
    bars = bars_of(market(100, 6))
    origins = bars["ts_ns"][60:100] + NS_PER_MIN
    values = features().of_bars(bars, origins)
    for place in (0, 20, 39):
        known = bars[bars["ts_ns"] < origins[place]]
        assert np.array_equal(features().of_bars(known, origins[: place + 1]), values[: place + 1], equal_nan=True)
    assert np.isnan(features().of_bars(bars[:61], origins[5:6])).all()


def test_the_minutes_hold_what_happened_in_them() -> None:
    at = BEGIN_MIN * NS_PER_MIN
    quotes = [(at + k * NS_PER_S, QUOTE, 100.0, 3.0, 101.0, 1.0, 0.0) for k in range(0, 180, 20)]
    trades = [
        (at + 70 * NS_PER_S, TRADE, 100.5, 2.0, 1.0, 0.0, 0.0),
        (at + 80 * NS_PER_S, TRADE, 99.5, 0.5, -1.0, 0.0, 0.0),
    ]
    events = np.array(sorted([*quotes, *trades]), EVENT)
    state, place = new_minutes(), 0
    while place < len(events):
        place = fold_minutes(state, events, place)
    (count,) = state["count"]
    closed = Minutes(*state["closed"][0, :, :count])
    assert closed.end_min[-2:].tolist() == [BEGIN_MIN + 1.0, BEGIN_MIN + 2.0]
    assert np.isnan(closed.close[-2]), "the first minute was seen only in part"
    ohlc = [getattr(closed, name)[-1] for name in ("open", "high", "low", "close")]
    assert ohlc == [100.5, 100.5, 99.5, 99.5]
    assert (closed.volume[-1], closed.signed_volume[-1], closed.trades[-1], closed.quotes[-1]) == (2.5, 1.5, 2.0, 3.0)
    assert closed.spread_bps[-1] == pytest.approx(1 / 100.5 * 1e4)
    assert closed.top_imbalance[-1] == pytest.approx(0.5)
    assert minutes_of_bars(np.empty(0, BARS), BEGIN_MIN, 3)[-1].tolist() == [
        BEGIN_MIN + 1.0,
        BEGIN_MIN + 2.0,
        BEGIN_MIN + 3.0,
    ]


def test_a_feature_that_raises_or_is_infinite_or_cannot_be_compiled_is_nan_and_the_others_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    raises = file("raises", "def feature(minutes):\n    return minutes.close[int(minutes.end_min[-1])]\n", 3)
    broken = file("broken", "def feature(minutes):\n    return minutes.vwap[0]\n", 3)
    infinite = file("infinite", "import math\n\ndef feature(minutes):\n    return math.inf\n", 3)
    own = UserFeatures([file("width", RANGE, 30), raises, broken, infinite])
    rows = MarketMinutes(own).fold(market(60, 7))
    assert np.isfinite(rows.values[-1, 0])
    assert np.isnan(rows.values[:, 1:]).all()
    assert caplog.text.count("the feature raises is NaN where it fails: IndexError") == 1
    assert caplog.text.count("the feature infinite is NaN where it fails: it returned inf") == 1
    assert "the feature broken is always NaN: broken.py, line 2" in caplog.text


def test_a_file_that_is_read_from_disk_declares_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "flow.py"
    path.write_text('NAME = "flow"\nUNIT = "1"\nMEANING = "net buying"\nMINUTES = 30\n' + FLOW)
    declared = read_feature(path)
    assert (declared.name, declared.unit, declared.meaning, declared.minutes) == ("flow", "1", "net buying", 30)
