"""`btc import-bars` and `btc import-trades`: market history from files; `btc imports` and `btc undo-import`.

What does not belong here: reading the files, storing their rows and removing them (`btc_core.days`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli import screen
from btc_cli.options import DataDir, open_stack
from btc_core.clock import from_ns
from btc_core.days import bar_import, trade_import
from btc_core.days.bar_files import read_bar_file
from btc_core.days.file_names import market_of
from btc_core.days.import_log import all_imports, begin_import, import_of, set_state
from btc_core.days.kept_copies import check_in_questdb
from btc_core.days.trade_bars import make_bars
from btc_core.days.trade_files import read_trade_file
from btc_core.days.undo_import import undo_import as undo
from btc_core.errors import InvalidInput
from btc_core.exchange_settings import PUBLIC_URLS
from btc_core.names import exchange_in, pair_of
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import BRONZE_TRADES, MINUTE_BARS
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_of

if TYPE_CHECKING:
    from btc_core.days.bad_rows import BadRows
    from btc_core.days.bar_files import BarFile
    from btc_core.days.bar_import import BarPlan
    from btc_core.days.trade_bars import BarChanges
    from btc_core.days.trade_files import TradeFile
    from btc_core.days.trade_import import TradePlan

Symbol = Annotated[str, typer.Option(help="Market of the file, for example ETH/USD.")]
SkipBadRows = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows", help="Leave bad rows out and count them. Without it, one bad row stops the import."
    ),
]


def import_bars(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV of Kraken (OHLCVT) or Binance, or CSV or Parquet with named columns; also zip, gz, zst."
        ),
    ],
    symbol: Symbol = "BTC/USD",
    *,
    skip_bad_rows: SkipBadRows = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace stored bars that differ from the file. Without it they stay.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Import minute bars into the table that the models are trained on.

    Stored bars stay as they are. Importing the same file again changes nothing.
    """
    settings = open_stack(data_dir).settings
    _check_symbol(symbol)
    read = read_bar_file(file, pair_of(symbol), skip_bad_rows=skip_bad_rows)
    first_ns, last_ns = int(read.bars["ts_ns"][0]), int(read.bars["ts_ns"][-1])
    with QuestDB(settings.questdb) as db:
        ensure_tables(db)
        with ObjectStore(settings.store) as store:
            check_in_questdb(db, store, [MINUTE_BARS], day_of(first_ns), day_of(last_ns))
        plan = bar_import.plan_bars(db, symbol, read.bars, replaces=replace)
        bar_import.check_same_market(plan, str(file), symbol)
        if len(plan.written):
            record = begin_import(db, "bars", symbol, str(file.resolve()), plan.written["ts_ns"])
            with typer.progressbar(length=record.rows, label=file.name) as bar:
                bar_import.store_bars(db, symbol, plan, record.id, bar.update)
            set_state(db, record, "imported")
            _say_undo(record.id)
    _report_bars(read, plan, symbol)


def import_trades(
    file: Annotated[
        Path,
        typer.Argument(help="CSV of Kraken or Binance, or CSV or Parquet with named columns; also zip, gz, zst."),
    ],
    symbol: Symbol = "BTC/USD",
    *,
    skip_bad_rows: SkipBadRows = False,
    data_dir: DataDir = None,
) -> None:
    """Import trades and the minute bars made from them.

    Stored trades stay as they are, and no trade is stored twice.
    """
    stack = open_stack(data_dir)
    _check_symbol(symbol)
    read = read_trade_file(file, pair_of(symbol), skip_bad_rows=skip_bad_rows)
    first_ns, last_ns = (int(read.trades["ts_ns"][row]) for row in (0, -1))
    with QuestDB(stack.settings.questdb) as db:
        ensure_tables(db)
        with ObjectStore(stack.settings.store) as store:
            check_in_questdb(db, store, [BRONZE_TRADES], day_of(first_ns), day_of(last_ns))
        plan = trade_import.plan_trades(db, symbol, read.trades, has_sides=read.has_sides)
        trade_import.check_same_market(plan, str(file), symbol)
        if len(plan.new):
            record = begin_import(db, "trades", symbol, str(file.resolve()), plan.new["ts_ns"])
            with typer.progressbar(length=record.rows, label=file.name) as bar:
                trade_import.write_trades(db, symbol, plan.new, record.id, bar.update)
        bars = make_bars(db, symbol, read.trades["ts_ns"], plan.unsettled_ns)
        if len(plan.new):
            set_state(db, record, "imported")
            _say_undo(record.id)
    _report_trades(read, plan, bars, symbol)
    if len(plan.new):
        first, last = (day_of(int(plan.new["ts_ns"][row])) for row in (0, -1))
        stack.extend_days_back_to(first, screen.progress)
        screen.say(f"next, compute the features of these days: btc backfill --from {first} --to {last}")


