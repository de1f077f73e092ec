"""Frames and the events in them: good input, and the error for each kind of bad input."""

from __future__ import annotations

import contextlib
import json
import math
import re
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_S, to_ns
from btc_core.errors import BadFrame, RefusedTrade
from btc_core.exchanges.decoding import events_of
from btc_core.features.engine import FeatureEngine
from btc_core.market.book import ChecksumMismatch, OrderBook
from btc_core.market.events import FUTURE_S, MAX_AHEAD_S, Event, QuoteEvent, TradeEvent
from btc_core.market.frames import (
    BookData,
    BookFrame,
    Frame,
    InstrumentFrame,
    Level,
    Reply,
    TickerFrame,
    TradeFrame,
    decode,
)
from btc_core.market.messages import Envelope
from tests.paths import DATA

pytestmark = pytest.mark.unit

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
        pytest.skip(f"{path} is missing; the recorded market data is not part of the project")
    return path.read_bytes().splitlines()


def frame_bytes(channel: str, *entries: dict[str, object]) -> bytes:
    return json.dumps({"channel": channel, "type": "update", "data": list(entries)}).encode()


def envelope(raw: bytes, channel: str = "ticker") -> Envelope:
    return Envelope(NOW_NS, 1, 1, channel, "ws", raw)


def reasons(raw: bytes, channel: str) -> list[str]:
    return [event.reason for event in events_of(envelope(raw, channel)) if isinstance(event, BadFrame)]


# --- good input -----------------------------------------------------------------------------------------------------


def test_every_recorded_single_frame_is_decoded_to_its_type() -> None:
    frames = [decode(raw) for raw in recorded("kraken_v2_single_frames.jsonl")]
    kinds = [type(each).__name__ for each in frames]
    assert kinds == [
        "StatusFrame", "Reply", "TradeFrame", "TickerFrame", "TradeFrame", "TickerFrame", "TickerFrame", "Reply", "Reply",
        "Reply", "HeartbeatFrame",
    ]  # fmt: skip
    refusals = [each.refusal for each in frames if isinstance(each, Reply)]
    assert refusals == ["", "", "Currency pair not supported", "Authentication failed"]


def test_all_1254_checksums_of_the_recorded_book_are_correct() -> None:
    frames = [decode(raw) for raw in recorded("kraken_v2_book_btcusd_20260719.jsonl")]
    book, checked = OrderBook("BTC/USD"), 0
    for each in frames:
        if isinstance(each, BookFrame):
            for data in each.data:
                book.apply(data, snapshot=each.type == "snapshot")
                checked += 1
    assert (checked, len(frames)) == (1_254, 1_376)
    assert len(book.bids()) == len(book.asks()) == 10
    assert book.bids()[0][0] < book.asks()[0][0]


def test_without_truncation_to_the_depth_most_recorded_checksums_are_wrong() -> None:
    book, failed = OrderBook("BTC/USD", depth=100_000), 0
    for raw in recorded("kraken_v2_book_btcusd_20260719.jsonl"):
        frame = decode(raw)
        if isinstance(frame, BookFrame):
            try:
                book.apply(frame.data[0], snapshot=frame.type == "snapshot")
            except ChecksumMismatch:
                failed += 1
    assert failed > 600


def test_floats_of_recorded_tickers_print_as_on_the_wire() -> None:
    number = re.compile(rb'"(bid|bid_qty|ask|ask_qty|last|volume|vwap)":([0-9.]+)')
    compared = 0
    for raw in recorded("kraken_v2_single_frames.jsonl"):
        frame = decode(raw)
        if isinstance(frame, TickerFrame):
            for name, text in number.findall(raw):
                value = getattr(frame.data[0], name.decode())
                assert repr(value).removesuffix(".0") == text.decode().removesuffix(".0")
                compared += 1
    assert compared == 21


@pytest.mark.parametrize("odd", [None, "x", "", [], {"a": 1}, -1e400])
def test_a_field_that_is_not_stored_never_costs_a_quote(odd: object) -> None:
    unused = dict.fromkeys(("low", "high", "change", "change_pct"), odd)
    frame = decode(frame_bytes("ticker", TICKER | unused).replace(b"-Infinity", b"-1e400"))
    assert isinstance(frame, TickerFrame)
    assert (frame.bad, frame.data[0].bid) == ((), TICKER["bid"])


