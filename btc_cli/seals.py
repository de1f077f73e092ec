"""`btc seals` and `btc undo-seal`: the rows that sealing a day has replaced.

What does not belong here: storing and reading those rows (`btc_core.days.replaced`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from btc_cli.options import DataDir, open_stack
from btc_core.clock import from_ns
from btc_core.days.replaced import replaced_rows, undo
from btc_core.days.seals import seal_of
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore

Day = Annotated[str, typer.Argument(help="UTC day, YYYY-MM-DD.")]
GOLD_ASSETS = ("gold_1min_sealed", "gold_5min_sealed", "sealed_bars", "day_backup")
"""The assets that are made from the rows of a day."""


def seals(day: Day, data_dir: DataDir = None) -> None:
    """List the rows that sealing a day has replaced, by seal, newest first."""
    settings = open_stack(data_dir).settings
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        typer.echo(f"{day}: the seal of its present rows is {seal_of(db, day).id}")
        found = replaced_rows(store, day)
    for each in found:
        when = f"{from_ns(each.replaced_at_ns):%Y-%m-%d %H:%M:%S}"
        typer.echo(f"{each.seal}  {when} UTC  {each.rows} rows of {each.table} replaced")
    if not found:
        typer.echo("no seal of this day has replaced a row")


def undo_seal(
    day: Day, seal: Annotated[str, typer.Argument(help="The seal, as `btc seals` lists it.")], data_dir: DataDir = None
) -> None:
    """Write back the rows that a seal of a day has replaced.

    Rows that the seal added stay. Sealing the day again may replace the same rows again.
    """
    settings = open_stack(data_dir).settings
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        rows = undo(db, store, day, seal)
    options = " ".join(f"--assets {name}" for name in GOLD_ASSETS)
    typer.echo(f"{rows} rows of {day} written back. Compute its bars and its copy again with:")
    typer.echo(f"btc backfill --from {day} --to {day} {options}")
