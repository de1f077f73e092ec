"""Frames, the book and what each kind of bad input becomes."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_S, to_ns
from btc_core.errors import BadFrame
from btc_core.exchanges.decoding import events_of
from btc_core.features.engine import FeatureEngine
from btc_core.market.book import ChecksumMismatch, OrderBook
from btc_core.market.events import FUTURE_S, Event
from btc_core.market.frames import BookData, BookFrame, Frame, Level, Reply, TickerFrame, TradeFrame, decode
from btc_core.market.messages import Envelope
from tests.paths import DATA

pytestmark = pytest.mark.unit

"""Recorded by others; what is where says its README.md."""
NOW = datetime(2026, 7, 19, 18, 0, tzinfo=UTC)
NOW_NS = to_ns(NOW)
TICKER = {
    "symbol": "BTC/USD", "bid": 64525.0, "bid_qty": 0.5, "ask": 64525.1, "ask_qty": 0.25, "last": 64525.0, "volume": 1.0,
    "vwap": 64000.0, "low": 63000.0, "high": 65000.0, "change": 1.0, "change_pct": 0.1, "timestamp": NOW.isoformat(),
}  # fmt: skip
TRADE = {
    "symbol": "BTC/USD", "side": "buy", "price": 64525.0, "qty": 0.1, "ord_type": "limit", "trade_id": 7,
    "timestamp": NOW.isoformat(),
}  # fmt: skip
BAR = {
    "symbol": "BTC/USD", "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 1.0, "interval": 1,
    "interval_begin": "2026-07-19T17:59:00Z",
}  # fmt: skip


def recorded(name: str) -> list[bytes]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not there; it holds recorded market data that is not part of the project")
    return path.read_bytes().splitlines()


def frame(channel: str, *entries: dict[str, object]) -> bytes:
    return json.dumps({"channel": channel, "type": "update", "data": list(entries)}).encode()


def envelope(raw: bytes, channel: str = "ticker") -> Envelope:
    return Envelope(NOW_NS, 1, 1, channel, "ws", raw)


def reasons(raw: bytes, channel: str) -> list[str]:
    return [event.reason for event in events_of(envelope(raw, channel)) if isinstance(event, BadFrame)]


# --- good input -----------------------------------------------------------------------------------------------------


def test_every_recorded_single_frame_parses_into_its_kind() -> None:
    frames = [decode(raw) for raw in recorded("kraken_v2_single_frames.jsonl")]
    kinds = [type(one).__name__ for one in frames]
    assert kinds == [
        "StatusFrame", "Reply", "TradeFrame", "TickerFrame", "TradeFrame", "TickerFrame", "TickerFrame", "Reply", "Reply",
        "Reply", "HeartbeatFrame",
    ]  # fmt: skip
    refusals = [one.refusal for one in frames if isinstance(one, Reply)]
    assert refusals == ["", "", "Currency pair not supported", "Authentication failed"]


def test_the_book_tape_verifies_every_one_of_its_1254_checksums() -> None:
    book, checked, frames = (
        OrderBook("BTC/USD"),
        0,
        [decode(raw) for raw in recorded("kraken_v2_book_btcusd_20260719.jsonl")],
    )
    for one in frames:
        if isinstance(one, BookFrame):
            for data in one.data:
                book.apply(data, snapshot=one.type == "snapshot")
                checked += 1
    assert (checked, len(frames)) == (1_254, 1_376)
    assert len(book.bids()) == len(book.asks()) == 10
    assert book.bids()[0][0] < book.asks()[0][0]


def test_without_truncation_to_the_depth_most_checksums_of_the_tape_fail() -> None:
    book, failed = OrderBook("BTC/USD", depth=100_000), 0
    for raw in recorded("kraken_v2_book_btcusd_20260719.jsonl"):
        one = decode(raw)
        if isinstance(one, BookFrame):
            try:
                book.apply(one.data[0], snapshot=one.type == "snapshot")
            except ChecksumMismatch:
                failed += 1
    assert failed > 600


def test_floats_of_recorded_tickers_print_as_they_came() -> None:
    number = re.compile(rb'"(bid|bid_qty|ask|ask_qty|last|volume|vwap|low|high)":([0-9.]+)')
    seen = 0
    for raw in recorded("kraken_v2_single_frames.jsonl"):
        one = decode(raw)
        if isinstance(one, TickerFrame):
            for name, text in number.findall(raw):
                value = getattr(one.data[0], name.decode())
                assert repr(value).removesuffix(".0") == text.decode().removesuffix(".0")
                seen += 1
    assert seen == 27


@given(st.integers(1, 10**15 - 1), st.integers(0, 8))
def test_a_float64_keeps_the_wire_text_of_up_to_fifteen_digits(digits: int, decimals: int) -> None:
    text = f"{Decimal(digits).scaleb(-decimals):f}"
    raw = frame("ticker", TICKER | {"bid_qty": 0}).replace(b'"bid_qty": 0', b'"bid_qty": ' + text.encode())
    one = decode(raw)
    assert isinstance(one, TickerFrame)
    assert Decimal(repr(one.data[0].bid_qty)) == Decimal(text)


@given(st.decimals(min_value="0.00000001", max_value="99999999", places=8))
def test_trade_prices_keep_every_digit_of_the_wire(price: Decimal) -> None:
    raw = frame("trade", TRADE | {"price": 0}).replace(b'"price": 0', f'"price": {price:f}'.encode())
    one = decode(raw)
    assert isinstance(one, TradeFrame)
    assert str(one.data[0].price) == str(Decimal(f"{price:f}"))


def test_every_trade_of_a_frame_is_an_event_with_its_position() -> None:
    raw = frame("trade", TRADE, TRADE | {"trade_id": 8, "side": "sell"}, TRADE | {"trade_id": 9})
    events = [event for event in events_of(envelope(raw, "trade")) if isinstance(event, Event)]
    assert [(event.item, event.trade_id, event.sign) for event in events] == [(0, 7, 1.0), (1, 8, -1.0), (2, 9, 1.0)]


def test_unknown_keys_are_tolerated_everywhere() -> None:
    raw = b'{"new":{"a":[1]},' + frame("ticker", TICKER | {"brand_new": {"x": None}})[1:]
    assert isinstance(decode(raw), TickerFrame)


def test_a_quote_without_a_time_counts_at_its_receipt() -> None:
    raw = frame("ticker", {name: value for name, value in TICKER.items() if name != "timestamp"})
    (event,) = events_of(envelope(raw))
    assert isinstance(event, Event)
    assert event.ts_event_ns == NOW_NS


# --- bad input: whole frames ----------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
BAD_FRAMES = {
    "an unknown channel": (b'{"channel":"level9","type":"update","data":[]}', "unknown_channel"),
    "a channel that is a number": (b'{"channel":5}', "unknown_channel"),
    "no JSON": (b'{"channel":"ticker","type":', "malformed_json"),
    "nothing": (b"", "malformed_json"),
    "NaN": (frame("ticker", TICKER | {"bid": float("nan")}), "malformed_json"),
    "infinity": (frame("ticker", TICKER | {"bid": float("inf")}), "malformed_json"),
    "broken UTF-8": (b'{"channel":"tick\xff"}', "malformed_json"),
    "broken UTF-8 in a field": (b'{"channel":"status","type":"\xff","data":[]}', "malformed_json"),
    "broken UTF-8 in a reply": (b'{"method":"\xff"}', "malformed_json"),
    "two values": (b'{"channel":"heartbeat"} {}', "malformed_json"),
    "a list": (b"[1]", "not_an_object"),
    "neither channel nor reply": (b'{"hello":1}', "unknown_message"),
    "a reply of the wrong type": (b'{"method":5}', "bad_field"),
    "a null price": (frame("ticker", TICKER | {"bid": None}), "bad_field"),
    "a price as text": (frame("ticker", TICKER | {"bid": "64525.0"}), "bad_field"),
    "a number beyond float64": (frame("ticker", TICKER).replace(b"64525.1", b"1e400"), "bad_field"),
    "a missing field": (frame("trade", {name: value for name, value in TRADE.items() if name != "qty"}), "bad_field"),
    "a time without a zone": (frame("trade", TRADE | {"timestamp": "2026-07-19T18:00:00"}), "bad_field"),
    "a time that is a number": (frame("ticker", TICKER | {"timestamp": 1784484000}), "bad_field"),
    "a megabyte of brackets": (
        b'{"channel":"heartbeat","x":' + b"[" * MEGABYTE + b"]" * MEGABYTE + b"}",
        "malformed_json",
    ),
    "a megabyte of one text": (b'{"channel":"' + b"x" * MEGABYTE + b'"}', "unknown_channel"),
}


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_a_frame_that_cannot_be_read_is_refused_with_its_reason(what: str) -> None:
    raw, reason = BAD_FRAMES[what]
    with pytest.raises(BadFrame) as caught:
        decode(raw)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 300
    engine = FeatureEngine()
    engine.push(envelope(raw), 0, 0)
    assert engine.rejected == {reason: 1}


def test_a_megabyte_of_good_entries_is_read_whole() -> None:
    raw = frame("ticker", *[TICKER] * 5_000)
    assert len(raw) > MEGABYTE
    assert sum(isinstance(event, Event) for event in events_of(envelope(raw))) == 5_000


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_make_anything_but_a_frame_or_a_bad_frame(raw: bytes) -> None:
    with contextlib.suppress(BadFrame):
        assert isinstance(decode(raw), Frame)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["ticker", "trade", "ohlc"]), st.data())
def test_no_field_of_an_entry_can_stop_a_reader(channel: str, data: st.DataObject) -> None:
    entry = dict({"ticker": TICKER, "trade": TRADE, "ohlc": BAR}[channel])
    number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
    entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(
        st.none() | st.booleans() | number | st.text(max_size=20) | st.sampled_from(["NaN", "1e999999999", "-Infinity"])
    )
    engine = FeatureEngine()
    engine.push(envelope(frame(channel, entry), channel), 0, 0)
    engine.push(envelope(frame("ticker", TICKER)), 0, 1)
    (rows,) = engine.flush() if "BTC/USD" in entry.values() else engine.flush()[-1:]
    assert rows.ids[-1].offset == 1
    assert rows.values[-1]["bid"] == 64525.0


# --- bad input: single entries --------------------------------------------------------------------------------------

BAD_ENTRIES = [
    ("ticker", {"bid": 0.0}, "bad_price"), ("ticker", {"bid": -1.0}, "bad_price"), ("ticker", {"ask": 0}, "bad_price"),
    ("ticker", {"bid": 1e-400}, "bad_price"), ("ticker", {"ask": 1e300}, "bad_price"),
    ("ticker", {"bid_qty": -0.1}, "bad_quantity"), ("ticker", {"ask_qty": 1e300}, "bad_quantity"),
    ("ticker", {"bid": 64525.2}, "crossed_quote"), ("ticker", {"timestamp": "2030-01-01T00:00:00Z"}, "future_timestamp"),
    ("ticker", {"timestamp": "9999-01-01T00:00:00Z"}, "future_timestamp"),
    ("ticker", {"timestamp": "1969-01-01T00:00:00Z"}, "no_timestamp"),
    ("trade", {"price": 0}, "bad_price"), ("trade", {"price": -5}, "bad_price"), ("trade", {"price": "NaN"}, "bad_price"),
    ("trade", {"price": "Infinity"}, "bad_price"), ("trade", {"price": "1e999999999"}, "bad_price"),
    ("trade", {"qty": 0}, "bad_quantity"), ("trade", {"qty": -1}, "bad_quantity"), ("trade", {"qty": "sNaN"}, "bad_quantity"),
    ("trade", {"qty": 1e9}, "bad_quantity"), ("trade", {"side": "hold"}, "bad_side"),
    ("trade", {"trade_id": 0}, "bad_trade_id"), ("trade", {"trade_id": 10**30}, "bad_trade_id"),
    ("trade", {"timestamp": "2030-01-01T00:00:00Z"}, "future_timestamp"),
    ("ohlc", {"low": 0.0}, "bad_price"), ("ohlc", {"volume": -1.0}, "bad_quantity"), ("ohlc", {"high": 10.5}, "bad_bar"),
    ("ohlc", {"low": 10.5}, "bad_bar"), ("ohlc", {"interval": 5}, "bad_interval"),
    ("ohlc", {"interval_begin": "2026-07-19T17:59:01Z"}, "open_bar"),
    ("ohlc", {"interval_begin": "2030-01-01T00:00:00Z"}, "future_timestamp"),
]  # fmt: skip
GOOD = {"ticker": TICKER, "trade": TRADE | {"trade_id": 8}, "ohlc": BAR}


@pytest.mark.parametrize(("channel", "change", "reason"), BAD_ENTRIES)
def test_an_entry_that_cannot_be_used_is_refused_and_its_neighbours_are_not(
    channel: str, change: dict[str, object], reason: str
) -> None:
    good = GOOD[channel]
    raw = frame(channel, good, good | change, good)
    assert reasons(raw, channel) == [reason]
    assert sum(isinstance(event, Event) for event in events_of(envelope(raw, channel))) == 2


def test_a_locked_quote_is_good_and_a_time_at_the_bound_too() -> None:
    bound = datetime.fromtimestamp(NOW_NS // NS_PER_S + FUTURE_S, UTC).isoformat()
    assert reasons(frame("ticker", TICKER | {"bid": 64525.1}, TICKER | {"timestamp": bound}), "ticker") == []


def test_duplicate_and_out_of_order_trades_give_no_second_row() -> None:
    engine = FeatureEngine()
    for offset, trade_id in enumerate([7, 8, 8, 7, 12, 10, 10, 13]):
        engine.push(envelope(frame("trade", TRADE | {"trade_id": trade_id}), "trade"), 0, offset)
    (rows,) = engine.flush()
    assert [row.trade_id for row in rows.ids] == [7, 8, 12, 13]
    assert engine.skipped == 4
    assert engine.rejected == {}


def test_a_bad_entry_leaves_the_rows_of_the_others_as_they_are() -> None:
    plain, disturbed = FeatureEngine(), FeatureEngine()
    for offset in range(50):
        good = envelope(frame("ticker", TICKER | {"bid_qty": 1.0 + offset}))
        for engine in (plain, disturbed):
            engine.push(good, 0, offset)
        channel, change, _ = BAD_ENTRIES[offset % len(BAD_ENTRIES)]
        disturbed.push(envelope(frame(channel, GOOD[channel] | change), channel), 0, offset)
    assert sum(disturbed.rejected.values()) == 50
    assert plain.flush()[0].values.tobytes() == disturbed.flush()[0].values.tobytes()


# --- the book -------------------------------------------------------------------------------------------------------


def update(*bids: tuple[str, str], checksum: int = 0) -> BookData:
    return BookData("BTC/USD", [Level(Decimal(price), Decimal(qty)) for price, qty in bids], [], checksum)


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        (("1.23", "1"), "bad_precision"), (("1.0", "0.000000001"), "bad_precision"), (("NaN", "1"), "bad_level"),
        (("1", "Infinity"), "bad_level"), (("1e999999", "1"), "bad_level"), (("-1", "1"), "bad_level"),
        (("0", "1"), "bad_level"), (("1", "-1"), "bad_level"), (("1", "1"), "book_checksum"),
    ],
)  # fmt: skip
def test_a_level_that_cannot_be_or_a_wrong_checksum_is_refused(level: tuple[str, str], reason: str) -> None:
    with pytest.raises(BadFrame) as caught:
        OrderBook("BTC/USD").apply(update(level, checksum=1), snapshot=True)
    assert caught.value.reason == reason


def test_deleting_a_level_that_is_not_there_changes_nothing() -> None:
    book = OrderBook("BTC/USD")
    for price in ("5.0", "4.0"):
        with pytest.raises(ChecksumMismatch):
            book.apply(update((price, "1")), snapshot=False)
    before = (book.bids(), book.checksum())
    book.apply(update(("9.9", "0"), checksum=book.checksum()), snapshot=False)
    assert (book.bids(), book.checksum()) == before
    assert book.bids() == [(5.0, 1.0), (4.0, 1.0)]


def test_structs_that_cross_borders_cannot_be_changed() -> None:
    one = decode(frame("ticker", TICKER))
    assert isinstance(one, TickerFrame)
    with pytest.raises(AttributeError):
        one.data[0].bid = 1.0  # type: ignore[misc]
    assert issubclass(type(one.data[0]), msgspec.Struct)
