"""The page that `btc evaluate --report` writes: the tables and plots, in one file without anything from elsewhere.

What does not belong here: computing figures (`btc_core.models.evaluation`).
"""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from rich.console import Console

from btc_cli.evaluation_screen import tables
from btc_core.models import evaluation
from btc_core.names import QUANTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from btc_core.models.evaluation import WalkForward

SHOWN_FEATURES = 20
CALIBRATION_BINS = 20
SCATTER_POINTS = 4_000
"""Enough to see the cloud, few enough to keep the page below a megabyte."""
_COLOURS = {"model": "#1261a0", "harx": "#d1661a", "har": "#555555", "ewma": "#5a9a3b", "naive": "#bbbbbb"}


def page(walk: WalkForward, found: dict[str, Any]) -> str:
    """HTML with everything inside."""
    mpl.use("agg")
    console = Console(record=True, width=110, file=io.StringIO())
    for table in tables(found):
        console.print(table)
    text = html.escape(console.export_text())
    plots = {
        "Volatility: QLIKE of each month over HAR's (lower is better)": _skill_by_month,
        "Volatility: calibration, mean realized against mean forecast σ by twentieths": _calibration,
        "Volatility: forecast against realized": _scatter,
        "Intervals: coverage of each month": _coverage,
        "Intervals: reliability": _reliability,
        "Price: mean squared error over the random walk's by horizon": _price,
        "Importance of features in the trees of the last month, share of total gain": _importance,
    }
    figures = "\n".join(f"<h2>{title}</h2>{_plot(draw, walk, found)}" for title, draw in plots.items())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Forecast evaluation</title>"
        "<style>body{font:15px/1.5 system-ui;max-width:980px;margin:2em auto;padding:0 1em;color:#222}"
        "pre{overflow-x:auto;font-size:12px;line-height:1.25}img{max-width:100%}h2{font-size:1.1em;margin-top:2em}</style>"
        f"<h1>Forecast evaluation, {found['from'][:10]} to {found['to'][:10]}</h1>"
        f"<p>Purged walk-forward, monthly refits on {found['window_days']:g} days, {found['origins']:,} origins, feature "
        f"set {found['feature_version']}. Realized variance over five minutes is floored at {found['rv_floor']:g} ln².</p>"
        f"<pre>{text}</pre>{figures}</html>"
    )


def _plot(draw: Any, walk: WalkForward, found: dict[str, Any]) -> str:
    from matplotlib.figure import Figure  # noqa: PLC0415 - after the backend is chosen

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    draw(figure.add_subplot(), walk, found)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _skill_by_month(axes: Axes, _walk: WalkForward, found: dict[str, Any]) -> None:
    months = found["months"]
    reference = found["volatility"]["har"]["qlike_by_month"]
    for name in ("model", "harx", "ewma"):
        ratios = [found["volatility"][name]["qlike_by_month"][month] / reference[month] for month in months]
        axes.plot(months, ratios, marker="o", color=_COLOURS[name], label=name)
    axes.axhline(1.0, color=_COLOURS["har"], label="har")
    axes.tick_params(axis="x", rotation=60)
    axes.legend(ncols=4)


def _calibration(axes: Axes, walk: WalkForward, _found: dict[str, Any]) -> None:
    label = walk.joined("labels")[:, -1]
    for name in ("model", "harx", "har"):
        forecast = walk.variance(name)[:, -1]
        parts = np.array_split(np.argsort(forecast), CALIBRATION_BINS)
        points = [(np.sqrt(forecast[part].mean()) * 1e4, np.sqrt(label[part].mean()) * 1e4) for part in parts]
        axes.loglog(*zip(*points, strict=True), marker="o", color=_COLOURS[name], label=name)
    low, high = axes.get_xlim()
    axes.loglog([low, high], [low, high], color="#999999", linewidth=0.8)
    axes.set(xlabel="forecast σ, bps", ylabel="realized σ, bps")
    axes.legend()


def _scatter(axes: Axes, walk: WalkForward, _found: dict[str, Any]) -> None:
    label, forecast = walk.joined("labels")[:, -1], walk.median_variance("model")[:, -1]
    chosen = np.linspace(0, len(label) - 1, min(SCATTER_POINTS, len(label))).astype(int)
    sigma = np.sqrt(forecast[chosen]) * 1e4, np.sqrt(label[chosen]) * 1e4
    axes.loglog(*sigma, ".", markersize=2, alpha=0.4, color=_COLOURS["model"])
    axes.loglog(sigma[0], sigma[0], color="#999999", linewidth=0.8)
    axes.set(xlabel="typical σ, bps", ylabel="realized σ, bps")


def _coverage(axes: Axes, _walk: WalkForward, found: dict[str, Any]) -> None:
    for level, row in found["intervals"].items():
        months = list(row["coverage_by_month"])
        axes.plot(months, [100 * share for share in row["coverage_by_month"].values()], marker="o", label=f"{level} %")
        axes.axhline(float(level), color="#999999", linewidth=0.8)
    axes.tick_params(axis="x", rotation=60)
    axes.set(ylabel="inside, %")
    axes.legend(ncols=3)


def _reliability(axes: Axes, walk: WalkForward, _found: dict[str, Any]) -> None:
    for name, pair in (("bid", evaluation.bid_intervals(walk)), ("volatility", evaluation.volatility_intervals(walk))):
        actual, bounds = pair
        below = [(actual <= bounds[:, place]).mean() for place in range(len(QUANTILES))]
        axes.plot(QUANTILES, below, marker="o", label=name)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    axes.set(xlabel="quantile", ylabel="share of outcomes below it")
    axes.legend()


def _price(axes: Axes, _walk: WalkForward, found: dict[str, Any]) -> None:
    horizons = list(found["price"])
    axes.bar(horizons, [100 * (1 - found["price"][h]["mse_ratio"]) for h in horizons], color=_COLOURS["model"])
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    axes.set(xlabel="minutes ahead", ylabel="better than the random walk, % of its error")


def _importance(axes: Axes, walk: WalkForward, _found: dict[str, Any]) -> None:
    shares = dict(list(walk.months[-1].importance.items())[:SHOWN_FEATURES])
    axes.barh(list(shares)[::-1], list(shares.values())[::-1], color=_COLOURS["model"])
    axes.tick_params(axis="y", labelsize=7)
