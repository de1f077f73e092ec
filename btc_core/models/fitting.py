"""How the two models are fitted. `btc evaluate` and the Dagster assets both call this, so what is judged is what serves.

Volatility: HARX on the last two months, and trees and a net on years that correct it (`fit_volatility`).
Bid: small trees on the return in units of σ̂, shrunk by λ (`fit_bid`).
What does not belong here: decisions that could have been others (`recipe`), judging (`evaluation`,
`btc_assets.training`), what a fitted model does (`bundle`), and where trees are grown (`trainers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY
from btc_core.errors import NotReady
from btc_core.features.catalogue import DRIFTING_FEATURES, MODEL_FEATURES
from btc_core.models import scores
from btc_core.models.baselines import fit_autoregression, fit_baselines
from btc_core.models.bundle import BidModel, VolatilityModel, random_walk_model
from btc_core.models.dataset import Frame, make_frame, split_by_time
from btc_core.models.harx import fit_harx
from btc_core.models.histograms import histogram_of
from btc_core.models.intervals import as_fields, bid_score, fit_quantiles, volatility_score
from btc_core.models.later_variances import later_variances
from btc_core.models.manifest import NET_MEMBER, TREES_MEMBER, Member, new_manifest
from btc_core.models.model_rows import has_columns, tree_inputs
from btc_core.models.net import net_inputs
from btc_core.models.net_fitting import fit_net
from btc_core.models.recipe import RECIPE, BidRecipe, HarxRecipe, Recipe
from btc_core.models.targets import VARIANCE_TARGETS
from btc_core.models.trainers import in_memory
from btc_core.names import BID_MODEL, HORIZONS_MIN, VOLATILITY_MODEL, ModelKind

if TYPE_CHECKING:
    import numpy.typing as npt
    import xgboost

    from btc_core.models.net import Net
    from btc_core.models.pooling import Pool
    from btc_core.models.trainers import Trainer

    Floats = npt.NDArray[np.float64]


def fit_volatility(
    frame: Frame, recipe: Recipe = RECIPE, trainer: Trainer = in_memory, pool: Pool | None = None
) -> VolatilityModel:
    """HARX and the simple baselines, and trees and a net where there is enough history; the model's kind says which.

    With a `pool`, trees and net are those of the pool up to the last row of `frame`, however short its history is. Raises
    `NotReady` when there are too few rows even for HARX.
    """
    recent = frame.last_days(recipe.harx.window_days)
    try:
        harx = fit_harx(recent.harx_inputs, recent.realized, recent.days, recipe.harx)
    except ValueError as error:
        raise NotReady(str(error)) from error
    floor = np.asarray(harx.rv_floor)
    common = frame.last_days(recipe.baselines.window_days)
    baselines = fit_baselines(common.matrix, np.maximum(common.realized, floor), floor, recipe.baselines)
    targets = VARIANCE_TARGETS[frame.target]
    manifest = new_manifest(VOLATILITY_MODEL, "harx", recipe=recipe.digest, targets=targets, **frame.training_window())
    model = VolatilityModel(manifest, harx, (), baselines)
    if (pool is not None or frame.days >= recipe.trees_need_days) and has_columns(frame.columns).any():
        model = _with_members(model, frame, recipe, trainer, pool)
    late = frame.last_days(recipe.intervals.calibration_days)
    labels = np.maximum(late.realized, floor)
    if model.kind == "xgboost":
        model = _with_offsets(model, late, labels)
    score = volatility_score(labels, np.square(model.predict(late.matrix, late.columns) / 1e4))
    distributions = {
        name: histogram_of(frame.matrix[:, MODEL_FEATURES.index(name)], recipe.histogram_bins)
        for name in DRIFTING_FEATURES
    }
    return model.with_manifest(
        msgspec.structs.replace(model.manifest, distributions=distributions, **as_fields(fit_quantiles(score)))
    )


def _with_members(
    model: VolatilityModel, frame: Frame, recipe: Recipe, trainer: Trainer, pool: Pool | None
) -> VolatilityModel:
    """The model with trees and a net, its own or those of the pool; their offsets are still missing."""
    chosen = recipe.volatility
    labels = np.maximum(frame.realized[has_columns(frame.columns), -1], model.harx.rv_floor[-1])
    level = float(np.log(labels.mean()))
    if pool is not None:
        trees, net = pool.volatility_members(int(frame.origin_ns[-1]))
    else:
        trees, net = _fit_members(frame, labels, level, recipe, trainer)
    manifest = msgspec.structs.replace(
        model.manifest,
        kind="xgboost",
        pool=pool.symbols if pool is not None else (),
        level=level,
        harx_share=chosen.harx_start_share,
        harx_shape_share=chosen.harx_shape_share,
        correction_factor=chosen.correction_factor,
        members={TREES_MEMBER: Member(1.0 - chosen.net_share), NET_MEMBER: Member(chosen.net_share)},
    )
    return VolatilityModel(manifest, model.harx, (trees,), model.baselines, net)


def _fit_members(
    frame: Frame, labels: Floats, level: float, recipe: Recipe, trainer: Trainer
) -> tuple[xgboost.Booster, Net]:
    """Trees that start from HARX and `level`, and a net, fitted on the rows that have columns; `labels` are of these rows."""
    chosen = recipe.volatility
    known = frame.take(has_columns(frame.columns))
    harx = rolling_log_variance(frame, recipe)[has_columns(frame.columns), -1]
    start = chosen.harx_start_share * harx + (1.0 - chosen.harx_start_share) * level
    with trainer(tree_inputs(known.matrix, known.columns), chosen.booster.max_bin) as train:
        scaled = labels * chosen.label_scale
        trees = train(chosen.booster.params(), chosen.trees, scaled, start + np.log(chosen.label_scale))
    later = later_variances(known.origin_ns, known.columns, chosen.net.later_windows_min)
    return trees, fit_net(net_inputs(known.matrix, known.columns, harx), harx, labels, later, chosen.net)


def _with_offsets(model: VolatilityModel, late: Frame, labels: Floats) -> VolatilityModel:
    """The model with the offsets of its members, then those of their mean, from the newest rows; `labels` are theirs."""
    known = has_columns(late.columns)
    rows, labels = late.take(known), labels[known]
    members = {
        name: Member(model.manifest.members[name].share, float(np.log((labels / np.square(sigma / 1e4))[:, -1].mean())))
        for name, sigma in model.members(rows.matrix, rows.columns).items()
    }
    model = model.with_manifest(msgspec.structs.replace(model.manifest, members=members))
    raw = np.square(model.predict(rows.matrix, rows.columns) / 1e4)
    offsets = np.log((labels / raw).mean(axis=0))
    return model.with_manifest(msgspec.structs.replace(model.manifest, offsets=tuple(offsets.tolist())))


def rolling_log_variance(frame: Frame, recipe: Recipe = RECIPE) -> Floats:
    """Ln of HARX's forecasts (n, 5), each row by a HARX fitted on the window before the row's week."""
    window_ns = int(recipe.harx.window_days * NS_PER_DAY)
    refit_ns = recipe.volatility.harx_refit_days * NS_PER_DAY
    first = int(frame.origin_ns[0]) + int(recipe.volatility.harx_first_days * NS_PER_DAY)
    last = int(frame.origin_ns[-1])
    logs = np.empty((len(frame.origin_ns), len(HORIZONS_MIN)))
    done = 0
    for border in range(min(first, last), last + 1, refit_ns):
        known = frame.between(border - window_ns, border - recipe.dataset.embargo_ns)
        if len(known.origin_ns) < recipe.harx.min_rows:  # after a gap as long as the window: the newest rows before it
            known = frame.between(0, border - recipe.dataset.embargo_ns).last_days(recipe.harx.window_days)
        harx = fit_harx(known.harx_inputs, known.realized, known.days, recipe.harx)
        until = int(np.searchsorted(frame.origin_ns, border + refit_ns, side="right"))
        logs[done:until] = harx.log_variance(frame.take(slice(done, until)).harx_inputs)
        done = until
    return logs


def pool_log_variance(frame: Frame, recipe: Recipe = RECIPE) -> Floats:
    """What `rolling_log_variance` gives for the rows of a pool, (n, 5).

    A fit on the pool up to some time must not see anything after it. Therefore the first HARX, which has seen the rows that
    it forecasts, ends in the middle of a history that is shorter than its window: long before the days that judge a fit.
    """
    first_days = min(recipe.volatility.harx_first_days, 0.5 * frame.days)
    volatility = msgspec.structs.replace(recipe.volatility, harx_first_days=first_days)
    return rolling_log_variance(frame, msgspec.structs.replace(recipe, volatility=volatility))


def harx_bundle(bars: npt.NDArray[Any], recipe: Recipe = RECIPE) -> VolatilityModel:
    """The HARX baseline (kind `harx`) from a few hours of minute bars, for a cold start.

    `bars` are of dtype `bars.BARS` and sorted. Raises `NotReady` when they are too few, which is about an hour of them.
    """
    frame = make_frame(bars, msgspec.structs.replace(recipe.dataset, min_bars=1))
    return fit_volatility(frame.last_days(recipe.trees_need_days - 1.0), recipe)


def fit_bid(frame: Frame, recipe: Recipe = RECIPE, trainer: Trainer = in_memory, pool: Pool | None = None) -> BidModel:
    """Choose λ on the last part of the window, then fit on all of it; where every λ is 0 it is the random walk.

    With a `pool`, the trees are those of the pool, and only λ is chosen on the frame.
    """
    recent = frame.last_days(recipe.bid.window_days)
    if recent.days < recipe.trees_need_days:
        return random_walk_model()
    fitted, validation = split_by_time(recent, 1.0 - recipe.bid.validation_share, recipe.dataset.embargo_ns)
    unshrunk = _unshrunk_forecast(fitted, validation, recipe, trainer, pool)
    shrinkage = choose_lambda(validation.bid_bps, unshrunk, recipe.bid)
    return serve_bid(recent, shrinkage, recipe, trainer, pool)


def serve_bid(
    frame: Frame,
    shrinkage: Floats,
    recipe: Recipe = RECIPE,
    trainer: Trainer = in_memory,
    pool: Pool | None = None,
) -> BidModel:
    """The bid model with the given λ (5,), fitted on `frame` and calibrated on its newest part."""
    kind: ModelKind = "xgboost" if shrinkage.any() else "random_walk"
    sigma = harx_sigma(frame, frame, recipe.harx)
    boosters = _bid_trees(frame, sigma, recipe, trainer, pool) if shrinkage.any() else ()
    manifest = new_manifest(
        BID_MODEL, kind, shrinkage=tuple(shrinkage.tolist()), recipe=recipe.digest, **frame.training_window()
    )
    if boosters and pool is not None:
        manifest = msgspec.structs.replace(manifest, pool=pool.symbols)
    common = frame.last_days(recipe.baselines.window_days)
    autoregression = fit_autoregression(common.matrix, common.bid_bps, recipe.baselines)
    model = BidModel(manifest, boosters, autoregression)
    late = frame.last_days(recipe.intervals.calibration_days)
    sigma = sigma[-len(late.origin_ns) :]
    score = bid_score(late.bid_bps, model.predict(late.matrix, sigma), sigma)
    return BidModel(msgspec.structs.replace(manifest, **as_fields(fit_quantiles(score))), boosters, autoregression)


def _bid_trees(
    frame: Frame, sigma_bps: Floats, recipe: Recipe, trainer: Trainer, pool: Pool | None
) -> tuple[xgboost.Booster, ...]:
    """The trees of the pool up to the last row of `frame`, or without one those of `frame` itself."""
    if pool is not None:
        return pool.bid_trees(int(frame.origin_ns[-1]))
    return grow_bid(frame, sigma_bps, recipe.bid, trainer)


def grow_bid(
    frame: Frame, sigma_bps: Floats, recipe: BidRecipe = RECIPE.bid, trainer: Trainer = in_memory
) -> tuple[xgboost.Booster, ...]:
    """For each horizon small trees on the return in units of σ̂; `sigma_bps` is (n, 5)."""
    scaled = np.clip(frame.bid_bps / sigma_bps, -recipe.max_move_sigmas, recipe.max_move_sigmas)
    with trainer(frame.matrix, recipe.booster.max_bin) as train:
        return tuple(
            train(recipe.booster.params(), recipe.trees, scaled[:, column]) for column in range(len(HORIZONS_MIN))
        )


def choose_lambda(actual_bps: Floats, unshrunk_bps: Floats, recipe: BidRecipe = RECIPE.bid) -> Floats:
    """For each horizon the λ with the smallest squared error, shape (5,), on rows in time order.

    It is 0 unless the gain over the random walk is more than luck and there is some in every part of the block.
    """
    candidates = np.linspace(0.0, 1.0, recipe.lambda_count)
    errors = [np.square(actual_bps - weight * unshrunk_bps).mean(axis=0) for weight in candidates]
    best = np.asarray(candidates[np.argmin(errors, axis=0)], np.float64)
    losses, walk = np.square(actual_bps - best * unshrunk_bps), np.square(actual_bps)
    t = [scores.diebold_mariano_t(losses[:, column], walk[:, column]) for column in range(len(best))]
    gains = [part.mean(axis=0) < 0.0 for part in np.array_split(losses - walk, recipe.validation_parts)]
    return np.where((np.asarray(t) < recipe.max_dm_t) & np.all(gains, axis=0), best, 0.0)


def least_shrinkage(recipe: BidRecipe = RECIPE.bid) -> Floats:
    """The least λ above 0 that is tried, at every horizon, (5,): with it, trees forecast that no λ was proven for."""
    return np.full(len(HORIZONS_MIN), np.linspace(0.0, 1.0, recipe.lambda_count)[1])


def harx_sigma(train: Frame, rows: Frame, recipe: HarxRecipe = RECIPE.harx) -> Floats:
    """σ in bps of a HARX fitted on `train`, for `rows`."""
    harx = fit_harx(train.harx_inputs, train.realized, train.days, recipe)
    return np.exp(0.5 * harx.log_variance(rows.harx_inputs)) * 1e4


def _unshrunk_forecast(train: Frame, rows: Frame, recipe: Recipe, trainer: Trainer, pool: Pool | None) -> Floats:
    """The forecast f · σ̂ before λ, bps, for `rows`, fitted on `train`."""
    boosters = _bid_trees(train, harx_sigma(train, train, recipe.harx), recipe, trainer, pool)
    symbols = pool.symbols if pool is not None else ()
    manifest = new_manifest(BID_MODEL, "xgboost", shrinkage=(1.0,) * len(HORIZONS_MIN), pool=symbols)
    return BidModel(manifest, boosters).predict(rows.matrix, harx_sigma(train, rows, recipe.harx))
