"""The features worker: reads the log and writes feature rows to silver, the topic `features` and Redis.

What does not belong here: how a row is computed (`btc_core.features.engine`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.errors import BadFrame
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.features.engine import STATE_VERSION, FeatureEngine, columns_of
from btc_core.features.state import WARM_UP_S
from btc_core.features.user.values import UserFeatures
from btc_core.market.messages import FeatureMessage, decode_envelope
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC, WorkerName
from btc_core.stores.redis_rows import FeatureRow, feature_fields, feature_key
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.user_tables import USER_FEATURES
from streaming.handler import WorkerSpec
from streaming.latest_rows import LatestRows
from streaming.publisher import Publisher
from streaming.table_writer import TableWriter
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from btc_core.features.engine import Rows
    from btc_core.settings import Settings
    from streaming.handler import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.FEATURES
WARM_UP_MARGIN_S = 600
"""Extra warm-up: the log is read from a receive time, whereas the windows of the fold are in exchange time."""


class FeatureSink:
    """Publishes rows to the topic and Redis at once, and keeps them until they are written to QuestDB."""

    def __init__(self, settings: Settings, features: UserFeatures | None) -> None:
        self._features = features
        self._publisher = Publisher(settings.kafka, "features")
        self._tables = TableWriter(settings.questdb, self._publisher)
        self._redis = LatestRows(settings.redis, GROUP)
        self._chunk_rows = settings.stream.batch_rows
        self._encoder = msgspec.msgpack.Encoder()
        self._kept: list[Rows] = []
        self._kept_rows = 0

    def publish(self, batches: list[Rows]) -> None:
        """Publish every row to the topic and the newest of each symbol to Redis."""
        newest = {}
        for batch in batches:
            for message in feature_messages(batch, self._features):
                self._publisher.publish(FEATURES_TOPIC, batch.symbol, self._encoder.encode(message), message.ts_recv_ns)
            newest[feature_key(batch.symbol)] = feature_fields(self._last_row(batch))
        if newest:
            self._redis.write(newest, min(batch.ids[0].ts_recv_ns for batch in batches))

    def keep(self, batches: list[Rows]) -> int:
        """Keep rows for `drain`; returns how many are kept by now."""
        self._kept.extend(batches)
        self._kept_rows += sum(len(batch.ids) for batch in batches)
        return self._kept_rows

    def drop(self) -> None:
        """Forget the kept rows."""
        self._kept, self._kept_rows = [], 0

    def drain(self) -> Callable[[], None]:
        """The kept rows as a write that returns once QuestDB and Kafka have acknowledged everything."""
        chunks = list(_chunks(self._kept, self._chunk_rows))
        self._kept, self._kept_rows = [], 0

        def write() -> None:
            while chunks:
                self._tables.write(SILVER_FEATURES, _silver(chunks[0]))
                of_user = self._user_rows(chunks[0])
                if len(of_user):
                    self._tables.write(USER_FEATURES, of_user)
                chunks.pop(0)
            self._publisher.flush()

        return write

    def _last_row(self, batch: Rows) -> FeatureRow:
        user = {}
        if self._features is not None and batch.user is not None:
            user = dict(zip(self._features.names, batch.user.values[-1].tolist(), strict=True))
        return FeatureRow.of(batch.ids[-1], FEATURE_VERSION, batch.matrix()[-1].tolist(), user)

    def _user_rows(self, batches: list[Rows]) -> pa.Table:
        """The minutes that closed in the batches as rows of `silver_user_features`."""
        closed = [
            (batch.ids[each.row], each) for batch in batches if batch.user is not None for each in batch.user.closed
        ]
        files = () if self._features is None else self._features.files
        return table_rows.user_features([row for row, _ in closed], [each for _, each in closed], files)


def feature_messages(batch: Rows, features: UserFeatures | None = None) -> Iterator[FeatureMessage]:
    """The rows of a batch as messages of the topic, with the values of the user's `features`."""
    matrix = batch.matrix()
    values, width = matrix.tobytes(), matrix.strides[0]
    user = None if features is None else batch.user
    version = "" if features is None else features.version
    for number, row in enumerate(batch.ids):
        feed = (row.open_gaps, row.conflated, row.clock_offset_ns)
        own = () if user is None else (version, int(user.end_ns[number]), user.values[number].tobytes())
        yield FeatureMessage.of(row, FEATURE_VERSION, values[number * width : (number + 1) * width], *feed, *own)


def _chunks(batches: list[Rows], rows: int) -> Iterator[list[Rows]]:
    """Group batches into chunks of at least `rows` rows; the last one may have fewer."""
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


def _silver(batches: list[Rows]) -> pa.Table:
    """The batches as rows of `silver_features`."""
    events = [event for batch in batches for event in batch.ids]
    return table_rows.silver_features(columns_of(events), np.concatenate([batch.matrix() for batch in batches]))


class FeaturesHandler:
    """Folds messages in the order of the log and hands the feature rows to the sink."""

    def __init__(self, settings: Settings, features: UserFeatures | None = None) -> None:
        self._leader, self._features = settings.leader, features
        self._engine = FeatureEngine(self._leader, features)
        self._sink = FeatureSink(settings, features)

    def reset(self) -> None:
        """Forget the state of every symbol, and rows not yet drained: their messages come again."""
        self._engine = FeatureEngine(self._leader, self._features)
        self._sink.drop()

    def warm(self, messages: list[Record]) -> None:
        """Fold messages without making rows."""
        self._push(messages)
        self._engine.flush(emit=False)

    def save(self, partition: int) -> bytes:
        """The state of the partition's symbols."""
        return self._engine.save(partition)

    def load(self, state: bytes) -> None:
        """Restore the state of a partition."""
        self._engine.load(state)

    def handle(self, messages: list[Record]) -> int:
        """Fold messages, publish their rows and keep them; returns how many rows are kept by now."""
        self._push(messages)
        batches = self._engine.flush()
        self._sink.publish(batches)
        return self._sink.keep(batches)

    def drain(self) -> Callable[[], None]:
        """The kept rows as a write."""
        return self._sink.drain()

    def _push(self, messages: list[Record]) -> None:
        for message in messages:
            try:
                envelope = decode_envelope(message.value)
            except BadFrame as error:  # the bronze worker writes the dead letter
                log.warning("%s[%d]@%d: %s", EVENTS_TOPIC, message.partition, message.offset, error)
                continue
            self._engine.push(envelope, message.partition, message.offset)


def build(settings: Settings) -> Worker:
    """The worker, ready to run."""
    features = UserFeatures.in_folder(settings.user_features)
    own = "" if features is None else features.version
    # The state depends on the leading market and on the user's features, too.
    version = "-".join(filter(None, (STATE_VERSION, settings.leader, own)))
    spec = WorkerSpec(GROUP, EVENTS_TOPIC, WARM_UP_S + WARM_UP_MARGIN_S, version)
    return Worker(settings, spec, FeaturesHandler(settings, features))


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM."""
    build(settings).run_as_process()
