"""A stack as an object: bring it up in the order of what waits for what, ask how it is, take it down.

```
stack = Stack(Path("var/sim"))
stack.create("sim", ports_from(20_000))
stack.up(only=("questdb",))
stack.settings.questdb.http_url
stack.down()
```

What does not belong here: words for people (`btc_cli/screen.py`) and the command line (`btc_cli/app.py`).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.errors import StackError
from stack import preflight
from stack.all_components import all_components
from stack.component import Component, Context, in_order
from stack.layout import Layout, Mode, remember_current
from stack.logs import tail
from stack.servers.dagster import DAGSTER
from stack.status import Status, problem_of, status_of
from stack.supervisor import DOWN, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from btc_core.settings import Settings

POLL_S = 0.3
"""Between two health checks while starting; a check costs up to 20 ms of the cores that the servers start on."""
LOG_LINES = 15
"""Last lines of a log shown when a component does not start."""
MEMORY_GB_PER_COMPONENT = 0.2
"""What a subset of components is asked to leave; the whole stack has `preflight.MIN_MEMORY_GB`."""

Report = Callable[[str, str], None]
"""Called as `report(component, what)` from several threads."""


class Stack:
    """The servers and processes of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.layout = Layout(data_dir)
        self._supervisor = Supervisor(self.layout)

    @property
    def settings(self) -> Settings:
        """The settings as this stack's processes see them."""
        return self.layout.settings()

    def create(
        self,
        mode: Mode,
        ports: Mapping[str, int] | None = None,
        exchange_args: tuple[str, ...] = (),
        symbols: tuple[str, ...] = (),
        exchange: str = "",
    ) -> None:
        """Make the data directory if there is none; raises `StackError` when it holds other data.

        `exchange_args` are more arguments of the simulator (`python -m exchange_simulator --help`), kept with the data, as
        are the `symbols` and the name of the `exchange` when it is not Kraken.
        """
        if not self.layout.exists:
            self.layout.create(mode, ports, exchange_args, symbols, exchange)
            return
        if symbols and symbols != self.settings.exchange.symbols:
            msg = (
                f"{self.layout.data_dir} follows {', '.join(self.settings.exchange.symbols)}: change "
                f"BTC_EXCHANGE_SYMBOLS in {self.layout.env_file} while it is down, or name another --data-dir"
            )
            raise StackError(msg)
        if exchange and exchange != self.settings.exchange.name:
            msg = (
                f"{self.layout.data_dir} follows {self.settings.exchange.name}, and trades of two exchanges never mix: "
                "name another directory with --data-dir"
            )
            raise StackError(msg)
        was = "sim" if self.settings.simulated else "live"
        if was != mode:
            msg = (
                f"{self.layout.data_dir} holds {was} data, and simulated and live data never mix: "
                f"start it with --exchange {was}, or name another directory with --data-dir"
            )
            raise StackError(msg)
        if ports is not None:
            self._move(ports)

    def components(self) -> dict[str, Component]:
        """All components by name."""
        self.layout.make_dirs()
        layout = self.layout
        more = layout.exchange_args(), layout.features_workers()
        return all_components(Context(layout, self.settings, layout.internal_ports(), *more))

    def up(self, only: tuple[str, ...] | None = None, report: Report = lambda _name, _what: None) -> None:
        """Start what is not running (`only` these and what they wait for) and return when all of it is healthy.

        Raises `StackError` about the first component that fails; the others keep running.
        """
        with self._locked():
            known = self.components()
            wanted = in_order(known, only)
            self._preflight(wanted, everything=only is None)
            remember_current(self.layout.data_dir)
            self._supervisor.write_conf(known.values())
            self._supervisor.start()
            self._start_all(wanted, report)

    def down(self, report: Report = lambda _name, _what: None) -> None:
        """Stop everything, what waits for others first."""
        with self._locked():
            if not self._supervisor.answers():
                return
            self._stop_all(report)
            self._supervisor.shutdown()

    def restart(self, name: str, report: Report = lambda _name, _what: None) -> None:
        """Stop one component and start it again, with its present configuration; others get theirs at the next `up`."""
        with self._locked():
            known = self.components()
            (*_, component) = in_order(known, (name,))
            if not self._supervisor.answers():
                msg = f"the stack in {self.layout.data_dir} is down; start it with `btc up`"
                raise StackError(msg)
            self._supervisor.stop_process(name)
            self._supervisor.write_conf(known.values())
            self._supervisor.reload(name)
            self._start_one(component, report)

    def know_days_from(self, day: str, report: Report = lambda _name, _what: None) -> None:
        """Let Dagster's days begin at `day`, as 2026-07-19, where they begin later; what runs of it starts again."""
        if self.settings.seal.first_day <= day:
            return
        self.layout.know_days_from(day)
        if self.settings.seal.first_day > day:
            msg = (
                f"Dagster's first day is {self.settings.seal.first_day}, from BTC_SEAL_FIRST_DAY in the environment, "
                f"which wins over {self.layout.env_file}: unset it, or set it to {day}"
            )
            raise StackError(msg)
        for each in self.status(DAGSTER) if self.running else ():
            if each.pid:
                self.restart(each.name, report)

    def status(self, only: tuple[str, ...] | None = None) -> list[Status]:
        """How every component (or `only` these) is, each asked now."""
        states = self._supervisor.states()
        known = self.components()
        wanted = [known[name] for name in only or tuple(known)]
        with ThreadPoolExecutor(len(wanted)) as pool:
            return list(pool.map(lambda component: status_of(component, states.get(component.name)), wanted))

    def stop_component(self, name: str) -> None:
        """Stop one component and leave it stopped until the next `up`; the others go on without it."""
        with self._locked():
            self._supervisor.stop_process(name)

    @property
    def running(self) -> bool:
        """True while its supervisor runs."""
        return self._supervisor.answers()

    def _move(self, ports: Mapping[str, int]) -> None:
        if self.running:
            msg = f"the stack in {self.layout.data_dir} is running: its ports can change only after `btc down`"
            raise StackError(msg)
        self.layout.move_ports(ports)

    def _preflight(self, wanted: list[Component], *, everything: bool) -> None:
        states = self._supervisor.states()
        down = [each for each in wanted if each.name not in states or not states[each.name].pid]
        needed_gb = preflight.MIN_MEMORY_GB if everything else MEMORY_GB_PER_COMPONENT * len(down)
        problems = [
            preflight.python_problem(),
            preflight.disk_problem(self.layout.data_dir),
            preflight.duplicate_ports(wanted),
            preflight.memory_problem(needed_gb) if len(down) > len(wanted) // 2 else None,
            *(preflight.port_problem(each) for each in down),
        ]
        found = [problem for problem in problems if problem]
        if found:
            raise StackError("\n".join(found))

    def _start_all(self, wanted: list[Component], report: Report) -> None:
        """Each in its own thread, which first waits for those of what it waits for."""
        futures: dict[str, Future[None]] = {}

        def bring_up(component: Component) -> None:
            for name in component.after:
                futures[name].result()
            self._start_one(component, report)

        with ThreadPoolExecutor(len(wanted)) as pool:
            for component in wanted:
                futures[component.name] = pool.submit(bring_up, component)
            for future in as_completed(futures.values()):
                if future.exception() is not None:
                    pool.shutdown(wait=True, cancel_futures=True)
                    future.result()

    def _start_one(self, component: Component, report: Report) -> None:
        started_s = time.monotonic()
        if not self._supervisor.state(component.name).pid:
            report(component.name, "starting")
            component.before()
            self._supervisor.start_process(component.name)
        self._wait_healthy(component)
        component.prepared()
        report(component.name, f"healthy after {time.monotonic() - started_s:.1f} s")

    def _wait_healthy(self, component: Component) -> None:
        deadline_s = time.monotonic() + component.start_timeout_s
        why = "it gave no answer"
        while time.monotonic() < deadline_s:
            state = self._supervisor.state(component.name)
            if state.state in {"BACKOFF", "FATAL", "STOPPED", "UNKNOWN"}:  # EXITED: it had run and comes back
                self._supervisor.stop_process(component.name)
                raise self._failed(component, f"ended at its start ({state.reason or state.state})")
            if component.check is None:
                if state.alive_s > component.steady_s:
                    return
            else:
                why = problem_of(component.check)
                if not why:
                    return
            time.sleep(POLL_S)
        raise self._failed(component, f"is not healthy after {component.start_timeout_s:g} s: {why}")

    def _failed(self, component: Component, what: str) -> StackError:
        log = self.layout.log(component.name)
        lines = "\n".join(f"    {line}" for line in tail(log, LOG_LINES)) or "    (empty)"
        return StackError(
            f"{component.name} ({component.title}) {what}. The end of its log {log}:\n{lines}\n"
            f"When the cause is gone, run `btc up` again; `btc doctor` checks everything else."
        )

    def _stop_all(self, report: Report) -> None:
        """In parallel, each after everything that waits for it."""
        known = self.components()
        states = self._supervisor.states()
        futures: dict[str, Future[None]] = {}

        def take_down(component: Component) -> None:
            for other in known.values():
                if component.name in other.after and other.name in futures:  # a newer version may know more components
                    futures[other.name].result()
            if states[component.name].state not in DOWN:
                self._supervisor.stop_process(component.name)
                report(component.name, "stopped")

        with ThreadPoolExecutor(len(known)) as pool:
            for component in reversed(in_order(known)):
                if component.name in states:
                    futures[component.name] = pool.submit(take_down, component)
        for future in futures.values():
            future.result()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up`, `down` or `restart` of a data directory at a time."""
        self.layout.make_dirs()
        with (self.layout.data_dir / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                msg = f"another `btc` command is starting or stopping {self.layout.data_dir}; wait for it"
                raise StackError(msg) from None
            yield
