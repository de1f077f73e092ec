"""Why a forecast is what it is: TreeSHAP of the trees, and for the volatility the part that HARX gives.

A few milliseconds a row, so on request and at the end of a training. What does not belong here: plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.models.bundle import HARX_SHARE, VolatilityModel
from btc_core.models.dataset import HARX_COLUMNS

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.bundle import BidModel

    Floats = npt.NDArray[np.float64]


class Explanation(msgspec.Struct, frozen=True):
    """Parts of ln of the variance over five minutes (ln²): `base + harx + offset + sum of trees` is `log_variance`."""

    log_variance: float
    base: float
    """What the forecast of an average row would be."""
    harx: float
    """What HARX adds, at its share of the forecast."""
    offset: float
    trees: dict[str, float]
    """Lundberg et al. (2020), per feature, largest effect first."""


def explain(model: VolatilityModel, row: Floats) -> Explanation:
    """The forecast of one row (1, MODEL_FEATURES) taken apart; without trees HARX is all of it."""
    log_harx = float(model.harx.log_variance(row[:, HARX_COLUMNS])[0, -1])
    if not model.boosters:
        return Explanation(log_harx, 0.0, log_harx, 0.0, {})
    import xgboost  # noqa: PLC0415 - slow to import, only needed here

    data = xgboost.DMatrix(row.astype(np.float32))
    data.set_base_margin(np.zeros(1))
    parts = 0.5 * np.sum([booster.predict(data, pred_contribs=True)[0] for booster in model.boosters], axis=0)
    level, offset = model.manifest.level, model.manifest.offsets[-1]
    harx = HARX_SHARE * (log_harx - level)
    effects = dict(zip(model.manifest.features, parts[:-1].tolist(), strict=True))
    ranked = dict(sorted(effects.items(), key=lambda pair: -abs(pair[1])))
    base = level + float(parts[-1])
    return Explanation(base + harx + offset + float(parts[:-1].sum()), base, harx, offset, ranked)


def mean_effects(model: VolatilityModel | BidModel, rows: Floats) -> dict[str, float]:
    """Mean absolute TreeSHAP effect of each feature over `rows` (n, MODEL_FEATURES), largest first; without trees empty.

    In the unit of the trees: ln of the variance, or bid returns in σ.
    """
    if not model.boosters or not len(rows):
        return {}
    import xgboost  # noqa: PLC0415 - slow to import, only needed here

    data = xgboost.DMatrix(rows.astype(np.float32))
    parts = [np.abs(booster.predict(data, pred_contribs=True)[:, :-1]).mean(axis=0) for booster in model.boosters]
    effects = dict(zip(model.manifest.features, np.mean(parts, axis=0).tolist(), strict=True))
    return dict(sorted(effects.items(), key=lambda pair: -pair[1]))
