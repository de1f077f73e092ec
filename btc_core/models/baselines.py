"""What a model has to beat: simple forecasts, fitted on the same rows as the model.

HARX, the strongest baseline of the volatility, has a module of its own; the random walk of the price needs no code.
What does not belong here: models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.errors import NotReady
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models import scores
from btc_core.models.recipe import RECIPE, BaselinesRecipe
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_MINUTES = np.asarray(HORIZONS_MIN, np.float64)


class Baselines(msgspec.Struct, frozen=True):
    """HAR, EWMA and the last five minutes, fitted; arrays are tuples, so that it is plain JSON."""

    har_windows_min: tuple[int, ...]
    har: tuple[tuple[float, ...], ...]
    """For each horizon the intercept and one coefficient per window."""
    har_smearing: tuple[float, ...]
    """For each horizon the factor that turns the median of HAR into its mean; Duan (1983)."""
    ewma_half_life_min: int
    """The half-life with the smallest QLIKE at the headline horizon in training."""
    ewma_ratio: tuple[float, ...]
    """For each horizon the mean of RV over EWMA in training."""
    floor: tuple[float, ...]
    """The smallest forecast of each horizon, ln²."""

    def variances(self, matrix: Floats) -> dict[str, Floats]:
        """Forecasts of RV over each horizon by name, ln², shape (n, horizons), from (n, MODEL_FEATURES)."""
        last = np.exp(_columns(matrix, ["log_rv_5m"])) * _MINUTES / 5.0
        ewma = np.exp(_ewma_level(matrix, self.ewma_half_life_min))[:, np.newaxis] * np.asarray(self.ewma_ratio)
        har = np.exp(_linear(_har_design(matrix, self.har_windows_min), self.har)) * np.asarray(self.har_smearing)
        floor = np.asarray(self.floor)
        return {name: np.maximum(each, floor) for name, each in (("naive", last), ("ewma", ewma), ("har", har))}


class Autoregression(msgspec.Struct, frozen=True):
    """The return of the price over each horizon, linear in its past returns."""

    windows_min: tuple[int, ...]
    coefficients: tuple[tuple[float, ...], ...]
    """For each horizon one coefficient per window."""

    def returns_bps(self, matrix: Floats) -> Floats:
        """Forecasts of the log return over each horizon, bps, shape (n, horizons), from (n, MODEL_FEATURES)."""
        return _linear(_ar_design(matrix, self.windows_min), self.coefficients)


def fit_autoregression(
    matrix: Floats, returns_bps: Floats, recipe: BaselinesRecipe = RECIPE.baselines
) -> Autoregression:
    """Weighted least squares of `returns_bps` (n, 5) on past returns, without a constant: a drift of minutes is noise.

    Each row is divided by its volatility, so that a few wild hours do not decide the fit.
    """
    windows = recipe.ar_windows_min
    weight = np.exp(-0.5 * _ewma_level(matrix, recipe.ar_weight_half_life_min))[:, np.newaxis]
    coefficients = np.linalg.lstsq(_ar_design(matrix, windows) * weight, returns_bps * weight, rcond=None)[0]
    return Autoregression(windows, tuple(tuple(column) for column in coefficients.T.tolist()))


def fit_baselines(
    matrix: Floats, labels: Floats, floor: Floats, recipe: BaselinesRecipe = RECIPE.baselines
) -> Baselines:
    """Least squares for HAR, mean ratios for EWMA; `labels` (n, 5) are at least `floor` (5,).

    Raises `NotReady` when fewer than `recipe.min_rows` rows are usable.
    """
    design = _har_design(matrix, recipe.har_windows_min)
    known = ~np.isnan(design).any(axis=1)
    if int(known.sum()) < recipe.min_rows:
        msg = f"the baselines need at least {recipe.min_rows} labelled rows, got {int(known.sum())}"
        raise NotReady(msg)
    coefficients = np.linalg.lstsq(design[known], np.log(labels[known]), rcond=None)[0]
    smearing = (labels[known] / np.exp(design[known] @ coefficients)).mean(axis=0)
    ratios = {half_life: _ewma_ratio(matrix, labels, half_life) for half_life in recipe.ewma_half_lives_min}
    best = min(ratios, key=lambda half_life: ratios[half_life][1])
    return Baselines(
        har_windows_min=recipe.har_windows_min,
        har=tuple(tuple(column) for column in coefficients.T.tolist()),
        har_smearing=tuple(smearing.tolist()),
        ewma_half_life_min=best,
        ewma_ratio=tuple(ratios[best][0].tolist()),
        floor=tuple(floor.tolist()),
    )


def _columns(matrix: Floats, names: Iterable[str]) -> Floats:
    return np.asarray(matrix[:, [MODEL_FEATURES.index(name) for name in names]], np.float64)


def _ewma_ratio(matrix: Floats, labels: Floats, half_life_min: int) -> tuple[Floats, float]:
    """Mean ratio of RV to EWMA for each horizon, and the QLIKE at the headline horizon that it gives."""
    level = np.exp(_ewma_level(matrix, half_life_min))[:, np.newaxis]
    ratio = np.asarray((labels / level).mean(axis=0))
    return ratio, scores.qlike(labels[:, -1], level[:, 0] * ratio[-1])


def _ewma_level(matrix: Floats, half_life_min: int) -> Floats:
    """Ln of the variance of a minute by EWMA; where EWMA is missing after a gap, that of the last five minutes."""
    level, last = _columns(matrix, [f"log_ewma_{half_life_min}m", "log_rv_5m"]).T
    return np.asarray(np.where(np.isnan(level), last - np.log(5.0), level))


def _har_design(matrix: Floats, windows_min: tuple[int, ...]) -> Floats:
    """Intercept and log RVs; a window that is not covered yet is the next shorter one, scaled to its length."""
    logs = _columns(matrix, [f"log_rv_{window}m" for window in windows_min])
    for place in range(1, len(windows_min)):
        longer = np.log(windows_min[place] / windows_min[place - 1])
        logs[:, place] = np.where(np.isnan(logs[:, place]), logs[:, place - 1] + longer, logs[:, place])
    return np.column_stack([np.ones(len(logs)), logs])


def _linear(design: Floats, coefficients: tuple[tuple[float, ...], ...]) -> Floats:
    """`design` (n, k) times coefficients (horizons, k), (n, horizons); to the last bit the same for a row as for its batch.

    A matrix product is not: its order of summation depends on the number of rows.
    """
    factors = np.asarray(coefficients)
    total = np.zeros((len(design), len(factors)))
    for column in range(design.shape[1]):
        total += design[:, column, np.newaxis] * factors[:, column]
    return total


def _ar_design(matrix: Floats, windows_min: tuple[int, ...]) -> Floats:
    """Returns in bps; a window that is not covered yet counts as no move."""
    return np.nan_to_num(_columns(matrix, [f"return_{window}m_bps" for window in windows_min]))
