"""Coinbase's frames and REST answers, in the documented form, become the same frames and events as Kraken's."""

from __future__ import annotations

import gzip
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, from_ns, now_ns, to_ns
from btc_core.errors import BadFrame, ExchangeError, NotOffered, SubscriptionRefused
from btc_core.exchange_settings import PUBLIC_URLS, ExchangeSettings
from btc_core.exchanges.adapters import EXCHANGES
from btc_core.exchanges.coinbase import MAX_CANDLES, Coinbase
from btc_core.exchanges.coinbase_frames import decode
from btc_core.exchanges.decoding import DECODERS, events_of, frame_of
from btc_core.exchanges.interface import TradePage
from btc_core.features.engine import FeatureEngine, run
from btc_core.features.file_replay import replay_file
from btc_core.market.events import QUOTE, Event, TradeEvent
from btc_core.market.frames import HeartbeatFrame, OhlcFrame, Reply, TickerFrame, TradeFrame
from btc_core.market.messages import Envelope, GapNotice, decode_envelope, encode_envelope
from streaming.subscriptions import Subscriptions
from streaming.warm_up_bars import recent_bars
from tests.http_server import answering
from tests.paths import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from btc_core.exchanges.interface import Exchange

pytestmark = pytest.mark.unit

RECEIVED_NS = 1_785_000_000 * 10**9
TICKER = {
    "type": "ticker", "sequence": 37475248783, "product_id": "ETH-USD", "price": "1285.22", "open_24h": "1310.79",
    "volume_24h": "245532.79269678", "low_24h": "1280.52", "high_24h": "1313.8", "volume_30d": "9788783.60117027",
    "best_bid": "1285.04", "best_bid_size": "0.46688654", "best_ask": "1285.27", "best_ask_size": "1.56637040",
    "side": "buy", "time": "2022-10-19T23:28:22.061769Z", "trade_id": 370843401, "last_size": "11.4396987",
}  # fmt: skip
MATCH = {
    "type": "match", "trade_id": 10, "sequence": 50, "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
    "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1", "time": "2014-11-07T08:19:27.028459Z",
    "product_id": "BTC-USD", "size": "5.23512", "price": "400.23", "side": "sell",
}  # fmt: skip


def raw(frame: dict[str, Any], **changed: Any) -> bytes:
    return json.dumps(frame | changed).encode()


def envelope(body: bytes, channel: str = "trade") -> Envelope:
    return Envelope(RECEIVED_NS, 1, 1, channel, "ws", body, exchange="coinbase")


def test_a_ticker_becomes_a_quote_with_every_digit_and_nan_for_what_is_not_sent() -> None:
    frame = decode(raw(TICKER))
    assert isinstance(frame, TickerFrame)
    (quote,) = frame.data
    assert (quote.symbol, quote.bid, quote.bid_qty, quote.ask, quote.ask_qty) == (
        "ETH/USD", 1285.04, 0.46688654, 1285.27, 1.5663704
    )  # fmt: skip
    assert (quote.last, quote.volume) == (1285.22, 245532.79269678)
    assert quote.vwap is not None
    assert math.isnan(quote.vwap)
    assert quote.timestamp is not None
    assert quote.timestamp.isoformat() == "2022-10-19T23:28:22.061769+00:00"


@pytest.mark.parametrize(("maker", "taker"), [("sell", "buy"), ("buy", "sell")])
def test_a_match_has_the_side_of_the_maker_and_its_trade_the_side_of_the_taker(maker: str, taker: str) -> None:
    frame = decode(raw(MATCH, side=maker))
    assert isinstance(frame, TradeFrame)
    (trade,) = frame.data
    assert (trade.symbol, trade.trade_id, trade.side, trade.ord_type) == ("BTC/USD", 10, taker, "")
    assert (trade.price, trade.qty) == (Decimal("400.23"), Decimal("5.23512"))
    (event,) = events_of(envelope(raw(MATCH, side=maker)))
    assert isinstance(event, Event)
    assert (type(event), event.sign) == (TradeEvent, 1.0 if taker == "buy" else -1.0)


def test_a_match_in_a_leap_second_is_accepted() -> None:
    frame = decode(raw(MATCH, time="2016-12-31T23:59:60.5Z"))
    assert isinstance(frame, TradeFrame)
    assert frame.data[0].timestamp.isoformat() == "2016-12-31T23:59:59.999999+00:00"


