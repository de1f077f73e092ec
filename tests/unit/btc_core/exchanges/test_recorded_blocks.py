"""Many lines of a recording at a time give the messages that single lines give, and the same lines are refused."""

from __future__ import annotations

import numpy as np
import pytest

from btc_core.exchanges.recorded_blocks import Block, block_of, blocks_of
from btc_core.exchanges.recorded_lines import BadLine, RecordedMessage, envelope_line, parse_line
from btc_core.market.messages import Envelope
from tests.book_frames import BookTape

pytestmark = pytest.mark.unit

RECEIVED_NS = 1_800_000_000_000_000_000
FRAME = b'{"channel":"heartbeat"}'
ODD = [
    Envelope(RECEIVED_NS, 3, 7, "ticker", "ws", FRAME, clock_offset_ns=12_000_000),
    Envelope(RECEIVED_NS + 1, 3, 8, "book", "ws", b'{"a":"1\r\n2"}', book_ok=True),
    Envelope(RECEIVED_NS + 2, 3, 9, "book", "redrive", FRAME, book_ok=False, exchange="binance-perp", qualified=True),
    Envelope(RECEIVED_NS + 3, 0, 0, "absent", "rest", b'{"symbol":"BTC/USD"}', exchange="coinbase"),
    Envelope(RECEIVED_NS + 4, 1, 1, "", "ws", b'{"method":"pong: at@1:2"}', clock_offset_ns=-5),
]


def text_of(envelopes: list[Envelope]) -> list[bytes]:
    return [envelope_line(each, 2, 10**12 + at) for at, each in enumerate(envelopes)]


def test_a_block_gives_the_messages_that_its_lines_give() -> None:
    lines = text_of([*ODD, *BookTape(3).run(400).envelopes, *ODD])
    block = block_of(b"".join(lines))
    assert isinstance(block, Block)
    messages = list(block.messages())
    assert messages == [parse_line(1, line.rstrip(b"\n")) for line in lines]
    channels = [message.envelope.channel for message in messages if isinstance(message, RecordedMessage)]
    assert block.lines["is_book"].tolist() == [channel == "book" for channel in channels]
    mask = np.arange(len(lines)) % 3 == 0
    assert list(block.messages(mask)) == messages[::3]
    assert list(block.where(mask).messages()) == messages[::3]
    assert block.recording() == b"".join(lines)
    assert block.where(mask).recording() == b"".join(lines[::3])


def test_messages_that_come_one_by_one_make_the_same_blocks() -> None:
    envelopes = [*ODD, Envelope(RECEIVED_NS, 1, 1, "ticker", "ws", b"no frame")]
    blocks = list(blocks_of((RecordedMessage(each, 2, 10**12 + at) for at, each in enumerate(envelopes)), 4))
    assert b"".join(block.text for block in blocks) == b"".join(text_of(envelopes))
    assert [len(block.lines) for block in blocks] == [4, 2]
    assert [message.offset - 10**12 for block in blocks for message in block.messages()] == [0, 1, 2, 3, 4]
    assert list(blocks_of([])) == []


def test_a_message_of_a_clock_without_a_battery_is_hashed_and_gives_no_frame() -> None:
    """A machine that starts in 1970 writes times that no recording has. One such message must not end the reading of a log."""
    envelopes = [ODD[0], Envelope(5_000_000_000, 1, 1, "ticker", "ws", FRAME), ODD[1]]
    (block,) = blocks_of(RecordedMessage(each, 2, 10**12 + at) for at, each in enumerate(envelopes))
    texts = text_of(envelopes)
    found = [block.text[begin:end] for begin, end in zip(block.lines["begin"], block.lines["end"], strict=True)]
    assert found == texts
    assert block.lines["offset"].tolist() == [10**12, 10**12 + 1, 10**12 + 2]
    assert [message.envelope for message in block.messages()] == [
        parse_line(1, texts[at].rstrip(b"\n")).envelope  # type: ignore[union-attr]
        for at in (0, 2)
    ]


@pytest.mark.parametrize(
    "line",
    [
        FRAME + b"\n",
        b"1800000000000000000 " + FRAME + b"\n",
        b"1800000000@0:1:2:3:ws:ticker:kraken: " + FRAME + b"\n",
        b"@0:1:2:3:ws:ticker:kraken: " + FRAME + b"\n",
        b"1800000000000000000+@0:1:2:3:ws:ticker:kraken: " + FRAME + b"\n",
        b"1800000000000000000@0:x:2:3:ws:ticker:kraken: " + FRAME + b"\n",
        b"1800000000000000000@0:1:2:ws:ticker:kraken: " + FRAME + b"\n",
        b"1800000000000000000@0:1:2:3:ws:ticker:kraken:1:1 " + FRAME + b"\n",
        b"1800000000000000000@0:1:2:3:ws:ticker:kraken " + FRAME + b"\n",
        b"99999999999999999999@0:1:2:3:ws:ticker:kraken: " + FRAME + b"\n",
        b"1800000000000000000@0:1:2:3:ws:ticker:kraken: [1]\n",
        b"1800000000000000000@0:1:2:3:ws:ticker:kraken:\n",
        b"\n",
        b"1800000000000000000@0:1:2:3:ws:ticker:kraken: " + FRAME,
    ],
)
def test_a_line_without_a_place_a_frame_or_an_end_is_named(line: bytes) -> None:
    good = text_of(ODD[:2])
    found = block_of(b"".join([*good, line]))
    assert isinstance(found, BadLine)
    assert found.line == 3
    assert isinstance(block_of(b"".join(good)), Block)


def test_an_empty_text_has_no_lines() -> None:
    block = block_of(b"")
    assert isinstance(block, Block)
    assert len(block.lines) == 0
    assert block.recording() == b""
