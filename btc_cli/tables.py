"""`btc migrate`: the tables of an older version brought up to this one.

What does not belong here: how (`btc_core.tables.schema`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
"""Its command appears beside `btc up` and the others."""

DataDir = Annotated[Path | None, typer.Option(help="Directory of the stack; the current one when left out.")]


@app.command()
def migrate(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the statements, and run none.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Bring tables and views up to this version; `btc up` does by itself what loses nothing."""
    from btc_core.errors import SchemaError  # noqa: PLC0415 - the same
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - the same
    from btc_core.tables import schema  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - the same

    with QuestDB(Layout(data_dir or current_data_dir()).settings().questdb) as db:
        planned = schema.plan(db)
        statements = planned.additions + planned.rebuilds
        for statement in statements:
            typer.echo(f"{statement};")
        if planned.refused:
            raise SchemaError("\n".join(planned.refused))
        if not dry_run:
            schema.carry_out(db, statements)
    done = "to run" if dry_run else "run"
    typer.echo(f"catalogue {schema.CATALOGUE_VERSION}: {len(statements)} statements {done}")
