"""HARX recovers a known volatility, forecasts its mean, and replaces missing features."""

from __future__ import annotations

import numpy as np
import pytest

from btc_core.models import scores
from btc_core.models.harx import INPUTS, Harx, fit_harx
from btc_core.names import HORIZONS_MIN


def _market(rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Inputs with a known volatility (ln² a minute) and labels drawn from it."""
    rng = np.random.default_rng(seed)
    level = np.empty(rows)
    level[0] = np.log(1e-7)
    for i in range(1, rows):
        level[i] = np.log(1e-7) + 0.97 * (level[i - 1] - np.log(1e-7)) + rng.normal(0.0, 0.2)
    inputs = np.empty((rows, len(INPUTS)))
    for column, name in enumerate(INPUTS):
        window = int(name.split("_")[-1][:-1]) if name.startswith(("log_rv", "log_park", "log_vol")) else 1
        noise = rng.normal(0.0, 1.0 / np.sqrt(window), rows)
        inputs[:, column] = level + np.log(window) + noise if not name.startswith("minute") else 0.0
    minute = np.arange(rows) % 1440
    inputs[:, -2], inputs[:, -1] = np.sin(2 * np.pi * minute / 1440), np.cos(2 * np.pi * minute / 1440)
    draws = rng.normal(size=(rows, len(HORIZONS_MIN))) ** 2 * np.exp(level)[:, np.newaxis]
    return inputs, draws.cumsum(axis=1)


def test_it_recovers_a_known_volatility_out_of_sample_and_its_mean() -> None:
    inputs, realized = _market(6000)
    harx = fit_harx(inputs[:4000], realized[:4000], days=30.0)
    forecast = np.exp(harx.log_variance(inputs[4000:]))
    floored = np.maximum(realized[4000:], harx.rv_floor)
    constant = np.full(len(floored), realized[:4000, -1].mean())
    assert scores.qlike(floored[:, -1], forecast[:, -1]) < 0.6 * scores.qlike(floored[:, -1], constant)
    assert np.allclose((floored / forecast).mean(axis=0), 1.0, atol=0.15)


def test_shuffled_labels_leave_no_skill() -> None:
    inputs, realized = _market(6000)
    shuffled = realized[np.random.default_rng(2).permutation(6000)]
    harx = fit_harx(inputs[:4000], shuffled[:4000], days=30.0)
    forecast = np.exp(harx.log_variance(inputs[4000:]))
    floored = np.maximum(shuffled[4000:], harx.rv_floor)
    assert scores.r2_log_debiased(floored[:, -1], forecast[:, -1]) < 0.02


def test_a_missing_day_falls_back_to_the_longest_window_and_stays_close() -> None:
    inputs, realized = _market(4000)
    harx = fit_harx(inputs, realized, days=30.0)
    short = inputs.copy()
    for name in ("log_rv_240m", "log_rv_1440m", "log_volume_240m", "log_parkinson_30m"):
        short[:, INPUTS.index(name)] = np.nan
    gap = harx.log_variance(short) - harx.log_variance(inputs)
    assert np.isfinite(gap).all()
    assert float(np.abs(gap).mean()) < 1.0


def test_one_known_window_is_enough_and_none_gives_no_forecast() -> None:
    inputs, realized = _market(2000)
    harx = fit_harx(inputs, realized, days=30.0)
    row = np.full((1, len(INPUTS)), np.nan)
    assert np.isnan(harx.log_variance(row)).all()
    row[0, INPUTS.index("log_rv_60m")] = np.log(60e-7)
    assert np.isfinite(harx.log_variance(row)).all()


def test_json_keeps_every_bit() -> None:
    inputs, realized = _market(1000)
    harx = fit_harx(inputs, realized, days=1.0)
    assert np.array_equal(Harx.from_json(harx.to_json()).log_variance(inputs), harx.log_variance(inputs))


def test_too_few_rows_are_refused() -> None:
    inputs, realized = _market(50)
    with pytest.raises(ValueError, match="at least 60"):
        fit_harx(inputs, realized, days=1.0)
