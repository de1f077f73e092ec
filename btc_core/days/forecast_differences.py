"""How far forecasts that were computed again differ from those that are stored.

What does not belong here: computing forecasts again (`forecast_replay`, `day_forecasts`), and what a difference means for a
verification (`forecast_check`, `day_forecasts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]

OTHER_PROCESSOR = 1e-9
"""The largest relative difference that another processor or another version of numpy explains: the exponential function of
two libraries may differ in its last bit. On the machine that made the forecast there is none."""
NOT_COMPUTED_AGAIN = frozenset({"quality", "quality_reasons"})
"""Columns of the prediction tables that depend on the moment, as the gaps that were open then."""


class Difference(msgspec.Struct, frozen=True):
    """Where forecasts differ from those that are stored."""

    rows: Bools
    """The mask of the rows with a difference that no other processor explains."""
    largest: float
    """The largest relative difference; infinite between a number and none, and between two texts."""
    column: str


def differences(stored: pa.Table, again: pa.Table, left_out: frozenset[str] = NOT_COMPUTED_AGAIN) -> Difference:
    """Where rows of a prediction table that were computed again differ, without the columns that are `left_out`."""
    wrong = np.zeros(len(stored), bool)
    largest, column = 0.0, ""
    for field in again.schema:
        if field.name in left_out:
            continue
        one, other = stored[field.name], again[field.name]
        if pa.types.is_floating(field.type):
            gaps = _relative(*(each.cast(pa.float64()).to_numpy(zero_copy_only=False) for each in (one, other)))
        else:
            same = pc.fill_null(pc.equal(one, other.cast(one.type)), pa.scalar(False))
            both_null = pc.and_(pc.is_null(one), pc.is_null(other))
            gaps = np.where(np.asarray(pc.or_(same, both_null)), 0.0, np.inf)
        wrong |= gaps > OTHER_PROCESSOR
        if gaps.size and gaps.max() > largest:
            largest, column = float(gaps.max()), field.name
    return Difference(wrong, largest, column)


def _relative(one: Any, other: Any) -> Any:
    """The relative difference of each pair of numbers; NaN equals NaN and nothing else."""
    gaps = np.zeros(len(one))
    at = np.flatnonzero(~((one == other) | (np.isnan(one) & np.isnan(other))))
    if len(at):
        pairs = np.stack([one[at], other[at]])
        finite = np.isfinite(pairs).all(axis=0)
        gaps[at] = np.inf
        gaps[at[finite]] = np.abs(pairs[0] - pairs[1])[finite] / np.abs(pairs).max(axis=0)[finite]
    return gaps