@given(st.integers(1, 10**15 - 1), st.integers(0, 8))
def test_a_float64_keeps_up_to_fifteen_digits_of_the_wire_text(digits: int, decimals: int) -> None:
    text = f"{Decimal(digits).scaleb(-decimals):f}"
    raw = frame_bytes("ticker", TICKER | {"bid_qty": 0}).replace(b'"bid_qty": 0', b'"bid_qty": ' + text.encode())
    frame = decode(raw)
    assert isinstance(frame, TickerFrame)
    assert Decimal(repr(frame.data[0].bid_qty)) == Decimal(text)


@given(st.decimals(min_value="0.00000001", max_value="99999999", places=8))
def test_trade_prices_keep_every_digit_of_the_wire(price: Decimal) -> None:
    raw = frame_bytes("trade", TRADE | {"price": 0}).replace(b'"price": 0', f'"price": {price:f}'.encode())
    frame = decode(raw)
    assert isinstance(frame, TradeFrame)
    assert str(frame.data[0].price) == str(Decimal(f"{price:f}"))


def test_every_trade_of_a_frame_becomes_an_event_with_its_position() -> None:
    raw = frame_bytes("trade", TRADE, TRADE | {"trade_id": 8, "side": "sell"}, TRADE | {"trade_id": 9})
    events = [event for event in events_of(envelope(raw, "trade")) if isinstance(event, Event)]
    assert [(event.item, event.trade_id, event.sign) for event in events] == [(0, 7, 1.0), (1, 8, -1.0), (2, 9, 1.0)]


def test_unknown_keys_are_ignored_everywhere() -> None:
    raw = b'{"new":{"a":[1]},' + frame_bytes("ticker", TICKER | {"brand_new": {"x": None}})[1:]
    assert isinstance(decode(raw), TickerFrame)


def test_a_quote_without_a_time_gets_its_receive_time() -> None:
    raw = frame_bytes("ticker", {name: value for name, value in TICKER.items() if name != "timestamp"})
    (event,) = events_of(envelope(raw))
    assert isinstance(event, Event)
    assert event.ts_event_ns == NOW_NS


def without(entry: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in entry.items() if name not in names}


UNUSED = [
    ("ticker", TICKER, ("last", "volume", "vwap", "low", "high", "change", "change_pct", "timestamp")),
    ("trade", TRADE, ("ord_type",)),
    ("ohlc", BAR | {"trades": 1, "vwap": 10.0}, ("trades", "vwap")),
]


@pytest.mark.parametrize(("channel", "entry", "unused"), UNUSED)
def test_fields_that_nobody_needs_may_be_null_or_absent(
    channel: str, entry: dict[str, object], unused: tuple[str, ...]
) -> None:
    for changed in (entry | dict.fromkeys(unused), without(entry, *unused)):
        (event,) = events_of(envelope(frame_bytes(channel, changed), channel))
        assert isinstance(event, Event)
    if isinstance(event, QuoteEvent):
        assert [math.isnan(number) for number in (event.last, event.volume, event.vwap)] == [True] * 3


@pytest.mark.parametrize("field", ["trade_id", "price", "timestamp", "symbol"])
def test_one_bad_trade_of_a_snapshot_of_fifty_costs_only_itself(field: str) -> None:
    entries = [TRADE | {"trade_id": number} for number in range(100, 150)]
    entries[20] = entries[20] | {field: None}
    events = list(events_of(envelope(frame_bytes("trade", *entries), "trade")))
    good = [event for event in events if isinstance(event, TradeEvent)]
    assert [(event.item, event.trade_id) for event in good] == [(n, 100 + n) for n in range(50) if n != 20]
    (bad,) = [event for event in events if isinstance(event, BadFrame)]
    assert bad.reason == "bad_field"
    assert "entry 20" in str(bad)
    assert field in str(bad)


def test_a_field_of_the_wire_cannot_declare_entries_bad() -> None:
    raw = frame_bytes("ticker", TICKER)[:-1] + b',"bad":[{"position":0,"symbol":"","error":""}]}'
    (event,) = events_of(envelope(raw))
    assert isinstance(event, Event)
    assert event.item == 0


def test_one_odd_pair_of_a_thousand_does_not_cost_the_precision_of_the_others() -> None:
    pairs = [{"symbol": f"S{n}/USD", "price_precision": n % 9, "qty_precision": 8} for n in range(1_000)]
    pairs[3]["price_precision"] = None
    pairs[4]["price_precision"] = 5_000
    raw = json.dumps({"channel": "instrument", "type": "snapshot", "data": {"assets": [], "pairs": pairs}}).encode()
    frame = decode(raw)
    assert isinstance(frame, InstrumentFrame)
    assert [pair.price_precision for pair in frame.data.pairs] == [n % 9 for n in range(1_000) if n not in (3, 4)]
    assert [(entry.position, entry.symbol) for entry in frame.bad] == [(3, "S3/USD"), (4, "S4/USD")]


