"""The scores of a walk-forward, as plain numbers; this is the JSON of `btc evaluate`.

What does not belong here: the forecasts themselves (`evaluation`), what a forecast is worth to its user (`economics`), and
showing the numbers (`btc_cli.evaluation_report`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.clock import from_ns
from btc_core.features import catalogue, minute_columns
from btc_core.models import economics, intervals, scores
from btc_core.models.evaluation import FLOOR_5M, FORECASTERS, REFERENCE
from btc_core.models.recipe import RECIPE
from btc_core.models.targets import APART_NS
from btc_core.names import HORIZONS_MIN, LEVELS_PCT, SCORED_QUANTILES

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.evaluation import WalkForward

    Floats = npt.NDArray[np.float64]


def results(walk: WalkForward) -> dict[str, Any]:
    """Everything that is reported."""
    months = [month.name for month in walk.months]
    return {
        "from": from_ns(int(walk.months[0].origin_ns[0])).isoformat(),
        "to": from_ns(int(walk.months[-1].origin_ns[-1])).isoformat(),
        "origins": int(sum(len(month.origin_ns) for month in walk.months)),
        "months": months,
        "window_days": walk.window_days,
        "refit": walk.refit,
        "recipe": RECIPE.digest,
        "feature_version": catalogue.FEATURE_VERSION,
        "columns_version": minute_columns.COLUMNS_VERSION,
        "rv_floor": FLOOR_5M,
        "members": {"trees": 1.0 - RECIPE.volatility.net_share, "net": RECIPE.volatility.net_share},
        "volatility": volatility_results(walk),
        "horizons": horizon_results(walk),
        "price": price_results(walk),
        "intervals": interval_results(walk, *bid_intervals(walk)),
        "volatility_intervals": interval_results(walk, *volatility_intervals(walk)),
        "economic": economic_results(walk),
    }


def volatility_results(walk: WalkForward) -> dict[str, dict[str, Any]]:
    """Scores at the headline horizon by forecaster; `dm_t` below −1.64 is better than HAR at one-sided 5 %."""
    label = walk.joined("labels")[:, -1]
    losses = {name: scores.qlike_losses(label, walk.variance(name)[:, -1]) for name in FORECASTERS}
    rows = _month_borders(walk)
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
            "direction": scores.finite_or_none(share),
            "direction_se": scores.finite_or_none(error),
            "dm_t": scores.finite_or_none(dm_t),
            "ar_mse_ratio": scores.mse_ratio(actual[:, column], ar[:, column]),
            "ar_dm_t": scores.finite_or_none(
                scores.diebold_mariano_t(np.square(actual - ar)[:, column], np.square(actual)[:, column])
            ),
            "months_with_a_forecast": sum(month.shrinkage[column] > 0.0 for month in walk.months),
        }
    return table


def horizon_results(walk: WalkForward) -> dict[str, dict[str, Any]]:
    """By horizon: QLIKE of the model and of HAR, months in which the model is better, and coverage of its 90 % interval."""
    labels, borders = walk.joined("labels"), _month_borders(walk)
    actual, bounds = _bid_bounds(walk, "model")
    low, high = intervals.BOUNDS[90]
    table = {}
    for column, horizon in enumerate(HORIZONS_MIN):
        losses = {
            name: scores.qlike_losses(labels[:, column], walk.variance(name)[:, column])
            for name in ("model", REFERENCE)
        }
        model, har = ([part.mean() for part in np.split(losses[name], borders)] for name in ("model", REFERENCE))
        inside = (actual[:, column] >= bounds[:, column, low]) & (actual[:, column] <= bounds[:, column, high])
        covered = [float(part.mean()) for part in np.split(inside, borders)]
        gains = [1.0 - ours / theirs for ours, theirs in zip(model, har, strict=True)]
        table[str(horizon)] = {
            "qlike": float(losses["model"].mean()),
            "qlike_har": float(losses[REFERENCE].mean()),
            "gain_vs_har": 1.0 - float(losses["model"].mean() / losses[REFERENCE].mean()),
            "gain_mean_of_months": float(np.mean(gains)),
            "gain_worst_month": float(min(gains)),
            "months_better": int(np.sum(np.array(gains) > 0.0)),
            "coverage_90": float(inside.mean()),
            "coverage_90_lowest_month": min(covered),
            "coverage_90_highest_month": max(covered),
        }
    return table


def economic_results(walk: WalkForward) -> dict[str, Any]:
    """What the forecasts are worth to a user at the headline horizon, for the model and for HAR, and their difference.

    Only origins whose labels do not overlap count: a value at risk follows the outcome of each before the next.
    """
    apart = walk.origin_ns % APART_NS == 0
    label, returns = walk.joined("labels")[apart, -1], walk.joined("bid_bps")[apart, -1]
    table: dict[str, Any] = {"from_volatility": {}, "value_at_risk": {}, "crps": {}}
    forecasts = {name: walk.variance(name)[apart, -1] for name in ("model", REFERENCE)}
    for name, measure in economics.MEASURES.items():
        values = {who: measure(label, variance) for who, variance in forecasts.items()}
        table["from_volatility"][name] = economics.compared(values["model"], values[REFERENCE])
    for level in economics.RISK_LEVELS:
        bounds = {
            who: economics.value_at_risk_bps(returns, np.sqrt(variance) * 1e4, level)
            for who, variance in forecasts.items()
        }
        losses = {who: scores.pinball(returns, bound, level) for who, bound in bounds.items()}
        table["value_at_risk"][f"{level:g}"] = {
            "loss": economics.compared(losses["model"], losses[REFERENCE]),
            **{who: economics.breach_tests(returns < bound, level) for who, bound in bounds.items()},
        }
    for quantity, bounds_of in (("bid", _bid_bounds), ("volatility", _volatility_bounds)):
        crps = {}
        for who in ("model", REFERENCE):
            actual, all_bounds = bounds_of(walk, who)
            crps[who] = scores.crps_of_quantiles(
                actual[apart, -1], all_bounds[apart, -1, intervals.SCORED], SCORED_QUANTILES
            )
        table["crps"][quantity] = economics.compared(crps["model"], crps[REFERENCE])
    return table


def _month_borders(walk: WalkForward) -> npt.NDArray[np.int64]:
    """Places of the first row of each month but the first, among the rows of all months."""
    return np.cumsum([len(month.origin_ns) for month in walk.months])[:-1]


def _bid_bounds(walk: WalkForward, name: str) -> tuple[Floats, Floats]:
    """Outcomes of the return, (n, 5), and the bounds in force at each origin, (n, 5, 8), bps. HAR's return is 0."""
    actual = walk.joined("bid_bps")
    is_model = name == "model"
    sigma = walk.joined("sigma_bps") if is_model else np.sqrt(walk.variance(name)) * 1e4
    forecast = walk.joined("bid_forecast_bps") if is_model else np.zeros_like(sigma)
    in_force = intervals.track(
        walk.months[0].starts["bid"][name], intervals.bid_score(actual, forecast, sigma), walk.origin_ns
    )
    return actual, intervals.bid_bounds_bps(in_force, forecast, sigma)


