"""`btc restore` and `btc migrate`: bringing days of tables back, and bringing tables up to date.

What does not belong here: copies of days (`btc_core.days.lake`) and the comparison of tables (`btc_core.tables.schema`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli.options import DataDir, PassphraseFile, PortsFrom, open_stack
from btc_cli.restore_all import restore_all
from btc_core.days import lake
from btc_core.days.stored_days import count_rows
from btc_core.errors import InvalidInput, SchemaError
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables import schema
from btc_core.tables.catalogue import STORED
from btc_core.utc_day import days_between

if TYPE_CHECKING:
    from btc_core.tables.form import Table

SHOWN_DAYS = 5
"""Days named in the message about rows that exist already."""


def restore(  # noqa: PLR0913 - every option of the command is an argument
    first: Annotated[str, typer.Option("--from", help="First day (UTC), for example 2026-07-19.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day (UTC), inclusive.")] = "",
    *,
    into_empty: Annotated[
        bool, typer.Option("--into-empty", help="Restore nothing if any of these days has rows in QuestDB.")
    ] = False,
    tables: Annotated[
        list[str] | None, typer.Option(help="Table to restore; may be repeated. Default: all tables.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Rebuild a whole system in an empty data directory from its object store."),
    ] = False,
    from_copy: Annotated[
        str,
        typer.Option("--from-copy", help="With --all: fill the object store from what `btc backup --to` wrote here."),
    ] = "",
    copy_name: Annotated[
        str,
        typer.Option("--copy", help="With --from-copy: an older copy, as 2026-11-29T013000. Default: the newest one."),
    ] = "",
    passphrase_file: PassphraseFile = None,
    first_port: PortsFrom = None,
    data_dir: DataDir = None,
) -> None:
    """Restore days of tables from the object store and verify each against its manifest.

    Rows of these days that only QuestDB has are kept. With --all, the databases of Dagster and MLflow, the settings, the user's
    models and all days that QuestDB keeps are restored into --data-dir, which holds nothing but the files of the object store, or
    nothing at all if --from-copy names a copy.
    """
    if everything:
        if first or last or tables or into_empty or data_dir is None:
            raise InvalidInput("--all restores everything: name --data-dir, and neither days nor tables")
        if passphrase_file and not from_copy:
            raise InvalidInput("--passphrase-file opens the settings of a copy: name the copy with --from-copy")
        if copy_name and not from_copy:
            raise InvalidInput("--copy chooses one of the copies at a place: name the place with --from-copy")
        restore_all(data_dir, first_port, from_copy, passphrase_file, copy_name)
        return
    if from_copy or copy_name or passphrase_file:
        raise InvalidInput("--from-copy, --copy and --passphrase-file belong to --all")
    if not (first and last):
        raise InvalidInput("name the days with --from and --to, or restore a whole system with --all")
    settings = open_stack(data_dir).settings
    chosen = _tables(tables or [])
    days = days_between(first, last)
    rows = 0
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        schema.ensure_tables(db)
        if into_empty:
            _require_empty(db, chosen, days)
        with typer.progressbar(length=len(days) * len(chosen), label="days of tables") as bar:
            for day in days:
                for table in chosen:
                    rows += lake.restore(db, store, table, day)
                    bar.update(1)
    typer.echo(f"{rows} rows restored and verified against their manifests; QuestDB refreshes the views by itself")


def _tables(names: list[str]) -> list[Table]:
    known = {table.name: table for table in STORED}
    unknown = [name for name in names if name not in known]
    if unknown:
        msg = f"--tables: there is no table {', '.join(unknown)}; the tables are {', '.join(known)}"
        raise InvalidInput(msg)
    return [table for table in STORED if not names or table.name in names]


def _require_empty(db: QuestDB, tables: list[Table], days: list[str]) -> None:
    filled = [f"{table.name} of {day}" for table in tables for day in days if count_rows(db, table, day)]
    if filled:
        more = f" and {len(filled) - SHOWN_DAYS} more" if len(filled) > SHOWN_DAYS else ""
        msg = f"--into-empty: QuestDB already has rows in {', '.join(filled[:SHOWN_DAYS])}{more}; nothing was restored"
        raise InvalidInput(msg)


def migrate(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the statements without running them.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Upgrade the tables and views to the version of this program.

    `btc up` makes the changes that lose no data by itself; this command also recomputes views whose query has changed.
    """
    with QuestDB(open_stack(data_dir).settings.questdb) as db:
        plan = schema.plan(db)
        statements = plan.additions + plan.rebuilds
        for statement in statements:
            typer.echo(f"{statement};")
        if plan.refused:
            raise SchemaError("\n".join(plan.refused))
        if not dry_run:
            schema.carry_out(db, statements)
    done = "to run" if dry_run else "run"
    typer.echo(f"catalogue {schema.CATALOGUE_VERSION}: {len(statements)} statements {done}")
