"""The log-HARX baseline of realized variance: linear, fitted in milliseconds, and hard to beat.

It regresses ln RV of the next h minutes on ln RV of past windows, Parkinson variances, volumes and the hour of the day
(Corsi 2009 with exogenous terms). exp of the regression is the median; multiplied by Duan's (1983) smearing factor
mean(RV / exp(fit)) it is the mean, which QLIKE asks for: no other factor has a smaller QLIKE in training.

A feature that is missing is replaced: a window by the next shorter one, scaled to its length, and a volume by its mean in
training. A row without any realized variance gets no forecast (NaN).
What does not belong here: trees (`trees`, `bundle`), and features (`btc_core.features`).
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.compiled import njit
from btc_core.features.catalogue import MODEL_FEATURES, PARKINSON_WINDOWS_MIN, RV_WINDOWS_MIN, VOLUME_WINDOWS_MIN
from btc_core.models.recipe import RECIPE, HarxRecipe

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

INPUTS: tuple[str, ...] = (
    *(f"log_rv_{w}m" for w in RV_WINDOWS_MIN),
    *(f"log_parkinson_{w}m" for w in PARKINSON_WINDOWS_MIN),
    *(f"log_volume_{w}m" for w in VOLUME_WINDOWS_MIN),
    "minute_of_day_sin",
    "minute_of_day_cos",
)
"""Features that HARX reads, in the order of its own input matrix. Some are not terms and only replace missing ones."""
INPUT_COLUMNS = np.array([MODEL_FEATURES.index(name) for name in INPUTS])
"""Their columns among the features of a model."""

_RV_END = len(RV_WINDOWS_MIN)
_PARKINSON_END = _RV_END + len(PARKINSON_WINDOWS_MIN)
_VOLUMES_END = _PARKINSON_END + len(VOLUME_WINDOWS_MIN)
_RV_5M = INPUTS.index("log_rv_5m")
_PARKINSON_5M = INPUTS.index("log_parkinson_5m")


class Harx(msgspec.Struct, frozen=True, dict=True):
    """A fitted HARX; its arrays are tuples, so that it is plain JSON."""

    terms: tuple[str, ...]
    """The inputs that are linear terms: realized variances, then Parkinson variances, then volumes."""
    coefficients: tuple[tuple[float, ...], ...]
    """One row for each horizon: the intercept, the linear terms, and 24 hours of the day."""
    smearing: tuple[float, ...]
    """One factor for each horizon."""
    rv_floor: tuple[float, ...]
    """The smallest forecast and label of each horizon, ln²."""
    volume_means: tuple[float, ...]
    """Replace missing volumes, in the order of the terms."""
    range_offset: float
    """Mean of ln Parkinson minus ln RV over five minutes, from which a missing Parkinson variance is replaced."""

    def log_variance(self, inputs: Floats) -> Floats:
        """Ln of the mean forecast of RV over each horizon, shape (n, horizons), from `INPUTS` of shape (n, len(INPUTS))."""
        columns, volume_means, coefficients, log_smearing, log_floor = self._arrays
        logs: Floats = (
            _products(design_of(inputs, columns, volume_means, self.range_offset), coefficients) + log_smearing
        )
        return np.asarray(np.maximum(logs, log_floor))  # NaN stays NaN

    def is_at_floor(self, inputs: Floats) -> npt.NDArray[np.bool_]:
        """Whether the forecast of the headline horizon is the floor, (n,), from `INPUTS` of shape (n, len(INPUTS))."""
        return np.asarray(self.log_variance(inputs)[:, -1] <= np.log(self.rv_floor[-1]))

    @functools.cached_property
    def floor_bps(self) -> float:
        """The smallest forecast of σ over the headline horizon, bps, a little above what `rv_floor` says for rounding."""
        return math.sqrt(self.rv_floor[-1]) * 1e4 * (1.0 + 1e-9)

    @functools.cached_property
    def _arrays(self) -> tuple[Longs, Floats, Floats, Floats, Floats]:
        """Columns of the terms, mean volumes, coefficients (terms, 5), and ln of the smearing and of the floor (5,).

        They are cached because building them takes longer than forecasting one row.
        """
        return (
            columns_of(self.terms),
            np.asarray(self.volume_means, np.float64),
            np.ascontiguousarray(np.asarray(self.coefficients).T),
            np.log(self.smearing),
            np.log(self.rv_floor),
        )

    def to_json(self) -> bytes:
        """The whole model, floats to the last bit."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Harx:
        """The inverse of `to_json`; raises msgspec's errors on anything else."""
        return msgspec.json.decode(data, type=cls)


def fit_harx(inputs: Floats, realized: Floats, days: float, recipe: HarxRecipe = RECIPE.harx) -> Harx:
    """Ridge regression for each horizon on ln max(RV, floor), then the smearing factor.

    `inputs` is (n, len(INPUTS)) and `realized` (n, 5) in ln²; rows with a NaN label or without any RV feature are left out.
    `days` is the length of the history. Raises `ValueError` when fewer than `recipe.min_rows` rows are usable.
    """
    terms = terms_of(recipe)
    columns = columns_of(terms)
    range_offset, volume_means = replacements_of(inputs, columns)
    design = design_of(inputs, columns, volume_means, range_offset)
    if days < recipe.hours_need_days:
        design[:, 1 + len(columns) :] = 0.0
    usable = ~np.isnan(design).any(axis=1) & ~np.isnan(realized).any(axis=1)
    if int(usable.sum()) < recipe.min_rows:
        msg = f"HARX needs at least {recipe.min_rows} labelled rows, got {int(usable.sum())}"
        raise ValueError(msg)
    design, labels = design[usable], realized[usable]
    floors = np.maximum(np.nanquantile(labels, recipe.rv_floor_quantile, axis=0), recipe.rv_floor_min_ln2)
    labels = np.maximum(labels, floors)
    coefficients = ridge(design, np.log(labels), recipe.ridge_rows)
    smearing = (labels / np.exp(design @ coefficients)).mean(axis=0)
    return Harx(
        terms=terms,
        coefficients=tuple(tuple(column.tolist()) for column in coefficients.T),
        smearing=tuple(smearing.tolist()),
        rv_floor=tuple(floors.tolist()),
        volume_means=tuple(volume_means.tolist()),
        range_offset=range_offset,
    )


