"""What a training run does with bars: judge a model on days that it was not fitted on, then fit it on all of them.

Each market is fitted alone and with trees and a net that are fitted on the rows of all markets. The better of the two and
of the pre-trained model in the package is judged.

What does not belong here: fitting (`btc_core.models.fitting`), where bars come from (`training_bars`), and Dagster
(`model_assets`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_assets.training_scores import bid_scores, losses_of, squares_of, volatility_scores
from btc_core.clock import NS_PER_DAY
from btc_core.errors import NotReady, SchemaError
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models import bundle, fitting, gate, intervals, level, pooling, pretrained
from btc_core.models.dataset import Frame, StreamRows, TickLabels, make_frame
from btc_core.models.input_gains import with_inputs
from btc_core.models.recipe import RECIPE
from btc_core.models.trainers import trainer_of
from btc_core.names import (
    BASELINE_KINDS,
    HORIZONS_MIN,
    MINUTES,
    TOO_FEW_BARS,
    VOLATILITY,
    Baseline,
    Quantity,
    VolatilityTarget,
)
from btc_core.registry.bundles import Model
from btc_core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

BLOCK_DAYS = 14.0
"""The newest days, on which a candidate that was fitted on the days before is compared with the champion and the baselines.
On seven days the 95 % bound is 1.5 % above the ratio, and a model that is 1.5 % better than HARX is refused half of the time;
on fourteen days it is 1.1 %."""
BLOCK_SHARE = 0.2
"""The share of a history that is too short for such a block."""
RENEWAL_NS = 7 * NS_PER_DAY
"""A random walk that stays champion is renewed after this time: nothing of its forecasts is fitted, but the start of its
intervals and the autoregression that is scored beside it are."""
MIN_POOL_MARKETS = 2
"""A pool of one market would be its own fit with fewer inputs."""
FITTED = frozenset({"own", "pooled", "pretrained", "xgboost"})
"""Names of the forecasts by trees and net among the scores: of all fits, and of the one that was chosen."""

_log = logging.getLogger(__name__)


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """A model fitted on all days, and the gate's verdict on a candidate of the same recipe without the newest days."""

    model: Model
    verdict: gate.Verdict
    is_new: bool = True
    """False if the model in shadow stays the challenger and nothing was trained."""
    refused: Model | None = None
    """Trees, with the net of the volatility, that were not better than the baseline, which is `model` then. They are kept as
    a version that does not serve."""
    unseen: tuple[Floats, Floats] | None = None
    """At the headline horizon on the newest days: the actual values and the candidate's forecasts, bps of σ or of return."""


def params(quantity: Quantity) -> dict[str, str]:
    """The parameters of the trees, which MLflow shows beside the scores."""
    if quantity == VOLATILITY:
        booster = RECIPE.volatility.booster
        trees = str(RECIPE.volatility.trees)
    else:
        booster, trees = RECIPE.bid.booster, str(RECIPE.bid.trees)
    shown = {key: str(value) for key, value in booster.params().items()}
    shown |= {"trainer": settings().model.trainer, "trees": trees}
    return shown | ({"target": settings().model.volatility_target} if quantity == VOLATILITY else {})


