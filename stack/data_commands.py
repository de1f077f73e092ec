"""Commands of `btc` that work on data files: replay, import, record.

Each imports what it needs inside itself, so that `btc --help` stays fast. What does not belong here: the stack.
"""

from __future__ import annotations

import typer

app = typer.Typer()
"""Its commands appear beside `btc up` and the others."""
