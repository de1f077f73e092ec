"""The purged walk-forward: what the shipped features and models would have forecast, month by month, beside the baselines.

Each month is forecast by models that were fitted on what was known an embargo before it, and every forecaster is scored
on the same origins. Nothing is chosen here: decisions are made on other years and written down in `recipe`.
What does not belong here: fitting (`fitting`), and what a score is (`scores`).
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, from_ns, to_ns
from btc_core.errors import InvalidInput
from btc_core.features import catalogue
from btc_core.models import bundle, fitting, intervals, scores
from btc_core.models.recipe import RECIPE
from btc_core.models.trainers import in_memory
from btc_core.names import HORIZONS_MIN, LEVELS_PCT

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from btc_core.models.dataset import Frame
    from btc_core.models.trainers import Trainer

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

WINDOW_DAYS = 700.0
"""History that each month is fitted on. Trees gain from years; HARX, the baselines and the bid model take the newest part."""
FIRST_WINDOW_DAYS = 120.0
"""Without `--from`, the first month that has this much history before it is the first that is forecast."""
FLOOR_5M = 2.5e-8
"""Floor of the scored RV over five minutes, ln²; in proportion for other horizons. It is the published floor of this
protocol: without it, minutes in which no price moved would decide the mean of a loss in ln RV."""
REFERENCE = "har"
FORECASTERS = ("model", "har", "harx", "ewma", "naive")

_FLOORS = FLOOR_5M * np.asarray(HORIZONS_MIN) / 5.0


class MonthForecasts(msgspec.Struct, frozen=True):
    """Forecasts of one month, and their outcomes."""

    name: str
    origin_ns: Any
    labels: Any
    """RV, floored, (n, 5)."""
    bid_bps: Any
    """Returns of the bid, (n, 5)."""
    variances: dict[str, Any]
    """Forecasts of RV by forecaster, floored, (n, 5)."""
    median_ratios: dict[str, Any]
    """By forecaster, exp of the mean of ln(RV / forecast) in training, (5,): times the forecast it is the median RV, if
    ln RV is distributed symmetrically."""
    bid_forecast_bps: Any
    ar_bps: Any
    """The autoregression's forecasts of the return of the bid, (n, 5)."""
    sigma_bps: Any
    volatility_start: Any
    """Quantiles at which the intervals of the volatility start, (5, 6)."""
    bid_start: Any
    """Quantiles at which the intervals of the bid start, (5, 6)."""
    shrinkage: tuple[float, ...]
    importance: dict[str, float]
    """Share of each feature in the total gain of the volatility's trees."""


class WalkForward(msgspec.Struct, frozen=True):
    """All months, in time order."""

    months: list[MonthForecasts]
    window_days: float

    def joined(self, field: str) -> Floats:
        """One field of all months, concatenated."""
        return np.concatenate([getattr(month, field) for month in self.months])

    def variance(self, name: str) -> Floats:
        """The variances that one forecaster forecast, (n, 5)."""
        return np.concatenate([month.variances[name] for month in self.months])

    def median_variance(self, name: str) -> Floats:
        """One forecaster's forecasts of the median RV, (n, 5)."""
        return np.concatenate([month.variances[name] * month.median_ratios[name] for month in self.months])


def month_borders(begin_ns: int, end_ns: int) -> list[int]:
    """`begin_ns`, the starts of the months (UTC) between, and `end_ns`."""
    borders = [begin_ns]
    moment = from_ns(begin_ns)
    year, month = moment.year, moment.month
    while True:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        start = to_ns(datetime(year, month, 1, tzinfo=UTC))
        if start >= end_ns:
            return [*borders, end_ns]
        borders.append(start)


def first_month_ns(frame: Frame) -> int:
    """Start of the first month with `FIRST_WINDOW_DAYS` before it; raises `InvalidInput` when there is none."""
    first, last = int(frame.origin_ns[0]), int(frame.origin_ns[-1])
    found = [b for b in month_borders(first, last)[1:-1] if b - first >= FIRST_WINDOW_DAYS * NS_PER_DAY]
    if not found:
        msg = f"the bars hold no month with {FIRST_WINDOW_DAYS:g} days before it; give more files, or --from"
        raise InvalidInput(msg)
    return found[0]


