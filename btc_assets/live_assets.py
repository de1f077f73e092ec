"""Assets that other processes write all the time: tables, topics, rows in Redis and the API. Sensors report how they are.

A table counts as fresh only if its own watermark, the newest timestamp in it, has advanced. An event at every tick would
show a stream that stands still as fresh. What does not belong here: what Dagster materializes itself.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import httpx
import msgspec

from btc_assets.asset_metadata import (
    EVENTS_TOPIC,
    EXCHANGE_FEED,
    OWNERS,
    champion_asset,
    group_of,
    table_metadata,
    upstream_tables,
)
from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_core import names
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import BtcError, QuestDBError, ServiceError
from btc_core.names import QUANTITIES, VOLATILITY
from btc_core.stores.api_connection import api_client
from btc_core.stores.kafka import group_members, topic_state
from btc_core.tables.catalogue import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.service_settings import KafkaSettings
    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import Table

MINUTE = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=2), fail_window=timedelta(minutes=5))
FIVE_MINUTES = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=12), fail_window=timedelta(minutes=16))
"""A five-minute bar has the time at which it opens, so the watermark of `gold_5min` advances every five minutes."""
SENSOR_INTERVAL_S = 30
"""How often watermarks are read; a tick sends one small query for each table."""
EVENT_INTERVAL_NS = 55 * NS_PER_S
"""At most one event for a table each minute, which makes some 20,000 a day until they are pruned. A little less than 60 s,
so that a tick that comes early does not halve the rate."""
IDLE_INTERVAL_NS = 300 * NS_PER_S
"""How often a table that stands still is observed. An observation shows its lag and never counts as fresh."""
API_TIMEOUT_S = 3.0

_FEATURES_TOPIC, _PREDICTIONS_TOPIC = "features_topic", "predictions_topic"
_CHAMPIONS = tuple(champion_asset(quantity) for quantity in QUANTITIES)
_MODELS_BEHIND = {
    "gold_bid_price_prediction": _CHAMPIONS,  # the bid model multiplies by the forecast volatility
    "gold_volatility_prediction": (champion_asset(VOLATILITY),),
    "gold_league_forecasts": ("league_models",),
}
_QUIET_TABLES = {
    "bronze_status",
    "bronze_trade_corrections",
    "gap_marks",
    "gold_league_forecasts",
    "gold_forecast_states",
    "silver_user_features",
}
"""Tables that get rows only when something is wrong, or only if the user has models or features, so their silence is no
problem."""
LIVE_VERSION = {"dagster/data_version": "live"}
"""Tag of every event of a live asset: new rows are not a new version. A sealed day has a version, its seal, and does not
become outdated because the stream continues."""
TOPICS: dict[str, tuple[str, tuple[str, ...]]] = {
    EVENTS_TOPIC: (names.EVENTS_TOPIC, names.TABLE_WRITERS),
    _FEATURES_TOPIC: (names.FEATURES_TOPIC, (names.WorkerName.FORECAST,)),
    _PREDICTIONS_TOPIC: (names.PREDICTIONS_TOPIC, ()),
}
"""The topic behind each asset, and the workers that read it."""
BATCH_TABLES = ("minute_bars", "gold_prediction_skill", "gold_feature_drift", "gold_forecast_roots")
"""Tables that Dagster writes."""
LIVE_TABLES: tuple[str, ...] = tuple(
    name for name, table in TABLES.items() if name not in BATCH_TABLES and not table.sealed
)
"""Tables that the workers or QuestDB itself write."""


def _asset(key: str, kind: str, group: str, description: str, deps: tuple[str, ...] = ()) -> dg.AssetSpec:
    return dg.AssetSpec(key, kinds={kind}, group_name=group, description=description, deps=deps, owners=OWNERS)


def _table_asset(table: Table) -> dg.AssetSpec:
    sources: tuple[str, ...] = () if table.view else (EVENTS_TOPIC,)
    if table.name in _MODELS_BEHIND:
        sources = (_FEATURES_TOPIC, *_MODELS_BEHIND[table.name])
    elif table.name == "silver_features":
        sources = (EVENTS_TOPIC, "minute_bars")
    policy = None if table.name in _QUIET_TABLES else FIVE_MINUTES if table.name == "gold_5min" else MINUTE
    return dg.AssetSpec(
        table.name,
        deps=sorted({*sources, *upstream_tables(table)}),
        kinds={"questdb", table.layer} | ({"view"} if table.view else set()),
        group_name=group_of(table),
        description=table.meaning,
        owners=OWNERS,
        metadata=table_metadata(table),
        freshness_policy=policy,
    )


live_specs: list[dg.AssetSpec] = [
    _asset(EXCHANGE_FEED, "api", "exchange", "WebSocket and REST API of the exchange, or of the simulator."),
    _asset(
        EVENTS_TOPIC,
        "kafka",
        "exchange",
        "Topic `market.events`: every frame of market data as it was received.",
        (EXCHANGE_FEED,),
    ),
    _asset(
        _FEATURES_TOPIC,
        "kafka",
        "silver",
        "Topic `features`: one row for each quote and each trade.",
        (EVENTS_TOPIC,),
    ),
    _asset(
        _PREDICTIONS_TOPIC,
        "kafka",
        "forecasts",
        "Topic `predictions`: one forecast for each feature row.",
        (_FEATURES_TOPIC, *_CHAMPIONS),
    ),
    _asset(
        "redis_features",
        "redis",
        "serving",
        "The newest feature row of each market in Redis, as the hash `feature:BTCUSD`.",
        (_FEATURES_TOPIC,),
    ),
    _asset(
        "redis_forecasts",
        "redis",
        "serving",
        "The newest forecast of each market in Redis, as the hash `forecast:BTCUSD`, and the minute columns it was made "
        "from, as the hash `columns:BTCUSD`.",
        (_PREDICTIONS_TOPIC,),
    ),
    _asset(
        "forecast_api",
        "flask",
        "serving",
        "The HTTP API on port 5050.",
        ("redis_features", "redis_forecasts", *_CHAMPIONS),
    ),
    *(_table_asset(TABLES[name]) for name in LIVE_TABLES),
]


class LastEvent(msgspec.Struct, frozen=True):
    """A sensor's memory of the last event of an asset: the watermark that it reported, and when."""

    watermark_ns: int
    """The newest timestamp of a table; the number of messages ever written to a topic."""
    reported_ns: int


