"""Fit and judge the two models on minute bars: out of sample first, then once more on everything for serving.

What does not belong here: where bars come from (`history`), Dagster (`models`), and what a fitted model does (`btc_core.bundle`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core import bundle, features, scores
from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.errors import NotReady
from btc_core.harx import INPUTS, Harx, fit_harx
from btc_core.targets import HORIZONS_MIN, LABEL_SPAN_NS, bid_path_bps, close_times_ns, realized_variance

if TYPE_CHECKING:
    import numpy.typing as npt
    import xgboost

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

ORIGIN_STEP_MIN = 5
"""One training row in this many minutes: labels of neighbours overlap by all but one minute, so more rows add little."""
TEST_SHARE = 0.2
"""Last part of the window, never fitted on before it is scored."""
VALIDATION_SHARE = 0.2
"""Part before it, on which λ of the bid model is chosen."""
EMBARGO_NS = LABEL_SPAN_NS + 5 * NS_PER_MIN
"""Between the last origin that is fitted on and the first that is scored: the longest label and five minutes."""
TREES_NEED_DAYS = 14.0
"""With less history trees lose to HARX (FORECASTING in the design), so HARX serves."""
MIN_BARS = 600
"""Ten hours; with less there are too few rows for a fit and a test block."""
LAMBDAS = np.linspace(0.0, 1.0, 11)
LUCK_T = -1.64
"""Diebold-Mariano t that the best λ must reach on validation, one-sided 5 %: the best of ten λ wins by luck half the time."""

THREADS = 1
"""Ten small fits take five seconds on one; with two, on two busy cores, they once took a minute waiting for each other."""

VOLATILITY_PARAMS: dict[str, Any] = {
    "objective": "reg:gamma",  # its deviance is twice QLIKE, the loss that is reported
    "base_score": 1.0,  # the forecast is HARX times what the trees say, 1 without trees
    "tree_method": "hist",
    "max_depth": 3,
    "eta": 0.05,
    "min_child_weight": 20,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "lambda": 10.0,
    "seed": 7,
}
VOLATILITY_TREES = 150
BID_PARAMS: dict[str, Any] = {
    "objective": "reg:squarederror",
    "base_score": 0.0,
    "tree_method": "hist",
    "max_depth": 2,
    "eta": 0.05,
    "min_child_weight": 100,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "lambda": 50.0,
    "seed": 7,
}
BID_TREES = 60

_HARX_COLUMNS = [features.MODEL_FEATURES.index(name) for name in INPUTS]
_HALF_LIVES = features.EWMA_HALF_LIVES_MIN


class Frame(msgspec.Struct, frozen=True):
    """Origins with a complete label, in time order."""

    origin_ns: Any
    matrix: Any
    """(n, MODEL_FEATURES); microstructure is NaN, bars do not hold it."""
    realized: Any
    """(n, 5), ln²."""
    bid_bps: Any
    """(n, 5)."""

    def take(self, mask: Mask) -> Frame:
        """The rows of `mask`."""
        return Frame(self.origin_ns[mask], self.matrix[mask], self.realized[mask], self.bid_bps[mask])

    @property
    def days(self) -> float:
        """From the first to the last origin."""
        return float(self.origin_ns[-1] - self.origin_ns[0]) / NS_PER_DAY if len(self.origin_ns) else 0.0

    def window(self) -> dict[str, int]:
        """The manifest's fields of a training window."""
        first, last = int(self.origin_ns[0]), int(self.origin_ns[-1])
        return {"trained_from_ns": first, "trained_to_ns": last, "train_rows": len(self.origin_ns)}


