"""Binance's messages and REST answers become the same frames and events as Kraken's.

The messages of spot's streams `trade`, `bookTicker` and `depth` are of a recording. The others are the examples of
Binance's documentation, which stand for what was never received here.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_MS, now_ns
from btc_core.errors import BadFrame, ConfigError, ExchangeError, NotOffered
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.adapters import exchange_of
from btc_core.exchanges.binance import MAX_KLINES, MAX_STREAMS, Binance, BinancePerpetual
from btc_core.exchanges.binance_frames import decode_perpetual, decode_spot
from btc_core.exchanges.decoding import events_of
from btc_core.features.engine import FeatureEngine, run
from btc_core.features.file_replay import replay_file
from btc_core.market.events import QUOTE, TRADE, Event, QuoteEvent, TradeEvent
from btc_core.market.frames import (
    HeartbeatFrame,
    MarkPriceFrame,
    OhlcFrame,
    Quote,
    Reply,
    StatusFrame,
    TickerFrame,
    Trade,
    TradeFrame,
)
from btc_core.market.messages import Envelope, GapNotice
from streaming.subscriptions import Link, Subscriptions
from streaming.warm_up_bars import recent_bars
from tests.http_server import answering
from tests.paths import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.exchanges.interface import Exchange

pytestmark = pytest.mark.unit

RECORDING = DATA / "binance_spot_raw_btcusdt_20240809.jsonl.gz"
"""Five minutes of spot as received, 2024-08-09 00:00 to 00:05 UTC: `local_ns json` lines of three streams."""
RECEIVED_NS = 1_785_000_000 * 10**9
SPOT = ExchangeSettings(name="binance")
PERPETUAL = ExchangeSettings(name="binance-perp")
MATCH = {
    "e": "trade", "E": 1723161601438, "s": "BTCUSDT", "t": 3735693016, "p": "61685.99000000", "q": "0.00017000",
    "T": 1723161601437, "m": True, "M": True,
}  # fmt: skip
SPOT_QUOTE = {
    "u": 50093421613, "s": "BTCUSDT", "b": "61685.99000000", "B": "1.25869000", "a": "61686.00000000", "A": "2.44816000",
}  # fmt: skip
AGGREGATE = {
    "e": "aggTrade", "E": 123456789, "s": "BTCUSDT", "a": 5933014, "p": "0.001", "q": "100", "f": 100, "l": 105,
    "T": 1723161601437, "m": False,
}  # fmt: skip
PERPETUAL_QUOTE = {
    "e": "bookTicker", "u": 400900217, "E": 1568014460893, "T": 1568014460891, "s": "BNBUSDT", "b": "25.35190000",
    "B": "31.21000000", "a": "25.36520000", "A": "40.66000000",
}  # fmt: skip
MARK_PRICE = {
    "e": "markPriceUpdate", "E": 1562305380000, "s": "BTCUSDT", "p": "11794.15000000", "i": "11784.62659091",
    "P": "11784.25641265", "r": "0.00038167", "T": 1562306400000,
}  # fmt: skip
MINI_TICKER = {"e": "24hrMiniTicker", "E": 1672515782136, "s": "BTCUSDT", "c": "0.0025", "o": "0.0010", "h": "0.0025",
               "l": "0.0010", "v": "10000", "q": "18"}  # fmt: skip


def raw(message: dict[str, Any], **changed: Any) -> bytes:
    return json.dumps(message | changed).encode()


def combined(stream: str, message: dict[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": message}).encode()


def event_of(body: bytes, channel: str, exchange: str) -> Event | BadFrame:
    (event,) = events_of(Envelope(RECEIVED_NS, 1, 1, channel, "ws", body, exchange=exchange))
    return event


@pytest.mark.parametrize(("buyer_is_maker", "taker"), [(True, "sell"), (False, "buy")])
def test_a_match_of_spot_becomes_a_trade_with_the_side_of_the_taker(*, buyer_is_maker: bool, taker: str) -> None:
    frame = decode_spot(raw(MATCH, m=buyer_is_maker))
    assert frame == decode_spot(combined("btcusdt@trade", MATCH | {"m": buyer_is_maker}))
    assert isinstance(frame, TradeFrame)
    (trade,) = frame.data
    assert (trade.symbol, trade.trade_id, trade.side, trade.ord_type) == ("BTC/USDT", 3735693016, taker, "")
    assert (str(trade.price), trade.qty) == ("61685.99000000", Decimal("0.00017"))
    assert trade.timestamp.isoformat() == "2024-08-09T00:00:01.437000+00:00", (
        "the time of the match, not of the message"
    )


def test_an_aggregate_of_the_perpetual_becomes_a_trade_with_the_id_of_the_aggregate() -> None:
    event = event_of(combined("btcusdt@aggTrade", AGGREGATE), "trade", "binance-perp")
    assert isinstance(event, TradeEvent)
    assert (event.symbol, event.trade_id, event.price, event.qty, event.side) == (
        "BTC/USDT",
        5933014,
        0.001,
        100.0,
        "buy",
    )
    assert event.ts_event_ns == 1723161601437 * NS_PER_MS


def test_the_two_numberings_of_trades_are_never_mixed() -> None:
    assert isinstance(decode_spot(raw(AGGREGATE)), HeartbeatFrame)
    assert isinstance(decode_perpetual(raw(MATCH)), HeartbeatFrame)


def test_a_quote_of_spot_has_the_time_of_receipt_and_one_of_the_perpetual_that_of_the_exchange() -> None:
    spot = event_of(combined("btcusdt@bookTicker", SPOT_QUOTE), "ticker", "binance")
    assert isinstance(spot, QuoteEvent)
    assert (spot.bid, spot.bid_qty, spot.ask, spot.ask_qty) == (61685.99, 1.25869, 61686.0, 2.44816)
    assert (spot.symbol, spot.ts_event_ns) == ("BTC/USDT", RECEIVED_NS)
    assert np.isnan([spot.last, spot.volume, spot.vwap]).all()
    perpetual = event_of(raw(PERPETUAL_QUOTE), "ticker", "binance-perp")
    assert isinstance(perpetual, QuoteEvent)
    assert (perpetual.symbol, perpetual.bid) == ("BNB/USDT", 25.3519)
    assert perpetual.ts_event_ns == 1568014460891 * NS_PER_MS
    assert decode_perpetual(combined("bnbusdt@bookTicker", PERPETUAL_QUOTE)) == decode_perpetual(raw(PERPETUAL_QUOTE))
    assert decode_spot(raw(SPOT_QUOTE)) == decode_spot(combined("btcusdt@bookTicker", SPOT_QUOTE))


def test_a_mark_price_is_decoded_with_its_funding_and_has_no_event() -> None:
    body = combined("btcusdt@markPrice@1s", MARK_PRICE)
    frame = decode_perpetual(body)
    assert isinstance(frame, MarkPriceFrame)
    (mark,) = frame.data
    assert (mark.symbol, mark.mark_price, mark.index_price) == ("BTC/USDT", 11794.15, 11784.62659091)
    assert mark.funding_rate == 0.00038167
    assert mark.next_funding.isoformat() == "2019-07-05T06:00:00+00:00"
    assert mark.timestamp.isoformat() == "2019-07-05T05:43:00+00:00"
    assert list(events_of(Envelope(RECEIVED_NS, 1, 1, "mark_price", "ws", body, exchange="binance-perp"))) == []


def test_other_messages_become_heartbeats_or_a_status() -> None:
    assert isinstance(decode_spot(raw(MINI_TICKER)), HeartbeatFrame)
    status = decode_spot(combined("!serverShutdown", {"e": "serverShutdown", "E": 1770123456789}))
    assert isinstance(status, StatusFrame)
    assert [each.system for each in status.data] == ["server_shutdown"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"\xff"}}', "malformed_json"),
        (b"[]", "not_an_object"),
        (b'{"stream":"btcusdt@trade","data":[]}', "not_an_object"),
        (b'{"stream":"btcusdt@bookTicker","data":[]}', "not_an_object"),
        (b'{"stream":"btcusdt@trade"}', "bad_field"),
        (b'{"a":1}', "unknown_message"),
        (b'{"e":"forceOrder"}', "unknown_channel"),
        (b'{"result":null,"id":{}}', "bad_field"),
        (raw(MATCH, p="much"), "bad_field"),
        (raw(MATCH, T="soon"), "bad_field"),
        (raw(MATCH, T=10**17), "bad_field"),
        (raw(SPOT_QUOTE, b=None), "bad_field"),
    ],
)
def test_a_message_that_cannot_be_decoded_has_the_same_reasons_as_krakens(body: bytes, reason: str) -> None:
    for decode in (decode_spot, decode_perpetual):
        with pytest.raises(BadFrame) as refused:
            decode(body)
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("symbol", "name"),
    [("BTC/USDT", "BTCUSDT"), ("ETH/BTC", "ETHBTC"), ("BTC/FDUSD", "BTCFDUSD"), ("1INCH/TRY", "1INCHTRY")],
)
def test_symbols_are_read_back_from_binances_names(symbol: str, name: str) -> None:
    frame = decode_spot(raw(MATCH, s=name))
    assert isinstance(frame, TradeFrame)
    assert frame.data[0].symbol == symbol


def test_a_symbol_that_would_be_read_back_as_another_and_too_many_symbols_are_refused() -> None:
    with pytest.raises(ConfigError, match="BTCT/USD"):
        exchange_of(ExchangeSettings(name="binance", symbols=("BTCT/USD",)))
    with pytest.raises(ConfigError, match=str(MAX_STREAMS)):
        exchange_of(ExchangeSettings(name="binance", symbols=tuple(f"A{i}/USDT" for i in range(600))))


def test_both_exchanges_follow_btc_usdt_unless_the_settings_say_otherwise() -> None:
    assert (SPOT.symbols, PERPETUAL.symbols) == (("BTC/USDT",), ("BTC/USDT",))
    assert ExchangeSettings(name="binance", symbols="ETH/USDT").symbols == ("ETH/USDT",)
    assert ExchangeSettings().symbols == ("BTC/USD",)


# --- subscriptions --------------------------------------------------------------------------------------------------


def test_spot_subscribes_on_one_connection_and_an_answer_confirms_the_whole_request() -> None:
    subscriptions = Subscriptions(Binance(SPOT), ("BTC/USDT", "ETH/USDT"), 8.0)
    assert subscriptions.open(0.0) == [
        {"method": "SUBSCRIBE", "params": ["btcusdt@miniTicker"], "id": 1},
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 2},
        {"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "ethusdt@bookTicker"], "id": 3},
    ]
    answer = decode_spot(b'{"result":null,"id":2}')
    assert isinstance(answer, Reply)
    subscriptions.replied(answer, 1.0)
    keys = itertools.product(("trade", "ticker"), ("BTC/USDT", "ETH/USDT"))
    assert [subscriptions.state(*key) for key in keys] == ["acked", "acked", "pending", "pending"]
    refusal = decode_spot(b'{"code":2,"msg":"Invalid request: unknown variant","id":3}')
    assert isinstance(refusal, Reply)
    subscriptions.replied(refusal, 2.0)
    assert subscriptions.state("ticker", "ETH/USDT") == "refused"
    newer = decode_spot(b'{"error":{"code":2,"msg":"Invalid request"},"id":3}')
    assert isinstance(newer, Reply)
    assert (newer.refusal, newer.req_id) == ("Invalid request", 3)


def test_the_perpetual_subscribes_to_quotes_and_to_trades_on_two_connections() -> None:
    exchange = BinancePerpetual(PERPETUAL)
    asked = {}
    for route, channels in exchange.routes.items():
        subscriptions = Subscriptions(exchange, ("ETH/USDT",), 8.0, link=Link(1, channels))
        asked[route] = [stream for request in subscriptions.open(0.0) for stream in request["params"]]
    assert asked == {
        "/public/stream": ["btcusdt@depth5@500ms", "ethusdt@bookTicker"],
        "/market/stream": ["btcusdt@miniTicker", "ethusdt@aggTrade", "ethusdt@markPrice@1s"],
    }


@pytest.mark.parametrize("exchange", [Binance(SPOT), BinancePerpetual(PERPETUAL)])
def test_the_routes_have_every_channel_once(exchange: Exchange) -> None:
    routed = [channel for channels in exchange.routes.values() for channel in channels]
    assert sorted(routed) == sorted((*exchange.channels, *exchange.side_channels))


def test_a_quiet_subscription_that_brought_data_is_judged_by_its_answers() -> None:
    """Binance sends no snapshot, so nothing but the answer to a new subscription can come in a quiet market."""
    subscriptions = Subscriptions(Binance(SPOT), ("BTC/USDT",), 8.0)
    subscriptions.open(0.0)
    answered = 3
    for number in (2, 3):
        subscriptions.replied(Reply(success=True, req_id=number), 0.0)
    for channel in ("trade", "ticker"):
        subscriptions.heard(channel, "BTC/USDT", 1.0, is_new=True)
    asked_s = []
    for now_s in range(1, 200):
        subscriptions.heard("ticker", "BTC/USDT", float(now_s), is_new=True)
        requests = subscriptions.resubscribe_overdue(float(now_s))
        if requests:
            asked_s.append(now_s)
        for _ in requests:
            answered += 1
            subscriptions.replied(Reply(success=True, req_id=answered), float(now_s))
    assert asked_s == [9, 25, 57, 117, 177], "each deadline is twice as long, up to a minute"


# --- REST -----------------------------------------------------------------------------------------------------------


class FakeRest:
    """A server with trades 1 to 5,000 and a kline for each minute, in pages like Binance's; `asked` keeps the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: object = None

    def get(self, path: str) -> tuple[int, bytes]:
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.asked.append((url.path, query))
        kind = url.path.rpartition("/")[2]
        if kind == "exchangeInfo":
            listed = {"symbol": "BTCUSDT", "baseAsset": "BTC", "quoteAsset": "USDT", "status": "TRADING"}
            dated = listed | {"symbol": "BTCUSDT_270326", "contractType": "CURRENT_QUARTER"}
            return 200, json.dumps({"timezone": "UTC", "symbols": [listed, dated]}).encode()
        if query["symbol"] != "BTCUSDT":
            return 400, b'{"code":-1121,"msg":"Invalid symbol."}'
        return 200, json.dumps(self.rows(kind, query) if self.answer is None else self.answer).encode()

    def rows(self, kind: str, query: dict[str, str]) -> list[object]:
        if kind == "klines":
            first = -(-int(query["startTime"]) // 60_000)
            last = min(first + int(query["limit"]), now_ns() // NS_PER_MIN + 1)
            return [[minute * 60_000, "2.0", "4.0", "1.0", "3.0", "0.5", minute * 60_000 + 59_999, "1.0", 7, "0.2", "0.6", "0"]
                    for minute in range(first, last)]  # fmt: skip
        first = int(query["fromId"])
        ids = [i for i in range(max(1, first), min(5_001, first + int(query["limit"]))) if i != 2_000]
        return [self.match(i) if kind == "historicalTrades" else self.aggregate(i) for i in ids]

    @staticmethod
    def match(trade_id: int) -> dict[str, object]:
        return {"id": trade_id, "price": "4.00000100", "qty": "12.00000000", "quoteQty": "48.000012",
                "time": 1499865549590, "isBuyerMaker": True, "isBestMatch": True}  # fmt: skip

    @staticmethod
    def aggregate(trade_id: int) -> dict[str, object]:
        return {"a": trade_id, "p": "4.00000100", "q": "12.00000000", "f": 27781, "l": 27781, "T": 1499865549590,
                "m": True}  # fmt: skip


@pytest.fixture(params=["binance", "binance-perp"])
def rest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Binance, FakeRest]]:
    for adapter in (Binance, BinancePerpetual):
        monkeypatch.setattr(adapter, "rest_pause_s", 0.0)
    server = FakeRest()
    with answering(server.get) as url:
        adapter_of = {"binance": Binance, "binance-perp": BinancePerpetual}[request.param]
        yield adapter_of(ExchangeSettings(name=request.param, rest_url=url)), server


