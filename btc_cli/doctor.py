"""`btc doctor`: checks of the machine and of every component, each with the fix for what it finds.

What does not belong here: fixing anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import typer

from btc_cli.options import DataDir  # noqa: TC001 - typer reads the annotations
from btc_core.errors import BtcError, StackError
from btc_core.stores.questdb import QuestDB
from btc_core.tables.schema import invalid_views
from stack import preflight
from stack.jars import jars
from stack.java import java
from stack.layout import current_data_dir, default_data_dir
from stack.logs import tail
from stack.runtime import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stack.component import Component
    from stack.status import Status

LOG_LINES = 5
"""Last lines of its log shown for a component that is not healthy."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    subject: str
    problem: str
    """What is wrong and how to fix it; empty if nothing is."""


def doctor(data_dir: DataDir = None) -> None:
    """Check the machine and the stack, and say how to fix what is wrong.

    The exit code is 1 if something is wrong.
    """
    try:
        stack = Stack(data_dir or current_data_dir())
    except StackError:
        stack = Stack(default_data_dir("live"))
    has_problem = False
    for finding in chain(check_machine(stack), check_components(stack) if stack.layout.exists else ()):
        typer.echo(f"  no  {finding.subject}: {finding.problem}" if finding.problem else f"  ok  {finding.subject}")
        has_problem = has_problem or bool(finding.problem)
    if not stack.layout.exists:
        typer.echo(f"there is no stack in {stack.layout.data_dir} yet; `btc up` creates one")
    elif not stack.running:
        typer.echo(f"the stack in {stack.layout.data_dir} is not running; `btc up` starts it")
    if has_problem:
        raise typer.Exit(1)


def check_machine(stack: Stack) -> Iterator[Finding]:
    """What could keep a stack from starting."""
    yield Finding("Python", preflight.python_problem() or "")
    yield Finding("disk", preflight.disk_problem(stack.layout.data_dir) or "")
    yield Finding("memory", "" if stack.running else preflight.memory_problem() or "")
    yield Finding("Java", _problem(java))
    for server in ("questdb", "kafka"):
        yield Finding(f"jars of {server}", _problem(partial(jars, server)))


def check_components(stack: Stack) -> Iterator[Finding]:
    """Ports, the health of every component, and the materialized views."""
    try:
        components = stack.components()
    except BtcError as error:
        yield Finding("components", str(error))
        return
    yield Finding("ports", preflight.duplicate_ports(components.values()) or "")
    statuses = {status.name: status for status in stack.status()}
    for component in components.values():
        yield Finding(component.name, _component_problem(stack, component, statuses[component.name]))
    if statuses["questdb"].state == "healthy":
        yield Finding("views", _view_problem(stack))


def _component_problem(stack: Stack, component: Component, status: Status) -> str:
    if status.state == "healthy":
        return ""
    if status.state == "stopped":
        return preflight.port_problem(component) or ("it is stopped: run `btc up`" if stack.running else "")
    log = stack.layout.log(component.name)
    lines = "\n".join(f"    {line}" for line in tail(log, LOG_LINES))
    return f"{status.state}: {status.reason}; try `btc restart {component.name}`. The end of {log}:\n{lines}"


def _view_problem(stack: Stack) -> str:
    with QuestDB(stack.settings.questdb) as db:
        invalid = "; ".join(f"{name} is no longer refreshed ({why})" for name, why in invalid_views(db).items())
    return invalid and f"{invalid}: `btc up` recomputes it"


def _problem(check: Callable[[], object]) -> str:
    """The message of the error that a check raises; empty if it raises none."""
    try:
        check()
    except BtcError as error:
        return str(error)
    return ""
