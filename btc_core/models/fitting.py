"""How the two models are fitted; `btc evaluate` and the Dagster assets both call this, so what is judged is what serves.

Volatility: HARX on the last two months, and trees on years that correct it (`fit_volatility`).
Bid: small trees on the return in units of σ̂, shrunk by λ (`fit_bid`).
What does not belong here: judging (`evaluation`, `btc_assets.training`), what a fitted model does (`bundle`), and whether
trees are grown in memory, from disk or on a cluster (`trainers`).
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY
from btc_core.errors import NotReady
from btc_core.features.catalogue import DRIFTING_FEATURES, MODEL_FEATURES
from btc_core.models import scores
from btc_core.models.baselines import fit_autoregression, fit_baselines
from btc_core.models.bundle import HARX_SHARE, SHAPE_SHARE, BidModel, VolatilityModel, new_manifest, random_walk_model
from btc_core.models.dataset import EMBARGO_NS, Frame, cut, make_frame
from btc_core.models.drift import edges_of
from btc_core.models.harx import fit_harx
from btc_core.models.intervals import bid_score, fit_quantiles, volatility_score
from btc_core.names import BID_MODEL, HORIZONS_MIN, VOLATILITY_MODEL, ModelKind
from btc_core.settings import settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy.typing as npt
    import xgboost

    from btc_core.models.trainers import Train

    Floats = npt.NDArray[np.float64]

HARX_DAYS = 60.0
"""A linear model likes a recent window: on 2022–2023, 60 days beat 120."""
REFIT_NS = 7 * NS_PER_DAY
"""Rows that trees learn from get the HARX of the week before them: what a fresh HARX leaves is what trees must correct."""
FIRST_FIT_DAYS = 21.0
"""The first HARX of a window needs this much; rows before it are its own."""
TREES_NEED_DAYS = 14.0
"""With less history trees lose to HARX, so HARX serves (docs/concepts/forecasting.md)."""
BASELINE_DAYS = 120.0
"""HAR, EWMA and the autoregression are fitted on this much, as the published figures are."""
CALIBRATION_DAYS = 60.0
"""The newest part of the window, on which intervals are calibrated."""

_TREES: dict[str, Any] = {"base_score": 1.0, "tree_method": "hist", "max_bin": 64, "subsample": 0.7, "seed": 7}
VOLATILITY_PARAMS: dict[str, Any] = {
    **_TREES,
    "objective": "reg:gamma",  # its deviance is twice QLIKE, the loss that is reported
    "max_depth": 5,
    "eta": 0.04,
    "min_child_weight": 20,
    "colsample_bytree": 0.5,
    "lambda": 10.0,
}
TREE_COUNTS = (350, 400)
"""Of the boosters in the order of `VOLATILITY_TREES`; the mean of both in logs beats either."""
BID_PARAMS: dict[str, Any] = {
    **_TREES,
    "objective": "reg:squarederror",
    "base_score": 0.0,
    "max_depth": 2,
    "eta": 0.05,
    "min_child_weight": 100,
    "colsample_bytree": 0.5,
    "lambda": 50.0,
}
BID_TREES = 60
BID_DAYS = 240.0
"""On June 2022 to 2023, 240 days beat 120 at every horizon."""
LAMBDAS = np.linspace(0.0, 1.0, 11)
LUCK_T = -2.33
"""Diebold-Mariano t that the best λ must reach on validation: one-sided 1 %, since five horizons are tried. With 5 % a
month of 2022–2023 was 0.2 % worse than the random walk."""
VALIDATION_PARTS = 3
"""Of the validation block; λ must have gained in each, so that one good week does not serve for a month. With it no month
of June 2022 to 2023 was worse than the random walk, and the mean gain was the same."""
VALIDATION_SHARE = 0.25
"""Last part of the window of the bid model, on which λ is chosen."""
_SCALE = 1e6
"""Gradients of gamma deviance are relative, so labels are brought to the order of one for float32."""


def rolling_log_variance(frame: Frame) -> Floats:
    """Ln of HARX's forecasts (n, 5), each row by a HARX fitted on the `HARX_DAYS` before its week."""
    first = int(frame.origin_ns[0]) + int(FIRST_FIT_DAYS * NS_PER_DAY)
    last = int(frame.origin_ns[-1])
    margins = np.empty((len(frame.origin_ns), len(HORIZONS_MIN)))
    done = 0
    for border in range(min(first, last), last + 1, REFIT_NS):
        known = frame.between(border - int(HARX_DAYS * NS_PER_DAY), border - EMBARGO_NS)
        harx = fit_harx(known.harx_inputs, known.realized, known.days)
        upto = int(np.searchsorted(frame.origin_ns, border + REFIT_NS, side="right"))
        margins[done:upto] = harx.log_variance(frame.take(slice(done, upto)).harx_inputs)
        done = upto
    return margins


