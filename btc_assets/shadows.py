"""Versions that the gate has refused, judged on the live rows that came after their training, and promoted if they win there.

No worker has to run them: the rows that the stream stored give a frozen model the forecasts that it would have made live.
What does not belong here: demoting (`skill`), when a version has won (`btc_core.models.gate`), and what a promotion is
(`btc_core.registry.promotion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from btc_assets.asset_metadata import OWNERS
from btc_assets.resources import Database, Environment, Registry  # noqa: TC001 - Dagster reads the annotations
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.errors import BtcError
from btc_core.names import BASELINE_KINDS, VOLATILITY, ModelKey, ModelKind
from btc_core.registry.keys import model_keys
from btc_core.tables.catalogue import PREDICTION_OUTCOMES

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.bundle import VolatilityModel
    from btc_core.models.dataset import Frame
    from btc_core.registry.bundles import Model
    from btc_core.registry.shadows import ShadowScore
    from btc_core.stores.questdb import QuestDB

LONGEST_DAYS = 7
"""Live rows of at most this many days are read."""
MIN_ROWS = 12
"""An hour of rows, one in five minutes. The bound of the score says how much so few of them mean."""
AGAIN_NS = 3_600 * NS_PER_S
"""A version is judged once an hour, because reading its inputs takes seconds."""


def score_of(
    model: Model, rows: Frame, volatility: VolatilityModel, baseline: ModelKind = "xgboost"
) -> ShadowScore | None:
    """The score against a baseline on rows in time order that the model was not fitted on; None for fewer than an hour of them.

    `volatility` makes the σ that the trees of the bid multiply; for a volatility model it is the model itself. Instead of a
    `baseline` that the model does not contain, HARX or the random walk is compared with.
    """
    from btc_core.models import gate  # noqa: PLC0415 - imports numba
    from btc_core.registry.shadows import ShadowScore  # noqa: PLC0415 - imports numba

    if not len(rows.origin_ns):
        return None
    known_baselines = model.servable_baselines
    serves = model.as_baseline(next((each for each in known_baselines if each == baseline), known_baselines[0]))
    losses, reference = (_losses(each, rows, volatility) for each in (model, serves))
    known = np.isfinite(losses) & np.isfinite(reference)
    if known.sum() < MIN_ROWS:
        return None
    ratio, bound = gate.ratio_bound(losses[known], reference[known])
    origins = rows.origin_ns[known]
    return ShadowScore(ratio, bound, int(known.sum()), int(origins[0]), int(origins[-1]), now_ns())


def _losses(model: Model, rows: Frame, volatility: VolatilityModel) -> npt.NDArray[np.float64]:
    """The losses on each row as a training computes them: QLIKE of the volatility, or squared errors of the bid."""
    from btc_assets.training import served_sigma  # noqa: PLC0415 - imports numba
    from btc_assets.training_scores import losses_of, squares_of  # noqa: PLC0415 - imports numba
    from btc_core.models.bundle import BidModel  # noqa: PLC0415 - imports numba

    labels = np.maximum(rows.realized, volatility.harx.rv_floor)
    if isinstance(model, BidModel):
        return squares_of(rows.bid_bps, model.predict(rows.matrix, served_sigma(volatility, rows, labels)))
    return losses_of(labels, served_sigma(model, rows, labels))


@dg.asset(
    deps=[PREDICTION_OUTCOMES.name],
    kinds={"mlflow"},
    group_name="forecasts",
    owners=OWNERS,
    description="Models that the gate has refused, each judged once an hour on the live rows that came after its training, and "
    "promoted if it is certainly better than the baseline there. The score is shown by `btc models`, `/v1/model` and the live page.",
)
def refused_in_shadow(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult[None]:
    """Judge the refused version of each model that has one."""
    with database.connect() as db:
        found = {key.name: _judge(db, registry, key) for key in model_keys(environment.get().exchange.symbols)}
    return dg.MaterializeResult(metadata=found)


def _judge(db: QuestDB, registry: Registry, key: ModelKey) -> str:
    """Judge one version, store its score, promote it if it won, and return the result in words."""
    from btc_core.models import gate  # noqa: PLC0415 - imports numba
    from btc_core.models.bundle import VolatilityModel  # noqa: PLC0415 - imports numba
    from btc_core.models.recipe import RECIPE  # noqa: PLC0415 - imports numba
    from btc_core.stores.live_rows import live_frame  # noqa: PLC0415 - imports numba

    refused = registry.refused(key)
    if refused is None:
        return "no version is refused"
    if refused.score is not None and now_ns() - refused.score.judged_ns < AGAIN_NS:
        return f"version {refused.version}, {refused.score.words}"
    try:
        model = registry.version(key, refused.version)
        volatility = model if key.quantity == VOLATILITY else registry.champion(ModelKey(key.symbol, VOLATILITY))
    except BtcError as error:  # such as one of older features, or one whose files are missing, until the next training
        return str(error)
    assert isinstance(volatility, VolatilityModel)  # noqa: S101 - the registry checks it, and mypy does not see it
    since_ns = max(model.manifest.trained_to_ns + RECIPE.dataset.embargo_ns, now_ns() - LONGEST_DAYS * NS_PER_DAY)
    rows = live_frame(db, key.symbol, since_ns, volatility.manifest.volatility_target)
    serving = _serving_kind(registry, key)
    score = score_of(model, rows, volatility, serving)
    if score is None:
        return f"version {refused.version} has less than an hour of live rows"
    registry.keep_shadow_score(key, refused.version, score)
    verdict = gate.won(score.ratio, score.bound, score.rows)
    if serving not in BASELINE_KINDS or not verdict.passed:
        return f"version {refused.version}, {score.words}"
    promotion = registry.promote_refused(key, refused.version, verdict.reason)
    return f"version {refused.version} {promotion.held or 'was promoted'}: {promotion.reason}"


def _serving_kind(registry: Registry, key: ModelKey) -> ModelKind:
    """The kind that serves; that of trees, which no version in shadow replaces, if the champion cannot be read."""
    try:
        return registry.champion(key).kind
    except BtcError:
        return "xgboost"
