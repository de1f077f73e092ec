"""`btc up`, `down`, `status`, `logs`, `restart`, `run`, `init`: starting, stopping and looking at a stack.

What does not belong here: how processes are started and stopped (`stack.runtime`).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from btc_cli import first_forecast, screen
from btc_cli.exchange_choice import (
    Exchange,
    check_simulated,
    choose_mode,
    markets_of,
    running_data_dir,
    warn_of_another,
)
from btc_cli.options import DataDir, PortsFrom, open_stack
from btc_core.errors import InvalidInput
from stack import java_caches
from stack import logs as log_files
from stack.layout import MARKETS, default_data_dir, markets_variable
from stack.ports import ports_from
from stack.runtime import Stack

UNHEALTHY_EXIT_CODE = 3
CANNOT_RUN_EXIT_CODE = 127
"""The exit code of a shell for a program that does not exist."""

ExchangeOption = Annotated[
    Exchange,
    typer.Option(
        help="Source of the market data. live: Kraken; sim: the simulator; auto: Kraken, or the simulator if Kraken cannot be reached."
    ),
]
NewDataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data directory, created if it does not exist. Default: $BTC_DATA_DIR, else var/live, var/sim or "
        "a directory of the exchange, such as var/coinbase.",
    ),
]
Component = Annotated[str, typer.Argument(help="Name of a component, as shown by `btc status`.")]


def up(  # noqa: PLR0913 - every option of the command is an argument
    exchange: ExchangeOption = Exchange.AUTO,
    data_dir: NewDataDir = None,
    first_port: PortsFrom = None,
    symbols: Annotated[
        str,
        typer.Option(
            help="Markets to follow, separated by commas. Default for a new directory: BTC/USD, and BTC/USDT on Binance."
        ),
    ] = "",
    markets: Annotated[
        str,
        typer.Option(
            envvar=MARKETS,
            help="Markets of several exchanges, such as kraken:BTC/USD,binance-perp:BTC/USDT. The first exchange is the "
            "home exchange.",
        ),
    ] = "",
    *,
    exchange_args: Annotated[
        str, typer.Option(hidden=True, help="More arguments for the simulator of a new data directory.")
    ] = "",
    only: Annotated[
        str | None, typer.Option(hidden=True, help="Start only these components and those they depend on.")
    ] = None,
) -> None:
    """Start everything and wait until the stack is healthy and serves forecasts.

    Components that are already running are not restarted.
    Without --exchange and --data-dir, the stack that was started last is used if it is still running.
    """
    stack = _create(exchange, data_dir, first_port, exchange_args, markets_of(exchange, symbols, markets))
    warn_of_another(stack.layout.data_dir)
    names = tuple(only.split(",")) if only else None
    stack.up(names, screen.progress, before_the_rest=lambda: _announce(stack, names))
    answer = None if names else first_forecast.ensure_forecasts(stack.settings, screen.say)
    screen.components(stack.status(), stack.settings)
    if answer is not None:
        screen.readiness(answer, stack.settings, first_forecast.serving_cards(stack.settings, answer))
    if names is None and java_caches.make_in_background(stack.layout.log("java-caches")):
        screen.say(
            "QuestDB and Kafka will start faster next time: a cache of their Java classes is being made in the background."
        )


def _announce(stack: Stack, names: tuple[str, ...] | None) -> None:
    if names is None or "api" in names:
        first_forecast.announce_forecasts(stack.settings, screen.say)


def down(data_dir: DataDir = None) -> None:
    """Stop everything and keep the data."""
    stack = open_stack(data_dir)
    if not stack.running:
        screen.say(f"nothing is running in {stack.layout.data_dir}")
    stack.down(report=screen.progress)


def status(
    data_dir: DataDir = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the state, address, process and memory of every component.

    The exit code is 3 if a component is not healthy or the disk is nearly full.
    """
    stack = open_stack(data_dir)
    components = stack.status()
    settings = stack.settings
    disk = stack.disk_problem()
    is_healthy = not disk and all(component.state == "healthy" for component in components)
    if as_json:
        answer = {
            "data_dir": str(stack.layout.data_dir),
            "simulated": settings.simulated,
            "markets": settings.exchange.symbols,
            "healthy": is_healthy,
            "disk": disk,
            "components": [asdict(component) for component in components],
        }
        typer.echo(json.dumps(answer, indent=2))
    else:
        screen.components(components, settings)
        if disk:
            screen.say(f"the disk is nearly full: {disk}")
    if not is_healthy:
        raise typer.Exit(UNHEALTHY_EXIT_CODE)


def logs(
    component: Component,
    data_dir: DataDir = None,
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of lines to show.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing lines as they are added.")] = False,
) -> None:
    """Show the end of a component's log."""
    layout = open_stack(data_dir).layout
    known = sorted(log.stem for log in layout.logs_dir.glob("*.log"))
    if component not in known:
        choice = f"choose one of {', '.join(known)}" if known else "nothing has been started in this stack yet"
        msg = f"there is no log of {component}; {choice}"
        raise InvalidInput(msg)
    log = layout.log(component)
    for line in log_files.tail(log, lines):
        typer.echo(line)
    if follow:
        for text in log_files.follow(log):
            typer.echo(text, nl=False)


def restart(component: Component, data_dir: DataDir = None) -> None:
    """Restart one component and wait until it is healthy."""
    open_stack(data_dir).restart(component, report=screen.progress)


def run(context: typer.Context, data_dir: DataDir = None) -> None:
    """Run a program with the stack's settings in its environment: `btc run dg launch --assets sealed_silver`.

    Programs of the virtual environment of `btc` are found first.
    """
    if not context.args:
        raise typer.BadParameter("name a program, as in `btc run dagster asset list -m btc_assets.definitions`")
    layout = open_stack(data_dir).layout
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, **layout.environment(), "PATH": path}
    try:
        os.execvpe(context.args[0], context.args, environment)  # noqa: S606 - running the user's program is the purpose
    except OSError as error:
        typer.echo(f"btc: {context.args[0]}: {error.strerror}", err=True)
        raise typer.Exit(CANNOT_RUN_EXIT_CODE) from None


def init(exchange: ExchangeOption = Exchange.AUTO, data_dir: NewDataDir = None, first_port: PortsFrom = None) -> None:
    """Create a data directory with settings and new secrets, and start nothing."""
    layout = _create(exchange, data_dir, first_port).layout
    typer.echo(f"settings and secrets: {layout.env_file}")
    typer.echo(f"start it with `btc up --data-dir {layout.data_dir}`")


def _create(
    exchange: Exchange,
    data_dir: Path | None,
    first_port: int | None,
    exchange_args: str = "",
    markets: tuple[str, ...] = (),
) -> Stack:
    """The stack that the options describe; its data directory is created if it is missing."""
    if exchange is Exchange.AUTO and data_dir is None:
        data_dir = running_data_dir()
    with_exchanges = markets if markets_variable(markets) == MARKETS else ()
    mode = choose_mode(exchange, data_dir, with_exchanges)
    check_simulated(mode, markets)
    home = with_exchanges[0].partition(":")[0] if with_exchanges else exchange.adapter
    own_directory = home if home != "kraken" and mode == "live" else ""
    stack = Stack(data_dir or default_data_dir(own_directory or mode))
    ports = None if first_port is None else ports_from(first_port)
    stack.create(mode, ports, tuple(shlex.split(exchange_args)), markets, exchange.adapter)
    return stack
