"""Range-based variances of the windows after each row, which the net learns to forecast beside the realized variance.

The realized variance of five minutes is five squared returns, so that most of it is noise. The Garman-Klass variance of the
same minutes, and that of longer windows, depend on the same state of the market and hold much less noise. A net with an
output for each of them finds that state better. Only the output of the realized variance is kept (`net_fitting`).
What does not belong here: the columns (`btc_core.features.minute_columns`), and the labels that forecasts are judged by
(`targets`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.features.minute_columns import COLUMNS

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]
    Longs = npt.NDArray[np.int64]


def later_variances(origin_ns: Longs, columns: Singles, windows_min: tuple[int, ...]) -> Floats:
    """Garman-Klass variances over (t, t + w], ln², (n, windows), for rows at the times t; NaN where they are not known.

    The variance of a window is the column `log_gk_…m` of the row at its end, so that a row sees no bar after the last row.
    `origin_ns` is sorted, and `columns` is (n, COLUMNS). Each of `windows_min` is one of `GK_WINDOWS_MIN`.
    """
    later = np.full((len(origin_ns), len(windows_min)), np.nan)
    for place, minutes in enumerate(windows_min):
        ends = origin_ns + minutes * NS_PER_MIN
        rows = np.searchsorted(origin_ns, ends)
        found = np.zeros(len(origin_ns), np.bool_)
        inside = rows < len(origin_ns)
        found[inside] = origin_ns[rows[inside]] == ends[inside]
        later[found, place] = np.exp(columns[rows[found], COLUMNS.index(f"log_gk_{minutes}m")])
    return later
