"""`btc doctor`: checks of the machine and of every component, each with the fix for what it finds.

What does not belong here: fixing anything.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from prometheus_client.parser import text_string_to_metric_families

from btc_cli.exchange_choice import connection_problem
from btc_cli.options import DataDir  # noqa: TC001 - typer reads the annotations
from btc_core import offsite, system_backup
from btc_core.clock import from_ns, now_ns
from btc_core.days.stored_checks import archive_problem, backup_problem, calendar_problem, view_problem
from btc_core.errors import BtcError, OtherHorizons, StackError
from btc_core.features.releases import load_calendars
from btc_core.settings import load_settings
from btc_core.stores import origin
from btc_core.stores.api_connection import server_context
from btc_core.stores.questdb import QuestDB
from stack import preflight
from stack.jars import jars
from stack.java import java
from stack.layout import current_data_dir, default_data_dir
from stack.limits import MEMORY_MAPS, usage_of
from stack.logs import tail
from stack.runtime import Stack
from stack.service_checks import Finding, check_services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from stack.component import Component
    from stack.status import Status

NOT_RUNNING_EXIT_CODE = 3
"""As that of `btc status`."""
LOG_LINES = 5
"""Last lines of its log shown for a component that is not healthy."""
MIN_DAYS_LEFT = 2.0
"""The alert DiskFilling has the same bound."""
METRICS_TIMEOUT_S = 5.0
MARKED = {"kafka": origin.LOG, "questdb": origin.TABLES, "store": origin.OBJECTS, "valkey": origin.NEWEST_ROWS}
"""The components whose data is marked with its origin."""
RAISE_LIMITS = (
    f"To raise them: `sudo sysctl -w vm.max_map_count={MEMORY_MAPS}` (in /etc/sysctl.d it stays), and for open files "
    "`ulimit -Hn` or LimitNOFILE of the service that runs `btc up`; then `btc down` and `btc up`"
)


EnvFile = Annotated[
    Path | None,
    typer.Option(
        help="Check the servers that this file names in place of a stack, such as managed services. Variables of the "
        "environment win over the file."
    ),
]


def doctor(data_dir: DataDir = None, env_file: EnvFile = None) -> None:
    """Check the machine and the stack, and say how to fix what is wrong.

    The exit code is 1 if something is wrong, and 3 if only no stack is there or it does not run.
    """
    if env_file is not None:
        if _print(check_services(load_settings(env_file))):
            raise typer.Exit(1)
        return
    stack, absence = _stack(data_dir)
    has_problem = _print(chain(check_machine(stack), check_components(stack) if stack.layout.exists else ()))
    if absence:
        typer.echo(absence)
    if has_problem or absence:
        raise typer.Exit(1 if has_problem else NOT_RUNNING_EXIT_CODE)


def _stack(data_dir: Path | None) -> tuple[Stack, str]:
    """The stack to check, and one line about it if it is not there or does not run."""
    try:
        stack = Stack(data_dir or current_data_dir())
    except StackError as error:
        return Stack(default_data_dir("live")), str(error)
    if not stack.layout.exists:
        return stack, f"there is no stack in {stack.layout.data_dir}; `btc up` creates one"
    return stack, "" if stack.running else f"the stack in {stack.layout.data_dir} does not run; `btc up` starts it"


def _print(findings: Iterable[Finding]) -> bool:
    """Print each finding as soon as it is there; returns whether something is wrong."""
    has_problem = False
    for finding in findings:
        mark = "ok" if not finding.problem else "!!" if finding.is_warning else "no"
        typer.echo(f"  {mark}  {finding.subject}" + (f": {finding.problem}" if finding.problem else ""))
        has_problem = has_problem or mark == "no"
    return has_problem


def check_machine(stack: Stack) -> Iterator[Finding]:
    """What could keep a stack from starting."""
    yield Finding("Python", preflight.python_problem() or "")
    yield Finding("disk", preflight.disk_problem(stack.layout.data_dir) or "")
    yield Finding("open files", preflight.open_files_problem() or "")
    yield Finding("memory", "" if stack.running else preflight.memory_problem() or "")
    yield Finding("Java", _problem(java))
    for server in ("questdb", "kafka"):
        yield Finding(f"jars of {server}", _problem(partial(jars, server)))
    today = from_ns(now_ns()).date()
    yield Finding("release calendar", calendar_problem(load_calendars().values(), today), is_warning=True)


def check_components(stack: Stack) -> Iterator[Finding]:
    """Ports, the health of every component, the exchanges, whose data it is, the materialized views, and the archives of the log."""
    try:
        components = stack.components()
    except BtcError as error:
        if isinstance(error, OtherHorizons):  # the command begins again with those of the stack
            raise
        yield Finding("components", str(error))
        return
    yield Finding("ports", preflight.duplicate_ports(components.values()) or "")
    statuses = {status.name: status for status in stack.status()}
    for component in components.values():
        yield Finding(component.name, _component_problem(stack, component, statuses[component.name]))
    api = stack.settings.api
    if api.cert_file:
        yield Finding("certificate of the API", _problem(partial(server_context, api)))
    exchange = stack.settings.exchange
    for name in exchange.names if stack.running else ():
        yield Finding(f"exchange {name}", connection_problem(exchange.only(name)) or "", is_warning=True)
    yield Finding("room on the disk", stack.disk_problem() or _full_soon(statuses["bronze"].url))
    for name, store in MARKED.items():
        if statuses[name].state in {"healthy", "degraded"}:
            yield Finding(f"data of {name}", _problem(partial(origin.check, stack.settings, store)))
    yield from _check_stores(stack, statuses)


def _check_stores(stack: Stack, statuses: Mapping[str, Status]) -> Iterator[Finding]:
    if statuses["questdb"].state in {"healthy", "degraded"}:
        yield Finding("views", view_problem(stack.settings))
        if not statuses["questdb"].given:
            yield from _limits(stack, statuses["questdb"])
        if statuses["store"].state == "healthy":
            yield Finding("archives of the log", archive_problem(stack.settings), is_warning=True)
    if statuses["store"].state == "healthy":
        yield Finding("backup of the databases", backup_problem(stack.settings, system_backup.problem))
        if stack.settings.backup.copy_to:
            yield Finding(
                "copy at a second place", backup_problem(stack.settings, partial(offsite.problem, stack.settings))
            )


def _component_problem(stack: Stack, component: Component, status: Status) -> str:
    if status.state == "healthy":
        return ""
    if status.state == "stopped":
        return preflight.port_problem(component) or ("it is stopped: run `btc up`" if stack.running else "")
    if component.given_by:
        return f"{status.state}: {status.reason}. It is an external server: {component.given_by} names it"
    log = stack.layout.log(component.name)
    lines = "\n".join(f"    {line}" for line in tail(log, LOG_LINES, since_start=True))
    return f"{status.state}: {status.reason}; try `btc restart {component.name}`. The end of {log}:\n{lines}"


def _limits(stack: Stack, questdb: Status) -> Iterator[Finding]:
    """What QuestDB says about the limits of this machine, and how near to them it is."""
    usages = usage_of(questdb.pid)
    used = ", ".join(map(str, usages))
    near = [usage for usage in usages if usage.is_near]
    yield Finding("limits of questdb", f"it uses {used}, and fails when it needs more: {RAISE_LIMITS}" if near else "")
    with QuestDB(stack.settings.questdb) as db:
        advice = "; ".join(db.warnings())
    text = f"QuestDB recommends more than this machine has: {advice}. It uses {used} now. {RAISE_LIMITS}"
    yield Finding("advice of questdb", text if advice else "", is_warning=True)


def _full_soon(metrics_url: str) -> str:
    """Whether the disk is soon full at its present rate; "" also when bronze, which measures it, does not answer."""
    try:
        text = httpx.get(metrics_url, timeout=METRICS_TIMEOUT_S).text
    except httpx.HTTPError:
        return ""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "btc_disk_days_left" and sample.value < MIN_DAYS_LEFT:
                return (
                    f"it is full in {sample.value:.1f} days at the rate of the last day: free some, or keep fewer days "
                    "(BTC_QUESTDB_TTL_BRONZE_DAYS, BTC_QUESTDB_TTL_SILVER_DAYS, BTC_KAFKA_RETENTION_HOURS)"
                )
    return ""


def _problem(check: Callable[[], object]) -> str:
    """The message of the error that a check raises; empty if it raises none."""
    try:
        check()
    except BtcError as error:
        return str(error)
    return ""