def terms_of(recipe: HarxRecipe) -> tuple[str, ...]:
    """The terms of the recipe, in the order of `Harx.terms`."""
    return (
        *(f"log_rv_{w}m" for w in recipe.rv_windows_min),
        *(f"log_parkinson_{w}m" for w in recipe.parkinson_windows_min),
        *(f"log_volume_{w}m" for w in recipe.volume_windows_min),
    )


def columns_of(terms: tuple[str, ...]) -> Longs:
    """The places of the terms among `INPUTS`."""
    return np.array([INPUTS.index(name) for name in terms], np.int64)


def replacements_of(inputs: Floats, columns: Longs) -> tuple[float, Floats]:
    """What replaces missing features: the offset of Parkinson variances, and the mean of each volume that is a term."""
    gaps = inputs[:, _PARKINSON_5M] - inputs[:, _RV_5M]
    gaps = gaps[~np.isnan(gaps)]
    offset = float(gaps.mean()) if len(gaps) else 0.0
    means = []
    for column in columns[columns >= _PARKINSON_END]:
        known = inputs[:, column][~np.isnan(inputs[:, column])]
        means.append(float(known.mean()) if len(known) else 0.0)
    return offset, np.array(means)


def design_of(inputs: Floats, columns: Longs, volume_means: Floats, range_offset: float) -> Floats:
    """Intercept, linear terms and hours, shape (n, 1 + terms + 24); a row without any RV is NaN."""
    design = np.zeros((len(inputs), 1 + len(columns) + 24))
    _fill_design(design, np.ascontiguousarray(inputs), columns, volume_means, range_offset)
    return design


@njit
def _products(design: Floats, coefficients: Floats) -> Floats:
    """The product of two matrices, (n, terms) and (terms, 5), row by row.

    In the product of numpy, the last bits of a row depend on the number of rows, and a forecast could not be verified alone.
    """
    out = np.zeros((len(design), coefficients.shape[1]))
    for row in range(len(design)):
        for term in range(len(coefficients)):
            for horizon in range(coefficients.shape[1]):
                out[row, horizon] += design[row, term] * coefficients[term, horizon]
    return out


@njit
def _replace_missing_windows(rv: Floats) -> None:
    """Replace a missing window by the next shorter one, and the shortest ones by the next longer, scaled to their length."""
    for window in range(1, _RV_END):
        if math.isnan(rv[window]):
            rv[window] = rv[window - 1] + math.log(RV_WINDOWS_MIN[window] / RV_WINDOWS_MIN[window - 1])
    for window in range(_RV_END - 2, -1, -1):
        if math.isnan(rv[window]):
            rv[window] = rv[window + 1] + math.log(RV_WINDOWS_MIN[window] / RV_WINDOWS_MIN[window + 1])


@njit
def _fill_design(design: Floats, inputs: Floats, columns: Longs, volume_means: Floats, range_offset: float) -> None:
    rv = np.empty(_RV_END)
    for row in range(len(inputs)):
        features = inputs[row]
        rv[:] = features[:_RV_END]
        _replace_missing_windows(rv)
        terms = design[row]
        terms[0] = 1.0
        place, volume = 1, 0
        for column in columns:
            value = features[column]
            if column < _RV_END:
                value = rv[column]
            elif column < _PARKINSON_END:
                if math.isnan(value):
                    minutes = PARKINSON_WINDOWS_MIN[column - _RV_END]
                    value = rv[_RV_5M] + math.log(minutes / 5.0) + range_offset
            else:
                if math.isnan(value):
                    value = volume_means[volume]
                volume += 1
            terms[place] = value
            place += 1
        angle = math.atan2(features[_VOLUMES_END], features[_VOLUMES_END + 1]) % (2.0 * math.pi)
        if not math.isnan(angle):
            minute = np.rint(angle / (2.0 * math.pi) * 1440.0) % 1440
            terms[place + int(minute // 60.0)] = 1.0


def ridge(design: Floats, target: Floats, penalty_rows: float) -> Floats:
    """Coefficients (columns, 5) of ridge regression on standardised columns; the intercept is not penalised."""
    centre = design.mean(axis=0)
    scale = design.std(axis=0)
    centre[0], scale[0] = 0.0, 1.0
    scale[scale < 1e-9] = math.inf  # the coefficient of a constant column becomes 0
    standard = (design - centre) / scale
    standard[:, 0] = 1.0
    penalty = np.full(design.shape[1], penalty_rows)
    penalty[0] = 0.0
    gram = standard.T @ standard + np.diag(penalty)
    solved: Floats = np.linalg.solve(gram, standard.T @ target)
    coefficients: Floats = solved / scale[:, np.newaxis]
    coefficients[0] = solved[0] - centre[1:] @ coefficients[1:]
    return coefficients
