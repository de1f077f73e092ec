"""Fault injection into a running system: random faults from a seed, or servers stopped for a while.

What does not belong here: which faults there are (`plan`), or judging the result (`verdict`, `outcomes`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import psutil

from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC
from btc_core.stores.kafka import topic_state
from btc_core.stores.questdb import QuestDB
from exchange_simulator.market.clock import MAX_SKEW_NS
from tests.faults import component_faults, user_model
from tests.faults.component_faults import COMPONENTS, WORKERS, ComponentFault
from tests.faults.plan import label, moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from exchange_simulator.faults import catalogue
    from stack.runtime import Stack
    from tests.faults.plan import AnyFault, Plan

log = logging.getLogger(__name__)

RECOVERY_PATIENCE_S = 120.0
SETTLE_PATIENCE_S = 480.0
"""Time after the last fault for reconnecting, for repairs at one request a second, and for working off the backlog."""
POLL_S = 0.2


class FaultReport(msgspec.Struct, frozen=True):
    """The faults that were injected or skipped, how long recovery took, and how much memory the workers used."""

    injected: dict[str, int]
    """Faults by label: a kind of the exchange's catalogue, or a component and what it did."""
    skipped: dict[str, dict[str, int]]
    """Faults that were drawn and not injected, by label and reason."""
    together: int
    """Moments at which more than one fault was injected."""
    recoveries_s: dict[str, list[float]]
    """The time from the end of each component fault until the component's check passed again, by label of the fault."""
    outages: tuple[str, ...]
    """Servers that were stopped, in this order."""
    memory_mb: dict[str, float]
    """Largest resident memory, by worker."""
    not_reached: tuple[str, ...]
    """What the system should have reached in the time after the last fault and did not."""

    @property
    def total(self) -> int:
        """Number of all faults that were injected."""
        return sum(self.injected.values()) + len(self.outages)

    @property
    def total_skipped(self) -> int:
        """Number of all faults that were drawn and not injected."""
        return sum(sum(reasons.values()) for reasons in self.skipped.values())


