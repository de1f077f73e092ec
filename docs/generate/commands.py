"""The command line, as typer documents it.

What does not belong here: recipes (`docs/how-to`).
"""

from __future__ import annotations

import subprocess
import sys


def page() -> str:
    """Every command with its arguments and options."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "btc_cli.app",
        "utils",
        "docs",
        "--name",
        "btc",
        "--title",
        "Command line",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
