"""The losses by which a training judges a model, and its table of scores on rows that it was not fitted on.

What does not belong here: what the scores decide (`btc_core.models.gate`), and live scores (`skill`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.models import scores
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def losses_of(labels: Floats, sigma_bps: Floats) -> Floats:
    """The QLIKE losses, (n,), of σ in bps, (n, horizons), at the headline horizon."""
    return scores.qlike_losses(labels[:, -1], np.square(sigma_bps[:, -1] / 1e4))


def squares_of(actual_bps: Floats, forecast_bps: Floats) -> Floats:
    """The squared errors, (n,), of returns in bps, (n, horizons): their mean over the horizons."""
    return np.asarray(np.square(actual_bps - forecast_bps).mean(axis=1))


def volatility_scores(realized: Floats, sigmas_bps: dict[str, Floats]) -> dict[str, float]:
    """Scores of forecasts of σ (n, 5) by `model/horizon/metric`, on floored labels; the Diebold-Mariano t is against HARX."""
    table: dict[str, float] = {}
    for column, minutes in enumerate(HORIZONS_MIN):
        label = realized[:, column]
        forecasts = {name: np.square(sigma[:, column] / 1e4) for name, sigma in sigmas_bps.items()}
        reference = scores.qlike_losses(label, forecasts["harx"])
        for name, forecast in forecasts.items():
            losses = scores.qlike_losses(label, forecast)
            place = f"{name}/{minutes}m"
            table[f"{place}/qlike"] = float(losses.mean())
            table[f"{place}/r2_log"] = scores.r2_log_debiased(label, forecast)
            table[f"{place}/median_ape"] = scores.median_ape(label, forecast)
            if name != "harx":
                table[f"{place}/dm_t"] = scores.diebold_mariano_t(losses, reference)
    return {name: value for name, value in table.items() if np.isfinite(value)}


def bid_scores(actual_bps: Floats, forecast_bps: Floats, shrinkage: Floats) -> dict[str, float]:
    """Scores by `model/horizon/metric` against the random walk; the Diebold-Mariano t is of squared errors."""
    table: dict[str, float] = {}
    for column, minutes in enumerate(HORIZONS_MIN):
        actual, forecast = actual_bps[:, column], forecast_bps[:, column]
        place = f"model/{minutes}m"
        table[f"{place}/lambda"] = float(shrinkage[column])
        table[f"{place}/mse_ratio"] = scores.mse_ratio(actual, forecast)
        table[f"{place}/dm_t"] = scores.diebold_mariano_t(np.square(actual - forecast), np.square(actual))
        table[f"{place}/direction"], table[f"{place}/direction_se"] = scores.direction_hits(actual, forecast)
    return {name: value for name, value in table.items() if np.isfinite(value)}
