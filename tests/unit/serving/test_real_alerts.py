"""Every alert is caused by its real fault in a test on real servers."""

from __future__ import annotations

import ast

from serving.alert_rules import RULES
from tests.paths import ROOT

FOLDERS = ("service", "stack", "faults")


def caused() -> dict[str, list[str]]:
    """By alert, the tests that cause it, as the marker `causes` says."""
    found: dict[str, list[str]] = {}
    for path in sorted(file for folder in FOLDERS for file in (ROOT / "tests" / folder).rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.causes":
                    for name in mark.args:
                        found.setdefault(ast.literal_eval(name), []).append(f"{path.name}::{node.name}")
    return found


def test_each_alert_has_a_test_with_its_real_fault() -> None:
    known, tested = {rule.name for rule in RULES}, set(caused())
    assert known == tested, f"without a test: {known - tested}, no such alerts: {tested - known}"