# --- bad input: whole frames ----------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
BAD_FRAMES = {
    "an unknown channel": (b'{"channel":"level9","type":"update","data":[]}', "unknown_channel"),
    "a channel that is a number": (b'{"channel":5}', "unknown_channel"),
    "incomplete JSON": (b'{"channel":"ticker","type":', "malformed_json"),
    "an empty frame": (b"", "malformed_json"),
    "NaN": (frame_bytes("ticker", TICKER | {"bid": float("nan")}), "malformed_json"),
    "infinity": (frame_bytes("ticker", TICKER | {"bid": float("inf")}), "malformed_json"),
    "broken UTF-8": (b'{"channel":"tick\xff"}', "malformed_json"),
    "broken UTF-8 in a field": (b'{"channel":"status","type":"\xff","data":[]}', "malformed_json"),
    "broken UTF-8 in a reply": (b'{"method":"\xff"}', "malformed_json"),
    "two values": (b'{"channel":"heartbeat"} {}', "malformed_json"),
    "a list": (b"[1]", "not_an_object"),
    "neither channel nor reply": (b'{"hello":1}', "unknown_message"),
    "a reply of the wrong type": (b'{"method":5}', "bad_field"),
    "a null price": (frame_bytes("ticker", TICKER | {"bid": None}), "bad_field"),
    "a price as text": (frame_bytes("ticker", TICKER | {"bid": "64525.0"}), "bad_field"),
    "a number beyond float64": (frame_bytes("ticker", TICKER).replace(b"64525.1", b"1e400"), "bad_field"),
    "a missing field": (
        frame_bytes("trade", {name: value for name, value in TRADE.items() if name != "qty"}),
        "bad_field",
    ),
    "a time without a zone": (frame_bytes("trade", TRADE | {"timestamp": "2026-07-19T18:00:00"}), "bad_field"),
    "a time that is a number": (frame_bytes("ticker", TICKER | {"timestamp": 1784484000}), "bad_field"),
    "a key of 800 kB": (b'{"' + b"k" * 800_000 + b'":1}', "unknown_message"),
    "no good entry": (frame_bytes("trade", TRADE | {"price": None}, TRADE | {"qty": None}), "bad_field"),
    "an instrument frame without a good pair": (
        b'{"channel":"instrument","type":"snapshot","data":{"pairs":[{"symbol":"A/USD","price_precision":null}]}}',
        "bad_field",
    ),
    "a megabyte of brackets": (
        b'{"channel":"heartbeat","x":' + b"[" * MEGABYTE + b"]" * MEGABYTE + b"}",
        "malformed_json",
    ),
    "a channel name of a megabyte": (b'{"channel":"' + b"x" * MEGABYTE + b'"}', "unknown_channel"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_frame_that_cannot_be_decoded_is_refused_with_its_reason(name: str) -> None:
    raw, reason = BAD_FRAMES[name]
    with pytest.raises(BadFrame) as caught:
        decode(raw)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 300
    engine = FeatureEngine()
    engine.push(envelope(raw), 0, 0)
    assert engine.rejected == {reason: 1}


def test_every_entry_of_a_frame_of_a_megabyte_is_read() -> None:
    raw = frame_bytes("ticker", *[TICKER] * 5_000)
    assert len(raw) > MEGABYTE
    assert sum(isinstance(event, Event) for event in events_of(envelope(raw))) == 5_000


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_decode_to_a_frame_or_raise_bad_frame(raw: bytes) -> None:
    with contextlib.suppress(BadFrame):
        assert isinstance(decode(raw), Frame)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["ticker", "trade", "ohlc"]), st.data())
