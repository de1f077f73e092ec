"""Quotes and trades that are read from lines at once are those that the usual decoder gives, and a warm-up with them is the same."""

from __future__ import annotations

import random
import re

import msgspec
import numpy as np
import pytest

from btc_core.errors import BadFrame
from btc_core.exchanges.decoding import events_of
from btc_core.exchanges.recorded_blocks import blocks_of
from btc_core.exchanges.recorded_lines import RecordedMessage
from btc_core.exchanges.tick_lines import Ticks, ticks_of, with_ticks
from btc_core.features.engine import FeatureEngine
from btc_core.features.state import pack
from btc_core.market.events import BarEvent, TradeEvent
from btc_core.market.messages import Envelope
from tests.book_frames import BookTape

pytestmark = pytest.mark.unit

RECEIVED_NS = 1_800_000_000_000_000_000
QUOTE = (
    '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":60108.6,"bid_qty":2.84311954,"ask":60108.7,'
    '"ask_qty":0.00138853,"last":60108.7,"volume":4473.99704028,"low":58033,"change":-1497.7,'
    '"timestamp":"2026-06-26T06:41:22.476797Z"}]}'
)
TRADE = (
    '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":60108.6,"qty":0.00138853,'
    '"ord_type":"market","trade_id":7,"timestamp":"2026-06-26T06:41:22.476797Z"}]}'
)
CHANGES = {
    QUOTE: [
        ("60108.6", "60108"), ("60108.6", "0060108.6"), ("60108.6", "60108."), ("60108.6", ".6"), ("60108.6", "6.01086e4"),
        ("60108.6", "60109.6"), ("60108.6", "0"), ("60108.6", "-1"), ("60108.6", "-0.0"), ("60108.6", "null"),
        ("60108.6", '"60108.6"'), ("60108.6", "60108.600000001"), ("60108.6", "60108.60000000001"), ("60108.7", "1e15"),
        ("60108.7", "2000000000"), ("2.84311954", "0"), ("2.84311954", "0.1234567890123456789"), ("2.84311954", "-0"),
        ("2.84311954", "20000000000000000"), ("BTC/USD", "ÄTC/USD"), ("BTC/USD", "B\\u0054C/USD"), ("BTC/USD", ""),
        ("BTC/USD", "A" * 33), ("BTC/USD", "A" * 32), ('"low":58033', '"low":[1]'), ('"low":58033', '"low":null'),
        ('"low":58033', '"bid":1'), ('"low":58033', '"x":"y"'), ("4473.99704028", "4473123456789.99704028"), ("4473.99704028", "1" * 500), ('"last":60108.7', '"last":"a"'), ("22.476797Z", "22Z"),
        ("22.476797Z", "22.4Z"), ("22.476797Z", "22.Z"), ("22.476797Z", "22.4767971Z"), ("22.476797Z", "60Z"),
        ("22.476797Z", "22+00:00"), ("22.476797Z", "22.476797z"), ("2026-06-26", "2024-02-29"), ("2026-06-26", "2023-02-29"),
        ("2026-06-26", "2100-02-29"), ("2026-06-26", "2026-13-01"), ("2026-06-26", "2026-04-31"), ("2026-06-26", "1969-12-31"),
        ("2026-06-26", "1970-01-01"), ("2026-06-26T06", "2026-06-26T24"), ("2026-06-26T06", "2026-06-26 06"),
        ("2026-06-26", "2027-01-15"), ("2026-06-26", "2030-01-01"), (',"timestamp":"2026-06-26T06:41:22.476797Z"', ""),
        ("update", "snapshot"), ("update", "other"), ("}]}", '}],"more":1}'), ("}]}", "},{}]}"), ("}]}", "}] }"),
        ("]}", ""), ('{"channel"', '{ "channel"'), ("ticker", "trade"), ('"ask":', '"ask" :'), (',"last"', ', "last"'),
        (',"ask_qty":0.00138853', ""),
    ],
    TRADE: [
        ("sell", "buy"), ("sell", "Sell"), ("sell", ""), ("60108.6", "60108.60"), ("60108.6", "0"), ("60108.6", "2e9"),
        ("60108.6", '"60108.6"'), ("60108.6", "123456789.12345678"), ("0.00138853", "0.0"), ("0.00138853", "1e16"),
        ("0.00138853", "999999999999"), ('"market"', "null"), ('"market"', '"li\\"mit"'), (',"ord_type":"market"', ""),
        (":7,", ":0,"), (":7,", ":-7,"), (":7,", ":7.0,"), (":7,", ":999999999999999,"), (":7,", ":9223372036854775807,"),
        (":7,", ":9223372036854775808,"), ('"price"', '"prices"'), ("BTC/USD", "ETH/USD"), ("}]}", "}]}x"),
    ],
}  # fmt: skip


def block(envelopes: list[Envelope]) -> tuple[Ticks, list[Envelope]]:
    """The ticks of a block with these messages, and its messages."""
    (found,) = blocks_of(RecordedMessage(each, 0, at) for at, each in enumerate(envelopes))
    return ticks_of(found), [each.envelope for each in found.messages()]


