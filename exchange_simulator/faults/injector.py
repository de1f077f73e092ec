"""The injector: carries faults out on the running exchange, and knows which were injected and which still act.

What does not belong here: what can be asked for (`faults`), or what is done to a frame (`frame_faults`).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from btc_core.clock import NS_PER_S
from btc_core.errors import InvalidInput
from exchange_simulator.faults import frame_faults
from exchange_simulator.faults.catalogue import (
    BadQuote,
    ClockSkew,
    Close,
    HalfOpen,
    Refuse,
    RestError,
    RestLimit,
    Silence,
    Stall,
    Status,
    VoidTrades,
)
from exchange_simulator.faults.frame_faults import INJECTED, Altering, Extra
from exchange_simulator.rest.api import RATE_LIMITED, UNAVAILABLE
from exchange_simulator.websocket.connection import CLOSE_AWAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange_simulator.faults.catalogue import Fault
    from exchange_simulator.rest.api import RestApi
    from exchange_simulator.websocket.connection import Connection
    from exchange_simulator.websocket.hub import Hub

LISTED = 10_000
"""So many faults are remembered; a fault every 5 s reaches it in 14 hours. The counts stay."""
HOLD_S = 5.0
"""Trades held back to be reordered or merged leave after this, complete or not, so that none waits for ever."""

_Kind = TypeVar("_Kind")


class Record:
    """One fault that was injected; `over` says whether it has ended by itself."""

    def __init__(self, number: int, fault: Fault, at_ns: int, *, scheduled: bool) -> None:
        self.number = number
        self.fault = fault
        self.at_ns = at_ns
        self.scheduled = scheduled
        self.ended_ns: int | None = None
        self.clients = 0
        """How many connections it touched when it began."""
        self.over: Callable[[], bool] = lambda: False

    def row(self) -> dict[str, Any]:
        """For `/faults`: times are market time, ns; `ended_ns` is null while it acts."""
        return {
            "number": self.number,
            **msgspec.to_builtins(self.fault),
            "at_ns": self.at_ns,
            "ended_ns": self.ended_ns,
            "scheduled": self.scheduled,
            "clients": self.clients,
        }


class Injector:
    """The faults of one exchange; used from the event loop only."""

    def __init__(self, hub: Hub, rest: RestApi, *, raw_market: bool) -> None:
        self._hub = hub
        self._rest = rest
        self._raw_market = raw_market
        self._records: deque[Record] = deque(maxlen=LISTED)
        self._active: list[Record] = []
        self.counts: Counter[str] = Counter()
        hub.on_change = self._look

    def inject(self, fault: Fault, *, scheduled: bool = False) -> Record:
        """Begin this fault; raises `InvalidInput` when it cannot be here."""
        symbol = getattr(fault, "symbol", "") or self._hub.pairs[0].symbol
        if symbol not in self._hub.channels:
            msg = (
                f"{fault.kind}: symbol: the exchange does not list {symbol!r}; it lists {', '.join(self._hub.channels)}"
            )
            raise InvalidInput(msg)
        if self._raw_market and isinstance(fault, VoidTrades | ClockSkew):
            msg = f"{fault.kind}: a recording of raw frames keeps its ids and times"
            raise InvalidInput(msg)
        if hasattr(fault, "symbol"):
            fault = msgspec.structs.replace(fault, symbol=symbol)
        total = sum(self.counts.values())
        record = Record(total + 1, fault, self._hub.clock.now_ns(), scheduled=scheduled)
        self._begin(record, symbol)
        self.counts[fault.kind] += 1
        self._records.append(record)
        self._active.append(record)
        self._apply()
        if isinstance(fault, Status):
            self._announce()
        self._look()
        return record

    def _begin(self, record: Record, symbol: str) -> None:
        fault, hub = record.fault, self._hub
        connections = tuple(hub.connections)
        record.clients = len(connections)
        match fault:
            case Close() | HalfOpen() | Stall() | Silence():
                self._begin_on_connections(record, connections)
            case VoidTrades():
                tape = hub.channels[symbol].tape
                tape.void_next(fault.count)
                record.over = lambda: not tape.voiding
            case ClockSkew():
                hub.clock.set_skew(int(fault.seconds * NS_PER_S))
                record.over = lambda: fault.seconds == 0 or self._latest(ClockSkew) is not fault
            case Refuse() | RestLimit() | RestError() | Status():
                self._end_in(record, fault.seconds)
            case _ if isinstance(fault, Extra):
                record.clients = self._send_extra(fault, symbol)
                record.over = lambda: True
            case _ if isinstance(fault, Altering):
                self._alter(record, fault, symbol)

    def _begin_on_connections(self, record: Record, connections: tuple[Connection, ...]) -> None:
        match record.fault:
            case Close(code=code):
                for connection in connections:
                    if code == CLOSE_AWAY:
                        connection.close(code, "going away")
                    else:
                        connection.cut()
                record.over = lambda: True
            case HalfOpen(seconds=seconds):
                for connection in connections:
                    connection.mute()
                asyncio.get_running_loop().call_later(seconds, _cut_all, connections)
                record.over = lambda: self._hub.connections.isdisjoint(connections)
            case Stall(seconds=seconds):
                for connection in connections:
                    connection.stall(seconds)
                self._end_in(record, seconds)
            case Silence(channel=channel, symbol=symbol):
                key = channel, symbol
                touched = [connection for connection in connections if key in connection.streams]
                for connection in touched:
                    connection.silenced.add(key)
                record.clients = len(touched)
                record.over = lambda: not any(key in each.silenced for each in self._hub.connections)

    def _alter(self, record: Record, fault: Altering, symbol: str) -> None:
        alteration = frame_faults.alteration(fault, symbol)
        self._hub.alterations.append(alteration)
        record.over = lambda: alteration not in self._hub.alterations
        if isinstance(alteration, frame_faults.HeldTrades):
            asyncio.get_running_loop().call_later(HOLD_S, self._let_go, alteration)

    def _let_go(self, alteration: frame_faults.HeldTrades) -> None:
        if alteration in self._hub.alterations:
            self._hub.alterations.remove(alteration)
            self._hub.send(alteration.flush())
            self._look()

    def _send_extra(self, fault: Extra, symbol: str) -> int:
        """Send a frame that nobody asked for to every subscribed client; returns how many there are."""
        ticker, hub = None, self._hub
        listeners = [connection for connection in hub.connections if connection.streams]
        if isinstance(fault, BadQuote):
            ticker = hub.channels[symbol].ticker()
            if ticker is None:
                msg = f"{fault.kind}: {symbol} has no quote yet"
                raise InvalidInput(msg)
            listeners = [connection for connection in listeners if ("ticker", symbol) in connection.streams]
        frame = frame_faults.extra_frame(fault, ticker)
        for connection in listeners:
            connection.enqueue(frame)
        return len(listeners)

    def _end_in(self, record: Record, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._end, record)

    def _end(self, record: Record) -> None:
        if record.ended_ns is None:
            record.ended_ns = self._hub.clock.now_ns()
            self._active.remove(record)
            self._apply()
            if isinstance(record.fault, Status):
                self._announce()

    def _look(self) -> None:
        """End what is over."""
        for record in [record for record in self._active if record.over()]:
            self._end(record)

    def _latest(self, kind: type[_Kind]) -> _Kind | None:
        """The newest active fault of a kind."""
        return next((record.fault for record in reversed(self._active) if isinstance(record.fault, kind)), None)

    def _apply(self) -> None:
        """Make outages what the faults that act say; of two of a kind the later one counts."""
        status, refuse = self._latest(Status), self._latest(Refuse)
        self._hub.system = self._rest.system = status.system if status else "online"
        self._hub.refusing = refuse.error if refuse else ""
        self._rest.outage = UNAVAILABLE if self._latest(RestError) else RATE_LIMITED if self._latest(RestLimit) else ""

    def _announce(self) -> None:
        for connection in self._hub.connections:
            self._hub.announce_system(connection)

    def listing(self, after: int = 0) -> dict[str, Any]:
        """What was injected (numbers above `after`), what still acts, and how many of each kind there were."""
        self._look()
        return {
            "count": sum(self.counts.values()),
            "kinds": dict(self.counts),
            "active": [record.row() for record in self._active],
            "injected": [record.row() for record in self._records if record.number > after],
            "extra_frames_sent": self._hub.ledger.frames[INJECTED],
        }


def _cut_all(connections: tuple[Connection, ...]) -> None:
    for connection in connections:
        connection.cut()
