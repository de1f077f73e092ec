"""Fixtures of every test. Those that need a real server are in `tests/service/conftest.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
MARKED_BY_FOLDER = {name: name for name in ("unit", "service", "stack", "browser", "faults")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder says what it needs, so `-m "not stack"` works without a line in each file."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_BY_FOLDER:
            item.add_marker(MARKED_BY_FOLDER[folder])


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """No test reads the settings of a stack that happens to run on this machine."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("BTC_")]:
        patch.delenv(name)
    yield
    patch.undo()