def read_cursor(text: str | None) -> dict[str, LastEvent]:
    """The last event of each asset; empty at the first tick and after a release that changed the form of the cursor."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, LastEvent])
    except msgspec.MsgspecError:
        return {}


def write_cursor(events: Mapping[str, LastEvent]) -> str:
    """The inverse of `read_cursor`."""
    return json.dumps({name: msgspec.to_builtins(event) for name, event in sorted(events.items())})


def table_event(
    db: QuestDB, name: str, before: LastEvent | None, now: int
) -> tuple[dg.AssetMaterialization, LastEvent] | None:
    """An event for a table whose watermark has advanced, at most once a minute; otherwise None.

    A table that does not exist yet gives None as well. Raises `ServiceError` if QuestDB does not answer.
    """
    if before is not None and now - before.reported_ns < EVENT_INTERVAL_NS:
        return None
    stamp = TABLES[name].timestamp
    try:
        newest = db.execute(f"SELECT cast({stamp} AS LONG) FROM {name} LIMIT -1")  # noqa: S608 - names of the catalogue
        if not newest or newest[0][0] is None:
            return None
        watermark_ns = int(newest[0][0])
        if before is not None and watermark_ns <= before.watermark_ns:
            return None
        since_ns = before.watermark_ns if before is not None else watermark_ns - 60 * NS_PER_S
        counted = db.execute(f"SELECT count() FROM {name} WHERE {stamp} > cast({since_ns} AS TIMESTAMP_NS)")  # noqa: S608 - names of the catalogue
    except QuestDBError:
        return None
    rows = int(counted[0][0])
    metadata: dict[str, Any] = {
        "rows": rows,
        "rows_per_s": round(rows * NS_PER_S / max(watermark_ns - since_ns, 1), 3),
        "lag_s": round((now - watermark_ns) / NS_PER_S, 3),
        "watermark": dg.MetadataValue.timestamp(watermark_ns / NS_PER_S),
    }
    return dg.AssetMaterialization(name, metadata=metadata, tags=LIVE_VERSION), LastEvent(watermark_ns, now)


def idle_table_event(name: str, before: LastEvent | None, now: int) -> tuple[dg.AssetObservation, LastEvent] | None:
    """An observation with the lag of a table that should move and stands still; it does not make the table fresh."""
    if name in _QUIET_TABLES or before is None or now - before.reported_ns < IDLE_INTERVAL_NS:
        return None
    lag_s = round((now - before.watermark_ns) / NS_PER_S, 3)
    return dg.AssetObservation(name, metadata={"lag_s": lag_s, "rows": 0}), LastEvent(before.watermark_ns, now)


def topic_event(
    kafka: KafkaSettings, asset: str, before: LastEvent | None, now: int
) -> tuple[dg.AssetMaterialization | dg.AssetObservation, LastEvent] | None:
    """An event for a topic: new messages, how many workers read it, and how many messages they are behind.

    A topic that stands still is observed, which does not make it fresh. Raises `ServiceError` if Kafka does not answer.
    """
    if before is not None and now - before.reported_ns < EVENT_INTERVAL_NS:
        return None
    topic, groups = TOPICS[asset]
    state = topic_state(kafka, topic, groups)
    moved = before is None or state.messages > before.watermark_ns
    if not moved and before is not None and now - before.reported_ns < IDLE_INTERVAL_NS:
        return None
    metadata: dict[str, Any] = {"messages": state.messages - (before.watermark_ns if before else state.messages)}
    metadata |= {f"{group}_behind": behind for group, behind in state.lag.items()}
    metadata |= {f"{group}_workers": members for group, members in group_members(kafka, groups).items()}
    event = dg.AssetMaterialization if moved else dg.AssetObservation
    return event(asset, metadata=metadata, tags=LIVE_VERSION), LastEvent(state.messages, now)


def serving_observations(chosen: Settings, now: int) -> list[dg.AssetObservation]:
    """How old the rows in Redis are and whether the API is ready; an observation of what does not answer says so."""
    from btc_core.stores.redis_connection import connect  # noqa: PLC0415 - 80 ms, and only this sensor needs it
    from btc_core.stores.redis_rows import read_features, read_forecast  # noqa: PLC0415 - imports redis

    observations = []
    with connect(chosen.redis) as client:
        for asset, read in (("redis_features", read_features), ("redis_forecasts", read_forecast)):
            metadata: dict[str, Any] = {}
            for symbol in chosen.exchange.symbols:
                try:
                    row = read(client, symbol)
                except BtcError as error:
                    metadata["problem"] = f"{symbol}: {type(error).__name__}: {error}"
                    continue
                metadata[f"{symbol} age_s"] = "no row" if row is None else round((now - row.ts_recv_ns) / NS_PER_S, 3)
            observations.append(dg.AssetObservation(asset, metadata=metadata))
    url = f"{chosen.api.url}/readyz"
    try:
        answer = api_client(chosen.api).get(url, timeout=API_TIMEOUT_S)
        metadata = {"ready": answer.is_success, "status": answer.status_code}
    except httpx.HTTPError as error:
        metadata = {"ready": False, "problem": f"{url}: {error!r}"}
    return [*observations, dg.AssetObservation("forecast_api", metadata=metadata)]


@dg.sensor(
    minimum_interval_seconds=SENSOR_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports which live tables got rows: how many since the last event, their rate, the lag and the watermark.",
)
def live_tables_sensor(context: dg.SensorEvaluationContext, database: Database) -> dg.SensorResult | dg.SkipReason:
    """Report the tables that moved, and those that stand still."""
    reported = read_cursor(context.cursor)
    events: list[Any] = []
    now = now_ns()
    try:
        with database.connect() as db:
            for name in LIVE_TABLES:
                before = reported.get(name)
                event = table_event(db, name, before, now) or idle_table_event(name, before, now)
                if event is not None:
                    events.append(event[0])
                    reported[name] = event[1]
    except ServiceError as error:
        return dg.SkipReason(f"the live tables could not be read: {error}")
    if not events:
        return dg.SkipReason("no live table has moved since its last event")
    return dg.SensorResult(asset_events=events, cursor=write_cursor(reported))


@dg.sensor(
    minimum_interval_seconds=SENSOR_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports on topics, the workers that read them, open gaps, the rows in Redis and the API.",
)
def log_sensor(
    context: dg.SensorEvaluationContext, environment: Environment, database: Database
) -> dg.SensorResult | dg.SkipReason:
    """Report everything that is live and no table."""
    reported = read_cursor(context.cursor)
    now = now_ns()
    chosen = environment.get()
    events: list[Any] = []
    try:
        for asset in TOPICS:
            event = topic_event(chosen.kafka, asset, reported.get(asset), now)
            if event is not None:
                events.append(event[0])
                reported[asset] = event[1]
        if not events:
            return dg.SkipReason("every topic was reported less than a minute ago or stands still")
        with database.connect() as db:
            gaps = db.execute("SELECT count() FROM gap_marks WHERE state = 'open'")
    except ServiceError as error:
        return dg.SkipReason(f"the topics could not be read: {error}")
    events.append(dg.AssetObservation("gap_marks", metadata={"open_gaps": int(gaps[0][0])}))
    events += serving_observations(chosen, now)
    return dg.SensorResult(asset_events=events, cursor=write_cursor(reported))