def test_no_value_of_a_field_stops_the_reader(channel: str, data: st.DataObject) -> None:
    entry = dict({"ticker": TICKER, "trade": TRADE, "ohlc": BAR}[channel])
    number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
    entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(
        st.none() | st.booleans() | number | st.text(max_size=20) | st.sampled_from(["NaN", "1e999999999", "-Infinity"])
    )
    engine = FeatureEngine()
    engine.push(envelope(frame_bytes(channel, entry), channel), 0, 0)
    engine.push(envelope(frame_bytes("ticker", TICKER)), 0, 1)
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
    ("trade", {"qty": 1e15}, "bad_quantity"), ("trade", {"side": "hold"}, "bad_side"),
    ("trade", {"trade_id": 0}, "bad_trade_id"), ("trade", {"trade_id": 10**30}, "bad_trade_id"),
    ("trade", {"timestamp": "2030-01-01T00:00:00Z"}, "future_timestamp"),
    ("ohlc", {"low": 0.0}, "bad_price"), ("ohlc", {"volume": -1.0}, "bad_quantity"), ("ohlc", {"high": 10.5}, "bad_bar"),
    ("ohlc", {"low": 10.5}, "bad_bar"), ("ohlc", {"interval": 5}, "bad_interval"),
    ("ohlc", {"interval_begin": "2026-07-19T17:59:01Z"}, "open_bar"),
    ("ohlc", {"interval_begin": "2030-01-01T00:00:00Z"}, "future_timestamp"),
]  # fmt: skip
GOOD = {"ticker": TICKER, "trade": TRADE | {"trade_id": 8}, "ohlc": BAR}


@pytest.mark.parametrize(("channel", "change", "reason"), BAD_ENTRIES)
def test_a_bad_entry_is_refused_and_its_neighbours_are_accepted(
    channel: str, change: dict[str, object], reason: str
) -> None:
    good = GOOD[channel]
    raw = frame_bytes(channel, good, good | change, good)
    assert reasons(raw, channel) == [reason]
    assert sum(isinstance(event, Event) for event in events_of(envelope(raw, channel))) == 2


