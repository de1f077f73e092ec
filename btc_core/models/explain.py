"""Which inputs a forecast comes from: TreeSHAP of the trees, and for the volatility the parts of HARX and of the net.

It takes a few milliseconds a row, so it runs on request and at the end of a training.
What does not belong here: plots.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models.bundle import VolatilityModel
from btc_core.models.harx import INPUT_COLUMNS
from btc_core.models.manifest import NET_MEMBER, TREES_MEMBER
from btc_core.models.model_rows import split_rows
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    import numpy.typing as npt
    import xgboost

    from btc_core.models.bundle import BidModel

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]


class Explanation(msgspec.Struct, frozen=True):
    """Parts of ln of the variance over the headline horizon (ln²): `base + harx + net + offset + sum of trees` is `log_variance`."""

    log_variance: float
    base: float
    """The forecast of an average row."""
    harx: float
    """What HARX adds, at its share of the forecast."""
    net: float
    """What the net's correction of HARX adds, at the net's share and the factor of all corrections."""
    offset: float
    trees: dict[str, float]
    """What each feature adds through the trees (Lundberg et al. 2020), largest effect first."""


def explain(model: VolatilityModel, row: Floats, columns: Singles) -> Explanation:
    """The parts of the forecast of one row (1, MODEL_FEATURES) with its columns; without trees or columns HARX is all of it.

    A simpler baseline that serves has no parts: its difference from HARX is the offset.
    """
    log_harx = np.ascontiguousarray(model.harx.log_variance(row[:, INPUT_COLUMNS])[:, -1])
    five = float(log_harx[0])
    if not model.boosters or model.net is None or not model.corrects(columns).all():
        is_simpler = model.kind not in {"xgboost", "harx"}
        served = 2.0 * math.log(float(model.predict(row)[0, -1]) / 1e4) if is_simpler else five
        return Explanation(served, 0.0, five, 0.0, served - five, {})
    manifest = model.manifest
    trees, net = manifest.members[TREES_MEMBER], manifest.members[NET_MEMBER]
    inputs = model.tree_inputs(row, columns, log_harx)
    trees_weight, net_weight = (manifest.correction_factor * member.share for member in (trees, net))
    parts = trees_weight * _contributions(model.boosters, inputs)[0][0]
    offset = manifest.offsets[-1] + trees_weight * trees.offset + net_weight * net.offset
    effects = dict(zip(model.tree_input_names, parts[:-1].tolist(), strict=True))
    ranked = dict(sorted(effects.items(), key=lambda pair: -abs(pair[1])))
    base = manifest.level + float(parts[-1])
    harx = (1.0 - trees_weight * (1.0 - manifest.harx_share)) * (five - manifest.level)
    correction = net_weight * float(model.net.corrections(row, columns, log_harx)[0])
    return Explanation(
        base + harx + correction + offset + float(parts[:-1].sum()), base, harx, correction, offset, ranked
    )


def mean_effects(model: VolatilityModel | BidModel, rows: Floats) -> dict[str, float]:
    """Mean absolute TreeSHAP effect of each input over `rows` (`Frame.sample`), largest first; empty without trees.

    Its unit is that of the trees: ln of the variance, or bid returns in σ.
    """
    if not model.boosters or not len(rows):
        return {}
    matrix, columns = split_rows(rows)
    if isinstance(model, VolatilityModel):
        inputs: npt.NDArray[Any] = model.tree_inputs(matrix, columns)
    else:
        inputs = model.tree_inputs(matrix, _typical_sigma_bps(matrix))
    parts = [np.abs(each[:, :-1]).mean(axis=0) for each in _contributions(model.boosters, inputs)]
    effects = dict(zip(model.tree_input_names, np.mean(parts, axis=0).tolist(), strict=True))
    return dict(sorted(effects.items(), key=lambda pair: -pair[1]))


def _typical_sigma_bps(matrix: Floats) -> Floats:
    """σ in bps, (n, horizons), of the last five minutes of each row: the inputs of the bid's trees need one."""
    log_rv = matrix[:, MODEL_FEATURES.index("log_rv_5m")]
    return np.repeat(np.exp(0.5 * log_rv)[:, np.newaxis] * 1e4, len(HORIZONS_MIN), axis=1)


def _contributions(boosters: tuple[xgboost.Booster, ...], rows: npt.NDArray[Any]) -> list[Floats]:
    """TreeSHAP values of each booster, (n, features + 1), the last of which is the mean forecast without any margin."""
    import xgboost  # noqa: PLC0415 - 0.6 s and 90 MB, which a process that serves a baseline does without

    data = xgboost.DMatrix(rows.astype(np.float32))
    data.set_base_margin(np.zeros(len(rows)))
    return [booster.predict(data, pred_contribs=True) for booster in boosters]