def fit_volatility(frame: Frame) -> VolatilityModel:
    """HARX, the simple baselines, and trees where there is enough history; the kind says whether there are trees.

    Raises `NotReady` when there are too few rows even for HARX.
    """
    recent = frame.last_days(HARX_DAYS)
    try:
        harx = fit_harx(recent.harx_inputs, recent.realized, recent.days)
    except ValueError as error:
        raise NotReady(str(error)) from error
    floor = np.asarray(harx.rv_floor)
    common = frame.last_days(BASELINE_DAYS)
    baselines = fit_baselines(common.matrix, np.maximum(common.realized, floor), floor)
    boosters, level = _grow(frame, floor[-1]) if frame.days >= TREES_NEED_DAYS else ((), 0.0)
    kind: ModelKind = "xgboost" if boosters else "harx"
    manifest = new_manifest(VOLATILITY_MODEL, kind, level=level, recipe=recipe(), code=code_version(), **frame.window())
    late = frame.last_days(CALIBRATION_DAYS)
    labels = np.maximum(late.realized, floor)
    if boosters:
        raw = np.square(VolatilityModel(manifest, harx, boosters).predict(late.matrix) / 1e4)
        offsets = np.log((labels / raw).mean(axis=0))
        manifest = msgspec.structs.replace(manifest, offsets=tuple(offsets.tolist()))
    score = volatility_score(labels, np.square(VolatilityModel(manifest, harx, boosters).predict(late.matrix) / 1e4))
    seen = {name: edges_of(frame.matrix[:, MODEL_FEATURES.index(name)]) for name in DRIFTING_FEATURES}
    manifest = msgspec.structs.replace(manifest, quantiles=fit_quantiles(score), distributions=seen)
    return VolatilityModel(manifest, harx, boosters, baselines)


def _grow(frame: Frame, floor: float) -> tuple[tuple[xgboost.Booster, ...], float]:
    """Boosters of the variance over five minutes in the order of `VOLATILITY_TREES`, and the level they start from."""
    labels = np.maximum(frame.realized[:, -1], floor)
    level = float(np.log(labels.mean()))
    starts = (0.5 * rolling_log_variance(frame)[:, -1] + 0.5 * level, np.full(len(labels), level))
    with _trainer(frame) as train:
        boosters = tuple(
            train(VOLATILITY_PARAMS, count, labels * _SCALE, start + np.log(_SCALE))
            for start, count in zip(starts, TREE_COUNTS, strict=True)
        )
    return boosters, level


def _trainer(frame: Frame) -> AbstractContextManager[Train]:
    from btc_core.models.trainers import trainer  # noqa: PLC0415 - XGBoost is slow to import, not needed to load the graph

    return trainer(settings().model, frame.matrix, _TREES["max_bin"])


def recipe() -> str:
    """Hash of every decision in this module; a bundle with another one is a change of specification."""
    decided = (
        *(
            VOLATILITY_PARAMS,
            TREE_COUNTS,
            HARX_DAYS,
            REFIT_NS,
            FIRST_FIT_DAYS,
            TREES_NEED_DAYS,
            HARX_SHARE,
            SHAPE_SHARE,
        ),
        *(BID_PARAMS, BID_TREES, BID_DAYS, LUCK_T, VALIDATION_SHARE, VALIDATION_PARTS, MODEL_FEATURES),
    )
    return hashlib.sha256(repr(decided).encode()).hexdigest()[:12]


