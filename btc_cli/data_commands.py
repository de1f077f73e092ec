"""`btc replay`, `btc record`, `btc import-bars`: market data in and out of files.

What does not belong here: starting and stopping (`btc_cli/app.py`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

SHOWN_BAD_LINES = 20
IMPORT_ROWS = 50_000
"""Rows a write: one commit in QuestDB each."""
app = typer.Typer()
"""Its commands appear beside `btc up` and the others."""

DataDir = Annotated[Path | None, typer.Option(help="Directory of the stack; the current one when left out.")]


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Recorded frames, one a line; `.gz` too.")],
    out: Annotated[Path, typer.Option(help="Parquet file of feature rows to write.")],
    exchange: Annotated[str, typer.Option(help="Whose frames they are: kraken or coinbase.")] = "kraken",
) -> None:
    """Turn a recorded frame file into feature rows, by the same fold the stream uses."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - heavy, and `btc --help` must be quick

    from btc_core.features.file_replay import replay_file, rows_table  # noqa: PLC0415 - the same

    started_s = time.perf_counter()
    result = replay_file(file, exchange)
    table = rows_table(result.rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out, compression="zstd")
    took_s = time.perf_counter() - started_s
    for bad in result.bad[:SHOWN_BAD_LINES]:
        typer.echo(f"{file}, line {bad.line}: {bad.message}", err=True)
    if len(result.bad) > SHOWN_BAD_LINES:
        typer.echo(f"… and {len(result.bad) - SHOWN_BAD_LINES} more", err=True)
    typer.echo(
        f"{result.frames} frames, {len(table)} feature rows, {len(result.bad)} not usable, {took_s:.1f} s → {out}"
    )


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="File to write: `<receive time in ns> <frame>` a line.")],
    data_dir: DataDir = None,
) -> None:
    """Write everything the log `market.events` holds to a file that `btc replay` reads."""
    from btc_core.features.file_replay import envelope_line  # noqa: PLC0415 - the same
    from btc_core.stores.kafka import read_all  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from stack.files import replaced  # noqa: PLC0415 - the same
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - the same

    settings = Layout(data_dir or current_data_dir()).settings()
    frames = 0
    with replaced(out) as file:
        for envelope, _partition, _offset in read_all(settings.kafka):
            file.write(envelope_line(envelope))
            frames += 1
    typer.echo(f"{frames} frames → {out}")


@app.command("import-bars")
def import_bars(
    file: Annotated[Path, typer.Argument(help="Parquet (ts, open, high, low, close, volume) or Kraken's OHLCVT CSV.")],
    symbol: Annotated[str, typer.Option(help="Market the bars belong to.")] = "BTC/USD",
    data_dir: DataDir = None,
) -> None:
    """Import minute bars into the table the models train on; importing a file twice changes nothing."""
    from btc_core.market.bars import read_bars  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from btc_core.stores.questdb import QuestDB, append  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from btc_core.tables.catalogue import MINUTE_BARS  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from btc_core.tables.rows import minute_bars  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - the same

    settings = Layout(data_dir or current_data_dir()).settings()
    bars = read_bars(file)
    with QuestDB(settings.questdb) as db, typer.progressbar(length=len(bars), label=file.name) as bar:
        for start in range(0, len(bars), IMPORT_ROWS):
            chunk = bars[start : start + IMPORT_ROWS]
            append(db, MINUTE_BARS, minute_bars(chunk, symbol, "file"))
            bar.update(len(chunk))
    typer.echo(f"{len(bars)} minute bars of {symbol} imported; train on them with the Dagster job train_models")
