"""The columns of the stream are those of the bars that its minutes become, from stored bars and rows alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.features import live_minutes as module
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.features.live_minutes import LiveMinutes
from btc_core.features.minute_columns import COLUMNS, minute_columns
from btc_core.market.bars import BARS
from tests.unit.btc_core.features.test_minute_columns import market

DAYS = 12
LIVE_MIN = 90


@pytest.fixture(scope="module")
def bars() -> np.ndarray:
    return market(DAYS * 1440)


def rows_of(bars: np.ndarray, first: int) -> tuple[list[int], np.ndarray]:
    """Four trades in each minute from `first` on: its open, high, low and close, with the volume of its end."""
    clocks, values = [], []
    for bar in bars[first:]:
        begin_ns = int(bar["ts_ns"])
        for second, price in ((5, bar["open"]), (10, bar["high"]), (40, bar["low"]), (59, bar["close"])):
            row = np.full(len(FEATURE_NAMES), np.nan)
            row[FEATURE_NAMES.index("price")] = price
            row[FEATURE_NAMES.index("log_volume_1m")] = math.log1p(bar["volume"])
            clocks.append(begin_ns + second * NS_PER_S)
            values.append(row)
    return clocks, np.array(values)


def test_the_last_row_of_a_minute_has_the_columns_at_its_close(bars: np.ndarray) -> None:
    first = len(bars) - LIVE_MIN
    clocks, values = rows_of(bars, first)
    found = LiveMinutes(bars, clocks[0]).columns(clocks, values, [True] * len(clocks))
    at_close = minute_columns(bars)[first:]
    assert np.allclose(found[3::4], at_close, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_a_row_in_the_first_half_of_a_minute_has_the_columns_at_the_close_before(bars: np.ndarray) -> None:
    first = len(bars) - LIVE_MIN
    clocks, values = rows_of(bars, first)
    found = LiveMinutes(bars, clocks[0]).columns(clocks, values, [True] * len(clocks))
    closed = minute_columns(bars)[first - 1 : -1]
    assert np.array_equal(found[0], closed[0])
    assert np.allclose(found[::4], closed, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_how_rows_are_batched_changes_no_column(bars: np.ndarray) -> None:
    clocks, values = rows_of(bars, len(bars) - LIVE_MIN)
    whole = LiveMinutes(bars, clocks[0]).columns(clocks, values, [True] * len(clocks))
    minutes = LiveMinutes(bars, clocks[0])
    parts = [minutes.columns(clocks[k : k + 7], values[k : k + 7], [True] * 7) for k in range(0, len(clocks), 7)]
    assert np.array_equal(np.concatenate(parts), whole, equal_nan=True)


def test_later_rows_change_no_column(bars: np.ndarray) -> None:
    clocks, values = rows_of(bars, len(bars) - LIVE_MIN)
    changed = values.copy()
    changed[100:] *= 1.1
    found = [LiveMinutes(bars, clocks[0]).columns(clocks, each, [True] * len(clocks)) for each in (values, changed)]
    assert np.array_equal(found[0][:100], found[1][:100], equal_nan=True)
    assert not np.array_equal(found[0][100:], found[1][100:], equal_nan=True)


def test_days_of_rows_move_the_arrays_and_change_nothing(bars: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM_MIN", 50)
    first = len(bars) - 3 * 50
    clocks, values = rows_of(bars, first)
    found = LiveMinutes(bars, clocks[0]).columns(clocks, values, [True] * len(clocks))
    assert np.allclose(found[3::4], minute_columns(bars)[first:], rtol=1e-4, atol=1e-4, equal_nan=True)


def test_without_bars_there_are_no_columns(bars: np.ndarray) -> None:
    clocks, values = rows_of(bars, len(bars) - 30)
    found = LiveMinutes(np.empty(0, BARS), clocks[0]).columns(clocks, values, [True] * len(clocks))
    assert found.shape == (len(clocks), len(COLUMNS))
    assert np.isnan(found).all()


def test_after_a_long_silence_old_minutes_are_forgotten(bars: np.ndarray) -> None:
    clocks, values = rows_of(bars, len(bars) - 30)
    minutes = LiveMinutes(bars, clocks[0])
    minutes.columns(clocks, values, [True] * len(clocks))
    later = [clock + (module.MEMORY_MIN + 100) * NS_PER_MIN for clock in clocks]
    assert np.isnan(minutes.columns(later, values, [True] * len(clocks))).all()
    day = [clock + (module.MEMORY_MIN + 200) * NS_PER_MIN for clock in clocks]
    assert np.isnan(minutes.columns(day, values, [True] * len(clocks))).all()
