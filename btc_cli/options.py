"""Options that several commands share, and the stack that `--data-dir` names.

What does not belong here: creating a stack (`btc_cli/stack.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btc_core.errors import InvalidInput, StackError
from stack.layout import Layout, current_data_dir

if TYPE_CHECKING:
    from btc_core.settings import Settings
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


def require_folder(option: str, file: Path | None) -> None:
    """Raise `InvalidInput` if the folder of a file to be written does not exist: a misspelled path makes no folder."""
    if file is not None and not file.parent.is_dir():
        msg = f"{option} {file}: there is no folder {file.parent}; create it, or name a file in another one"
        raise InvalidInput(msg)


def open_stack(data_dir: Path | None) -> Stack:
    """The stack in `data_dir`, or the current one; raises `StackError` if there is none."""
    from stack.runtime import Stack  # noqa: PLC0415 - half a second, which a command that only needs settings can save

    return Stack(_existing(data_dir).data_dir)


def stack_settings(data_dir: Path | None) -> Settings:
    """The settings of the stack in `data_dir`, or of the current one; raises `StackError` if there is none."""
    return _existing(data_dir).settings()


def _existing(data_dir: Path | None) -> Layout:
    layout = Layout(data_dir or current_data_dir())
    if not layout.exists:
        msg = f"there is no stack in {layout.data_dir}; start one with `btc up`"
        raise StackError(msg)
    return layout