def test_the_last_match_of_a_new_subscription_is_a_snapshot() -> None:
    first, later = decode(raw(MATCH, type="last_match")), decode(raw(MATCH))
    assert isinstance(first, TradeFrame)
    assert isinstance(later, TradeFrame)
    assert (first.type, later.type) == ("snapshot", "update")
    assert first.data == later.data


def test_a_heartbeat_becomes_a_heartbeat_frame() -> None:
    beat = {
        "type": "heartbeat",
        "sequence": 90,
        "last_trade_id": 20,
        "product_id": "BTC-USD",
        "time": "2014-11-07T08:19:28.464459Z",
    }
    assert isinstance(decode(raw(beat)), HeartbeatFrame)


def test_a_subscription_becomes_live_for_each_product_and_a_refusal_concerns_the_others() -> None:
    subscriptions = Subscriptions(Coinbase(ExchangeSettings(name="coinbase")), ("BTC/USD", "ETH/USD"), 8.0)
    requests = subscriptions.open(0.0)
    assert requests == [
        {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channels": [name]}
        for name in ("heartbeat", "matches", "ticker")
    ]
    channels = [{"name": name, "product_ids": ["BTC-USD"], "account_ids": None} for name in ("heartbeat", "matches")]
    answer = decode(raw({"type": "subscriptions", "channels": channels}))
    assert isinstance(answer, Reply)
    subscriptions.replied(answer, 1.0)
    states = [subscriptions.state(*key) for key in (("trade", "BTC/USD"), ("trade", "ETH/USD"), ("ticker", "BTC/USD"))]
    assert states == ["acked", "pending", "pending"]
    subscriptions.heard("trade", "BTC/USD", 1.0, is_new=True)
    subscriptions.replied(answer, 2.0)
    assert subscriptions.state("trade", "BTC/USD") == "live", "every answer repeats all subscriptions of the connection"
    assert subscriptions.resubscribe("trade", "BTC/USD", "silent", 3.0) == [
        {"type": method, "product_ids": ["BTC-USD"], "channels": ["matches"]} for method in ("unsubscribe", "subscribe")
    ]
    refusal = decode(
        raw({"type": "error", "message": "Failed to subscribe", "reason": "NO-SUCH is not a valid product"})
    )
    assert isinstance(refusal, Reply)
    subscriptions.replied(refusal, 4.0)
    assert subscriptions.state("trade", "ETH/USD") == "refused"
    nothing_yet = Subscriptions(Coinbase(ExchangeSettings(name="coinbase")), ("NO/SUCH",), 8.0)
    nothing_yet.open(0.0)
    with pytest.raises(SubscriptionRefused, match="NO-SUCH is not a valid product"):
        nothing_yet.replied(refusal, 4.0)


def test_an_error_that_answers_no_request_raises_nothing() -> None:
    subscriptions = Subscriptions(Coinbase(ExchangeSettings(name="coinbase")), ("BTC/USD",), 8.0)
    subscriptions.open(0.0)
    answer = decode(raw({"type": "error", "message": "Slow consumer"}))
    assert isinstance(answer, Reply)
    assert answer.refusal == "Slow consumer"
    subscriptions.replied(answer, 1.0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"[]", "not_an_object"),
        (b'{"a":1}', "unknown_message"),
        (b'{"type":"l2update"}', "unknown_channel"),
        (b'{"channel":"candles"}', "unknown_channel"),
        (b'{"channel":"ticker","events":[]}', "bad_field"),
        (raw(MATCH, price="much"), "bad_field"),
        (raw(MATCH, time="2014-11-07T08:19:27"), "bad_field"),
        (raw(TICKER, best_bid=None), "bad_field"),
    ],
)
def test_a_frame_that_cannot_be_decoded_has_the_same_reasons_as_krakens(body: bytes, reason: str) -> None:
    with pytest.raises(BadFrame) as refused:
        decode(body)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"price": "-1"}, "bad_price"), ({"size": "NaN"}, "bad_quantity"), ({"side": "both"}, "bad_side")],
)
def test_entries_get_the_same_checks_as_krakens(changed: dict[str, str], reason: str) -> None:
    (event,) = events_of(envelope(raw(MATCH, **changed)))
    assert isinstance(event, BadFrame)
    assert event.reason == reason


