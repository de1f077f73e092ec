"""`btc alert test` sends a message to every contact, and `btc alert check` reads the file with alerts of the user's own.

What does not belong here: sending, reading the file, and when alerts are sent (`serving.alerts`).
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
    CHECK = "check"


def alert(
    action: Annotated[
        Action,
        typer.Argument(
            help="test: send a test message to each contact of BTC_ALERT_URLS. check: read BTC_ALERT_RULES."
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Send a test message to every contact of BTC_ALERT_URLS, or check the file BTC_ALERT_RULES.

    The exit code is 1 if a contact did not take the message, there is no contact, or the file is wrong.
    """
    command = [sys.executable, "-m", "serving.alerts", f"--{action}"]
    environment = {**os.environ, **open_stack(data_dir).layout.environment()}
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
