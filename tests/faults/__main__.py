"""`make chaos`: minutes of random faults from a seed, then one table; exit status 1 if any data is lost or different.

python -m tests.faults --minutes 10 --seed 1
python -m tests.faults --outage questdb valkey kafka --away 600
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from btc_core.errors import BtcError
from stack.ports import free_ports
from stack.runtime import Stack
from tests.faults.chaos import KILLED, SERVERS, Chaos, FaultReport, Plan
from tests.faults.verdict import Verdict, judge

RATE = 20.0
"""Speed of the simulated market: about 200 quotes and trades per second, more in its bursts."""
EVERY_S = 4.5
"""Average time between two faults; ten minutes have 130."""


def system(directory: Path, rate: float = RATE) -> Stack:
    """A new stack with the simulator, the workers and the servers they need."""
    stack = Stack(directory)
    stack.create("sim", free_ports(), ("--rate", str(rate), "--ledger-mb", "0"))
    stack.up(only=KILLED)
    return stack


def show(console: Console, report: FaultReport, verdict: Verdict) -> None:
    """Print the result as one table."""
    table = Table(title="Chaos", show_header=False)
    rows: list[tuple[str, object]] = [
        ("faults injected", report.total),
        ("  kill -9", ", ".join(f"{name} {count}" for name, count in report.kills.items())),
        ("  SIGSTOP", ", ".join(f"{name} {count}" for name, count in report.freezes.items())),
        ("  by the exchange", ", ".join(f"{name} {count}" for name, count in report.exchange_faults.items())),
        ("  servers stopped", ", ".join(report.outages)),
        ("trades published", verdict.trades_published),
        ("  in bronze", verdict.trades_kept),
        ("  of them repaired", verdict.trades_repaired),
        ("  missing", verdict.trades_missing),
        ("  duplicate", verdict.trades_twice),
        ("gaps in the trade ids / open at the end", f"{verdict.gaps_seen} / {verdict.gaps_open}"),
        ("quotes sent / kept", f"{verdict.quotes_sent} / {verdict.quotes_kept}"),
        ("silver rows", verdict.silver_rows),
        ("  missing, against a replay of the log", verdict.silver_missing),
        ("  not in the replay", verdict.silver_extra),
        ("  different in any bit", verdict.silver_different),
        ("forecasts missing", verdict.forecasts_missing),
        ("Redis holds the newest row", "yes" if verdict.newest_in_redis_is_newest else "NO"),
        ("longest recovery", ", ".join(f"{name} {took:.1f} s" for name, took in report.recovery_s.items())),
        ("largest memory", ", ".join(f"{name} {used:.0f} MB" for name, used in report.memory_mb.items())),
        ("verdict", "[green]sound[/]" if verdict.sound else "[bold red]NOT SOUND[/]"),
    ]
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)


def main() -> int:
    """Run the faults and judge the data; 0 when nothing is missing, duplicate or different."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds between two faults, on average")
    parser.add_argument(
        "--rate", type=float, default=RATE, help="speed of the simulated market; 20 is 200 messages per second"
    )
    parser.add_argument(
        "--outage",
        nargs="+",
        default=[],
        choices=SERVERS,
        help="instead of random faults: stop these servers, one after another",
    )
    parser.add_argument("--away", type=float, default=600.0, help="seconds for which each of them is stopped")
    parser.add_argument("--keep", action="store_true", help="keep the data directory")
    args = parser.parse_args()
    console = Console(width=110)
    directory = Path(tempfile.mkdtemp(prefix="btc-chaos-"))
    stack = None
    try:
        stack = system(directory, args.rate)
        plan = (
            Plan(outages=tuple(args.outage), outage_s=args.away)
            if args.outage
            else Plan(args.seed, args.minutes * 60, args.every)
        )
        report = Chaos(stack, plan).run(console.print)
        verdict = judge(stack.settings)
    except BtcError as error:
        console.print(f"[bold red]the run did not finish:[/] {error}")
        args.keep = True
        return 1
    finally:
        if stack is not None:
            stack.down()
        if args.keep:
            console.print(f"the data is in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    show(console, report, verdict)
    return 0 if verdict.sound else 1


if __name__ == "__main__":
    sys.exit(main())
