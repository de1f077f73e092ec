"""What streams: tables, topics and rows that the workers own, shown in the graph and watched, never run from here.

A table counts as fresh only when its own watermark moved: an event for every tick would make a dead stream look green.
What does not belong here: anything Dagster materializes itself (`history`, `models`).
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec

from btc_assets.asset_metadata import EVENTS_TOPIC, EXCHANGE_FEED, OWNERS, table_metadata, upstream_tables
from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_core import names
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import BtcError, QuestDBError, ServiceError
from btc_core.tables.catalogue import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.settings import KafkaSettings, Settings
    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import Table

MINUTE = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=2), fail_window=timedelta(minutes=5))
FIVE_MINUTES = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=12), fail_window=timedelta(minutes=16))
"""A five-minute bar appears under its open, so its watermark stands still for five minutes by nature."""
SENSOR_INTERVAL_S = 30
"""How often watermarks are looked at; a tick asks one small query per table."""
STILL_INTERVAL_NS = 300 * NS_PER_S
"""How often a table that stands still is told about: an observation with its lag, which never counts as fresh."""
EVENT_INTERVAL_NS = 55 * NS_PER_S
"""At most one event per table and minute, some 20,000 a day until they are pruned; a little less than 60 s, so that a
tick that comes early does not halve the rate."""

_FEATURES_TOPIC, _PREDICTIONS_TOPIC = "features_topic", "predictions_topic"
_MODELS = ("bid_champion", "volatility_champion")
_PREDICTIONS = ("gold_bid_price_prediction", "gold_volatility_prediction")
API_TIMEOUT_S = 3.0
_SELDOM = {"bronze_status", "gap_marks"}
"""Tables whose silence is good news: no freshness."""
LIVE_VERSION = {"dagster/data_version": "live"}
"""Of every live event: new rows are no new version. A day's seal is; so a sealed day is not out of date because the
stream went on."""
TOPICS: dict[str, tuple[str, tuple[str, ...]]] = {
    EVENTS_TOPIC: (names.EVENTS_TOPIC, names.TABLE_WRITERS),
    _FEATURES_TOPIC: (names.FEATURES_TOPIC, (names.WorkerName.FORECAST,)),
    _PREDICTIONS_TOPIC: (names.PREDICTIONS_TOPIC, ()),
}
"""The topic behind each asset, and the workers that read it."""
_OWN_MODEL = {"gold_bid_price_prediction": _MODELS, "gold_volatility_prediction": ("volatility_champion",)}

BATCH_TABLES = ("minute_bars", "gold_prediction_skill", "gold_feature_drift")
"""Tables that Dagster itself writes."""
LIVE_TABLES: tuple[str, ...] = tuple(
    name for name, table in TABLES.items() if name not in BATCH_TABLES and not table.sealed
)
"""Tables that the stream (or QuestDB itself) writes."""


def _other(key: str, kind: str, group: str, description: str, deps: tuple[str, ...] = ()) -> dg.AssetSpec:
    return dg.AssetSpec(key, kinds={kind}, group_name=group, description=description, deps=deps, owners=OWNERS)


def _table(table: Table) -> dg.AssetSpec:
    streamed: tuple[str, ...] = () if table.view else (EVENTS_TOPIC,)
    if table.name in _PREDICTIONS:
        streamed = (_FEATURES_TOPIC, *_OWN_MODEL[table.name])
    elif table.name == "silver_features":
        streamed = (EVENTS_TOPIC, "minute_bars")
    policy = None if table.name in _SELDOM else FIVE_MINUTES if table.name == "gold_5min" else MINUTE
    return dg.AssetSpec(
        table.name,
        deps=sorted({*streamed, *upstream_tables(table)}),
        kinds={"questdb", table.layer} | ({"view"} if table.view else set()),
        group_name=table.layer,
        description=table.meaning,
        owners=OWNERS,
        metadata=table_metadata(table),
        freshness_policy=policy,
    )


live_specs: list[dg.AssetSpec] = [
    _other(EXCHANGE_FEED, "api", "exchange", "WebSocket v2 and REST of the exchange, or of the simulator."),
    _other(
        EVENTS_TOPIC, "kafka", "log", "Topic `market.events`: every frame of market data as received.", (EXCHANGE_FEED,)
    ),
    _other(_FEATURES_TOPIC, "kafka", "log", "Topic `features`: one row per quote and trade.", (EVENTS_TOPIC,)),
    _other(
        _PREDICTIONS_TOPIC,
        "kafka",
        "log",
        "Topic `predictions`: one forecast per feature row.",
        (_FEATURES_TOPIC, *_MODELS),
    ),
    _other("redis_features", "redis", "serving", "Hash `feature:BTCUSD`: the newest feature row.", (_FEATURES_TOPIC,)),
    _other("redis_forecasts", "redis", "serving", "The newest forecasts, same form.", (_PREDICTIONS_TOPIC,)),
    _other(
        "forecast_api",
        "flask",
        "serving",
        "HTTP API on port 5050.",
        ("redis_features", "redis_forecasts", *_MODELS),
    ),
    *(_table(TABLES[name]) for name in LIVE_TABLES),
]


class Seen(msgspec.Struct, frozen=True):
    """What the sensor remembers of a table: its watermark when it last told Dagster, and when that was."""

    watermark_ns: int
    told_ns: int


def read_cursor(text: str | None) -> dict[str, Seen]:
    """The sensor's memory; empty at first and after a change of its form."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Seen])
    except msgspec.MsgspecError:
        return {}


