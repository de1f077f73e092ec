"""The settings of several exchanges, and the symbols of those that are not the home exchange."""

from __future__ import annotations

import json

import msgspec
import pytest

from btc_core.errors import ConfigError, RefusedTrade
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.adapters import exchange_for, exchange_of
from btc_core.exchanges.decoding import DECODERS, events_of, frame_of, qualified_frame
from btc_core.exchanges.recorded_lines import envelope_line, parse_line
from btc_core.market.frames import BookFrame, InstrumentFrame, Reply, StatusFrame
from btc_core.market.messages import Envelope, decode_envelope, encode_envelope
from btc_core.names import QUANTITIES, ModelKey
from btc_core.registry.keys import key_of_name
from btc_core.settings import load_settings

pytestmark = pytest.mark.unit

MARKETS = "kraken:BTC/USD,kraken:ETH/USD,binance-perp:BTC/USDT,coinbase:BTC/USD"
SYMBOLS = ("BTC/USD", "ETH/USD", "BTC/USDT@binance-perp", "BTC/USD@coinbase")
RECEIVED_NS = 1_785_000_000 * 10**9
AGGREGATE = {"e": "aggTrade", "s": "BTCUSDT", "a": 7, "p": "61685.9", "q": "0.5", "T": 1_785_000_000_000, "m": True}
PERPETUAL = "BTC/USDT@binance-perp"


def envelope(exchange: str, channel: str, message: dict[str, object], *, qualified: bool = True) -> Envelope:
    raw = json.dumps(message).encode()
    return Envelope(RECEIVED_NS, 1, 1, channel, "ws", raw, exchange=exchange, qualified=qualified)


def test_markets_of_several_exchanges_come_from_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_EXCHANGE_MARKETS", MARKETS)
    monkeypatch.setenv("BTC_EXCHANGE_WS_URLS", "coinbase=ws://127.0.0.1:1")
    chosen = load_settings().exchange
    assert (chosen.name, chosen.symbols, chosen.names) == ("kraken", SYMBOLS, ("kraken", "binance-perp", "coinbase"))
    kraken, perpetual, coinbase = (chosen.only(name) for name in chosen.names)
    assert (kraken.symbols, kraken.ws_url) == (("BTC/USD", "ETH/USD"), "wss://ws.kraken.com/v2")
    assert (perpetual.symbols, perpetual.rest_url) == ((PERPETUAL,), "https://fapi.binance.com")
    assert (coinbase.ws_url, coinbase.rest_url) == ("ws://127.0.0.1:1", "https://api.exchange.coinbase.com")


def test_the_settings_of_one_exchange_keep_their_meaning() -> None:
    for settings in (ExchangeSettings(), ExchangeSettings(name="binance"), ExchangeSettings(name="coinbase")):
        assert settings.names == (settings.name,)
        assert settings.only(settings.name) == settings
        assert exchange_of(settings).name == settings.name


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MARKETS": "BTC/USD"}, "names no exchange; write it as exchange:pair, such as kraken:BTC/USD"),
        ({"MARKETS": "krakn:BTC/USD"}, "exchange 'krakn'; there are adapters for kraken, coinbase"),
        ({"MARKETS": "kraken:btc/usd"}, "no pair of the form BASE/QUOTE"),
        ({"MARKETS": "kraken:BTCUSD"}, "no pair of the form BASE/QUOTE"),
        ({"MARKETS": "kraken:BTC/USD,kraken:BTC/USD"}, "named twice"),
        ({"MARKETS": "kraken:BTC/USD,binance:BTC/USDT", "SYMBOLS": "BTC/USD"}, "remove BTC_EXCHANGE_NAME and"),
        ({"MARKETS": "kraken:BTC/USD", "NAME": "coinbase"}, "remove BTC_EXCHANGE_NAME and"),
        ({"SYMBOLS": "BTC/USD,BTC/USDT@binanc"}, "exchange 'binanc'; there are adapters for"),
        ({"SYMBOLS": "BTC/USD@kraken"}, "symbols of the home exchange do not name it"),
        ({"MARKETS": "kraken:BTC/USD,coinbase:BTC/USD", "MODE": "sim"}, "the simulator uses the protocols of kraken"),
        ({"MARKETS": "kraken:BTC/USD,binance-perp:BTC/USDT", "MODE": "sim"}, "need the simulator's addresses"),
        ({"WS_URLS": "ws://x"}, "not of the form exchange=address"),
        ({"WS_URLS": "krakn=ws://x"}, "an address is given for 'krakn'"),
    ],
)
def test_markets_that_cannot_be_followed_are_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"BTC_EXCHANGE_{name}", value)
    with pytest.raises(ConfigError, match="BTC_EXCHANGE") as raised:
        load_settings()
    assert words in str(raised.value)


def test_events_of_another_exchange_have_its_name_and_those_of_the_home_exchange_do_not() -> None:
    (other,) = events_of(envelope("binance-perp", "trade", AGGREGATE))
    (home,) = events_of(envelope("binance-perp", "trade", AGGREGATE, qualified=False))
    assert (other.symbol, home.symbol) == (PERPETUAL, "BTC/USDT")  # type: ignore[union-attr]


