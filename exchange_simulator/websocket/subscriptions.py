"""Requests of WebSocket v2: what a client may ask for, and how Kraken words a refusal.

The texts for an unlisted pair, an unsupported depth and broken JSON are the exchange's own. Of the other refusals a
client can rely only on `success:false` and on the presence of `error`.
What does not belong here: carrying a request out (`hub`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

NOT_SUPPORTED = "Currency pair not supported {}"
METHODS = ("subscribe", "unsubscribe")
DEPTHS = (10, 25, 100, 500, 1_000)
INTERVALS = (1,)
TRIGGERS = ("trades", "bbo")
SYMBOL_CHANNELS = ("ticker", "trade", "book", "ohlc")
SNAPSHOT_BY_DEFAULT = {"ticker": True, "trade": False, "book": True, "ohlc": True, "instrument": True}


class Stream(NamedTuple):
    """What a subscription names. Two subscriptions of one stream get the same frames."""

    channel: str
    symbol: str
    variant: str | int = ""
    """The event trigger of `ticker`, the depth of `book`, the interval of `ohlc`."""


class Request(msgspec.Struct, frozen=True):
    """One well-formed request."""

    method: str
    req_id: int | None
    params: dict[str, Any]


class StreamRequest(msgspec.Struct, frozen=True):
    """What a request asks for one symbol, and the `result` of its acknowledgement."""

    stream: Stream
    snapshot: bool
    result: dict[str, Any]


class Refusal(Exception):
    """A request that is refused; the message is the `error` in the answer to the client."""

    def __init__(self, message: str, symbol: str | None = None) -> None:
        super().__init__(message)
        self.symbol = symbol


def parse(text: str | bytes) -> Request:
    """Parse one request; raises `Refusal` when it is not a JSON object with a method."""
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


def requested_symbols(request: Request) -> list[str]:
    """The symbols in the request, each of which gets its own answer; [""] for a channel without symbols."""
    if request.method not in METHODS:
        raise Refusal("Unsupported method")
    channel = request.params.get("channel")
    if channel == "instrument":
        return [""]
    if channel not in SYMBOL_CHANNELS:
        raise Refusal(f"Channel not supported {channel}")
    symbols = request.params.get("symbol")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise Refusal("Symbol(s) not found")
    return symbols


def stream_request(request: Request, symbol: str, listed: Collection[str]) -> StreamRequest:
    """What the request asks for one symbol; raises `Refusal` for what the exchange does not offer."""
    params, channel = request.params, str(request.params["channel"])
    snapshot = params.get("snapshot", SNAPSHOT_BY_DEFAULT[channel])
    if not isinstance(snapshot, bool):
        raise Refusal("Malformed request", symbol)
    result: dict[str, Any] = {"channel": channel, "snapshot": snapshot}
    if channel == "instrument":
        return StreamRequest(Stream(channel, ""), snapshot, result)
    if symbol not in listed:
        raise Refusal(NOT_SUPPORTED.format(symbol), symbol)
    result["symbol"] = symbol
    variant: str | int = ""
    if channel == "book":
        variant = result["depth"] = _one_of(params.get("depth", 10), DEPTHS, "Subscription depth not supported", symbol)
    elif channel == "ohlc":
        error = "Subscription ohlc interval not supported"
        variant = result["interval"] = _one_of(params.get("interval", 1), INTERVALS, error, symbol)
    elif channel == "ticker":
        trigger = params.get("event_trigger", "trades")
        if trigger not in TRIGGERS:
            raise Refusal("Event trigger not supported", symbol)
        variant = result["event_trigger"] = str(trigger)
    return StreamRequest(Stream(channel, symbol, variant), snapshot, result)


def check_allowed(request: Request, stream: Stream, current: Stream | None, outage_error: str) -> None:
    """Raise `Refusal` for a new subscription during an outage, or for the end of a subscription that does not exist.

    `current` is the client's subscription to this channel and symbol, `outage_error` is empty when there is no outage.
    """
    if request.method == "subscribe" and outage_error:
        raise Refusal(outage_error, stream.symbol)
    if request.method == "unsubscribe" and current is None:
        raise Refusal("Subscription Not Found", stream.symbol)


def _one_of(value: object, allowed: tuple[int, ...], error: str, symbol: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise Refusal(error, symbol)
    return value
