"""The log-HARX baseline of realized variance: linear, frozen, fitted in milliseconds, hard to beat.

ln RV of the next h minutes on ln RV of the last 5, 15, 60, 240 and 1440 min, Parkinson variances, volumes and the hour
(Corsi 2009 with exogenous terms). exp of it is the median; times Duan's (1983) smearing factor mean(RV / exp(fit)) it
is the mean, which is what QLIKE asks for; no other factor on that forecast has a smaller QLIKE in training.

A feature that is not there yet is replaced: a window by the next shorter one scaled to its length, a volume by its mean
in training. Without any realized variance there is no forecast (NaN).
What does not belong here: trees (`bundle`), and features (`fold`).
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.compiled import njit
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

RV_FLOOR_QUANTILE = 0.02
"""Share of the smallest RVs that count as this quantile: a minute without trades is not a minute without risk.
Higher hides calm markets, 0 lets ln 0 into the fit."""
RV_FLOOR_MIN = 1e-10
"""(0.1 bps)², the fold's own floor of a variance."""
RIDGE_ROWS = 30.0
"""Penalty in rows of evidence against each standardised coefficient: nothing at thousands of rows, calm at hundreds."""
HOURS_NEED_DAYS = 7.0
"""Shorter histories get no hour-of-day terms: with few days an hour's effect and the level of that hour are one."""
MIN_ROWS = 60
"""Fewer labelled rows than this are refused: about an hour of bars."""

_WINDOWS_MIN = (5, 15, 60, 240, 1440)
_FALLBACK_MIN = (1, 5, 15, 30, 60, 240, 1440)
_PARKINSON_MIN = (1, 5, 30)
_VOLUMES = tuple(f"log_volume_{w}m" for w in (1, 5, 15, 60, 240))
INPUTS: tuple[str, ...] = (
    *(f"log_rv_{w}m" for w in _FALLBACK_MIN),
    *(f"log_parkinson_{w}m" for w in _PARKINSON_MIN),
    *_VOLUMES,
    "minute_of_day_sin",
    "minute_of_day_cos",
)
"""Features that HARX reads, in the order of its own input matrix."""

_N_RV, _N_PARKINSON, _N_VOLUMES = len(_FALLBACK_MIN), len(_PARKINSON_MIN), len(_VOLUMES)
_WINDOW_COLUMNS = tuple(_FALLBACK_MIN.index(window) for window in _WINDOWS_MIN)
_N_LINEAR = len(_WINDOWS_MIN) + _N_PARKINSON + _N_VOLUMES


class Harx(msgspec.Struct, frozen=True, dict=True):
    """A fitted HARX; arrays as tuples so that it is plain JSON.

    `coefficients` has one row per horizon: intercept, the linear terms, 24 hours. `rv_floor` is ln² per horizon.
    """

    coefficients: tuple[tuple[float, ...], ...]
    smearing: tuple[float, ...]
    rv_floor: tuple[float, ...]
    volume_means: tuple[float, ...]
    range_offset: float
    """Mean of ln Parkinson minus ln RV over 5 min: what stands in for a missing range."""

    def log_variance(self, inputs: Floats) -> Floats:
        """Ln of the mean forecast of RV over 1…5 min, shape (n, 5), from `INPUTS` of shape (n, len(INPUTS))."""
        coefficients, log_smearing, log_floor = self._arrays
        logs: Floats = _design(inputs, self.volume_means, self.range_offset) @ coefficients + log_smearing
        return np.maximum(logs, log_floor)  # NaN stays NaN

    @functools.cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        """Coefficients (terms, 5), ln of the smearing and of the floor (5,): made once, not for every row."""
        return np.asarray(self.coefficients).T, np.log(self.smearing), np.log(self.rv_floor)

    def to_json(self) -> bytes:
        """The whole model, floats to the last bit."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Harx:
        """The inverse of `to_json`; raises msgspec's errors on anything else."""
        return msgspec.json.decode(data, type=cls)


def rv_floors(realized: Floats) -> Floats:
    """Per horizon the `RV_FLOOR_QUANTILE` of the labels, ln², at least `RV_FLOOR_MIN`; shape (5,)."""
    return np.maximum(np.nanquantile(realized, RV_FLOOR_QUANTILE, axis=0), RV_FLOOR_MIN).astype(np.float64)


