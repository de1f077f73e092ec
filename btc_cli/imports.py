"""`btc import-bars` and `btc import-trades`: market history from files.

What does not belong here: reading the files (`btc_core.market.bars`, `btc_core.days.trade_import`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from btc_cli import screen
from btc_cli.options import DataDir, open_stack
from btc_core.days.trade_import import put, put_bars, read_trades
from btc_core.market.bars import read_bars
from btc_core.stores.questdb import QuestDB, append
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.tables.rows import minute_bars
from btc_core.utc_day import day_of

BARS_PER_WRITE = 50_000
"""Each write is one commit in QuestDB."""
TRADES_PER_WRITE = 200_000
"""A write takes a few seconds, so an import that is interrupted has kept most of its work."""
ORIGIN = "file"
"""Value of the column `origin` of imported rows."""

Symbol = Annotated[str, typer.Option(help="Market of the file, for example ETH/USD.")]


def import_bars(
    file: Annotated[
        Path,
        typer.Argument(help="Kraken's OHLCVT CSV, or Parquet with the columns ts, open, high, low, close, volume."),
    ],
    symbol: Symbol = "BTC/USD",
    data_dir: DataDir = None,
) -> None:
    """Import minute bars into the table that the models are trained on.

    Importing the same file again changes nothing.
    """
    settings = open_stack(data_dir).settings
    bars = read_bars(file)
    with QuestDB(settings.questdb) as db, typer.progressbar(length=len(bars), label=file.name) as bar:
        for start in range(0, len(bars), BARS_PER_WRITE):
            block = bars[start : start + BARS_PER_WRITE]
            append(db, MINUTE_BARS, minute_bars(block, symbol, ORIGIN))
            bar.update(len(block))
    typer.echo(f"{len(bars)} minute bars of {symbol} imported; to train on them, start the Dagster job train_models")


def import_trades(
    file: Annotated[
        Path, typer.Argument(help="Kraken's CSV of time,price,volume, or CSV or Parquet with named columns.")
    ],
    symbol: Symbol = "BTC/USD",
    data_dir: DataDir = None,
) -> None:
    """Import trades and the minute bars made from them.

    Trades that the stream or an earlier import has stored are left as they are.
    """
    stack = open_stack(data_dir)
    trades = read_trades(file)
    imported = 0
    with QuestDB(stack.settings.questdb) as db, typer.progressbar(length=len(trades), label=file.name) as bar:
        for start in range(0, len(trades), TRADES_PER_WRITE):
            block = trades[start : start + TRADES_PER_WRITE]
            imported += put(db, symbol, block, ORIGIN)
            bar.update(len(block))
        bars = put_bars(db, symbol, trades)
    typer.echo(f"{imported} of {len(trades)} trades and {bars} minute bars of {symbol} were new and are imported")
    if len(trades):
        first, last = (day_of(int(trades["ts_ns"][row])) for row in (0, -1))
        stack.extend_days_back_to(first, screen.progress)
        typer.echo(f"next, compute the features of these days: btc backfill --from {first} --to {last}")
