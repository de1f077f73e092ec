"""What a training run makes of bars: a model that has proven itself on days it has not seen, fitted once more on everything.

What does not belong here: fitting (`btc_core.models.fitting`), where bars come from (`history`), Dagster (`models`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY
from btc_core.errors import SchemaError
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models import bundle, fitting, gate, intervals, scores
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.recipe import RECIPE
from btc_core.models.trainers import trainer_of
from btc_core.names import HORIZONS_MIN, VOLATILITY_MODEL
from btc_core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

BLOCK_DAYS = 7.0
"""The newest days, forecast by a model that has not seen them: candidate, champion and baselines on the same rows."""
BLOCK_SHARE = 0.2
"""Of a history too short for that."""


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A model fitted on everything, and what the gate said of its twin that had not seen the newest days."""

    model: bundle.VolatilityModel | bundle.BidModel
    verdict: gate.Verdict
    is_new: bool = True
    """False when the model in shadow stays the challenger and nothing was trained."""
    unseen: tuple[Floats, Floats] | None = None
    """At five minutes on the newest days: what came, and what the twin said; σ in bps, or returns in bps."""


def params(name: str) -> dict[str, str]:
    """What MLflow shows beside the scores."""
    if name == VOLATILITY_MODEL:
        booster = RECIPE.volatility.booster
        trees = str((RECIPE.volatility.trees_from_harx, RECIPE.volatility.trees_from_level))
    else:
        booster, trees = RECIPE.bid.booster, str(RECIPE.bid.trees)
    shown = {key: str(value) for key, value in booster.params().items()}
    return shown | {"trainer": settings().model.trainer, "trees": trees}


def train(
    name: str,
    bars: npt.NDArray[Any],
    champion: bundle.VolatilityModel | bundle.BidModel | None,
    challenger: bundle.VolatilityModel | bundle.BidModel | None,
    lived: Callable[[int], Frame],
) -> tuple[Trained, Floats]:
    """Train the model called `name` on minute bars; and the rows whose forecasts prove the bundle.

    Against a champion of another recipe it goes into shadow, and a challenger that is in shadow is judged instead, on
    what the stream has `lived` through since a time in ns.
    """
    volatility = name == VOLATILITY_MODEL
    if len(bars) < RECIPE.dataset.min_bars:
        cold = gate.Verdict(
            passed=True, beats_baselines=False, reason="too few bars to judge anything: the baseline serves"
        )
        model = fitting.harx_bundle(bars) if volatility else bundle.random_walk_model()
        return Trained(model=model, verdict=cold), np.empty((0, len(MODEL_FEATURES)))
    frame = make_frame(bars)
    changed = champion is not None and champion.kind == "xgboost" and champion.manifest.recipe != RECIPE.digest
    if changed and challenger is not None and challenger.manifest.recipe == RECIPE.digest:
        assert champion is not None  # noqa: S101 - `changed` says so, and mypy does not see it
        verdict = judge_shadow(
            frame, lived(challenger.manifest.trained_to_ns + RECIPE.dataset.embargo_ns), champion, challenger
        )
        if not verdict.passed:
            return Trained(model=challenger, verdict=verdict, is_new=False), frame.matrix
        champion = None  # beaten: its successor is fitted anew on everything, and need not be compared again
    elif changed:
        entered = gate.Verdict(passed=False, reason="another recipe than the champion's: it is in shadow from now on")
        return msgspec.structs.replace(_fit(volatility, frame, None), verdict=entered), frame.matrix
    return _fit(volatility, frame, champion), frame.matrix


def _fit(volatility: bool, frame: Frame, champion: bundle.VolatilityModel | bundle.BidModel | None) -> Trained:  # noqa: FBT001
    if volatility:
        return train_volatility(frame, champion if isinstance(champion, bundle.VolatilityModel) else None)
    return train_bid(frame, champion if isinstance(champion, bundle.BidModel) else None)


