"""Shared by the tests of workers: running one in a thread, frames of a small market, streamed and replayed rows."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from btc_core.clock import NS_PER_S, from_ns, now_ns
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.features.engine import FeatureEngine, run
from btc_core.market.messages import Envelope, encode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import read_all
from streaming.publisher import Publisher
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB
    from streaming.worker import Worker


def unique(name: str) -> str:
    """A symbol that no earlier test on the same servers has used."""
    return f"{name}{now_ns()}/USD"


class Running:
    """A worker that runs in a thread for the length of a block; its exception is raised at the end of the block."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the test
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


def quote_frame(symbol: str, ts_ns: int, bid: float) -> bytes:
    data = {
        "symbol": symbol, "bid": bid, "bid_qty": 1.5, "ask": round(bid + 0.1, 1), "ask_qty": 0.5, "last": bid,
        "volume": 1.0, "vwap": bid, "low": bid, "high": bid, "change": 0.0, "change_pct": 0.0,
        "timestamp": from_ns(ts_ns),
    }  # fmt: skip
    return msgspec.json.encode({"channel": "ticker", "type": "update", "data": [data]})


def trade_frame(symbol: str, ts_ns: int, price: float, *ids: int) -> bytes:
    data = [
        {"symbol": symbol, "side": "buy", "price": price, "qty": 0.25, "ord_type": "limit", "trade_id": trade_id,
         "timestamp": from_ns(ts_ns)}
        for trade_id in ids
    ]  # fmt: skip
    return msgspec.json.encode({"channel": "trade", "type": "update", "data": data})


def market(symbol: str, seconds: int, seed: int, end_ns: int | None = None, trade_id: int = 1) -> Iterator[Envelope]:
    """Ten quotes and four trades a second until a time, which is now by default; the price is a random walk in ticks."""
    rng = np.random.default_rng(seed)
    start_ns = ((end_ns or now_ns()) // NS_PER_S - seconds - 5) * NS_PER_S
    bid = 60_000.0
    for step in range(seconds * 10):
        ts_ns = start_ns + step * NS_PER_S // 10 + int(rng.integers(1, 90_000)) * 1_000
        bid = round(bid + float(rng.integers(-5, 6)) / 10, 1)
        received_ns = end_ns or now_ns()
        yield Envelope(received_ns, 1, step, "ticker", "ws", quote_frame(symbol, ts_ns, bid))
        if step % 5 == 0:
            yield Envelope(received_ns, 1, step, "trade", "ws", trade_frame(symbol, ts_ns, bid, trade_id, trade_id + 1))
            trade_id += 2


def publish(settings: Settings, symbol: str, envelopes: list[Envelope]) -> None:
    publisher = Publisher(settings.kafka, "test")
    for envelope in envelopes:
        publisher.publish(EVENTS_TOPIC, symbol, encode_envelope(envelope), envelope.ts_recv_ns)
    publisher.flush()


def count(db: QuestDB, table: str, symbol: str) -> int:
    return int(db.execute(f"SELECT count() FROM {table} WHERE symbol = '{symbol}'")[0][0])


def streamed(db: QuestDB, symbol: str) -> np.ndarray:
    table = db.query(
        f"SELECT * FROM silver_features WHERE symbol = '{symbol}' ORDER BY kafka_partition, kafka_offset, frame_item"
    )
    return np.column_stack([table[name].to_numpy() for name in FEATURE_NAMES])


def replayed(settings: Settings, symbol: str) -> np.ndarray:
    rows = run(FeatureEngine(), read_all(settings.kafka))
    return np.concatenate([batch.matrix() for batch in rows if batch.symbol == symbol])


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether both are equal to the last bit; all NaNs count as equal, because a null of the database has no payload."""
    return left.shape == right.shape and bool(np.array_equal(left, right, equal_nan=True))
