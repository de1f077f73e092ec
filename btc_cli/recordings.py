"""`btc replay` and `btc record`: recordings of exchange frames, made from the log and replayed into feature rows.

What does not belong here: the format of a recording, and the replay itself (`btc_core.features.file_replay`).
"""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import pyarrow.parquet as pq
import typer

from btc_cli.options import DataDir, open_stack
from btc_core.errors import InvalidInput
from btc_core.exchanges.recorded_lines import envelope_line
from btc_core.features.file_replay import replay_file, rows_table
from btc_core.files import atomic_write
from btc_core.stores.kafka import read_all

SHOWN_BAD_LINES = 20


def replay(
    file: Annotated[Path, typer.Argument(help="Recording with one frame per line; it may be packed by gzip or zstd.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write the feature rows to.")],
    exchange: Annotated[str, typer.Option(help="Exchange that sent the frames: kraken or coinbase.")] = "kraken",
) -> None:
    """Compute the feature rows of a recording with the code that the live stream uses.

    Lines that cannot be used are reported and skipped. If no line gives a feature row, nothing is written and the exit
    code is 1.
    """
    started_s = time.perf_counter()
    result = replay_file(file, exchange)
    table = rows_table(result.rows)
    for bad in result.bad[:SHOWN_BAD_LINES]:
        typer.echo(f"{file}, line {bad.line}: {bad.message}", err=True)
    if len(result.bad) > SHOWN_BAD_LINES:
        typer.echo(f"… and {len(result.bad) - SHOWN_BAD_LINES} more", err=True)
    if not len(table):
        msg = (
            f"none of the {result.frames} lines of {file} gave a feature row, so nothing was written. A line is a frame of "
            f"{exchange}, or a receive time in ns, a space and a frame"
        )
        raise InvalidInput(msg)
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out, compression="zstd")
    took_s = time.perf_counter() - started_s
    typer.echo(f"{result.frames} frames, {len(table)} feature rows, {len(result.bad)} problems, {took_s:.1f} s → {out}")


def record(
    out: Annotated[
        Path, typer.Option(help="File to write, one `<receive time in ns>@<place in the log> <frame>` per line.")
    ],
    data_dir: DataDir = None,
) -> None:
    """Write all messages of the Kafka topic `market.events` to a file for `btc replay`."""
    settings = open_stack(data_dir).settings
    frames = 0
    with atomic_write(out) as file:
        for envelope, partition, offset in read_all(settings.kafka):
            file.write(envelope_line(envelope, partition, offset))
            frames += 1
    typer.echo(f"{frames} frames → {out}")