def test_a_gap_is_fetched_in_pages_from_its_beginning_as_the_websocket_would_have_sent_it(
    rest: tuple[Binance, FakeRest],
) -> None:
    binance, server = rest
    search = binance.gap_search(GapNotice("BTC/USDT", 1_501, 3_700, "open", 0, 0, 0))
    found: dict[int, bytes] = {}
    cursor = search.begins[0]
    while True:
        page = binance.trade_page("BTC/USDT", cursor)
        found |= {trade.trade_id: trade.frame for trade in page.trades}
        if page.next is None or page.next >= search.end:
            break
        cursor = page.next
    assert {i for i in found if 1_501 <= i <= 3_700} == set(range(1_501, 3_701)) - {2_000}, "2,000 does not exist"
    assert {1_500, 3_701} <= set(found), "the trades around the gap show that REST is not behind"
    path = {"binance": "/api/v3/historicalTrades", "binance-perp": "/fapi/v1/aggTrades"}[binance.name]
    assert [(asked, query["fromId"], query["limit"]) for asked, query in server.asked[1:]] == [
        (path, "1500", "1000"), (path, "2500", "1000"), (path, "3500", "1000")
    ]  # fmt: skip
    event = event_of(found[1_501], "trade", binance.name)
    assert isinstance(event, TradeEvent)
    assert (event.trade_id, event.price, event.qty, event.side) == (1_501, 4.000001, 12.0, "sell")
    assert event.ts_event_ns == 1499865549590 * NS_PER_MS


