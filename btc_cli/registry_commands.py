"""`btc models`, `btc promote`, `btc rollback`: what is registered, and moving the champion's title by hand.

What does not belong here: moving it (`btc_core.registry.promotion`); the gates do that by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from btc_core.settings import Settings

app = typer.Typer()
"""Its commands appear beside `btc up` and the others."""

DataDir = Annotated[Path | None, typer.Option(help="Directory of the stack; the current one when left out.")]
Name = Annotated[str, typer.Argument(help="bid-price-model or volatility-model.")]
Reason = Annotated[str, typer.Option(prompt=True, help="Why; it is kept with the version.")]
SHOWN = 10


@app.command()
def models(
    data_dir: DataDir = None,
    every: Annotated[bool, typer.Option("--all", help=f"Not only the newest {SHOWN}.")] = False,  # noqa: FBT002 - a flag
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002 - the same
) -> None:
    """List registered models: versions, titles, what their gate said, and why they were moved."""
    import msgspec  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from rich.console import Console  # noqa: PLC0415 - the same
    from rich.padding import Padding  # noqa: PLC0415 - the same

    from btc_core.registry import promotion  # noqa: PLC0415 - the same
    from btc_core.registry.keys import model_keys  # noqa: PLC0415 - the same

    settings = _settings(data_dir)
    keys = model_keys(settings.exchange.modelled_symbols)
    listed = [each for key in keys for each in promotion.versions(settings, key)]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode())
        return
    if not listed:
        typer.echo("no model is registered yet; POST /retrain or the Dagster job train_models")
    console = Console(highlight=False)
    seen: dict[str, int] = {}
    for each in listed:
        seen[each.name] = seen.get(each.name, 0) + 1
        if every or seen[each.name] <= SHOWN or each.aliases:
            made = f"{each.kind}, made {each.created[:16]}, gate {each.gate_result}"
            console.print(f"[bold]{each.name} {each.version}[/] [green]{', '.join(each.aliases)}[/]  {made}")
            console.print(Padding(each.reason or each.gate_reason, (0, 0, 0, 4)))


@app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="As `btc models` shows it.")],
    reason: Reason,
    data_dir: DataDir = None,
) -> None:
    """Make a version champion; forecasts and the API switch within seconds, without a restart."""
    from btc_core.registry import promotion  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from btc_core.registry.keys import key_of_name  # noqa: PLC0415 - the same

    settings = _settings(data_dir)
    key = key_of_name(name, settings.exchange.modelled_symbols)
    promotion.promote(settings, key, version, reason)
    typer.echo(f"version {version} is champion of {name}")


@app.command()
def rollback(name: Name, reason: Reason, data_dir: DataDir = None) -> None:
    """Give the title back to the champion before."""
    from btc_core.registry import promotion  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from btc_core.registry.keys import key_of_name  # noqa: PLC0415 - the same

    settings = _settings(data_dir)
    key = key_of_name(name, settings.exchange.modelled_symbols)
    version = promotion.rollback(settings, key, reason)
    typer.echo(f"version {version} is champion of {name} again")


def _settings(data_dir: Path | None) -> Settings:
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - heavy, and `btc --help` must be quick

    return Layout(data_dir or current_data_dir()).settings()
