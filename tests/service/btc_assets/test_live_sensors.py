"""The sensor of topics, Redis and the API on real servers: rows with their age, an API that does not answer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from btc_core.clock import NS_PER_S, now_ns
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC, PREDICTIONS_TOPIC
from btc_core.stores.kafka import consumer, group_members
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import FeatureRow, feature_fields, feature_key, replace
from streaming.publisher import Publisher
from tests.waiting import wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from btc_assets.live_assets import TOPICS, serving_observations, topic_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


def test_the_age_of_rows_in_redis_and_the_state_of_the_api_are_observed(own_servers: Callable[..., Settings]) -> None:
    settings = own_servers("questdb", "kafka", "valkey")
    symbol = "WATCH/USD"
    watched = settings.model_copy(update={"exchange": settings.exchange.model_copy(update={"symbols": (symbol,)})})
    now = now_ns()
    row = FeatureRow(symbol, now, now - 7 * NS_PER_S, 0, 1, 0, 0, FEATURE_VERSION, [1.0] * len(FEATURE_NAMES))
    replace(connect(settings.redis), {feature_key(symbol): feature_fields(row)}, 60)

    observed = {event.asset_key.to_user_string(): event.metadata for event in serving_observations(watched, now)}
    assert set(observed) == {"redis_features", "redis_forecasts", "forecast_api"}
    assert observed["redis_features"][f"{symbol} age_s"].value == 7.0
    assert observed["redis_forecasts"][f"{symbol} age_s"].value == "no row"
    assert observed["forecast_api"]["ready"].value is False
    assert "/readyz" in str(observed["forecast_api"]["problem"].value)

    away = watched.model_copy(update={"redis": settings.redis.model_copy(update={"url": "redis://127.0.0.1:9/0"})})
    observed = {event.asset_key.to_user_string(): event.metadata for event in serving_observations(away, now)}
    assert "ConnectionError" in str(observed["redis_features"]["problem"].value)


@pytest.mark.parametrize("asset", TOPICS)
def test_a_topic_is_reported_once_and_again_only_when_it_moved(
    own_servers: Callable[..., Settings], asset: str
) -> None:
    settings = own_servers("kafka")
    ensure_topics(settings)
    now = now_ns()
    first = topic_event(settings.kafka, asset, None, now)
    assert first is not None
    assert topic_event(settings.kafka, asset, first[1], now + NS_PER_S) is None, "it was reported a moment ago"
    assert topic_event(settings.kafka, asset, first[1], now + 60 * NS_PER_S) is None, "no message came"
    topic, groups = TOPICS[asset]
    assert {first[0].metadata[f"{group}_workers"].value for group in groups} <= {0}
    assert topic in {EVENTS_TOPIC, FEATURES_TOPIC, PREDICTIONS_TOPIC}
    publisher = Publisher(settings.kafka, "test")
    publisher.publish(topic, "KEY", b"", now)
    publisher.flush()
    moved = topic_event(settings.kafka, asset, first[1], now + 60 * NS_PER_S)
    assert moved is not None
    assert moved[0].metadata["messages"].value == 1
    still = topic_event(settings.kafka, asset, moved[1], now + 3_600 * NS_PER_S)
    assert still is not None
    assert type(still[0]).__name__ == "AssetObservation", "a topic that stands still never counts as fresh"


def test_a_worker_that_reads_a_topic_is_counted_and_one_that_has_left_is_not(
    own_servers: Callable[..., Settings],
) -> None:
    kafka = own_servers("kafka").kafka
    ensure_topics(own_servers("kafka"))
    reader = consumer(kafka, "readers-of-a-test")
    reader.subscribe([EVENTS_TOPIC])
    wait_for(lambda: reader.poll(0.1) is not None or bool(reader.assignment()), "the group has partitions")
    assert group_members(kafka, ("readers-of-a-test",)) == {"readers-of-a-test": 1}
    reader.close()
    wait_for(
        lambda: group_members(kafka, ("readers-of-a-test",)) == {"readers-of-a-test": 0},
        "the group is empty",
    )
