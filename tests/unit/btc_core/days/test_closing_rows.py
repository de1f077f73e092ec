"""Rows at the closes of minutes: the newest by the clock of the log, nothing from after the close, and one copy of a day."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.days.closing_rows import closing_rows
from btc_core.days.lake import Manifest
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.market.events import QUOTE, TRADE
from btc_core.names import FRESH_ROW_NS
from btc_core.stores.newest_rows import newest_of_minutes
from btc_core.stores.s3 import ObjectStore
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

DAY = "2026-11-20"
BEGIN_NS = day_ns(DAY)
SYMBOL = "BTC/USD"


def places(rows: list[tuple[float, int, int, int, int]]) -> pa.Table:
    """Rows of (seconds of the day, partition, offset, item, trade id)."""
    seconds, *others = zip(*rows, strict=True)
    ts = pa.array([BEGIN_NS + round(second * NS_PER_S) for second in seconds], pa.timestamp("ns"))
    names = ("kafka_partition", "kafka_offset", "frame_item", "trade_id")
    return pa.table({"ts_event": ts, **{name: list(each) for name, each in zip(names, others, strict=True)}})


def chosen(rows: list[tuple[float, int, int, int, int]]) -> dict[int, int]:
    """The minute of each close and the index of its row."""
    closes_ns, index = newest_of_minutes(places(rows), FRESH_ROW_NS)
    return dict(zip(((closes_ns - BEGIN_NS) // NS_PER_MIN).tolist(), index.tolist(), strict=True))


def test_the_newest_row_before_the_close_is_chosen_and_a_row_at_the_close_belongs_to_the_next_minute() -> None:
    rows = [(58.0, 0, 1, 0, 0), (59.5, 0, 2, 0, 0), (60.0, 0, 3, 0, 0), (119.0, 0, 4, 0, 0)]
    assert chosen(rows) == {1: 1, 2: 3}


def test_of_rows_of_one_frame_the_last_item_is_chosen_however_they_are_stored() -> None:
    rows = [(59.0, 0, 5, 2, 0), (59.0, 0, 5, 0, 0), (59.0, 0, 5, 1, 0)]
    assert chosen(rows) == {1: 0}


def test_a_row_that_is_too_old_at_the_close_is_not_chosen() -> None:
    assert chosen([(49.9, 0, 1, 0, 0), (110.0, 0, 2, 0, 0)]) == {2: 1}


def test_without_a_limit_of_age_a_quiet_minute_has_the_row_of_its_begin() -> None:
    ends_ns, index = newest_of_minutes(places([(1.0, 0, 1, 0, 0), (119.0, 0, 2, 0, 0)]))
    assert ((ends_ns - BEGIN_NS) // NS_PER_MIN).tolist() == [1, 2]
    assert index.tolist() == [0, 1]


def test_a_late_row_is_left_out_because_it_holds_what_came_after_the_close() -> None:
    rows = [(58.0, 0, 1, 0, 0), (61.0, 0, 2, 0, 0), (59.9, 0, 3, 0, 0), (118.0, 0, 4, 0, 0)]
    assert chosen(rows) == {1: 0, 2: 3}


def test_a_row_that_is_late_within_its_minute_is_the_newest_in_the_log() -> None:
    rows = [(57.0, 0, 1, 0, 0), (59.0, 0, 2, 0, 0), (58.5, 0, 3, 0, 0)]
    assert chosen(rows) == {1: 2}


def test_imported_trades_are_in_the_order_of_their_times_and_ids() -> None:
    rows = [(59.0, -1, 59_000_000, 1, 12), (59.0, -1, 59_000_000, 0, 11), (55.0, -1, 55_000_000, 0, 10)]
    assert chosen(rows) == {1: 0}
    assert chosen([*rows, (59.5, 0, 7, 0, 0)]) == {1: 3}


class MemoryStore(ObjectStore):
    """An object store in memory that counts how often an object is read."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.reads.append(key)
        return self.objects.get(key)

    def pieces(self, key: str) -> Iterator[bytes]:
        body = self.get(key)
        yield from [] if body is None else [body[:1_000], body[1_000:]]

    def put(self, key: str, body: bytes) -> None:
        self.objects[key] = body

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.objects if key.startswith(prefix)]

    def uri(self, key: str) -> str:
        return f"memory://{key}"


