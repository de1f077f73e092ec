"""Every command on a page is run by a test, or has a written reason why none can; the command line accepts every `btc` command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from btc_cli.app import app
from tests.page_commands import ELSEWHERE, NOT_RUN, RUN, commands, matches, words_of_btc
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = commands()
EVERY_PAGE = pytest.mark.parametrize(
    "page",
    sorted({command.page for command in COMMANDS}),
    ids=lambda page: str(page.relative_to(ROOT)),
)
REASONS = tuple(pattern for patterns in NOT_RUN.values() for pattern in patterns)


@EVERY_PAGE
def test_every_command_is_run_or_has_a_reason(page: Path) -> None:
    tables = (*RUN, *ELSEWHERE, *REASONS)
    unknown = [command.text for command in COMMANDS if command.page == page and not matches(tables, command)]
    assert unknown == [], "tests/page_commands.py does not say what becomes of them"


@pytest.mark.parametrize("pattern", [*RUN, *ELSEWHERE, *REASONS])
def test_every_line_of_the_tables_is_used(pattern: str) -> None:
    assert any(matches((pattern,), command) for command in COMMANDS)


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_a_test_that_is_named_exists(place: str) -> None:
    file, _, name = place.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@EVERY_PAGE
def test_the_command_line_accepts_every_command_of_btc(page: Path) -> None:
    for command in COMMANDS:
        words = words_of_btc(command.text) if command.page == page else None
        if words is not None:
            parse([word for word in words if word != "--help"])  # it would print the help and end


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("status --nothing", "No such option"),
        ("models add --nothing", "No such option"),
        ("nothing", "No such command"),
        ("export bars", "Missing parameter"),
        ("logs ingest -n many", "valid integer"),
    ],
)
def test_a_wrong_command_is_not_accepted(words: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        parse(words.split())


def parse(words: list[str]) -> None:
    """Parse the words as `btc` does, down to the last subcommand, and run nothing."""
    context: Any = typer.main.get_command(app).make_context("btc", words)
    while hasattr(context.command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