def imports(data_dir: DataDir = None) -> None:
    """List the imports with their ids, oldest first."""
    with QuestDB(open_stack(data_dir).settings.questdb) as db:
        found = all_imports(db)
    if not found:
        screen.say("nothing has been imported")
        return
    for each in found:
        span = " to ".join(f"{from_ns(moment_ns):%Y-%m-%d %H:%M}" for moment_ns in (each.first_ns, each.last_ns))
        screen.say(f"{each.id}  {each.state:<9}  {each.rows:,} {each.kind} of {each.symbol}, {span}, from {each.file}")


def undo_import(
    import_id: Annotated[str, typer.Argument(help="Id of the import; `btc imports` lists them.")],
    data_dir: DataDir = None,
) -> None:
    """Remove the rows that an import wrote and what was computed from them.

    Bars that the import replaced are restored. An interrupted run may be repeated.
    """
    settings = open_stack(data_dir).settings
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        ensure_tables(db)
        found = import_of(db, import_id)
        done = undo(db, store, found)
    screen.say(f"{done.removed:,} {found.kind} of {found.symbol} removed, {done.restored:,} replaced bars restored")
    if done.days_to_backfill:
        first, last = done.days_to_backfill[0], done.days_to_backfill[-1]
        screen.say(f"next, compute the features of these days again: btc backfill --from {first} --to {last}")
    screen.say(
        "models that were trained on these rows keep serving; to train again, start the Dagster job train_models"
    )


def _check_symbol(symbol: str) -> None:
    pair, exchange = pair_of(symbol), exchange_in(symbol)
    known = market_of(pair)
    if known != pair:
        hint = f"write it as {known}" if known else "write it as BTC/USD"
        msg = f"--symbol: {symbol!r} is not the name of a market here; {hint}"
        raise InvalidInput(msg)
    if exchange and exchange not in PUBLIC_URLS:
        msg = f"--symbol: {symbol!r} is on no exchange that is known here; choose one of {', '.join(PUBLIC_URLS)}"
        raise InvalidInput(msg)


def _report_bars(read: BarFile, plan: BarPlan, symbol: str) -> None:
    screen.say(f"{len(plan.new):,} minute bars of {symbol} stored, {plan.stored:,} were stored already")
    if len(plan.different):
        done = "replaced" if plan.replaces else "left as they are; --replace replaces them"
        screen.say(f"{len(plan.different):,} stored bars with other values {done}. The first was {plan.example()}")
    _report_rows(read.repeated, read.bad)
    if len(plan.written):
        screen.say("to train on them, start the Dagster job train_models")


def _report_trades(read: TradeFile, plan: TradePlan, bars: BarChanges, symbol: str) -> None:
    screen.say(f"{len(plan.new):,} trades of {symbol} stored, {plan.stored:,} were stored already")
    screen.say(f"{bars.new:,} minute bars made from stored trades, and {bars.changed:,} made again")
    if plan.different:
        screen.say(
            f"{plan.different:,} trades left out whose id is stored with other values. The first is {plan.example}"
        )
    if len(plan.unsettled_ns):
        screen.say(
            f"{len(plan.unsettled_ns):,} trades without an id left out, because the stream may still store them: they are "
            "younger than a day, or lie in a gap that is being repaired. Import the file again later"
        )
    _report_rows(read.repeated, read.bad)


def _report_rows(repeated: int, bad: BadRows) -> None:
    if repeated:
        screen.say(f"{repeated:,} rows left out that repeat another row of the file")
    if bad.count:
        screen.say("\n  ".join([f"{bad.count:,} bad rows skipped:", *bad.report()]))


def _say_undo(import_id: str) -> None:
    screen.say(f"this is the import {import_id}; `btc undo-import {import_id}` removes it again")
