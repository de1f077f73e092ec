"""The code location: what `dagster` loads.

What does not belong here: anything but the list; each part says in its own module what it is.
Nothing here has `AutomationCondition.eager`: downstream of a stream it is a storm of runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from btc_assets.backups import (
    back_up_tables,
    daily_backup,
    drill_restore,
    lake_backups,
    restore_drill,
    weekly_drill,
)
from btc_assets.failures import failure_sensor
from btc_assets.history import minute_bars, older_bars, stored_range
from btc_assets.live import live_specs, live_tables_sensor, log_sensor
from btc_assets.models import (
    bid_champion,
    bid_champion_serves,
    bid_model,
    volatility_champion,
    volatility_champion_serves,
    volatility_model,
)
from btc_assets.past_trades import bronze_history
from btc_assets.pruning import daily_pruning, prune_events
from btc_assets.resources import Database, Environment, Lake, Registry
from btc_assets.sealed import sealed_assets, sealed_specs
from btc_assets.sealing import seal_day, sealing_sensor
from btc_assets.skill import demotions, feature_drift, prediction_skill
from btc_assets.table_checks import check_tables, daily_checks, table_checks
from btc_core.clock import NS_PER_DAY, now_ns

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAINED = (volatility_model, bid_model, volatility_champion, bid_champion)
train_models = dg.define_asset_job(
    "train_models",
    selection=dg.AssetSelection.assets(minute_bars, *TRAINED),
    description="Fetch history, train both models, judge them, and make those champions that pass their gate.",
    executor_def=dg.in_process_executor,
    tags={"btc/kind": "training"},
)
refresh_bars = dg.define_asset_job(
    "refresh_bars",
    selection=dg.AssetSelection.assets(minute_bars),
    description="Fetch the newest minute bars before the exchange forgets them (it keeps 12 hours).",
    executor_def=dg.in_process_executor,
)
fetch_history = dg.define_asset_job(
    "fetch_history",
    selection=dg.AssetSelection.assets(older_bars, *TRAINED),
    description="Fetch older history from the exchange's trades, at its pace, then train on it.",
    executor_def=dg.in_process_executor,
    tags={"btc/kind": "training"},
)
watch_models = dg.define_asset_job(
    "watch_models",
    selection=dg.AssetSelection.assets(prediction_skill, feature_drift, demotions),
    description="How good live forecasts have been; a champion that stopped being good hands over to its baseline.",
    executor_def=dg.in_process_executor,
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


daily_retrain = dg.ScheduleDefinition(
    name="daily_retrain",
    job=train_models,
    cron_schedule="10 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
bars_schedule = dg.ScheduleDefinition(
    name="bars_every_six_hours",
    job=refresh_bars,
    cron_schedule="40 */6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
skill_schedule = dg.ScheduleDefinition(
    name="skill_every_ten_minutes",
    job=watch_models,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

RESOURCES: dict[str, Any] = {
    "environment": Environment(),
    "database": Database(),
    "registry": Registry(),
    "lake": Lake(),
}


def build_defs(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything, with other resources where a test wants them."""
    return dg.Definitions(
        assets=[
            *live_specs,
            *sealed_specs,
            *sealed_assets,
            bronze_history,
            minute_bars,
            older_bars,
            *TRAINED,
            prediction_skill,
            feature_drift,
            demotions,
            lake_backups,
            restore_drill,
        ],
        asset_checks=[volatility_champion_serves, bid_champion_serves, table_checks],
        jobs=[
            train_models,
            refresh_bars,
            fetch_history,
            watch_models,
            seal_day,
            back_up_tables,
            drill_restore,
            check_tables,
            prune_events,
        ],
        schedules=[
            daily_retrain,
            bars_schedule,
            history_every_hour,
            skill_schedule,
            daily_backup,
            weekly_drill,
            daily_checks,
            daily_pruning,
        ],
        sensors=[live_tables_sensor, log_sensor, sealing_sensor, failure_sensor],
        resources={**RESOURCES, **(overrides or {})},
        executor=dg.in_process_executor,
    )


defs = build_defs()
