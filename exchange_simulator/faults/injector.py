"""The injector: carries faults out on the running exchange, and knows which were injected and which are active.

What does not belong here: which faults there are (`catalogue`), or what they do to a frame (`frame_faults`).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from btc_core.clock import NS_PER_S
from btc_core.errors import InvalidInput
from exchange_simulator.faults import frame_faults
from exchange_simulator.faults.catalogue import (
    RATE_LIMIT_ERROR,
    BadQuote,
    Block,
    ClockSkew,
    Close,
    Deaf,
    Delist,
    Flap,
    FutureQuote,
    HalfOpen,
    JumpId,
    LateTrade,
    OddPair,
    OddTrades,
    PerpetualFault,
    PerpetualRestThrottle,
    PerpetualStall,
    Refuse,
    RestartIds,
    RestEmpty,
    RestError,
    RestLag,
    RestLimit,
    RestThrottle,
    RestUnknownPair,
    Silence,
    Stall,
    Status,
    VoidTrades,
    WrongChecksums,
)
from exchange_simulator.faults.frame_faults import INJECTED, ExtraFrameFault, UpdateFault
from exchange_simulator.rest.api import RATE_LIMITED, UNAVAILABLE
from exchange_simulator.websocket import wire
from exchange_simulator.websocket.connection import CLOSE_GOING_AWAY
from exchange_simulator.websocket.subscriptions import SYMBOL_CHANNELS, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange_simulator.faults.catalogue import Fault
    from exchange_simulator.market.events import Trade
    from exchange_simulator.perpetual.perpetuals import Perpetuals
    from exchange_simulator.rest.api import RestApi
    from exchange_simulator.websocket.connection import Connection
    from exchange_simulator.websocket.hub import FrameInterceptor, Hub

MAX_REMEMBERED = 10_000
"""Faults that `/faults` can list; with one every 5 s the oldest are forgotten after 14 hours. Counts cover all faults."""
MAX_HOLD_S = 5.0
"""Trades that wait to be reordered or merged are sent after this long, complete or not, so that none waits for ever."""
LATE_REPEATS, LATE_REPEAT_S = 3, 5.0
"""How often and how far apart a withheld trade is sent, so that a client that is just reconnecting gets it, too."""
FRAME_HEAD_CHARS = 200
"""How much of each extra frame is remembered: enough to find it among dead letters."""
NO_SUBSCRIBER_S = 1.0
"""The pause before the next attempt if no client is subscribed, or no trade has been withheld yet."""
_CHANGES_OF_THE_TAPE = VoidTrades | JumpId | RestartIds | LateTrade
_OUTAGES = (
    Flap
    | Block
    | Deaf
    | Delist
    | Refuse
    | RestLimit
    | RestError
    | RestLag
    | RestEmpty
    | RestUnknownPair
    | Status
    | WrongChecksums
)
"""Faults that are in force as long as they are active, for new connections and requests, too."""

_Kind = TypeVar("_Kind")


class InjectedFault:
    """One fault that was injected."""

    def __init__(self, number: int, fault: Fault, at_ns: int, *, scheduled: bool) -> None:
        self.number = number
        self.fault = fault
        self.at_ns = at_ns
        self.scheduled = scheduled
        self.ended_ns: int | None = None
        self.clients = 0
        """How many connections it affected when it began."""
        self.is_over: Callable[[], bool] = lambda: False
        """Whether its effect has ended by itself."""

    def row(self) -> dict[str, Any]:
        """Its row in `/faults`: times are market time in ns, `ended_ns` is null while the fault is active."""
        return {
            "number": self.number,
            **msgspec.to_builtins(self.fault),
            "at_ns": self.at_ns,
            "ended_ns": self.ended_ns,
            "scheduled": self.scheduled,
            "clients": self.clients,
        }


class Injector:
    """The faults of one exchange. Only the event loop uses it."""

    def __init__(self, hub: Hub, rest: RestApi, perpetuals: Perpetuals, *, replays_frames: bool) -> None:
        self._hub = hub
        self._rest = rest
        self._perpetuals = perpetuals
        self._replays_frames = replays_frames
        self._remembered: deque[InjectedFault] = deque(maxlen=MAX_REMEMBERED)
        self._active: list[InjectedFault] = []
        self.counts: Counter[str] = Counter()
        """Faults injected so far, by kind."""
        self._interceptors: deque[tuple[str, str, FrameInterceptor]] = deque(maxlen=MAX_REMEMBERED)
        """Kind, symbol and interceptor of the newest faults that changed updates."""
        self._extra_frames: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=MAX_REMEMBERED))
        hub.on_change = self._end_what_is_over

    def inject(self, fault: Fault, *, scheduled: bool = False) -> InjectedFault:
        """Begin this fault; raises `InvalidInput` when this exchange cannot have it."""
        symbol = getattr(fault, "symbol", "") or self._hub.pairs[0].symbol
        if symbol not in self._hub.channels:
            msg = (
                f"{fault.kind}: symbol: the exchange does not list {symbol!r}; it lists {', '.join(self._hub.channels)}"
            )
            raise InvalidInput(msg)
        if self._replays_frames and isinstance(fault, _CHANGES_OF_THE_TAPE | ClockSkew):
            msg = f"{fault.kind}: a recording of raw frames keeps its ids and times"
            raise InvalidInput(msg)
        if hasattr(fault, "symbol"):
            fault = msgspec.structs.replace(fault, symbol=symbol)
        number = sum(self.counts.values()) + 1
        injected = InjectedFault(number, fault, self._hub.clock.now_ns(), scheduled=scheduled)
        self._begin(injected, symbol)
        self.counts[fault.kind] += 1
        self._remembered.append(injected)
        self._active.append(injected)
        self._update_outages()
        if isinstance(fault, Status):
            self._send_status()
        self._end_what_is_over()
        return injected

    def _begin(self, injected: InjectedFault, symbol: str) -> None:
        fault, hub = injected.fault, self._hub
        connections = tuple(hub.connections)
        injected.clients = len(connections)
        match fault:
            case Close() | HalfOpen() | Stall() | Silence():
                self._begin_on_connections(injected, connections)
            case _ if isinstance(fault, _CHANGES_OF_THE_TAPE):
                self._change_tape(injected, fault, symbol)
            case ClockSkew():
                hub.clock.set_skew(int(fault.seconds * NS_PER_S))
                injected.is_over = lambda: fault.seconds == 0 or self._latest(ClockSkew) is not fault
            case RestThrottle(seconds=seconds):
                self._rest.throttle.start(seconds)
                self._end_after(injected, seconds)
            case _ if isinstance(fault, _OUTAGES):
                _begin_outage(fault, connections)
                self._end_after(injected, fault.seconds)
            case PerpetualStall(seconds=seconds) | PerpetualRestThrottle(seconds=seconds):
                injected.clients = self._perpetuals.begin(fault)
                self._end_after(injected, seconds)
            case PerpetualFault():
                injected.clients = self._perpetuals.begin(fault)
                injected.is_over = lambda: self._perpetuals.is_over(fault)
            case _ if isinstance(fault, ExtraFrameFault):
                injected.clients = self._send_extra_frame(fault, symbol)
                injected.is_over = lambda: True
            case _ if isinstance(fault, UpdateFault):
                self._intercept(injected, fault, symbol)

    def _begin_on_connections(self, injected: InjectedFault, connections: tuple[Connection, ...]) -> None:
        match injected.fault:
            case Close(code=code):
                for connection in connections:
                    if code == CLOSE_GOING_AWAY:
                        connection.close(code, "going away")
                    else:
                        connection.cut()
                injected.is_over = lambda: True
            case HalfOpen(seconds=seconds):
                for connection in connections:
                    connection.mute()
                asyncio.get_running_loop().call_later(seconds, _cut_all, connections)
                injected.is_over = lambda: self._hub.connections.isdisjoint(connections)
            case Stall(seconds=seconds):
                for connection in connections:
                    connection.stall(seconds)
                self._end_after(injected, seconds)
            case Silence(channel=channel, symbol=symbol):
                key = channel, symbol
                subscribed = [connection for connection in connections if key in connection.streams]
                for connection in subscribed:
                    connection.silenced.add(key)
                injected.clients = len(subscribed)
                injected.is_over = lambda: not any(key in each.silenced for each in self._hub.connections)

    def _change_tape(self, injected: InjectedFault, fault: Fault, symbol: str) -> None:
        tape = self._hub.channels[symbol].tape
        injected.is_over = lambda: not tape.changes_pending
        match fault:
            case VoidTrades(count=count):
                tape.void_next(count)
            case JumpId(ahead=ahead):
                tape.jump_next(ahead)
            case RestartIds(below=below):
                tape.restart_next(below)
            case LateTrade(seconds=seconds):
                tape.withhold_next()
                injected.is_over = lambda: False
                asyncio.get_running_loop().call_later(seconds, self._release, injected, symbol, [], LATE_REPEATS)

    def _release(self, injected: InjectedFault, symbol: str, trades: list[Trade], repeats: int) -> None:
        """Send withheld trades `repeats` times; the first time, the tape publishes them."""
        loop = asyncio.get_running_loop()
        tape = self._hub.channels[symbol].tape
        if tape.changes_pending or not self._hub.has_subscribers("trade", symbol):
            loop.call_later(NO_SUBSCRIBER_S, self._release, injected, symbol, trades, repeats)
            return
        trades = trades or tape.release()
        if not trades or repeats == 0:
            self._end(injected)
            return
        self._hub.publish_late(symbol, trades)
        loop.call_later(LATE_REPEAT_S, self._release, injected, symbol, trades, repeats - 1)

    def _intercept(self, injected: InjectedFault, fault: UpdateFault, symbol: str) -> None:
        interceptor = frame_faults.interceptor(fault, symbol)
        self._hub.interceptors.append(interceptor)
        self._interceptors.append((fault.kind, symbol, interceptor))
        injected.is_over = lambda: interceptor not in self._hub.interceptors
        if isinstance(interceptor, frame_faults.TradeHolder):
            asyncio.get_running_loop().call_later(MAX_HOLD_S, self._stop_holding, interceptor)

    def _stop_holding(self, holder: frame_faults.TradeHolder) -> None:
        if holder in self._hub.interceptors:
            self._hub.interceptors.remove(holder)
            self._hub.broadcast(holder.flush())
            self._end_what_is_over()

    def _send_extra_frame(self, fault: ExtraFrameFault, symbol: str) -> int:
        """Send the fault's frame to every subscribed client that is not muted; returns how many there are."""
        source, hub = None, self._hub
        receivers = [connection for connection in hub.connections if connection.streams and not connection.muted]
        if isinstance(fault, OddPair):
            source = wire.instrument(hub.pairs)
        elif isinstance(fault, BadQuote | FutureQuote | OddTrades):
            channel = "trade" if isinstance(fault, OddTrades) else "ticker"
            source = hub.channels[symbol].snapshot(Stream(channel, symbol))
            if source is None:
                msg = f"{fault.kind}: {symbol} has no {channel} yet"
                raise InvalidInput(msg)
            receivers = [connection for connection in receivers if (channel, symbol) in connection.streams]
        frame = frame_faults.extra_frame(fault, source)
        self._extra_frames[fault.kind].append(frame.text[:FRAME_HEAD_CHARS])
        for connection in receivers:
            connection.enqueue(frame)
        return len(receivers)

    def _end_after(self, injected: InjectedFault, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._end, injected)

    def _end(self, injected: InjectedFault) -> None:
        if injected.ended_ns is None:
            injected.ended_ns = self._hub.clock.now_ns()
            self._active.remove(injected)
            self._update_outages()
            if isinstance(injected.fault, Status):
                self._send_status()

    def end_outages(self) -> list[InjectedFault]:
        """End the active faults of REST, of subscriptions and of new connections now; returns them.

        Other faults end by themselves, because clients hold a part of their effect.
        """
        ended = [injected for injected in self._active if isinstance(injected.fault, _OUTAGES | RestThrottle)]
        for injected in ended:
            self._end(injected)
        return ended

    def _end_what_is_over(self) -> None:
        for injected in [injected for injected in self._active if injected.is_over()]:
            self._end(injected)

    def _latest(self, kind: type[_Kind]) -> _Kind | None:
        """The newest active fault of a kind."""
        return next((injected.fault for injected in reversed(self._active) if isinstance(injected.fault, kind)), None)

    def _symbols_of(self, kind: type[Delist | WrongChecksums]) -> frozenset[str]:
        """The symbols of the active faults of a kind."""
        return frozenset(injected.fault.symbol for injected in self._active if isinstance(injected.fault, kind))

    def _update_outages(self) -> None:
        """Set status, refusals, connections and REST to what the active faults say, the newest of each kind."""
        status, refuse = self._latest(Status), self._latest(Refuse)
        self._hub.system = self._rest.system = status.system if status else "online"
        self._hub.subscribe_error = refuse.error if refuse else ""
        self._hub.subscribe_limited = self._hub.subscribe_error == RATE_LIMIT_ERROR
        self._hub.flapping = self._latest(Flap) is not None
        self._hub.deaf = self._latest(Deaf) is not None
        block = self._latest(Block)
        self._hub.blocked_status = block.status if block else 0
        self._hub.delisted = self._symbols_of(Delist)
        self._hub.wrong_checksums = self._symbols_of(WrongChecksums)
        self._rest.outage = UNAVAILABLE if self._latest(RestError) else RATE_LIMITED if self._latest(RestLimit) else ""
        if self._latest(RestThrottle) is None:
            self._rest.throttle.start(0.0)
        lag, unknown_pair = self._latest(RestLag), self._latest(RestUnknownPair)
        self._rest.lag_ns = int(lag.lag_s * NS_PER_S) if lag else 0
        self._rest.is_empty = self._latest(RestEmpty) is not None
        self._rest.unlisted = unknown_pair.symbol if unknown_pair else ""

    def _send_status(self) -> None:
        for connection in self._hub.connections:
            self._hub.send_status(connection)

    def listing(self, after: int = 0) -> dict[str, Any]:
        """The faults injected with numbers above `after`, the active ones, and how many of each kind there were."""
        self._end_what_is_over()
        return {
            "count": sum(self.counts.values()),
            "kinds": dict(self.counts),
            "active": [injected.row() for injected in self._active],
            "injected": [injected.row() for injected in self._remembered if injected.number > after],
            "extra_frames_sent": self._hub.ledger.frames[INJECTED],
        }

    def effects(self) -> dict[str, Any]:
        """What the faults changed: trade ids by kind and symbol, the beginnings of extra frames, and what clients did."""
        trades: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for kind, symbol, interceptor in self._interceptors:
            trades[kind][symbol] += interceptor.trade_ids
        for symbol, channels in self._hub.channels.items():
            for kind, ids in channels.tape.changed_ids.items():
                trades[kind][symbol] += ids
        for symbol, skipped in self._perpetuals.streams.skipped_ids.items():
            trades["perpetual_skip_trades"][symbol] += skipped
        return {
            "trades": trades,
            "frames": {kind: list(heads) for kind, heads in self._extra_frames.items()},
            "clients": list(self._hub.client_events),
        }


def _begin_outage(fault: Fault, connections: tuple[Connection, ...]) -> None:
    """What an outage does to the present connections; `_update_outages` makes it concern new ones."""
    for connection in connections:
        match fault:
            case Flap() | Block():
                connection.cut()
            case Deaf():
                connection.make_deaf()
            case Delist(symbol=symbol):
                connection.silenced.update((channel, symbol) for channel in SYMBOL_CHANNELS)


def _cut_all(connections: tuple[Connection, ...]) -> None:
    for connection in connections:
        connection.cut()
