"""A refused version is judged on live rows against the baseline that serves in its place, by the loss of its quantity."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from btc_assets.shadows import score_of
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS
from btc_core.models.bundle import VolatilityModel, random_walk_model
from btc_core.models.dataset import Frame
from btc_core.models.harx import INPUTS, fit_harx
from btc_core.models.manifest import new_manifest
from btc_core.names import VOLATILITY_MODEL

HOURS = 4
STEP_NS = 5 * 60 * 10**9


def frame(rows: int) -> Frame:
    rng = np.random.default_rng(1)
    matrix = rng.normal(-14.0, 0.3, (rows, len(MODEL_FEATURES)))
    realized = np.exp(rng.normal(-14.0, 0.3, (rows, 5))) * np.arange(1, 6)
    columns = np.full((rows, len(COLUMNS)), np.nan, np.float32)
    return Frame(np.arange(1, rows + 1) * STEP_NS, matrix, columns, realized, np.zeros((rows, 5)))


def model() -> VolatilityModel:
    rng = np.random.default_rng(4)
    inputs = rng.normal(-14.0, 0.3, (500, len(INPUTS)))
    realized = np.exp(rng.normal(-14.0, 0.3, (500, 5))) * np.arange(1, 6)
    return VolatilityModel(new_manifest(VOLATILITY_MODEL, "harx"), fit_harx(inputs, realized, 1.0))


def test_the_score_is_its_loss_over_that_of_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, rows = model(), frame(12 * HOURS)
    same = score_of(refused, rows, refused)
    assert same is not None
    assert (same.ratio, same.rows) == (pytest.approx(1.0), 12 * HOURS)
    assert (same.from_ns, same.to_ns) == (STEP_NS, 12 * HOURS * STEP_NS)
    monkeypatch.setattr(refused, "predict", lambda matrix, _columns: 3.0 * refused.baseline(matrix))
    worse = score_of(refused, rows, refused)
    assert worse is not None
    assert 1.5 < worse.ratio <= worse.bound
    assert worse.words.startswith(f"in shadow: loss {worse.ratio:.4f} of the baseline's (95 % bound ")


def test_the_score_of_the_bid_is_its_squared_error_over_that_of_the_random_walk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, refused = frame(12 * HOURS), random_walk_model()
    rows = msgspec.structs.replace(rows, bid_bps=np.random.default_rng(3).normal(0.0, 5.0, (12 * HOURS, 5)))
    monkeypatch.setattr(refused, "predict", lambda _matrix, sigma: 0.1 * rows.bid_bps + 0.0 * sigma)
    score = score_of(refused, rows, model())
    assert score is not None
    assert (score.ratio, score.rows) == (pytest.approx(0.81), 12 * HOURS)
    assert score.bound == pytest.approx(0.81, abs=0.1)


def test_less_than_an_hour_of_live_rows_gives_no_score() -> None:
    assert score_of(model(), frame(11), model()) is None
    assert score_of(model(), frame(0), model()) is None
