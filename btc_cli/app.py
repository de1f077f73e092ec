"""The command `btc`: start, stop and look at a stack.

Imports are inside the commands, so that `btc --help` answers at once. Commands on data files are in
`btc_cli/recordings.py`. What does not belong here: doing any of it.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli import day_commands, deadletter_commands, evaluate, faults, models, recordings, tables
from btc_core.errors import BtcError

if TYPE_CHECKING:
    from stack.layout import Mode
    from stack.runtime import Stack

app = typer.Typer(
    help="A live BTC/USD pipeline: its servers, workers, models and API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for panel, part in (
    ("Data", recordings),
    ("Data", day_commands),
    ("Data", tables),
    ("Models", models),
    ("Models", evaluate),
    ("What can go wrong", deadletter_commands),
    ("What can go wrong", faults),
):
    for command in part.app.registered_commands:
        command.rich_help_panel = panel
    app.add_typer(part.app)


class Exchange(StrEnum):
    """Which market is followed."""

    AUTO = "auto"
    LIVE = "live"
    SIM = "sim"
    COINBASE = "coinbase"


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The stack's directory. Default: var/live, var/sim, or the last one started."),
]
ExchangeOption = Annotated[
    Exchange, typer.Option(help="auto: Kraken live, or the simulator when it cannot be reached.")
]
PortsFrom = Annotated[int | None, typer.Option(help="Give every server a port from this number on.")]
Name = Annotated[str, typer.Argument(help="A component, as `btc status` names it.")]


@app.command()
def up(  # noqa: PLR0913, PLR0917 - the options of a command
    exchange: ExchangeOption = Exchange.AUTO,
    data_dir: DataDir = None,
    ports_from: PortsFrom = None,
    symbols: Annotated[str, typer.Option(help="Markets to follow, with commas; BTC/USD when left out.")] = "",
    exchange_args: Annotated[
        str, typer.Option(hidden=True, help="More arguments of the simulator, for a new one.")
    ] = "",
    only: Annotated[str | None, typer.Option(hidden=True, help="Components, with commas; with what they need.")] = None,
) -> None:
    """Start everything and return when it is healthy and forecasts are served."""
    from btc_cli import screen  # noqa: PLC0415

    stack = _create(exchange, data_dir, ports_from, exchange_args, symbols)
    names = tuple(only.split(",")) if only else None
    stack.up(names, report=screen.progress)
    answer = None if names else _first_forecast(stack)
    screen.components(stack.status(), stack.settings)
    if answer is not None:
        screen.readiness(answer, stack.settings)


@app.command()
def down(data_dir: DataDir = None) -> None:
    """Stop everything; the data stays."""
    from btc_cli import screen  # noqa: PLC0415

    stack = _open(data_dir)
    if not stack.running:
        screen.say(f"nothing is running in {stack.layout.data_dir}")
    stack.down(report=screen.progress)


@app.command()
def status(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002 - a flag of a command line
) -> None:
    """Show every component: state, address, process and memory. Exit code 3 when one is not healthy."""
    from btc_cli import screen  # noqa: PLC0415

    stack = _open(data_dir)
    found = stack.status()
    settings = stack.settings
    if as_json:
        import json  # noqa: PLC0415
        from dataclasses import asdict  # noqa: PLC0415

        answer = {
            "data_dir": str(stack.layout.data_dir),
            "simulated": settings.simulated,
            "healthy": all(each.state == "healthy" for each in found),
            "components": [asdict(each) for each in found],
        }
        typer.echo(json.dumps(answer, indent=2))
    else:
        screen.components(found, settings)
    if any(each.state != "healthy" for each in found):
        raise typer.Exit(3)


@app.command()
def logs(
    name: Name,
    data_dir: DataDir = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,  # noqa: FBT002
) -> None:
    """Show the log of a component."""
    from stack.files import follow as follow_file  # noqa: PLC0415
    from stack.files import tail  # noqa: PLC0415

    stack = _open(data_dir)
    path = stack.layout.log(name)
    known = sorted(log.stem for log in stack.layout.logs_dir.glob("*.log"))
    if name not in known:
        from btc_core.errors import InvalidInput  # noqa: PLC0415

        msg = f"there is no log of {name}; there are {', '.join(known) or 'none yet'}"
        raise InvalidInput(msg)
    for line in tail(path, lines):
        typer.echo(line)
    if follow:
        for text in follow_file(path):
            typer.echo(text, nl=False)


@app.command()
def restart(name: Name, data_dir: DataDir = None) -> None:
    """Stop a component and start it again; returns when it is healthy."""
    from btc_cli import screen  # noqa: PLC0415

    _open(data_dir).restart(name, report=screen.progress)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(context: typer.Context, data_dir: DataDir = None) -> None:
    """Run a command that finds the stack by its environment: `btc run dg launch --assets sealed_silver …`."""
    if not context.args:
        raise typer.BadParameter("name a command, as in `btc run dagster asset list -m btc_assets.definitions`")
    layout = _open(data_dir).layout
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, **layout.environment(), "PATH": beside}
    try:
        os.execvpe(context.args[0], context.args, environment)  # noqa: S606 - what the user typed
    except OSError as error:
        typer.echo(f"btc: {context.args[0]}: {error.strerror}", err=True)
        raise typer.Exit(127) from None


@app.command()
def init(exchange: ExchangeOption = Exchange.AUTO, data_dir: DataDir = None, ports_from: PortsFrom = None) -> None:
    """Make a data directory with its settings and new random secrets, and start nothing."""
    stack = _create(exchange, data_dir, ports_from)
    typer.echo(f"{stack.layout.env_file} holds the settings and secrets")
    typer.echo(f"`btc up --data-dir {stack.layout.data_dir}` starts it")


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Look for everything that can be wrong, and say the fix. Exit code 1 when something is."""
    from itertools import chain  # noqa: PLC0415

    from btc_cli import doctor as look  # noqa: PLC0415
    from stack.layout import current_data_dir, default_data_dir  # noqa: PLC0415
    from stack.runtime import Stack  # noqa: PLC0415

    try:
        stack = Stack(data_dir or current_data_dir())
    except BtcError:
        stack = Stack(default_data_dir("live"))
    ill = False
    for finding in chain(look.machine(stack), look.parts(stack) if stack.layout.exists else ()):
        typer.echo(f"  no  {finding.what}: {finding.problem}" if finding.problem else f"  ok  {finding.what}")
        ill = ill or bool(finding.problem)
    if not stack.layout.exists:
        typer.echo(f"there is no stack in {stack.layout.data_dir} yet; `btc up` makes one")
    if ill:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 1."""
    try:
        app()
    except BtcError as error:
        sys.stderr.write(f"btc: {error}\n")
        sys.exit(1)


def _open(data_dir: Path | None) -> Stack:
    from btc_core.errors import StackError  # noqa: PLC0415
    from stack.layout import current_data_dir  # noqa: PLC0415
    from stack.runtime import Stack  # noqa: PLC0415

    stack = Stack(data_dir or current_data_dir())
    if not stack.layout.exists:
        msg = f"there is no stack in {stack.layout.data_dir}; start one with `btc up`"
        raise StackError(msg)
    return stack


def _create(
    exchange: Exchange, data_dir: Path | None, ports_from: int | None, exchange_args: str = "", symbols: str = ""
) -> Stack:
    import shlex  # noqa: PLC0415

    from stack import layout  # noqa: PLC0415
    from stack.runtime import Stack  # noqa: PLC0415

    if exchange is Exchange.AUTO and data_dir is None:
        data_dir = _running()
    mode = _mode(exchange, data_dir)
    other = "" if exchange in {Exchange.AUTO, Exchange.LIVE, Exchange.SIM} else exchange.value
    stack = Stack(data_dir or layout.default_data_dir(other or mode))
    ports = None if ports_from is None else layout.ports_from(ports_from)
    named = tuple(symbol.strip() for symbol in symbols.split(",") if symbol.strip())
    stack.create(mode, ports, tuple(shlex.split(exchange_args)), named, other)
    return stack


def _running() -> Path | None:
    """The directory of the stack that was started last, if it runs: `auto` goes on with it."""
    from btc_core.errors import StackError  # noqa: PLC0415

    try:
        current = _open(None)
    except StackError:
        return None
    return current.layout.data_dir if current.running else None


def _mode(exchange: Exchange, data_dir: Path | None) -> Mode:
    """What `auto` means here: what the named directory holds, else live when it answers, else the simulator."""
    if exchange is not Exchange.AUTO:
        return "sim" if exchange is Exchange.SIM else "live"
    from btc_cli import screen  # noqa: PLC0415
    from btc_cli.exchange_choice import why_unreachable  # noqa: PLC0415
    from btc_core.settings import load_settings  # noqa: PLC0415
    from stack.layout import Layout, default_data_dir  # noqa: PLC0415

    named = data_dir or default_data_dir("sim")
    if (data_dir or named != Path("var") / "sim") and Layout(named).exists:
        return "sim" if Layout(named).settings().simulated else "live"
    why = why_unreachable(load_settings().exchange)
    if not why:
        return "live"
    screen.loud(
        f"The live exchange cannot be reached: {why}.\n"
        "This starts on the SIMULATOR: a generated market, real servers, in a data directory of its own.\n"
        "`btc up --exchange live` insists on the exchange."
    )
    return "sim"


def _first_forecast(stack: Stack) -> dict[str, object]:
    from btc_cli import first_forecast, screen  # noqa: PLC0415

    settings = stack.settings
    missing = first_forecast.missing_champions(settings)
    if missing:
        screen.say(f"no champion yet of {', '.join(missing)}, or of other features than these")
        ended = first_forecast.train(settings, screen.say)
        if ended != "SUCCESS":
            screen.say(f"the first training ended as {ended}; the link above says why. The API serves its baseline.")
            return first_forecast.wait_ready(settings)
        if not settings.exchange.history_url:
            screen.say(first_forecast.fetch_history(settings))
    return first_forecast.wait_ready(settings, trained=True)


if __name__ == "__main__":
    main()
