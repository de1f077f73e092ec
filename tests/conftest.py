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
FIRST_HALF = ("stack", "faults", "service/serving", "service/btc_core")
"""`make test` runs these folders in one process and all others in a second one; each half takes about as long. Both have servers
of their own and run the same tests in the same order every time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder says what it needs, so `-m "not stack"` works without a line in each file, and in which half it runs."""
    for item in items:
        file = item.path.relative_to(TESTS)
        if file.parts[0] in MARKED_BY_FOLDER:
            item.add_marker(MARKED_BY_FOLDER[file.parts[0]])
        half = "first" if any(file.is_relative_to(folder) for folder in FIRST_HALF) else "second"
        item.add_marker(pytest.mark.xdist_group(half))


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """No test reads the settings of a stack that happens to run on this machine."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("BTC_")]:
        patch.delenv(name)
    yield
    patch.undo()