def make_pool(
    symbols: Sequence[str], history_of: Callable[[str], tuple[npt.NDArray[Any], StreamRows | None, TickLabels | None]]
) -> pooling.Pool | None:
    """The rows of all markets, for a pooled fit; None unless two have enough bars, one of them enough for trees.

    `history_of` returns the bars of a market, what its stream computed, and the variances of ticks if these are the target.
    The bars of one market are in memory at a time.
    """
    members: list[pooling.PoolRows] = []
    longest_days = 0.0
    for symbol in symbols:
        bars, stream, ticks = history_of(symbol)
        if len(symbols) < MIN_POOL_MARKETS or len(bars) < RECIPE.dataset.min_bars:
            continue
        frame = make_frame(bars, stream=stream, ticks=ticks)
        if not len(frame.origin_ns):
            _log.info("the pooled fit leaves out %s: no sealed day of it has a variance of ticks", symbol)
            continue
        try:
            logs = fitting.pool_log_variance(frame)
        except ValueError as error:
            _log.info("the pooled fit leaves out %s: %s", symbol, error)
            continue
        rows = pooling.pool_rows(symbol, frame, logs, RECIPE.pool.max_rows // len(symbols))
        if not len(rows.origin_ns):
            _log.info("the pooled fit leaves out %s: no day of its bars is half known", symbol)
            continue
        longest_days = max(longest_days, frame.days)
        members.append(rows)
    if len(members) < MIN_POOL_MARKETS or longest_days < RECIPE.trees_need_days:
        return None
    return pooling.Pool(members, trainer_of(settings().model))


def train(  # noqa: PLR0913, PLR0917 - a training compares with everything that is registered
    quantity: Quantity,
    bars: npt.NDArray[Any],
    champion: Model | None,
    challenger: Model | None,
    live_rows_since: Callable[[int], Frame],
    pool: pooling.Pool | None = None,
    stream: StreamRows | None = None,
    ticks: TickLabels | None = None,
) -> tuple[TrainingResult, Floats]:
    """Train a model on minute bars; returns it with rows (`Frame.sample`) for the golden batch of its bundle.

    At the closes that `stream` has, the features are those of the stream. With `ticks`, the volatility is that of ticks; when too
    few minutes have one, a market without a champion gets its first model as with too few bars, and for another one `NotReady`
    is raised. With a `pool`, the pooled fit competes with the market's own. If the champion has another recipe, the new model only
    enters shadow. A challenger that is in shadow already is judged instead, on the rows that the stream wrote since a time in
    ns. A champion or challenger of another target is not compared with, and the reason says so.
    """
    if ticks is not None:
        try:
            frame = tick_frame(bars, stream, ticks)
        except NotReady:
            if champion is not None:
                raise
            return _cold(quantity, bars, "too few minutes with a variance of ticks to judge a model")
    elif len(bars) < RECIPE.dataset.min_bars:
        return _cold(quantity, bars)
    else:
        frame = make_frame(bars, stream=stream)
    other = other_target(quantity, champion, frame.target)
    if other:
        result = _judge_and_fit(quantity, frame, None, pool)
        verdict = msgspec.structs.replace(result.verdict, reason=f"{other}; {result.verdict.reason}")
        return msgspec.structs.replace(result, verdict=verdict), frame.sample()
    if other_target(quantity, challenger, frame.target):
        challenger = None
    changed = champion is not None and champion.kind == "xgboost" and champion.manifest.recipe != RECIPE.digest
    if changed and challenger is not None and challenger.manifest.recipe == RECIPE.digest:
        assert champion is not None  # noqa: S101 - `changed` says so, and mypy does not see it
        verdict = judge_shadow(
            quantity,
            frame,
            live_rows_since(challenger.manifest.trained_to_ns + RECIPE.dataset.embargo_ns),
            champion,
            challenger,
        )
        if not verdict.passed:
            return TrainingResult(model=challenger, verdict=verdict, is_new=False), frame.sample()
        champion = None  # it was beaten in shadow: its successor is fitted on all days and need not be compared again
    elif changed:
        entered = gate.Verdict(passed=False, reason="another recipe than the champion's: it is in shadow from now on")
        result = msgspec.structs.replace(_judge_and_fit(quantity, frame, None, pool), verdict=entered)
        return result, frame.sample()
    return _judge_and_fit(quantity, frame, champion, pool), frame.sample()


def tick_frame(bars: npt.NDArray[Any], stream: StreamRows | None, ticks: TickLabels) -> Frame:
    """The rows whose variance of ticks is known; raises `NotReady` with what to do when they are too few."""
    frame = None
    if len(bars) >= RECIPE.dataset.min_bars:
        frame = make_frame(bars, stream=stream, ticks=ticks)
        if len(frame.origin_ns) >= RECIPE.dataset.min_bars:
            return frame
    rows = 0 if frame is None else len(frame.origin_ns)
    msg = (
        f"{rows} minutes on {ticks.days} sealed days have a variance of ticks and a minute bar; "
        f"{RECIPE.dataset.min_bars} are needed to train a volatility of ticks. Days are sealed every night, and "
        "`btc import-trades` adds past ones; until then the champion stays. BTC_MODEL_VOLATILITY_TARGET=minutes needs bars only"
    )
    raise NotReady(msg)


def other_target(quantity: Quantity, model: Model | None, target: VolatilityTarget) -> str:
    """A sentence if a registered model forecasts another volatility than `target`, which makes losses incomparable."""
    if quantity != VOLATILITY or model is None or model.manifest.volatility_target == target:
        return ""
    its = model.manifest.volatility_target
    return f"version {model.version} forecasts the volatility of {its} and is not compared with this model of {target}"


def _cold(quantity: Quantity, bars: npt.NDArray[Any], why: str = TOO_FEW_BARS) -> tuple[TrainingResult, Floats]:
    """The first model of a market that has too little to judge one, with rows for its golden batch.

    It is the pre-trained one if that can serve, otherwise the baseline.
    """
    rows = np.empty((0, len(MODEL_FEATURES)))
    if quantity != VOLATILITY:
        reason = f"{why}: the baseline serves"
        cold = gate.Verdict(passed=True, beats_baselines=False, reason=reason)
        return TrainingResult(model=bundle.random_walk_model(), verdict=cold), rows
    model, reason = pretrained.cold_start_model(bars)
    if model.kind == "xgboost":
        rows = make_frame(bars, msgspec.structs.replace(RECIPE.dataset, min_bars=1)).sample()
    reason = f"{why}: {reason}"
    cold = gate.Verdict(passed=True, beats_baselines=model.kind == "xgboost", reason=reason)
    return TrainingResult(model=model, verdict=cold), rows


def _judge_and_fit(
    quantity: Quantity, frame: Frame, champion: Model | None, pool: pooling.Pool | None
) -> TrainingResult:
    if quantity == VOLATILITY:
        return train_volatility(frame, champion if isinstance(champion, bundle.VolatilityModel) else None, pool)
    return train_bid(frame, champion if isinstance(champion, bundle.BidModel) else None, pool)


def judge_shadow(
    quantity: Quantity, frame: Frame, live_rows: Frame, champion: Model, challenger: Model
) -> gate.Verdict:
    """The gate of a change, on the rows that the stream wrote since the challenger was trained; `frame` is the history before.

    No worker has to run the challenger: the same rows give a frozen model the forecasts that it would have made live.
    """
    if not len(live_rows.origin_ns):
        return gate.Verdict(passed=False, reason="in shadow, and no outcome yet")
    days = live_rows.origin_ns // NS_PER_DAY
    start = bundle.start_quantiles(challenger)
    if isinstance(champion, bundle.VolatilityModel) and isinstance(challenger, bundle.VolatilityModel):
        labels = np.maximum(live_rows.realized, challenger.harx.rv_floor)
        sigma = served_sigma(challenger, live_rows, labels)
        losses, champion_losses = losses_of(labels, sigma), losses_of(labels, served_sigma(champion, live_rows, labels))
        score = intervals.volatility_score(labels, np.square(sigma / 1e4))
    elif isinstance(champion, bundle.BidModel) and isinstance(challenger, bundle.BidModel):
        known = frame.between(0, challenger.manifest.trained_to_ns).last_days(RECIPE.harx.window_days)
        sigma = fitting.harx_sigma(known, live_rows)
        moves = challenger.predict(live_rows.matrix, sigma)
        losses, champion_losses = (
            squares_of(live_rows.bid_bps, moves),
            squares_of(live_rows.bid_bps, champion.predict(live_rows.matrix, sigma)),
        )
        score = intervals.bid_score(live_rows.bid_bps, moves, sigma)
    else:
        raise SchemaError("champion and challenger are models of different quantities")
    quantiles = intervals.track(start, score, live_rows.origin_ns)[:, -1]
    low, high = intervals.BOUNDS[90]
    inside = (score[:, -1] >= quantiles[:, low]) & (score[:, -1] <= quantiles[:, high])
    return gate.change(losses, champion_losses, days, quantity, float(inside.mean()))


def served_sigma(model: bundle.VolatilityModel, rows: Frame, labels: Floats) -> Floats:
    """σ in bps, (n, 5), as the forecast worker would have served it on rows in time order: with the online level.

    The level follows from the rows' own outcomes, so it starts at 1. Those of overlapping labels do not move it.
    """
    sigma = model.predict(rows.matrix, rows.columns)
    if model.kind != "xgboost":
        return sigma
    ratio = labels[:, -1] / np.square(sigma[:, -1] / 1e4)
    in_force = level.track(level.START, ratio, rows.origin_ns)
    return sigma * np.power(in_force, 0.5 * level.POWER)[:, np.newaxis]


def hold_out(frame: Frame) -> tuple[Frame, Frame]:
    """Rows to fit on, and the newest block, which begins an embargo after them."""
    days = min(BLOCK_DAYS, frame.days * BLOCK_SHARE)
    border = int(frame.origin_ns[-1]) - int(days * NS_PER_DAY)
    return frame.between(0, border - RECIPE.dataset.embargo_ns), frame.between(border, int(frame.origin_ns[-1]))


def train_volatility(
    frame: Frame, champion: bundle.VolatilityModel | None = None, pool: pooling.Pool | None = None
) -> TrainingResult:
    """Judge on the newest block against the champion and every baseline, then fit on all days.

    If trees and net do not beat the best baseline there, a baseline is the model, and they are `refused`. Each member
    is scored alone, too, and `ratio_of_…` is its loss over that of both together, as served.
    """
    before, block = hold_out(frame)
    trainer = trainer_of(settings().model)
    candidate = fitting.fit_volatility(before, trainer=trainer)
    labels = np.maximum(block.realized, candidate.harx.rv_floor)
    sigma, harx = served_sigma(candidate, block, labels), candidate.baseline(block.matrix)
    forecasts = {**candidate.baseline_forecasts(block.matrix), "harx": harx}
    is_new_market = before.days < RECIPE.trees_need_days
    fits = {"own": candidate}
    if pool is not None:
        fits["pooled"] = fitting.fit_volatility(before, trainer=trainer, pool=pool)
    shipped = _pretrained_for(block) if frame.target == MINUTES else None
    if shipped is not None:
        fits["pretrained"] = pretrained.model_of(shipped, before)
    sigmas = {name: served_sigma(fit, block, labels) for name, fit in fits.items()}
    losses = {name: losses_of(labels, each) for name, each in sigmas.items()}
    markets = len(pool.symbols) if pool is not None else 1
    choice = gate.choose(
        losses["own"], losses.get("pooled"), markets, losses.get("pretrained"), is_new_market=is_new_market
    )
    if len(fits) > 1:
        forecasts |= sigmas
    candidate, sigma = fits[choice.fit], sigmas[choice.fit]
    members = candidate.members(block.matrix, block.columns)
    if candidate.kind == "xgboost":
        forecasts |= {"xgboost": sigma, **members}
    champion_losses = None
    if champion is not None:
        champion_losses = np.where(
            _new_to(champion, block), losses_of(labels, served_sigma(champion, block, labels)), np.nan
        )
    compared = {"harx"} if is_new_market else forecasts.keys() - FITTED - members.keys()
    baselines = {name: losses_of(labels, forecasts[name]) for name in compared}
    verdict = gate.refresh(
        losses_of(labels, sigma),
        champion_losses,
        baselines,
        is_new_market=is_new_market,
        is_pretrained=choice.fit == "pretrained",
    )
    if members:
        own = float(losses_of(labels, sigma).mean())
        ratios = {f"ratio_of_{name}": float(losses_of(labels, each).mean()) / own for name, each in members.items()}
        verdict = msgspec.structs.replace(verdict, figures=verdict.figures | ratios)
    table = volatility_scores(labels, forecasts) | {"test_rows": float(len(block.origin_ns))}
    table["floor_share"] = float(np.mean(candidate.harx.is_at_floor(block.harx_inputs)))
    if choice.fit == "pretrained" and shipped is not None:
        model = pretrained.model_of(shipped, frame)
    else:
        model = fitting.fit_volatility(frame, trainer=trainer, pool=pool if choice.is_pooled else None)
    model.manifest = msgspec.structs.replace(model.manifest, choice=choice.reason)
    served = model if verdict.beats_baselines else model.as_baseline(_baseline_of(champion, baselines, model))
    is_refused = model.kind == "xgboost" and not verdict.beats_baselines
    return TrainingResult(
        model=_described(served, frame, table),
        refused=_described(model, frame, table) if is_refused else None,
        verdict=_with_choice(verdict, choice),
        unseen=(np.sqrt(labels[:, -1]) * 1e4, sigma[:, -1]),
    )


def _baseline_of(champion: Model | None, losses: dict[str, Floats], model: Model) -> Baseline:
    """The baseline that serves instead of trees: that of the champion, which live outcomes have chosen, else the best one."""
    servable = model.servable_baselines
    if champion is not None and champion.kind in BASELINE_KINDS:
        wanted: str = champion.kind
    else:
        wanted = gate.serving_baseline(losses, servable[0])
    return next((kind for kind in servable if kind == wanted), servable[0])


def _pretrained_for(block: Frame) -> pretrained.Pretrained | None:
    """The pre-trained model, if it has seen nothing of the time of `block`, which judges it."""
    try:
        shipped = pretrained.shipped()
    except SchemaError as error:
        _log.warning("the pre-trained model does not compete: %s", error)
        return None
    if int(block.origin_ns[0]) <= shipped.manifest.trained_to_ns + RECIPE.dataset.embargo_ns:
        _log.info("the pre-trained model does not compete: it was fitted on bars as new as those that judge it")
        return None
    return shipped


def same_walk(champion: Model | None, model: Model, at_ns: int) -> str:
    """A sentence if the champion stays because it and the new model are the same random walk; empty otherwise.

    A champion that lacks intervals or the autoregression, is of another recipe, or is older than `RENEWAL_NS`, does not stay.
    """
    if not isinstance(champion, bundle.BidModel) or not isinstance(model, bundle.BidModel):
        return ""
    if (champion.kind, model.kind) != ("random_walk", "random_walk"):
        return ""
    old, new = champion.manifest, model.manifest
    lacks = model.autoregression is not None and champion.autoregression is None
    lacks |= bool(new.quantiles) and (bool(old.quantiles), bool(old.tails)) != (bool(new.quantiles), bool(new.tails))
    if lacks or new.recipe not in {"", old.recipe} or at_ns - old.created_ns > RENEWAL_NS:
        return ""
    return f"version {champion.version} stays champion: both are the random walk, and its forecasts are the same"


def _with_choice(verdict: gate.Verdict, choice: gate.Choice) -> gate.Verdict:
    """The verdict, whose reason begins with that of the choice between the two fits."""
    if not choice.reason:
        return verdict
    return msgspec.structs.replace(
        verdict, reason=f"{choice.reason}; {verdict.reason}", figures=choice.figures | verdict.figures
    )


def _new_to(model: Model, rows: Frame) -> npt.NDArray[np.bool_]:
    """Which rows are an embargo or more after those that the model was fitted on."""
    return np.asarray(rows.origin_ns > model.manifest.trained_to_ns + RECIPE.dataset.embargo_ns)


def _described(model: bundle.VolatilityModel, frame: Frame, table: dict[str, float]) -> bundle.VolatilityModel:
    """The model with its scores and the use of its inputs in its manifest."""
    return model.with_manifest(msgspec.structs.replace(with_inputs(model.manifest, model, frame), scores=table))


def train_bid(
    frame: Frame, champion: bundle.BidModel | None = None, pool: pooling.Pool | None = None
) -> TrainingResult:
    """Judge on the newest block against the champion, the random walk and the autoregression, then fit on all days.

    If the trees do not beat the best baseline there, λ becomes 0 at every horizon, which is the random walk, or the
    autoregression serves, and the trees are `refused`. Otherwise λ becomes 0 only at the horizons that did not gain. Trees
    whose λ is 0 at every horizon forecast nothing: they are refused, and judged with the least λ that is tried.
    """
    before, block = hold_out(frame)
    trainer = trainer_of(settings().model)
    few = before.days < RECIPE.trees_need_days
    candidate = bundle.random_walk_model() if few else fitting.fit_bid(before, trainer=trainer)
    sigma = fitting.harx_sigma(before.last_days(RECIPE.harx.window_days), block)
    returns = candidate.predict(block.matrix, sigma)
    choice = gate.Choice("own", "")
    if pool is not None and not few:
        pooled = fitting.fit_bid(before, trainer=trainer, pool=pool)
        pooled_returns = pooled.predict(block.matrix, sigma)
        choice = gate.choose(
            squares_of(block.bid_bps, returns), squares_of(block.bid_bps, pooled_returns), len(pool.symbols)
        )
        if choice.is_pooled:
            candidate, returns = pooled, pooled_returns
    chosen_pool = pool if choice.is_pooled else None
    is_unproven = candidate.kind != "xgboost" and not few
    if is_unproven:
        least = fitting.least_shrinkage()
        candidate = fitting.serve_bid(
            before.last_days(RECIPE.bid.window_days), least, trainer=trainer, pool=chosen_pool
        )
        returns = candidate.predict(block.matrix, sigma)
    shrinkage = np.asarray(candidate.manifest.shrinkage)
    table = bid_scores(block.bid_bps, returns, shrinkage) | {"test_rows": float(len(block.origin_ns))}
    table["clipped_share"] = float(np.mean(np.abs(block.bid_bps / sigma) > RECIPE.bid.max_move_sigmas))
    champion_losses = None
    if champion is not None:
        squares = squares_of(block.bid_bps, champion.predict(block.matrix, sigma))
        champion_losses = np.where(_new_to(champion, block), squares, np.nan)
    baselines = {"random_walk": np.zeros_like(returns), **candidate.baseline_forecasts(block.matrix)}
    losses = {name: squares_of(block.bid_bps, each) for name, each in baselines.items()}
    own = squares_of(block.bid_bps, returns)
    verdict = gate.unproven(own, losses, shrinkage[-1]) if is_unproven else gate.refresh(own, champion_losses, losses)
    gained = np.array([table.get(f"model/{h}m/mse_ratio", 1.0) < 1.0 for h in HORIZONS_MIN])
    window = frame.last_days(RECIPE.bid.window_days)

    def fitted(weights: Floats) -> bundle.BidModel:
        model = fitting.serve_bid(window, weights, trainer=trainer, pool=chosen_pool)
        if not weights.any():
            model = model.as_baseline(_baseline_of(champion, losses, model))
        manifest = msgspec.structs.replace(model.manifest, scores=table, choice=choice.reason)
        return bundle.BidModel(with_inputs(manifest, model, frame), model.boosters, model.autoregression)

    is_refused = candidate.kind == "xgboost" and not verdict.beats_baselines
    return TrainingResult(
        model=fitted(np.where(gained & verdict.beats_baselines, shrinkage, 0.0)),
        refused=fitted(shrinkage) if is_refused else None,
        verdict=_with_choice(verdict, choice),
        unseen=(block.bid_bps[:, -1], returns[:, -1]),
    )
