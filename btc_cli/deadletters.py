"""`btc deadletters` and `btc redrive`: messages that the workers could not process, listed and sent again.

A dead letter is sent again only if it can be processed now. A second letter then marks it as redriven, so that it is
never sent twice. What does not belong here: writing dead letters (`streaming.publish`).
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from confluent_kafka import TopicPartition

from btc_cli import screen
from btc_cli.options import DataDir, open_stack
from btc_core.clock import from_ns, now_ns
from btc_core.errors import BadFrame, InvalidInput, ServiceError
from btc_core.exchanges.decoding import DECODERS, events_of, frame_of
from btc_core.market.frames import BookFrame, MarkPriceFrame, OhlcFrame, Reply, TickerFrame, TradeFrame
from btc_core.market.messages import DeadLetter, Envelope, decode_envelope, encode_envelope
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores.kafka import ADMIN_TIMEOUT_S, consumer, producer, read_topic, timestamp_ms

if TYPE_CHECKING:
    from btc_core.service_settings import KafkaSettings
    from btc_core.settings import Settings

REDRIVEN = "redriven"
"""The reason of a letter that marks another one as sent again."""
REDRIVE = "redrive"
"""The origin of an envelope that was sent again."""
SHOWN_CHARS = 60
"""Characters of a letter's message that the list shows."""