def test_a_locked_quote_and_a_time_at_the_limit_are_accepted() -> None:
    latest = datetime.fromtimestamp(NOW_NS // NS_PER_S + FUTURE_S, UTC).isoformat()
    assert reasons(frame_bytes("ticker", TICKER | {"bid": 64525.1}, TICKER | {"timestamp": latest}), "ticker") == []


@pytest.mark.parametrize(
    ("ahead_s", "latest_s"),
    [(0, FUTURE_S), (30, 30 + FUTURE_S), (-30, FUTURE_S), (1e9, MAX_AHEAD_S)],
    ids=["not measured", "our clock is behind", "our clock is ahead", "an offset nobody can believe"],
)
@pytest.mark.parametrize("channel", ["ticker", "trade"])
def test_an_event_may_be_ahead_of_the_exchange_clock_by_seconds_only(
    channel: str, ahead_s: float, latest_s: int
) -> None:
    for after_s, expected in ((latest_s, []), (latest_s + 1, ["future_timestamp"])):
        stamp = datetime.fromtimestamp(NOW_NS // NS_PER_S + after_s, UTC).isoformat()
        raw = frame_bytes(channel, GOOD[channel] | {"timestamp": stamp})
        received = msgspec.structs.replace(envelope(raw, channel), clock_offset_ns=int(ahead_s * NS_PER_S))
        assert [event.reason for event in events_of(received) if isinstance(event, BadFrame)] == expected


def test_a_bar_is_closed_by_the_clock_of_the_exchange() -> None:
    raw = frame_bytes("ohlc", BAR | {"interval_begin": "2026-07-19T17:59:03Z"})
    behind = msgspec.structs.replace(envelope(raw, "ohlc"), clock_offset_ns=3 * NS_PER_S)
    assert reasons(raw, "ohlc") == ["open_bar"]
    assert [type(event).__name__ for event in events_of(behind)] == ["BarEvent"]


def test_one_quote_from_the_future_does_not_change_the_features_after_it() -> None:
    """One quote that was stamped 599 s ahead made features empty or wrong for hours."""
    rows = []
    for bad in (False, True):
        engine = FeatureEngine()
        for second in range(400):
            at = NOW_NS + second * NS_PER_S
            for offset, stamp_s in (
                (2 * second, second),
                *(((2 * second + 1, second + 599),) if bad and second == 200 else ()),
            ):
                stamp = datetime.fromtimestamp(NOW_NS // NS_PER_S + stamp_s, UTC).isoformat()
                entry = TICKER | {"timestamp": stamp, "bid_qty": 1.0 + second % 7}
                engine.push(Envelope(at, 1, second, "ticker", "ws", frame_bytes("ticker", entry)), 0, offset)
        rows.append(engine.flush()[0].values.tobytes())
        assert engine.rejected == ({"future_timestamp": 1} if bad else {})
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("symbol", "price", "qty"),
    [
        ("BTC/JPY", 15_000_000, 70), ("PEPE/USD", 0.00001, 11_000_000_000), ("BTC/IDR", 1_600_000_000, 5),
        ("BTC/USD", 100_000, 20_000), ("SHIB/USD", 0.000012, 500_000_000_000),
    ],
)  # fmt: skip
def test_a_large_trade_of_any_market_is_accepted(symbol: str, price: float, qty: float) -> None:
    """Limits in USD refused 70 BTC in JPY, and 110,000 USD of a small coin."""
    entry = TRADE | {"symbol": symbol, "price": price, "qty": qty}
    assert reasons(frame_bytes("trade", entry), "trade") == []


def test_a_refused_trade_has_its_id_unless_the_id_is_what_is_wrong() -> None:
    raw = frame_bytes("trade", TRADE | {"qty": 0, "trade_id": 41}, TRADE | {"qty": 0, "trade_id": -1})
    first, second = events_of(envelope(raw, "trade"))
    assert isinstance(first, RefusedTrade)
    assert (first.reason, first.symbol, first.trade_id) == ("bad_quantity", "BTC/USD", 41)
    assert str(first).startswith("bad_quantity: qty is 0.0")
    assert isinstance(second, BadFrame)
    assert not isinstance(second, RefusedTrade)


@pytest.mark.parametrize("stamp", ["2016-12-31T23:59:60Z", "2016-12-31T23:59:60.750000Z"])
def test_a_trade_in_a_leap_second_is_a_trade_of_the_last_microsecond_of_its_day(stamp: str) -> None:
    """The decoder refused the whole frame."""
    raw = frame_bytes("trade", TRADE | {"timestamp": stamp}, TRADE)
    frame = decode(raw)
    assert isinstance(frame, TradeFrame)
    assert [trade.timestamp for trade in frame.data] == [datetime(2016, 12, 31, 23, 59, 59, 999_999, UTC), NOW]
    assert decode(raw.decode()) == frame


def test_a_frame_that_is_bad_and_in_a_leap_second_is_refused_for_what_is_bad() -> None:
    raw = frame_bytes("trade", {name: value for name, value in TRADE.items() if name != "price"})
    with pytest.raises(BadFrame, match="missing required field `price`"):
        decode(raw.replace(NOW.isoformat().encode(), b"2016-12-31T23:59:60Z"))


def test_duplicate_and_late_trades_give_no_row() -> None:
    engine = FeatureEngine()
    for offset, trade_id in enumerate([7, 8, 8, 7, 12, 10, 10, 13]):
        engine.push(envelope(frame_bytes("trade", TRADE | {"trade_id": trade_id}), "trade"), 0, offset)
    (rows,) = engine.flush()
    assert [row.trade_id for row in rows.ids] == [7, 8, 12, 13]
    assert engine.skipped_trades == 4
    assert engine.rejected == {}


def test_a_bad_entry_does_not_change_the_rows_of_other_entries() -> None:
    plain, disturbed = FeatureEngine(), FeatureEngine()
    for offset in range(50):
        good = envelope(frame_bytes("ticker", TICKER | {"bid_qty": 1.0 + offset}))
        for engine in (plain, disturbed):
            engine.push(good, 0, offset)
        channel, change, _ = BAD_ENTRIES[offset % len(BAD_ENTRIES)]
        disturbed.push(envelope(frame_bytes(channel, GOOD[channel] | change), channel), 0, offset)
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
def test_an_impossible_level_or_a_wrong_checksum_is_refused(level: tuple[str, str], reason: str) -> None:
    with pytest.raises(BadFrame) as caught:
        OrderBook("BTC/USD").apply(update(level, checksum=1), snapshot=True)
    assert caught.value.reason == reason


def test_deleting_a_level_that_does_not_exist_changes_nothing() -> None:
    book = OrderBook("BTC/USD")
    for price in ("5.0", "4.0"):
        with pytest.raises(ChecksumMismatch):
            book.apply(update((price, "1")), snapshot=False)
    before = (book.bids(), book.checksum())
    book.apply(update(("9.9", "0"), checksum=book.checksum()), snapshot=False)
    assert (book.bids(), book.checksum()) == before
    assert book.bids() == [(5.0, 1.0), (4.0, 1.0)]


def test_decoded_structs_cannot_be_changed() -> None:
    frame = decode(frame_bytes("ticker", TICKER))
    assert isinstance(frame, TickerFrame)
    with pytest.raises(AttributeError):
        frame.data[0].bid = 1.0  # type: ignore[misc]
    assert issubclass(type(frame.data[0]), msgspec.Struct)
