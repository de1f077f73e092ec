"""Plain HTTP on the port of the exchange: REST, the published history, health, the ledger, and faults.

What does not belong here: what these answer (`rest.api`, `websocket.ledger`, `faults.injector`), or WebSockets.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Response

from btc_core.errors import InvalidInput
from exchange_simulator.faults import catalogue
from exchange_simulator.market.events import ALL_TRADES
from exchange_simulator.perpetual.streams import KINDS
from exchange_simulator.rest.api import UNAVAILABLE, ApiError
from exchange_simulator.units import qty_text
from exchange_simulator.websocket.id_ranges import IdRanges

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request

    from exchange_simulator.faults.injector import Injector
    from exchange_simulator.perpetual.perpetuals import Perpetuals
    from exchange_simulator.rest.api import RestApi
    from exchange_simulator.websocket.hub import Hub

WEBSOCKET_PATHS = ("/v2", "/v2/")
PUBLIC_PREFIX = "/0/public/"
PERPETUAL_PREFIX = "/binance-perp/"
"""What comes before the paths of Binance's perpetuals."""
HISTORY_PREFIX = "/history/"
HISTORY_SUFFIX = "_1.csv"
DEFAULT_HISTORY_DAYS = 120
RETRY_AFTER_S = 2
"""What a blocked client is told to wait."""
_RSS_PER_MB = 1_024 if sys.platform != "darwin" else 1_048_576
"""Units of `ru_maxrss` in a megabyte: it is in KiB on Linux and in bytes on macOS."""


class MarketSource(msgspec.Struct, frozen=True):
    """Which market this exchange shows, as `/healthz` says it."""

    market: str
    """`generated`, or the name of the recording."""
    seed: int
    speed: float
    rate: float


