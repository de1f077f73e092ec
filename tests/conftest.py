"""Fixtures of every test. Those that need a real server are in `tests/service/conftest.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
MARKED_BY_FOLDER = {name: name for name in ("unit", "service", "stack", "browser", "faults")}
FIRST_PART = ("stack", "faults", "service/serving", "service/btc_core")
"""`make test` runs these folders in one process, and the other folders that need servers in a second one. Both have servers of
their own and run the same tests in the same order every time. Whichever is done first goes on with the unit tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder says what it needs, so `-m "not stack"` works without a line in each file."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_BY_FOLDER:
            item.add_marker(MARKED_BY_FOLDER[folder])


class Parts(LoadScopeScheduling):
    """Gives each of two processes a part of the tests with servers, and then folders of unit tests until none is left."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # in the order of the collection, unit tests come last
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/unit/"):
            return nodeid.partition("::")[0].rpartition("/")[0]
        return "first" if nodeid.startswith(tuple(f"tests/{folder}/" for folder in FIRST_PART)) else "second"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """`--dist loadscope` means these parts here; other ways to distribute are those of pytest-xdist."""
    return Parts(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """No test reads the settings of a stack that happens to run on this machine."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("BTC_")]:
        patch.delenv(name)
    yield
    patch.undo()