class EmptyDatabase:
    def execute(self, _sql: str) -> list[list[object]]:
        return []


def store_with_day(seal: str = "abc", version: str = FEATURE_VERSION) -> tuple[MemoryStore, np.ndarray]:
    """A store with the copy of an hour, two rows a second, and the features of each row."""
    rng = np.random.default_rng(4)
    count = 7_200
    ts_ns = BEGIN_NS + (np.arange(count) + 0.5) * NS_PER_S // 2
    matrix = rng.normal(size=(count, len(FEATURE_NAMES)))
    matrix[:, FEATURE_NAMES.index("spread_bps")][::3] = np.nan
    events = {
        "ts_event_ns": ts_ns.astype(np.int64), "ts_recv_ns": ts_ns.astype(np.int64), "symbol": [SYMBOL] * count,
        "partition": np.zeros(count, np.int64), "offset": np.arange(count), "item": np.zeros(count, np.int64),
        "trade_id": np.zeros(count, np.int64), "trade_price": np.full(count, np.nan), "trade_qty": np.full(count, np.nan),
        "trade_side": np.full(count, np.nan), "kind": np.where(np.arange(count) % 2 == 0, QUOTE, TRADE),
    }  # fmt: skip
    rows = table_rows.silver_features(events, matrix)
    sink = io.BytesIO()
    pq.write_table(rows, sink, row_group_size=1_000)
    store = MemoryStore()
    body = sink.getvalue()

    manifest = Manifest(
        table=SILVER_FEATURES.name, day=DAY, key="rows.parquet", rows=count, size_bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(), content_sha256="0123456789abcdef0", columns=(), feature_version=version,
        seal=seal, written_at_ns=0,
    )  # fmt: skip
    store.objects = {"rows.parquet": body, f"silver_features/{DAY}/manifest.json": msgspec.json.encode(manifest)}
    places = [FEATURE_NAMES.index(name) for name in MODEL_FEATURES]
    return store, matrix[:, places]


def test_a_day_that_was_moved_to_the_object_store_gives_its_rows_at_the_closes() -> None:
    store, matrix = store_with_day()
    found = closing_rows(EmptyDatabase(), store, SYMBOL, BEGIN_NS)  # type: ignore[arg-type]
    assert ((found.origin_ns - BEGIN_NS) // NS_PER_MIN).tolist() == list(range(1, 61))
    assert np.array_equal(found.matrix, matrix[119::120], equal_nan=True), "missing inputs stay missing"
    assert closing_rows(EmptyDatabase(), store, "ETH/USD", BEGIN_NS).matrix.shape == (0, len(MODEL_FEATURES))  # type: ignore[arg-type]


def test_a_whole_copy_is_read_once_and_its_closes_are_kept_beside_it() -> None:
    store, matrix = store_with_day()
    closing_rows(EmptyDatabase(), store, SYMBOL, BEGIN_NS)  # type: ignore[arg-type]
    store.reads.clear()
    again = closing_rows(EmptyDatabase(), store, SYMBOL, BEGIN_NS, 5)  # type: ignore[arg-type]
    assert np.array_equal(again.matrix, matrix[599::600], equal_nan=True)
    assert "rows.parquet" not in store.reads


@pytest.mark.parametrize(("seal", "version"), [("", FEATURE_VERSION), ("abc", "older")])
def test_a_copy_without_a_seal_or_of_another_feature_version_gives_no_rows(seal: str, version: str) -> None:
    store, _ = store_with_day(seal, version)
    assert len(closing_rows(EmptyDatabase(), store, SYMBOL, BEGIN_NS).origin_ns) == 0  # type: ignore[arg-type]


def test_a_damaged_copy_gives_no_rows_and_stops_no_training() -> None:
    store, _ = store_with_day()
    store.objects["rows.parquet"] = b"damaged"
    assert len(closing_rows(EmptyDatabase(), store, SYMBOL, BEGIN_NS).origin_ns) == 0  # type: ignore[arg-type]
