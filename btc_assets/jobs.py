"""Jobs over assets, and when they run by themselves.

What does not belong here: what an asset does; jobs for days (`sealing`), copies (`backups`) and checks (`table_checks`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import msgspec

from btc_assets.model_assets import CHAMPION_ASSETS, MODEL_ASSETS
from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_assets.shadows import refused_in_shadow
from btc_assets.skill import BAD_MARKETS, SKILL_CHECKS, demotions, feature_drift, prediction_skill
from btc_assets.timetable import schedule, scheduled
from btc_assets.training_bars import lacks_bar_file, minute_bars, missing_history, older_bars
from btc_core.clock import NS_PER_S, now_ns
from btc_core.names import APART_MIN, FETCH_HISTORY_JOB, TRAIN_MODELS_JOB
from btc_core.stores.dagster import market_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

RETRAIN_PAUSE_S = 6 * 3_600 * APART_MIN // 5
"""A check that still fails requests another training after this time, when the newest days have changed a little. The check looks
at longer periods with longer horizons."""

TRAINED = (*MODEL_ASSETS, *CHAMPION_ASSETS)
train_models = dg.define_asset_job(
    TRAIN_MODELS_JOB,
    selection=dg.AssetSelection.assets(minute_bars, *TRAINED),
    description="Fetch minute bars, train the models of each market, judge them, and make those champions that pass their gate.",
    tags={"btc/kind": "training"},
)
refresh_bars = dg.define_asset_job(
    "refresh_bars",
    selection=dg.AssetSelection.assets(minute_bars),
    description="Fetch the newest minute bars before the exchange drops them (Kraken keeps 720 minutes).",
)
fetch_history = dg.define_asset_job(
    FETCH_HISTORY_JOB,
    selection=dg.AssetSelection.assets(older_bars, *TRAINED),
    description="Fetch older trades from the exchange at its pace, make minute bars of them, and train the models on them.",
    tags={"btc/kind": "training"},
)
watch_models = dg.define_asset_job(
    "watch_models",
    selection=dg.AssetSelection.assets(prediction_skill, feature_drift, demotions, refused_in_shadow),
    description="Score the forecasts of the last days, compare the features with those of the training, and replace a "
    "champion that has become bad by its baseline. Judge the models that the gate has refused, too.",
)


@schedule(
    job=fetch_history,
    cron_schedule="20 * * * *",
    description="Fetches older trades until the history is complete. Does nothing if the exchange publishes minute bars.",
)
def history_every_hour(environment: Environment, database: Database) -> dg.RunRequest | dg.SkipReason:
    """Request a run for all markets while bars of `history_days` are missing."""
    chosen = environment.get()
    if not any(lacks_bar_file(chosen, symbol) for symbol in chosen.exchange.symbols):
        return dg.SkipReason("the exchange publishes months of minute bars, and the asset minute_bars fetches them")
    with database.connect() as db:
        if not missing_history(db, chosen):
            return dg.SkipReason("the history is complete")
    return dg.RunRequest(tags=market_tags(chosen.exchange.symbols))


@schedule(
    job=train_models,
    cron_schedule="10 0 * * *",
    description="Trains the models of all markets once a day.",
)
def daily_retrain(environment: Environment) -> dg.RunRequest:
    """Request one run for all markets, because the pooled fit is theirs together."""
    return dg.RunRequest(tags=market_tags(environment.get().exchange.symbols))


bars_schedule = scheduled("bars_every_six_hours", refresh_bars, "40 */6 * * *")
skill_schedule = scheduled("skill_every_ten_minutes", watch_models, "*/10 * * * *")


@dg.sensor(
    job=train_models,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests a training of a market when a live check of its forecasts has failed, at most once in six hours.",
)
def retrain_on_bad_skill(
    context: dg.SensorEvaluationContext, environment: Environment
) -> dg.SensorResult | dg.SkipReason:
    """Request a training of each market whose live check failed and whose last request was `RETRAIN_PAUSE_S` ago."""
    failed = _failed_checks(context.instance, environment.get().exchange.symbols)
    if not failed:
        return dg.SkipReason("no live check of the forecasts has failed")
    now_s = now_ns() / NS_PER_S
    requested_s = _read_requests(context.cursor)
    requests, waiting = [], []
    for symbol, checks in sorted(failed.items()):
        since_s = now_s - requested_s.get(symbol, 0.0)
        names = ", ".join(checks)
        if since_s < RETRAIN_PAUSE_S:
            waiting.append(f"{names} of {symbol} failed; a training was requested {since_s / 3_600:.1f} h ago")
        else:
            requests.append(dg.RunRequest(partition_key=symbol, tags={"btc/because": names}))
            requested_s[symbol] = now_s
    if not requests:
        return dg.SkipReason("; ".join(waiting))
    return dg.SensorResult(run_requests=requests, cursor=msgspec.json.encode(requested_s).decode())


def _read_requests(cursor: str | None) -> dict[str, float]:
    """When a training of each market was last requested, s; empty at the first tick and after a change of the form."""
    try:
        return msgspec.json.decode(cursor or "{}", type=dict[str, float])
    except msgspec.MsgspecError:
        return {}


def _failed_checks(instance: dg.DagsterInstance, symbols: Sequence[str]) -> dict[str, list[str]]:
    """The live checks whose newest evaluation failed, by the market whose forecasts are bad."""
    keys = [dg.AssetCheckKey(prediction_skill.key, name) for name in SKILL_CHECKS.values()]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    failed: dict[str, list[str]] = {}
    for key, record in sorted(found.items()):
        evaluation = record.evaluation
        if record.status.value != "FAILED" or evaluation is None:
            continue
        bad = evaluation.metadata[BAD_MARKETS].value if BAD_MARKETS in evaluation.metadata else ""
        for symbol in set(str(bad).split(", ")) & set(symbols):
            failed.setdefault(symbol, []).append(key.name)
    return failed
