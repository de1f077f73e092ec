"""Which features a forecast comes from: TreeSHAP of the trees, and for the volatility the part of HARX.

It takes a few milliseconds a row, so it runs on request and at the end of a training.
What does not belong here: plots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models.bundle import VolatilityModel
from btc_core.models.harx import INPUT_COLUMNS
from btc_core.models.pooling import RELATIVE_FEATURES
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    import numpy.typing as npt
    import xgboost

    from btc_core.models.bundle import BidModel, Manifest

    Floats = npt.NDArray[np.float64]


class Explanation(msgspec.Struct, frozen=True):
    """Parts of ln of the variance over five minutes (ln²): `base + harx + offset + sum of trees` is `log_variance`."""

    log_variance: float
    base: float
    """The forecast of an average row."""
    harx: float
    """What HARX adds, at its share of the forecast."""
    offset: float
    trees: dict[str, float]
    """What each feature adds through the trees (Lundberg et al. 2020), largest effect first."""


def explain(model: VolatilityModel, row: Floats) -> Explanation:
    """The parts of the forecast of one row (1, MODEL_FEATURES); without trees HARX is all of it."""
    log_harx = float(model.harx.log_variance(row[:, INPUT_COLUMNS])[0, -1])
    if not model.boosters:
        return Explanation(log_harx, 0.0, log_harx, 0.0, {})
    parts = 0.5 * np.sum([each[0] for each in _contributions(model.boosters, model.forest_inputs(row))], axis=0)
    manifest = model.manifest
    level, offset = manifest.level, manifest.offsets[-1]
    harx = manifest.harx_share * (log_harx - level)
    effects = dict(zip(_input_names(manifest), parts[:-1].tolist(), strict=True))
    ranked = dict(sorted(effects.items(), key=lambda pair: -abs(pair[1])))
    base = level + float(parts[-1])
    return Explanation(base + harx + offset + float(parts[:-1].sum()), base, harx, offset, ranked)


def mean_effects(model: VolatilityModel | BidModel, rows: Floats) -> dict[str, float]:
    """Mean absolute TreeSHAP effect of each feature over `rows` (n, MODEL_FEATURES), largest first; empty without trees.

    Its unit is that of the trees: ln of the variance, or bid returns in σ.
    """
    if not model.boosters or not len(rows):
        return {}
    inputs = (
        model.forest_inputs(rows) if isinstance(model, VolatilityModel) else model.forest_inputs(rows, _typical(rows))
    )
    parts = [np.abs(each[:, :-1]).mean(axis=0) for each in _contributions(model.boosters, inputs)]
    effects = dict(zip(_input_names(model.manifest), np.mean(parts, axis=0).tolist(), strict=True))
    return dict(sorted(effects.items(), key=lambda pair: -pair[1]))


def _input_names(manifest: Manifest) -> tuple[str, ...]:
    return RELATIVE_FEATURES if manifest.pool else manifest.features


def _typical(rows: Floats) -> Floats:
    """σ of five minutes in bps, (n, 5), from the last five minutes of each row: the inputs of the bid's trees need one."""
    log_rv = rows[:, MODEL_FEATURES.index("log_rv_5m")]
    return np.repeat(np.exp(0.5 * log_rv)[:, np.newaxis] * 1e4, len(HORIZONS_MIN), axis=1)


def _contributions(boosters: tuple[xgboost.Booster, ...], rows: Floats) -> list[Floats]:
    """TreeSHAP values of each booster, (n, features + 1), the last of which is the mean forecast without any margin."""
    import xgboost  # noqa: PLC0415 - 0.6 s and 90 MB, which a process that serves a baseline does without

    data = xgboost.DMatrix(rows.astype(np.float32))
    data.set_base_margin(np.zeros(len(rows)))
    return [booster.predict(data, pred_contribs=True) for booster in boosters]
