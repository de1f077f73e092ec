"""`btc deadletters` and `btc redrive`: what could not be used, and sending it again.

What does not belong here: how (`btc_cli/deadletters.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
"""Its commands appear beside `btc up` and the others."""

SHOWN_CHARS = 60

DataDir = Annotated[Path | None, typer.Option(help="Directory of the stack; the current one when left out.")]
Reason = Annotated[str, typer.Option(help="Only letters of this reason, as the list shows it.")]


@app.command()
def deadletters(
    reason: Reason = "",
    last: Annotated[int, typer.Option(help="How many to list, the newest.")] = 20,
    show: Annotated[str, typer.Option(help="Write the raw bytes of this letter, partition:offset, instead.")] = "",
    data_dir: DataDir = None,
) -> None:
    """List what the workers could not use, with the reason and where it came from."""
    from collections import Counter  # noqa: PLC0415 - `btc --help` must be quick

    from btc_cli import deadletters as letters  # noqa: PLC0415 - the same
    from btc_cli.screen import table  # noqa: PLC0415 - the same
    from btc_core.clock import from_ns  # noqa: PLC0415 - the same
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - the same

    found = letters.read(Layout(data_dir or current_data_dir()).settings().kafka, reason)
    if show:
        sys.stdout.buffer.write(letters.find(found, show).body.raw + b"\n")
        return
    rows = [
        (
            letter.place,
            f"{from_ns(letter.body.ts_ns):%Y-%m-%d %H:%M:%S}",
            letter.body.source,
            letter.body.reason,
            f"{letter.body.topic}[{letter.body.partition}]@{letter.body.offset}" if letter.body.topic else "the socket",
            "yes" if letter.redriven else "",
            letter.body.message[:SHOWN_CHARS],
        )
        for letter in found[-last:]
    ]
    table(("letter", "time (UTC)", "found by", "reason", "came from", "sent again", "what"), rows)
    counts = Counter(letter.body.reason for letter in found)
    typer.echo(
        f"{len(found)} dead letters: " + (", ".join(f"{n} {name}" for name, n in counts.most_common()) or "none")
    )


@app.command()
def redrive(
    places: Annotated[list[str] | None, typer.Argument(help="Letters as partition:offset; all when left out.")] = None,
    reason: Reason = "",
    data_dir: DataDir = None,
) -> None:
    """Send dead letters again that can be read now: after an upgrade that understands them, say."""
    from btc_cli import deadletters as letters  # noqa: PLC0415 - `btc --help` must be quick
    from stack.layout import Layout, current_data_dir  # noqa: PLC0415 - the same

    settings = Layout(data_dir or current_data_dir()).settings()
    found = letters.read(settings.kafka, reason)
    wanted = [letters.find(found, place) for place in places] if places else found
    sent, refused = letters.redrive(settings, wanted)
    for letter, why in refused:
        typer.echo(f"{letter.place} ({letter.body.reason}) not sent: {why}")
    typer.echo(f"{len(sent)} sent again, {len(refused)} not")
