"""New secrets for a running stack: `btc rotate-secrets`. No message is lost, and the old secrets are refused afterwards.

```
rotate(Stack(Path("var/live")), ("valkey", "questdb"), screen.progress)
```

A server that can have two credentials at a time accepts the new ones beside the old ones first, then every process that uses them
is restarted, one after the other, and then the server refuses the old ones. What does not belong here: how a server takes
credentials (`stack/servers`), and external servers, whose secrets are changed in them.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2

from btc_core.errors import BtcError, InvalidInput, ServiceError, StackError
from btc_core.waiting import wait_until
from stack.layout import new_secret
from stack.postgres_connection import connect, explain
from stack.servers.dagster import COMPONENT_NAMES as DAGSTER_COMPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stack.runtime import Report, Stack

VARIABLES = {
    "kafka": ("BTC_KAFKA_USER", "BTC_KAFKA_PASSWORD"),
    "valkey": ("BTC_REDIS_PASSWORD",),
    "store": ("BTC_STORE_ACCESS_KEY", "BTC_STORE_SECRET_KEY"),
    "postgres": ("BTC_POSTGRES_PASSWORD",),
    "questdb": ("BTC_QUESTDB_PASSWORD", "BTC_QUESTDB_READER_PASSWORD"),
    "api": ("BTC_API_TOKEN",),
}
"""What is rotated, and its variables. A user of Kafka and an access key of the store have one secret each, so they change, too."""
OVERLAPPING = ("kafka", "valkey", "store")
"""The servers that accept the old and the new credentials at the same time."""
CLIENTS = {
    "bronze": {"kafka", "questdb"},
    "features": {"kafka", "questdb", "valkey"},
    "features_2": {"kafka", "questdb", "valkey"},
    "forecast": {"kafka", "questdb", "valkey", "store"},
    "league": {"kafka", "questdb", "valkey", "store"},
    "repair": {"kafka"},
    "ingest": {"kafka"},
    "api": {"kafka", "questdb", "valkey", "store", "postgres"},
    "mlflow": {"postgres", "store"},
    "dagster-code": {"kafka", "questdb", "valkey", "store", "postgres"},
    "dagster-web": {"postgres"},
    "dagster-daemon": {"postgres"},
}
"""The components that read a secret when they start, in the order in which they are restarted, and whose secrets they are."""
DAEMON = DAGSTER_COMPONENTS[-1]
RUNS = "SELECT count(*) FROM runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING')"
RUNS_PATIENCE_S = 900.0
"""How long a rotation waits for the runs of Dagster that have begun. A training takes a minute, the sealing of a day some minutes."""
RUNS_POLL_S = 2.0


def rotate(stack: Stack, names: tuple[str, ...], report: Report = lambda _name, _what: None) -> tuple[str, ...]:
    """Give each of the named servers new secrets, or every one of the stack when `names` is empty; returns which.

    External servers are left out of "every one", which is reported. A rotation that was interrupted is brought to its end first.
    Raises `InvalidInput` for an unknown name, and `StackError` for a secret that this stack does not keep in its `stack.env`, or
    while the stack or one of these servers is down.
    """
    with stack.rotating():
        chosen = _chosen(stack, names, report)
        second = stack.layout.second_secrets()
        unfinished = {name for name, variables in VARIABLES.items() if second.keys() & set(variables)}
        if "postgres" in unfinished:
            stack.take_secrets("postgres", report)
        with _no_runs(stack, unfinished | set(chosen), report):
            if unfinished:
                report("stack.env", f"an earlier rotation is finished first: {', '.join(sorted(unfinished))}")
                _finish(stack, unfinished, report)
            _begin(stack, chosen, report)
            _finish(stack, chosen, report)
    return chosen


def _chosen(stack: Stack, names: tuple[str, ...], report: Report) -> tuple[str, ...]:
    unknown = [name for name in names if name not in VARIABLES]
    if unknown:
        msg = f"there is no secret of {', '.join(unknown)}; there are those of {', '.join(VARIABLES)}"
        raise InvalidInput(msg)
    if not stack.running:
        msg = f"the stack in {stack.layout.data_dir} is down; start it with `btc up`, because its servers have to change their passwords"
        raise StackError(msg)
    chosen = []
    for name in names or VARIABLES:
        if foreign := _not_of_this_stack(stack, name):
            if names:
                raise StackError(f"{name}: {foreign}")
            report(name, f"is left out: {foreign}")
        else:
            chosen.append(name)
    found = [f"{name}: {obstacle}" for name in chosen if (obstacle := _obstacle(stack, name))]
    if found:
        raise StackError("no secret was changed\n" + "\n".join(found))
    return tuple(chosen)


def _not_of_this_stack(stack: Stack, name: str) -> str:
    """Why a server has no secret that this stack has made; "" if it has one."""
    component = stack.components()[name]
    if component.given_by:
        return f"it is an external server at {component.url}; docs/how-to/rotate-secrets.md has the steps for these"
    if name == "kafka" and not stack.settings.kafka.authenticated:
        return "it has no password; docs/how-to/managed-services.md says how to give it one"
    return ""


def _obstacle(stack: Stack, name: str) -> str:
    """Why the secrets of a server cannot be rotated now; "" if they can."""
    if not next(each.pid for each in stack.status((name,))):
        return f"it is down; start it with `btc up`, or look at `btc logs {name}`"
    values = stack.layout.values()
    for variable in VARIABLES[name]:
        if os.environ.get(variable):
            return f"{variable} is set in the environment, which wins over {stack.layout.env_file}; unset it"
        if values.get(f"{variable}_FILE"):
            return f"{variable}_FILE is set in {stack.layout.env_file}; change the file that it names, and restart the processes"
    return ""


def _begin(stack: Stack, names: Iterable[str], report: Report) -> None:
    """Write new secrets and make the servers accept them, beside the old ones where they can."""
    layout = stack.layout
    values, overlapping = layout.values(), [name for name in names if name in OVERLAPPING]
    new = {
        variable: _new_value(variable)
        for name in names
        for variable in VARIABLES[name]
        if variable != "BTC_QUESTDB_READER_PASSWORD" or values.get(variable)
    }
    both = {variable: new[variable] for name in overlapping for variable in VARIABLES[name]}
    layout.change_secrets({}, both)
    _take(stack, overlapping, report)
    kept = [*both, *(VARIABLES["postgres"] if "postgres" in names else ())]
    layout.change_secrets(new, {variable: values.get(variable, "") for variable in kept})
    _take(stack, [name for name in names if name in {"postgres", "questdb"}], report)


def _finish(stack: Stack, names: Iterable[str], report: Report) -> None:
    """Restart everything that uses the secrets of these servers, and make the servers refuse the old ones."""
    changed = set(names)
    for name, uses in CLIENTS.items():
        if uses & changed and name != DAEMON and _runs(stack, name):
            stack.restart(name, report)
    stack.layout.change_secrets({}, {})
    _take(stack, [name for name in OVERLAPPING if name in changed], report)


def _take(stack: Stack, names: Iterable[str], report: Report) -> None:
    for name in names:
        stack.take_secrets(name, report)


def _runs(stack: Stack, name: str) -> bool:
    return name in stack.components() and bool(next(each.pid for each in stack.status((name,))))


def _new_value(variable: str) -> str:
    """A random secret, or a new name for the user or access key that it belongs to; letters and digits only."""
    return f"btc{secrets.token_hex(4)}" if variable.endswith(("_USER", "_ACCESS_KEY")) else new_secret()


@contextmanager
def _no_runs(stack: Stack, names: Iterable[str], report: Report) -> Iterator[None]:
    """Let Dagster start no run in the block, and begin it once the runs that have begun are over."""
    restarted = [name for name in DAGSTER_COMPONENTS if CLIENTS[name] & set(names) and _runs(stack, name)]
    if not restarted:
        yield
        return
    stack.stop_component(DAEMON)
    try:
        report(DAEMON, "is stopped meanwhile; waiting for the runs that have begun")
        _wait_for_runs(stack)
        yield
    except BaseException:
        try:
            stack.restart(DAEMON, report)
        except BtcError as error:  # the first error is the one to read
            report(DAEMON, f"did not start again: {error}")
        raise
    stack.restart(DAEMON, report)


def _wait_for_runs(stack: Stack) -> None:
    """Return when no run of Dagster is in progress; raises `StackError` after `RUNS_PATIENCE_S`."""
    postgres = stack.settings.postgres

    def is_idle() -> bool:
        try:
            with connect(postgres, postgres.dagster_db) as connection, connection.cursor() as cursor:
                cursor.execute(RUNS)
                return not (cursor.fetchone() or (0,))[0]
        except psycopg2.Error as error:
            raise ServiceError(explain(postgres, error)) from error

    if not wait_until(is_idle, RUNS_PATIENCE_S, RUNS_POLL_S):
        msg = (
            f"runs of Dagster are still in progress after {RUNS_PATIENCE_S:g} s, and no secret was changed: wait for them, or "
            f"cancel them at {stack.settings.dagster.url}"
        )
        raise StackError(msg)
