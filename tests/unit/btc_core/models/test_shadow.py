"""A challenger of another recipe becomes champion only by what the stream stored since it was trained."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from btc_assets import training
from btc_core import names
from btc_core.clock import NS_PER_DAY
from btc_core.features import catalogue
from btc_core.models import bundle, dataset, fitting
from btc_core.models.recipe import RECIPE
from tests.unit.btc_core.models.test_bundle import market

DAYS, TRAINED_DAYS = 36, 18
BARS = market(DAYS * 1440)


@pytest.fixture(scope="module")
def frame() -> dataset.Frame:
    return dataset.make_frame(BARS)


@pytest.fixture(scope="module")
def good(frame: dataset.Frame) -> bundle.VolatilityModel:
    first = int(frame.origin_ns[0])
    return fitting.fit_volatility(frame.between(first, first + TRAINED_DAYS * NS_PER_DAY))


def twice_too_high(model: bundle.VolatilityModel) -> bundle.VolatilityModel:
    offsets = tuple(each + np.log(4.0) for each in model.manifest.offsets)
    return model.with_manifest(msgspec.structs.replace(model.manifest, offsets=offsets))


def of_another_recipe(model: bundle.VolatilityModel) -> bundle.VolatilityModel:
    return model.with_manifest(msgspec.structs.replace(model.manifest, recipe="another"))


def judged(
    frame: dataset.Frame, champion: bundle.VolatilityModel, challenger: bundle.VolatilityModel, days: float = DAYS
) -> training.TrainingResult:
    requested_ns: list[int] = []

    def live_rows(since_ns: int) -> dataset.Frame:
        requested_ns.append(since_ns)
        return frame.between(since_ns, since_ns + int(days * NS_PER_DAY))

    trained = training.train(names.VOLATILITY, BARS, of_another_recipe(champion), challenger, live_rows)[0]
    first_unseen_ns = challenger.manifest.trained_to_ns + RECIPE.dataset.embargo_ns
    assert requested_ns == [first_unseen_ns], "the challenger must not be judged on rows that it was trained on"
    return trained


def test_a_better_challenger_wins_and_its_successor_is_trained_on_everything(
    frame: dataset.Frame, good: bundle.VolatilityModel
) -> None:
    trained = judged(frame, twice_too_high(good), good)
    assert trained.verdict.passed
    assert trained.is_new
    assert trained.model.manifest.trained_to_ns > good.manifest.trained_to_ns


def test_a_worse_challenger_stays_in_shadow_and_nothing_is_trained(
    frame: dataset.Frame, good: bundle.VolatilityModel
) -> None:
    worse = twice_too_high(good)
    trained = judged(frame, good, worse)
    assert not trained.verdict.passed
    assert trained.model is worse
    assert not trained.is_new


def test_too_few_days_live_decide_nothing(frame: dataset.Frame, good: bundle.VolatilityModel) -> None:
    trained = judged(frame, twice_too_high(good), good, days=3)
    assert "days in shadow, 14 are needed" in trained.verdict.reason
    assert judged(frame, twice_too_high(good), good, days=0).verdict.reason == "in shadow, and no outcome yet"


def test_what_a_model_reads_is_among_what_the_stream_writes() -> None:
    assert set(catalogue.MODEL_FEATURES) <= set(catalogue.FEATURE_NAMES)
