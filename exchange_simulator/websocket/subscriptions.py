"""Requests of WebSocket v2: what a client may ask, and Kraken's words when it may not.

The texts for an unlisted pair, a bad depth and broken JSON are the exchange's own; for the rest a client can rely on
`success:false` and the presence of `error` only.
What does not belong here: carrying a subscription out (`hub`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from exchange_simulator.websocket.channels import Stream

if TYPE_CHECKING:
    from collections.abc import Collection

METHODS = ("subscribe", "unsubscribe")
DEPTHS = (10, 25, 100, 500, 1_000)
INTERVALS = (1,)
TRIGGERS = ("trades", "bbo")
SYMBOL_CHANNELS = ("ticker", "trade", "book", "ohlc")
SNAPSHOT_BY_DEFAULT = {"ticker": True, "trade": False, "book": True, "ohlc": True, "instrument": True}


class Request(msgspec.Struct, frozen=True):
    """One well-formed request."""

    method: str
    req_id: int | None
    params: dict[str, Any]


class Wish(msgspec.Struct, frozen=True):
    """One stream that a request names, and the `result` of its acknowledgement."""

    stream: Stream
    snapshot: bool
    result: dict[str, Any]


class Refusal(Exception):
    """A request that cannot be granted; the message is the `error` that the client is sent."""

    def __init__(self, message: str, symbol: str | None = None) -> None:
        super().__init__(message)
        self.symbol = symbol


def parse(text: str | bytes) -> Request:
    """Read one request; raises `Refusal` for what is not a JSON object with a method."""
    try:
        body = msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise Refusal("Malformed request") from None
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        raise Refusal("Malformed request")
    req_id, params = body.get("req_id"), body.get("params", {})
    if not (req_id is None or (isinstance(req_id, int) and not isinstance(req_id, bool))) or not isinstance(
        params, dict
    ):
        raise Refusal("Malformed request")
    return Request(body["method"], req_id, params)


def symbols(request: Request) -> list[str]:
    """The symbols named, each of which gets an answer of its own; one empty name for a channel without symbols."""
    if request.method not in METHODS:
        raise Refusal("Unsupported method")
    channel = request.params.get("channel")
    if channel == "instrument":
        return [""]
    if channel not in SYMBOL_CHANNELS:
        raise Refusal(f"Channel not supported {channel}")
    named = request.params.get("symbol")
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise Refusal("Symbol(s) not found")
    return named


def wish(request: Request, symbol: str, listed: Collection[str]) -> Wish:
    """What the request means for one symbol; raises `Refusal`."""
    params, channel = request.params, str(request.params["channel"])
    snapshot = params.get("snapshot", SNAPSHOT_BY_DEFAULT[channel])
    if not isinstance(snapshot, bool):
        raise Refusal("Malformed request", symbol)
    result: dict[str, Any] = {"channel": channel, "snapshot": snapshot}
    if channel == "instrument":
        return Wish(Stream(channel, ""), snapshot, result)
    if symbol not in listed:
        raise Refusal(f"Currency pair not supported {symbol}", symbol)
    result["symbol"] = symbol
    variant: str | int = ""
    if channel == "book":
        variant = result["depth"] = _choice(params.get("depth", 10), DEPTHS, "Subscription depth not supported", symbol)
    elif channel == "ohlc":
        text = "Subscription ohlc interval not supported"
        variant = result["interval"] = _choice(params.get("interval", 1), INTERVALS, text, symbol)
    elif channel == "ticker":
        trigger = params.get("event_trigger", "trades")
        if trigger not in TRIGGERS:
            raise Refusal("Event trigger not supported", symbol)
        variant = result["event_trigger"] = str(trigger)
    return Wish(Stream(channel, symbol, variant), snapshot, result)


def check(request: Request, wanted: Stream, present: Stream | None, refusing: str) -> None:
    """Refuse to end a subscription that is not there, and to begin one while the exchange refuses all with words."""
    if request.method == "subscribe" and refusing:
        raise Refusal(refusing, wanted.symbol)
    if request.method == "unsubscribe" and present is None:
        raise Refusal("Subscription Not Found", wanted.symbol)


def _choice(value: object, allowed: tuple[int, ...], message: str, symbol: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise Refusal(message, symbol)
    return value