def test_a_page_has_no_next_page_when_the_exchange_does_not_have_more_trades(rest: tuple[Binance, FakeRest]) -> None:
    binance, _ = rest
    page = binance.trade_page("BTC/USDT", 4_990)
    assert ([trade.trade_id for trade in page.trades], page.next) == ([*range(4_990, 5_001)], None)
    assert binance.trade_page("BTC/USDT", 6_000).trades == []


def test_minute_bars_are_fetched_in_pages_and_their_frames_pass_the_engine(rest: tuple[Binance, FakeRest]) -> None:
    binance, server = rest
    bars, source = binance.minute_bars("BTC/USDT", 2)
    assert (source, [path.rpartition("/")[2] for path, _ in server.asked]) == (
        "rest",
        ["exchangeInfo", *["klines"] * 3],
    )
    assert all(int(query["limit"]) == MAX_KLINES for _, query in server.asked[1:])
    assert (np.diff(bars["ts_ns"]) == NS_PER_MIN).all()
    assert 2_880 <= len(bars) <= 2_881
    assert bars["ts_ns"][-1] + NS_PER_MIN <= now_ns()
    assert bars[0].tolist()[1:] == (2.0, 4.0, 1.0, 3.0, 0.5, 7)
    frames = recent_bars(binance, "BTC/USDT")
    assert all(isinstance(binance.decode(frame), OhlcFrame) for frame in frames)
    messages = [(Envelope(now_ns(), 1, i, "ohlc", "rest", frame, exchange=binance.name), 0, i)
                for i, frame in enumerate(frames)]  # fmt: skip
    engine = FeatureEngine()
    assert run(engine, messages) == []
    assert engine.rejected == {}


