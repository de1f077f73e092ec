"""The dead letters: what the workers could not use, and sending it again once they can.

A letter is sent again only if it can be read now; what was sent again is marked by a letter of its own, so that it is
never sent twice. What does not belong here: words for people (`btc_cli/deadletter_commands.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import TopicPartition

from btc_core.clock import now_ns
from btc_core.errors import BadFrame, InvalidInput, ServiceError
from btc_core.exchanges.adapters import EXCHANGES
from btc_core.exchanges.decoding import events_of, frame_of
from btc_core.market.frames import BookFrame, OhlcFrame, Reply, TickerFrame, TradeFrame
from btc_core.market.messages import DeadLetter, Envelope, decode_envelope, encode_envelope
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores.kafka import ADMIN_TIMEOUT_S, consumer, producer, read_topic, timestamp_ms

if TYPE_CHECKING:
    from btc_core.settings import KafkaSettings, Settings

REDRIVEN = "redriven"
"""The reason of the letter that marks another as sent again."""


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, its place on the topic, and whether it was sent again."""

    place: str
    """`partition:offset`."""
    body: DeadLetter
    redriven: bool


def read(kafka: KafkaSettings, reason: str = "") -> list[Letter]:
    """All letters in order of time, of one reason when it is given. Raises `ServiceError`."""
    found, done = [], set()
    for value, partition, offset in read_topic(kafka, DEADLETTERS_TOPIC):
        body = msgspec.json.decode(value, type=DeadLetter)
        if body.reason == REDRIVEN:
            done.add(f"{body.partition}:{body.offset}")
        elif reason in ("", body.reason):
            found.append((f"{partition}:{offset}", body))
    letters = [Letter(place, body, place in done) for place, body in found]
    return sorted(letters, key=lambda letter: letter.body.ts_ns)


def find(letters: list[Letter], place: str) -> Letter:
    """The letter at a place; raises `InvalidInput` when there is none."""
    for letter in letters:
        if letter.place == place:
            return letter
    msg = f"there is no dead letter {place}; `btc deadletters` lists them by partition:offset"
    raise InvalidInput(msg)


def redrive(settings: Settings, letters: list[Letter]) -> tuple[list[Letter], list[tuple[Letter, str]]]:
    """Send letters again that can be read now; those that were, and the others with what is wrong.

    Raises `ServiceError` when Kafka does not acknowledge.
    """
    kafka = settings.kafka
    sender = producer(kafka, "redrive")
    sent, refused = [], []
    for letter in letters:
        if letter.redriven:
            refused.append((letter, "was sent again before"))
            continue
        try:
            envelope = _original(settings, letter.body)
            symbol = _checked_symbol(envelope)
        except BadFrame as error:
            refused.append((letter, str(error)))
            continue
        sender.produce(EVENTS_TOPIC, encode_envelope(envelope), symbol, timestamp=timestamp_ms(now_ns()))
        partition, _, offset = letter.place.partition(":")
        mark = DeadLetter(REDRIVEN, letter.place, now_ns(), "redrive", DEADLETTERS_TOPIC, int(partition), int(offset))
        sender.produce(DEADLETTERS_TOPIC, msgspec.json.encode(mark), REDRIVEN)
        sent.append(letter)
    if sender.flush(ADMIN_TIMEOUT_S):
        msg = f"Kafka at {kafka.bootstrap} did not acknowledge within {ADMIN_TIMEOUT_S:.0f} s; try again"
        raise ServiceError(msg)
    return sent, refused


def _original(settings: Settings, letter: DeadLetter) -> Envelope:
    """The message as it was in the log, or an envelope around a frame that never got there."""
    if letter.topic == EVENTS_TOPIC:
        envelope = decode_envelope(_message(settings.kafka, letter.partition, letter.offset))
        return msgspec.structs.replace(envelope, origin=REDRIVE)
    if len(letter.raw) < letter.size_bytes:
        raise BadFrame("cut_off", f"only {len(letter.raw)} of its {letter.size_bytes} bytes were kept")
    exchange = settings.exchange.name
    frame = EXCHANGES[exchange].decode(letter.raw)
    if isinstance(frame, Reply):
        raise BadFrame("unknown_message", "an answer to a request is no market data")
    return Envelope(letter.ts_ns, 0, 0, str(frame.__struct_config__.tag), REDRIVE, letter.raw, exchange=exchange)


REDRIVE = "redrive"
"""The origin of such an envelope."""


def _checked_symbol(envelope: Envelope) -> str:
    for event in events_of(envelope):
        if isinstance(event, BadFrame):
            raise event
    frame = frame_of(envelope)
    if isinstance(frame, TickerFrame | TradeFrame | OhlcFrame | BookFrame) and frame.data:
        return frame.data[0].symbol
    return ""


def _message(kafka: KafkaSettings, partition: int, offset: int) -> bytes:
    reader = consumer(kafka, "redrive")
    try:
        reader.assign([TopicPartition(EVENTS_TOPIC, partition, offset)])
        message = reader.poll(ADMIN_TIMEOUT_S)
        if message is None or message.error() is not None or message.offset() != offset:
            raise BadFrame("gone", f"{EVENTS_TOPIC}[{partition}]@{offset} is not in the log any more")
        return message.value() or b""
    finally:
        reader.close()
