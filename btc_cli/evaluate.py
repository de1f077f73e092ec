"""`btc evaluate`: a backtest of the models on minute bars from files, or on what a stack has stored.

What does not belong here: fitting and scoring (`btc_core.models.evaluation`), and showing the results
(`btc_cli/evaluation_report.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from btc_cli.evaluation_report import page, stream_table, tables
from btc_cli.options import DataDir, open_stack, require_folder
from btc_core.clock import to_ns
from btc_core.days.bar_files import read_bar_file
from btc_core.days.file_names import markets_named, stem_of
from btc_core.days.training_rows import read_training_rows
from btc_core.errors import InvalidInput
from btc_core.market.checked_bars import sorted_bars
from btc_core.models import evaluation, evaluation_results
from btc_core.models.dataset import make_frame
from btc_core.models.stream_value import MIN_TESTED_DAYS, MIN_TRAINED_DAYS, check_days, stream_value
from btc_core.models.trainers import trainer_of
from btc_core.settings import settings
from btc_core.stores.minute_bars import read_stored
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore

if TYPE_CHECKING:
    from btc_core.models.dataset import Frame, StreamRows
    from btc_core.models.evaluation import WalkForward


STORED_DAYS = 100 * 365.0
"""Longer than any history."""


def evaluate(  # noqa: PLR0913 - every option of the command is an argument
    bars: Annotated[
        list[Path] | None,
        typer.Option(
            help="Minute bars: CSV of Kraken (OHLCVT) or Binance, or CSV or Parquet with named columns; also zip, gz, "
            "zst. May be repeated."
        ),
    ] = None,
    more_bars: Annotated[list[Path] | None, typer.Argument(help="More files of minute bars.")] = None,
    *,
    symbol: Annotated[
        str, typer.Option(help="Instead of files, take the minute bars of this market that the stack has stored.")
    ] = "",
    stored: Annotated[
        bool,
        typer.Option(
            "--stored",
            help="With --symbol: at the closes of sealed days, use the features that the stream computed, and compare with "
            "the same models without the inputs that only a stream has. It takes twice the time.",
        ),
    ] = False,
    min_trained_days: Annotated[
        int,
        typer.Option(min=1, help="With --stored: sealed days that must lie before the first day that is forecast."),
    ] = MIN_TRAINED_DAYS,
    min_tested_days: Annotated[
        int,
        typer.Option(min=2, help="With --stored: sealed days that must be forecast. With few, the error is rough."),
    ] = MIN_TESTED_DAYS,
    first: Annotated[
        str,
        typer.Option(
            "--from",
            help="First month or day to forecast, for example 2024-01 or 2024-01-15. "
            f"Default: the first month with {evaluation.FIRST_WINDOW_DAYS:g} days of bars before it.",
        ),
    ] = "",
    last: Annotated[
        str, typer.Option("--to", help="Last month or day to forecast, inclusive. Default: the end of the bars.")
    ] = "",
    window_days: Annotated[
        float, typer.Option(min=21, help="Days of history that each refit uses.")
    ] = evaluation.WINDOW_DAYS,
    refit: Annotated[
        str,
        typer.Option(
            help="How often the models are refitted: daily, as the live system does, weekly or monthly. A refit takes "
            "35 to 50 seconds of one core."
        ),
    ] = "monthly",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write all results to this JSON file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report with plots to this HTML file.")] = None,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Leave bad rows out and count them. Without it, one bad row is an error."),
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Refits to run in parallel. Default: the number of cores.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Backtest the models on minute bars, refitted as they go, and print how good the forecasts were.

    Features and models are those that the live system uses, and everything is forecast from earlier data only.
    """
    require_folder("--json", json_out)
    require_folder("--report", report)
    begin_ns = _period_ns("--from", first)[0] if first else None
    end_ns = _period_ns("--to", last)[1] if last else None
    files = [*(bars or []), *(more_bars or [])]
    if bool(files) == bool(symbol):
        raise InvalidInput("give either files with --bars, or a market with --symbol")
    if stored and not symbol:
        raise InvalidInput("--stored needs a market: give --symbol")
    chosen_refit = _refit(refit)
    if symbol:
        joined, stream = _stored(data_dir, symbol, with_stream=stored)
    else:
        joined, stream = _joined(files, skip_bad_rows=skip_bad_rows), None
    frame = make_frame(joined, stream=stream)
    begin_ns = evaluation.first_month_ns(frame) if begin_ns is None else begin_ns
    end_ns = int(frame.origin_ns[-1]) if end_ns is None else end_ns
    if stored:
        check_days(frame, begin_ns, end_ns, symbol, min_trained_days=min_trained_days, min_tested_days=min_tested_days)
    span = (begin_ns, end_ns, window_days, chosen_refit, processes)
    walk = _walk_forward(frame, *span)
    results = evaluation_results.results(walk)
    console = Console()
    for table in tables(results):
        console.print(table)
    if stored:
        value = stream_value(frame, walk, _walk_forward(frame.without_stream(), *span))
        console.print(stream_table(value))
        results["stream"] = value
    _write(walk, results, json_out, report)


