"""Versions that the gate has refused, judged on the live rows that came after their training.

No worker has to run them: the rows that the stream stored give a frozen model the forecasts that it would have made live.
What does not belong here: demoting and promoting (`skill`, `model_assets`). A version in shadow never serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from btc_assets.asset_metadata import OWNERS
from btc_assets.resources import Database, Environment, Registry  # noqa: TC001 - Dagster reads the annotations
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.errors import BtcError
from btc_core.names import BASELINES, VOLATILITY, Baseline, ModelKey
from btc_core.tables.catalogue import PREDICTION_OUTCOMES

if TYPE_CHECKING:
    from btc_core.models.bundle import VolatilityModel
    from btc_core.models.dataset import Frame
    from btc_core.registry.shadows import ShadowScore
    from btc_core.stores.questdb import QuestDB

LONGEST_DAYS = 7
"""Live rows of at most this many days are read."""
MIN_ROWS = 12
"""An hour of rows, one in five minutes. The bound of the score says how much so few of them mean."""
AGAIN_NS = 3_600 * NS_PER_S
"""A version is judged once an hour, because reading its inputs takes seconds."""


def score_of(model: VolatilityModel, rows: Frame, baseline: Baseline = "harx") -> ShadowScore | None:
    """The score against a baseline on rows in time order that the model was not fitted on; None for fewer than an hour of them."""
    from btc_assets.training import losses_of, served_sigma  # noqa: PLC0415 - imports numba
    from btc_core.models import gate  # noqa: PLC0415 - imports numba
    from btc_core.registry.shadows import ShadowScore  # noqa: PLC0415 - imports numba

    if not len(rows.origin_ns):
        return None
    labels = np.maximum(rows.realized, model.harx.rv_floor)
    serves = model.as_baseline(baseline if baseline in model.servable_baselines else "harx")
    losses, reference = (
        losses_of(labels, sigma) for sigma in (served_sigma(model, rows, labels), serves.predict(rows.matrix))
    )
    known = np.isfinite(losses) & np.isfinite(reference)
    if known.sum() < MIN_ROWS:
        return None
    ratio, bound = gate.ratio_bound(losses[known], reference[known])
    origins = rows.origin_ns[known]
    return ShadowScore(ratio, bound, int(known.sum()), int(origins[0]), int(origins[-1]), now_ns())


@dg.asset(
    deps=[PREDICTION_OUTCOMES.name],
    kinds={"mlflow"},
    group_name="forecasts",
    owners=OWNERS,
    description="Volatility models that the gate has refused, each judged once an hour on the live rows that came after its "
    "training. They never serve; the score is shown by `btc models`, `/v1/model` and the live page.",
)
def refused_in_shadow(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult[None]:
    """Judge the refused version of each market that has one."""
    with database.connect() as db:
        found = {
            symbol: _judge(db, registry, ModelKey(symbol, VOLATILITY)) for symbol in environment.get().exchange.symbols
        }
    return dg.MaterializeResult(metadata=found)


def _judge(db: QuestDB, registry: Registry, key: ModelKey) -> str:
    """Judge one version, store its score, and return the result in words."""
    from btc_core.models.recipe import RECIPE  # noqa: PLC0415 - imports numba
    from btc_core.stores.live_rows import live_frame  # noqa: PLC0415 - imports numba

    refused = registry.refused(key)
    if refused is None:
        return "no version is refused"
    if refused.score is not None and now_ns() - refused.score.judged_ns < AGAIN_NS:
        return f"version {refused.version}, {refused.score.words}"
    try:
        model = registry.version(key, refused.version)
    except BtcError as error:  # such as one of older features, or one whose files are missing, until the next training
        return str(error)
    since_ns = max(model.manifest.trained_to_ns + RECIPE.dataset.embargo_ns, now_ns() - LONGEST_DAYS * NS_PER_DAY)
    rows = live_frame(db, key.symbol, since_ns, model.manifest.volatility_target)
    score = score_of(model, rows, _serving_baseline(registry, key))
    if score is None:
        return f"version {refused.version} has less than an hour of live rows"
    registry.keep_shadow_score(key, refused.version, score)
    return f"version {refused.version}, {score.words}"


def _serving_baseline(registry: Registry, key: ModelKey) -> Baseline:
    """The baseline that serves; HARX if trees do, or if the champion cannot be read."""
    try:
        kind = registry.champion(key).kind
    except BtcError:
        kind = "harx"
    return next((each for each in BASELINES[VOLATILITY] if each == kind), "harx")
