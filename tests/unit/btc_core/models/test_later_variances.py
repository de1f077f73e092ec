"""The variances of later windows are those of the bars after a row, and help a net only while it is fitted."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS, GK_WINDOWS_MIN, VOLUME_WINDOWS_MIN
from btc_core.models import net_fitting
from btc_core.models.dataset import make_frame
from btc_core.models.later_variances import later_variances
from btc_core.models.net import net_inputs
from btc_core.models.recipe import RECIPE
from btc_core.models.scores import qlike
from tests.unit.btc_core.models.test_bundle import market

SMALL = msgspec.structs.replace(RECIPE.volatility.net, hidden=(16, 8), seeds=2, epochs=12, batch_rows=64, rate=5e-3)
ROWS = 6_000
WINDOWS = RECIPE.volatility.net.later_windows_min


def garman_klass(bars: np.ndarray) -> float:
    width, body = np.log(bars["high"] / bars["low"]), np.log(bars["close"] / bars["open"])
    return float((0.5 * width**2 - (2.0 * np.log(2.0) - 1.0) * body**2).sum())


def test_every_window_of_the_recipe_is_a_column() -> None:
    assert set(WINDOWS) <= set(GK_WINDOWS_MIN)


def test_a_later_variance_is_that_of_the_bars_after_the_row() -> None:
    bars = market(3 * 1440)
    frame = make_frame(bars)
    later = later_variances(frame.origin_ns, frame.columns, (5, 15))
    row = len(later) - 500
    after = bars[bars["ts_ns"] >= frame.origin_ns[row]]
    assert later[row] == pytest.approx([garman_klass(after[:5]), garman_klass(after[:15])], rel=1e-5)


def test_a_window_without_a_row_at_its_end_is_unknown_and_nothing_after_the_last_row_is_seen() -> None:
    origin_ns = np.arange(20, dtype=np.int64) * 5 * NS_PER_MIN
    columns = np.zeros((20, len(COLUMNS)), np.float32)
    known = ~np.isnan(later_variances(origin_ns, columns, (5, 15)))
    assert known.sum(axis=0).tolist() == [19, 17]
    gap = np.delete(np.arange(20), 10)
    known = ~np.isnan(later_variances(origin_ns[gap], columns[gap], (5, 15)))
    assert not known[9, 0]
    assert known[10, 0]


def test_rows_of_the_past_see_none_of_a_changed_future() -> None:
    bars = market(3 * 1440)
    border_ns = int(bars["ts_ns"][0]) + 2 * NS_PER_DAY
    changed = bars.copy()
    late = changed["ts_ns"] >= border_ns
    for name in ("open", "high", "low", "close"):
        changed[name][late] *= 1.5
    frames = [make_frame(each).between(0, border_ns) for each in (bars, changed)]
    ours, theirs = (later_variances(frame.origin_ns, frame.columns, WINDOWS) for frame in frames)
    assert np.array_equal(ours, theirs, equal_nan=True)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, ...]:
    """Inputs, ln of HARX, very noisy labels, later variances with little noise, and the variance that both come from."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(-14.0, 1.0, (ROWS, len(MODEL_FEATURES)))
    columns = rng.normal(size=(ROWS, len(COLUMNS))).astype(np.float32)
    log_harx = rng.normal(-14.0, 1.0, ROWS)
    hidden = sum(columns[:, COLUMNS.index(f"volume_{w}m")] for w in VOLUME_WINDOWS_MIN) / len(VOLUME_WINDOWS_MIN) ** 0.5
    variance = np.exp(log_harx + 0.5 * np.clip(hidden, -2.0, 2.0))
    labels = variance * rng.gamma(0.5, 2.0, ROWS)
    later = variance[:, np.newaxis] * rng.gamma(12.0, 1.0 / 12.0, (ROWS, len(WINDOWS)))
    return matrix, columns, log_harx, labels, later, variance


def loss_of_the_later_half(data: tuple[np.ndarray, ...], labels: np.ndarray, later: np.ndarray) -> float:
    """QLIKE against the variance itself of nets that were fitted on the first half, at the right mean."""
    matrix, columns, log_harx, _labels, _later, variance = data
    half = ROWS // 2
    raw = net_inputs(matrix, columns, log_harx)
    net = net_fitting.fit_net(raw[:half], log_harx[:half], labels[:half], later[:half], SMALL)
    forecast = np.exp(log_harx + net.corrections(matrix, columns, log_harx))[half:]
    return qlike(variance[half:], forecast * np.mean(variance[half:] / forecast))


def test_later_variances_help_the_net_to_find_what_noisy_labels_hide(data: tuple[np.ndarray, ...]) -> None:
    labels, later = data[3:5]
    assert loss_of_the_later_half(data, labels, later) < 0.9 * loss_of_the_later_half(data, labels, later[:, :0])


def test_shuffled_labels_and_later_variances_leave_no_skill(data: tuple[np.ndarray, ...]) -> None:
    _matrix, _columns, log_harx, labels, later, variance = data
    harx = np.exp(log_harx)
    order = np.random.default_rng(5).permutation(ROWS)
    shuffled = harx * (labels / harx)[order], harx[:, np.newaxis] * (later / harx[:, np.newaxis])[order]
    half = ROWS // 2
    ratio = variance[half:] / harx[half:]
    assert loss_of_the_later_half(data, *shuffled) > qlike(variance[half:], harx[half:] * ratio.mean())


def test_a_kept_net_has_one_output(data: tuple[np.ndarray, ...]) -> None:
    matrix, columns, log_harx, labels, later = (each[:500] for each in data[:5])
    net = net_fitting.fit_net(net_inputs(matrix, columns, log_harx), log_harx, labels, later, SMALL)
    assert net.weights[2].shape == (SMALL.seeds, SMALL.hidden[1], 1)
    assert net.biases[2].shape == (SMALL.seeds, 1)
