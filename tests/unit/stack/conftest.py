"""The data directory that tests of the stack share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stack.layout import Layout
from stack.ports import ports_from

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "sim")
    found.create("sim", ports_from(20_000))
    return found
