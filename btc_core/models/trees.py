"""What boosters add up to, for one row at once: every tree walked in compiled code, batches by XGBoost.

Five calls of `inplace_predict` cost a millisecond for one row, almost all of it overhead.
Both ways give the same float32 to the last bit: the same comparisons, and leaves added in the same order.
What does not belong here: fitting (`fitting`), and what the sums mean (`bundle`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import xgboost

    Floats = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)

WALKED_ROWS = 16
"""Up to this many rows are walked here, more go to XGBoost: about where the two cost the same."""

NODE = np.dtype(
    [("value", "f4"), ("feature", "i2"), ("missing_left", "?"), ("left", "i4"), ("right", "i4")], align=True
)
"""A split, or a leaf when `left` is −1; then `value` is what it adds."""


class Forest:
    """The trees of several boosters."""

    def __init__(self, boosters: tuple[xgboost.Booster, ...]) -> None:
        from btc_core.models.tree_walk import walk  # noqa: PLC0415 - numba is slow to import; the baselines do without

        self._walk = walk
        self._walked_rows = WALKED_ROWS
        self._boosters = boosters
        grown = [_trees(booster) for booster in boosters]
        self._ends = np.cumsum([len(trees) for trees in grown])
        trees = [tree for each in grown for tree in each]
        sizes = [len(tree["left_children"]) for tree in trees]
        self._roots = np.cumsum([0, *sizes[:-1]])
        self._nodes = np.empty(sum(sizes), NODE)
        for root, size, tree in zip(self._roots, sizes, trees, strict=True):
            self._nodes[root : root + size] = _nodes(tree, int(root))

    def margins(self, matrix: Floats) -> Floats:
        """Sum of the leaves of each booster, shape (n, boosters), on one thread; `matrix` is (n, features)."""
        inputs = np.ascontiguousarray(matrix, np.float32)
        margins = np.empty((len(inputs), len(self._boosters)))
        if len(inputs) <= self._walked_rows:
            self._walk(self._nodes, self._roots, self._ends, inputs, margins)
            return margins
        for column, booster in enumerate(self._boosters):
            margins[:, column] = booster.inplace_predict(inputs, predict_type="margin", validate_features=False)
        return margins

    def verify(self, matrix: Floats) -> bool:
        """Whether walking gives XGBoost's sums of these rows to the last bit; else XGBoost does all from now on."""
        boosted = np.empty((len(matrix), len(self._boosters)))
        inputs = np.ascontiguousarray(matrix, np.float32)
        for column, booster in enumerate(self._boosters):
            boosted[:, column] = booster.inplace_predict(inputs, predict_type="margin", validate_features=False)
        walked = np.empty_like(boosted)
        self._walk(self._nodes, self._roots, self._ends, inputs, walked)
        if np.array_equal(walked, boosted):
            return True
        _log.warning("walked trees differ from XGBoost's by up to %g; XGBoost serves", np.abs(walked - boosted).max())
        self._walked_rows = 0
        return False


def _trees(booster: xgboost.Booster) -> list[dict[str, Any]]:
    model = msgspec.json.decode(bytes(booster.save_raw(raw_format="json")))
    return list(model["learner"]["gradient_booster"]["model"]["trees"])


def _nodes(tree: dict[str, Any], root: int) -> npt.NDArray[Any]:
    nodes = np.empty(len(tree["left_children"]), NODE)
    left, right = np.asarray(tree["left_children"]), np.asarray(tree["right_children"])
    nodes["left"], nodes["right"] = np.where(left == -1, -1, left + root), np.where(left == -1, -1, right + root)
    nodes["feature"], nodes["missing_left"] = tree["split_indices"], np.asarray(tree["default_left"]) == 1
    nodes["value"] = np.asarray(tree["split_conditions"], np.float32)
    return nodes
