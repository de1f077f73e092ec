"""Pictures that a materialization carries, inline: small, so that the event log stays small.

What does not belong here: the live view (`serving`), dashboards (`deploy/grafana`).
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

MAX_BYTES = 50 * 1024
SIZE_INCHES, DPI = (8.0, 3.6), 96
COLOURS = 24


def day_of_bars(bars: pa.Table) -> dg.MarkdownMetadataValue:
    """Close and realized volatility of a day's bars (columns `ts`, `symbol`, `close`, `realized_volatility_bps`)."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import
    import numpy as np  # noqa: PLC0415 - the same
    import pyarrow as pa  # noqa: PLC0415 - the same
    import pyarrow.compute as pc  # noqa: PLC0415 - the same
    from matplotlib.figure import Figure  # noqa: PLC0415 - the same

    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
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
        if len(bars):
            price.legend(frameon=False, loc="upper left")
        return _inline(figure)


def _inline(figure: Figure) -> dg.MarkdownMetadataValue:
    """As a PNG of a few colours, an eighth of what matplotlib writes."""
    from PIL import Image  # noqa: PLC0415 - slow to import

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    Image.open(full).convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
    body = small.getvalue()
    if len(body) > MAX_BYTES:
        return dg.MetadataValue.md(f"the picture of {len(body):,} bytes is too large for the event log")
    return dg.MetadataValue.md(f"![bars of the day](data:image/png;base64,{base64.b64encode(body).decode()})")
