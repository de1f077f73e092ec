"""`make chaos`: minutes of random faults from a seed, then tables of what came of them; exit status 1 if data is lost or different.

python -m tests.faults --minutes 10 --seed 1
python -m tests.faults --outage questdb valkey kafka --away 600
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from btc_core.errors import BtcError
from exchange_simulator.faults.catalogue import CATALOGUE
from stack.ports import free_ports
from stack.runtime import Stack
from tests.faults import user_model
from tests.faults.chaos import Chaos
from tests.faults.component_faults import COMPONENTS, DEV_MODE, SERVERS
from tests.faults.outcomes import outcomes
from tests.faults.plan import Plan
from tests.faults.report import component_table, exchange_table, totals
from tests.faults.verdict import judge_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.chaos import FaultReport
    from tests.faults.outcomes import Outcome
    from tests.faults.verdict import Verdict

MARKETS = ("kraken:BTC/USD", "kraken:ETH/USD", "binance-perp:BTC/USDT")
LEADER = "BTC/USDT@binance-perp"
"""The market whose features the others have as inputs, in the order of the log."""
RATE = 10.0
"""Speed of each simulated market: about 100 quotes and trades per second, more in its bursts."""
EVERY_S = 4.5
"""Average time between two faults; ten minutes have 130."""


def system(directory: Path, rate: float = RATE, markets: tuple[str, ...] = MARKETS, leader: str = LEADER) -> Stack:
    """A new stack with the simulator, the workers, the servers they need, and a user's model that serves; an empty `leader` is none."""
    os.environ.update(DEV_MODE)
    stack = Stack(directory)
    stack.create("sim", free_ports(), ("--rate", str(rate), "--ledger-mb", "0"), markets)
    with stack.layout.env_file.open("a") as file:
        file.write(f"BTC_LEADER={leader}\n")
    user_model.install(stack.settings)
    stack.up(only=COMPONENTS)
    return stack


def show(
    console: Console, report: FaultReport, verdicts: Mapping[str, Verdict], came_of: Mapping[str, Outcome]
) -> None:
    """Print what was injected, what came of each kind, and the totals."""
    console.print(component_table(report))
    console.print(exchange_table(report, came_of))
    console.print(totals(report, verdicts, came_of))


def main() -> int:
    """Run the faults and judge the data; 0 when nothing is missing, duplicate or different."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds between two faults, on average")
    parser.add_argument(
        "--rate", type=float, default=RATE, help="speed of each simulated market; 10 is 100 messages per second"
    )
    parser.add_argument(
        "--outage",
        nargs="+",
        default=[],
        choices=SERVERS,
        help="instead of random faults: stop these servers, one after another",
    )
    parser.add_argument(
        "--without", nargs="+", default=[], choices=CATALOGUE, help="kinds of the exchange's faults to leave out"
    )
    parser.add_argument("--away", type=float, default=600.0, help="seconds for which each of them is stopped")
    parser.add_argument("--keep", action="store_true", help="keep the data directory")
    args = parser.parse_args()
    console = Console(width=150)
    directory = Path(tempfile.mkdtemp(prefix="btc-chaos-"))
    stack = None
    try:
        stack = system(directory, args.rate)
        plan = (
            Plan(outages=tuple(args.outage), outage_s=args.away)
            if args.outage
            else Plan(args.seed, args.minutes * 60, args.every, without=tuple(args.without))
        )
        report = Chaos(stack, plan).run(console.print)
        verdicts, came_of = judge_all(stack.settings), outcomes(stack.settings)
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
    show(console, report, verdicts, came_of)
    is_sound = all(verdict.sound for verdict in verdicts.values()) and not report.not_reached
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
