"""`btc evaluate`: how good the shipped models are on any minute bars.

What does not belong here: fitting and judging (`btc_core.models.evaluation`), starting and stopping (`btc_cli/app.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer()
"""Its commands appear beside `btc up` and the others."""


@app.command()
def evaluate(  # noqa: PLR0913, PLR0917 - options of a command line
    bars: Annotated[
        list[Path], typer.Option(help="Minute bars: Parquet with ts, open, high, low, close, volume. May be repeated.")
    ],
    more_bars: Annotated[list[Path] | None, typer.Argument(help="More files of bars.")] = None,
    from_day: Annotated[str, typer.Option("--from", help="First month or day to forecast: 2024-01, 2024-01-15.")] = "",
    to_day: Annotated[str, typer.Option("--to", help="Last month or day, all of it.")] = "",
    window_days: Annotated[float | None, typer.Option(min=21, help="Days of history each month is fitted on.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Months at a time; all cores when left out.")] = None,
) -> None:
    """Forecast past months with the shipped features and models, refitted monthly, and print how good they were."""
    import msgspec  # noqa: PLC0415 - heavy, and `btc --help` must be quick
    from rich.console import Console  # noqa: PLC0415 - the same
    from rich.progress import Progress  # noqa: PLC0415 - the same

    from btc_cli.evaluation_screen import tables  # noqa: PLC0415 - the same
    from btc_core.models import evaluation  # noqa: PLC0415 - the same
    from btc_core.models.dataset import make_frame  # noqa: PLC0415 - the same
    from btc_core.models.trainers import trainer_of  # noqa: PLC0415 - imports numpy, which is slow to import
    from btc_core.settings import settings  # noqa: PLC0415 - imports pydantic, which is slow to import

    console = Console()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading bars and computing features", total=None)
        frame = make_frame(_joined([*bars, *(more_bars or [])]))
        begin_ns = _period(from_day)[0] if from_day else evaluation.first_month_ns(frame)
        end_ns = _period(to_day)[1] if to_day else int(frame.origin_ns[-1])

        def tell(done: int, total: int) -> None:
            progress.update(task, description="forecasting months", completed=done, total=total)

        tell(0, len(evaluation.month_borders(begin_ns, end_ns)) - 1)
        days = window_days or evaluation.WINDOW_DAYS
        trainer = trainer_of(settings().model)
        walk = evaluation.walk_forward(
            frame, begin_ns, end_ns, days, processes=processes, trainer=trainer, progress=tell
        )
    found = evaluation.results(walk)
    for table in tables(found):
        console.print(table)
    if json_out is not None:
        json_out.parent.mkdir(parents=True, exist_ok=True)
        json_out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
        console.print(f"figures → {json_out}")
    if report is not None:
        from btc_cli.evaluation_report import page  # noqa: PLC0415 - matplotlib is heavy

        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(page(walk, found))
        console.print(f"report → {report}")


def _joined(files: list[Path]) -> np.ndarray[Any, Any]:
    """Bars of all files in order of time, the first of those with the same time."""
    import numpy as np  # noqa: PLC0415 - heavy, and `btc --help` must be quick

    from btc_core.market.bars import read_bars, sorted_bars  # noqa: PLC0415 - the same

    return sorted_bars(np.concatenate([read_bars(file) for file in files]), "the files together")


def _period(text: str) -> tuple[int, int]:
    """Begin and end of a month or a day, ns."""
    from btc_core.clock import to_ns  # noqa: PLC0415 - with its neighbours
    from btc_core.errors import InvalidInput  # noqa: PLC0415 - the same

    for form, days in (("%Y-%m-%d", 1), ("%Y-%m", 31)):
        try:
            begin = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        end = begin + timedelta(days=days)
        return to_ns(begin), to_ns(end.replace(day=1) if form == "%Y-%m" else end)
    msg = f"{text!r} is neither a month (2024-01) nor a day (2024-01-15)"
    raise InvalidInput(msg)
