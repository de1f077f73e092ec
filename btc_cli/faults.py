"""`btc fault`: make the simulated exchange misbehave, or see how it does.

What does not belong here: what a fault is (`exchange_simulator/faults.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()
"""Its command appears beside `btc up` and the others."""

TIMEOUT_S = 10.0
DataDir = Annotated[Path | None, typer.Option(help="Directory of the stack; the current one when left out.")]


@app.command()
def fault(
    kind: Annotated[str, typer.Argument(help="What goes wrong; without it, what was injected is shown.")] = "",
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Its arguments.")] = None,
    list_kinds: Annotated[bool, typer.Option("--list", help="Every kind, its arguments and units.")] = False,  # noqa: FBT002 - a flag of a command line
    url: Annotated[str, typer.Option(help="Address of a simulator; that of the stack when left out.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Make the simulated exchange misbehave: `btc fault stall seconds=5`."""
    if list_kinds:
        from exchange_simulator.faults import described  # noqa: PLC0415 - `btc --help` must be quick

        for line in described():
            typer.echo(line)
        return
    base = url or _simulator(data_dir)
    if not kind:
        for row in _get(f"{base}/faults", {})["injected"]:
            typer.echo(_line(row))
        return
    typer.echo(_line(_get(f"{base}/faults/inject", {**_named(arguments or []), "kind": kind})))


def _named(arguments: list[str]) -> dict[str, str]:
    from btc_core.errors import InvalidInput  # noqa: PLC0415 - `btc --help` must be quick

    named = {}
    for text in arguments:
        name, sign, value = text.partition("=")
        if not sign or not name:
            msg = f"{text!r} is no NAME=VALUE, such as seconds=5"
            raise InvalidInput(msg)
        named[name] = value
    return named


def _simulator(data_dir: Path | None) -> str:
    """Where the stack's simulator is; raises `InvalidInput` when it follows the live exchange."""
    from btc_core.errors import InvalidInput  # noqa: PLC0415 - `btc --help` must be quick
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - the same

    settings = Layout(data_dir or current_data_dir()).settings()
    if not settings.simulated:
        msg = "this stack follows the live exchange; faults are for the simulator (`btc up --exchange sim`)"
        raise InvalidInput(msg)
    return settings.exchange.rest_url


def _get(url: str, query: dict[str, str]) -> dict[str, Any]:
    import httpx  # noqa: PLC0415 - `btc --help` must be quick

    from btc_core.errors import ExchangeError, InvalidInput  # noqa: PLC0415 - the same

    try:
        answer = httpx.get(url, params=query, timeout=TIMEOUT_S)
        body: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        msg = f"no simulator answers at {url}: {error}"
        raise ExchangeError(msg) from error
    if answer.is_error:
        raise InvalidInput(str(body.get("error", body)))
    return body


def _line(row: dict[str, Any]) -> str:
    """One fault: number, moment, kind, arguments, how many clients it touched, whether it still acts."""
    from btc_core.clock import from_ns  # noqa: PLC0415 - `btc --help` must be quick

    told = {"number", "kind", "at_ns", "ended_ns", "scheduled", "clients"}
    arguments = "".join(f" {name}={value}" for name, value in row.items() if name not in told)
    state = "acts" if row["ended_ns"] is None else "over"
    moment = from_ns(row["at_ns"]).strftime("%H:%M:%S")
    return f"{row['number']:>4}  {moment}  {row['kind']}{arguments}  ({row['clients']} clients, {state})"
