"""`btc doctor`: everything that can be wrong with the machine or the stack, each with its fix.

What does not belong here: fixing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from btc_core.errors import BtcError
from btc_core.stores.questdb import QuestDB
from btc_core.tables.schema import invalid_views
from stack import preflight
from stack.logs import tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stack.runtime import Stack

LOG_LINES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    problem: str
    """Empty when it is well; else what is wrong and what to do."""


def machine(stack: Stack) -> Iterator[Finding]:
    """What a start would trip over."""
    yield Finding("Python", preflight.python_problem() or "")
    yield Finding("disk", preflight.disk_problem(stack.layout.data_dir) or "")
    yield Finding("memory", "" if stack.running else preflight.memory_problem() or "")
    yield Finding("Java", _problem(_java))
    for name in ("questdb", "kafka"):
        yield Finding(f"jars of {name}", _problem(lambda name=name: _jars(name)))  # type: ignore[misc]


def parts(stack: Stack) -> Iterator[Finding]:
    """Every component: its programs, its ports, its health."""
    try:
        components = stack.components()
    except BtcError as error:
        yield Finding("components", str(error))
        return
    yield Finding("ports", preflight.duplicate_ports(components.values()) or "")
    states = {each.name: each for each in stack.status()}
    for component in components.values():
        state = states[component.name]
        if state.state == "stopped":
            problem = preflight.port_problem(component) or ("it is stopped: `btc up`" if stack.running else "")
        elif state.state == "healthy":
            problem = ""
        else:
            log = stack.layout.log(component.name)
            lines = "\n".join(f"    {line}" for line in tail(log, LOG_LINES))
            problem = f"{state.state}: {state.reason}; `btc restart {component.name}`. The end of {log}:\n{lines}"
        yield Finding(component.name, problem)
    if states["questdb"].state == "healthy":
        yield Finding("views", _views(stack))


def _java() -> None:
    from stack.java import java  # noqa: PLC0415

    java()


def _jars(name: str) -> None:
    from stack.jars import jars  # noqa: PLC0415

    jars(name)


def _views(stack: Stack) -> str:
    with QuestDB(stack.settings.questdb) as db:
        standing = "; ".join(f"{name} stands still ({why})" for name, why in invalid_views(db).items())
    return standing and f"{standing}: `btc up` has them computed again"


def _problem(look: Callable[[], None]) -> str:
    try:
        look()
    except BtcError as error:
        return str(error)
    return ""