def assert_reads_as_usual(envelopes: list[Envelope]) -> int:
    """Compare each line that was read with the events of the usual decoder; returns their number."""
    ticks, _ = block(envelopes)
    for number in np.flatnonzero(ticks.is_read).tolist():
        rows = ticks.rows[ticks.rows["line"] == number]
        events = list(events_of(envelopes[number]))
        assert len(events) == len(rows)
        for row, event in zip(rows, events, strict=True):
            assert not isinstance(event, BadFrame | BarEvent), envelopes[number]
            packed = pack(event)
            names = ("ts_ns", "kind", "slot_0", "slot_1", "slot_2", "slot_3")
            assert tuple(row[name].item() for name in names) == packed[: len(names)], envelopes[number]
            assert (ticks.symbols[row["symbol"]], row["item"]) == (event.symbol, event.item)
            assert row["received_ns"] == envelopes[number].ts_recv_ns
            assert row["trade_id"] == (event.trade_id if isinstance(event, TradeEvent) else 0)
    assert set(ticks.rows["line"].tolist()) == set(np.flatnonzero(ticks.is_read).tolist())
    return int(ticks.is_read.sum())


def envelope(text: str, **more: object) -> Envelope:
    channel = "trade" if "trade_id" in text else "ticker"
    return msgspec.structs.replace(Envelope(RECEIVED_NS, 1, 1, channel, "ws", text.encode()), **more)


def test_a_line_of_any_form_is_read_as_the_usual_decoder_reads_it_or_is_left_to_it() -> None:
    envelopes = []
    for frame, changes in CHANGES.items():
        for old, new in [("", ""), *changes]:
            text = frame.replace(old, new, 1) if old else frame
            assert text != frame or not old, old
            envelopes += [envelope(text), envelope(text, clock_offset_ns=10**9), envelope(text, ts_recv_ns=10**18)]
    entries = [re.search(r"\{\"symbol.*\}(?=\]\})", TRADE)[0].replace(":7,", f":{at},") for at in (8, 9)]  # type: ignore[index]
    envelopes += [envelope(TRADE.replace("]}", "," + ",".join(entries) + "]}"))]
    envelopes += [envelope(QUOTE, exchange=name) for name in ("binance", "coinbase", "kraken2")]
    envelopes += [envelope(QUOTE, qualified=True), envelope(QUOTE, channel="trade"), envelope(QUOTE, channel="book")]
    assert 30 < assert_reads_as_usual(envelopes) < len(envelopes) - 60
    for frame in CHANGES:
        assert block([envelope(frame)])[0].is_read.all()


def test_frames_with_a_changed_byte_are_never_read_differently() -> None:
    rng = random.Random(3)
    signs = [ord(sign) for sign in '0123456789.-+eE"{}[]:,TZ \\a']
    envelopes = []
    for _ in range(6_000):
        frame = bytearray(rng.choice([QUOTE, TRADE]).encode())
        place = rng.randrange(len(frame))
        frame[place : place + rng.randrange(2)] = bytes([rng.choice(signs)] * rng.randrange(2))
        channel = "trade" if b"trade" in frame else "ticker"
        envelopes.append(Envelope(RECEIVED_NS, 1, 1, channel, "ws", bytes(frame)))
    assert assert_reads_as_usual(envelopes) > 1_500


def as_kraken_writes(envelopes: list[Envelope]) -> list[Envelope]:
    """The frames of a tape without spaces, and with the times of Kraken."""
    return [
        msgspec.structs.replace(each, raw=each.raw.replace(b" ", b"").replace(b"+00:00", b"Z")) for each in envelopes
    ]


def two_markets() -> list[Envelope]:
    """A tape of two markets, with gaps, repeated, late and refused trades, and trades that are marked absent."""
    rng = random.Random(8)
    tapes = [BookTape(5).run(4_000, pace_s=3.0), BookTape(6, "ETH/USD").run(3_000, pace_s=4.0)]
    both = sorted(
        (each for tape in tapes for each in as_kraken_writes(tape.envelopes)), key=lambda each: each.ts_recv_ns
    )
    envelopes: list[Envelope] = []
    for each in both:
        chance = rng.random()
        if each.channel != "trade" or chance > 0.3:
            envelopes.append(each)
        elif chance < 0.05:  # missing, and sometimes called absent
            number = int(re.search(rb'"trade_id":(\d+)', each.raw)[1])  # type: ignore[index]
            absent = msgspec.json.encode({"symbol": "BTC/USD", "first_id": number, "last_id": number})
            if chance < 0.02:
                envelopes.append(msgspec.structs.replace(each, channel="absent", raw=absent))
        elif chance < 0.1:
            envelopes += [each, each]
        elif chance < 0.15:
            envelopes.insert(max(0, len(envelopes) - 3), each)
        else:
            envelopes.append(msgspec.structs.replace(each, raw=each.raw.replace(b'"price":', b'"price": ')))
    return envelopes


@pytest.mark.parametrize("leader", ["", "BTC/USD"])
def test_a_warm_up_with_ticks_leaves_the_state_that_single_messages_leave(leader: str) -> None:
    envelopes = two_markets()
    blocks = list(with_ticks(blocks_of((RecordedMessage(each, 0, at) for at, each in enumerate(envelopes)), 900)))
    single, engine = FeatureEngine(leader), FeatureEngine(leader)
    for at, each in enumerate(envelopes):
        single.push(each, 0, at)
    single.flush(emit=False)
    for each_block in blocks:
        engine.warm_up(each_block, np.ones(len(each_block.lines), np.bool_))
    assert sum(int(each.ticks.is_read.sum()) for each in blocks if each.ticks is not None) > 2_000
    assert engine.skipped_trades == single.skipped_trades > 0
    assert engine.rejected == single.rejected
    saved = [{each["symbol"]: each for each in msgspec.msgpack.decode(one.save(0))} for one in (engine, single)]
    assert saved[0] == saved[1]
