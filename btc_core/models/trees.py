"""Boosters as bytes, and sums over their trees: a few rows at once in compiled code, batches by XGBoost.

XGBoost's `inplace_predict` takes 0.1 to 0.2 ms for one row, almost all of it overhead, and a forecast needs six boosters.
Both ways give the same float32 to the last bit: they make the same comparisons and add the leaves in the same order.
What does not belong here: training (`trainers`), and what the sums mean (`bundle`).
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from btc_core.compiled import njit

if TYPE_CHECKING:
    from types import ModuleType

    import numpy.typing as npt
    import xgboost

    Floats = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)

COMPILED_ROWS = 16
"""Up to this many rows the compiled code is used and above it XGBoost; the two are about equally fast there."""

NODE = np.dtype(
    [("value", "f4"), ("feature", "i2"), ("missing_left", "?"), ("left", "i4"), ("right", "i4")], align=True
)
"""A split on `value`, or a leaf of `value` where `left` is −1."""


class Forest:
    """The trees of several boosters."""

    def __init__(self, boosters: tuple[xgboost.Booster, ...]) -> None:
        self._compiled_rows = COMPILED_ROWS
        self._boosters = boosters
        grown = [_trees(booster) for booster in boosters]
        self._ends = np.cumsum([len(trees) for trees in grown])
        trees = [tree for each in grown for tree in each]
        sizes = [len(tree["left_children"]) for tree in trees]
        self._roots = np.cumsum([0, *sizes[:-1]])
        self._nodes = np.empty(sum(sizes), NODE)
        for root, size, tree in zip(self._roots, sizes, trees, strict=True):
            self._nodes[root : root + size] = _nodes(tree, int(root))

    def margins(self, matrix: npt.NDArray[Any]) -> Floats:
        """Sum of the leaves of each booster, shape (n, boosters), on one thread; `matrix` is (n, features)."""
        inputs = np.ascontiguousarray(matrix, np.float32)
        return self._by_compiled_code(inputs) if len(inputs) <= self._compiled_rows else self._by_xgboost(inputs)

    def check_against_xgboost(self, matrix: npt.NDArray[Any]) -> bool:
        """Whether the compiled code gives XGBoost's sums of these rows to the last bit; if not, XGBoost is always used."""
        inputs = np.ascontiguousarray(matrix, np.float32)
        compiled, boosted = self._by_compiled_code(inputs), self._by_xgboost(inputs)
        if np.array_equal(compiled, boosted):
            return True
        worst = np.abs(compiled - boosted).max()
        _log.warning("compiled sums of trees differ from XGBoost's by up to %g; XGBoost serves", worst)
        self._compiled_rows = 0
        return False

    def _by_compiled_code(self, inputs: npt.NDArray[np.float32]) -> Floats:
        sums = np.empty((len(inputs), len(self._boosters)))
        _sum_leaves(self._nodes, self._roots, self._ends, inputs, sums)
        return sums

    def _by_xgboost(self, inputs: npt.NDArray[np.float32]) -> Floats:
        sums = np.empty((len(inputs), len(self._boosters)))
        for column, booster in enumerate(self._boosters):
            sums[:, column] = booster.inplace_predict(inputs, predict_type="margin", validate_features=False)
        return sums


def leave_out_scikit_learn() -> None:
    """Let XGBoost find no scikit-learn in this process, which then takes 45 MB less and starts 0.5 s sooner.

    XGBoost imports it for its own classes of estimators, if it is installed. The workers and the API read boosters only.
    """
    sys.modules.setdefault("sklearn", cast("ModuleType", None))  # an import of it then raises ImportError


def booster_files(boosters: tuple[xgboost.Booster, ...], names: tuple[str, ...]) -> dict[str, bytes]:
    """Boosters in XGBoost's own format, by file name; `names` may be more than there are boosters."""
    return {
        f"{name}.ubj": bytes(booster.save_raw(raw_format="ubj")) for name, booster in zip(names, boosters, strict=False)
    }


def booster_of(data: bytes) -> xgboost.Booster:
    """The inverse of `booster_files` for one file; raises `ValueError` on anything else."""
    import xgboost  # noqa: PLC0415 - 0.6 s and 90 MB, which a process that serves a baseline does without

    try:
        booster = xgboost.Booster(model_file=bytearray(data))
    except xgboost.core.XGBoostError as error:
        msg = f"not an XGBoost model: {str(error).splitlines()[0]}"
        raise ValueError(msg) from error
    booster.set_param({"nthread": 1})
    return booster


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


@njit
def _sum_leaves(nodes: Any, roots: Any, ends: Any, rows: Any, sums: Any) -> None:
    """Sum the leaves that each row reaches, for each booster b: its trees are `ends[b − 1]` to `ends[b]`."""
    for i in range(len(rows)):
        row = rows[i]
        tree = 0
        for booster in range(len(ends)):
            total = np.float32(0.0)
            while tree < ends[booster]:
                node = nodes[roots[tree]]
                while node.left >= 0:
                    value = row[node.feature]
                    goes_left = node.missing_left if np.isnan(value) else value < node.value
                    node = nodes[node.left] if goes_left else nodes[node.right]
                total += node.value
                tree += 1
            sums[i, booster] = total
