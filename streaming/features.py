"""The features worker: the log in, feature rows out to silver, the topic `features` and Redis.

What does not belong here: how a row is computed (`btc_core.features.engine`).
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import BadFrame
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.engine import FeatureEngine
from btc_core.features.fold import TRADE, WARM_UP_S
from btc_core.features.state import STATE
from btc_core.market.messages import FeatureMessage, decode_envelope
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC, WorkerName
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_rows import FeatureRow, feature_fields, feature_key
from streaming.latest import LatestRows
from streaming.publish import Publisher
from streaming.worker import Role, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.features.engine import Rows
    from btc_core.settings import Settings
    from streaming.worker import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.FEATURES
STATE_VERSION = f"{FEATURE_VERSION}-{hashlib.sha256(repr(STATE).encode()).hexdigest()[:8]}"
"""Of the fold's state: the features, the revision of the fold and the layout of what it remembers."""
MARGIN_S = 600
"""Warm up a little longer than the fold needs: the log is cut by receive time, the fold by exchange time."""


class FeatureSink:
    """Announces rows at once on the topic and in Redis, and writes them to QuestDB when told to."""

    def __init__(self, settings: Settings) -> None:
        self._db = QuestDB(settings.questdb)
        self._publisher = Publisher(settings.kafka, "features")
        self._latest = LatestRows(settings.redis, GROUP)
        self._chunk_rows = settings.stream.batch_rows
        self._encoder = msgspec.msgpack.Encoder()
        self._kept: list[Rows] = []
        self._kept_rows = 0

    def announce(self, batches: list[Rows]) -> None:
        """Publish every row and replace the newest in Redis."""
        newest = {}
        for batch in batches:
            for message in _messages(batch):
                self._publisher.publish(FEATURES_TOPIC, batch.symbol, self._encoder.encode(message), message.ts_recv_ns)
            newest[feature_key(batch.symbol)] = feature_fields(_last_row(batch))
        if self._latest.put(newest) and batches:
            oldest_ns = min(batch.ids[0].ts_recv_ns for batch in batches)
            metrics.STAGE_LATENCY.labels("features").observe((now_ns() - oldest_ns) / NS_PER_S)

    def keep(self, batches: list[Rows]) -> int:
        """Keep rows for `cut`; returns how many are kept now."""
        self._kept.extend(batches)
        self._kept_rows += sum(len(batch.ids) for batch in batches)
        return self._kept_rows

    def drop(self) -> None:
        """Forget what is kept."""
        self._kept, self._kept_rows = [], 0

    def cut(self) -> Callable[[], None]:
        """What is kept, as work that writes it and waits until QuestDB and Kafka have acknowledged everything."""
        chunks = list(_chunks(self._kept, self._chunk_rows))
        self._kept, self._kept_rows = [], 0

        def write() -> None:
            while chunks:
                self._db.write("silver_features", silver_frame(chunks[0]))
                chunks.pop(0)
            self._publisher.flush()

        return write


def _chunks(batches: list[Rows], rows: int) -> Iterator[list[Rows]]:
    """Runs of batches of about `rows` rows each."""
    chunk: list[Rows] = []
    count = 0
    for batch in batches:
        chunk.append(batch)
        count += len(batch.ids)
        if count >= rows:
            yield chunk
            chunk, count = [], 0
    if chunk:
        yield chunk


def _messages(batch: Rows) -> Iterator[FeatureMessage]:
    matrix = batch.matrix()
    values, width = matrix.tobytes(), matrix.strides[0]
    for number, row in enumerate(batch.ids):
        yield FeatureMessage(
            batch.symbol,
            row.ts_event_ns,
            row.ts_recv_ns,
            row.partition,
            row.offset,
            row.item,
            row.kind,
            FEATURE_VERSION,
            values[number * width : (number + 1) * width],
        )


def _last_row(batch: Rows) -> FeatureRow:
    row = batch.ids[-1]
    return FeatureRow(
        batch.symbol,
        row.ts_event_ns,
        row.ts_recv_ns,
        row.partition,
        row.offset,
        row.item,
        row.kind,
        FEATURE_VERSION,
        batch.matrix()[-1].tolist(),
    )


def silver_frame(batches: list[Rows]) -> pd.DataFrame:
    """Rows as the table `silver_features` has them."""
    ids = [row for batch in batches for row in batch.ids]
    symbols = [batch.symbol for batch in batches for _ in batch.ids]
    head = pd.DataFrame(
        {
            "ts_event": pd.to_datetime([row.ts_event_ns for row in ids]),
            "ts_recv": pd.to_datetime([row.ts_recv_ns for row in ids]),
            "symbol": pd.Categorical(symbols),
            "kind": pd.Categorical(["trade" if row.kind == TRADE else "quote" for row in ids]),
            "feature_version": pd.Categorical([FEATURE_VERSION] * len(ids)),
            "trade_id": np.array([row.trade_id for row in ids], np.int64),
            "trade_price": [row.trade_price for row in ids],
            "trade_qty": [row.trade_qty for row in ids],
            "trade_side": [row.trade_side for row in ids],
            "kafka_partition": np.array([row.partition for row in ids], np.int32),
            "kafka_offset": np.array([row.offset for row in ids], np.int64),
            "frame_item": np.array([row.item for row in ids], np.int32),
        }
    )
    values = np.concatenate([batch.matrix() for batch in batches])
    return pd.concat([head, pd.DataFrame(values, columns=list(FEATURE_NAMES))], axis=1)


class FeaturesHandler:
    """Folds messages in the order of the log."""

    def __init__(self, settings: Settings) -> None:
        self._engine = FeatureEngine()
        self._sink = FeatureSink(settings)

    def reset(self) -> None:
        """Forget every market, and rows that nobody has cut: their messages come again."""
        self._engine = FeatureEngine()
        self._sink.drop()

    def warm(self, messages: list[Record]) -> None:
        """Fold silently."""
        self._push(messages)
        self._engine.flush(emit=False)

    def save(self, partition: int) -> bytes:
        """The state of the fold."""
        return self._engine.save(partition)

    def load(self, state: bytes) -> None:
        """The same again."""
        self._engine.load(state)

    def handle(self, messages: list[Record]) -> int:
        """Fold and announce."""
        self._push(messages)
        batches = self._engine.flush()
        self._sink.announce(batches)
        return self._sink.keep(batches)

    def cut(self) -> Callable[[], None]:
        """Silver rows to write."""
        return self._sink.cut()

    def _push(self, messages: list[Record]) -> None:
        for message in messages:
            try:
                envelope = decode_envelope(message.value)
            except BadFrame as error:  # bronze writes the dead letter
                log.warning("%s[%d]@%d: %s", EVENTS_TOPIC, message.partition, message.offset, error)
                continue
            self._engine.push(envelope, message.partition, message.offset)


def build(settings: Settings) -> Worker:
    """The worker, ready to run."""
    return Worker(settings, Role(GROUP, EVENTS_TOPIC, WARM_UP_S + MARGIN_S, STATE_VERSION), FeaturesHandler(settings))
