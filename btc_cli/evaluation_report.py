"""The results of `btc evaluate` for people: tables for the screen, and an HTML page with tables and plots.

The page is one file that loads nothing else. What does not belong here: computing results (`btc_core.models.evaluation`).
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader
from rich.console import Console
from rich.table import Table

from btc_core.models import evaluation_results
from btc_core.names import HEADLINE_MIN, HEADLINE_TEXT, QUANTILES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes

    from btc_core.models.evaluation import WalkForward
    from btc_core.models.stream_value import StreamValue

SHOWN_FEATURES = 20
CALIBRATION_BINS = 20
SCATTER_POINTS = 4_000
"""Enough to see the cloud, few enough to keep the page below a megabyte."""
TABLE_WIDTH_CHARS = 110
NOT_AVAILABLE = "–"
_COLOURS = {"model": "#1261a0", "harx": "#d1661a", "har": "#555555", "ewma": "#5a9a3b", "naive": "#bbbbbb"}
_REFERENCE_LINE: dict[str, Any] = {"color": "#999999", "linewidth": 0.8}


def tables(results: dict[str, Any]) -> list[Table]:
    """Accuracy of the volatility and of the price, coverage of both kinds of intervals, and what the forecasts are worth."""
    return [
        _volatility_table(results),
        _horizon_table(results),
        _price_table(results),
        _interval_table(results["intervals"], f"bid, return over {HEADLINE_MIN} min, bps"),
        _interval_table(results["volatility_intervals"], f"realized volatility over {HEADLINE_MIN} min, bps"),
        _economic_table(results["economic"]),
        _risk_table(results["economic"]["value_at_risk"]),
    ]


def stream_table(value: StreamValue) -> Table:
    """What the inputs add that only a stream has."""
    table = _table(
        f"Inputs of the stream: learned from {value.trained_days} sealed days or more, judged on {value.rows:,} rows of "
        f"{value.tested_days} days",
        f"loss over {HEADLINE_MIN} min",
        "with",
        "without",
        "difference",
        "standard error",
    )
    rows = {f"QLIKE, {name}": each for name, each in value.qlike.items()} | {
        "squared error of the bid, bps²": value.bid
    }
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.with_stream:.4f}",
            f"{row.without_stream:.4f}",
            f"{row.difference:+.4f}",
            f"{row.error:.4f}",
        )
    return table


def page(walk: WalkForward, results: dict[str, Any]) -> str:
    """The report as HTML, with its plots embedded."""
    console = Console(record=True, width=TABLE_WIDTH_CHARS, file=io.StringIO())
    for table in tables(results):
        console.print(table)
    plots = {title: _plot(draw, walk, results) for title, draw in _PLOTS.items()}
    environment = Environment(loader=PackageLoader("btc_cli"), autoescape=True)
    template = environment.get_template("evaluation.html")
    return template.render(results=results, tables=console.export_text(), plots=plots)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right")
    return table


def _volatility_table(results: dict[str, Any]) -> Table:
    period = f"{results['from'][:10]} to {results['to'][:10]}"
    table = _table(
        f"Volatility of the next {HEADLINE_MIN} min, {period}, {results['origins']:,} origins",
        "forecast",
        "QLIKE",
        "gain over HAR",
        "DM t",
        "months better",
        "R² of log RV",
        "debiased",
    )
    for name, row in results["volatility"].items():
        is_compared = row["dm_t"] is not None
        table.add_row(
            name,
            f"{row['qlike']:.4f}",
            f"{100 * row['gain_vs_har']:+.1f} %",
            f"{row['dm_t']:.1f}" if is_compared else NOT_AVAILABLE,
            f"{row['months_better']} of {row['months']}" if is_compared else NOT_AVAILABLE,
            f"{row['r2_log']:.3f}",
            f"{row['r2_log_debiased']:.3f}",
        )
    return table


def _horizon_table(results: dict[str, Any]) -> Table:
    table = _table(
        "Each horizon: volatility of the model against HAR, and its 90 % interval of the bid",
        "minutes",
        "QLIKE",
        "HAR's",
        "gain",
        "mean of months",
        "worst month",
        "months better",
        "coverage",
        "lowest month",
        "highest month",
    )
    for horizon, row in results["horizons"].items():
        shares = (row["gain_vs_har"], row["gain_mean_of_months"], row["gain_worst_month"])
        coverages = (row["coverage_90"], row["coverage_90_lowest_month"], row["coverage_90_highest_month"])
        table.add_row(
            horizon,
            f"{row['qlike']:.4f}",
            f"{row['qlike_har']:.4f}",
            *(f"{100 * share:+.1f} %" for share in shares),
            f"{row['months_better']} of {len(results['months'])}",
            *(f"{100 * coverage:.1f} %" for coverage in coverages),
        )
    return table


_ECONOMIC_NAMES = {
    "target_error": "position of a target volatility: mean |σ / target − 1|",
    "realized_utility": "utility of that position, % of wealth a year (perfect: 4)",
    "width_regret": "quote of the forecast's width: share of the best profit lost",
}


def _economic_table(economic: dict[str, Any]) -> Table:
    table = _table(f"Economic value, {HEADLINE_TEXT} ahead", "measure", "model", "HAR", "difference", "standard error")
    rows = {_ECONOMIC_NAMES[name]: row for name, row in economic["from_volatility"].items()}
    rows |= {f"CRPS of the quantiles, {quantity}, bps": row for quantity, row in economic["crps"].items()}
    rows |= {
        f"value at risk {100 * float(level):g} %: pinball loss, bps": row["loss"]
        for level, row in economic["value_at_risk"].items()
    }
    for name, row in rows.items():
        error = NOT_AVAILABLE if row["error"] is None else f"{row['error']:.5f}"
        table.add_row(name, f"{row['model']:.5f}", f"{row['har']:.5f}", f"{row['difference']:+.5f}", error)
    return table


def _risk_table(levels: dict[str, Any]) -> Table:
    table = _table(
        f"Breaches of the value at risk of the {HEADLINE_MIN}-minute return",
        "level",
        "forecast",
        "breaches",
        "after a breach",
        "Kupiec p",
        "Christoffersen p",
        "both p",
    )
    for level, rows in levels.items():
        for who in ("model", "har"):
            row = rows[who]
            table.add_row(
                f"{100 * float(level):g} %",
                who,
                f"{100 * row['breaches']:.3f} %",
                f"{100 * row['breaches_after_a_breach']:.2f} %",
                *(f"{row[name]:.3f}" for name in ("kupiec_p", "christoffersen_p", "conditional_p")),
            )
    return table


def _price_table(results: dict[str, Any]) -> Table:
    table = _table(
        "Price against the random walk",
        "minutes",
        "MSE ratio",
        "R²",
        "DM t",
        "direction",
        "months served",
        "AR's MSE ratio",
    )
    for horizon, row in results["price"].items():
        direction = NOT_AVAILABLE
        if row["direction"] is not None:
            direction = f"{100 * row['direction']:.2f} ± {100 * row['direction_se']:.2f} %"
        table.add_row(
            horizon,
            f"{row['mse_ratio']:.5f}",
            f"{100 * row['r2']:+.3f} %",
            NOT_AVAILABLE if row["dm_t"] is None else f"{row['dm_t']:.1f}",
            direction,
            f"{row['months_with_a_forecast']} of {len(results['months'])}",
            f"{row['ar_mse_ratio']:.5f}",
        )
    return table


def _interval_table(levels: Mapping[str, Any], quantity: str) -> Table:
    columns = ("level", "coverage", "lowest month", "highest month", "mean width", "Winkler score")
    table = _table(f"Intervals: {quantity}", *columns)
    for level, row in levels.items():
        months = row["coverage_by_month"].values()
        coverages = (row["coverage"], min(months), max(months))
        table.add_row(
            f"{level} %",
            *(f"{100 * coverage:.1f} %" for coverage in coverages),
            f"{row['width']:.2f}",
            f"{row['winkler']:.2f}",
        )
    return table


def _plot(draw: Callable[[Axes, WalkForward, dict[str, Any]], None], walk: WalkForward, results: dict[str, Any]) -> str:
    """A plot as PNG in base64."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - it takes half a second, and only `--report` draws

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    draw(figure.add_subplot(), walk, results)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return base64.b64encode(buffer.getvalue()).decode()


