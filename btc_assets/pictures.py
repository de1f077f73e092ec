"""Pictures: of a sealed day, inline and small so that the event log stays small; of a training, for its run in MLflow.

What does not belong here: the live view (`serving`), dashboards (`deploy/grafana`), the report of an evaluation (`stack`).
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from btc_assets.training import Trained

MAX_BYTES = 50 * 1024
SIZE_INCHES, DPI = (8.0, 3.6), 96
COLOURS = 24
"""Of an inline picture; it is an eighth of what matplotlib writes."""
EXPLAINED_ROWS = 256
SHOWN_FEATURES = 20
DECILES = 10


def day_of_bars(bars: pa.Table) -> dg.MarkdownMetadataValue:
    """Close and realized volatility of a day's bars (columns `ts`, `symbol`, `close`, `realized_volatility_bps`)."""
    import numpy as np  # noqa: PLC0415 - slow to import, not needed to load the graph
    import pyarrow as pa  # noqa: PLC0415 - the same
    import pyarrow.compute as pc  # noqa: PLC0415 - the same

    if not len(bars):
        return dg.MetadataValue.md("no bars")
    figure = _figure()
    price, volatility = figure.subplots(2, 1, sharex=True)
    for symbol in sorted(set(bars["symbol"].to_pylist())):
        mine = bars.filter(pc.equal(bars["symbol"], symbol))
        times = mine["ts"].cast(pa.timestamp("us")).to_numpy()
        traded = mine["close"].drop_null().to_numpy()
        first = traded[0] if len(traded) else np.nan
        price.plot(times, 100 * (mine["close"].to_numpy() / first - 1), linewidth=0.8, label=symbol)
        volatility.plot(times, mine["realized_volatility_bps"].to_numpy(), linewidth=0.8)
    price.set_ylabel("close, % since the first")
    volatility.set_ylabel("realized volatility, bp")
    price.legend(frameon=False, loc="upper left")
    return _inline(figure)


def of_training(trained: Trained, rows: Any) -> dict[str, bytes]:
    """PNG files by name: what was forecast on days that were not seen, and which features matter; `rows` (n, features)."""
    from btc_core.models.explain import mean_effects  # noqa: PLC0415 - the same
    from btc_core.names import VOLATILITY_MODEL  # noqa: PLC0415 - slow to import, not needed to load the graph

    volatility = trained.model.manifest.name == VOLATILITY_MODEL
    pictures = {}
    if trained.unseen is not None and len(trained.unseen[0]):
        came, said = trained.unseen
        figure = _figure()
        points, calibration = figure.subplots(1, 2)
        _points(points, came, said, volatility=volatility)
        _calibration(calibration, came, said)
        pictures["unseen_days.png"] = _png(figure)
    step = max(1, len(rows) // EXPLAINED_ROWS)
    effects = mean_effects(trained.model, rows[::step][:EXPLAINED_ROWS])
    if effects:
        figure = _figure()
        shown = dict(list(effects.items())[:SHOWN_FEATURES][::-1])
        axes = figure.subplots()
        axes.barh(list(shown), list(shown.values()))
        axes.set_xlabel(f"mean |TreeSHAP| over {min(len(rows), EXPLAINED_ROWS)} rows")
        axes.tick_params(axis="y", labelsize=6)
        pictures["importance.png"] = _png(figure)
    return pictures


def _points(axes: Axes, came: Any, said: Any, *, volatility: bool) -> None:
    axes.plot(said, came, ".", markersize=2, alpha=0.3)
    if volatility:
        axes.set_xscale("log")
        axes.set_yscale("log")
    low, high = axes.get_xlim()
    axes.plot((low, high), (low, high), linewidth=0.8, color="black")
    axes.set_xlabel("forecast of 5 minutes, bp")
    axes.set_ylabel("what came, bp")


def _calibration(axes: Axes, came: Any, said: Any) -> None:
    """Mean of what came in each tenth of the forecasts."""
    import numpy as np  # noqa: PLC0415 - slow to import, not needed to load the graph

    parts = np.array_split(np.argsort(said, kind="stable"), DECILES)
    parts = [part for part in parts if len(part)]
    means = np.array([(said[part].mean(), came[part].mean()) for part in parts])
    axes.plot(means[:, 0], means[:, 1], "o-", markersize=4, linewidth=0.8)
    axes.plot(means[:, 0], means[:, 0], linewidth=0.8, color="black")
    axes.set_xlabel("mean forecast of a tenth, bp")
    axes.set_ylabel("mean of what came, bp")


def _figure() -> Figure:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, not needed to load the graph
    from matplotlib.figure import Figure  # noqa: PLC0415 - the same

    mpl.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    return Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()


def _inline(figure: Figure) -> dg.MarkdownMetadataValue:
    from PIL import Image  # noqa: PLC0415 - slow to import, not needed to load the graph

    small = io.BytesIO()
    Image.open(io.BytesIO(_png(figure))).convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
    body = small.getvalue()
    if len(body) > MAX_BYTES:
        return dg.MetadataValue.md(f"the picture of {len(body):,} bytes is too large for the event log")
    return dg.MetadataValue.md(f"![bars of the day](data:image/png;base64,{base64.b64encode(body).decode()})")