class Chaos:
    """One run against a running stack with the exchange simulator; every market that it follows is watched."""

    def __init__(self, stack: Stack, plan: Plan) -> None:
        self._stack = stack
        self._plan = plan
        self._symbols = stack.settings.exchange.symbols
        self._exchange = stack.settings.exchange.rest_url
        self._injected: Counter[str] = Counter()
        self._skipped: dict[str, Counter[str]] = defaultdict(Counter)
        self._together = 0
        self._recoveries_s: dict[str, list[float]] = defaultdict(list)
        self._memory_mb: dict[str, float] = defaultdict(float)
        self._down: set[str] = set()
        """Components with a fault that have not recovered."""
        self._not_reached: list[str] = []
        self._target_ns = 0
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
            injected=dict(self._injected),
            skipped={name: dict(reasons) for name, reasons in self._skipped.items()},
            together=self._together,
            recoveries_s=dict(self._recoveries_s),
            outages=self._plan.outages,
            memory_mb=dict(self._memory_mb),
            not_reached=tuple(self._not_reached),
        )

    def _stop_servers(self, say: Callable[[str], None]) -> None:
        """Stop one server after another for a while; the workers continue without it."""
        for name in self._plan.outages:
            self._wait(self._connected, "new trades reach their table")
            self._target_ns = 0
            say(f"{name} is stopped for {self._plan.outage_s:.0f} s")
            self._stack.stop_component(name)
            time.sleep(self._plan.outage_s)
            self._stack.up(only=(name,))

    def _inject_random(self, say: Callable[[str], None]) -> None:
        threads: list[threading.Thread] = []
        begin_s = time.monotonic()
        for at_s, faults in moments(self._plan, self._symbols):
            time.sleep(max(0.0, begin_s + at_s - time.monotonic()))
            say(f"{at_s:6.1f} s  {', '.join(map(label, faults))}")
            before = self._injected.total()
            for fault in faults:
                threads += self._inject(fault)
            self._together += self._injected.total() > before + 1
        for thread in threads:
            thread.join()

    def _inject(self, fault: AnyFault) -> list[threading.Thread]:
        """Begin a fault, or count why not; returns the thread that carries it out and waits for the recovery."""
        if not isinstance(fault, ComponentFault):
            self._count(fault, self._ask_exchange(fault))
            return []
        pid = component_faults.pid_of(self._stack, fault.component)
        if fault.component in self._down or not pid:
            self._count(fault, "the component was down already")
            return []
        self._count(fault)
        self._down.add(fault.component)
        thread = threading.Thread(target=self._run_fault, args=(fault, psutil.Process(pid)))
        thread.start()
        return [thread]

    def _count(self, fault: AnyFault, skipped_because: str = "") -> None:
        if skipped_because:
            self._skipped[label(fault)][skipped_because] += 1
        else:
            self._injected[label(fault)] += 1

    def _ask_exchange(self, fault: catalogue.Fault) -> str:
        """Inject a fault of the exchange; returns the reason if it cannot have this fault now."""
        arguments = {name: value for name, value in msgspec.to_builtins(fault).items() if value != ""}
        answer = httpx.get(f"{self._exchange}/faults/inject", params=arguments, timeout=10)
        return str(answer.json()["error"]) if answer.is_error else ""

    def _run_fault(self, fault: ComponentFault, process: psutil.Process) -> None:
        """Carry out a component's fault, then measure the time from its end until the component works again."""
        try:
            component_faults.inject(self._stack, fault, process)
            ended_s = time.monotonic()
            while not component_faults.is_over(self._stack, fault, process.pid):
                if time.monotonic() - ended_s > RECOVERY_PATIENCE_S:
                    self._not_reached.append(f"recovery after: {fault.label}")
                    break
                time.sleep(POLL_S)
            self._recoveries_s[fault.label].append(time.monotonic() - ended_s)
        finally:
            self._down.discard(fault.component)

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
        self._wait(self._connected, "new trades of every market reach their table again")
        self._wait(lambda: "late_trade" not in self._active_faults(), "every withheld trade has been sent")
        self._wait(lambda: not self._open_gaps(), "no gap is open")
        if user_model.is_installed(self._stack.settings):
            self._wait(lambda: user_model.forecasts(self._stack.settings), "the user's model makes the forecasts")
        say("stopping ingest")
        self._stack.stop_component("ingest")
        self._wait(self._caught_up, "every message of the log is handled")
        if not self._not_reached:
            self._wait(lambda: not self._open_gaps(), "no gap is open at the end")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; one that does not in time is reported, and the data is judged all the same."""
        deadline_s = time.monotonic() + SETTLE_PATIENCE_S
        while not condition():
            if time.monotonic() > deadline_s:
                log.error("not reached within %.0f s: %s", SETTLE_PATIENCE_S, what)
                self._not_reached.append(what)
                return
            time.sleep(0.5)

    def _unhealthy(self) -> list[str]:
        return [each.name for each in self._stack.status(COMPONENTS) if each.state != "healthy"]

    def _connected(self) -> bool:
        """Whether a trade of every market that was published after the last fault has reached its table."""
        if not self._target_ns:
            now_ns = httpx.get(f"{self._exchange}/healthz", timeout=10).json()["now_ns"]
            self._target_ns = now_ns + MAX_SKEW_NS
        newest = "SELECT symbol, cast(max(ts_event) AS LONG) FROM bronze_trades"
        rows = query(self._stack.settings, newest)
        return {symbol for symbol, ts_ns in rows if (ts_ns or 0) > self._target_ns} == set(self._symbols)

    def _active_faults(self) -> list[str]:
        """The kinds of the exchange's faults that have not ended."""
        answer = httpx.get(f"{self._exchange}/faults", timeout=10).json()
        return [row["kind"] for row in answer["active"]]

    def _open_gaps(self) -> int:
        return int(query(self._stack.settings, "SELECT count() FROM gap_marks WHERE state = 'open'")[0][0])

    def _caught_up(self) -> bool:
        return caught_up(self._stack.settings)


def caught_up(settings: Settings) -> bool:
    """Whether every worker has committed everything in its topic."""
    read = ((EVENTS_TOPIC, ("bronze", "features")), (FEATURES_TOPIC, ("forecast",)))
    return not any(any(topic_state(settings.kafka, *each).lag.values()) for each in read)


def query(settings: Settings, sql: str) -> list[list[Any]]:
    """The result of a small query, on a connection of its own."""
    with QuestDB(settings.questdb) as db:
        return db.execute(sql)
