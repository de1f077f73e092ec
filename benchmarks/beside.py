"""Other libraries on the same events in one run: quixstreams from Kafka to Kafka, pandas and polars in a batch.

They are installed in a separate environment (`.venv-peers`, made by `make bench`), because one of them needs another
version of the Kafka client.
What does not belong here: naive implementations of our own steps (`pure`, `servers`).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.pure import frames, market
from benchmarks.registry import Figure, Plan, benchmark, seconds
from benchmarks.servers import SYMBOL, received_now, stack_for_now
from btc_core.clock import NS_PER_MS, now_ns
from btc_core.errors import NotReady
from btc_core.features.catalogue import FEATURE_NAMES, ROW
from btc_core.features.engine import FeatureEngine
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.state import new_state, slot_of
from btc_core.market.events import QUOTE, TRADE
from btc_core.market.messages import decode_envelope, encode_envelope
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC
from btc_core.stores.kafka import consumer, producer

if TYPE_CHECKING:
    from btc_core.market.messages import Envelope
    from btc_core.service_settings import KafkaSettings

PYTHON = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
PEERS = Path(__file__).parent / "peers"
BATCH = 5_000
TIMEOUT_S = 600.0


@benchmark("peers", needs_servers=True)
def peers(plan: Plan) -> list[Figure]:
    """All of our features against a few aggregates of other libraries."""
    if not PYTHON.exists():
        msg = f"{PYTHON} does not exist; `make bench` creates it"
        raise NotReady(msg)
    events = market(plan.size(100_000), 100.0)
    return [*_in_a_batch(events), *_through_kafka(events, plan)]


def _in_a_batch(events: np.ndarray) -> list[Figure]:
    quotes = np.zeros(len(events), [("ts_ns", "i8"), ("mid", "f8")])
    quotes["ts_ns"] = events["ts_ns"]
    quotes["mid"] = np.where(
        events["kind"] == TRADE,
        events[slot_of(TRADE, "price")],
        (events[slot_of(QUOTE, "bid")] + events[slot_of(QUOTE, "ask")]) / 2,
    )
    rows = np.zeros(len(events), ROW)
    ours = len(events) / seconds(lambda: fold(new_state(), events, rows, EMIT_TICKS), 3)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.npy"
        np.save(file, quotes)
        theirs = _peer("rolling.py", str(file))
    name, note = f"replay in a batch, {len(FEATURE_NAMES)} features", "the other: 10 rolling columns"
    return [
        Figure(name, ours, "events/s", None, "higher", peer, len(events) / theirs[peer], note)
        for peer in ("pandas", "polars")
    ]


def _through_kafka(events: np.ndarray, plan: Plan) -> list[Figure]:
    envelopes = received_now(frames(events))
    with stack_for_now() as stack:
        stack.layout.change_secrets({"BTC_KAFKA_SECURITY": "plaintext"}, {})  # for both: the peer knows no password
        stack.up(only=("kafka",))
        kafka = stack.settings.kafka
        ours = len(envelopes) / _ours(kafka, envelopes)
        _fill_for_peer(kafka, events)
        counts = {"tumbling": plan.size(50_000), "sliding": plan.size(1_000)}
        topics = ("peer.events", "peer.features")
        theirs = {
            kind: count / _peer("quix.py", kind, kafka.bootstrap, *topics, str(count))["seconds"]
            for kind, count in counts.items()
        }
    name = f"Kafka to Kafka, {len(FEATURE_NAMES)} features"
    return [
        Figure(
            name, ours, "msg/s", None, "higher", f"quixstreams, {kind}", rate, "the other: 5 aggregates over a minute"
        )
        for kind, rate in theirs.items()
    ]


def _ours(kafka: KafkaSettings, envelopes: list[Envelope]) -> float:
    """Seconds from reading the first message until the last row is acknowledged."""
    sender = producer(kafka, "bench")
    for envelope in envelopes:
        sender.produce(EVENTS_TOPIC, encode_envelope(envelope), SYMBOL)
        sender.poll(0)
    sender.flush()
    reader = consumer(kafka, "bench-peers")
    reader.assign([TopicPartition(EVENTS_TOPIC, number, 0) for number in range(kafka.partitions)])
    engine, handled = FeatureEngine(), 0
    begin_s = time.perf_counter()
    while handled < len(envelopes):
        messages = reader.consume(BATCH, 0.1)
        for message in messages:
            engine.push(decode_envelope(message.value() or b""), message.partition() or 0, message.offset() or 0)
        handled += len(messages)
        for batch in engine.flush():
            values = batch.matrix()
            for number in range(len(batch.ids)):
                sender.produce(FEATURES_TOPIC, values[number].tobytes(), SYMBOL)
            sender.poll(0)
    sender.flush()
    took_s = time.perf_counter() - begin_s
    reader.close()
    return took_s


def _fill_for_peer(kafka: KafkaSettings, events: np.ndarray) -> None:
    """Publish the events as JSON with a mid price and a quantity, which is all that the peer reads."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    topics = [NewTopic(name, 1, 1) for name in ("peer.events", "peer.features")]
    for created in admin.create_topics(topics).values():
        created.result(30)
    sender = producer(kafka, "bench")
    shift_ns = now_ns() - int(events["ts_ns"][-1])  # the log deletes old messages by their time
    for ts_ns, kind, a, b, c, *_ in events.tolist():
        mid = a if kind == TRADE else (a + c) / 2
        sender.produce(
            "peer.events",
            msgspec.json.encode({"mid": mid, "qty": b}),
            SYMBOL,
            timestamp=(ts_ns + shift_ns) // NS_PER_MS,
        )
        sender.poll(0)
    sender.flush()


def _peer(script: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [str(PYTHON), str(PEERS / script), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        msg = f"the peer {script} failed: {done.stderr[-500:]}"
        raise NotReady(msg)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]
