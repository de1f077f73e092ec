"""The catalogue of tables and the newest rows in Redis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from btc_core.errors import SchemaError
from btc_core.features import FEATURE_NAMES, FEATURE_VERSION, FEATURES
from btc_core.redis_row import (
    FeatureRow,
    ForecastRow,
    feature_fields,
    feature_key,
    forecast_fields,
    forecast_key,
    read_features,
    read_forecast,
    replace,
    update_channel,
)
from btc_core.settings import QuestdbSettings
from btc_core.tables import TABLES

if TYPE_CHECKING:
    from btc_core.table_form import Table

pytestmark = pytest.mark.unit

EVERY_TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))


@EVERY_TABLE
def test_the_statement_of_a_table_has_each_column_once(table: Table) -> None:
    names = [column.name for column in table.columns]
    assert len(names) == len(set(names))
    ddl = table.ddl(QuestdbSettings())
    if table.view:
        outputs = [*re.findall(r" AS (\w+)", table.view), "symbol"]
        outputs += [] if "ts_event AS ts" in table.view else ["ts"]
        assert sorted(outputs) == sorted(names)
    else:
        inside = re.search(r"\((.*?)\) TIMESTAMP", ddl)
        assert inside is not None
        assert [part.split()[0] for part in inside[1].split(", ")] == names
        assert f"TIMESTAMP({names[0]})" in ddl
        assert set(table.keys) <= set(names)
    assert bool(re.search(r"TTL \d+ DAYS", ddl)) == bool(table.view), "days of tables are dropped only once backed up"


@EVERY_TABLE
def test_every_column_says_what_it_means_and_every_number_its_unit(table: Table) -> None:
    assert table.meaning.endswith((".", "?"))
    for column in table.columns:
        assert column.meaning, column.name
        assert column.type != "DOUBLE" or column.unit or "side" in column.name, column.name
        assert column.type != "TIMESTAMP_NS" or column.unit == "UTC", column.name


@EVERY_TABLE
def test_every_upstream_column_is_in_the_catalogue_or_the_exchanges(table: Table) -> None:
    known = {f"{other.name}.{column.name}" for other in TABLES.values() for column in other.columns}
    for column in table.columns:
        for upstream in column.upstream:
            outside = r"(kraken\.(ticker|trade|book|status|ohlc)|log|model\.\w+_model)\.\w+"
            assert upstream in known or re.fullmatch(outside, upstream), upstream
        from_code_or_clock = column.name in {"feature_version", "made_at"}
        assert column.upstream or from_code_or_clock, f"{table.name}.{column.name} comes from nowhere"


def test_every_feature_is_described_once_and_derives_from_bronze() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURES)
    for feature in FEATURES:
        assert feature.unit, feature.name
        assert feature.meaning, feature.name
        assert feature.upstream, feature.name
        assert all(name.startswith("bronze_") for name in feature.upstream)
    assert {column.name for column in TABLES["silver_features"].columns} >= set(FEATURE_NAMES)


# --- Redis ----------------------------------------------------------------------------------------------------------


class MemoryRedis:
    """As much of a client as `replace` and the readers use; values become the bytes that redis-py would send."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self.said: list[tuple[Any, ...]] = []

    def pipeline(self, *, transaction: bool) -> MemoryRedis:
        assert transaction
        return self

    def __enter__(self) -> MemoryRedis:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def delete(self, key: str) -> None:
        self.hashes.pop(key, None)

    def hset(self, key: str, mapping: dict[str, Any]) -> None:
        encoded = {
            name.encode(): (repr(value) if isinstance(value, float) else str(value)).encode()
            for name, value in mapping.items()
        }
        self.hashes.setdefault(key, {}).update(encoded)

    def expire(self, key: str, ttl_s: int) -> None:
        self.said.append(("expire", key, ttl_s))

    def publish(self, channel: str, message: object) -> None:
        self.said.append(("publish", channel, message))

    def execute(self) -> None:
        return None

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        return self.hashes.get(key, {})


def feature_row(version: str = FEATURE_VERSION) -> FeatureRow:
    values = [0.1 * index + 1e-17 for index in range(len(FEATURE_NAMES))]
    values[3], values[5] = float("inf"), -0.0
    return FeatureRow("BTC/USD", 1_700_000_000_123_456_789, 1_700_000_000_123_999_999, 0, 42, 1, 0, version, values)


def test_a_feature_row_comes_back_from_redis_bit_for_bit() -> None:
    client, row = MemoryRedis(), feature_row()
    client.hset(feature_key("BTC/USD"), {"left": "over"})
    replace(client, {feature_key("BTC/USD"): feature_fields(row)}, 300)
    assert read_features(client, "BTC/USD") == row  # type: ignore[arg-type]
    assert b"left" not in client.hgetall("feature:BTCUSD")
    assert client.said == [("expire", "feature:BTCUSD", 300), ("publish", "feature_update:BTCUSD", row.ts_event_ns)]


def test_a_missing_number_survives_redis_and_the_topic() -> None:
    client, row = MemoryRedis(), feature_row()
    row.values[0] = float("nan")
    replace(client, {feature_key("BTC/USD"): feature_fields(row)}, 300)
    back = read_features(client, "BTC/USD")  # type: ignore[arg-type]
    assert back is not None
    assert back.values[0] != back.values[0]
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=FeatureRow)
    assert repr(sent) == repr(row)


def test_a_feature_row_of_another_version_is_refused_and_none_is_none() -> None:
    client = MemoryRedis()
    assert read_features(client, "BTC/USD") is None  # type: ignore[arg-type]
    assert read_forecast(client, "BTC/USD") is None  # type: ignore[arg-type]
    replace(client, {feature_key("BTC/USD"): feature_fields(feature_row("old"))}, 300)
    with pytest.raises(SchemaError, match="old"):
        read_features(client, "BTC/USD")  # type: ignore[arg-type]


def test_a_forecast_comes_back_from_redis_as_it_was() -> None:
    paths = [[h + offset / 3 for h in range(1, 6)] for offset in (1, 2, 3)]
    values: dict[str, Any] = {
        "symbol": "BTC/USD", "ts_event_ns": 1, "ts_recv_ns": 2, "made_at_ns": 3, "partition": 0, "offset": 4, "item": 5,
        "bid": 60_000.1, "bid_path_usd": paths[0], "sigma_path_bps": paths[1], "baseline_sigma_path_bps": paths[2],
        "bid_model_version": "1", "bid_model_kind": "xgboost", "volatility_model_version": "2",
        "volatility_model_kind": "harx", "feature_version": FEATURE_VERSION,
    }  # fmt: skip
    row, client = ForecastRow(**values), MemoryRedis()
    replace(client, {forecast_key("BTC/USD"): forecast_fields(row)}, 300)
    assert read_forecast(client, "BTC/USD") == row  # type: ignore[arg-type]
    assert update_channel(forecast_key("BTC/USD")) == "forecast_update:BTCUSD"
