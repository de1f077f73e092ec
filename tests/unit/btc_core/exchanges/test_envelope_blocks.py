"""Messages of the log become the lines that single envelopes give, whatever their form."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest

from btc_core.exchanges import envelope_blocks
from btc_core.exchanges.envelope_blocks import blocks_of_values
from btc_core.exchanges.recorded_blocks import blocks_of
from btc_core.exchanges.recorded_lines import RecordedMessage
from btc_core.market.messages import Envelope, encode_envelope
from tests.book_frames import BookTape

pytestmark = pytest.mark.unit

NUMBERS = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**40)
AHEAD = (None, 0, 5, 200, 70_000, 10**11, -1, -32, -33, -200, -(10**6), -(10**12))
FIRST = 10**6


def changed(envelope: Envelope, rng: random.Random) -> Envelope:
    """The envelope with other fields."""
    raw = (
        rng.choice([b"", b"{}", b"x" * 300, b"y" * 70_000, envelope.raw + b"\n\r "])
        if rng.random() < 0.1
        else envelope.raw
    )
    return msgspec.structs.replace(
        envelope,
        connection=rng.choice(NUMBERS),
        sequence=rng.choice(NUMBERS),
        channel=rng.choice([envelope.channel, "", "a" * 40]),
        raw=raw,
        book_ok=rng.choice([None, True, False]),
        exchange=rng.choice(["kraken", "binance-perp", ""]),
        clock_offset_ns=rng.choice(AHEAD),
        qualified=rng.random() < 0.2,
        conflated=rng.random() < 0.2,
    )


def assert_same_blocks(values: list[bytes], envelopes: list[tuple[int, Envelope]]) -> None:
    """Compare the blocks of values with those of the envelopes in them, which are at these places."""
    found = list(blocks_of_values([(values, list(range(FIRST, FIRST + len(values))))], 3))
    expected = list(blocks_of(RecordedMessage(each, 3, FIRST + at) for at, each in envelopes))
    assert [each.text for each in found] == [each.text for each in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.lines, other.lines)


def test_values_give_the_blocks_of_their_envelopes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    envelopes = [changed(each, rng) for each in BookTape(4).run(3_000).envelopes]
    values = [encode_envelope(each) for each in envelopes]
    older = [msgspec.msgpack.encode(msgspec.msgpack.decode(value)[: rng.randrange(8, 12)]) for value in values]
    with monkeypatch.context() as patched:
        patched.delattr(envelope_blocks, "blocks_of")  # nothing is left to the usual decoder
        assert list(blocks_of_values([(values, list(range(len(values))))], 3))
    assert_same_blocks(values, list(enumerate(envelopes)))
    assert_same_blocks(older, [(at, msgspec.msgpack.decode(each, type=Envelope)) for at, each in enumerate(older)])


UNUSUAL: list[Any] = [
    {"channel": "a b"}, {"channel": "a:b"}, {"origin": "ä"}, {"exchange": "a\nb"}, {"sequence": -1}, {"connection": 2**63},
    {"ts_recv_ns": 5_000_000_000}, {"ts_recv_ns": 0},
]  # fmt: skip


@pytest.mark.parametrize("fields", UNUSUAL)
def test_an_envelope_of_another_form_is_left_to_the_usual_decoder(fields: dict[str, Any]) -> None:
    envelopes = BookTape(4).run(20).envelopes
    envelopes[7] = msgspec.structs.replace(envelopes[7], **fields)
    try:
        expected = list(blocks_of(RecordedMessage(each, 3, FIRST + at) for at, each in enumerate(envelopes)))
    except ValueError as error:  # as before, such a message ends the reading
        with pytest.raises(type(error)):
            list(blocks_of_values([([encode_envelope(each) for each in envelopes], list(range(len(envelopes))))], 3))
        return
    assert expected
    assert_same_blocks([encode_envelope(each) for each in envelopes], list(enumerate(envelopes)))


def test_what_is_no_envelope_is_left_out() -> None:
    envelopes = BookTape(4).run(20).envelopes
    values = [encode_envelope(each) for each in envelopes]
    for value in (b"", b"{}", values[3][:-1], values[3] + b"\x00", b"\x9b" + b"\xc0" * 11, b"\x9b"):
        mixed = [*values[:5], value, *values[5:]]
        assert_same_blocks(mixed, [(at + (at >= 5), each) for at, each in enumerate(envelopes)])
