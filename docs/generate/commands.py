"""The command line, as typer documents it.

What does not belong here: recipes (`docs/how-to`).
"""

from __future__ import annotations

from typing import cast

import typer
from typer.cli import get_docs_for_click
from typer.core import MARKUP_MODE_KEY

from btc_cli.app import app
from btc_cli.lazy import LazyGroup


def page() -> str:
    """Every command with its arguments and options."""
    group = cast(LazyGroup, typer.main.get_command(app))
    group.load_all()
    context = typer.Context(group, obj={MARKUP_MODE_KEY: app.rich_markup_mode})
    return get_docs_for_click(obj=group, ctx=context, name="btc", title="Command line")
