"""The simulated exchange as one port: WebSocket v2 at `/v2`, REST, the published history, ledger and health.

What does not belong here: what any of these answer (`hub`, `rest`, `ledger`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import sys
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.http11 import Response

from btc_core.errors import InvalidInput, StackError
from exchange_simulator import pairs
from exchange_simulator.faults import catalogue, schedule
from exchange_simulator.faults.injector import Injector
from exchange_simulator.market import recordings
from exchange_simulator.market.clock import MarketClock
from exchange_simulator.market.generated import BookMaker, Market
from exchange_simulator.market.published_tape import ToldTape
from exchange_simulator.rest.api import UNAVAILABLE, ApiError, Listing, RestApi
from exchange_simulator.websocket.channels import SymbolChannels
from exchange_simulator.websocket.connection import Line
from exchange_simulator.websocket.feeds import GeneratedFeed, ReplayFeed
from exchange_simulator.websocket.hub import Hub
from exchange_simulator.websocket.ledger import IdRanges, Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request

LOG = logging.getLogger("exchange_simulator")
ANSWER_TIMEOUT_S = 60.0
"""Years of history at a high rate take a while to make; a handshake that is not one ends here."""
MAX_REQUEST_BYTES = 65_536
PUBLIC_PREFIX = "/0/public/"
HISTORY_PREFIX = "/history/"
HISTORY_SUFFIX = "_1.csv"
DEFAULT_HISTORY_DAYS = 120
BYTES_PER_MB = 1_000_000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange is run; see `--help` for the meaning of each."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    speed: float = 1.0
    rate: float = 1.0
    symbols: tuple[str, ...] = ("BTC/USD",)
    replay: Path | None = None
    original_time: bool = False
    rest_rate_limit: float = 1.0
    ledger_mb: float = 200.0
    queue_mb: float = 32.0
    faults_every: float = 0.0
    faults_seed: int = 1
    faults: str = ""


class Exchange:
    """One simulated exchange; `port` is known once `running` has entered."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.port = options.port
        self.clock = MarketClock(options.speed)
        self.ledger = Ledger(options.data_dir / "ledger", limit_mb=options.ledger_mb)
        self._recording = recordings.read(options.replay) if options.replay else None
        chosen = (self._recording.pair,) if self._recording else pairs.choose(options.symbols)
        self._markets = (
            {} if self._recording else {p.symbol: Market(p, seed=options.seed, rate=options.rate) for p in chosen}
        )
        tapes = [
            ToldTape(self._recording.tape if self._recording else self._markets[pair.symbol], self.clock)
            for pair in chosen
        ]
        channels = [
            SymbolChannels(pair, tape, BookMaker(pair, options.seed)) for pair, tape in zip(chosen, tapes, strict=True)
        ]
        listings = {pair.symbol: Listing(pair, tape) for pair, tape in zip(chosen, tapes, strict=True)}
        queue_bytes = int(options.queue_mb * BYTES_PER_MB)
        self.hub = Hub(chosen, channels, self.clock, self.ledger, queue_limit_bytes=queue_bytes)
        self.rest = RestApi(listings, self.clock, trades_per_s=options.rest_rate_limit)
        self.injector = Injector(self.hub, self.rest, raw_market=bool(self._recording and self._recording.raw))
        self._fault_kinds = schedule.kinds_of(options.faults)

    async def _feeds(self) -> list[Coroutine[Any, Any, None]]:
        if self._recording:
            return [ReplayFeed(self._recording, self.hub).run(keep_time=self.options.original_time)]
        feeds = [GeneratedFeed(market, self.hub) for market in self._markets.values()]
        # Years of market lie before its first frame: about a second of work for each symbol.
        started_ns = await asyncio.gather(*(asyncio.to_thread(feed.start) for feed in feeds))
        return [feed.run(at_ns) for feed, at_ns in zip(feeds, started_ns, strict=True)]

    def _endless(self) -> list[Coroutine[Any, Any, None]]:
        options = self.options
        if options.faults_every <= 0:
            return [self.hub.heartbeats()]
        due = schedule.sequence(options.faults_seed, options.faults_every, self._fault_kinds, tuple(self.hub.channels))
        return [self.hub.heartbeats(), schedule.run(self.injector, due)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Serve until left; gives the tasks whose end would be a failure."""
        options = self.options
        tasks = [asyncio.create_task(work) for work in [*await self._feeds(), *self._endless()]]
        try:
            async with serve(
                self.hub.serve,
                options.host,
                options.port,
                process_request=self._http,
                create_connection=Line,
                compression=None,
                ping_interval=None,
                max_size=MAX_REQUEST_BYTES,
                open_timeout=ANSWER_TIMEOUT_S,
                close_timeout=1.0,
                logger=_quiet_logger(),
            ) as server:
                self.port = next(iter(server.sockets)).getsockname()[1]
                yield tasks
        except OSError as error:
            msg = f"the exchange simulator cannot listen on {options.host}:{options.port}: {error.strerror or error}"
            raise StackError(msg) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.ledger.close()

    async def run(self) -> None:
        """Serve until cancelled; raises what a feed raised."""
        async with self.running() as all_tasks:
            source = self.options.replay or f"generated, seed {self.options.seed}"
            LOG.info("SIMULATED exchange (%s) at ws://%s:%d/v2", source, self.options.host, self.port)
            tasks = set(all_tasks)
            endless = set(all_tasks if self._recording is None else all_tasks[1:])
            while True:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                tasks -= done
                if not endless <= tasks:
                    return

    async def _http(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP; None lets a WebSocket handshake go on."""
        url = urlsplit(request.path)
        if url.path in {"/v2", "/v2/"}:
            return None
        client_ip = str(socket.remote_address[0])
        query = dict(parse_qsl(url.query))
        if url.path == "/healthz":
            return _json(self._health())
        if url.path.startswith(PUBLIC_PREFIX):
            name = url.path.removeprefix(PUBLIC_PREFIX)
            status = HTTPStatus.SERVICE_UNAVAILABLE if self.rest.outage == UNAVAILABLE else HTTPStatus.OK
            return _json(await asyncio.to_thread(self.rest.answer, name, query, client_ip), status)
        if url.path.startswith(HISTORY_PREFIX) and url.path.endswith(HISTORY_SUFFIX):
            return await self._history(url.path, query)
        if url.path.split("/")[1] in {"ledger", "faults"}:
            return self._control(url.path, query, client_ip)
        return _json({"error": "not found"}, HTTPStatus.NOT_FOUND)

    async def _history(self, path: str, query: dict[str, str]) -> Response:
        name = path.removeprefix(HISTORY_PREFIX).removesuffix(HISTORY_SUFFIX)
        days = query.get("days", str(DEFAULT_HISTORY_DAYS))
        if not days.isdecimal():
            return _json({"error": "days must be a whole number"}, HTTPStatus.BAD_REQUEST)
        try:
            body = await asyncio.to_thread(self.rest.history_csv, name, int(days))
        except ApiError as error:
            return _json({"error": str(error)}, HTTPStatus.NOT_FOUND)
        except InvalidInput as error:
            return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        return _response(HTTPStatus.OK, "text/csv", body)

    def _control(self, path: str, query: dict[str, str], client_ip: str) -> Response:
        """What only this machine may ask."""
        if not ipaddress.ip_address(client_ip.removeprefix("::ffff:")).is_loopback:
            return _json({"error": "only from this machine"}, HTTPStatus.FORBIDDEN)
        if path == "/faults":
            after = query.get("after", "0")
            if not after.isdecimal():
                return _json({"error": "after must be a whole number"}, HTTPStatus.BAD_REQUEST)
            return _json(self.injector.listing(int(after)))
        if path == "/faults/inject":
            try:
                fault = catalogue.parse(query.pop("kind", ""), query)
                return _json(self.injector.inject(fault).row())
            except InvalidInput as error:
                return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        return self._ledger(path, query.get("symbol", self.hub.pairs[0].symbol))

    def _ledger(self, path: str, symbol: str) -> Response:
        self.ledger.flush()
        if path == "/ledger":
            return _json(self.hub.summary() | {"faults": self.injector.counts})
        if symbol not in self.hub.channels or path not in {"/ledger/trades", "/ledger/published"}:
            return _json({"error": "not found"}, HTTPStatus.NOT_FOUND)
        sent = path == "/ledger/trades"
        ids = self.ledger.trade_ids.get(symbol, IdRanges()) if sent else self.hub.channels[symbol].published
        return _json({"symbol": symbol, "count": len(ids), "repeats": ids.repeats, "ranges": ids.ranges()})

    def _health(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "status": "ok",
            "simulated": True,
            "market": str(self.options.replay.name) if self.options.replay else "generated",
            "seed": self.options.seed,
            "speed": self.options.speed,
            "rate": self.options.rate,
            "symbols": list(self.hub.channels),
            "now_ns": self.clock.now_ns(),
            "connections": len(self.hub.connections),
            "finished": self.hub.finished,
            "peak_rss_mb": round(peak / (1_024 if sys.platform != "darwin" else 1_048_576), 1),
        }


def _quiet_logger() -> logging.Logger:
    """Every HTTP answer is a rejected handshake to the library; that is no news."""
    logger = logging.getLogger("exchange_simulator.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger


def _json(body: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return _response(status, "application/json", msgspec.json.encode(body))


def _response(status: HTTPStatus, content_type: str, body: bytes) -> Response:
    headers = Headers({"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)
