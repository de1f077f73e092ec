"""`btc rotate-secrets`: new passwords, keys and tokens for a running stack.

What does not belong here: how they are changed (`stack.rotation`).
"""

from __future__ import annotations

from typing import Annotated

import typer

from btc_cli import screen
from btc_cli.options import DataDir, open_stack
from btc_core.errors import InvalidInput
from stack.rotation import VARIABLES, rotate


def rotate_secrets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help=f"Whose secrets: {', '.join(VARIABLES)}.")
    ] = None,
    data_dir: DataDir = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All secrets that the stack has made itself.")] = False,
) -> None:
    """Give servers of a running stack new secrets without losing a message, and refuse the old ones.

    The processes that use them are restarted one after the other. If the command is interrupted, run it again.
    """
    if bool(names) == everything:
        msg = f"name whose secrets to rotate ({', '.join(VARIABLES)}), or give --all"
        raise InvalidInput(msg)
    stack = open_stack(data_dir)
    done = rotate(stack, tuple(names or ()), screen.progress)
    screen.say(f"new secrets of {', '.join(done)} are in {stack.layout.env_file}; the old ones are refused")
