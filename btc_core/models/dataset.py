"""Origins with features and labels: what models are fitted on and judged by, in training and evaluation alike.

From bars (`make_frame`), and from what the stream wrote (`live_frame`). What does not belong here: where bars come from,
and fitting (`fitting`).
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.errors import NotReady
from btc_core.features import catalogue
from btc_core.models.harx import INPUTS
from btc_core.models.targets import LABEL_SPAN_NS, bid_path_bps, close_times_ns, realized_variance
from btc_core.names import HORIZONS_MIN
from btc_core.settings import settings
from btc_core.tables.sql import of_symbol

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.stores.questdb import QuestDB

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

ORIGIN_STEP_MIN = 5
"""One row in this many minutes: labels of neighbours overlap by all but one minute, so more rows add little."""
STEP_ABOVE_BARS = 20_000
"""Shorter histories use every minute: they need rows more than independence."""
EMBARGO_NS = LABEL_SPAN_NS + 5 * NS_PER_MIN
"""Between the last origin that is fitted on and the first that is scored: the longest label and five minutes."""
MIN_BARS = 600
"""Ten hours; with less there are too few rows for a fit and a test block."""

HARX_COLUMNS = [catalogue.MODEL_FEATURES.index(name) for name in INPUTS]


class Frame(msgspec.Struct, frozen=True):
    """Origins with a complete label, in time order."""

    origin_ns: Any
    matrix: Any
    """(n, MODEL_FEATURES); microstructure is NaN, bars do not hold it."""
    realized: Any
    """(n, 5), ln²."""
    bid_bps: Any
    """(n, 5)."""

    def take(self, rows: Mask | slice) -> Frame:
        """Some rows."""
        return Frame(self.origin_ns[rows], self.matrix[rows], self.realized[rows], self.bid_bps[rows])

    def between(self, after_ns: int, until_ns: int) -> Frame:
        """Rows with an origin in (after, until], without a copy."""
        first, last = np.searchsorted(self.origin_ns, [after_ns, until_ns], side="right")
        return self.take(slice(int(first), int(last)))

    def last_days(self, days: float) -> Frame:
        """Rows of the last `days` before the last origin."""
        newest = int(self.origin_ns[-1]) if len(self.origin_ns) else 0
        return self.between(newest - int(days * NS_PER_DAY), newest)

    @property
    def days(self) -> float:
        """From the first to the last origin."""
        return float(self.origin_ns[-1] - self.origin_ns[0]) / NS_PER_DAY if len(self.origin_ns) else 0.0

    @property
    def harx_inputs(self) -> Floats:
        """The columns that HARX reads."""
        return np.asarray(self.matrix[:, HARX_COLUMNS])

    def window(self) -> dict[str, int]:
        """The manifest's fields of a training window."""
        first, last = int(self.origin_ns[0]), int(self.origin_ns[-1])
        return {"trained_from_ns": first, "trained_to_ns": last, "train_rows": len(self.origin_ns)}


def make_frame(bars: npt.NDArray[Any], step_min: int = ORIGIN_STEP_MIN, min_bars: int = MIN_BARS) -> Frame:
    """Features and labels of every `step_min`-th minute of `bars` (dtype `bars.BARS`, sorted).

    Raises `NotReady` below `min_bars` bars.
    """
    if len(bars) < min_bars:
        msg = f"{len(bars)} minute bars are too few to train on; {min_bars} are needed"
        raise NotReady(msg)
    from btc_core.features.replay import bar_feature_blocks  # noqa: PLC0415 - numba is slow to import, and only training needs it

    origin_ns = close_times_ns(bars["ts_ns"])
    realized, bid = realized_variance(origin_ns, bars["close"]), bid_path_bps(origin_ns, bars["close"])
    chosen = (origin_ns // NS_PER_MIN) % (step_min if len(bars) > STEP_ABOVE_BARS else 1) == 0
    chosen &= ~np.isnan(realized).any(axis=1)
    matrix = _room(int(chosen.sum()))
    folded = kept = 0
    for rows in bar_feature_blocks(bars):
        here = chosen[folded : folded + len(rows)]
        here &= ~np.isnan(rows["log_rv_5m"])
        found = catalogue.matrix(rows[here])
        matrix[kept : kept + len(found)] = found
        folded, kept = folded + len(rows), kept + len(found)
    return Frame(origin_ns[chosen], matrix[:kept], realized[chosen], bid[chosen])


def _room(rows: int) -> Floats:
    """An empty matrix of features; in a file (in `TMPDIR`) that goes with it where trees are grown from disk."""
    shape = (rows, len(catalogue.MODEL_FEATURES))
    if settings().model.trainer == "disk" and rows:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the array keeps it open
        return np.memmap(file, np.float64, "w+", shape=shape, order="F")
    return np.empty(shape, order="F")


def closed_minutes(db: QuestDB, symbol: str, names: tuple[str, ...], after_ns: int) -> tuple[Longs, Floats]:
    """The ends of the minutes after `after_ns` that have feature rows, ns, and the last row of each, (n, names)."""
    table = db.query(
        f"SELECT ts_event, {', '.join(f'last({name}) AS {name}' for name in names)} FROM silver_features "  # noqa: S608 - names of the catalogue
        f"WHERE {of_symbol(symbol)} AND feature_version = '{catalogue.FEATURE_VERSION}' "
        f"AND ts_event > cast({after_ns} AS TIMESTAMP_NS) SAMPLE BY 1m"
    )
    rows = np.column_stack([table[name].to_numpy() for name in names]) if len(table) else np.empty((0, len(names)))
    return column_ns(table["ts_event"]) + NS_PER_MIN, rows


def live_frame(db: QuestDB, symbol: str, after_ns: int) -> Frame:
    """Origins `ORIGIN_STEP_MIN` apart with a final outcome: what the worker forecast from, book and flow among it, and what came.

    Labels are the stream's own, of its mid and bid.
    """
    minutes, matrix = closed_minutes(db, symbol, catalogue.MODEL_FEATURES, after_ns - NS_PER_MIN)
    columns = [f"{name}_{h}m_bps" for name in ("realized", "bid_return") for h in HORIZONS_MIN]
    table = db.query(
        f"SELECT ts_event, {', '.join(columns)} FROM gold_prediction_outcomes "  # noqa: S608 - names of the catalogue
        f"WHERE {of_symbol(symbol)} AND ts_event > cast({after_ns} AS TIMESTAMP_NS)"
    )
    origin_ns, left, right = np.intersect1d(minutes, column_ns(table["ts_event"]), return_indices=True)
    apart = (origin_ns // NS_PER_MIN) % ORIGIN_STEP_MIN == 0
    labels = np.column_stack([table[name].to_numpy() for name in columns])[right][apart]
    realized, bid_bps = np.split(labels, 2, axis=1)
    return Frame(origin_ns[apart], matrix[left][apart], np.square(realized / 1e4), bid_bps)


def cut(frame: Frame, from_share: float) -> tuple[Frame, Frame]:
    """Rows before and after a share of the window's time, with the embargo between them."""
    first, last = int(frame.origin_ns[0]), int(frame.origin_ns[-1])
    border = first + int((last - first) * from_share)
    return frame.between(first - 1, border - EMBARGO_NS), frame.between(border, last)
