"""The rows of the league: the inputs that entries see, and the data set that training gives them.

They are the rows of `btc_core.models.dataset`, on which the models of the package are trained, under the names of the
series `dataset` that clients read. What does not belong here: where bars and rows of the stream come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS, COLUMNS_VERSION
from btc_core.features.user.values import NO_COLUMNS, UserColumns
from btc_core.horizons import suffix
from btc_core.league.contract import Dataset, Rows
from btc_core.market.bars import BARS
from btc_core.models.dataset import make_frame
from btc_core.models.recipe import RECIPE
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from btc_core.models.dataset import Frame

    Floats = npt.NDArray[np.float64]

INPUTS: tuple[str, ...] = (*MODEL_FEATURES, *COLUMNS)
"""The columns of `Rows.matrix`; those of the user's own features follow."""
INPUTS_VERSION = f"{FEATURE_VERSION}-{COLUMNS_VERSION}{suffix(HORIZONS_MIN)}"
"""A model is used only on inputs, and for horizons, of the version that it was trained on. With features of the user, their version follows."""
CHECK_DAYS = 4
"""Days of made-up bars for a check: columns need half a day of bars, and a fit needs some thousand rows."""
_CHECK_SYMBOL = "BTC/USD"


def floor_of(frame: Frame) -> Floats:
    """The floor of the realized variance for each horizon, (5,), as in HARX: smaller values, such as 0, are raised to it."""
    recipe = RECIPE.harx
    low = np.nanquantile(frame.realized, recipe.rv_floor_quantile, axis=0)
    return np.asarray(np.maximum(low, recipe.rv_floor_min_ln2))


def rows_of(frame: Frame, own: UserColumns = NO_COLUMNS) -> Rows:
    """The inputs of a frame, and the user's own features behind them."""
    matrix = np.hstack([frame.matrix, frame.columns, own.at(frame.origin_ns)], dtype=np.float64)
    return Rows((*INPUTS, *own.names), matrix, frame.origin_ns)


def dataset_of(frame: Frame, symbol: str, own: UserColumns = NO_COLUMNS) -> Dataset:
    """The rows of a frame with their outcomes."""
    rows = rows_of(frame, own)
    labels = np.maximum(frame.realized, floor_of(frame))
    return Dataset(rows.names, rows.matrix, rows.origin_ns, labels, symbol)


def made_up_dataset(own: Sequence[str] = ()) -> Dataset:
    """A small data set of a made-up market, with missing values where real ones have them.

    The older half of the rows is made of bars alone. The newer half also has inputs of the stream, which are noise, as are
    the user's `own` features.
    """
    rng = np.random.default_rng(11)
    frame = make_frame(_made_up_bars(rng), msgspec.structs.replace(RECIPE.dataset, min_bars=1))
    matrix = frame.matrix.copy()
    newer = np.arange(len(matrix)) >= len(matrix) // 2
    is_of_stream = np.isnan(matrix).all(axis=0) & np.array([not name.startswith("lead_") for name in MODEL_FEATURES])
    matrix[np.ix_(newer, is_of_stream)] = rng.normal(size=(int(newer.sum()), int(is_of_stream.sum())))
    noise = rng.normal(size=(len(matrix), len(own)))
    columns = UserColumns(tuple(own), "", frame.origin_ns, noise)
    return dataset_of(msgspec.structs.replace(frame, matrix=matrix), _CHECK_SYMBOL, columns)


def _made_up_bars(rng: np.random.Generator) -> npt.NDArray[Any]:
    """Minute bars with clustered volatility of about 5 bps a minute."""
    count = CHECK_DAYS * 1440
    log_sigma = np.zeros(count)
    for minute in range(1, count):
        log_sigma[minute] = 0.98 * log_sigma[minute - 1] + 0.15 * rng.normal()
    sigma = 5e-4 * np.exp(log_sigma)
    close = 60_000.0 * np.exp(np.cumsum(sigma * rng.normal(size=count)))
    bars = np.zeros(count, BARS)
    bars["ts_ns"] = 1_750_000_020_000_000_000 // NS_PER_MIN * NS_PER_MIN + np.arange(count) * NS_PER_MIN
    bars["close"] = close
    bars["open"] = np.concatenate([[60_000.0], close[:-1]])
    reach = np.exp(0.5 * sigma * np.abs(rng.normal(size=count)))
    bars["high"] = np.maximum(bars["open"], close) * reach
    bars["low"] = np.minimum(bars["open"], close) / reach
    bars["volume"] = rng.gamma(2.0, 2.0, count)
    bars["trades"] = -1
    return bars