def _write(walk: WalkForward, results: dict[str, Any], json_out: Path | None, report: Path | None) -> None:
    """Write the results to the files that the user named."""
    if json_out is not None:
        json_out.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2))
        typer.echo(f"results → {json_out}")
    if report is not None:
        report.write_text(page(walk, results))
        typer.echo(f"report → {report}")


def _stored(data_dir: Path | None, symbol: str, *, with_stream: bool) -> tuple[np.ndarray[Any, Any], StreamRows | None]:
    """All stored minute bars of a market, and what its stream computed at their closes on sealed days."""
    chosen = open_stack(data_dir).settings
    with QuestDB(chosen.questdb) as db, ObjectStore(chosen.store) as store:
        if not with_stream:
            return read_stored(db, symbol, STORED_DAYS), None
        rows = read_training_rows(db, store, symbol, STORED_DAYS)
        return rows.bars, rows.stream


def _joined(files: list[Path], *, skip_bad_rows: bool) -> np.ndarray[Any, Any]:
    """The bars of all files in time order; equal bars that several files have are kept once."""
    markets = set[str]().union(*(markets_named(stem_of(file.name)) for file in files))
    if len(markets) > 1:
        msg = f"--bars: by their names, the files are of several markets: {', '.join(sorted(markets))}"
        raise InvalidInput(msg)
    parts = [read_bar_file(file, skip_bad_rows=skip_bad_rows) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.bad.count:
            typer.echo("\n  ".join([f"{file}: {part.bad.count} bad rows skipped", *part.bad.report()]), err=True)
    return sorted_bars(np.concatenate([part.bars for part in parts]), ", ".join(map(str, files)))


def _walk_forward(  # noqa: PLR0913, PLR0917 - one for each option of the command
    frame: Frame, begin_ns: int, end_ns: int, window_days: float, refit: evaluation.Refit, processes: int | None
) -> WalkForward:
    """Forecast block by block, with a progress bar on stderr."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, description=f"forecasting, refitted {refit}", completed=done, total=total)

        show(0, len(evaluation.block_borders(begin_ns, end_ns, refit)) - 1)
        return evaluation.walk_forward(
            frame,
            begin_ns,
            end_ns,
            window_days,
            refit=refit,
            processes=processes,
            trainer=trainer_of(settings().model),
            progress=show,
        )


def _refit(text: str) -> evaluation.Refit:
    for refit in evaluation.REFIT_DAYS:
        if text == refit:
            return refit
    msg = f"--refit: {text!r} is none of {', '.join(evaluation.REFIT_DAYS)}"
    raise InvalidInput(msg)


def _period_ns(option: str, text: str) -> tuple[int, int]:
    """Start and end of a UTC day or month in ns, the end exclusive; raises `InvalidInput` naming the option.

    >>> begin_ns, end_ns = _period_ns("--to", "2024-02")
    >>> (end_ns - begin_ns) // (24 * 3_600 * 10**9)
    29
    """
    for form in ("%Y-%m-%d", "%Y-%m"):
        try:
            begin = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        if form == "%Y-%m":
            return to_ns(begin), to_ns((begin + timedelta(days=31)).replace(day=1))
        return to_ns(begin), to_ns(begin + timedelta(days=1))
    msg = f"{option}: {text!r} is neither a month (2024-01) nor a day (2024-01-15)"
    raise InvalidInput(msg)
