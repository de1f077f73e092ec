"""Options that several commands share, and the stack that `--data-dir` names.

What does not belong here: creating a stack (`btc_cli/stack.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from btc_core.errors import StackError
from stack.layout import current_data_dir
from stack.runtime import Stack

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data directory of the stack. Default: $BTC_DATA_DIR, else the stack in var that was started last.",
    ),
]
FirstDay = Annotated[str, typer.Option("--from", help="First day (UTC), for example 2026-07-19.")]
PortsFrom = Annotated[
    int | None,
    typer.Option("--ports-from", help="Give the servers consecutive ports, beginning with this number."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="File with a passphrase, under which stack.env with its secrets is copied, encrypted."
    ),
]
LastDay = Annotated[str, typer.Option("--to", help="Last day (UTC), inclusive.")]


def open_stack(data_dir: Path | None) -> Stack:
    """The stack in `data_dir`, or the current one; raises `StackError` if there is none."""
    stack = Stack(data_dir or current_data_dir())
    if not stack.layout.exists:
        msg = f"there is no stack in {stack.layout.data_dir}; start one with `btc up`"
        raise StackError(msg)
    return stack
