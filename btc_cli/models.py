"""`btc models`, `btc promote` and `btc rollback`: the model registry, and moving the champion alias by hand.

What does not belong here: the user's own models (`league`), moving the alias (`btc_core.registry.promotion`), and the gates that usually decide it.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.padding import Padding

from btc_cli.league import league_lines
from btc_cli.options import DataDir, open_stack
from btc_core.errors import InvalidInput
from btc_core.models.gate import MAY_SERVE
from btc_core.names import BASELINE_KINDS, BID_MODEL, VOLATILITY_MODEL
from btc_core.registry import promotion
from btc_core.registry.keys import key_of_name, model_keys

SHOWN_VERSIONS = 10
"""Newest versions of each model that are listed without `--all`."""

Model = Annotated[
    str,
    typer.Argument(
        help=f"{BID_MODEL} or {VOLATILITY_MODEL}; for another market than BTC/USD with its name, as {VOLATILITY_MODEL}-ETHUSD."
    ),
]
Reason = Annotated[
    str, typer.Option(help="Reason for the change; it is stored with the version. Asked for if it is left out.")
]


def models(
    context: typer.Context,
    data_dir: DataDir = None,
    *,
    symbol: Annotated[str, typer.Option(help="List the models of this market only, such as ETH/USD.")] = "",
    show_all: Annotated[
        bool, typer.Option("--all", help=f"List all versions, not only the newest {SHOWN_VERSIONS} of each model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the registered models of each market with their aliases, gate results and promotions, and the league.

    Versions with an alias are always listed.
    """
    if context.invoked_subcommand is not None:
        return
    settings = open_stack(data_dir).settings
    followed = settings.exchange.symbols
    if symbol and symbol not in followed:
        msg = f"{symbol} is not followed; this system follows {', '.join(followed)}"
        raise InvalidInput(msg)
    keys = model_keys((symbol,) if symbol else followed)
    versions = [each for key in keys for each in promotion.versions(settings, key)]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(versions), indent=2).decode())
        return
    if not versions:
        typer.echo("no model is registered yet; train some with POST /retrain or the Dagster job train_models")
    console = Console(highlight=False)
    _print_versions(console, versions, show_all=show_all)
    for line in league_lines(settings):
        console.print(line)


def _print_versions(console: Console, versions: list[promotion.RegisteredVersion], *, show_all: bool) -> None:
    counted: Counter[str] = Counter()
    market = ""
    for each in versions:
        if each.symbol != market:
            market = each.symbol
            console.print(f"[bold underline]{market}[/]")
        counted[each.name] += 1
        if show_all or counted[each.name] <= SHOWN_VERSIONS or each.aliases:
            kind = f"{each.kind} ({each.fit} fit)" if each.fit else each.kind
            details = f"{kind}, created {each.created[:16]}, {_gate_words(each)}"
            console.print(f"[bold]{each.name} {each.version}[/] [green]{', '.join(each.aliases)}[/]  {details}")
            console.print(Padding(each.reason or each.gate_reason, (0, 0, 0, 4)))
            if each.shadow:
                console.print(Padding(each.shadow, (0, 0, 0, 4)))
            if each.inputs:
                console.print(Padding(each.inputs, (0, 0, 0, 4)))
            if each.pretrained:
                console.print(Padding(each.pretrained, (0, 0, 0, 4)))


def _gate_words(version: promotion.RegisteredVersion) -> str:
    """What the gate decided. Versions from before the result `baseline` say `passed` of a baseline, too."""
    if version.gate_result in MAY_SERVE and version.kind in BASELINE_KINDS:
        return "gate: no model passed, so the baseline serves"
    return f"gate: {version.gate_result}"


def promote(
    model: Model,
    version: Annotated[str, typer.Argument(help="Version number, as shown by `btc models`.")],
    reason: Reason = "",
    data_dir: DataDir = None,
) -> None:
    """Make a model version the champion; forecasts and the API use it within seconds."""
    settings = open_stack(data_dir).settings
    key = key_of_name(model, settings.exchange.symbols)
    promotion.promote(settings, key, version, reason or typer.prompt("Reason"))
    typer.echo(f"version {version} is now the champion of {model}")


def rollback(model: Model, reason: Reason = "", data_dir: DataDir = None) -> None:
    """Make the previous champion the champion again."""
    settings = open_stack(data_dir).settings
    key = key_of_name(model, settings.exchange.symbols)
    version = promotion.rollback(settings, key, reason or typer.prompt("Reason"))
    typer.echo(f"version {version} is the champion of {model} again")