def _qlike_by_month(axes: Axes, _walk: WalkForward, results: dict[str, Any]) -> None:
    months = results["months"]
    reference = results["volatility"]["har"]["qlike_by_month"]
    for name in ("model", "harx", "ewma"):
        ratios = [results["volatility"][name]["qlike_by_month"][month] / reference[month] for month in months]
        axes.plot(months, ratios, marker="o", color=_COLOURS[name], label=name)
    axes.axhline(1.0, color=_COLOURS["har"], label="har")
    axes.tick_params(axis="x", rotation=60)
    axes.legend(ncols=4)


def _calibration(axes: Axes, walk: WalkForward, _results: dict[str, Any]) -> None:
    realized = walk.joined("labels")[:, -1]
    for name in ("model", "harx", "har"):
        forecast = walk.variance(name)[:, -1]
        bins = np.array_split(np.argsort(forecast), CALIBRATION_BINS)
        points = [(np.sqrt(forecast[rows].mean()) * 1e4, np.sqrt(realized[rows].mean()) * 1e4) for rows in bins]
        axes.loglog(*zip(*points, strict=True), marker="o", color=_COLOURS[name], label=name)
    low, high = axes.get_xlim()
    axes.loglog([low, high], [low, high], **_REFERENCE_LINE)
    axes.set(xlabel="forecast σ, bps", ylabel="realized σ, bps")
    axes.legend()


