"""Training on the variance of ticks: its rows, its judgement, and its champion of another target."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets import training
from btc_core.clock import NS_PER_DAY
from btc_core.errors import NotReady
from btc_core.models import bundle, fitting
from btc_core.models.dataset import Frame, TickLabels, make_frame
from btc_core.models.targets import RV_TARGETS, TICK_RV_TARGETS, close_times_ns, realized_variance
from btc_core.names import VOLATILITY
from tests.unit.btc_core.models.test_bundle import market

pytestmark = pytest.mark.unit

MINUTES, LABELLED = 3_000, 1_800
FACTOR = 0.5
"""The variance of ticks in these labels, as a share of that of minutes."""
BARS = market(MINUTES)
ORIGIN_NS = close_times_ns(BARS["ts_ns"])


def labels(minutes: int = LABELLED, factor: float = FACTOR) -> TickLabels:
    """Labels of the newest minutes: a part of the variance of minutes."""
    realized = factor * realized_variance(ORIGIN_NS, BARS["close"]) + 1e-9
    known = ~np.isnan(realized).any(axis=1)
    known[: MINUTES - minutes] = False
    return TickLabels(ORIGIN_NS[known], realized[known])


def never_live(_since_ns: int) -> Frame:
    raise AssertionError("nothing is in shadow")


def test_only_minutes_with_a_variance_of_ticks_are_rows_and_their_inputs_are_those_of_minutes() -> None:
    ticks, minutes = labels(), make_frame(BARS)
    frame = make_frame(BARS, ticks=ticks)
    assert frame.target == "ticks"
    assert frame.origin_ns.tolist() == ticks.origin_ns.tolist()
    assert np.array_equal(frame.realized, ticks.realized)
    same = np.isin(minutes.origin_ns, frame.origin_ns)
    assert np.array_equal(frame.matrix, minutes.matrix[same], equal_nan=True)
    assert np.array_equal(frame.columns, minutes.columns[same], equal_nan=True)
    changed = TickLabels(ticks.origin_ns, ticks.realized * 7.0)
    assert np.array_equal(make_frame(BARS, ticks=changed).matrix, frame.matrix, equal_nan=True), "no input sees a label"


def test_a_model_of_ticks_names_its_target_and_its_baselines_forecast_the_same_one() -> None:
    result, _ = training.train(VOLATILITY, BARS, None, None, never_live, None, None, labels())
    model = result.model
    assert isinstance(model, bundle.VolatilityModel)
    assert model.manifest.targets == TICK_RV_TARGETS
    assert model.manifest.volatility_target == "ticks"
    assert model.manifest.pretrained == "", "the pre-trained model was fitted on the variance of minutes"
    rows, of_minutes = make_frame(BARS, ticks=labels()), fitting.fit_volatility(make_frame(BARS).last_days(1.25))
    ours = {"harx": model.baseline(rows.matrix)} | model.baseline_forecasts(rows.matrix)
    theirs = {"harx": of_minutes.baseline(rows.matrix)} | of_minutes.baseline_forecasts(rows.matrix)
    for name in ("harx", "har", "ewma"):
        ratio = np.exp(2.0 * np.log(ours[name][:, -1] / theirs[name][:, -1]).mean())
        assert ratio == pytest.approx(FACTOR, rel=0.1), name


@pytest.mark.parametrize("wanted", ["ticks", "minutes"])
def test_a_champion_of_the_other_target_is_not_compared_and_the_reason_says_so(wanted: str) -> None:
    ticks = labels() if wanted == "ticks" else None
    other = fitting.fit_volatility(make_frame(BARS, ticks=None if wanted == "ticks" else labels()))
    result, _ = training.train(VOLATILITY, BARS, other, other, never_live, None, None, ticks)
    assert result.verdict.reason.startswith(
        f"version {other.version} forecasts the volatility of {other.manifest.volatility_target} and is not compared with "
        f"this model of {wanted}; "
    )
    assert "ratio_to_champion" not in result.verdict.figures
    assert result.is_new
    assert result.model.manifest.targets == (TICK_RV_TARGETS if wanted == "ticks" else RV_TARGETS)


def test_a_champion_of_the_same_target_is_compared_on_the_rows_that_it_has_not_seen() -> None:
    frame = make_frame(BARS, ticks=labels())
    champion = fitting.fit_volatility(frame.between(0, int(frame.origin_ns[-1]) - NS_PER_DAY // 2))
    result, _ = training.train(VOLATILITY, BARS, champion, None, never_live, None, None, labels())
    assert "is not compared with this model" not in result.verdict.reason


@pytest.mark.parametrize("minutes", [0, 300])
def test_too_few_variances_of_ticks_are_said_with_what_to_do(minutes: int) -> None:
    ticks = labels(minutes) if minutes else TickLabels.none()
    champion = fitting.fit_volatility(make_frame(BARS))
    with pytest.raises(
        NotReady, match=r"minutes on \d sealed days have a variance of ticks .* 600 are needed"
    ) as raised:
        training.train(VOLATILITY, BARS, champion, None, never_live, None, None, ticks)
    assert "btc import-trades" in str(raised.value)


def test_a_market_without_sealed_days_and_champion_starts_with_a_model_that_needs_neither() -> None:
    result, _ = training.train(VOLATILITY, BARS, None, None, never_live, None, None, TickLabels.none())
    assert result.verdict.passed
    assert result.verdict.reason.startswith("too few minutes with a variance of ticks to judge a model: ")
    assert result.model.manifest.volatility_target == "minutes"
