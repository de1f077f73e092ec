"""Which stack `btc up` starts, and what it says when another one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_cli import exchange_choice, screen
from stack.layout import Layout
from stack.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_up_warns_if_the_stack_of_the_clone_runs_and_another_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = tmp_path / "clone" / "var" / "live", tmp_path / "elsewhere" / "var" / "sim"
    Layout(ours).create("live")
    Layout(other).create("sim")
    (ours.parent / "current").symlink_to("live")
    running = {ours}
    warned: list[str] = []
    monkeypatch.setattr("stack.layout.ROOT", tmp_path / "clone")
    monkeypatch.setattr(Supervisor, "is_running", lambda self: self._layout.data_dir in running)
    monkeypatch.setattr(screen, "warn", warned.append)
    exchange_choice.warn_of_another(ours)
    assert not warned, "it is the same"
    exchange_choice.warn_of_another(other)
    assert warned[0].startswith(f"The stack in {ours} runs already, and this starts another one in {other}.")
    running.add(other)
    exchange_choice.warn_of_another(other)
    running.clear()
    exchange_choice.warn_of_another(other)
    assert len(warned) == 1, "both run, or none does"