def _scatter(axes: Axes, walk: WalkForward, _results: dict[str, Any]) -> None:
    realized, forecast = walk.joined("labels")[:, -1], walk.median_variance("model")[:, -1]
    rows = np.linspace(0, len(realized) - 1, min(SCATTER_POINTS, len(realized))).astype(int)
    forecast_bps, realized_bps = np.sqrt(forecast[rows]) * 1e4, np.sqrt(realized[rows]) * 1e4
    axes.loglog(forecast_bps, realized_bps, ".", markersize=2, alpha=0.4, color=_COLOURS["model"])
    axes.loglog(forecast_bps, forecast_bps, **_REFERENCE_LINE)
    axes.set(xlabel="typical σ, bps", ylabel="realized σ, bps")


def _coverage_by_month(axes: Axes, _walk: WalkForward, results: dict[str, Any]) -> None:
    for level, row in results["intervals"].items():
        coverage_pct = [100 * share for share in row["coverage_by_month"].values()]
        axes.plot(list(row["coverage_by_month"]), coverage_pct, marker="o", label=f"{level} %")
        axes.axhline(float(level), **_REFERENCE_LINE)
    axes.tick_params(axis="x", rotation=60)
    axes.set(ylabel="coverage, %")
    axes.legend(ncols=3)


def _reliability(axes: Axes, walk: WalkForward, _results: dict[str, Any]) -> None:
    intervals = {
        "bid": evaluation_results.bid_intervals(walk),
        "volatility": evaluation_results.volatility_intervals(walk),
    }
    for name, (outcomes, bounds) in intervals.items():
        known = np.flatnonzero(~np.isnan(bounds).any(axis=0)).tolist()
        below = [(outcomes <= bounds[:, place]).mean() for place in known]
        axes.plot([QUANTILES[place] for place in known], below, marker="o", label=name)
    axes.plot([0, 1], [0, 1], **_REFERENCE_LINE)
    axes.set(xlabel="quantile", ylabel="share of outcomes below it")
    axes.legend()


def _price_gain(axes: Axes, _walk: WalkForward, results: dict[str, Any]) -> None:
    horizons = list(results["price"])
    gains_pct = [100 * (1 - results["price"][horizon]["mse_ratio"]) for horizon in horizons]
    axes.bar(horizons, gains_pct, color=_COLOURS["model"])
    axes.axhline(0.0, **_REFERENCE_LINE)
    axes.set(xlabel="minutes ahead", ylabel="gain over the random walk, % of its MSE")


def _importance(axes: Axes, walk: WalkForward, _results: dict[str, Any]) -> None:
    shares = dict(list(walk.months[-1].importance.items())[:SHOWN_FEATURES])
    axes.barh(list(shares)[::-1], list(shares.values())[::-1], color=_COLOURS["model"])
    axes.tick_params(axis="y", labelsize=7)


_PLOTS = {
    "Volatility: QLIKE of each month relative to HAR (lower is better)": _qlike_by_month,
    "Volatility: calibration, mean realized against mean forecast σ in 20 bins": _calibration,
    "Volatility: forecast against realized": _scatter,
    "Intervals: coverage of each month": _coverage_by_month,
    "Intervals: reliability": _reliability,
    "Price: gain over the random walk by horizon": _price_gain,
    "Feature importance in the trees of the last month, share of total gain": _importance,
}
"""Titles of the report's plots in their order, and the functions that draw them."""
