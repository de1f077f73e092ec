"""The command `python -m benchmarks [--quick] [--only NAME] [--json OUT]`: one table, and the same as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import (  # noqa: F401 - importing registers them
    beside,
    burst,
    data,
    days,
    durability,
    endurance,
    event_streams,
    forecast_proofs,
    growth,
    hops,
    models,
    nightly,
    packages,
    pure,
    servers,
    serving,
    start,
    storage,
    symbols,
    training_memory,
    verification,
    writers,
)
from benchmarks.registry import BENCHMARKS, Figure, Plan
from btc_core.errors import BtcError

FILE_WIDTH = 170
"""Columns of the table when it is not on a screen."""
LATEST = Path(__file__).parent / "results" / "latest.json"


def arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, fewer repeats, no servers")
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, default=LATEST, metavar="OUT", help=f"default: {LATEST.name} in results/")
    parser.add_argument("--data-dir", type=Path, help="measure latency on the stack that runs from this directory")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for; returns 1 when a benchmark could not run, whatever the figures are."""
    args = arguments(sys.argv[1:] if argv is None else argv)
    plan = Plan(args.quick, args.data_dir)
    wanted = args.only or [name for name, one in BENCHMARKS.items() if not (args.quick and one.needs_servers)]
    console = Console() if sys.stdout.isatty() else Console(width=FILE_WIDTH)
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    for name in wanted:
        with console.status(f"measuring {name}"):
            try:
                figures += BENCHMARKS[name].run(plan)
            except BtcError as error:
                failed[name] = str(error)
    console.print(render(figures))
    for name, problem in failed.items():
        console.print(f"[red]{name} was not measured:[/] {problem}")
    write(args.json, plan, figures, failed)
    console.print(f"written to {args.json}")
    return 1 if failed else 0


def render(figures: list[Figure]) -> Table:
    """One row a figure."""
    table = Table(title="Benchmarks (medians)")
    for name in ("what", "value", "unit", "target", "met", "compared with", "its", "times better"):
        table.add_column(name, justify="left" if name in {"what", "unit", "compared with"} else "right")
    for one in figures:
        sign = "≤" if one.better == "lower" else "≥"
        table.add_row(
            f"{one.name}{f' ({one.note})' if one.note else ''}",
            number(one.value),
            one.unit,
            "" if one.target is None else f"{sign} {number(one.target)}",
            {None: "", True: "[green]yes", False: "[red]no"}[one.met],
            one.naive,
            "" if one.naive_value is None else number(one.naive_value),
            "" if one.ratio is None else f"{one.ratio:.1f}",
        )
    return table


def number(value: float) -> str:
    """Three significant digits for small numbers, thousands separated for large ones."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def write(path: Path, plan: Plan, figures: list[Figure], failed: dict[str, str]) -> None:
    """The table as JSON, with what it was measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [msgspec.structs.asdict(one) | {"ratio": one.ratio, "met": one.met} for one in figures]
    machine = {
        "cores": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 2), "python": platform.python_version(),
        "processor": platform.machine(),
    }  # fmt: skip
    answer = {
        "at": datetime.now(UTC).isoformat(),
        "quick": plan.quick,
        "machine": machine,
        "figures": rows,
        "failed": failed,
    }
    path.write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
