"""HARX coefficients of other markets, towards which the HARX of a market with little history is shrunk.

The coefficients have no scale. Those of the variances add up to one, so that a market of twice the variance is forecast
twice the variance, and volumes have none, because their unit differs between markets. The forecast therefore has the
market's own level from the first hour on.

The rule of the shrinkage, for each horizon: the residuals of the prior's forecasts of ln RV are regressed on the centred
terms, and each standardised coefficient of this correction is penalised as much as `slope_rows` rows of evidence weigh,
its constant as much as `constant_rows`. The smearing factor and the floor are means of the market's own and the prior's,
with the same weights. A row of evidence is a five-minute slot of the history. With an hour (12 rows) the prior forecasts;
with two months (17,280 rows) the market's own fit does.
What does not belong here: HARX itself (`harx`), and the trees and the net on top of it (`pretrained`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.models.harx import Harx, columns_of, design_of, replacements_of, ridge, terms_of
from btc_core.models.recipe import RECIPE, HarxRecipe
from btc_core.names import APART_MIN, HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from btc_core.models.dataset import Frame

    Floats = npt.NDArray[np.float64]

REFERENCE = "log_rv_60m"
"""The term that takes what the coefficients of the other variances leave of one."""
EVIDENCE_NS = APART_MIN * NS_PER_MIN
"""Labels that begin within one slot of this length overlap, and count as one row of evidence."""


class ShrinkageRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """How much evidence of its own a market needs; the values were chosen on fresh starts in July to December 2023."""

    slope_rows: float = 2000.0
    """Weight of the prior's slopes, in rows of evidence."""
    constant_rows: float = 100.0
    """Weight of the prior's constant, its smearing factor and its floor, in rows of evidence."""
    min_rows: int = 30
    """Fewer labelled minutes are refused: half an hour of bars."""


class HarxPrior(msgspec.Struct, frozen=True):
    """A HARX without scale; its arrays are tuples, so that it is plain JSON."""

    terms: tuple[str, ...]
    coefficients: tuple[tuple[float, ...], ...]
    """One row for each horizon, as in `Harx`."""
    scale: tuple[float, ...]
    """Standard deviation of each column of the design within a market."""
    smearing: tuple[float, ...]
    floor_over_mean: tuple[float, ...]
    """For each horizon the floor of RV as a share of its mean."""
    range_offset: float


def fit_prior(frames: Sequence[Frame], recipe: HarxRecipe = RECIPE.harx) -> HarxPrior:
    """Fit one HARX without scale on the rows of several markets, each of which counts by its rows."""
    terms = terms_of(recipe)
    columns = columns_of(terms)
    offset = float(np.mean([replacements_of(frame.harx_inputs, columns)[0] for frame in frames]))
    designs, targets, shares = [], [], []
    for frame in frames:
        design, labels, floors = _rows(frame, terms, offset, recipe)
        designs.append(design)
        targets.append(np.log(labels))
        shares.append(floors / labels.mean(axis=0))
    variances, volumes = _kinds(terms)
    reference = 1 + terms.index(REFERENCE)
    others = [place for place in variances if place != reference]
    hours = range(1 + len(terms), 1 + len(terms) + 24)
    stacked, target = np.vstack(designs), np.vstack(targets)
    relative = np.zeros_like(stacked)
    relative[:, 0] = 1.0
    relative[:, others] = stacked[:, others] - stacked[:, [reference]]
    relative[:, hours] = stacked[:, hours]
    coefficients = ridge(relative, target - stacked[:, [reference]], recipe.ridge_rows)
    coefficients[reference] = 1.0 - coefficients[others].sum(axis=0)
    smearing = np.exp(target - stacked @ coefficients).mean(axis=0)
    scale = np.sqrt(np.mean([np.square(design.std(axis=0)) for design in designs], axis=0))
    assert not coefficients[volumes].any()  # noqa: S101 - their columns are zero above, and a ridge leaves them there
    return HarxPrior(
        terms=terms,
        coefficients=tuple(tuple(column.tolist()) for column in coefficients.T),
        scale=tuple(scale.tolist()),
        smearing=tuple(smearing.tolist()),
        floor_over_mean=tuple(np.exp(np.log(shares).mean(axis=0)).tolist()),
        range_offset=offset,
    )


