"""The command `python -m exchange_simulator`.

What does not belong here: anything but reading arguments and starting `server.Exchange`.
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
from exchange_simulator.server import Exchange, Options


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    args = argparse.ArgumentParser(
        prog="python -m exchange_simulator", description=sys.modules["exchange_simulator"].__doc__
    )
    add = args.add_argument
    add("--data-dir", type=Path, required=True, help="where the ledger is written")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="port for WebSocket and HTTP; 0 takes a free one and prints it")
    add("--seed", type=int, default=1, help="which generated market")
    add("--speed", type=float, default=1.0, help="market time against the clock; 0 (replay): as fast as clients read")
    add("--rate", type=float, default=1.0, help="multiplies the events of the generated market (100: about 1,000/s)")
    add("--symbols", nargs="+", default=["BTC/USD"], help="pairs of the generated market")
    add("--replay", type=Path, help="replay this recording instead of generating a market")
    add("--original-time", action="store_true", help="keep the times of the recording")
    add("--rest-rate-limit", type=float, default=1.0, help="Trades requests a second for each address; 0: no limit")
    add("--ledger-mb", type=float, default=200.0, help="disk space for the ledger; 0: keep counts only")
    add("--queue-mb", type=float, default=32.0, help="a client with more than this unread is disconnected")
    add("--faults-every", type=float, default=0.0, help="inject a fault about every so many seconds; 0: none")
    add("--faults-seed", type=int, default=1, help="which sequence of faults")
    add("--faults", default="", help="kinds to choose from, with commas (all); `btc fault --list` explains them")
    return args


def options(argv: list[str]) -> Options:
    """Read the arguments; exits with a message for bad ones."""
    args = parser()
    given = args.parse_args(argv)
    if given.speed < 0 or (given.speed == 0 and given.replay is None):
        args.error("--speed must be positive; 0 is for --replay")
    if given.rate <= 0 or given.seed < 0:
        args.error("--rate must be positive, --seed not negative")
    if given.faults_every < 0 or given.faults_seed < 0:
        args.error("--faults-every and --faults-seed must not be negative")
    return Options(**vars(given) | {"symbols": tuple(given.symbols)})


async def run(chosen: Options) -> None:
    """Run until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await Exchange(chosen).run()


def punctual_loop() -> asyncio.AbstractEventLoop:
    """One that wakes within a tenth of a millisecond: epoll's timeouts are whole milliseconds, rounded up.

    It bounds open files, so clients, to 1,023; an exchange on loopback has a handful.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        with asyncio.Runner(loop_factory=punctual_loop) as runner:
            runner.run(run(options(sys.argv[1:] if argv is None else argv)))
    except asyncio.CancelledError:
        return 0
    except BtcError as error:
        parser().exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