def judge_shadow(
    frame: Frame,
    seen: Frame,
    champion: bundle.VolatilityModel | bundle.BidModel,
    challenger: bundle.VolatilityModel | bundle.BidModel,
) -> gate.Verdict:
    """The change gate on what was `seen` live since the challenger was trained; `frame` is the history before it.

    The same rows give a frozen model the same forecasts as they would have live, to the last bit: the shadow needs no
    worker.
    """
    if not len(seen.origin_ns):
        return gate.Verdict(passed=False, reason="in shadow, and no outcome yet")
    days = seen.origin_ns // NS_PER_DAY
    start = bundle.start_quantiles(challenger)
    if isinstance(champion, bundle.VolatilityModel) and isinstance(challenger, bundle.VolatilityModel):
        labels = np.maximum(seen.realized, challenger.harx.rv_floor)
        sigma = challenger.predict(seen.matrix)
        losses, held = _losses(labels, sigma), _losses(labels, champion.predict(seen.matrix))
        score = intervals.volatility_score(labels, np.square(sigma / 1e4))
    elif isinstance(champion, bundle.BidModel) and isinstance(challenger, bundle.BidModel):
        known = frame.between(0, challenger.manifest.trained_to_ns).last_days(RECIPE.harx.window_days)
        sigma = fitting.harx_sigma(known, seen)
        moves = challenger.predict(seen.matrix, sigma)
        losses, held = _squares(seen.bid_bps, moves), _squares(seen.bid_bps, champion.predict(seen.matrix, sigma))
        score = intervals.bid_score(seen.bid_bps, moves, sigma)
    else:
        raise SchemaError("champion and challenger are models of different quantities")
    in_force = intervals.track(start, score)[:, -1]
    inside = (score[:, -1] >= in_force[:, 0]) & (score[:, -1] <= in_force[:, -1])
    return gate.change(losses, held, days, challenger.manifest.name, float(inside.mean()))


def hold_out(frame: Frame) -> tuple[Frame, Frame]:
    """Rows to fit on and the newest block, an embargo apart."""
    days = min(BLOCK_DAYS, frame.days * BLOCK_SHARE)
    border = int(frame.origin_ns[-1]) - int(days * NS_PER_DAY)
    return frame.between(0, border - RECIPE.dataset.embargo_ns), frame.between(border, int(frame.origin_ns[-1]))


def train_volatility(frame: Frame, champion: bundle.VolatilityModel | None = None) -> Trained:
    """Judge on the newest block against the champion and every baseline, then fit on everything.

    Trees that do not beat the best baseline there are left out: HARX serves, and its kind says so.
    """
    before, block = hold_out(frame)
    trainer = trainer_of(settings().model)
    candidate = fitting.fit_volatility(before, trainer=trainer)
    labels = np.maximum(block.realized, candidate.harx.rv_floor)
    sigma, harx = candidate.predict_both(block.matrix)
    forecasts = {**candidate.baseline_forecasts(block.matrix), "harx": harx}
    if candidate.kind == "xgboost":
        forecasts["xgboost"] = sigma
    held = None
    if champion is not None:
        held = np.where(_new_to(champion, block), _losses(labels, champion.predict(block.matrix)), np.nan)
    verdict = gate.refresh(
        _losses(labels, sigma),
        held,
        {name: _losses(labels, each) for name, each in forecasts.items() if name != "xgboost"},
    )
    table = volatility_scores(labels, forecasts) | {"test_rows": float(len(block.origin_ns))}
    model = fitting.fit_volatility(frame, trainer=trainer)
    if model.kind == "xgboost" and not verdict.beats_baselines:
        model = model.as_baseline()
    unseen = (np.sqrt(labels[:, -1]) * 1e4, sigma[:, -1])
    return Trained(model=_with(model, table), verdict=verdict, unseen=unseen)


