"""Fault injection into a running system: random kills and exchange faults from a seed, or servers stopped for a while.

What does not belong here: judging the result (`verdict`), or how the simulator makes a fault (`exchange_simulator`).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import psutil

from btc_core.errors import StackError
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC
from btc_core.stores.kafka import topic_state
from btc_core.stores.questdb import QuestDB
from exchange_simulator.faults import catalogue, schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from stack.runtime import Stack

log = logging.getLogger(__name__)

WORKERS = ("ingest", "bronze", "features", "forecast", "repair")
SERVERS = ("questdb", "kafka", "valkey")
KILLED = (*WORKERS, *SERVERS)
KILL_SHARE = 0.45
"""Share of the kills and freezes among all faults; the others are faults of the exchange."""
FREEZE_S = (2.0, 12.0)
"""Shortest and longest time for which a server is stopped with SIGSTOP: its connections stay open and nothing answers."""
RECOVERY_PATIENCE_S = 120.0
SETTLE_PATIENCE_S = 240.0
"""Time after the last fault for reconnecting, for repairs at one request a second, and for working off the backlog."""
POLL_S = 0.2


class Plan(msgspec.Struct, frozen=True):
    """Random faults for `seconds`, one every `every_s` on average; and servers to stop, each for `outage_s` seconds."""

    seed: int = 1
    seconds: float = 0.0
    every_s: float = 1.0
    outages: tuple[str, ...] = ()
    outage_s: float = 0.0


class Kill(msgspec.Struct, frozen=True):
    """SIGKILL to a component, which the supervisor then starts again."""

    name: str

    def __str__(self) -> str:
        return f"kill -9 {self.name}"


class Freeze(msgspec.Struct, frozen=True):
    """SIGSTOP to a server, and SIGCONT after `seconds`."""

    name: str
    seconds: float

    def __str__(self) -> str:
        return f"freeze {self.name} for {self.seconds:.1f} s"


class FaultReport(msgspec.Struct):
    """The faults that were injected, how long recovery took, and how much memory the workers used."""

    kills: dict[str, int]
    freezes: dict[str, int]
    exchange_faults: dict[str, int]
    outages: tuple[str, ...]
    """Servers that were stopped, in this order."""
    recovery_s: dict[str, float]
    """Longest time from a kill, or from the end of a freeze, until the health check of the component passes again, by component."""
    memory_mb: dict[str, float]
    """Largest resident memory, by worker."""

    @property
    def total(self) -> int:
        """Number of all faults."""
        counts = (self.kills, self.freezes, self.exchange_faults)
        return sum(sum(each.values()) for each in counts) + len(self.outages)


class Chaos:
    """One run against a running stack; `symbol` is the market whose trades are counted."""

    def __init__(self, stack: Stack, plan: Plan, symbol: str = "BTC/USD") -> None:
        self._stack = stack
        self._plan = plan
        self._symbol = symbol
        self._exchange = stack.settings.exchange.rest_url
        self._kills: dict[str, int] = defaultdict(int)
        self._freezes: dict[str, int] = defaultdict(int)
        self._injected: dict[str, int] = defaultdict(int)
        self._recovery_s: dict[str, float] = {}
        self._memory_mb: dict[str, float] = defaultdict(float)
        self._down: set[str] = set()
        self._target_id = 0
        self._finished = threading.Event()

    def run(self, say: Callable[[str], None] = log.info) -> FaultReport:
        """Inject the planned faults, then wait until the system has caught up with the exchange."""
        watcher = threading.Thread(target=self._watch_memory)
        watcher.start()
        try:
            self._stop_servers(say)
            self._inject_random(say)
            self._settle(say)
        finally:
            self._finished.set()
            watcher.join()
        return FaultReport(
            kills=dict(self._kills),
            freezes=dict(self._freezes),
            exchange_faults=dict(self._injected),
            outages=self._plan.outages,
            recovery_s=self._recovery_s,
            memory_mb=dict(self._memory_mb),
        )

    def _stop_servers(self, say: Callable[[str], None]) -> None:
        """Stop one server after another for a while; the workers continue without it."""
        for name in self._plan.outages:
            self._wait(self._connected, "new trades reach their table")
            self._target_id = 0
            say(f"{name} is stopped for {self._plan.outage_s:.0f} s")
            self._stack.stop_component(name)
            time.sleep(self._plan.outage_s)
            self._stack.up(only=(name,))

    def _inject_random(self, say: Callable[[str], None]) -> None:
        recoveries: list[threading.Thread] = []
        begin_s = time.monotonic()
        for at_s, fault in self._schedule():
            time.sleep(max(0.0, begin_s + at_s - time.monotonic()))
            say(f"{at_s:6.1f} s  {fault if isinstance(fault, Kill | Freeze) else fault.kind}")
            if isinstance(fault, Kill):
                recoveries += self._kill(fault.name)
            elif isinstance(fault, Freeze):
                recoveries += self._freeze(fault)
            else:
                self._inject(fault)
        for recovery in recoveries:
            recovery.join()

    def _schedule(self) -> Iterator[tuple[float, Kill | Freeze | catalogue.Fault]]:
        """(seconds from the start, fault); a plan always gives the same schedule."""
        draws = np.random.default_rng(self._plan.seed)
        exchange_faults = schedule.sequence(
            self._plan.seed, self._plan.every_s, tuple(catalogue.CATALOGUE), (self._symbol,)
        )
        process_faults = self._process_faults(draws)
        at_s = 0.0
        while True:
            at_s += self._plan.every_s * draws.uniform(0.5, 1.5)
            if at_s >= self._plan.seconds:
                return
            yield at_s, next(process_faults) if draws.random() < KILL_SHARE else next(exchange_faults)[1]

    def _process_faults(self, draws: np.random.Generator) -> Iterator[Kill | Freeze]:
        """Kills of all components and freezes of all servers, each once before any comes again."""
        while True:
            for number in draws.permutation(len(KILLED) + len(SERVERS)):
                if number < len(KILLED):
                    yield Kill(KILLED[number])
                else:
                    yield Freeze(SERVERS[number - len(KILLED)], float(draws.uniform(*FREEZE_S)))

    def _freeze(self, fault: Freeze) -> list[threading.Thread]:
        """Freeze a server, and let a thread continue it and watch its recovery; one that is down is left alone."""
        pid = self._pid(fault.name)
        if fault.name in self._down or not pid:
            return []
        self._down.add(fault.name)
        self._freezes[fault.name] += 1
        os.kill(pid, signal.SIGSTOP)
        recovery = threading.Thread(target=self._continue, args=(fault, pid))
        recovery.start()
        return [recovery]

    def _continue(self, fault: Freeze, pid: int) -> None:
        time.sleep(fault.seconds)
        os.kill(pid, signal.SIGCONT)
        self._await_recovery(fault.name, 0, time.monotonic())

    def _kill(self, name: str) -> list[threading.Thread]:
        """Kill a component with SIGKILL and watch its recovery in a thread; one that is still down is not killed again."""
        pid = self._pid(name)
        if name in self._down or not pid:
            return []
        self._down.add(name)
        self._kills[name] += 1
        os.kill(pid, signal.SIGKILL)
        recovery = threading.Thread(target=self._await_recovery, args=(name, pid, time.monotonic()))
        recovery.start()
        return [recovery]

    def _pid(self, name: str) -> int:
        return next(each.pid for each in self._stack.status((name,)))

    def _await_recovery(self, name: str, old_pid: int, killed_s: float) -> None:
        """Wait until a component is healthy in a process other than `old_pid`."""
        while time.monotonic() - killed_s < RECOVERY_PATIENCE_S:
            (now,) = self._stack.status((name,))
            if now.state == "healthy" and now.pid not in (0, old_pid):
                break
            time.sleep(POLL_S)
        took_s = time.monotonic() - killed_s
        self._recovery_s[name] = max(took_s, self._recovery_s.get(name, 0.0))
        self._down.discard(name)

    def _inject(self, fault: catalogue.Fault) -> None:
        arguments = {name: value for name, value in msgspec.to_builtins(fault).items() if value != ""}
        answer = httpx.get(f"{self._exchange}/faults/inject", params=arguments, timeout=10).json()
        if "error" in answer:
            log.info("fault skipped: %s", answer["error"])
            return
        self._injected[fault.kind] += 1

    def _watch_memory(self) -> None:
        processes: dict[int, psutil.Process] = {}
        while not self._finished.wait(1.0):
            for each in self._stack.status(WORKERS):
                if not each.pid:
                    continue
                try:
                    process = processes.setdefault(each.pid, psutil.Process(each.pid))
                    used_mb = process.memory_info().rss / 1e6
                except psutil.NoSuchProcess:
                    continue
                self._memory_mb[each.name] = max(self._memory_mb[each.name], used_mb)

    def _settle(self, say: Callable[[str], None]) -> None:
        """Wait until no gap is open, stop ingest, and wait until every worker has handled the whole log."""
        self._wait(lambda: not self._unhealthy(), "every component is healthy")
        self._wait(self._connected, "new trades reach their table again")
        self._wait(lambda: not self._open_gaps(), "no gap is open")
        say("no gap is open; stopping ingest")
        self._stack.stop_component("ingest")
        self._wait(self._caught_up, "every message of the log is handled")
        self._wait(lambda: not self._open_gaps(), "no gap is open at the end")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + SETTLE_PATIENCE_S
        while not condition():
            if time.monotonic() > deadline_s:
                msg = f"not reached within {SETTLE_PATIENCE_S:.0f} s after the last fault: {what}"
                raise StackError(msg)
            time.sleep(0.5)

    def _unhealthy(self) -> list[str]:
        return [each.name for each in self._stack.status(KILLED) if each.state != "healthy"]

    def _connected(self) -> bool:
        """Whether a trade that was published after the last fault has reached its table."""
        if not self._target_id:
            self._target_id = published(self._exchange, self._symbol)[-1][1] + 1
        rows = query(self._stack.settings, f"SELECT max(trade_id) FROM bronze_trades WHERE symbol = '{self._symbol}'")
        return bool(rows and rows[0][0] is not None and rows[0][0] >= self._target_id)

    def _open_gaps(self) -> int:
        return int(query(self._stack.settings, "SELECT count() FROM gap_marks WHERE state = 'open'")[0][0])

    def _caught_up(self) -> bool:
        return caught_up(self._stack.settings)


def caught_up(settings: Settings) -> bool:
    """Whether every worker has committed everything in its topic."""
    read = ((EVENTS_TOPIC, ("bronze", "features")), (FEATURES_TOPIC, ("forecast",)))
    return not any(any(topic_state(settings.kafka, *each).lag.values()) for each in read)


def published(exchange_url: str, symbol: str) -> list[list[int]]:
    """Inclusive ranges of the trade ids that exist on the exchange."""
    answer: dict[str, Any] = httpx.get(f"{exchange_url}/ledger/published", params={"symbol": symbol}, timeout=30).json()
    return answer["ranges"]  # type: ignore[no-any-return]


def query(settings: Settings, sql: str) -> list[list[Any]]:
    """The result of a small query, on a connection of its own."""
    with QuestDB(settings.questdb) as db:
        return db.execute(sql)