def code_version() -> str:
    """Git commit of this checkout, empty where there is none."""
    try:
        done = subprocess.run(
            # Of ours, not of a repository that happens to lie around an installed package.
            ["git", "-C", str(Path(__file__).parents[2]), "--git-dir=.git", "rev-parse", "HEAD"],  # noqa: S607 - whichever git the user has
            capture_output=True, check=True, text=True, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def harx_bundle(bars: npt.NDArray[Any]) -> VolatilityModel:
    """The flagged HARX baseline (kind `harx`) from a few hours of minute bars, for a cold start.

    `bars` of dtype `bars.BARS`, sorted. Raises `NotReady` when there are too few (about an hour of labelled bars).
    """
    frame = make_frame(bars, min_bars=1)
    return fit_volatility(frame.last_days(TREES_NEED_DAYS - 1.0))


def fit_bid(frame: Frame) -> BidModel:
    """Choose λ on the last part of the window, then fit on all of it; every λ 0 is the random walk."""
    recent = frame.last_days(BID_DAYS)
    if recent.days < TREES_NEED_DAYS:
        return random_walk_model()
    fitted, validation = cut(recent, 1.0 - VALIDATION_SHARE)
    unshrunk = _bid_forecast(fitted, validation)
    shrinkage = choose_lambda(validation.bid_bps, unshrunk)
    return serve_bid(recent, shrinkage)


def serve_bid(frame: Frame, shrinkage: Floats) -> BidModel:
    """The bid model with this λ (5,), fitted on `frame`, calibrated on its newest part."""
    kind: ModelKind = "xgboost" if shrinkage.any() else "random_walk"
    sigma = harx_sigma(frame, frame)
    boosters = grow_bid(frame, sigma) if shrinkage.any() else ()
    made = {"recipe": recipe(), "code": code_version(), **frame.window()}
    manifest = new_manifest(BID_MODEL, kind, shrinkage=tuple(shrinkage.tolist()), **made)
    common = frame.last_days(BASELINE_DAYS)
    autoregression = fit_autoregression(common.matrix, common.bid_bps)
    model = BidModel(manifest, boosters, autoregression)
    late = frame.last_days(CALIBRATION_DAYS)
    sigma = sigma[-len(late.origin_ns) :]
    score = bid_score(late.bid_bps, model.predict(late.matrix, sigma), sigma)
    return BidModel(msgspec.structs.replace(manifest, quantiles=fit_quantiles(score)), boosters, autoregression)


def grow_bid(frame: Frame, sigma_bps: Floats) -> tuple[xgboost.Booster, ...]:
    """Per horizon small trees on the return in units of σ̂; `sigma_bps` (n, 5)."""
    scaled = np.clip(frame.bid_bps / sigma_bps, -6.0, 6.0)  # a jump is one row, not the fit
    with _trainer(frame) as train:
        return tuple(train(BID_PARAMS, BID_TREES, scaled[:, column]) for column in range(len(HORIZONS_MIN)))


def choose_lambda(actual_bps: Floats, unshrunk_bps: Floats) -> Floats:
    """λ per horizon of `LAMBDAS` with the smallest squared error, shape (5,), on rows in time order.

    0 unless its gain is more than luck and there is some in every part of the block.
    """
    errors = [np.square(actual_bps - weight * unshrunk_bps).mean(axis=0) for weight in LAMBDAS]
    best = np.asarray(LAMBDAS[np.argmin(errors, axis=0)], np.float64)
    losses, walk = np.square(actual_bps - best * unshrunk_bps), np.square(actual_bps)
    t = [scores.diebold_mariano_t(losses[:, column], walk[:, column]) for column in range(len(best))]
    gains = [part.mean(axis=0) < 0.0 for part in np.array_split(losses - walk, VALIDATION_PARTS)]
    return np.where((np.asarray(t) < LUCK_T) & np.all(gains, axis=0), best, 0.0)


def harx_sigma(train: Frame, rows: Frame) -> Floats:
    """σ in bps of HARX fitted on `train`, for `rows`."""
    harx = fit_harx(train.harx_inputs, train.realized, train.days)
    return np.exp(0.5 * harx.log_variance(rows.harx_inputs)) * 1e4


def _bid_forecast(train: Frame, rows: Frame) -> Floats:
    """The forecast f · σ̂ before λ, bps, for `rows`, fitted on `train`."""
    boosters = grow_bid(train, harx_sigma(train, train))
    manifest = new_manifest(BID_MODEL, "xgboost", shrinkage=(1.0,) * len(HORIZONS_MIN))
    return BidModel(manifest, boosters).predict(rows.matrix, harx_sigma(train, rows))
