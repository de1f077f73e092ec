"""Generate the page about the command line with typer's own documentation command.

Recipes that combine commands do not belong here: they are in `docs/how-to`.
"""

from __future__ import annotations

import subprocess
import sys


def page() -> str:
    """Describe every command with its arguments and options."""
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