def shrunk_harx(prior: HarxPrior, frame: Frame, shrinkage: ShrinkageRecipe, recipe: HarxRecipe = RECIPE.harx) -> Harx:
    """The HARX of a market: its own fit on `frame`, shrunk towards the prior by the rule above.

    Raises `ValueError` when fewer than `shrinkage.min_rows` rows are labelled.
    """
    columns = columns_of(prior.terms)
    own_offset, volume_means = replacements_of(frame.harx_inputs, columns)
    slots = len(np.unique(frame.origin_ns // EVIDENCE_NS))
    trust = slots / (slots + shrinkage.constant_rows)
    offset = trust * own_offset + (1.0 - trust) * prior.range_offset
    design, labels, own_floors = _rows(frame, prior.terms, offset, recipe, volume_means)
    if len(labels) < shrinkage.min_rows:
        msg = f"HARX needs at least {shrinkage.min_rows} labelled rows, got {len(labels)}"
        raise ValueError(msg)
    weight = slots / len(labels)
    relative_floors = np.asarray(prior.floor_over_mean) * labels.mean(axis=0)
    floors = np.exp(trust * np.log(own_floors) + (1.0 - trust) * np.log(relative_floors))
    floors = np.maximum(np.minimum(floors, np.maximum(own_floors, relative_floors)), recipe.rv_floor_min_ln2)
    labels = np.maximum(labels, floors)
    coefficients = np.asarray(prior.coefficients).T.copy()
    residual = np.log(labels) - design @ coefficients
    centre = design.mean(axis=0)
    centred = design - centre
    centred[:, 0] = 1.0
    penalty = shrinkage.slope_rows * np.square(np.maximum(prior.scale, 1e-6))
    penalty[0] = shrinkage.constant_rows
    correction = np.linalg.solve(weight * (centred.T @ centred) + np.diag(penalty), weight * (centred.T @ residual))
    coefficients += correction
    coefficients[0] -= centre[1:] @ correction[1:]
    ratio = labels / np.exp(design @ coefficients)
    smearing = trust * ratio.mean(axis=0) + (1.0 - trust) * np.asarray(prior.smearing)
    return Harx(
        terms=prior.terms,
        coefficients=tuple(tuple(column.tolist()) for column in coefficients.T),
        smearing=tuple(smearing.tolist()),
        rv_floor=tuple(floors.tolist()),
        volume_means=tuple(volume_means.tolist()),
        range_offset=offset,
    )


def _rows(
    frame: Frame, terms: tuple[str, ...], offset: float, recipe: HarxRecipe, volume_means: Floats | None = None
) -> tuple[Floats, Floats, Floats]:
    """The design and the floored labels of the usable rows, and the floors (5,)."""
    columns = columns_of(terms)
    means = replacements_of(frame.harx_inputs, columns)[1] if volume_means is None else volume_means
    design = design_of(frame.harx_inputs, columns, means, offset)
    usable = ~np.isnan(design).any(axis=1) & ~np.isnan(frame.realized).any(axis=1)
    labels = frame.realized[usable]
    if not len(labels):
        return design[usable], labels, np.full(len(HORIZONS_MIN), recipe.rv_floor_min_ln2)
    floors = np.maximum(np.nanquantile(labels, recipe.rv_floor_quantile, axis=0), recipe.rv_floor_min_ln2)
    return design[usable], np.maximum(labels, floors), floors


def _kinds(terms: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """The places of the variances and of the volumes in a row of the design."""
    volumes = [1 + place for place, name in enumerate(terms) if name.startswith("log_volume_")]
    return [1 + place for place in range(len(terms)) if 1 + place not in volumes], volumes