def _volatility_bounds(walk: WalkForward, name: str) -> tuple[Floats, Floats]:
    """Outcomes of the realized volatility, (n, 5), and the bounds in force at each origin, (n, 5, 8), bps."""
    labels, variance = walk.joined("labels"), walk.variance(name)
    start = walk.months[0].starts["volatility"][name]
    in_force = intervals.track(start, intervals.volatility_score(labels, variance), walk.origin_ns)
    return np.sqrt(labels) * 1e4, intervals.volatility_bounds_bps(in_force, np.sqrt(variance) * 1e4)


def bid_intervals(walk: WalkForward) -> tuple[Floats, Floats]:
    """Outcomes of the return at the headline horizon, (n,), and the bounds in force at each origin, (n, 8), bps."""
    actual, bounds = _bid_bounds(walk, "model")
    return actual[:, -1], bounds[:, -1]


def volatility_intervals(walk: WalkForward) -> tuple[Floats, Floats]:
    """Outcomes of the realized volatility over the headline horizon, (n,), and the bounds in force, (n, 8), bps."""
    actual, bounds = _volatility_bounds(walk, "model")
    return actual[:, -1], bounds[:, -1]


def interval_results(walk: WalkForward, actual: Floats, bounds: Floats) -> dict[str, dict[str, Any]]:
    """Coverage (in all and by month), mean width and Winkler score of each level, in the unit of `actual`.

    A level whose bounds are not known has no results.
    """
    rows = _month_borders(walk)
    table = {}
    for level in LEVELS_PCT:
        low, high = (bounds[:, place] for place in intervals.BOUNDS[level])
        if np.isnan(low).any():
            continue
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