def write_cursor(seen: Mapping[str, Seen]) -> str:
    """The inverse of `read_cursor`."""
    return json.dumps({name: msgspec.to_builtins(entry) for name, entry in sorted(seen.items())})


def look(db: QuestDB, name: str, before: Seen | None, now: int) -> tuple[dg.AssetMaterialization, Seen] | None:
    """An event for the table if its watermark advanced since the last one, at most once a minute; else None.

    Raises `ServiceError` when QuestDB is away; a table that is not there yet gives None.
    """
    if before is not None and now - before.told_ns < EVENT_INTERVAL_NS:
        return None
    stamp = TABLES[name].timestamp
    try:
        newest = db.execute(f"SELECT cast({stamp} AS LONG) FROM {name} LIMIT -1")  # noqa: S608 - names of the catalogue
        if not newest or newest[0][0] is None:
            return None
        watermark_ns = int(newest[0][0])
        if before is not None and watermark_ns <= before.watermark_ns:
            return None
        since = before.watermark_ns if before is not None else watermark_ns - 60 * NS_PER_S
        counted = db.execute(f"SELECT count() FROM {name} WHERE {stamp} > cast({since} AS TIMESTAMP_NS)")  # noqa: S608
    except QuestDBError:
        return None
    rows = int(counted[0][0])
    metadata: dict[str, Any] = {
        "rows": rows,
        "rows_per_s": round(rows * NS_PER_S / max(watermark_ns - since, 1), 3),
        "lag_s": round((now - watermark_ns) / NS_PER_S, 3),
        "watermark": dg.MetadataValue.timestamp(watermark_ns / NS_PER_S),
    }
    return dg.AssetMaterialization(name, metadata=metadata, tags=LIVE_VERSION), Seen(watermark_ns, now)


def standing_still(name: str, before: Seen | None, now: int) -> tuple[dg.AssetObservation, Seen] | None:
    """An observation of a table that should move and does not; it shows the lag and leaves the table stale."""
    if name in _SELDOM or before is None or now - before.told_ns < STILL_INTERVAL_NS:
        return None
    lag_s = round((now - before.watermark_ns) / NS_PER_S, 3)
    return dg.AssetObservation(name, metadata={"lag_s": lag_s, "rows": 0}), Seen(before.watermark_ns, now)


def look_at_topic(
    kafka: KafkaSettings, asset: str, before: Seen | None, now: int
) -> tuple[dg.AssetMaterialization | dg.AssetObservation, Seen] | None:
    """An event for a topic: how many messages came, how many workers read it, how far they are behind.

    The mark is the number of messages ever written. A topic that stands still is observed. Raises `ServiceError`.
    """
    if before is not None and now - before.told_ns < EVENT_INTERVAL_NS:
        return None
    from btc_core.stores.kafka import group_members, topic_state  # noqa: PLC0415 - Kafka's client is slow to import

    topic, groups = TOPICS[asset]
    state = topic_state(kafka, topic, groups)
    moved = before is None or state.messages > before.watermark_ns
    if not moved and before is not None and now - before.told_ns < STILL_INTERVAL_NS:
        return None
    metadata: dict[str, Any] = {"messages": state.messages - (before.watermark_ns if before else state.messages)}
    metadata |= {f"{group}_behind": behind for group, behind in state.behind.items()}
    metadata |= {f"{group}_workers": members for group, members in group_members(kafka, groups).items()}
    event = dg.AssetMaterialization if moved else dg.AssetObservation
    return event(asset, metadata=metadata, tags=LIVE_VERSION), Seen(state.messages, now)