class HttpRoutes:
    """Answers plain HTTP requests; called with every request before it may become a WebSocket."""

    def __init__(
        self, hub: Hub, rest: RestApi, injector: Injector, source: MarketSource, perpetuals: Perpetuals
    ) -> None:
        self._perpetuals = perpetuals
        self._hub = hub
        self._rest = rest
        self._injector = injector
        self._source = source

    async def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """The answer to a plain request; None lets a WebSocket handshake continue."""
        url = urlsplit(request.path)
        if url.path in WEBSOCKET_PATHS:
            return self._blocked()
        client_ip = str(socket.remote_address[0])
        query = dict(parse_qsl(url.query))
        if url.path.startswith(PERPETUAL_PREFIX):
            return await self._of_perpetual(url.path.removeprefix(PERPETUAL_PREFIX), query)
        if url.path.startswith(PUBLIC_PREFIX):
            return await self._public(url.path.removeprefix(PUBLIC_PREFIX), query, client_ip)
        if url.path.startswith(HISTORY_PREFIX) and url.path.endswith(HISTORY_SUFFIX):
            return await self._history(url.path, query)
        if url.path.split("/")[1] in {"ledger", "faults"}:
            return self._control(url.path, query, client_ip)
        is_known = url.path == "/healthz"
        return _json(self._health()) if is_known else _json({"error": "not found"}, HTTPStatus.NOT_FOUND)

    async def _public(self, name: str, query: dict[str, str], client_ip: str) -> Response:
        retry_after_s, outage = self._rest.throttle.retry_after_s(), self._rest.outage
        body = await asyncio.to_thread(self._rest.answer, name, query, client_ip)
        if body["error"]:
            self._hub.note("rest_refused")
        if outage == UNAVAILABLE:
            return _json(body, HTTPStatus.SERVICE_UNAVAILABLE)
        if not retry_after_s or outage:
            return _json(body)
        return _throttled(body, retry_after_s)

    async def _of_perpetual(self, path: str, query: dict[str, str]) -> Response | None:
        if path in KINDS:
            return None
        if retry_after_s := self._perpetuals.rest.throttle.retry_after_s():
            return _throttled({"code": -1_003, "msg": "Too many requests."}, retry_after_s)
        try:
            status, body = await asyncio.to_thread(self._perpetuals.rest.answer, path, query)
        except InvalidInput as error:
            status, body = HTTPStatus.BAD_REQUEST, {"code": -1_100, "msg": str(error)}
        return _json(body, status)

    def _blocked(self) -> Response | None:
        """The answer to a handshake while connections are blocked; None when they are accepted."""
        if not self._hub.blocked_status:
            return None
        response = _json({"error": "too many connections"}, HTTPStatus(self._hub.blocked_status))
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    async def _history(self, path: str, query: dict[str, str]) -> Response:
        pair_name = path.removeprefix(HISTORY_PREFIX).removesuffix(HISTORY_SUFFIX)
        days = query.get("days", str(DEFAULT_HISTORY_DAYS))
        if not days.isdecimal():
            return _json({"error": "days must be a whole number"}, HTTPStatus.BAD_REQUEST)
        try:
            body = await asyncio.to_thread(self._rest.history_csv, pair_name, int(days))
        except ApiError as error:
            return _json({"error": str(error)}, HTTPStatus.NOT_FOUND)
        except InvalidInput as error:
            return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        return _response(HTTPStatus.OK, "text/csv", body)

    def _control(self, path: str, query: dict[str, str], client_ip: str) -> Response:
        """Faults and the ledger, which only clients on this machine may use."""
        if not ipaddress.ip_address(client_ip.removeprefix("::ffff:")).is_loopback:
            return _json({"error": "only from this machine"}, HTTPStatus.FORBIDDEN)
        if path.startswith("/faults"):
            return self._faults(path, query)
        return self._ledger(path, query.get("symbol", self._hub.pairs[0].symbol), query)

    def _faults(self, path: str, query: dict[str, str]) -> Response:
        if path == "/faults":
            return self._injected(query.get("after", "0"))
        if path == "/faults/effects":
            return _json(self._injector.effects())
        if path == "/faults/end":
            return _json({"ended": [injected.row() for injected in self._injector.end_outages()]})
        if path == "/faults/inject":
            try:
                fault = catalogue.parse(query.pop("kind", ""), query)
                return _json(self._injector.inject(fault).row())
            except InvalidInput as error:
                return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        return _json({"error": "not found"}, HTTPStatus.NOT_FOUND)

    def _injected(self, after: str) -> Response:
        if not after.isdecimal():
            return _json({"error": "after must be a whole number"}, HTTPStatus.BAD_REQUEST)
        return _json(self._injector.listing(int(after)))

    def _tape(self, symbol: str, query: dict[str, str]) -> Response:
        """Id, time, price, quantity and side of the exchange's trades from `since_ns` on, in the order of their times."""
        since = query.get("since_ns", "")
        if not since.isdecimal():
            return _json({"error": "since_ns must be a whole number"}, HTTPStatus.BAD_REQUEST)
        now_ns = self._hub.clock.now_ns()
        if perpetual := self._perpetuals.tape_of(symbol):
            pair, trades = perpetual.pair, perpetual.trades_since(int(since), now_ns)
        else:
            channels = self._hub.channels[symbol]
            pair, trades = channels.pair, channels.tape.trades_since(int(since) - 1, ALL_TRADES, now_ns)
        rows = [
            (
                trade.trade_id,
                trade.ts_ns,
                float(pair.price_text(trade.price)),
                float(qty_text(trade.qty)),
                "buy" if trade.buy else "sell",
            )
            for trade in trades
        ]
        return _json({"symbol": symbol, "trades": rows})

    def _ledger(self, path: str, symbol: str, query: dict[str, str]) -> Response:
        ledger = self._hub.ledger
        ledger.flush()
        if path == "/ledger":
            summary = self._hub.summary()
            quotes = summary["quotes"] | {
                symbol: {"perpetual": count} for symbol, count in self._perpetuals.streams.quotes_sent.items()
            }
            return _json(summary | {"faults": self._injector.counts, "quotes": quotes})
        if path == "/ledger/tape" and self._perpetuals.tape_of(symbol):
            return self._tape(symbol, query)
        if symbol not in self._hub.channels or path not in {"/ledger/trades", "/ledger/published", "/ledger/tape"}:
            return _json({"error": "not found"}, HTTPStatus.NOT_FOUND)
        if path == "/ledger/tape":
            return self._tape(symbol, query)
        sent = path == "/ledger/trades"
        ids = ledger.trade_ids.get(symbol, IdRanges()) if sent else self._hub.channels[symbol].published
        return _json({"symbol": symbol, "count": len(ids), "repeats": ids.repeats, "ranges": ids.ranges()})

    def _health(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "status": "ok",
            "simulated": True,
            **msgspec.structs.asdict(self._source),
            "symbols": list(self._hub.channels),
            "now_ns": self._hub.clock.now_ns(),
            "connections": len(self._hub.connections),
            "finished": self._hub.finished,
            "peak_rss_mb": round(peak / _RSS_PER_MB, 1),
        }


def _throttled(body: object, retry_after_s: int) -> Response:
    response = _json(body, HTTPStatus.TOO_MANY_REQUESTS)
    response.headers["Retry-After"] = str(retry_after_s)
    return response


def _json(body: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return _response(status, "application/json", msgspec.json.encode(body))


def _response(status: HTTPStatus, content_type: str, body: bytes) -> Response:
    headers = Headers({"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)
