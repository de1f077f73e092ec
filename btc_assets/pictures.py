"""Pictures: of a sealed day, small enough for Dagster's event log, and of a training, for its run in MLflow.

What does not belong here: the live page (`serving`), dashboards (`deploy/grafana`), the report of an evaluation.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.horizons import minutes_text
from btc_core.names import HEADLINE_MIN, VOLATILITY_MODEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from btc_assets.training import TrainingResult

MAX_BYTES = 50 * 1024
"""The largest picture that goes into the event log."""
SIZE_INCHES, DPI = (8.0, 3.6), 96
COLOURS = 24
"""An inline picture with so few colours is an eighth of what matplotlib writes."""
EXPLAINED_ROWS = 256
SHOWN_FEATURES = 20
DECILES = 10


def day_of_bars(bars: pa.Table) -> dg.MarkdownMetadataValue:
    """Close and realized volatility of a day's bars (columns `ts`, `symbol`, `close`, `realized_volatility_bps`)."""
    if not len(bars):
        return dg.MetadataValue.md("no bars")
    figure = _figure()
    price, volatility = figure.subplots(2, 1, sharex=True)
    for symbol in sorted(set(bars["symbol"].to_pylist())):
        of_symbol = bars.filter(pc.equal(bars["symbol"], symbol))
        times = of_symbol["ts"].cast(pa.timestamp("us")).to_numpy()
        traded = of_symbol["close"].drop_null().to_numpy()
        first = traded[0] if len(traded) else np.nan
        price.plot(times, 100 * (of_symbol["close"].to_numpy() / first - 1), linewidth=0.8, label=symbol)
        volatility.plot(times, of_symbol["realized_volatility_bps"].to_numpy(), linewidth=0.8)
    price.set_ylabel("close, % since the first")
    volatility.set_ylabel("realized volatility, bp")
    price.legend(frameon=False, loc="upper left")
    return _inline(figure)


def of_training(result: TrainingResult, rows: Any) -> dict[str, bytes]:
    """PNG files by name: forecasts of days the model was not fitted on, and the features that matter most.

    `rows` (n, features) are those whose forecasts are explained.
    """
    from btc_core.models.explain import mean_effects  # noqa: PLC0415 - imports numba

    pictures = {}
    if result.unseen is not None and len(result.unseen[0]):
        actual, forecast = result.unseen
        figure = _figure()
        scatter, calibration = figure.subplots(1, 2)
        _scatter(scatter, actual, forecast, is_log=result.model.manifest.name == VOLATILITY_MODEL)
        _calibration(calibration, actual, forecast)
        pictures["unseen_days.png"] = _png(figure)
    step = max(1, len(rows) // EXPLAINED_ROWS)
    effects = mean_effects(result.model, rows[::step][:EXPLAINED_ROWS])
    if effects:
        figure = _figure()
        shown = dict(list(effects.items())[:SHOWN_FEATURES][::-1])
        axes = figure.subplots()
        axes.barh(list(shown), list(shown.values()))
        axes.set_xlabel(f"mean |TreeSHAP| over {min(len(rows), EXPLAINED_ROWS)} rows")
        axes.tick_params(axis="y", labelsize=6)
        pictures["importance.png"] = _png(figure)
    return pictures


def _scatter(axes: Axes, actual: Any, forecast: Any, *, is_log: bool) -> None:
    axes.plot(forecast, actual, ".", markersize=2, alpha=0.3)
    if is_log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    low, high = axes.get_xlim()
    axes.plot((low, high), (low, high), linewidth=0.8, color="black")
    axes.set_xlabel(f"forecast of {minutes_text(HEADLINE_MIN)}, bp")
    axes.set_ylabel("actual value, bp")


def _calibration(axes: Axes, actual: Any, forecast: Any) -> None:
    """The mean actual value in each decile of the forecasts."""
    parts = np.array_split(np.argsort(forecast, kind="stable"), DECILES)
    parts = [part for part in parts if len(part)]
    means = np.array([(forecast[part].mean(), actual[part].mean()) for part in parts])
    axes.plot(means[:, 0], means[:, 1], "o-", markersize=4, linewidth=0.8)
    axes.plot(means[:, 0], means[:, 0], linewidth=0.8, color="black")
    axes.set_xlabel("mean forecast of a decile, bp")
    axes.set_ylabel("mean actual value, bp")


def _figure() -> Figure:
    import matplotlib as mpl  # noqa: PLC0415 - 90 ms with the next line, and only runs that draw need it
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    return Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()


def _inline(figure: Figure) -> dg.MarkdownMetadataValue:
    from PIL import Image  # noqa: PLC0415 - 10 ms, and matplotlib has imported it here anyway

    small = io.BytesIO()
    Image.open(io.BytesIO(_png(figure))).convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
    body = small.getvalue()
    if len(body) > MAX_BYTES:
        return dg.MetadataValue.md(f"the picture of {len(body):,} bytes is too large for the event log")
    return dg.MetadataValue.md(f"![bars of the day](data:image/png;base64,{base64.b64encode(body).decode()})")
