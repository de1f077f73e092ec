"""Benchmarks of the models: one forecast of one live row, and training on eighteen months.

What does not belong here: how good forecasts are (`btc evaluate`).
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.registry import Figure, Plan, benchmark
from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.features.live_minutes import LiveMinutes
from btc_core.market.bars import BARS
from btc_core.market.events import QUOTE
from btc_core.market.messages import FeatureMessage
from btc_core.models import bundle, fitting
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.quality import ModelLimits, qualities
from btc_core.models.recipe import RECIPE
from btc_core.models.regimes import recent_coverage

if TYPE_CHECKING:
    from collections.abc import Callable

BEGIN_NS = 1_700_000_040_000_000_000 // NS_PER_MIN * NS_PER_MIN
MONTHS_DAYS = 548
"""Eighteen months."""
QUICK_DAYS = 60
FORECASTS = 3_000
LIVE_DAYS = 125
"""More than the memory of the minute columns."""


def minutes(days: int) -> np.ndarray[Any, Any]:
    """Minute bars whose volatility clusters."""
    rng, count = np.random.default_rng(5), days * 1440
    shocks, log_sigma = rng.normal(0.0, 0.15, count), np.zeros(count)
    for i in range(1, count):
        log_sigma[i] = 0.98 * log_sigma[i - 1] + shocks[i]
    close = 40_000.0 * np.exp((rng.normal(size=count) * 5e-4 * np.exp(log_sigma)).cumsum())
    bars = np.zeros(count, BARS)
    bars["ts_ns"] = BEGIN_NS + np.arange(count) * NS_PER_MIN
    bars["close"], bars["open"] = close, np.concatenate([close[:1], close[:-1]])
    bars["high"], bars["low"] = np.maximum(bars["open"], close) * 1.0001, np.minimum(bars["open"], close) * 0.9999
    bars["volume"] = np.exp(log_sigma)
    return bars


def fitted(days: int) -> tuple[Frame, bundle.VolatilityModel, bundle.BidModel]:
    """Both models with trees, whether or not the gate would let them serve."""
    frame = make_frame(minutes(days))
    bid = fitting.serve_bid(frame.last_days(RECIPE.bid.window_days), np.full(5, 0.5))
    return frame, fitting.fit_volatility(frame), bid


def p50_us(work: Callable[[int], object], rows: int) -> float:
    """Median time of one row, µs, without the first hundred."""
    times = []
    for index in range(rows):
        begin_ns = time.perf_counter_ns()
        work(index)
        times.append(time.perf_counter_ns() - begin_ns)
    return float(np.median(times[100:])) / 1e3


@benchmark("forecast-one")
def forecast_one(plan: Plan) -> list[Figure]:
    """Minute columns, σ of five horizons with its baseline, and the returns of the bid: what each live row needs.

    The rows are those of the second half of a minute, which need new columns.
    """
    frame, volatility, bid = fitted(QUICK_DAYS)
    count = plan.size(FORECASTS)
    rows, columns = np.ascontiguousarray(frame.matrix[:count]), frame.columns[:count]
    bars = minutes(LIVE_DAYS)
    live = LiveMinutes(bars, int(bars["ts_ns"][-1]) + NS_PER_MIN)
    features = np.full((1, len(FEATURE_NAMES)), np.nan)
    features[0, FEATURE_NAMES.index("price")] = bars["close"][-1]
    clock_ns = int(bars["ts_ns"][-1]) + NS_PER_MIN + 45 * NS_PER_S

    def ours(index: int) -> None:
        row = rows[index : index + 1]
        sigma = volatility.predict_both(row, live.columns([clock_ns], features, [False]))[0]
        bid.predict(row, sigma)

    inputs = volatility.tree_inputs(rows, columns)
    single = bid.tree_inputs(rows, volatility.predict(rows, columns)).astype(np.float32)

    def each(index: int) -> None:
        for booster in volatility.boosters:
            booster.inplace_predict(inputs[index : index + 1], predict_type="margin", validate_features=False)
        for booster in bid.boosters:
            booster.inplace_predict(single[index : index + 1], predict_type="margin", validate_features=False)

    value = p50_us(ours, count)
    name = "one forecast: five horizons, both models"
    return [
        Figure(name, value, "µs", 200.0, "lower", "Booster.inplace_predict for each", p50_us(each, count)),
        Figure(
            name, value, "µs", 200.0, "lower", "MLflow pyfunc, one booster only", pyfunc_us(bid.boosters[0], rows[:400])
        ),
    ]


@benchmark("forecast-quality")
def forecast_quality(plan: Plan) -> list[Figure]:
    """The quality of one forecast, beside the time to make that forecast."""
    frame, volatility, bid = fitted(QUICK_DAYS)
    count = plan.size(FORECASTS)
    limits, coverage = (
        ModelLimits((bid, volatility)),
        recent_coverage([(at, float(at), True, at % 9 > 0) for at in range(360)]),
    )
    rows, columns = np.ascontiguousarray(frame.matrix[:count]), frame.columns[:count]
    values = np.full((count, len(FEATURE_NAMES)), np.nan)
    values[:, [FEATURE_NAMES.index(name) for name in MODEL_FEATURES]] = rows
    message = FeatureMessage("BTC/USD", BEGIN_NS, BEGIN_NS, 0, 1, 0, QUOTE, FEATURE_VERSION, b"")

    def judged(index: int) -> None:
        qualities(
            [message], values[index : index + 1], clocks_ns=[BEGIN_NS], bars_end_ns=[BEGIN_NS], are_of_model={0: True},
            sigma_bps={0: 300.0}, limits=limits, coverage=coverage, made_at_ns=BEGIN_NS,
        )  # fmt: skip

    def made(index: int) -> None:
        sigma = volatility.predict_both(rows[index : index + 1], columns[index : index + 1])[0]
        bid.predict(rows[index : index + 1], sigma)

    name = "quality of one forecast"
    return [Figure(name, p50_us(judged, count), "µs", 15.0, "lower", "making the forecast", p50_us(made, count))]


def pyfunc_us(booster: Any, rows: np.ndarray[Any, Any]) -> float:
    """Median time of one booster behind MLflow's generic loader, called with a frame of one row as its server does, µs."""
    import pandas as pd

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        import mlflow

        frame = pd.DataFrame(rows, columns=list(MODEL_FEATURES))
        path = Path(folder) / "model"
        signature = mlflow.models.infer_signature(frame, np.zeros(len(frame)))
        booster.feature_names = list(MODEL_FEATURES)
        mlflow.xgboost.save_model(booster, path, signature=signature)
        model = mlflow.pyfunc.load_model(str(path))
        times = []
        for index in range(len(frame)):
            row = frame.iloc[index : index + 1]
            begin_ns = time.perf_counter_ns()
            model.predict(row)
            times.append(time.perf_counter_ns() - begin_ns)
    return float(np.median(times[100:])) / 1e3


@benchmark("training")
def training(plan: Plan) -> list[Figure]:
    """Both models from minute bars, features included."""
    days = QUICK_DAYS if plan.quick else MONTHS_DAYS
    bars = minutes(days)
    begin_s = time.perf_counter()
    frame = make_frame(bars)
    fitting.fit_volatility(frame)
    fitting.fit_bid(frame)
    return [Figure(f"train both models on {days} days of minutes", time.perf_counter() - begin_s, "s", 180.0)]