def test_an_envelope_names_its_exchange_and_one_without_a_name_holds_a_frame_of_kraken() -> None:
    assert decode_envelope(encode_envelope(envelope(raw(MATCH)))).exchange == "coinbase"
    old = msgspec.msgpack.encode([RECEIVED_NS, 1, 1, "heartbeat", "ws", b'{"channel":"heartbeat"}', None])
    assert isinstance(frame_of(decode_envelope(old)), HeartbeatFrame)
    with pytest.raises(BadFrame, match="unknown_exchange"):
        frame_of(msgspec.structs.replace(envelope(raw(MATCH)), exchange="elsewhere"))


def test_every_adapter_has_a_decoder_and_public_addresses() -> None:
    adapters = cast("Mapping[str, type[Exchange]]", EXCHANGES)
    assert {name: adapter.decode for name, adapter in adapters.items()} == DECODERS
    assert set(PUBLIC_URLS) == set(EXCHANGES)


def test_a_setting_overrides_the_public_address_of_an_exchange() -> None:
    assert ExchangeSettings(name="coinbase").ws_url == "wss://ws-feed.exchange.coinbase.com"
    chosen = ExchangeSettings(name="coinbase", ws_url="ws://127.0.0.1:1", rest_url="")
    assert (chosen.ws_url, chosen.rest_url) == ("ws://127.0.0.1:1", "https://api.exchange.coinbase.com")


@pytest.mark.parametrize("values", [{"name": "elsewhere"}, {"name": "coinbase", "mode": "sim"}])
def test_an_exchange_without_an_adapter_or_without_a_simulation_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="BTC_EXCHANGE_NAME"):
        ExchangeSettings(**values)


# --- REST -----------------------------------------------------------------------------------------------------------


class FakeRest:
    """A server with trades 1 to 5,000 and a candle for each minute, in pages like Coinbase's; `queries` keeps the requests."""

    def __init__(self) -> None:
        self.queries: list[dict[str, str]] = []
        self.answer: object = None

    def get(self, path: str) -> object:
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.queries.append(query)
        if self.answer is not None:
            return self.answer
        if url.path == "/products/BTC-USD/trades":
            above = min(int(query["after"]), 5_001)
            return [self.trade(i) for i in range(above - 1, max(0, above - 1 - int(query["limit"])), -1) if i != 2_000]
        first, last = (to_ns(msgspec.convert(query[name], from_ns(0).__class__)) for name in ("start", "end"))
        begins = range(first // NS_PER_MIN * 60, last // 10**9 + 1, 60)
        assert len(begins) <= MAX_CANDLES
        return [[begin, 1.0, 4.0, 2.0, 3.0, 0.5] for begin in reversed(begins)]

    @staticmethod
    def trade(trade_id: int) -> dict[str, object]:
        return {"trade_id": trade_id, "side": "sell", "size": "0.00698254", "price": "16209.91000000",
                "time": "2020-03-20T00:22:57.833897Z"}  # fmt: skip


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Coinbase, FakeRest]]:
    monkeypatch.setattr(Coinbase, "rest_pause_s", 0.0)
    server = FakeRest()

    with answering(lambda path: (200, json.dumps(server.get(path)).encode())) as url:
        yield Coinbase(ExchangeSettings(name="coinbase", rest_url=url)), server


def test_a_gap_is_fetched_in_pages_from_its_end_as_the_websocket_would_have_sent_it(
    rest: tuple[Coinbase, FakeRest],
) -> None:
    coinbase, server = rest
    gap = GapNotice("BTC/USD", 1_501, 3_700, "open", 0, 0, 0)
    found: dict[int, bytes] = {}
    search = coinbase.gap_search(gap)
    (cursor,) = search.begins
    while True:
        page = coinbase.trade_page("BTC/USD", cursor)
        found |= {trade.trade_id: trade.frame for trade in page.trades}
        if page.next is None or page.next >= search.end:
            break
        cursor = page.next
    missing = {trade_id for trade_id in found if 1_501 <= trade_id <= 3_700}
    assert missing == set(range(1_501, 3_701)) - {2_000}, "the exchange does not have trade 2,000"
    assert {1_500, 3_701} <= set(found), "the trades around the gap show that REST is not behind"
    assert [(query["after"], query["limit"]) for query in server.queries] == [
        ("3702", "1000"), ("2702", "1000"), ("1702", "1000")
    ]  # fmt: skip
    (event,) = events_of(envelope(found[1_501]))
    assert isinstance(event, Event)
    assert (event.trade_id, event.price, event.qty, event.sign) == (1_501, 16209.91, 0.00698254, 1.0)


