"""`btc export-day`: the quotes and trades of a day as files of backtesting tools, or every table of a sealed day as Parquet.

What does not belong here: the formats (`btc_core.days.backtest_files`), and files of other series (`export`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from btc_cli.options import DataDir, open_stack, require_folder
from btc_core.clock import NS_PER_DAY, NS_PER_MS
from btc_core.days import lake
from btc_core.days.backtest_files import QUOTE_COLUMNS, TRADE_COLUMNS, backtest_events, write_nautilus
from btc_core.days.history import History
from btc_core.days.series import missing_text, series_named
from btc_core.errors import InvalidInput, ServiceError
from btc_core.files import atomic_write
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import read_parquet
from btc_core.tables.catalogue import STORED
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Sequence


def export_day(
    day: Annotated[str, typer.Argument(help="The day (UTC), for example 2026-07-19.")],
    *,
    to: Annotated[
        Literal["hftbacktest", "nautilus", "parquet"],
        typer.Option(help="The tool that will read it, or parquet for a file of each table."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="The file for hftbacktest (.npz), or the folder of the catalog for nautilus or of the Parquet files."
        ),
    ],
    symbol: Annotated[
        str,
        typer.Option(help="Market. Default: the first one that the stack follows, and for parquet all of them."),
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Write the quotes and trades of a day for hftbacktest or nautilus_trader, or all tables of a sealed day as Parquet files.

    Days that have left QuestDB come from the object store. On a sealed day the command fails unless it writes as many quotes and
    trades of the market as the proof of the day counts; on another day it says that the day is not sealed, and fails unless it read as
    many as are stored. The Parquet files are the copies that were made when the day was sealed, and have the rows that their manifests
    name.
    """
    if to == "hftbacktest" and out.suffix != ".npz":
        raise InvalidInput(f"--out {out}: the file for hftbacktest ends in .npz")
    if to == "hftbacktest":
        require_folder("--out", out)
    settings = open_stack(data_dir).settings
    if to == "parquet":
        with ObjectStore(settings.store) as store:
            _write_tables(store, day, symbol, out)
        return
    market = symbol or settings.exchange.symbols[0]
    with QuestDB(settings.questdb) as db:
        history = History(db, lambda: ObjectStore(settings.store))
        try:
            quotes, trades = (
                _whole_day(history, name, market, day, columns)
                for name, columns in (("quotes", QUOTE_COLUMNS), ("trades", TRADE_COLUMNS))
            )
        finally:
            history.close()
    if to == "nautilus":
        entry = write_nautilus(out, market, settings.exchange.name, quotes.rows, trades.rows)
        _check_written(out, quotes, entry.quotes, trades, entry.trades)
        target = f"{out}, as {entry.instrument}"
    else:
        made = backtest_events(quotes.rows, trades.rows)
        _check_written(out, quotes, made.quotes, trades, made.trades)
        with atomic_write(out) as file:
            np.savez_compressed(file, data=made.events)
        shifted = f"; {made.shift_ns / NS_PER_MS:.3f} ms were added to the times of arrival" if made.shift_ns else ""
        target = f"{out}, {len(made.events)} events{shifted}"
    typer.echo(f"{quotes.words()} and {trades.words()} of {market} on {day} → {target}")
    typer.echo(_proof_words(day, quotes, trades))


class _WholeDay(msgspec.Struct, frozen=True):
    """All quotes or trades of a market on a day."""

    name: str
    rows: pa.Table
    seal: str
    """The seal of the copy whose rows were counted; empty if the day is not sealed."""

    def words(self) -> str:
        return f"{len(self.rows)} {self.name}"


