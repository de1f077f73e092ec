"""`btc fault`: injecting faults into the simulated exchange, and listing those injected so far.

What does not belong here: what a fault does (`exchange_simulator.faults`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import httpx
import typer

from btc_cli.options import DataDir, open_stack
from btc_core.clock import from_ns
from btc_core.errors import ExchangeError, InvalidInput
from exchange_simulator.faults.catalogue import described

TIMEOUT_S = 10.0
END = "end"
"""Not a kind of fault: it ends the outages of REST, of subscriptions and of new connections."""
BOOKKEEPING = frozenset({"number", "kind", "at_ns", "ended_ns", "scheduled", "clients"})
"""Fields of a fault that are not arguments of its kind."""


def fault(
    kind: Annotated[
        str,
        typer.Argument(help="Kind of fault, or `end` to end all outages. Without it, the faults so far are listed."),
    ] = "",
    arguments: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Arguments of the fault.")] = None,
    *,
    list_kinds: Annotated[bool, typer.Option("--list", help="List the kinds of faults and their arguments.")] = False,
    url: Annotated[str, typer.Option(help="Address of a simulator. Default: the simulator of the stack.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Make the simulated exchange misbehave: `btc fault stall seconds=5`."""
    if list_kinds:
        for line in described():
            typer.echo(line)
        return
    base = url or _simulator_url(data_dir)
    if kind in {"", END}:
        found = _get(f"{base}/faults/end", {})["ended"] if kind else _get(f"{base}/faults", {})["injected"]
        for injected in found:
            typer.echo(_line(injected))
        return
    typer.echo(_line(_get(f"{base}/faults/inject", {**_parsed(arguments or []), "kind": kind})))


def _parsed(arguments: list[str]) -> dict[str, str]:
    values = {}
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if not sign or not name:
            msg = f"{argument!r} is not of the form NAME=VALUE, for example seconds=5"
            raise InvalidInput(msg)
        values[name] = value
    return values


def _simulator_url(data_dir: Path | None) -> str:
    """The REST address of the stack's simulator; raises `InvalidInput` if the stack follows a live exchange."""
    settings = open_stack(data_dir).settings
    if not settings.simulated:
        msg = "this stack follows a live exchange; only the simulator has faults (`btc up --exchange sim`)"
        raise InvalidInput(msg)
    return settings.exchange.rest_url


def _get(url: str, query: dict[str, str]) -> dict[str, Any]:
    try:
        answer = httpx.get(url, params=query, timeout=TIMEOUT_S)
        body: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        msg = f"no simulator answers at {url}: {error}"
        raise ExchangeError(msg) from error
    if answer.is_error:
        raise InvalidInput(str(body.get("error", body)))
    return body


def _line(injected: dict[str, Any]) -> str:
    """One fault: its number, UTC time, kind and arguments, how many clients it has affected, and whether it is over."""
    arguments = "".join(f" {name}={value}" for name, value in injected.items() if name not in BOOKKEEPING)
    state = "active" if injected["ended_ns"] is None else "over"
    time = from_ns(injected["at_ns"]).strftime("%H:%M:%S")
    return f"{injected['number']:>4}  {time}  {injected['kind']}{arguments}  ({injected['clients']} clients, {state})"
