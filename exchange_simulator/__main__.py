"""The command `python -m exchange_simulator`.

What does not belong here: anything but reading the arguments and running `server.Exchange`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import selectors
import signal
import sys
from pathlib import Path

from btc_core.errors import BtcError
from exchange_simulator.market.precompile import compile_elsewhere
from exchange_simulator.server import Exchange, Options

DESCRIPTION = (
    "Simulate Kraken: WebSocket v2 and REST over a generated or a recorded market, with faults on demand; and Binance's "
    "perpetuals beside it."
)

MAX_LEAD_S = 60.0
"""A longer lead of a perpetual would show more of the future than any market does."""
SPEED_HELP = (
    "market time against wall time; 0 replays as fast as clients read. Only 1 fits a live stack: otherwise market time "
    "drifts away from the clients' clocks, and a restart sets it back"
)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    args = argparse.ArgumentParser(prog="python -m exchange_simulator", description=DESCRIPTION)
    add = args.add_argument
    add("--data-dir", type=Path, required=True, help="directory for the ledger")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="port for WebSocket and HTTP; 0 takes a free port and prints it")
    add("--seed", type=int, default=1, help="seed of the generated market")
    add("--speed", type=float, default=1.0, help=SPEED_HELP)
    add("--rate", type=float, default=1.0, help="multiplies the events of the generated market (100: about 1,000/s)")
    add("--symbols", nargs="+", default=["BTC/USD"], help="pairs of the generated market")
    add("--perpetuals", nargs="+", default=[], help="perpetuals of Binance at /binance-perp, such as BTC/USDT")
    add("--perpetual-lead-s", type=float, default=1.5, help="seconds by which a perpetual is ahead of its pair in USD")
    add("--replay", type=Path, help="replay this recording instead of generating a market")
    add("--original-time", action="store_true", help="keep the times of the recording")
    add("--rest-rate-limit", type=float, default=1.0, help="Trades requests a second for each address; 0: no limit")
    add("--ledger-mb", type=float, default=200.0, help="disk space for the ledger; 0: keep counts only")
    add("--queue-mb", type=float, default=32.0, help="disconnect a client with more than this unread")
    add("--faults-every", type=float, default=0.0, help="average seconds between injected faults; 0: no faults")
    add("--faults-seed", type=int, default=1, help="seed of the sequence of faults")
    add(
        "--faults",
        default="",
        help="comma-separated kinds of faults to draw from; all by default, and `btc fault --list` explains them",
    )
    return args


def options(argv: list[str]) -> Options:
    """Read the arguments; exits with a message when one is wrong."""
    args = parser()
    parsed = args.parse_args(argv)
    if parsed.speed < 0 or (parsed.speed == 0 and parsed.replay is None):
        args.error("--speed must be positive; 0 is allowed only with --replay")
    if parsed.rate <= 0 or parsed.seed < 0:
        args.error("--rate must be positive, --seed must not be negative")
    if parsed.faults_every < 0 or parsed.faults_seed < 0:
        args.error("--faults-every and --faults-seed must not be negative")
    if parsed.perpetuals and (parsed.replay or parsed.speed != 1):
        args.error("--perpetuals is of the generated market at --speed 1, so it cannot be combined with --replay")
    if not 0 <= parsed.perpetual_lead_s <= MAX_LEAD_S:
        args.error(f"--perpetual-lead-s must lie between 0 and {MAX_LEAD_S:.0f}")
    return Options(**vars(parsed) | {"symbols": tuple(parsed.symbols), "perpetuals": tuple(parsed.perpetuals)})


async def run(chosen: Options) -> None:
    """Run until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await Exchange(chosen).run()


def punctual_loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes within 0.1 ms of a deadline: it uses `select`, because `epoll` rounds up to whole ms.

    `select` allows at most 1,023 open files, and so clients; a simulated exchange has a handful.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(argv: list[str] | None = None) -> int:
    """Run the exchange; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    chosen = options(sys.argv[1:] if argv is None else argv)
    if chosen.replay is None:
        compile_elsewhere()
    try:
        with asyncio.Runner(loop_factory=punctual_loop) as runner:
            runner.run(run(chosen))
    except asyncio.CancelledError:
        return 0
    except BtcError as error:
        parser().exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