Reason = Annotated[str, typer.Option(help="Use only dead letters with this reason, as shown in the list.")]


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, its place in the topic, and whether it was sent again."""

    place: str
    """`partition:offset`."""
    body: DeadLetter
    redriven: bool


def deadletters(
    reason: Reason = "",
    last: Annotated[int, typer.Option(help="Number of dead letters to list, the newest ones.")] = 20,
    show: Annotated[
        str, typer.Option(metavar="PARTITION:OFFSET", help="Write the raw bytes of this dead letter to stdout instead.")
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """List the messages that the workers could not process, with their reasons and origins."""
    letters = read(open_stack(data_dir).settings.kafka, reason)
    if show:
        sys.stdout.buffer.write(find(letters, show).body.raw + b"\n")
        return
    headings = ("letter", "time (UTC)", "found by", "reason", "came from", "sent again", "message")
    screen.table(headings, [_row(letter) for letter in letters[-last:]])
    counts = Counter(letter.body.reason for letter in letters)
    summary = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    typer.echo(f"{len(letters)} dead letters{': ' if summary else ''}{summary}")


def _row(letter: Letter) -> tuple[str, ...]:
    body = letter.body
    return (
        letter.place,
        f"{from_ns(body.ts_ns):%Y-%m-%d %H:%M:%S}",
        body.source,
        body.reason,
        f"{body.topic}[{body.partition}]@{body.offset}" if body.topic else "the socket",
        "yes" if letter.redriven else "",
        body.message[:SHOWN_CHARS],
    )


def redrive(
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="PARTITION:OFFSET", help="Dead letters to send again. Default: all of them."),
    ] = None,
    reason: Reason = "",
    data_dir: DataDir = None,
) -> None:
    """Send dead letters again that can be processed now, for example after an upgrade.

    No dead letter is sent twice.
    """
    settings = open_stack(data_dir).settings
    letters = read(settings.kafka, reason)
    sent, refused = send_again(settings, [find(letters, place) for place in places] if places else letters)
    for letter, problem in refused:
        typer.echo(f"{letter.place} ({letter.body.reason}) was not sent: {problem}")
    typer.echo(f"{len(sent)} sent again, {len(refused)} not sent")


def read(kafka: KafkaSettings, reason: str = "") -> list[Letter]:
    """All dead letters in time order, or those with the given reason. Raises `ServiceError`."""
    bodies, redriven = [], set()
    for value, partition, offset in read_topic(kafka, DEADLETTERS_TOPIC):
        body = msgspec.json.decode(value, type=DeadLetter)
        if body.reason == REDRIVEN:
            redriven.add(f"{body.partition}:{body.offset}")
        elif reason in ("", body.reason):
            bodies.append((f"{partition}:{offset}", body))
    letters = [Letter(place, body, place in redriven) for place, body in bodies]
    return sorted(letters, key=lambda letter: letter.body.ts_ns)


def find(letters: list[Letter], place: str) -> Letter:
    """The letter at `partition:offset`; raises `InvalidInput` if there is none."""
    for letter in letters:
        if letter.place == place:
            return letter
    msg = f"there is no dead letter {place}; `btc deadletters` lists them by partition:offset"
    raise InvalidInput(msg)


def send_again(settings: Settings, letters: list[Letter]) -> tuple[list[Letter], list[tuple[Letter, str]]]:
    """Send the letters that can be processed now; returns those sent, and the others each with its problem.

    Raises `ServiceError` if Kafka does not acknowledge.
    """
    kafka = settings.kafka
    sender = producer(kafka, "redrive")
    sent, refused = [], []
    for letter in letters:
        if letter.redriven:
            refused.append((letter, "it was sent again before"))
            continue
        try:
            envelope = _original(settings, letter.body)
            symbol = _checked_symbol(envelope)
        except BadFrame as error:
            refused.append((letter, str(error)))
            continue
        key = settings.log_key(symbol)
        sender.produce(EVENTS_TOPIC, encode_envelope(envelope), key, timestamp=timestamp_ms(now_ns()))
        partition, _, offset = letter.place.partition(":")
        mark = DeadLetter(REDRIVEN, letter.place, now_ns(), "redrive", DEADLETTERS_TOPIC, int(partition), int(offset))
        sender.produce(DEADLETTERS_TOPIC, msgspec.json.encode(mark), REDRIVEN)
        sent.append(letter)
    if sender.flush(ADMIN_TIMEOUT_S):
        msg = f"Kafka at {kafka.bootstrap} did not acknowledge within {ADMIN_TIMEOUT_S:.0f} s; try again"
        raise ServiceError(msg)
    return sent, refused


def _original(settings: Settings, letter: DeadLetter) -> Envelope:
    """The message as it was in the log, or a new envelope around a frame that never reached the log."""
    if letter.topic == EVENTS_TOPIC:
        envelope = decode_envelope(_message(settings.kafka, letter.partition, letter.offset))
        return msgspec.structs.replace(envelope, origin=REDRIVE)
    if len(letter.raw) < letter.size_bytes:
        raise BadFrame("cut_off", f"only {len(letter.raw)} of its {letter.size_bytes} bytes were kept")
    exchange = letter.exchange or settings.exchange.name
    if exchange not in DECODERS:
        raise BadFrame("unknown_exchange", f"there is no decoder for frames of the exchange {exchange[:32]!r}")
    frame = DECODERS[exchange](letter.raw)
    if isinstance(frame, Reply):
        raise BadFrame("unknown_message", "it answers a request and holds no market data")
    channel, is_other = str(frame.__struct_config__.tag), exchange != settings.exchange.name
    return Envelope(letter.ts_ns, 0, 0, channel, REDRIVE, letter.raw, exchange=exchange, qualified=is_other)


def _checked_symbol(envelope: Envelope) -> str:
    """The symbol of the envelope's frame; raises `BadFrame` if any of its events cannot be processed."""
    for event in events_of(envelope):
        if isinstance(event, BadFrame):
            raise event
    frame = frame_of(envelope)
    if isinstance(frame, TickerFrame | TradeFrame | OhlcFrame | BookFrame | MarkPriceFrame) and frame.data:
        return frame.data[0].symbol
    return ""


def _message(kafka: KafkaSettings, partition: int, offset: int) -> bytes:
    reader = consumer(kafka, "redrive")
    try:
        reader.assign([TopicPartition(EVENTS_TOPIC, partition, offset)])
        message = reader.poll(ADMIN_TIMEOUT_S)
        if message is None or message.error() is not None or message.offset() != offset:
            raise BadFrame("gone", f"{EVENTS_TOPIC}[{partition}]@{offset} is no longer in the log")
        return message.value() or b""
    finally:
        reader.close()
