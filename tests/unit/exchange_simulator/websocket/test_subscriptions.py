"""Requests: which are refused, and what the others mean."""

from __future__ import annotations

from typing import Any

import pytest

from exchange_simulator.websocket.subscriptions import (
    Refusal,
    Request,
    Stream,
    StreamRequest,
    parse,
    requested_symbols,
    stream_request,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "text", ["{bad", "[1]", '"x"', "{}", '{"method":1}', '{"method":"ping","req_id":"a"}', b"\xff"]
)
def test_what_is_not_a_request_is_refused(text: str | bytes) -> None:
    with pytest.raises(Refusal, match="Malformed request"):
        parse(text)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"channel": "ticker", "symbol": ["FOO/BAR"]}, "Currency pair not supported FOO/BAR"),
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": 11}, "Subscription depth not supported"),
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": "10"}, "Subscription depth not supported"),
        ({"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 2}, "Subscription ohlc interval not supported"),
        ({"channel": "ticker", "symbol": ["BTC/USD"], "event_trigger": "x"}, "Event trigger not supported"),
        ({"channel": "tickers", "symbol": ["BTC/USD"]}, "Channel not supported tickers"),
        ({"channel": "trade"}, "Symbol"),
        ({"channel": "trade", "symbol": "BTC/USD"}, "Symbol"),
        ({"channel": "trade", "symbol": ["BTC/USD"], "snapshot": 1}, "Malformed request"),
    ],
)
def test_a_subscription_to_what_is_not_offered_is_refused_with_a_reason(params: dict[str, Any], message: str) -> None:
    request = Request("subscribe", None, params)
    with pytest.raises(Refusal, match=message):
        [stream_request(request, symbol, {"BTC/USD"}) for symbol in requested_symbols(request)]


def test_the_defaults_are_those_of_the_exchange() -> None:
    def asked(**params: object) -> StreamRequest:
        request = Request("subscribe", None, {"symbol": ["BTC/USD"], **params})
        return stream_request(request, "BTC/USD", {"BTC/USD"})

    assert asked(channel="ticker").stream == Stream("ticker", "BTC/USD", "trades")
    assert asked(channel="book").stream == Stream("book", "BTC/USD", 10)
    assert not asked(channel="trade").snapshot
    assert asked(channel="ticker").snapshot