def look_at_serving(chosen: Settings, now: int) -> list[dg.AssetObservation]:
    """How old the rows in Redis are, and whether the API says that it is ready; what does not answer is told so."""
    import httpx  # noqa: PLC0415 - slow to import, not needed to load the graph
    import redis  # noqa: PLC0415 - the same

    from btc_core.stores.redis_rows import connect, read_features, read_forecast  # noqa: PLC0415 - the same

    observed = []
    with connect(chosen.redis) as client:
        for asset, read in (("redis_features", read_features), ("redis_forecasts", read_forecast)):
            metadata: dict[str, Any] = {}
            for symbol in chosen.exchange.symbols:
                try:
                    row = read(client, symbol)
                except (redis.RedisError, BtcError) as error:
                    metadata["problem"] = f"{symbol}: {type(error).__name__}: {error}"
                    continue
                metadata[f"{symbol} age_s"] = "no row" if row is None else round((now - row.ts_recv_ns) / NS_PER_S, 3)
            observed.append(dg.AssetObservation(asset, metadata=metadata))
    url = f"http://{chosen.api.host}:{chosen.api.port}/readyz"
    try:
        answer = httpx.get(url, timeout=API_TIMEOUT_S)
        metadata = {"ready": answer.is_success, "status": answer.status_code}
    except httpx.HTTPError as error:
        metadata = {"ready": False, "problem": f"{url}: {error!r}"}
    return [*observed, dg.AssetObservation("forecast_api", metadata=metadata)]


@dg.sensor(minimum_interval_seconds=SENSOR_INTERVAL_S, default_status=dg.DefaultSensorStatus.RUNNING)
def live_tables_sensor(context: dg.SensorEvaluationContext, database: Database) -> dg.SensorResult | dg.SkipReason:
    """Tell Dagster which live tables moved: rows since the last event, rate, lag and watermark of each."""
    seen = read_cursor(context.cursor)
    events: list[Any] = []
    now = now_ns()
    try:
        with database.connect() as db:
            for name in LIVE_TABLES:
                before = seen.get(name)
                told = look(db, name, before, now) or standing_still(name, before, now)
                if told is not None:
                    events.append(told[0])
                    seen[name] = told[1]
    except ServiceError as error:
        return dg.SkipReason(f"nothing was looked at: {error}")
    if not events:
        return dg.SkipReason("no live table moved since its last event")
    return dg.SensorResult(asset_events=events, cursor=write_cursor(seen))


@dg.sensor(minimum_interval_seconds=SENSOR_INTERVAL_S, default_status=dg.DefaultSensorStatus.RUNNING)
def log_sensor(
    context: dg.SensorEvaluationContext, environment: Environment, database: Database
) -> dg.SensorResult | dg.SkipReason:
    """Tell Dagster how all is that is no table: messages, how far each worker is behind, open gaps, Redis, the API."""
    seen = read_cursor(context.cursor)
    now = now_ns()
    chosen = environment.get()
    events: list[Any] = []
    try:
        for asset in TOPICS:
            told = look_at_topic(chosen.kafka, asset, seen.get(asset), now)
            if told is not None:
                events.append(told[0])
                seen[asset] = told[1]
        if not events:
            return dg.SkipReason("the topics have been told about, or stand still")
        with database.connect() as db:
            gaps = db.execute("SELECT count() FROM gap_marks WHERE state = 'open'")
    except ServiceError as error:
        return dg.SkipReason(f"nothing was looked at: {error}")
    events += [dg.AssetObservation("gap_marks", metadata={"open_gaps": int(gaps[0][0])}), *look_at_serving(chosen, now)]
    return dg.SensorResult(asset_events=events, cursor=write_cursor(seen))
