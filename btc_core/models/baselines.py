"""What a model has to beat: forecasts that anyone writes down in a line, fitted on the same rows.

HARX, the strongest of the variance, has its own module; the random walk of the price needs none. What does not belong
here: models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.errors import NotReady
from btc_core.features import catalogue
from btc_core.models import scores
from btc_core.models.harx import MIN_ROWS
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

HAR_WINDOWS_MIN = (5, 60, 1440)
"""Corsi (2009) with a day for the month: five minutes, an hour, a day."""
AR_WINDOWS_MIN = (1, 2, 3, 5, 10)
"""Of the autoregression: ten lags of one-minute returns, the older ones sharing a coefficient."""
AR_SCALE_MIN = 30
"""Half-life of the EWMA that says how volatile a row's time was."""


def _column(name: str) -> int:
    return catalogue.MODEL_FEATURES.index(name)


_HAR_COLUMNS = [_column(f"log_rv_{window}m") for window in HAR_WINDOWS_MIN]
_AR_COLUMNS = [_column(f"return_{window}m_bps") for window in AR_WINDOWS_MIN]
_MINUTES = np.asarray(HORIZONS_MIN, np.float64)


class Baselines(msgspec.Struct, frozen=True):
    """The last five minutes, EWMA and HAR, fitted; arrays as tuples so that it is plain JSON."""

    har: tuple[tuple[float, ...], ...]
    """Per horizon: intercept and one coefficient per window of `HAR_WINDOWS_MIN`."""
    har_smearing: tuple[float, ...]
    ewma_half_life_min: int
    """The best of the catalogue's half-lives by QLIKE at five minutes in training."""
    ewma_ratio: tuple[float, ...]
    """Per horizon the mean of RV over EWMA in training."""
    floor: tuple[float, ...]

    def variances(self, matrix: Floats) -> dict[str, Floats]:
        """Forecasts of RV over 1…5 min by name, ln², shape (n, 5), from (n, MODEL_FEATURES)."""
        last = np.exp(matrix[:, [_column("log_rv_5m")]]) * _MINUTES / 5.0
        ewma = np.exp(_ewma_level(matrix, self.ewma_half_life_min))[:, np.newaxis] * np.asarray(self.ewma_ratio)
        har = np.exp(_har_design(matrix) @ np.asarray(self.har).T) * np.asarray(self.har_smearing)
        floor = np.asarray(self.floor)
        return {name: np.maximum(each, floor) for name, each in (("naive", last), ("ewma", ewma), ("har", har))}


class Autoregression(msgspec.Struct, frozen=True):
    """The price's own past: its return over each horizon, linear in its returns until now."""

    coefficients: tuple[tuple[float, ...], ...]
    """Per horizon, one per window of `AR_WINDOWS_MIN`."""

    def returns_bps(self, matrix: Floats) -> Floats:
        """Forecasts of the log return over 1…5 min, bps, shape (n, 5), from (n, MODEL_FEATURES)."""
        return np.asarray(_ar_design(matrix) @ np.asarray(self.coefficients).T)


def fit_autoregression(matrix: Floats, returns_bps: Floats) -> Autoregression:
    """Least squares of `returns_bps` (n, 5), each row in units of its volatility, or a few wild hours would decide.

    Without a constant: a drift of minutes is noise.
    """
    weight = np.exp(-0.5 * _ewma_level(matrix, AR_SCALE_MIN))[:, np.newaxis]
    coefficients = np.linalg.lstsq(_ar_design(matrix) * weight, returns_bps * weight, rcond=None)[0]
    return Autoregression(tuple(tuple(column) for column in coefficients.T.tolist()))


def fit_baselines(matrix: Floats, labels: Floats, floor: Floats) -> Baselines:
    """Least squares for HAR, mean ratios for EWMA; `labels` (n, 5) are floored at `floor` (5,).

    Raises `NotReady` below `MIN_ROWS` usable rows.
    """
    design = _har_design(matrix)
    known = ~np.isnan(design).any(axis=1)
    if int(known.sum()) < MIN_ROWS:
        msg = f"the baselines need at least {MIN_ROWS} labelled rows, got {int(known.sum())}"
        raise NotReady(msg)
    coefficients = np.linalg.lstsq(design[known], np.log(labels[known]), rcond=None)[0]
    smearing = (labels[known] / np.exp(design[known] @ coefficients)).mean(axis=0)
    ratios = {half_life: _ewma_ratio(matrix, labels, half_life) for half_life in catalogue.EWMA_HALF_LIVES_MIN}
    best = min(ratios, key=lambda half_life: ratios[half_life][1])
    return Baselines(
        har=tuple(tuple(column) for column in coefficients.T.tolist()),
        har_smearing=tuple(smearing.tolist()),
        ewma_half_life_min=best,
        ewma_ratio=tuple(ratios[best][0].tolist()),
        floor=tuple(floor.tolist()),
    )


def _ewma_ratio(matrix: Floats, labels: Floats, half_life: int) -> tuple[Floats, float]:
    """Mean ratio per horizon, and the QLIKE it gives at five minutes."""
    level = np.exp(_ewma_level(matrix, half_life))[:, np.newaxis]
    ratio = np.asarray((labels / level).mean(axis=0))
    return ratio, scores.qlike(labels[:, -1], level[:, 0] * ratio[-1])


def _ewma_level(matrix: Floats, half_life: int) -> Floats:
    """Ln of the variance of a minute; while EWMA is not covered (after a gap), that of the last five minutes."""
    level = matrix[:, _column(f"log_ewma_{half_life}m")]
    return np.where(np.isnan(level), matrix[:, _column("log_rv_5m")] - np.log(5.0), level)


def _har_design(matrix: Floats) -> Floats:
    """Intercept and log RVs; a window that is not covered yet is the one before it, scaled to its length."""
    logs = np.array(matrix[:, _HAR_COLUMNS], np.float64)
    for place in range(1, len(HAR_WINDOWS_MIN)):
        longer = np.log(HAR_WINDOWS_MIN[place] / HAR_WINDOWS_MIN[place - 1])
        logs[:, place] = np.where(np.isnan(logs[:, place]), logs[:, place - 1] + longer, logs[:, place])
    return np.column_stack([np.ones(len(logs)), logs])


def _ar_design(matrix: Floats) -> Floats:
    """Returns in bps; a window that is not covered yet counts as no move."""
    return np.nan_to_num(np.asarray(matrix[:, _AR_COLUMNS], np.float64))
