"""The code location: all definitions that Dagster loads.

What does not belong here: anything but the lists; the modules say what each part is.
No asset has `AutomationCondition.eager`: downstream of a live table it would start runs all the time.
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
from btc_assets.forecast_roots import close_hours, close_schedule, forecast_roots
from btc_assets.jobs import (
    TRAINED,
    bars_schedule,
    daily_retrain,
    fetch_history,
    history_every_hour,
    refresh_bars,
    retrain_on_bad_skill,
    skill_schedule,
    train_models,
    watch_models,
)
from btc_assets.league_models import daily_league, league_champion, league_models, train_league
from btc_assets.live_assets import live_specs, live_tables_sensor, log_sensor
from btc_assets.model_assets import SERVES_CHECKS
from btc_assets.past_trades import bronze_history
from btc_assets.pruning import daily_pruning, prune_events
from btc_assets.resources import Database, Environment, Lake, Registry
from btc_assets.sealed import sealed_assets, sealed_specs
from btc_assets.sealing import seal_day, sealing_sensor
from btc_assets.shadows import refused_in_shadow
from btc_assets.skill import demotions, feature_drift, prediction_skill
from btc_assets.system_backups import (
    back_up_system,
    copy_offsite,
    daily_offsite_copy,
    daily_system_backup,
    offsite_copy,
    system_backup,
)
from btc_assets.table_checks import check_tables, daily_checks, table_checks
from btc_assets.training_bars import minute_bars, older_bars

if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTOR = dg.in_process_executor
"""The executor of every job. The steps of a run share its process, because starting another one takes longer than most
steps. Assets pass nothing to each other but tables and models, so this line is all that another executor changes."""
RESOURCES: dict[str, Any] = {
    "environment": Environment(),
    "database": Database(),
    "registry": Registry(),
    "lake": Lake(),
}


def build_defs(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions, with other resources where a test replaces them."""
    return dg.Definitions(
        assets=[
            *live_specs,
            *sealed_specs,
            *sealed_assets,
            bronze_history,
            minute_bars,
            older_bars,
            *TRAINED,
            league_models,
            league_champion,
            prediction_skill,
            feature_drift,
            demotions,
            refused_in_shadow,
            forecast_roots,
            lake_backups,
            restore_drill,
            system_backup,
            offsite_copy,
        ],
        asset_checks=[*SERVES_CHECKS, table_checks],
        jobs=[
            train_models,
            train_league,
            refresh_bars,
            fetch_history,
            watch_models,
            close_hours,
            seal_day,
            back_up_tables,
            drill_restore,
            back_up_system,
            copy_offsite,
            check_tables,
            prune_events,
        ],
        schedules=[
            daily_retrain,
            daily_league,
            bars_schedule,
            history_every_hour,
            skill_schedule,
            close_schedule,
            daily_backup,
            weekly_drill,
            daily_system_backup,
            daily_offsite_copy,
            daily_checks,
            daily_pruning,
        ],
        sensors=[live_tables_sensor, log_sensor, sealing_sensor, retrain_on_bad_skill, failure_sensor],
        resources={**RESOURCES, **(overrides or {})},
        executor=EXECUTOR,
    )


defs = build_defs()
