"""`python -m stack.disk_guard --path DIR --stop-below BYTES -- COMMAND …`: run a server only while its disk has room.

Kafka ends when it cannot write. Started again on a full disk, it can damage its metadata log, and then it begins without
any topic. So it is stopped in order before the disk is full, and it starts when there is room again. The guard replaces
itself by the command; a child of it watches the disk, so the process id stays that of the server.
What does not belong here: what else is given up while the disk fills (`btc_core/stores/disk.py`). This module imports only
the standard library, because the child stays in memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time

ROOM = 2
"""The server starts when this many times the bound are free: below that it would soon be stopped again."""
WATCH_S = 0.25
"""Kafka takes up to three seconds to end. A program that writes 90 MB/s needs as long for the default bound."""
WAIT_S = 2.0
REPEAT_S = 300.0
"""While the server waits for room, its log says so this often."""


def main() -> None:
    """Wait for room, then become the command."""
    parser = argparse.ArgumentParser(prog="python -m stack.disk_guard", description=__doc__)
    parser.add_argument("--path", required=True)
    parser.add_argument("--stop-below", type=int, required=True, metavar="BYTES")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    wait_for_room(args.path, args.stop_below * ROOM)
    server = os.getpid()
    if os.fork() == 0:
        watch(args.path, args.stop_below, server)
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a parent may ignore it, and programs inherit that
    os.execvp(args.command[0], args.command)  # noqa: S606 - starting the server is the purpose


def wait_for_room(path: str, needed: int) -> None:
    """Return once this many bytes are free."""
    said_s = float("-inf")
    while (free := shutil.disk_usage(path).free) < needed:
        if time.monotonic() - said_s > REPEAT_S:
            said_s = time.monotonic()
            say(f"only {free / 1e6:.0f} MB are free at {path}; the server starts when {needed / 1e6:.0f} MB are free")
        time.sleep(WAIT_S)


def watch(path: str, bound: int, server: int) -> None:
    """Stop the server when less than `bound` bytes are free; return once it has been told, or has ended."""
    while os.getppid() == server:
        free = shutil.disk_usage(path).free
        if free < bound:
            say(f"only {free / 1e6:.0f} MB are free at {path}: the server is stopped before the disk is full")
            os.kill(server, signal.SIGTERM)
            return
        time.sleep(WATCH_S)


def say(text: str) -> None:
    """Write one line to the server's log."""
    sys.stdout.write(f"disk guard: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
