"""The compiled walk of `forest`, apart from it because numba is slow to import and the baselines have no trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from btc_core.compiled import njit


@njit
def walk(nodes: Any, roots: Any, ends: Any, rows: Any, sums: Any) -> None:
    """Sum the leaves that each row reaches, per booster: trees `ends[b − 1]` to `ends[b]` are booster b's."""
    for i in range(len(rows)):
        row = rows[i]
        tree = 0
        for booster in range(len(ends)):
            total = np.float32(0.0)
            while tree < ends[booster]:
                node = nodes[roots[tree]]
                while node.left >= 0:
                    seen = row[node.feature]
                    onward = node.missing_left if np.isnan(seen) else seen < node.value
                    node = nodes[node.left] if onward else nodes[node.right]
                total += node.value
                tree += 1
            sums[i, booster] = total
