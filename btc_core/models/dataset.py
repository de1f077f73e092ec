"""Origins with features and labels: the rows that models are fitted on and judged by, in training and in evaluation.

At the closes of sealed days, the features are those that the stream computed, order flow and book included. Elsewhere they
are those of the minute bars, and the others are missing. The labels are those of the bars, or the variances of ticks
where a volatility of ticks is asked for.
What does not belong here: where bars and closing rows come from, fitting (`fitting`), and rows with the outcomes that the
stream stored (`btc_core.stores.live_rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.errors import NotReady
from btc_core.features import catalogue
from btc_core.features.bar_features import bar_feature_chunks
from btc_core.features.minute_columns import minute_columns
from btc_core.models.harx import INPUT_COLUMNS
from btc_core.models.recipe import RECIPE, DatasetRecipe
from btc_core.models.targets import bid_path_bps, close_times_ns, realized_variance
from btc_core.names import HORIZONS_MIN, MINUTES, TICKS, VolatilityTarget

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]


_RV_5M = catalogue.MODEL_FEATURES.index("log_rv_5m")
_STREAM_ONLY = [place for place, name in enumerate(catalogue.MODEL_FEATURES) if name not in set(catalogue.BAR_FEATURES)]


class StreamRows(msgspec.Struct, frozen=True):
    """Feature rows of the stream at closes of minutes, in time order."""

    origin_ns: Any
    """(n,); the closes."""
    matrix: Any
    """(n, MODEL_FEATURES)."""

    @classmethod
    def none(cls) -> StreamRows:
        """No rows."""
        return cls(np.empty(0, np.int64), np.empty((0, len(catalogue.MODEL_FEATURES))))


class TickLabels(msgspec.Struct, frozen=True):
    """Realized variances of ticks from minute ends, in time order (`btc_core.models.tick_variance`)."""

    origin_ns: Any
    """(n,)."""
    realized: Any
    """(n, 5), ln²."""

    @classmethod
    def none(cls) -> TickLabels:
        """No labels."""
        return cls(np.empty(0, np.int64), np.empty((0, len(HORIZONS_MIN))))

    def at(self, origin_ns: npt.NDArray[np.int64]) -> Floats:
        """The variances at origins, (n, 5); NaN where there is none."""
        realized = np.full((len(origin_ns), len(HORIZONS_MIN)), np.nan)
        _, rows, labels = np.intersect1d(origin_ns, self.origin_ns, return_indices=True)
        realized[rows] = self.realized[labels]
        return realized

    @property
    def days(self) -> int:
        """The number of UTC days with labels."""
        return len(np.unique(self.origin_ns // NS_PER_DAY))


class Frame(msgspec.Struct, frozen=True):
    """Origins whose labels are complete, in time order."""

    origin_ns: Any
    """(n,); the time at which a forecast would have been made."""
    matrix: Any
    """(n, MODEL_FEATURES); features of the book and of the order flow are NaN where a row was made from bars."""
    columns: Any
    """(n, COLUMNS), float32; columns of the closed minute bars, NaN where too few of them are known."""
    realized: Any
    """(n, horizons), realized variance over each horizon, ln²."""
    bid_bps: Any
    """(n, horizons), log return of the bid over each horizon."""
    is_streamed: Any = None
    """(n,); whether the features of a row are those of the stream. None if no row's are."""
    target: VolatilityTarget = MINUTES
    """Which variance `realized` is."""

    def take(self, rows: Mask | slice) -> Frame:
        """Some of the rows."""
        return Frame(
            self.origin_ns[rows],
            self.matrix[rows],
            self.columns[rows],
            self.realized[rows],
            self.bid_bps[rows],
            None if self.is_streamed is None else self.is_streamed[rows],
            self.target,
        )

    @property
    def streamed_days(self) -> int:
        """The number of UTC days with rows whose features are those of the stream."""
        return 0 if self.is_streamed is None else len(np.unique(self.origin_ns[self.is_streamed] // NS_PER_DAY))

    def without_stream(self) -> Frame:
        """A copy in which the inputs are missing that only a stream has."""
        matrix = self.matrix.copy(order="K")
        matrix[:, _STREAM_ONLY] = np.nan
        return msgspec.structs.replace(self, matrix=matrix, is_streamed=None)

    def between(self, after_ns: int, until_ns: int) -> Frame:
        """Rows with an origin in (after, until], without a copy."""
        first, last = np.searchsorted(self.origin_ns, [after_ns, until_ns], side="right")
        return self.take(slice(int(first), int(last)))

    def last_days(self, days: float) -> Frame:
        """Rows of the last `days` before the last origin, without a copy."""
        newest = int(self.origin_ns[-1]) if len(self.origin_ns) else 0
        return self.between(newest - int(days * NS_PER_DAY), newest)

    @property
    def days(self) -> float:
        """Time from the first to the last origin."""
        return float(self.origin_ns[-1] - self.origin_ns[0]) / NS_PER_DAY if len(self.origin_ns) else 0.0

    def sample(self, rows: int = 1_000) -> Floats:
        """Up to `rows` rows spread over the frame, features and columns side by side, for a golden batch or an explanation."""
        chosen = np.linspace(0, len(self.matrix) - 1, min(rows, len(self.matrix))).astype(int)
        return np.hstack([self.matrix[chosen], self.columns[chosen]])

    @property
    def harx_inputs(self) -> Floats:
        """The columns that HARX reads."""
        return np.asarray(self.matrix[:, INPUT_COLUMNS])

    def training_window(self) -> dict[str, int]:
        """The fields of a manifest that describe what a model was trained on."""
        first, last = int(self.origin_ns[0]), int(self.origin_ns[-1])
        return {"trained_from_ns": first, "trained_to_ns": last, "train_rows": len(self.origin_ns)}


def make_frame(
    bars: npt.NDArray[Any],
    recipe: DatasetRecipe = RECIPE.dataset,
    stream: StreamRows | None = None,
    ticks: TickLabels | None = None,
) -> Frame:
    """Features and labels of the minutes of `bars` (dtype `bars.BARS`, sorted) that the recipe chooses.

    Where `stream` has the row of a close, the features are its own, NaN included. With `ticks`, the variances are its own,
    and minutes without them are left out. Raises `NotReady` when there are fewer than `recipe.min_bars` bars.
    """
    if len(bars) < recipe.min_bars:
        msg = f"{len(bars)} minute bars are too few to train on; {recipe.min_bars} are needed"
        raise NotReady(msg)
    origin_ns = close_times_ns(bars["ts_ns"])
    realized, bid = realized_variance(origin_ns, bars["close"]), bid_path_bps(origin_ns, bars["close"])
    if ticks is not None:
        realized = ticks.at(origin_ns)
    chosen = (origin_ns // NS_PER_MIN) % step_min(len(bars), recipe, ticks) == 0
    chosen &= ~np.isnan(realized).any(axis=1) & ~np.isnan(bid).any(axis=1)
    matrix = np.empty((int(chosen.sum()), len(catalogue.MODEL_FEATURES)), order="F")
    folded = kept = 0
    for block in bar_feature_chunks(bars):
        rows = chosen[folded : folded + len(block)]  # a view: what is cleared here is cleared in `chosen`
        rows &= ~np.isnan(block["log_rv_5m"])
        features = catalogue.model_matrix(block[rows])
        matrix[kept : kept + len(features)] = features
        folded, kept = folded + len(block), kept + len(features)
    origin_ns, matrix = origin_ns[chosen], matrix[:kept]
    is_streamed = _put_stream(origin_ns, matrix, stream) if stream is not None and len(stream.origin_ns) else None
    target = MINUTES if ticks is None else TICKS
    return Frame(origin_ns, matrix, minute_columns(bars, chosen), realized[chosen], bid[chosen], is_streamed, target)


def step_min(bars: int, recipe: DatasetRecipe = RECIPE.dataset, ticks: TickLabels | None = None) -> int:
    """The minutes between two rows of a history of this many bars, or of these labels of ticks if they are fewer."""
    minutes = bars if ticks is None else min(bars, len(ticks.origin_ns))
    return recipe.origin_step_min if minutes > recipe.every_minute_up_to_bars else 1


def _put_stream(origin_ns: npt.NDArray[np.int64], matrix: Floats, stream: StreamRows) -> Mask:
    """Replace the rows of `matrix` that the stream has; returns which these are.

    A row without a realized variance, as in the first minutes of a stream, is not taken: no model could forecast from it.
    """
    at = np.searchsorted(stream.origin_ns, origin_ns).clip(0, len(stream.origin_ns) - 1)
    found = (stream.origin_ns[at] == origin_ns) & ~np.isnan(stream.matrix[at, _RV_5M])
    matrix[found] = stream.matrix[at[found]]
    return np.asarray(found)


def split_by_time(frame: Frame, from_share: float, embargo_ns: int) -> tuple[Frame, Frame]:
    """Rows before and after a share of the frame's time, with an embargo between them."""
    first, last = int(frame.origin_ns[0]), int(frame.origin_ns[-1])
    border = first + int((last - first) * from_share)
    return frame.between(first - 1, border - embargo_ns), frame.between(border, last)
