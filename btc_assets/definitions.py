"""The code location: what `dagster` loads.

What does not belong here: anything but the list; each part says in its own module what it is.
Nothing here has `AutomationCondition.eager`: downstream of a stream it is a storm of runs.
"""

from __future__ import annotations

import dagster as dg

from btc_assets.history import minute_bars
from btc_assets.live import live_specs, live_tables_sensor
from btc_assets.models import bid_model, bid_model_serves, volatility_model, volatility_model_serves
from btc_assets.resources import Database, Environment, Registry

train_models = dg.define_asset_job(
    "train_models",
    selection=dg.AssetSelection.assets(minute_bars, volatility_model, bid_model),
    description="Fetch history, train both models, register them and make them champions.",
    executor_def=dg.in_process_executor,
    tags={"btc/kind": "training"},
)
refresh_bars = dg.define_asset_job(
    "refresh_bars",
    selection=dg.AssetSelection.assets(minute_bars),
    description="Fetch the newest minute bars before the exchange forgets them (it keeps 12 hours).",
    executor_def=dg.in_process_executor,
)
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

defs = dg.Definitions(
    assets=[*live_specs, minute_bars, volatility_model, bid_model],
    asset_checks=[volatility_model_serves, bid_model_serves],
    jobs=[train_models, refresh_bars],
    schedules=[daily_retrain, bars_schedule],
    sensors=[live_tables_sensor],
    resources={"environment": Environment(), "database": Database(), "registry": Registry()},
    executor=dg.in_process_executor,
)
