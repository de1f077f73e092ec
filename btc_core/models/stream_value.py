"""What the inputs of the stream add: two walk-forwards on the same origins, one of them without these inputs.

Both fit the same models on the same rows and labels. Therefore their losses are paired, and the difference has a far smaller
standard error than either loss. What does not belong here: the walk-forward itself (`evaluation`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, from_ns
from btc_core.errors import InvalidInput
from btc_core.models import scores
from btc_core.models.recipe import RECIPE

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.dataset import Frame
    from btc_core.models.evaluation import WalkForward

    Floats = npt.NDArray[np.float64]

MIN_TRAINED_DAYS = int(RECIPE.trees_need_days)
"""Sealed days that must lie before the first one that is forecast: trees learn nothing from fewer."""
MIN_TESTED_DAYS = 5
"""Sealed days that must be forecast: with fewer, the standard error itself is not known."""
COMPARED = ("model", "without_level", "trees")


class PairedLoss(msgspec.Struct, frozen=True):
    """Mean losses with and without the inputs of the stream, on the same rows."""

    with_stream: float
    without_stream: float
    difference: float
    """With minus without: below 0 the stream adds something."""
    error: float
    """Standard error of the difference; rows of one day count as dependent."""


class StreamValue(msgspec.Struct, frozen=True, kw_only=True):
    """What the inputs of the stream add on the rows that have them."""

    rows: int
    tested_days: int
    trained_days: int
    """Sealed days before the first origin that is forecast."""
    qlike: dict[str, PairedLoss]
    """The paired QLIKE of each forecaster, for the volatility over the headline horizon."""
    bid: PairedLoss
    """Squared error of the bid's return over the headline horizon, bps²."""


def check_days(  # noqa: PLR0913 - the time, and how many days of it are needed
    frame: Frame,
    begin_ns: int,
    end_ns: int,
    symbol: str,
    *,
    min_trained_days: int = MIN_TRAINED_DAYS,
    min_tested_days: int = MIN_TESTED_DAYS,
) -> None:
    """Raise `InvalidInput` if too few days before or in (begin, end] have the features of the stream."""
    trained = frame.between(0, begin_ns - RECIPE.dataset.embargo_ns).streamed_days
    tested = frame.between(begin_ns, end_ns).streamed_days
    if trained >= min_trained_days and tested >= min_tested_days:
        return
    msg = (
        f"--stored: {symbol} has {trained} sealed days with features of this version before {from_ns(begin_ns):%Y-%m-%d} "
        f"and {tested} from then on; {min_trained_days} are needed to learn from and {min_tested_days} to judge on. Days "
        "are sealed every night; choose another --from, compute days of an older version again with `btc backfill`, or ask "
        "for a rough figure with --min-trained-days and --min-tested-days"
    )
    raise InvalidInput(msg)


def stream_value(frame: Frame, with_stream: WalkForward, without_stream: WalkForward) -> StreamValue:
    """Compare two walk-forwards over the same blocks, on the origins whose features are those of the stream."""
    origin_ns = with_stream.origin_ns
    at = np.searchsorted(frame.origin_ns, origin_ns)
    is_streamed = np.zeros(len(origin_ns), bool) if frame.is_streamed is None else frame.is_streamed[at]
    days = origin_ns[is_streamed] // NS_PER_DAY
    labels = with_stream.joined("labels")[is_streamed, -1]

    def qlike(walk: WalkForward, name: str) -> Floats:
        return scores.qlike_losses(labels, walk.variance(name)[is_streamed, -1])

    def squares(walk: WalkForward) -> Floats:
        errors: Floats = walk.joined("bid_bps") - walk.joined("bid_forecast_bps")
        return np.asarray(np.square(errors[is_streamed, -1]))

    return StreamValue(
        rows=len(days),
        tested_days=len(np.unique(days)),
        trained_days=frame.between(0, int(origin_ns[0]) - RECIPE.dataset.embargo_ns).streamed_days,
        qlike={name: paired(qlike(with_stream, name), qlike(without_stream, name), days) for name in COMPARED},
        bid=paired(squares(with_stream), squares(without_stream), days),
    )


def paired(losses: Floats, others: Floats, days: npt.NDArray[np.int64]) -> PairedLoss:
    """Two means and their difference, whose error follows from the sums of the differences of each day."""
    difference = losses - others
    mean = float(difference.mean())
    _, day = np.unique(days, return_inverse=True)
    sums = np.bincount(day, difference - mean)
    count = len(sums)
    error = math.sqrt(float(sums @ sums) * count / (count - 1)) / len(losses) if count > 1 else math.nan
    return PairedLoss(float(losses.mean()), float(others.mean()), mean, error)
