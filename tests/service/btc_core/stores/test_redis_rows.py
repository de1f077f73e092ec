"""The newest rows in a real Redis: what is written is read back, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.errors import SchemaError, ServiceError
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.minute_columns import COLUMNS
from btc_core.market.messages import ForecastRow
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import (
    ColumnsRow,
    FeatureRow,
    columns_fields,
    columns_key,
    feature_fields,
    feature_key,
    forecast_fields,
    forecast_key,
    read_columns,
    read_features,
    read_forecast,
    replace,
    update_channel,
)
from tests.service.workers import unique
from tests.serving_world import GOOD_QUALITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from btc_core.stores.redis_connection import Client

pytestmark = pytest.mark.service

TTL_S = 300


@pytest.fixture
def client(servers: Callable[..., Settings]) -> Iterator[Client]:
    with connect(servers("valkey").redis) as opened:
        yield opened


def feature_row(symbol: str, version: str = FEATURE_VERSION) -> FeatureRow:
    values = [0.1 * index + 1e-17 for index in range(len(FEATURE_NAMES))]
    values[3], values[5] = float("inf"), -0.0
    return FeatureRow(symbol, 1_700_000_000_123_456_789, 1_700_000_000_123_999_999, 0, 42, 1, 0, version, values)


def forecast_row(symbol: str, **bounds: list[list[float]]) -> ForecastRow:
    paths = [[h + offset / 3 for h in range(1, 6)] for offset in (1, 2, 3)]
    return ForecastRow(
        symbol, 1, 2, 0, 4, 5, 3, 60_000.1, paths[0], paths[1], paths[2], "1", "xgboost", "2", "harx", FEATURE_VERSION, **bounds,
        quality=GOOD_QUALITY if bounds else None,
    )  # fmt: skip


def test_a_feature_row_comes_back_bit_for_bit_in_place_of_the_one_before(client: Client) -> None:
    row = feature_row(unique("BITS"))
    key = feature_key(row.symbol)
    client.hset(key, mapping={"left": "over"})
    with client.pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(update_channel(key))
        listener.get_message(timeout=5.0)
        replace(client, {key: feature_fields(row)}, TTL_S)
        assert listener.get_message(timeout=5.0)["data"] == str(row.ts_event_ns).encode()
    assert read_features(client, row.symbol) == row
    assert not client.hexists(key, "left")
    assert 0 < int(client.ttl(key)) <= TTL_S  # type: ignore[arg-type]


def test_a_missing_number_survives_redis_and_the_topic(client: Client) -> None:
    row = feature_row(unique("MISSING"))
    row.values[0] = float("nan")
    replace(client, {feature_key(row.symbol): feature_fields(row)}, TTL_S)
    back = read_features(client, row.symbol)
    assert back is not None
    assert back.values[0] != back.values[0]
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=FeatureRow)
    assert repr(sent) == repr(row)


def test_a_feature_row_of_another_version_is_refused_and_none_is_none(client: Client) -> None:
    symbol = unique("VERSION")
    assert read_features(client, symbol) is None
    assert read_forecast(client, symbol) is None
    replace(client, {feature_key(symbol): feature_fields(feature_row(symbol, "old"))}, TTL_S)
    with pytest.raises(SchemaError, match="old"):
        read_features(client, symbol)


@pytest.mark.parametrize("bounds", [{}, {"bid_bounds_usd": [[0.5] * 8] * 5, "sigma_bounds_bps": [[1 / 3] * 8] * 5}])
def test_a_forecast_comes_back_as_it_was(client: Client, bounds: dict[str, list[list[float]]]) -> None:
    row = forecast_row(unique("FORECAST"), **bounds)
    replace(client, {forecast_key(row.symbol): forecast_fields(row)}, TTL_S)
    assert read_forecast(client, row.symbol) == row
    assert update_channel(forecast_key("BTC/USD")) == "forecast_update:BTCUSD"


def test_minute_columns_come_back_to_the_last_bit_unless_they_are_of_another_version(client: Client) -> None:
    symbol = unique("COLUMNS")
    columns = np.random.default_rng(1).normal(size=(1, len(COLUMNS))).astype(np.float32)
    columns[0, 3] = np.nan
    row = ColumnsRow(symbol, 1_700_000_000_123_456_789, 1.0625, columns)
    assert read_columns(client, symbol) is None
    replace(client, {columns_key(symbol): columns_fields(row)}, TTL_S)
    found = read_columns(client, symbol)
    assert found is not None
    assert (found.symbol, found.ts_event_ns, found.level) == (row.symbol, row.ts_event_ns, row.level)
    assert found.columns.tobytes() == columns.tobytes()
    replace(client, {columns_key(symbol): columns_fields(row) | {"version": "old"}}, TTL_S)
    assert read_columns(client, symbol) is None


def test_what_redis_refuses_is_an_error_and_the_next_row_is_taken(client: Client) -> None:
    row = forecast_row(unique("REFUSED"))
    rows = {forecast_key(row.symbol): forecast_fields(row)}
    with pytest.raises(ServiceError, match=r"refuses a command: ResponseError: .*not an integer"):
        replace(client, rows, "soon")  # type: ignore[arg-type]
    with pytest.raises(ServiceError, match="must be str"):
        replace(client, {forecast_key(row.symbol): {**forecast_fields(row), "bid": None}}, TTL_S)
    replace(client, rows, TTL_S)
    assert read_forecast(client, row.symbol) == row


def test_a_redis_that_closed_the_connection_is_asked_again(client: Client) -> None:
    row = forecast_row(unique("CLOSED"))
    rows = {forecast_key(row.symbol): forecast_fields(row)}
    replace(client, rows, TTL_S)
    client.client_kill_filter(_type="normal", skipme=False)
    replace(client, rows, TTL_S)
    assert read_forecast(client, row.symbol) == row
