"""`btc export-day`: the quotes and trades of a day as files of backtesting tools.

What does not belong here: the formats (`btc_core.days.backtest_files`), and files of other series (`export`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
import typer

from btc_cli.options import DataDir, open_stack
from btc_core.clock import NS_PER_DAY, NS_PER_MS
from btc_core.days.backtest_files import QUOTE_COLUMNS, TRADE_COLUMNS, backtest_events, write_nautilus
from btc_core.days.history import History
from btc_core.days.series import missing_text, series_named
from btc_core.errors import InvalidInput, ServiceError
from btc_core.files import atomic_write
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Sequence


def export_day(
    day: Annotated[str, typer.Argument(help="The day (UTC), for example 2026-07-19.")],
    *,
    to: Annotated[Literal["hftbacktest", "nautilus"], typer.Option(help="The tool that will read it.")],
    out: Annotated[
        Path, typer.Option(help="The file for hftbacktest (.npz), or the folder of the catalog for nautilus.")
    ],
    symbol: Annotated[str, typer.Option(help="Market. Default: the first one that the stack follows.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Write the quotes and trades of a day for hftbacktest or nautilus_trader.

    Days that have left QuestDB come from the object store. The command fails unless it read as many rows as are stored.
    """
    if to == "hftbacktest" and out.suffix != ".npz":
        raise InvalidInput(f"--out {out}: the file for hftbacktest ends in .npz")
    settings = open_stack(data_dir).settings
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
    counts = f"{len(quotes)} quotes and {len(trades)} trades of {market} on {day}"
    if to == "nautilus":
        name = write_nautilus(out, market, settings.exchange.name, quotes, trades)
        typer.echo(f"{counts} → {out}, as {name}")
        return
    made = backtest_events(quotes, trades)
    with atomic_write(out) as file:
        np.savez_compressed(file, data=made.events)
    shifted = f"; {made.shift_ns / NS_PER_MS:.3f} ms were added to the times of arrival" if made.shift_ns else ""
    typer.echo(f"{counts} → {out}, {len(made.events)} events{shifted}")


def _whole_day(history: History, name: str, symbol: str, day: str, columns: Sequence[str]) -> pa.Table:
    """All rows of a day; raises `InvalidInput` when there are none, and `ServiceError` when some are missing."""
    series = series_named(name)
    begin_ns = day_ns(day)
    span = symbol, begin_ns, begin_ns + NS_PER_DAY
    stored = history.days(series.tables[0], *span)
    if not stored:
        raise InvalidInput(missing_text(series, symbol, [day]))
    rows = pa.concat_tables([series.part(columns).empty_table(), *series.chunks(history, *span, columns)])
    if stored[0].copy is None and stored[0].rows != len(rows):
        msg = f"{len(rows)} {name} of {symbol} were read of {stored[0].rows} that are stored on {day}; try again"
        raise ServiceError(msg)
    return rows
