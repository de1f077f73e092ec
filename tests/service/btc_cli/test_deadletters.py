"""Dead letters are listed with their origin, and sent again, once, when they can be processed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_cli import deadletters
from btc_core.clock import now_ns
from btc_core.errors import InvalidInput
from btc_core.market.messages import Envelope, encode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import read_all
from streaming.publish import MAX_DEADLETTER_BYTES, Publisher
from tests.service.workers import quote_frame, unique

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings


def places_in_log(settings: Settings, symbol: str) -> list[tuple[str, str, int, int]]:
    return [
        (envelope.origin, envelope.channel, partition, offset)
        for envelope, partition, offset in read_all(settings.kafka)
        if symbol.encode() in envelope.raw
    ]


def test_a_letter_is_sent_again_when_it_can_be_processed_and_only_once(servers: Callable[..., Settings]) -> None:
    settings = servers("kafka")
    symbol, now = unique("AGAIN"), now_ns()
    good, crossed = quote_frame(symbol, now, 60_000.0), quote_frame(symbol, now, -1.0)
    publisher = Publisher(settings.kafka, "ingest")
    envelope = Envelope(now, 1, 1, "ticker", "ws", crossed)
    publisher.publish(EVENTS_TOPIC, symbol, encode_envelope(envelope), now)
    publisher.flush()
    [(_, _, partition, offset)] = places_in_log(settings, symbol)
    publisher.dead_letter(f"later_{symbol}", "an older version could not read it", good)
    publisher.dead_letter(f"price_{symbol}", "bid is -1", crossed, (EVENTS_TOPIC, partition, offset))
    publisher.dead_letter(f"huge_{symbol}", "too large", b" " * MAX_DEADLETTER_BYTES + good)
    publisher.flush()

    letters = [letter for letter in deadletters.read(settings.kafka) if symbol in letter.body.reason]
    assert [letter.body.reason for letter in letters] == [f"later_{symbol}", f"price_{symbol}", f"huge_{symbol}"]
    assert letters[0].body.raw == good
    assert letters[2].body.size_bytes == MAX_DEADLETTER_BYTES + len(good)
    assert len(letters[2].body.raw) == MAX_DEADLETTER_BYTES

    sent, refused = deadletters.send_again(settings, letters)
    assert [letter.body.reason for letter in sent] == [f"later_{symbol}"]
    problems = [problem for _, problem in refused]
    assert "bid is -1" in problems[0]
    assert "bytes were kept" in problems[1]
    assert [place[:2] for place in places_in_log(settings, symbol)] == [("ws", "ticker"), ("redrive", "ticker")]

    again = deadletters.read(settings.kafka, f"later_{symbol}")
    assert [letter.redriven for letter in again] == [True]
    sent, refused = deadletters.send_again(settings, again)
    assert sent == []
    assert refused[0][1] == "it was sent again before"
    with pytest.raises(InvalidInput, match="partition:offset"):
        deadletters.find(again, "9:9")