def _new_to(model: bundle.VolatilityModel | bundle.BidModel, rows: Frame) -> npt.NDArray[np.bool_]:
    """Rows that a model was not fitted on, an embargo apart."""
    return np.asarray(rows.origin_ns > model.manifest.trained_to_ns + RECIPE.dataset.embargo_ns)


def _losses(labels: Floats, sigma_bps: Floats) -> Floats:
    return scores.qlike_losses(labels[:, -1], np.square(sigma_bps[:, -1] / 1e4))


def _with(model: bundle.VolatilityModel, table: dict[str, float]) -> bundle.VolatilityModel:
    manifest = msgspec.structs.replace(model.manifest, scores=table)
    return bundle.VolatilityModel(manifest, model.harx, model.boosters, model.baselines)


def volatility_scores(realized: Floats, sigmas_bps: dict[str, Floats]) -> dict[str, float]:
    """`model/horizon/metric` of forecasts of σ (n, 5) against floored labels; DM t is against HARX."""
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


def train_bid(frame: Frame, champion: bundle.BidModel | None = None) -> Trained:
    """Judge on the newest block against the champion, the random walk and the autoregression, then fit on everything.

    Trees that do not beat the best baseline there are left out: λ is 0 at every horizon, which is the random walk. Where
    they do, λ still goes back to 0 at horizons that did not gain.
    """
    before, block = hold_out(frame)
    trainer = trainer_of(settings().model)
    few = before.days < RECIPE.trees_need_days
    candidate = bundle.random_walk_model() if few else fitting.fit_bid(before, trainer=trainer)
    sigma = fitting.harx_sigma(before.last_days(RECIPE.harx.window_days), block)
    returns = candidate.predict(block.matrix, sigma)
    shrinkage = np.asarray(candidate.manifest.shrinkage)
    table = bid_scores(block.bid_bps, returns, shrinkage) | {"test_rows": float(len(block.origin_ns))}
    held = None
    if champion is not None:
        squares = _squares(block.bid_bps, champion.predict(block.matrix, sigma))
        held = np.where(_new_to(champion, block), squares, np.nan)
    baselines = {"random_walk": np.zeros_like(returns), **candidate.baseline_forecasts(block.matrix)}
    verdict = gate.refresh(
        _squares(block.bid_bps, returns),
        held,
        {name: _squares(block.bid_bps, each) for name, each in baselines.items()},
    )
    gained = np.array([table.get(f"model/{h}m/mse_ratio", 1.0) < 1.0 for h in HORIZONS_MIN])
    served = np.where(gained & verdict.beats_baselines, shrinkage, 0.0)
    model = fitting.serve_bid(frame.last_days(RECIPE.bid.window_days), served, trainer=trainer)
    manifest = msgspec.structs.replace(model.manifest, scores=table)
    unseen = (block.bid_bps[:, -1], returns[:, -1])
    model = bundle.BidModel(manifest, model.boosters, model.autoregression)
    return Trained(model=model, verdict=verdict, unseen=unseen)


def _squares(actual_bps: Floats, forecast_bps: Floats) -> Floats:
    return np.asarray(np.square(actual_bps - forecast_bps).mean(axis=1))


def bid_scores(actual_bps: Floats, forecast_bps: Floats, shrinkage: Floats) -> dict[str, float]:
    """`model/horizon/metric` against the random walk; DM t is of squared errors."""
    table: dict[str, float] = {}
    for column, minutes in enumerate(HORIZONS_MIN):
        actual, forecast = actual_bps[:, column], forecast_bps[:, column]
        place = f"model/{minutes}m"
        table[f"{place}/lambda"] = float(shrinkage[column])
        table[f"{place}/mse_ratio"] = scores.mse_ratio(actual, forecast)
        table[f"{place}/dm_t"] = scores.diebold_mariano_t(np.square(actual - forecast), np.square(actual))
        table[f"{place}/direction"], table[f"{place}/direction_se"] = scores.direction_hits(actual, forecast)
    return {name: value for name, value in table.items() if np.isfinite(value)}