def forecast_month(
    frame: Frame, begin_ns: int, end_ns: int, window_days: float, trainer: Trainer = in_memory
) -> MonthForecasts:
    """Fit on the window that ends an embargo before `begin_ns`, and forecast the origins in (begin, end]."""
    train = frame.between(begin_ns - int(window_days * NS_PER_DAY), begin_ns - RECIPE.dataset.embargo_ns)
    test = frame.between(begin_ns, end_ns)
    volatility = fitting.fit_volatility(train, RECIPE, trainer)
    bid = fitting.fit_bid(train, RECIPE, trainer)
    late = train.last_days(RECIPE.intervals.calibration_days)
    late_labels = np.maximum(late.realized, _FLOORS)
    median_ratios = {
        name: np.exp(np.log(late_labels / each).mean(axis=0)) for name, each in _variances(volatility, late).items()
    }
    sigma = volatility.predict(test.matrix)
    return MonthForecasts(
        name=from_ns(begin_ns).strftime("%Y-%m"),
        origin_ns=test.origin_ns,
        labels=np.maximum(test.realized, _FLOORS),
        bid_bps=test.bid_bps,
        variances=_variances(volatility, test),
        median_ratios=median_ratios,
        bid_forecast_bps=bid.predict(test.matrix, sigma),
        ar_bps=bid.baseline_forecasts(test.matrix).get("ar", np.zeros_like(sigma)),
        sigma_bps=sigma,
        volatility_start=bundle.start_quantiles(volatility),
        bid_start=bundle.start_quantiles(bid),
        shrinkage=bid.manifest.shrinkage,
        importance=importance(volatility),
    )


def _variances(model: bundle.VolatilityModel, frame: Frame) -> dict[str, Floats]:
    sigma, harx = model.predict_both(frame.matrix)
    forecasts = {"model": sigma, "harx": harx, **model.baseline_forecasts(frame.matrix)}
    return {name: np.maximum(np.square(forecasts[name] / 1e4), _FLOORS) for name in FORECASTERS}


def importance(model: bundle.VolatilityModel) -> dict[str, float]:
    """Share of each feature in the total gain of the trees, largest first; empty without trees."""
    gains = dict.fromkeys(catalogue.MODEL_FEATURES, 0.0)
    for booster in model.boosters:
        by_column: dict[str, Any] = booster.get_score(importance_type="total_gain")
        for key, gain in by_column.items():  # the keys are f0, f1, …
            gains[catalogue.MODEL_FEATURES[int(key[1:])]] += float(gain)
    total = sum(gains.values())
    ranked = sorted(gains.items(), key=lambda pair: -pair[1])
    return {name: gain / total for name, gain in ranked if gain > 0.0} if total else {}


_shared: list[Frame] = []
"""The frame, which forked processes inherit. Passed as an argument it would be copied for every month."""


def _forecast_shared(begin_ns: int, end_ns: int, window_days: float, trainer: Trainer) -> MonthForecasts:
    return forecast_month(_shared[0], begin_ns, end_ns, window_days, trainer)