def test_a_refused_trade_of_another_exchange_settles_no_gap_of_the_home_exchange() -> None:
    (refused,) = events_of(envelope("binance-perp", "trade", AGGREGATE | {"p": "2e9"}))
    assert isinstance(refused, RefusedTrade)
    assert (refused.symbol, refused.trade_id) == (PERPETUAL, 7)


def test_every_kind_of_frame_and_answer_is_qualified() -> None:
    book = {"channel": "book", "type": "update", "data": [{"symbol": "BTC/USD", "bids": [], "asks": [], "checksum": 1}]}
    frame = frame_of(envelope("kraken", "book", book))
    assert isinstance(frame, BookFrame)
    assert frame.data[0].symbol == "BTC/USD@kraken"
    decode = DECODERS["kraken"]
    pairs = {"channel": "instrument", "type": "snapshot",
             "data": {"pairs": [{"symbol": "BTC/USD", "price_precision": 1, "qty_precision": 8}]}}  # fmt: skip
    listed = qualified_frame(decode(json.dumps(pairs)), "kraken")
    assert isinstance(listed, InstrumentFrame)
    assert listed.data.pairs[0].symbol == "BTC/USD@kraken"
    refusal = {"method": "subscribe", "success": False, "error": "no", "symbol": "BTC/USD"}
    answer = qualified_frame(decode(json.dumps(refusal)), "kraken")
    assert isinstance(answer, Reply)
    assert answer.symbol == "BTC/USD@kraken"
    result = {"method": "subscribe", "success": True, "result": {"channel": "trade", "symbol": "BTC/USD"}}
    answer = qualified_frame(decode(json.dumps(result)), "kraken")
    assert isinstance(answer, Reply)
    assert [ack.symbol for ack in answer.acks] == ["BTC/USD@kraken"]
    good = {"symbol": "BTC/USD", "bid": 1.0, "bid_qty": 1.0, "ask": 2.0, "ask_qty": 1.0}
    bad = {"channel": "ticker", "type": "update", "data": [good, {"symbol": "BTC/USD", "bid": "x"}]}
    assert qualified_frame(decode(json.dumps(bad)), "kraken").bad[0].symbol == "BTC/USD@kraken"  # type: ignore[union-attr]
    status = {"channel": "status", "type": "update", "data": [{"system": "online"}]}
    assert isinstance(qualified_frame(decode(json.dumps(status)), "kraken"), StatusFrame)


def test_the_log_and_its_archives_keep_whether_symbols_are_qualified() -> None:
    for qualified in (True, False):
        message = envelope("binance-perp", "trade", AGGREGATE, qualified=qualified)
        assert decode_envelope(encode_envelope(message)) == message
        line = parse_line(1, envelope_line(message, 0, 7).strip())
        assert line.envelope == message  # type: ignore[union-attr]


def test_an_older_message_of_the_log_is_of_the_home_exchange() -> None:
    fields = [RECEIVED_NS, 1, 1, "trade", "ws", b"{}", None, "coinbase", None]
    message = decode_envelope(msgspec.msgpack.encode(fields))
    assert (message.exchange, message.qualified) == ("coinbase", False)


def test_an_adapter_of_another_exchange_takes_and_asks_for_the_right_names() -> None:
    settings = ExchangeSettings(markets=MARKETS)
    perpetual = exchange_for(settings, PERPETUAL)
    assert perpetual.name == "binance-perp"
    assert perpetual.request("subscribe", "trade", (PERPETUAL,), 1)["params"] == ["btcusdt@aggTrade"]
    frame = perpetual.decode(json.dumps(AGGREGATE))
    assert frame.data[0].symbol == PERPETUAL  # type: ignore[union-attr]
    assert exchange_for(settings, "BTC/USD").name == "kraken"
    coinbase = exchange_for(settings, "BTC/USD@coinbase")
    assert coinbase.request("subscribe", "trade", ("BTC/USD@coinbase",), 1)["product_ids"] == ["BTC-USD"]


def test_the_budget_of_each_exchange_is_its_own_and_shared_by_its_adapters() -> None:
    settings = ExchangeSettings(markets=MARKETS)
    budgets = {exchange_for(settings, symbol).budget for symbol in SYMBOLS}
    assert len(budgets) == 3
    assert exchange_for(settings, PERPETUAL).budget is exchange_of(ExchangeSettings(name="binance-perp")).budget


def test_models_of_markets_on_several_exchanges_have_names_that_mlflow_accepts_and_that_differ() -> None:
    names = {ModelKey(symbol, quantity).name for symbol in SYMBOLS for quantity in QUANTITIES}
    assert len(names) == len(SYMBOLS) * len(QUANTITIES)
    assert not [name for name in names if set(name) & set("/:@ ")]
    assert key_of_name("bid-price-model-BTCUSDT-binance-perp", SYMBOLS) == ModelKey(PERPETUAL, "bid")
