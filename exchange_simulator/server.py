"""One simulated exchange: market, WebSocket, REST and faults assembled and served on one port.

What does not belong here: the answers to requests (`websocket.hub`, `http_routes`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.server import serve

from btc_core.clock import NS_PER_S
from btc_core.errors import ConfigError, StackError
from exchange_simulator import pairs
from exchange_simulator.faults import schedule
from exchange_simulator.faults.injector import Injector
from exchange_simulator.http_routes import PERPETUAL_PREFIX, HttpRoutes, MarketSource
from exchange_simulator.market import recording_formats
from exchange_simulator.market.clock import MarketClock
from exchange_simulator.market.generated import REVISION, GeneratedMarket
from exchange_simulator.market.order_book import BookGenerator
from exchange_simulator.market.published_tape import PublishedTape
from exchange_simulator.perpetual.perpetuals import Perpetuals
from exchange_simulator.perpetual.tape import PerpetualTape, pair_of
from exchange_simulator.rest.api import Listing, RestApi
from exchange_simulator.units import BYTES_PER_MB
from exchange_simulator.websocket.channels import SymbolChannels
from exchange_simulator.websocket.connection import ClientSocket
from exchange_simulator.websocket.feeds import GeneratedFeed, ReplayFeed
from exchange_simulator.websocket.hub import Hub
from exchange_simulator.websocket.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from websockets.asyncio.server import ServerConnection

_log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 60.0
"""A request that is neither answered nor a WebSocket by then is dropped; years of history at a high rate take a while."""
CLOSE_TIMEOUT_S = 1.0
MAX_REQUEST_BYTES = 65_536
MARKET_FILE = "market.json"
"""The seed and the rate of the market in a data directory."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange runs. `python -m exchange_simulator --help` explains each option."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    speed: float = 1.0
    rate: float = 1.0
    symbols: tuple[str, ...] = ("BTC/USD",)
    perpetuals: tuple[str, ...] = ()
    perpetual_lead_s: float = 1.5
    replay: Path | None = None
    original_time: bool = False
    rest_rate_limit: float = 1.0
    ledger_mb: float = 200.0
    queue_mb: float = 32.0
    faults_every: float = 0.0
    faults_seed: int = 1
    faults: str = ""


