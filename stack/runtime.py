"""A stack as an object: start its components in order, ask for their status, stop them.

```
stack = Stack(Path("var/sim"))
stack.create("sim", ports_from(20_000))
stack.up(only=("questdb",))
stack.settings.questdb.http_url
stack.down()
```

What does not belong here: the command line and what it prints (`btc_cli`).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.errors import StackError
from btc_core.stores.disk import disk_problem
from btc_core.waiting import wait_until
from stack import preflight
from stack.all_components import all_components
from stack.component import Component, Context, do_nothing, in_order
from stack.health_checks import problem_of
from stack.layout import Layout, Mode, markets_variable, remember_current
from stack.logs import mark_start, tail
from stack.progress import Progress
from stack.servers.dagster import COMPONENT_NAMES as DAGSTER_COMPONENTS
from stack.status import Status, status_of
from stack.supervisor import FINAL_STATES, ProcessState, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from btc_core.settings import Settings

POLL_S = 0.3
"""Pause between two health checks of a component that starts. A check takes up to 20 ms of the cores that the servers need."""
START_BOUND_S = 900.0
"""A start is given up after this time even if it makes progress. The longest that was seen, on a loaded machine, took over a
minute."""
MAX_RESTARTS = 3
"""A component that exits this often while `up` waits for it is given up."""
REPORT_S = 15.0
"""Time between two reports on a component that is still starting."""
LOG_LINES = 15
"""Last lines of a log that are shown when a component does not start."""
MEMORY_GB_PER_COMPONENT = 0.2
"""Memory required for each component of a subset; the whole stack requires `preflight.MIN_MEMORY_GB`."""

FAILED_START_STATES = frozenset({"BACKOFF", "FATAL", "STOPPED", "UNKNOWN"})
"""EXITED is not among them: such a process had started, and supervisord starts it again."""

Report = Callable[[str, str], None]
"""Called as `report(component, what)` from several threads."""


class Stack:
    """The servers and processes of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.layout = Layout(data_dir)
        self._supervisor = Supervisor(self.layout)

    @property
    def settings(self) -> Settings:
        """The settings as the processes of this stack see them."""
        return self.layout.settings()

    def create(
        self,
        mode: Mode,
        ports: Mapping[str, int] | None = None,
        exchange_args: tuple[str, ...] = (),
        symbols: tuple[str, ...] = (),
        exchange: str = "",
    ) -> None:
        """Create the data directory unless it exists; raises `StackError` when it holds data of another market.

        The directory keeps `exchange_args`, which are additional arguments of the simulator (see
        `python -m exchange_simulator --help`), the `symbols` (as `Layout.create` takes them), and the name of the `exchange`
        when it is not Kraken.
        """
        if not self.layout.exists:
            self.layout.create(mode, ports, exchange_args, symbols, exchange)
            return
        followed = self.settings.exchange.symbols, self.settings.exchange.markets
        if symbols and symbols not in followed:
            msg = (
                f"{self.layout.data_dir} follows {', '.join(followed[1] or followed[0])}: change "
                f"{markets_variable(symbols)} in {self.layout.env_file} while it is down, or name another --data-dir"
            )
            raise StackError(msg)
        if exchange and exchange != self.settings.exchange.name:
            msg = (
                f"{self.layout.data_dir} follows {self.settings.exchange.name}, and trades of two exchanges never mix: "
                "name another directory with --data-dir"
            )
            raise StackError(msg)
        existing = "sim" if self.settings.simulated else "live"
        if existing != mode:
            msg = (
                f"{self.layout.data_dir} holds {existing} data, and simulated and live data never mix: "
                f"start it with --exchange {existing}, or name another directory with --data-dir"
            )
            raise StackError(msg)
        if ports is not None and dict(ports) != self.layout.ports():
            self._change_ports(ports)

    def components(self) -> dict[str, Component]:
        """All components by name."""
        self.layout.make_dirs()
        layout = self.layout
        more = layout.exchange_args(), layout.features_workers(), layout.durability(), layout.second_secrets()
        return all_components(Context(layout, self.settings, layout.internal_ports(), *more))

    def up(
        self,
        only: tuple[str, ...] | None = None,
        report: Report = lambda _name, _what: None,
        *,
        prepares: bool = True,
        before_the_rest: Callable[[], None] = do_nothing,
    ) -> None:
        """Start all components, or `only` these and what they wait for, and return when they are healthy.

        The components that forecasts need are started first. `before_the_rest` is called once they are healthy and others
        are still to be started. Components that run already are left running. Without `prepares`, nothing is created in
        the servers, and they are not asked whose data they hold. Raises `StackError` for the first component that fails;
        the others keep running.
        """
        with self._locked():
            if not self.running:  # processes that run would go on without it
                self.layout.give_new_broker_a_password()
            known = self.components()
            wanted = in_order(known, only)
            self._preflight(wanted, everything=only is None)
            remember_current(self.layout.data_dir)
            self._supervisor.write_conf(known.values())
            self._supervisor.start()
            rest = [each for each in wanted if each.after_forecasts]
            started: dict[str, Future[None]] = {}
            self._start_all([each for each in wanted if each not in rest], started, report, prepares=prepares)
            is_well = all(future.exception() is None for future in started.values())
            if is_well and any(not each.given_by and not self._supervisor.state(each.name).pid for each in rest):
                before_the_rest()
            self._start_all(rest, started, report, prepares=prepares)
            for future in started.values():
                future.result()

    def down(self, report: Report = lambda _name, _what: None) -> None:
        """Stop all components, each before what it waits for, and supervisord."""
        with self._locked():
            if not self._supervisor.is_running():
                return
            self._stop_all(report)
            self._supervisor.shutdown()

    def restart(self, name: str, report: Report = lambda _name, _what: None) -> None:
        """Stop one component and start it with its present configuration; the others keep theirs until the next `up`."""
        with self._locked():
            known = self.components()
            (*_, component) = in_order(known, (name,))
            _require_own(component)
            if not self._supervisor.is_running():
                msg = f"the stack in {self.layout.data_dir} is down; start it with `btc up`"
                raise StackError(msg)
            self._supervisor.stop_process(name)
            self._supervisor.write_conf(known.values())
            self._supervisor.reload(name)
            self._start_one(component, report)

    def start_component(self, name: str, report: Report = lambda _name, _what: None) -> None:
        """Start one component that the running stack may not know yet; one that runs is left alone."""
        with self._locked():
            known = self.components()
            (*_, component) = in_order(known, (name,))
            self._supervisor.write_conf(known.values())
            self._supervisor.reload(name)
            self._start_one(component, report)

    def extend_days_back_to(self, day: str, report: Report = lambda _name, _what: None) -> None:
        """Let Dagster's daily partitions begin at `day`, as 2026-07-19, unless they begin earlier.

        Dagster's processes that run are restarted. Raises `StackError` when an environment variable sets a later day.
        """
        if self.settings.seal.first_day <= day:
            return
        self.layout.set_first_day(day)
        if self.settings.seal.first_day > day:
            msg = (
                f"Dagster's first day is {self.settings.seal.first_day}, from BTC_SEAL_FIRST_DAY in the environment, "
                f"which wins over {self.layout.env_file}: unset it, or set it to {day}"
            )
            raise StackError(msg)
        for each in self.status(DAGSTER_COMPONENTS) if self.running else ():
            if each.pid:
                self.restart(each.name, report)

    def status(self, only: tuple[str, ...] | None = None) -> list[Status]:
        """Check all components, or `only` these, and return the status of each."""
        states = self._supervisor.states()
        known = self.components()
        wanted = [known[name] for name in only or tuple(known)]
        with ThreadPoolExecutor(len(wanted)) as pool:
            return list(pool.map(lambda component: status_of(component, states.get(component.name)), wanted))

    def disk_problem(self) -> str:
        """What is given up because the disk of the data directory is nearly full; "" when nothing is."""
        return disk_problem(self.settings.disk)

    def stop_component(self, name: str) -> None:
        """Stop one component until the next `up`; the others continue without it."""
        with self._locked():
            component = self.components().get(name)  # None for the league once its last model is gone
            if component is not None:
                _require_own(component)
            self._supervisor.stop_process(name)

    def take_secrets(self, name: str, report: Report = lambda _name, _what: None) -> None:
        """Let a running server accept the credentials in `stack.env`, without a restart if it can."""
        component = self.components()[name]
        if component.take_secrets is None:
            self.restart(name, report)
            return
        with self._locked():
            _require_own(component)
            self._supervisor.write_conf(self.components().values())
            component.take_secrets(self._supervisor.state(name).pid)
            report(name, "accepts the secrets in stack.env")

    @contextmanager
    def rotating(self) -> Iterator[None]:
        """Hold a lock, so that only one command at a time changes secrets; the components stay usable."""
        with self._locked("rotation.lock", "is changing the secrets of"):
            yield

    @property
    def running(self) -> bool:
        """Whether supervisord is running."""
        return self._supervisor.is_running()

    def _change_ports(self, ports: Mapping[str, int]) -> None:
        if self.running:
            msg = f"the stack in {self.layout.data_dir} is running: its ports can change only after `btc down`"
            raise StackError(msg)
        self.layout.change_ports(ports)

    def _preflight(self, wanted: list[Component], *, everything: bool) -> None:
        states = self._supervisor.states()
        wanted = [each for each in wanted if not each.given_by]
        down = [each for each in wanted if each.name not in states or not states[each.name].pid]
        needed_gb = preflight.MIN_MEMORY_GB if everything else MEMORY_GB_PER_COMPONENT * len(down)
        problems = [
            preflight.python_problem(),
            preflight.disk_problem(self.layout.data_dir),
            preflight.duplicate_ports(wanted),
            preflight.memory_problem(needed_gb) if len(down) > len(wanted) // 2 else None,
            *preflight.port_problems(down),
        ]
        found = [problem for problem in problems if problem]
        if found:
            raise StackError("\n".join(found))

    def _start_all(
        self, wanted: list[Component], started: dict[str, Future[None]], report: Report, *, prepares: bool
    ) -> None:
        """Start each component in a thread of its own, which first waits for the threads of `waits_for`, and wait for all.

        `started` gets their results by name. A component does not start when one that it waits for has failed.
        """

        def start_when_possible(component: Component) -> None:
            for name in component.waits_for:
                if name in started:  # otherwise it was started before
                    started[name].result()
            self._start_one(component, report, prepares=prepares)

        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            for component in wanted:
                started[component.name] = pool.submit(start_when_possible, component)

    def _start_one(self, component: Component, report: Report, *, prepares: bool = True) -> None:
        started_s = time.monotonic()
        if component.given_by:
            report(
                component.name, f"is an external server at {component.url} and is not started; waiting for its answer"
            )
            self._wait_given(component)
        else:
            if not self._supervisor.state(component.name).pid:
                report(component.name, "starting")
                component.before_start()
                mark_start(self.layout.log(component.name))
                self._supervisor.start_process(component.name)
            self._wait_healthy(component, report)
        if prepares:
            component.when_healthy()
        report(component.name, f"healthy after {time.monotonic() - started_s:.1f} s")

    def _wait_given(self, component: Component) -> None:
        """Return once an external server answers; raise `StackError` when it does not in time."""
        problem = ""

        def answers() -> bool:
            nonlocal problem
            problem = problem_of(component.check) if component.check else ""
            return not problem

        if not wait_until(answers, component.start_timeout_s, POLL_S):
            msg = (
                f"{component.name} ({component.title}) is not usable after {component.start_timeout_s:.0f} s: {problem}. "
                f"`btc up` does not start it, because {component.given_by} names a server other than 127.0.0.1; change it in "
                f"{self.layout.env_file}"
            )
            raise StackError(msg)

    def _wait_healthy(self, component: Component, report: Report = lambda _name, _what: None) -> None:
        """Return once a component is healthy; raise `StackError` once it has exited or makes no progress any more."""
        log = self.layout.log(component.name)
        progress = Progress(log)
        pids: set[int] = set()
        began_s = reported_s = time.monotonic()
        while True:
            process = self._supervisor.state(component.name)
            problem = self._start_problem(component, process)
            if not problem:
                return
            pids.add(process.pid)
            if len(pids - {0}) > MAX_RESTARTS:
                raise self._start_error(component, f"exited {MAX_RESTARTS} times while it started: {problem}")
            idle_s = progress.idle_s(process.pid)
            took_s = time.monotonic() - began_s
            if idle_s >= component.start_timeout_s or took_s >= START_BOUND_S:
                idle = f". It has made no progress for {idle_s:.0f} s" if idle_s >= component.start_timeout_s else ""
                raise self._start_error(component, f"is not healthy after {took_s:.0f} s: {problem}{idle}")
            if time.monotonic() - reported_s >= REPORT_S:
                reported_s = time.monotonic()
                newest = "".join(tail(log, 1, since_start=True))
                report(
                    component.name, f"still starting after {took_s:.0f} s: {problem}. Its log: {newest or '(empty)'}"
                )
            time.sleep(POLL_S)

    def _start_problem(self, component: Component, process: ProcessState) -> str:
        """Why a component is not healthy yet; raises `StackError` when it has exited."""
        if process.state in FAILED_START_STATES:
            self._supervisor.stop_process(component.name)
            raise self._start_error(component, f"exited while it started ({process.reason or process.state})")
        if component.check is not None:
            return problem_of(component.check)
        return "" if process.uptime_s > component.steady_s else "it has not been running long enough"

    def _start_error(self, component: Component, what: str) -> StackError:
        log = self.layout.log(component.name)
        lines = (
            "\n".join(f"    {line}" for line in tail(log, LOG_LINES, since_start=True))
            or "    (nothing since this start)"
        )
        return StackError(
            f"{component.name} ({component.title}) {what}. The end of its log {log} since this start:\n{lines}\n"
            f"Fix the cause and run `btc up` again; `btc doctor` checks everything else."
        )

    def _stop_all(self, report: Report) -> None:
        """Stop each component in a thread of its own, which first waits for the threads of everything that waits for it."""
        known = self.components()
        states = self._supervisor.states()
        futures: dict[str, Future[None]] = {}

        def stop_when_possible(component: Component) -> None:
            for other in known.values():
                # A supervisord that an older version started may not know every component.
                if component.name in other.waits_for and other.name in futures:
                    futures[other.name].result()
            if states[component.name].state not in FINAL_STATES:
                self._supervisor.stop_process(component.name)
                report(component.name, "stopped")

        with ThreadPoolExecutor(len(known)) as pool:
            for component in reversed(in_order(known)):
                if component.name in states:
                    futures[component.name] = pool.submit(stop_when_possible, component)
        for future in futures.values():
            future.result()

    @contextmanager
    def _locked(self, name: str = "lock", what: str = "is starting or stopping") -> Iterator[None]:
        """Hold a lock of the data directory, so that only one command at a time starts or stops components in it."""
        self.layout.make_dirs()
        with (self.layout.data_dir / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                msg = f"another `btc` command {what} {self.layout.data_dir}; wait for it"
                raise StackError(msg) from None
            yield


def _require_own(component: Component) -> None:
    """Raise `StackError` for an external server: the stack has no process of it."""
    if component.given_by:
        msg = f"{component.name} is an external server at {component.url} ({component.given_by}): the stack neither starts nor stops it"
        raise StackError(msg)