def test_a_page_has_no_next_page_when_the_exchange_does_not_have_more_trades(rest: tuple[Coinbase, FakeRest]) -> None:
    coinbase, server = rest
    server.answer = []
    assert coinbase.trade_page("BTC/USD", -11) == TradePage([], None)
    server.answer = [FakeRest.trade(3)]
    page = coinbase.trade_page("BTC/USD", -11)
    assert ([trade.trade_id for trade in page.trades], page.next) == ([3], None)


def test_minute_bars_are_fetched_in_pages_of_300_and_their_frames_pass_the_engine(
    rest: tuple[Coinbase, FakeRest],
) -> None:
    coinbase, server = rest
    before_ns = now_ns()
    bars, source = coinbase.minute_bars("BTC/USD", 2)
    assert (source, len(server.queries)) == ("rest", 10)
    assert (np.diff(bars["ts_ns"]) == NS_PER_MIN).all()
    assert 2_880 <= len(bars) <= 2_881
    assert bars["ts_ns"][-1] + NS_PER_MIN <= now_ns()
    assert bars["ts_ns"][0] <= before_ns - 2_880 * NS_PER_MIN + NS_PER_MIN
    assert bars[0].tolist()[1:] == (2.0, 4.0, 1.0, 3.0, 0.5, -1)
    frames = [decode(frame) for frame in recent_bars(coinbase, "BTC/USD")]
    assert all(isinstance(frame, OhlcFrame) for frame in frames)
    messages = [(Envelope(now_ns(), 1, i, "ohlc", "rest", frame, exchange="coinbase"), 0, i)
                for i, frame in enumerate(recent_bars(coinbase, "BTC/USD"))]  # fmt: skip
    engine = FeatureEngine()
    assert run(engine, messages) == []
    assert engine.rejected == {}


@pytest.mark.parametrize("answer", [{"message": "NotFound"}, [{"trade_id": 1}], [[1, 2]]])
def test_an_answer_with_an_unexpected_form_raises_exchange_error(
    rest: tuple[Coinbase, FakeRest], answer: object
) -> None:
    coinbase, server = rest
    server.answer = answer
    with pytest.raises(ExchangeError, match="unexpected form"):
        coinbase.trade_page("BTC/USD", -11)
    with pytest.raises(ExchangeError, match="unexpected form"):
        coinbase.minute_bars("BTC/USD", 1)


def test_trades_by_time_are_not_offered_and_the_error_names_the_alternative() -> None:
    with pytest.raises(NotOffered, match="btc import-trades"):
        Coinbase(ExchangeSettings(name="coinbase")).trades_since("BTC/USD", RECEIVED_NS)


# --- the recording --------------------------------------------------------------------------------------------------


def test_a_recording_of_twenty_minutes_gives_a_feature_row_for_each_quote(tmp_path: Path) -> None:
    """The recording is of the feed Advanced Trade; it has each frame with its receive time."""
    file = DATA / "coinbase_ticker_btcusd_20260405_20min.ndjson.gz"
    if not file.is_file():
        pytest.skip(f"this machine does not have the recording {file.name}")
    with gzip.open(file) as recorded:
        lines = [json.loads(line) for line in recorded]
    path = tmp_path / "coinbase.txt"
    with path.open("wb") as out:
        for line in lines:
            stamp = to_ns(msgspec.convert(line["ingest_time"], from_ns(0).__class__))
            out.write(b"%d %b\n" % (stamp, json.dumps(line["payload"]).encode()))
    replay = replay_file(path, "coinbase")
    ids = [row for batch in replay.rows for row in batch.ids]
    assert (replay.frames, replay.bad, len(ids)) == (5_971, [], 5_970)
    assert {batch.symbol for batch in replay.rows} == {"BTC/USD"}
    assert {row.kind for row in ids} == {QUOTE}
    quotes = [ticker for line in lines for event in line["payload"]["events"] for ticker in event.get("tickers", [])]
    values = np.concatenate([batch.values for batch in replay.rows])
    for name, theirs in (("bid", "best_bid"), ("bid_qty", "best_bid_quantity"), ("ask", "best_ask")):
        assert np.array_equal(values[name], [float(quote[theirs]) for quote in quotes]), name
    assert np.isfinite(values["log_rv_5s_5m"][-1])
    assert np.isnan(values["log_rv_15m"]).all(), "it is the variance of trade prices, and the recording has none"
    assert np.isfinite(values["ofi_300s"][-1])