def _proof_words(day: str, quotes: _WholeDay, trades: _WholeDay) -> str:
    """What the counts were compared with."""
    unsealed = [each.name for each in (quotes, trades) if not each.seal]
    if unsealed:
        return (
            f"The {' and '.join(unsealed)} of {day} are not sealed, so there is no proof of the day to compare with: these are the rows "
            f"that are stored now. `btc backfill --from {day} --to {day}` seals a day that is over"
        )
    if quotes.seal == trades.seal:
        return f"Both counts are those of the verified copies of the sealed day, seal {quotes.seal}"
    return f"Both counts are those of the verified copies of the sealed day, seal {quotes.seal} (quotes) and {trades.seal} (trades)"


def _check_written(out: Path, quotes: _WholeDay, quotes_written: int, trades: _WholeDay, trades_written: int) -> None:
    """Raise `ServiceError` unless every row that was read became a quote or a trade."""
    for read, written in ((quotes, quotes_written), (trades, trades_written)):
        if written != len(read.rows):
            msg = f"{out}: {written} {read.name} were made of {len(read.rows)} that were read; do not use this file, and report the fault"
            raise ServiceError(msg)


def _write_tables(store: ObjectStore, day: str, symbol: str, out: Path) -> None:
    """Write the copy of each table of a day into a folder; raises `InvalidInput` when the day has none, and `StoreError`."""
    day_ns(day)
    manifests = [(table, lake.read_manifest(store, table.name, day)) for table in STORED]
    copies = [(table, manifest) for table, manifest in manifests if manifest is not None]
    if not copies:
        msg = (
            f"{day} has no copies: a day gets them once it is sealed. `btc seals {day}` shows its seals, and `btc backfill --from {day} "
            f"--to {day}` seals it"
        )
        raise InvalidInput(msg)
    for table, manifest in copies:
        body, rows = lake.object_bytes(store, manifest), manifest.rows
        if symbol and any(column.name == "symbol" for column in table.columns):
            chosen = read_parquet(body)
            chosen = chosen.filter(pc.equal(chosen["symbol"], symbol))
            body, rows = lake.parquet_bytes(chosen), len(chosen)
        with atomic_write(out / f"{table.name}.parquet") as file:
            file.write(body)
        of_market = f" of {symbol}, of {manifest.rows} of all markets" if rows != manifest.rows else ""
        seal = f", seal {manifest.seal}" if manifest.seal else ", not sealed"
        typer.echo(f"{rows} rows{of_market}{seal} → {out / f'{table.name}.parquet'}")


def _whole_day(history: History, name: str, symbol: str, day: str, columns: Sequence[str]) -> _WholeDay:
    """All rows of a day; raises `InvalidInput` when there are none, and `ServiceError` when they are not as many as are proven."""
    series = series_named(name)
    table = series.tables[0]
    begin_ns = day_ns(day)
    span = symbol, begin_ns, begin_ns + NS_PER_DAY
    stored = history.days(table, *span)
    if not stored:
        raise InvalidInput(missing_text(series, symbol, [day]))
    rows = pa.concat_tables([series.part(columns).empty_table(), *series.chunks(history, *span, columns)])
    manifest = lake.read_manifest(history.store(), table.name, day)
    if manifest is not None and manifest.seal:
        proven = _proven_rows(history, manifest, symbol)
        if proven != len(rows):
            msg = (
                f"{len(rows)} {name} of {symbol} are stored on {day}, but the proof of the sealed day counts {proven} (seal {manifest.seal}). "
                f"Nothing was written. Seal the day again, and then export it: btc backfill --from {day} --to {day}"
            )
            raise ServiceError(msg)
        return _WholeDay(name, rows, manifest.seal)
    if stored[0].copy is None and stored[0].rows != len(rows):
        msg = f"{len(rows)} {name} of {symbol} were read of {stored[0].rows} that are stored on {day}; try again"
        raise ServiceError(msg)
    return _WholeDay(name, rows, "")


def _proven_rows(history: History, manifest: lake.Manifest, symbol: str) -> int:
    """How many rows of a market the copy of a sealed day has; raises `StoreError` when it is damaged."""
    with history.open_copy(manifest) as copy:
        return int(pc.sum(pc.equal(copy.read(["symbol"])["symbol"], symbol)).as_py() or 0)
