"""Jobs over assets, and when they run by themselves.

What does not belong here: what an asset does; jobs about days (`sealing`), copies (`backups`) and checks (`table_checks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from btc_assets.model_assets import bid_champion, bid_model, volatility_champion, volatility_model
from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_assets.skill import SKILL_CHECKS, demotions, feature_drift, prediction_skill
from btc_assets.timetable import scheduled
from btc_assets.training_bars import minute_bars, older_bars, stored_range
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.names import FETCH_HISTORY_JOB, TRAIN_MODELS_JOB

if TYPE_CHECKING:
    from collections.abc import Iterator

RETRAIN_AGAIN_S = 6 * 3_600
"""A check that goes on failing asks for another training after this: the newest days must have changed a little."""

TRAINED = (volatility_model, bid_model, volatility_champion, bid_champion)
train_models = dg.define_asset_job(
    TRAIN_MODELS_JOB,
    selection=dg.AssetSelection.assets(minute_bars, *TRAINED),
    description="Fetch history, train both models, judge them, and make those champions that pass their gate.",
    tags={"btc/kind": "training"},
)
refresh_bars = dg.define_asset_job(
    "refresh_bars",
    selection=dg.AssetSelection.assets(minute_bars),
    description="Fetch the newest minute bars before the exchange forgets them (it keeps 12 hours).",
)
fetch_history = dg.define_asset_job(
    FETCH_HISTORY_JOB,
    selection=dg.AssetSelection.assets(older_bars, *TRAINED),
    description="Fetch older history from the exchange's trades, at its pace, then train on it.",
    tags={"btc/kind": "training"},
)
watch_models = dg.define_asset_job(
    "watch_models",
    selection=dg.AssetSelection.assets(prediction_skill, feature_drift, demotions),
    description="How good live forecasts have been; a champion that stopped being good hands over to its baseline.",
)


@dg.schedule(
    job=fetch_history,
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def history_every_hour(environment: Environment, database: Database) -> dg.RunRequest | dg.SkipReason:
    """Go on fetching while the history is not whole; an exchange that publishes its history needs none of it."""
    chosen = environment.get()
    if chosen.exchange.history_url:
        return dg.SkipReason("the exchange publishes months of minute bars: the asset minute_bars has them")
    with database.connect() as db:
        rows, first, _ = stored_range(db, chosen.exchange.symbols[0])
    if rows and first <= now_ns() - (chosen.model.history_days - 1) * NS_PER_DAY:
        return dg.SkipReason("the history is whole")
    return dg.RunRequest()


daily_retrain = scheduled("daily_retrain", train_models, "10 0 * * *")
bars_schedule = scheduled("bars_every_six_hours", refresh_bars, "40 */6 * * *")
skill_schedule = scheduled("skill_every_ten_minutes", watch_models, "*/10 * * * *")


@dg.sensor(job=train_models, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def retrain_on_bad_skill(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Train anew when a live check of the forecasts fails, at most once in `RETRAIN_AGAIN_S`."""
    failed = sorted(_failing(context.instance))
    if not failed:
        return dg.SkipReason("the forecasts are as good as they should be, or nothing is known of them yet")
    since_s = now_ns() / NS_PER_S - float(context.cursor or 0)
    if since_s < RETRAIN_AGAIN_S:
        return dg.SkipReason(f"{', '.join(failed)} failed; a training was asked for {since_s / 3_600:.1f} h ago")
    context.update_cursor(str(now_ns() / NS_PER_S))
    return dg.RunRequest(tags={"btc/because": ", ".join(failed)})


def _failing(instance: dg.DagsterInstance) -> Iterator[str]:
    """Names of the live checks whose newest evaluation failed."""
    keys = [dg.AssetCheckKey(prediction_skill.key, name) for name in SKILL_CHECKS.values()]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key, record in found.items():
        if record.status.value == "FAILED":
            yield key.name
