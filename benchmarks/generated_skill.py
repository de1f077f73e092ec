"""The command `python -m benchmarks.generated_skill`: what trees and net gain over HARX on the generated market.

Each run trains the volatility as a fresh start does, on the history that it fetches, and prints the gate's figures for the
newest days, on which the candidate was not fitted. Real minute bars, where they exist, are judged in the same way.

What does not belong here: statistics of the market (`market_statistics`), or months of a walk-forward (`btc evaluate`).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.market_statistics import DATA, REAL_FILES, generated_bars, real_bars
from btc_assets import training
from btc_core.clock import NS_PER_DAY
from btc_core.models.dataset import make_frame
from btc_core.names import HEADLINE_MIN
from btc_core.settings import ModelSettings
from exchange_simulator.pairs import PAIRS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DAYS = ModelSettings.model_fields["history_days"].default + 1
"""Days of bars that a fresh start fetches from the simulator."""
RUNS = ("1:1062", "2:900", "3:700", "4:500", "5:400", "6:1040", "7:850", "8:650", "9:450", "10:300")
"""Seeds, each with the day after 2024-01-01 on which its history ends."""
REAL_ENDS = ("2023-06-01", "2024-03-01", "2024-08-01", "2025-01-01", "2025-05-01")


def gate_figures(bars: npt.NDArray[Any]) -> dict[str, float]:
    """Loss ratios of the candidate on the newest block of `bars`, and whether the gate lets it serve."""
    result = training.train_volatility(make_frame(bars))
    losses = {
        name.split("/")[0]: value
        for name, value in result.model.manifest.scores.items()
        if name.endswith(f"/{HEADLINE_MIN}m/qlike")
    }
    figures = result.verdict.figures
    return {
        "serves": float(result.verdict.beats_baselines),
        "QLIKE": losses["xgboost"],
        "to best baseline": figures["ratio_to_baseline"],
        "95 % bound": figures["ratio_to_baseline_bound"],
        "to HARX": losses["xgboost"] / losses["harx"],
        "to HAR": losses["xgboost"] / losses["har"],
    }


def runs(symbol: str, chosen: Sequence[str], days: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The name and the bars of each run on the generated market."""
    for run in chosen:
        seed, end_day = map(int, run.split(":"))
        yield f"{symbol}, seed {seed}, until day {end_day}", generated_bars(symbol, seed, days, end_day - days)


def real_runs(days: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The same for the real bars; nothing without them."""
    bars = real_bars()
    if bars is None:
        return
    for end in REAL_ENDS:
        end_ns = int(np.datetime64(end, "ns").astype(np.int64))
        yield (
            f"real BTC/USDT, until {end}",
            bars[(bars["ts_ns"] < end_ns) & (bars["ts_ns"] >= end_ns - days * NS_PER_DAY)],
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each run and one for the means."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generated_skill", description=__doc__)
    parser.add_argument("--symbol", default="BTC/USD", choices=sorted(PAIRS))
    parser.add_argument(
        "--runs", nargs="*", default=RUNS, metavar="SEED:DAY", help="seed and the day of the history's end"
    )
    parser.add_argument("--days", type=int, default=DAYS, help="days of history")
    parser.add_argument("--real", action="store_true", help="judge real bars, too")
    chosen = parser.parse_args(sys.argv[1:] if argv is None else argv)
    kinds = [runs(chosen.symbol, chosen.runs, chosen.days)]
    if chosen.real and real_bars() is None:
        print(f"The real bars are left out: {DATA} does not hold {' and '.join(REAL_FILES)}.")
    elif chosen.real:
        kinds.append(real_runs(chosen.days))
    for kind in kinds:
        rows = []
        for name, bars in kind:
            rows.append(gate_figures(bars))
            print_row(name, rows[-1], with_header=len(rows) == 1)
        if rows:
            print_row(f"mean of {len(rows)}", {key: float(np.mean([row[key] for row in rows])) for key in rows[0]})
    return 0


def print_row(name: str, figures: dict[str, float], *, with_header: bool = False) -> None:
    """One row of a Markdown table."""
    if with_header:
        print("| history | " + " | ".join(figures) + " |\n|---|" + "---|" * len(figures))
    print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in figures.values()) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