def test_a_market_that_binance_does_not_list_is_not_offered(rest: tuple[Binance, FakeRest]) -> None:
    binance, server = rest
    for symbol in ("NO/USDT", "BTC/USDC"):
        with pytest.raises(NotOffered, match="lists no market"):
            binance.trade_page(symbol, 1)
    assert {path.rpartition("/")[2] for path, _ in server.asked} == {"exchangeInfo"}
    binance._listings.check = lambda *_: None  # type: ignore[method-assign]  # spot's exchangeInfo may answer 400, too
    with pytest.raises(NotOffered, match="Invalid symbol"):
        binance.minute_bars("NO/USDT", 1)


@pytest.mark.parametrize("answer", [{"msg": "no"}, [{"id": 1}], [[1, 2]]])
def test_an_answer_with_an_unexpected_form_raises_exchange_error(
    rest: tuple[Binance, FakeRest], answer: object
) -> None:
    binance, server = rest
    server.answer = answer
    with pytest.raises(ExchangeError, match="unexpected form"):
        binance.trade_page("BTC/USDT", 1)
    with pytest.raises(ExchangeError, match="unexpected form"):
        binance.minute_bars("BTC/USDT", 1)


def test_trades_by_time_are_not_offered_and_the_error_names_the_alternative() -> None:
    with pytest.raises(NotOffered, match="btc import-trades"):
        Binance(SPOT).trades_since("BTC/USDT", RECEIVED_NS)


