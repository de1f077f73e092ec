"""Commands whose modules are imported only when they run, so that `btc --help` and completion answer at once.

What does not belong here: which commands exist (`btc_cli/app.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAUNCHER_OPTIONS: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "options_metavar": "[OPTIONS] PROGRAM [ARGS]...",
}


@dataclass(frozen=True)
class Entry:
    """One command as `btc --help` lists it, and the function that implements it."""

    name: str
    function: str
    """`module:function`."""
    summary: str
    """The first line of the function's docstring."""
    panel: str | None = None
    """The panel of `btc --help` that lists the command; None is the first panel, "Commands"."""
    is_launcher: bool = False
    """Whether the command runs another program, whose name and arguments follow the options."""
    subcommands: tuple[tuple[str, str], ...] = ()
    """Names of commands below this one and their functions, as `module:function`. The function of the entry itself runs
    when none of them is named."""


def _function(place: str) -> Any:
    """The function at `module:function`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


class LazyCommand(TyperCommand):
    """A command that lists itself without its module, and imports it once its parameters are needed."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, short_help=entry.summary, rich_help_panel=entry.panel)
        self._entry = entry

    def load(self) -> Any:
        """The command itself, made from its function."""
        app = typer.Typer(name=self._entry.name, add_completion=False)
        if self._entry.subcommands:
            app.callback(invoke_without_command=True, short_help=self._entry.summary)(_function(self._entry.function))
            for name, function in self._entry.subcommands:
                app.command(name)(_function(function))
            return typer.main.get_command(app)
        options = _LAUNCHER_OPTIONS if self._entry.is_launcher else {}
        register = app.command(self._entry.name, short_help=self._entry.summary, **options)
        register(_function(self._entry.function))
        return typer.main.get_command(app)

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the loaded command."""
        return self.load().get_params(ctx)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse `args` for the loaded command, which the context then runs or completes."""
        return self.load().make_context(info_name, args, parent, **extra)


class LazyGroup(TyperGroup):
    """A group of lazy commands; a subclass names their `entries` in the order of the help."""

    entries: ClassVar[Sequence[Entry]]

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for entry in self.entries:
            self.add_command(LazyCommand(entry))

    def load_all(self) -> None:
        """Replace every lazy command by the command itself, for programs that read their parameters and help."""
        self.commands = {entry.name: LazyCommand(entry).load() for entry in self.entries}
