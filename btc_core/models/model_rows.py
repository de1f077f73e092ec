"""The rows that models read: features and minute columns, beside each other and as the trees of the volatility take them.

What does not belong here: computing features and columns (`btc_core.features`), and labels (`dataset`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.features import catalogue, minute_columns

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]


def has_columns(columns: Singles) -> npt.NDArray[np.bool_]:
    """Which rows have columns, (n,): all of a row are NaN while its last day is not known."""
    return ~np.isnan(columns[:, 0])


def tree_input_names() -> tuple[str, ...]:
    """Names of the inputs of the volatility's trees, in the order of `tree_inputs`."""
    return (*catalogue.MODEL_FEATURES, *minute_columns.TREE_COLUMNS)


def tree_inputs(matrix: Floats, columns: Singles) -> Singles:
    """What the trees of the volatility read: the features and the first columns, (n, inputs)."""
    width = matrix.shape[1]
    inputs = np.empty((len(matrix), width + len(minute_columns.TREE_COLUMNS)), np.float32)
    inputs[:, :width] = matrix
    inputs[:, width:] = columns[:, : len(minute_columns.TREE_COLUMNS)]
    return inputs


def split_rows(rows: Floats) -> tuple[Floats, Singles]:
    """Features and minute columns of rows that hold both side by side; where they hold no columns, these are NaN."""
    width = len(catalogue.MODEL_FEATURES)
    columns = np.full((len(rows), len(minute_columns.COLUMNS)), np.nan, np.float32)
    if rows.shape[1] > width:
        columns[:] = rows[:, width:]
    return np.ascontiguousarray(rows[:, :width]), columns
