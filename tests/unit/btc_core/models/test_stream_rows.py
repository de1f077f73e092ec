"""Rows of sealed days carry what the stream computed; models find skill in it only where there is some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY
from btc_core.features.bar_features import bar_features
from btc_core.features.catalogue import BAR_FEATURES, MODEL_FEATURES, model_matrix
from btc_core.models import fitting
from btc_core.models.dataset import Frame, StreamRows, make_frame
from btc_core.models.input_gains import gain_shares, in_words, stream_gain, with_inputs
from btc_core.models.recipe import RECIPE
from btc_core.models.scores import qlike_losses
from btc_core.models.targets import close_times_ns
from tests.unit.btc_core.models.test_bundle import MICRO, market

if TYPE_CHECKING:
    from btc_core.models.bundle import VolatilityModel

pytestmark = pytest.mark.unit

DAYS, SEALED_FROM_DAY = 32, 4
SPREAD, RV_5M = MODEL_FEATURES.index("spread_bps"), MODEL_FEATURES.index("log_rv_5m")
SMALL = msgspec.structs.replace(
    RECIPE,
    volatility=msgspec.structs.replace(
        RECIPE.volatility, trees=60, net=msgspec.structs.replace(RECIPE.volatility.net, seeds=1, epochs=2)
    ),
)


@pytest.fixture(scope="module")
def bars() -> np.ndarray:
    return market(DAYS * 1440)


@pytest.fixture(scope="module")
def telling(bars: np.ndarray) -> StreamRows:
    """A stream from the fifth day on whose spread tells much of the variance to come; its other inputs are noise."""
    return stream_of(bars, telling=True)


def stream_of(bars: np.ndarray, *, telling: bool) -> StreamRows:
    rng = np.random.default_rng(8)
    origin_ns = close_times_ns(bars["ts_ns"])
    matrix = model_matrix(bar_features(bars))
    matrix[:, MICRO] = rng.normal(size=(len(bars), len(MICRO)))
    if telling:
        squares = np.append(np.square(np.diff(np.log(bars["close"]))), 0.0)
        coming = np.convolve(squares, np.ones(5), "full")[4 : 4 + len(squares)]
        matrix[:, SPREAD] = np.log(coming + 1e-9) + rng.normal(0.0, 0.5, len(bars))
    sealed = origin_ns > origin_ns[0] + SEALED_FROM_DAY * NS_PER_DAY
    return StreamRows(origin_ns[sealed], matrix[sealed])


def loss(frame: Frame) -> tuple[float, VolatilityModel]:
    """QLIKE on the last six days of a model that was fitted on the days before."""
    border = int(frame.origin_ns[-1]) - 6 * NS_PER_DAY
    model = fitting.fit_volatility(frame.between(0, border - RECIPE.dataset.embargo_ns), SMALL)
    rows = frame.between(border, int(frame.origin_ns[-1]))
    sigma = model.predict(rows.matrix, rows.columns)
    label = np.maximum(rows.realized[:, -1], model.harx.rv_floor[-1])
    return float(qlike_losses(label, np.square(sigma[:, -1] / 1e4)).mean()), model


def test_days_without_a_stream_keep_the_features_of_bars(bars: np.ndarray, telling: StreamRows) -> None:
    of_bars, mixed = make_frame(bars), make_frame(bars, stream=telling)
    assert np.array_equal(of_bars.origin_ns, mixed.origin_ns)
    assert np.array_equal(of_bars.realized, mixed.realized), "labels are those of bars"
    assert not mixed.is_streamed[mixed.origin_ns < telling.origin_ns[0]].any()
    assert mixed.is_streamed[mixed.origin_ns >= telling.origin_ns[0]].all()
    assert np.array_equal(mixed.matrix[~mixed.is_streamed], of_bars.matrix[~mixed.is_streamed], equal_nan=True)
    assert np.isnan(mixed.matrix[~mixed.is_streamed][:, MICRO]).all()
    assert np.isfinite(mixed.matrix[mixed.is_streamed][:, MICRO]).all()
    assert mixed.streamed_days == DAYS - SEALED_FROM_DAY + 1
    assert of_bars.streamed_days == 0, "the history begins within a day, so it has one more day than days of bars"


def test_rows_are_those_of_the_stream_at_the_close_and_what_it_lacks_stays_missing(
    bars: np.ndarray, telling: StreamRows
) -> None:
    holes = StreamRows(telling.origin_ns[::2], telling.matrix[::2].copy())
    holes.matrix[:, SPREAD] = np.nan
    holes.matrix[5, RV_5M] = np.nan
    frame = make_frame(bars, stream=holes)
    at = np.searchsorted(holes.origin_ns, frame.origin_ns).clip(0, len(holes.origin_ns) - 1)
    found = (holes.origin_ns[at] == frame.origin_ns) & (at != 5)
    assert np.array_equal(frame.is_streamed, found)
    assert np.array_equal(frame.matrix[found], holes.matrix[at[found]], equal_nan=True)
    assert np.isnan(frame.matrix[found][:, SPREAD]).all()
    assert np.isnan(frame.matrix[~found][:, MICRO]).all()


def test_what_the_stream_computes_later_changes_no_row_before(bars: np.ndarray, telling: StreamRows) -> None:
    border = int(telling.origin_ns[len(telling.origin_ns) // 2])
    changed = StreamRows(telling.origin_ns, telling.matrix.copy())
    changed.matrix[telling.origin_ns > border] *= 1.7
    one, other = make_frame(bars, stream=telling), make_frame(bars, stream=changed)
    before = one.origin_ns <= border
    assert np.array_equal(one.matrix[before], other.matrix[before], equal_nan=True)
    assert not np.array_equal(one.matrix[~before], other.matrix[~before], equal_nan=True)
    models = [fitting.fit_volatility(each.between(0, border), SMALL) for each in (one, other)]
    rows = one.take(before)
    forecasts = [model.predict(rows.matrix, rows.columns) for model in models]
    assert np.array_equal(*forecasts, equal_nan=True)


def test_skill_in_an_input_of_the_stream_is_found_and_its_gain_is_named(bars: np.ndarray, telling: StreamRows) -> None:
    frame = make_frame(bars, stream=telling)
    with_stream, model = loss(frame)
    without, plain = loss(frame.without_stream())
    assert with_stream < 0.9 * without
    manifest = with_inputs(model.manifest, model, frame)
    gains = manifest.inputs.gains
    assert next(iter(gains)) == "spread_bps"
    assert stream_gain(gains) > 0.2
    assert sum(gains.values()) == pytest.approx(1.0, abs=1e-3)
    assert len(gains) <= manifest.inputs.offered == len(model.tree_input_names)
    assert sum(manifest.inputs.net_effects.values()) == pytest.approx(1.0, abs=1e-3)
    assert manifest.inputs.streamed_days == DAYS - SEALED_FROM_DAY + 1
    assert "spread_bps" in in_words(manifest)
    assert len(msgspec.json.encode(manifest.inputs)) < 20_000
    assert not set(gain_shares(plain)) - {*BAR_FEATURES, *model.tree_input_names[len(MODEL_FEATURES) :]}
    assert model.with_manifest(manifest).as_baseline().manifest.inputs.gains == {}


def test_noise_of_the_stream_and_shuffled_labels_give_no_skill(bars: np.ndarray, telling: StreamRows) -> None:
    frame = make_frame(bars, stream=stream_of(bars, telling=False))
    noisy, _ = loss(frame)
    without, _ = loss(frame.without_stream())
    assert noisy > 0.98 * without
    whole = make_frame(bars, stream=telling)
    order = np.random.default_rng(3).permutation(len(whole.origin_ns))
    shuffled = msgspec.structs.replace(whole, realized=whole.realized[order])
    assert loss(shuffled)[0] > 0.97 * loss(shuffled.without_stream())[0]