def make_frame(bars: npt.NDArray[Any], step_min: int = ORIGIN_STEP_MIN) -> Frame:
    """Features and labels of every `step_min`-th minute of `bars` (dtype `bars.BARS`, sorted).

    Raises `NotReady` below `MIN_BARS` bars.
    """
    if len(bars) < MIN_BARS:
        msg = f"{len(bars)} minute bars are too few to train on; {MIN_BARS} are needed"
        raise NotReady(msg)
    from btc_core.replay import bar_features  # noqa: PLC0415 - numba is slow to import, and only training needs it

    rows = bar_features(bars)
    origin_ns = close_times_ns(bars["ts_ns"])
    realized, bid = realized_variance(origin_ns, bars["close"]), bid_path_bps(origin_ns, bars["close"])
    matrix = features.matrix(rows)
    chosen = (origin_ns // NS_PER_MIN) % (step_min if len(bars) > 20_000 else 1) == 0
    chosen &= ~np.isnan(realized).any(axis=1)
    chosen &= ~np.isnan(matrix[:, _HARX_COLUMNS[1]])
    return Frame(origin_ns[chosen], matrix[chosen], realized[chosen], bid[chosen])


def cut(frame: Frame, from_share: float) -> tuple[Mask, Mask]:
    """Rows before and after a share of the window's time, with the embargo between them."""
    first, last = int(frame.origin_ns[0]), int(frame.origin_ns[-1])
    border = first + int((last - first) * from_share)
    return frame.origin_ns <= border - EMBARGO_NS, frame.origin_ns > border


def fit_volatility(frame: Frame) -> tuple[Harx, tuple[xgboost.Booster, ...]]:
    """HARX, and per horizon trees on what it leaves, by gamma deviance; no trees below `TREES_NEED_DAYS`."""
    harx = fit_harx(frame.matrix[:, _HARX_COLUMNS], frame.realized, frame.days)
    if frame.days < TREES_NEED_DAYS:
        return harx, ()
    import xgboost  # noqa: PLC0415 - slow to import, not needed to load the graph

    margin = harx.log_variance(frame.matrix[:, _HARX_COLUMNS])
    labels = np.maximum(frame.realized, harx.rv_floor)
    data = xgboost.QuantileDMatrix(frame.matrix.astype(np.float32), nthread=THREADS)
    boosters = []
    for column in range(len(HORIZONS_MIN)):
        # gradients of gamma deviance are relative, so labels are scaled to the order of one for float32
        data.set_info(label=labels[:, column] * 1e6, base_margin=margin[:, column] + np.log(1e6))
        boosters.append(xgboost.train({**VOLATILITY_PARAMS, "nthread": THREADS}, data, VOLATILITY_TREES))
    return harx, tuple(boosters)


def fit_bid(frame: Frame, sigma_bps: Floats) -> tuple[xgboost.Booster, ...]:
    """Per horizon small trees on the return in units of σ̂; `sigma_bps` (n, 5)."""
    import xgboost  # noqa: PLC0415 - slow to import, not needed to load the graph

    data = xgboost.QuantileDMatrix(frame.matrix.astype(np.float32), nthread=THREADS)
    boosters = []
    for column in range(len(HORIZONS_MIN)):
        scaled = np.clip(frame.bid_bps[:, column] / sigma_bps[:, column], -6.0, 6.0)  # a jump is one row, not the fit
        data.set_info(label=scaled)
        boosters.append(xgboost.train({**BID_PARAMS, "nthread": THREADS}, data, BID_TREES))
    return tuple(boosters)


def train_volatility(frame: Frame) -> bundle.VolatilityModel:
    """Score on the last purged block, decide who serves, then fit on everything.

    The kind is `xgboost` only when it beat HARX there by QLIKE at 5 min; the scores in the manifest are of that block.
    """
    before, after = cut(frame, 1.0 - TEST_SHARE)
    train, test = frame.take(before), frame.take(after)
    harx, boosters = fit_volatility(train)
    candidate = _volatility_model(frame, harx, boosters, {})
    floors = np.asarray(harx.rv_floor)
    forecasts = _baselines(train, test, floors)
    forecasts["harx"] = (candidate.baseline(test.matrix) / 1e4) ** 2
    if boosters:
        forecasts["xgboost"] = (candidate.predict(test.matrix) / 1e4) ** 2
    table = volatility_scores(np.maximum(test.realized, floors), forecasts)
    wins = bool(boosters) and table["xgboost/5m/qlike"] < table["harx/5m/qlike"]
    table["test_rows"] = float(len(test.origin_ns))
    harx, boosters = fit_volatility(frame)
    return _volatility_model(frame, harx, boosters if wins else (), table)


def _volatility_model(
    frame: Frame, harx: Harx, boosters: tuple[xgboost.Booster, ...], table: dict[str, float]
) -> bundle.VolatilityModel:
    kind: bundle.Kind = "xgboost" if boosters else "harx"
    manifest = bundle.new_manifest(bundle.VOLATILITY_MODEL, kind, scores=table, **frame.window())
    return bundle.VolatilityModel(manifest, harx, boosters)


def _baselines(train: Frame, test: Frame, floors: Floats) -> dict[str, Floats]:
    """Variance forecasts (n, 5) of what needs no HARX: the last 5 minutes, the best EWMA of training, HAR."""
    minutes = np.asarray(HORIZONS_MIN, np.float64)
    columns = [features.MODEL_FEATURES.index(f"log_rv_{w}m") for w in (5, 60, 1440)]
    five = columns[0]
    last = np.exp(test.matrix[:, [five]]) * minutes / 5.0
    best = min(_HALF_LIVES, key=lambda half_life: _ewma(train, train, half_life, floors)[1])
    ewma = _ewma(train, test, best, floors)[0]
    design_train, design_test = (_har_design(frame, columns) for frame in (train, test))
    labels = np.maximum(train.realized, floors)
    coefficients = np.linalg.lstsq(design_train, np.log(labels), rcond=None)[0]
    smearing = (labels / np.exp(design_train @ coefficients)).mean(axis=0)
    har = np.exp(design_test @ coefficients) * smearing
    return {"last_5m": np.maximum(last, floors), "ewma": np.maximum(ewma, floors), "har": np.maximum(har, floors)}


def _ewma(train: Frame, test: Frame, half_life: int, floors: Floats) -> tuple[Floats, float]:
    """EWMA times the mean ratio seen in training, and its QLIKE at 5 min on `train`."""
    column = features.MODEL_FEATURES.index(f"log_ewma_{half_life}m")
    labels = np.maximum(train.realized, floors)
    level, known = np.exp(train.matrix[:, [column]]), ~np.isnan(train.matrix[:, column])
    ratio = (labels[known] / level[known]).mean(axis=0)
    loss = scores.qlike(labels[known, -1], (level[known] * ratio)[:, -1])
    mean = float(level[known].mean())
    return np.nan_to_num(np.exp(test.matrix[:, [column]]), nan=mean) * ratio, loss


def _har_design(frame: Frame, columns: list[int]) -> Floats:
    logs = np.array(frame.matrix[:, columns])
    for place, (window, shorter) in enumerate(((60, 5), (1440, 60)), start=1):
        stand_in = logs[:, place - 1] + np.log(window / shorter)
        logs[:, place] = np.where(np.isnan(logs[:, place]), stand_in, logs[:, place])
    return np.column_stack([np.ones(len(logs)), logs])


def volatility_scores(realized: Floats, forecasts: dict[str, Floats]) -> dict[str, float]:
    """`model/horizon/metric` of variance forecasts (n, 5) against floored labels; DM t is against HARX, lags cover overlap."""
    table: dict[str, float] = {}
    for column, minutes in enumerate(HORIZONS_MIN):
        label = realized[:, column]
        reference = scores.qlike_losses(label, forecasts["harx"][:, column])
        for name, forecast in forecasts.items():
            losses = scores.qlike_losses(label, forecast[:, column])
            place = f"{name}/{minutes}m"
            table[f"{place}/qlike"] = float(losses.mean())
            table[f"{place}/r2_log"] = scores.r2_log_debiased(label, forecast[:, column])
            table[f"{place}/median_ape"] = scores.median_ape(label, forecast[:, column])
            if name != "harx":
                table[f"{place}/dm_t"] = scores.diebold_mariano_t(losses, reference)
    return {name: value for name, value in table.items() if np.isfinite(value)}


def train_bid(frame: Frame) -> bundle.BidModel:
    """Choose λ on a validation block, score on the last block, then fit on everything.

    λ of a horizon goes back to 0 when the test block does not confirm it; all 0 is the random walk.
    """
    if frame.days < TREES_NEED_DAYS:
        return bundle.random_walk_model()
    early, late = cut(frame, 1.0 - TEST_SHARE)
    before, test = frame.take(early), frame.take(late)
    fit_rows, validation_rows = cut(before, 1.0 - VALIDATION_SHARE / (1.0 - TEST_SHARE))
    fitted, validation = before.take(fit_rows), before.take(validation_rows)
    shrinkage = choose_lambda(validation.bid_bps, _unshrunk(fitted, validation))
    returns = _unshrunk(before, test)
    table = bid_scores(test.bid_bps, returns * shrinkage, shrinkage)
    table["test_rows"] = float(len(test.origin_ns))
    confirmed = np.array([table[f"model/{h}m/mse_ratio"] < 1.0 for h in HORIZONS_MIN])
    served = np.where(confirmed, shrinkage, 0.0)
    kind: bundle.Kind = "xgboost" if served.any() else "random_walk"
    more = {"scores": table, "shrinkage": tuple(served.tolist()), **frame.window()}
    boosters = fit_bid(frame, _harx_sigma(frame, frame)) if served.any() else ()
    return bundle.BidModel(bundle.new_manifest(bundle.BID_MODEL, kind, **more), boosters)


def _harx_sigma(train: Frame, rows: Frame) -> Floats:
    """σ in bps of HARX fitted on `train`, for `rows`."""
    harx = fit_harx(train.matrix[:, _HARX_COLUMNS], train.realized, train.days)
    return np.exp(0.5 * harx.log_variance(rows.matrix[:, _HARX_COLUMNS])) * 1e4


def _unshrunk(train: Frame, test: Frame) -> Floats:
    """The forecast f · σ̂ before λ, bps, for `test`, fitted on `train`."""
    boosters = fit_bid(train, _harx_sigma(train, train))
    manifest = bundle.new_manifest(bundle.BID_MODEL, "xgboost", shrinkage=(1.0,) * len(HORIZONS_MIN))
    return bundle.BidModel(manifest, boosters).predict(test.matrix, _harx_sigma(train, test))


def choose_lambda(actual_bps: Floats, unshrunk_bps: Floats) -> Floats:
    """λ per horizon of `LAMBDAS` with the smallest squared error, shape (5,); 0 unless its gain is more than luck."""
    errors = [np.square(actual_bps - weight * unshrunk_bps).mean(axis=0) for weight in LAMBDAS]
    best = np.asarray(LAMBDAS[np.argmin(errors, axis=0)], np.float64)
    gains = np.square(actual_bps - best * unshrunk_bps), np.square(actual_bps)
    t = [scores.diebold_mariano_t(gains[0][:, column], gains[1][:, column]) for column in range(len(best))]
    return np.where(np.asarray(t) < LUCK_T, best, 0.0)


def bid_scores(actual_bps: Floats, forecast_bps: Floats, shrinkage: Floats) -> dict[str, float]:
    """`model/horizon/metric` against the random walk; DM t is of squared errors."""
    table: dict[str, float] = {}
    for column, minutes in enumerate(HORIZONS_MIN):
        actual, forecast = actual_bps[:, column], forecast_bps[:, column]
        place = f"model/{minutes}m"
        table[f"{place}/lambda"] = float(shrinkage[column])
        table[f"{place}/mse_ratio"] = scores.mse_ratio(actual, forecast)
        table[f"{place}/dm_t"] = scores.diebold_mariano_t(np.square(actual - forecast), np.square(actual))
        table[f"{place}/direction"], table[f"{place}/direction_se"] = scores.direction_hits(actual, forecast)
    return {name: value for name, value in table.items() if np.isfinite(value)}