def walk_forward(  # noqa: PLR0913 - four arguments say what is forecast, three how it is run
    frame: Frame,
    begin_ns: int,
    end_ns: int,
    window_days: float = WINDOW_DAYS,
    *,
    processes: int | None = None,
    trainer: Trainer = in_memory,
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> WalkForward:
    """Forecast (begin, end] month by month, months in parallel processes.

    `progress` is called after each month with the number of months done and their total. Raises `InvalidInput` when a
    month has no bars, or none before it.
    """
    borders = month_borders(begin_ns, end_ns)
    spans = list(pairwise(borders))
    for begin, end in spans:
        if not len(frame.between(begin, end).origin_ns) or not len(
            frame.between(0, begin - RECIPE.dataset.embargo_ns).origin_ns
        ):
            msg = f"{from_ns(begin):%Y-%m} cannot be forecast: no bars in it or before it"
            raise InvalidInput(msg)
    months: list[MonthForecasts] = []
    _shared[:] = [frame]
    workers = min(len(spans), processes or os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        waiting = [pool.submit(_forecast_shared, begin, end, window_days, trainer) for begin, end in spans]
        for done in as_completed(waiting):
            months.append(done.result())
            progress(len(months), len(spans))
    _shared.clear()
    return WalkForward(sorted(months, key=lambda month: int(month.origin_ns[0])), window_days)


def results(walk: WalkForward) -> dict[str, Any]:
    """Everything that is reported, as plain numbers; this is the JSON of `btc evaluate`."""
    months = [month.name for month in walk.months]
    return {
        "from": from_ns(int(walk.months[0].origin_ns[0])).isoformat(),
        "to": from_ns(int(walk.months[-1].origin_ns[-1])).isoformat(),
        "origins": int(sum(len(month.origin_ns) for month in walk.months)),
        "months": months,
        "window_days": walk.window_days,
        "feature_version": catalogue.FEATURE_VERSION,
        "rv_floor": FLOOR_5M,
        "volatility": volatility_results(walk),
        "price": price_results(walk),
        "intervals": interval_results(walk, *bid_intervals(walk)),
        "volatility_intervals": interval_results(walk, *volatility_intervals(walk)),
    }


def volatility_results(walk: WalkForward) -> dict[str, dict[str, Any]]:
    """Scores at five minutes by forecaster; `dm_t` below −1.64 is better than HAR at one-sided 5 %."""
    label = walk.joined("labels")[:, -1]
    losses = {name: scores.qlike_losses(label, walk.variance(name)[:, -1]) for name in FORECASTERS}
    rows = np.cumsum([len(month.origin_ns) for month in walk.months])[:-1]
    by_month = {name: [float(part.mean()) for part in np.split(each, rows)] for name, each in losses.items()}
    mean = {name: float(each.mean()) for name, each in losses.items()}
    table = {}
    for name in FORECASTERS:
        better = sum(a < b for a, b in zip(by_month[name], by_month[REFERENCE], strict=True))
        table[name] = {
            "qlike": mean[name],
            "r2_log": scores.r2_log(label, walk.median_variance(name)[:, -1]),
            "r2_log_debiased": scores.r2_log_debiased(label, walk.variance(name)[:, -1]),
            "gain_vs_har": 1.0 - mean[name] / mean[REFERENCE],
            "dm_t": None if name == REFERENCE else scores.diebold_mariano_t(losses[name], losses[REFERENCE]),
            "months_better": better,
            "months": len(walk.months),
            "qlike_by_month": dict(zip([month.name for month in walk.months], by_month[name], strict=True)),
            "qlike_by_horizon": {
                str(h): scores.qlike(walk.joined("labels")[:, column], walk.variance(name)[:, column])
                for column, h in enumerate(HORIZONS_MIN)
            },
        }
    return table


def price_results(walk: WalkForward) -> dict[str, dict[str, Any]]:
    """Scores against the random walk by horizon; `ar_…` are those of the autoregression."""
    actual, forecast, ar = (walk.joined(field) for field in ("bid_bps", "bid_forecast_bps", "ar_bps"))
    table = {}
    for column, horizon in enumerate(HORIZONS_MIN):
        ratio = scores.mse_ratio(actual[:, column], forecast[:, column])
        share, error = scores.direction_hits(actual[:, column], forecast[:, column])
        dm_t = scores.diebold_mariano_t(np.square(actual - forecast)[:, column], np.square(actual)[:, column])
        table[str(horizon)] = {
            "mse_ratio": ratio,
            "r2": 1.0 - ratio,
            "direction": _number(share),
            "direction_se": _number(error),
            "dm_t": _number(dm_t),
            "ar_mse_ratio": scores.mse_ratio(actual[:, column], ar[:, column]),
            "ar_dm_t": _number(
                scores.diebold_mariano_t(np.square(actual - ar)[:, column], np.square(actual)[:, column])
            ),
            "months_with_a_forecast": sum(month.shrinkage[column] > 0.0 for month in walk.months),
        }
    return table


def _number(value: float) -> float | None:
    """None for NaN, which JSON does not have: a forecast that is always 0 has no direction."""
    return float(value) if np.isfinite(value) else None


def bid_intervals(walk: WalkForward) -> tuple[Floats, Floats]:
    """Outcomes of the return at five minutes, (n,), and the bounds in force at each origin, (n, 6), bps."""
    actual, forecast, sigma = (walk.joined(field) for field in ("bid_bps", "bid_forecast_bps", "sigma_bps"))
    in_force = intervals.track(walk.months[0].bid_start, intervals.bid_score(actual, forecast, sigma))
    return actual[:, -1], intervals.bid_bounds_bps(in_force, forecast, sigma)[:, -1]


def volatility_intervals(walk: WalkForward) -> tuple[Floats, Floats]:
    """Outcomes of the realized volatility over five minutes, (n,), and the bounds in force, (n, 6), bps."""
    labels, variance = walk.joined("labels"), walk.variance("model")
    in_force = intervals.track(walk.months[0].volatility_start, intervals.volatility_score(labels, variance))
    bounds = intervals.volatility_bounds_bps(in_force, np.sqrt(variance) * 1e4)
    return np.sqrt(labels[:, -1]) * 1e4, bounds[:, -1]


def interval_results(walk: WalkForward, actual: Floats, bounds: Floats) -> dict[str, dict[str, Any]]:
    """Coverage (in all and by month), mean width and Winkler score of each level, in the unit of `actual`."""
    rows = np.cumsum([len(month.origin_ns) for month in walk.months])[:-1]
    table = {}
    for level in LEVELS_PCT:
        low, high = (bounds[:, place] for place in intervals.BOUNDS[level])
        inside = (actual >= low) & (actual <= high)
        table[str(level)] = {
            "coverage": float(inside.mean()),
            "coverage_by_month": {
                month.name: float(part.mean()) for month, part in zip(walk.months, np.split(inside, rows), strict=True)
            },
            "width": float((high - low).mean()),
            "winkler": float(scores.winkler(actual, low, high, level / 100.0).mean()),
        }
    return table