class Exchange:
    """One simulated exchange. `port` is known inside `running`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.port = options.port
        self.clock = MarketClock(options.speed)
        if options.replay is None:
            _check_same_market(options)
        self.ledger = Ledger(options.data_dir / "ledger", limit_mb=options.ledger_mb)
        self._recording = recording_formats.read(options.replay) if options.replay else None
        listed = (self._recording.pair,) if self._recording else pairs.choose(options.symbols)
        self._markets = (
            {}
            if self._recording
            else {pair.symbol: GeneratedMarket(pair, seed=options.seed, rate=options.rate) for pair in listed}
        )
        tapes = [
            PublishedTape(self._recording.tape if self._recording else self._markets[pair.symbol], self.clock)
            for pair in listed
        ]
        channels = [
            SymbolChannels(pair, tape, BookGenerator(pair, options.seed))
            for pair, tape in zip(listed, tapes, strict=True)
        ]
        listings = {pair.symbol: Listing(pair, tape) for pair, tape in zip(listed, tapes, strict=True)}
        queue_limit_bytes = int(options.queue_mb * BYTES_PER_MB)
        self.hub = Hub(listed, channels, self.clock, self.ledger, queue_limit_bytes=queue_limit_bytes)
        self.rest = RestApi(listings, self.clock, trades_per_s=options.rest_rate_limit)
        self._fault_kinds = schedule.parse_kinds(options.faults)
        market = options.replay.name if options.replay else "generated"
        source = MarketSource(market, options.seed, options.speed, options.rate)
        self._perpetuals = Perpetuals(map(self._perpetual, options.perpetuals), self.clock)
        replays_frames = self._recording is not None and self._recording.holds_frames
        self.injector = Injector(self.hub, self.rest, self._perpetuals, replays_frames=replays_frames)
        self._routes = HttpRoutes(self.hub, self.rest, self.injector, source, self._perpetuals)

    def _perpetual(self, symbol: str) -> PerpetualTape:
        """The perpetual of this symbol, over the market of its pair, also of a pair that this exchange does not list."""
        options, pair = self.options, pair_of(symbol)
        market = self._markets.get(pair.symbol) or GeneratedMarket(pair, seed=options.seed, rate=options.rate)
        return PerpetualTape(market, int(options.perpetual_lead_s * NS_PER_S))

    async def _feeds(self) -> list[Coroutine[Any, Any, None]]:
        if self._recording:
            return [ReplayFeed(self._recording, self.hub).run(original_time=self.options.original_time)]
        feeds = [GeneratedFeed(market, self.hub) for market in self._markets.values()]
        # Every day of the market since its epoch is computed before the first frame: about a second for each symbol.
        started_ns = await asyncio.gather(*(asyncio.to_thread(feed.start) for feed in feeds))
        return [feed.run(at_ns) for feed, at_ns in zip(feeds, started_ns, strict=True)]

    def _background_work(self) -> list[Coroutine[Any, Any, None]]:
        """Heartbeats, and faults by schedule when the options ask for them."""
        options = self.options
        if options.faults_every <= 0:
            return [self.hub.send_heartbeats(), *self._perpetuals.streams.work()]
        faults = schedule.sequence(
            options.faults_seed, options.faults_every, self._fault_kinds, tuple(self.hub.channels)
        )
        return [self.hub.send_heartbeats(), *self._perpetuals.streams.work(), schedule.run(self.injector, faults)]

    async def _serve(self, socket: ServerConnection) -> None:
        """Serve one client of Kraken's or of the perpetuals' WebSocket, as its path says."""
        path = urlsplit(socket.request.path if socket.request else "").path
        if path.startswith(PERPETUAL_PREFIX):
            await self._perpetuals.streams.serve(socket, path.removeprefix(PERPETUAL_PREFIX))
        else:
            await self.hub.serve(socket)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Serve inside the `async with` block; yields the tasks behind it, feeds first. Only the task of a replay ever ends."""
        options = self.options
        tasks = [asyncio.create_task(work) for work in [*await self._feeds(), *self._background_work()]]
        try:
            async with serve(
                self._serve,
                options.host,
                options.port,
                process_request=self._routes.answer,
                create_connection=ClientSocket,
                compression=None,
                ping_interval=None,
                max_size=MAX_REQUEST_BYTES,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                logger=_websockets_logger(),
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
        """Serve until cancelled; raises what a task raised."""
        async with self.running() as tasks:
            source = self.options.replay or f"generated, seed {self.options.seed}"
            _log.info("SIMULATED exchange (%s) at ws://%s:%d/v2", source, self.options.host, self.port)
            unfinished = set(tasks)
            endless = set(tasks if self._recording is None else tasks[1:])
            while True:
                done, _ = await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                unfinished -= done
                if not endless <= unfinished:
                    return


def _check_same_market(options: Options) -> None:
    """Keep the seed, rate, revision and speed of the generated market beside its ledger; raises `ConfigError` if they differ.

    The trade ids of a market depend on them, and the same client would see its ids jump. Market time begins at wall time
    with each start, so a market at another speed than 1 cannot be continued at all.
    """
    path = options.data_dir / MARKET_FILE
    at_wall_pace = options.speed == 1.0
    speed = {} if at_wall_pace else {"speed": options.speed}
    market = msgspec.json.encode({"seed": options.seed, "rate": options.rate, "revision": REVISION} | speed)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(market)
    elif path.read_bytes() != market or not at_wall_pace:
        msg = (
            f"{options.data_dir} belongs to a market with other trade ids ({path.read_text()} in {MARKET_FILE}), but the "
            f"options and this version say {market.decode()}: use the same --seed and --rate and no --speed, or "
            "another --data-dir (of the whole stack), which another revision always needs"
        )
        raise ConfigError(msg)


def _websockets_logger() -> logging.Logger:
    """A quiet logger: to the library every plain HTTP answer is a rejected handshake, which is worth no log line."""
    logger = logging.getLogger("exchange_simulator.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