# --- the recording --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded() -> list[tuple[int, bytes]]:
    """The receive time and the message of each line."""
    if not RECORDING.is_file():
        pytest.skip(f"this machine does not have the recording {RECORDING.name}")
    with gzip.open(RECORDING) as lines:
        split = [line.split(b" ", 1) for line in lines]
    return [(int(received), message) for received, message in split]


def test_every_line_of_the_recording_is_a_quote_a_trade_or_depth_that_is_not_used(
    recorded: list[tuple[int, bytes]],
) -> None:
    streams: Counter[tuple[str, str]] = Counter()
    trades: list[tuple[int, Trade]] = []
    quotes: list[Quote] = []
    for received_ns, message in recorded:
        frame = decode_spot(message)
        streams[json.loads(message)["stream"], type(frame).__name__] += 1
        if isinstance(frame, TradeFrame):
            trades += [(received_ns, trade) for trade in frame.data]
        elif isinstance(frame, TickerFrame):
            quotes += frame.data
    assert streams == {
        ("btcusdt@bookTicker", "TickerFrame"): 45_134,
        ("btcusdt@trade", "TradeFrame"): 10_147,
        ("btcusdt@depth@100ms", "HeartbeatFrame"): 3_044,
    }
    ids = [trade.trade_id for _, trade in trades]
    assert ids == [*range(3_735_693_016, 3_735_703_163)], "no id is missing or comes twice"
    assert all(quote.bid < quote.ask for quote in quotes)
    assert {each.symbol for each in quotes} | {trade.symbol for _, trade in trades} == {"BTC/USDT"}
    ahead_s = [trade.timestamp.timestamp() - received_ns / 1e9 for received_ns, trade in trades]
    assert 1.2 < min(ahead_s) <= max(ahead_s) < 1.28, "the clock of the recorder was 1.27 s behind"


def test_the_recording_gives_a_feature_row_for_each_quote_and_each_trade(recorded: list[tuple[int, bytes]]) -> None:
    replay = replay_file(RECORDING, "binance")
    ids = [row for batch in replay.rows for row in batch.ids]
    assert (replay.frames, replay.bad) == (len(recorded), [])
    assert Counter(row.kind for row in ids) == {QUOTE: 45_134, TRADE: 10_147}
    values = np.concatenate([batch.values for batch in replay.rows])
    for name in ("bid", "ask", "spread_bps", "top_imbalance"):
        assert np.isfinite(values[name]).all(), name
    for name in ("log_rv_5m", "log_rv_5s_5m", "ofi_300s", "trade_sign_imbalance_300s"):
        assert np.isfinite(values[name][-1]), name
