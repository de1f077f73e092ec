"""`btc alert test`: sends a message to every contact, so that a person knows that alerts arrive.

What does not belong here: sending, and when alerts are sent (`serving.alerts`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from enum import StrEnum
from typing import Annotated

import typer

from btc_cli.options import DataDir, open_stack


class Action(StrEnum):
    """What `btc alert` does."""

    TEST = "test"


def alert(
    action: Annotated[Action, typer.Argument(help="test: send a test message to each contact of BTC_ALERT_URLS.")],
    data_dir: DataDir = None,
) -> None:
    """Send a test message to every contact of BTC_ALERT_URLS, and say which of them took it.

    The exit code is 1 if one of them did not, or there is none.
    """
    command = [sys.executable, "-m", "serving.alerts", f"--{action}"]
    environment = {**os.environ, **open_stack(data_dir).layout.environment()}
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
