"""`btc evaluate-pretrained`: scores of the pre-trained model on the bars of any market, warm-up included.

What does not belong here: how the scores are computed (`btc_core.models.pretrained_scores`), and the backtest of models
that are fitted on the market itself (`evaluate`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from btc_cli.options import require_folder
from btc_core.clock import from_ns
from btc_core.days.bar_files import read_bar_file
from btc_core.days.file_names import market_of
from btc_core.days.trade_files import read_trade_file
from btc_core.exchanges.history import bars_of_trades
from btc_core.horizons import minutes_text
from btc_core.market.checked_bars import sorted_bars
from btc_core.models import pretrained, pretrained_scores
from btc_core.models.pretrained_scores import BASELINES, HARX_ALONE, MODEL
from btc_core.names import HEADLINE_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

TABLE_WIDTH_CHARS = 120
SHOWN = (MODEL, HARX_ALONE, *BASELINES)


def evaluate_pretrained(  # noqa: PLR0913 - every option of the command is an argument
    bars: Annotated[
        list[Path],
        typer.Option(help="Minute bars of one market, or with --trades its trades. May be repeated."),
    ],
    *,
    market: Annotated[
        str, typer.Option(help="The market, for example BTC/JPY: of trades, or one of several in a file.")
    ] = "",
    trades: Annotated[bool, typer.Option("--trades", help="The files hold trades, of which bars are made.")] = False,
    starts: Annotated[
        int, typer.Option(min=0, help="Also start this many times at random bars, and follow each start for --days.")
    ] = 0,
    days: Annotated[float, typer.Option(min=1, help="Days for which each random start is followed.")] = 20.0,
    model: Annotated[
        Path, typer.Option(help="The file of the pre-trained model.", show_default="the one of the package")
    ] = pretrained.SHIPPED,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write all results to this JSON file.")] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave bad rows out. Without it, one bad row is an error.")
    ] = False,
) -> None:
    """Score the pre-trained model on minute bars of a market, from its first hour on, beside HARX, HAR and EWMA.

    The model is frozen: only its HARX, which is shrunk towards the pre-trained one, and its level follow the market. The
    baselines are fitted again as the history grows, on the same bars.
    """
    require_folder("--json", json_out)
    frozen = pretrained.load(model)
    parts = [_bars(file, market, trades=trades, skip_bad_rows=skip_bad_rows) for file in bars]
    joined = sorted_bars(np.concatenate(parts), ", ".join(map(str, bars)))
    typer.echo(frozen.provenance)
    if len(joined) and int(joined["ts_ns"][0]) <= frozen.manifest.trained_to_ns:
        until = from_ns(frozen.manifest.trained_to_ns).date()
        typer.echo(
            f"The model was fitted on bars until {until}. Scores on the same market before that day are no proof.",
            err=True,
        )
    whole = pretrained_scores.walk(frozen, joined)
    results: dict[str, Any] = {
        "model": frozen.provenance,
        "age": pretrained_scores.by_age([whole]),
        "month": pretrained_scores.by_month(whole),
    }
    if starts:
        results["fresh_starts"] = pretrained_scores.by_age(pretrained_scores.fresh_starts(frozen, joined, starts, days))
    console = Console()
    console.width = max(console.width, TABLE_WIDTH_CHARS)
    console.print(_table("One start at the first bar: by age", "age", results["age"]))
    console.print(_table("The same start: by month", "month", results["month"]))
    if starts:
        title = f"{starts} starts at random bars, each followed for {days:g} days"
        console.print(_table(title, "age", results["fresh_starts"]))
    if json_out is not None:
        json_out.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2))
        typer.echo(f"results → {json_out}")


def _bars(file: Path, market: str, *, trades: bool, skip_bad_rows: bool) -> npt.NDArray[Any]:
    symbol = (market_of(market) or market) if market else None
    if trades:
        return bars_of_trades(read_trade_file(file, symbol or "", skip_bad_rows=skip_bad_rows).trades)
    return read_bar_file(file, symbol, skip_bad_rows=skip_bad_rows).bars


def _table(title: str, key: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title=f"{title} (QLIKE over {minutes_text(HEADLINE_MIN)}; ratio to the best baseline ± its standard error)"
    )
    for name in (key, "rows", *SHOWN, "best baseline", "ratio"):
        table.add_column(name.replace("_", " "))
    for row in rows:
        losses = (f"{row['qlike'][name]:.4f}" for name in SHOWN)
        ratio = f"{row['ratio']:.3f} ± {row['ratio_error']:.3f}"
        table.add_row(str(row[key]), str(row["rows"]), *losses, row["best_baseline"], ratio)
    return table
