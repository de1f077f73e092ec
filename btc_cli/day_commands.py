"""`btc backfill`, `btc restore`, `btc import-trades`: days of tables, worked off, brought back or added.

What does not belong here: doing it (`btc_cli/backfill.py`, `btc_core.days.lake`, `btc_core.days.trade_import`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
"""Its commands appear beside `btc up` and the others."""
IMPORT_ROWS = 200_000
"""Trades written at a time: a few seconds, so that an interrupted import has kept most of its work."""

DataDir = Annotated[Path | None, typer.Option(help="Directory of the stack; the current one when left out.")]
First = Annotated[str, typer.Option("--from", help="First day, as 2026-07-19.")]
Last = Annotated[str, typer.Option("--to", help="Last day, it included.")]


@app.command()
def backfill(  # noqa: PLR0913 - options of a command
    first: First,
    last: Last,
    assets: Annotated[
        list[str] | None, typer.Option(help="Only these; again for each. Default: all that sealing a day means.")
    ] = None,
    *,
    processes: Annotated[
        int, typer.Option(min=1, help="Days at the same time, without the daemon; a core and some 500 MB each.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be started, and start nothing.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Seal and prove days again, or fetch them (--assets bronze_history); as often as you like."""
    from btc_cli import backfill as work  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from btc_cli import screen  # noqa: PLC0415 - the same
    from stack.layout import current_data_dir  # noqa: PLC0415 - the same
    from stack.runtime import Stack  # noqa: PLC0415 - the same

    stack = Stack(data_dir or current_data_dir())
    layout = stack.layout
    plan = work.plan(layout, first, last, tuple(assets or ()), processes)
    typer.echo(plan.words())
    if dry_run:
        return
    stack.extend_days_back_to(plan.days[0], screen.progress)
    with typer.progressbar(length=len(plan.days) * len(plan.assets), label="partitions") as bar:
        work.carry_out(layout, plan, bar.update)
    typer.echo("done; the Dagster UI shows each day's rows and checks")


@app.command()
def restore(
    first: First,
    last: Last,
    *,
    into_empty: Annotated[
        bool, typer.Option("--into-empty", help="Refuse a day of a table that has rows already.")
    ] = False,
    tables: Annotated[list[str] | None, typer.Option(help="Only these; again for each.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Bring days of tables back from the object store, each proven against its manifest."""
    from btc_core.days import lake  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from btc_core.days.stored_days import count_rows  # noqa: PLC0415 - the same
    from btc_core.errors import InvalidInput  # noqa: PLC0415 - the same
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - the same
    from btc_core.stores.s3 import ObjectStore  # noqa: PLC0415 - the same
    from btc_core.tables.catalogue import STORED  # noqa: PLC0415 - the same
    from btc_core.tables.schema import ensure_tables  # noqa: PLC0415 - the same
    from btc_core.utc_day import days_between  # noqa: PLC0415 - the same
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - the same

    settings = Layout(data_dir or current_data_dir()).settings()
    chosen = [table for table in STORED if not tables or table.name in tables]
    if len(chosen) < len(tables or ()):
        msg = f"--tables: the tables are {', '.join(table.name for table in STORED)}"
        raise InvalidInput(msg)
    days = days_between(first, last)
    total = 0
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        ensure_tables(db)
        if into_empty:
            full = [f"{t.name} of {day}" for t in chosen for day in days if count_rows(db, t, day)]
            if full:
                msg = f"--into-empty: there are rows of {', '.join(full[:5])}{' …' if len(full) > 5 else ''}"
                raise InvalidInput(msg)
        with typer.progressbar(length=len(days) * len(chosen), label="days of tables") as bar:
            for day in days:
                for table in chosen:
                    total += lake.restore(db, store, table, day)
                    bar.update(1)
    typer.echo(f"{total} rows are back and equal their manifests; the views refresh by themselves")


@app.command("import-trades")
def import_trades(
    file: Annotated[
        Path, typer.Argument(help="Kraken's CSV of trades (time,price,volume), or columns by name; Parquet.")
    ],
    symbol: Annotated[str, typer.Option(help="Market the trades belong to.")] = "BTC/USD",
    data_dir: DataDir = None,
) -> None:
    """Import trades and their minute bars; what the stream or an earlier import has brought stays as it is."""
    from btc_cli import screen  # noqa: PLC0415 - the same
    from btc_core.days.trade_import import put, put_bars, read_trades  # noqa: PLC0415 - the same
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - the same
    from btc_core.utc_day import day_of  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from stack.layout import current_data_dir  # noqa: PLC0415 - the same
    from stack.runtime import Stack  # noqa: PLC0415 - the same

    stack = Stack(data_dir or current_data_dir())
    settings = stack.settings
    trades = read_trades(file)
    written = 0
    with QuestDB(settings.questdb) as db, typer.progressbar(length=len(trades), label=file.name) as bar:
        for start in range(0, len(trades), IMPORT_ROWS):
            chunk = trades[start : start + IMPORT_ROWS]
            written += put(db, symbol, chunk, "file")
            bar.update(len(chunk))
        bars = put_bars(db, symbol, trades)
    typer.echo(f"{written} of {len(trades)} trades and {bars} minute bars of {symbol} are new")
    if len(trades):
        first, last = (day_of(int(trades["ts_ns"][place])) for place in (0, -1))
        stack.extend_days_back_to(first, screen.progress)
        typer.echo(f"prove the days and keep their gold: btc backfill --from {first} --to {last}")
