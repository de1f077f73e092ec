"""The page `Troubleshooting`: every message that it quotes is one that the programs print."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.paths import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
MESSAGES = [
    line for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
PROGRAMS = ("btc_cli", "btc_core", "serving", "stack", "streaming")
VALUE = "…"
"""Stands for a value in a message, on the page and in `messages_of_the_programs`."""


@cache
def messages_of_the_programs() -> frozenset[str]:
    """Every line of every string in the programs, with `VALUE` in place of what is filled in."""
    files = [path for package in PROGRAMS for path in (ROOT / package).rglob("*.py")]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    texts = (_text(node) for node in nodes if isinstance(node, (ast.Constant, ast.JoinedStr)))
    return frozenset(_collapsed(line) for text in texts for line in text.splitlines())


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case _:
            return VALUE


def _collapsed(line: str) -> str:
    return re.sub(f"{VALUE}+", VALUE, line)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_programs(message: str) -> None:
    assert message in messages_of_the_programs()


def test_a_message_that_no_program_prints_is_noticed() -> None:
    assert len(MESSAGES) > 20
    assert "there is no forecast of … in Redis any more" not in messages_of_the_programs()


@pytest.mark.parametrize("symptom", SECTIONS)
def test_each_symptom_has_its_meaning_a_check_and_a_fix(symptom: str) -> None:
    assert re.findall(r"^\*\*(\w+)\.\*\*", SECTIONS[symptom], re.MULTILINE) == ["Meaning", "Check", "Fix"]