def fit_harx(inputs: Floats, realized: Floats, days: float) -> Harx:
    """Least squares per horizon on ln max(RV, floor), then the smearing factor.

    `inputs`: (n, len(INPUTS)); `realized`: (n, 5) in ln², rows with any NaN label or no RV feature are left out;
    `days` is the length of the history. Raises `ValueError` below `MIN_ROWS` usable rows.
    """
    range_offset, volume_means = _stand_ins(inputs)
    design = _design(inputs, volume_means, range_offset)
    if days < HOURS_NEED_DAYS:
        design[:, 1 + _N_LINEAR :] = np.where(np.isnan(design[:, 1 + _N_LINEAR :]), np.nan, 0.0)
    usable = ~np.isnan(design).any(axis=1) & ~np.isnan(realized).any(axis=1)
    if int(usable.sum()) < MIN_ROWS:
        msg = f"HARX needs at least {MIN_ROWS} labelled rows, got {int(usable.sum())}"
        raise ValueError(msg)
    design, labels = design[usable], realized[usable]
    floors = rv_floors(labels)
    labels = np.maximum(labels, floors)
    coefficients = _ridge(design, np.log(labels))
    smearing = (labels / np.exp(design @ coefficients)).mean(axis=0)
    return Harx(
        coefficients=tuple(tuple(column.tolist()) for column in coefficients.T),
        smearing=tuple(smearing.tolist()),
        rv_floor=tuple(floors.tolist()),
        volume_means=volume_means,
        range_offset=range_offset,
    )


def _stand_ins(inputs: Floats) -> tuple[float, tuple[float, ...]]:
    """What replaces missing features: the offset of ranges, and the mean volumes."""
    rv_5m = inputs[:, 1]
    parkinson = inputs[:, _N_RV + 1]
    gaps = (parkinson - rv_5m)[~np.isnan(parkinson - rv_5m)]
    offset = float(gaps.mean()) if len(gaps) else 0.0
    means = []
    for column in range(_N_RV + _N_PARKINSON, _N_RV + _N_PARKINSON + _N_VOLUMES):
        known = inputs[:, column][~np.isnan(inputs[:, column])]
        means.append(float(known.mean()) if len(known) else 0.0)
    return offset, tuple(means)


def _design(inputs: Floats, volume_means: tuple[float, ...], range_offset: float) -> Floats:
    """Intercept, linear terms and hours, shape (n, 1 + linear + 24); a row without any RV is NaN."""
    design = np.zeros((len(inputs), 1 + _N_LINEAR + 24))
    _fill_design(design, np.ascontiguousarray(inputs), np.asarray(volume_means), range_offset)
    return design


@njit
def _fill_design(design: Floats, inputs: Floats, volume_means: Floats, range_offset: float) -> None:
    rv = np.empty(_N_RV)
    for row in range(len(inputs)):
        given = inputs[row]
        rv[:] = given[:_N_RV]
        for column in range(1, _N_RV):  # a missing long window is the next shorter one, scaled to its length
            if math.isnan(rv[column]):
                rv[column] = rv[column - 1] + math.log(_FALLBACK_MIN[column] / _FALLBACK_MIN[column - 1])
        for column in range(_N_RV - 2, -1, -1):  # a missing short window is the next longer one
            if math.isnan(rv[column]):
                rv[column] = rv[column + 1] + math.log(_FALLBACK_MIN[column] / _FALLBACK_MIN[column + 1])
        out = design[row]
        out[0] = 1.0
        place = 1
        for column in _WINDOW_COLUMNS:
            out[place] = rv[column]
            place += 1
        for column in range(_N_PARKINSON):
            value = given[_N_RV + column]
            stand_in = rv[1] + math.log(_PARKINSON_MIN[column] / 5.0) + range_offset
            out[place] = stand_in if math.isnan(value) else value
            place += 1
        for column in range(_N_VOLUMES):
            value = given[_N_RV + _N_PARKINSON + column]
            out[place] = volume_means[column] if math.isnan(value) else value
            place += 1
        angle = math.atan2(given[-2], given[-1]) % (2.0 * math.pi)
        if not math.isnan(angle):
            minute = np.rint(angle / (2.0 * math.pi) * 1440.0) % 1440
            out[place + int(minute // 60.0)] = 1.0


def _ridge(design: Floats, target: Floats) -> Floats:
    """Coefficients (columns, 5) of ridge regression on standardised columns, the intercept free."""
    centre = design.mean(axis=0)
    scale = design.std(axis=0)
    centre[0], scale[0] = 0.0, 1.0
    scale[scale < 1e-9] = math.inf  # a constant column has no say
    standard = (design - centre) / scale
    standard[:, 0] = 1.0
    penalty = np.full(design.shape[1], RIDGE_ROWS)
    penalty[0] = 0.0
    gram = standard.T @ standard + np.diag(penalty)
    solved: Floats = np.linalg.solve(gram, standard.T @ target)
    coefficients: Floats = solved / scale[:, np.newaxis]
    coefficients[0] = solved[0] - centre[1:] @ coefficients[1:]
    return coefficients


assert len(HORIZONS_MIN) == 5  # noqa: S101 - the shapes above say 5
