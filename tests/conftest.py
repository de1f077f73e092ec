"""Fixtures of every test. Those that need a real server are in `tests/service/conftest.py`."""

from __future__ import annotations

import gc
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator

# Before NumPy and XGBoost are loaded: three processes keep the cores busy, so threads of theirs would only wait for each other.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

TESTS = Path(__file__).parent
MARKED_BY_FOLDER = {name: name for name in ("unit", "service", "stack", "browser", "faults")}
PARTS = (
    ("stack", "faults"),
    ("service/btc_assets", "service/btc_core", "service/serving"),
    ("service",),
)
"""`make test` runs each part in a process of its own. A test belongs to the first part that names its folder. Each process has
servers of its own, and runs the same tests in the same order every time. Whichever is done first goes on with the unit tests."""


def pytest_collection() -> None:
    """Importing makes millions of objects and no garbage, so looking for garbage meanwhile finds nothing."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What was imported stays until the end; the search for garbage of tests leaves it out."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's folder says what it needs, so `-m "not stack"` works without a line in each file."""
    folder_of = cache(lambda path: path.relative_to(TESTS).parts[0])
    for item in items:
        folder = folder_of(item.path)
        if folder in MARKED_BY_FOLDER:
            item.add_marker(MARKED_BY_FOLDER[folder])


class Parts(LoadScopeScheduling):
    """Gives each process a part of the tests with servers, and then folders of unit tests until none is left."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # in the order of the collection, unit tests come last
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0].removeprefix("tests/")
        for number, folders in enumerate(PARTS):
            if file.startswith(tuple(f"{folder}/" for folder in folders)):
                return f"part {number}"
        return file.rpartition("/")[0]


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


@pytest.fixture(autouse=True, scope="session")
def _servers_that_live_for_seconds() -> Iterator[None]:
    """Kafka and QuestDB of tests run without the optimizing compiler: they end before its work pays."""
    patch = pytest.MonkeyPatch()
    patch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    yield
    patch.undo()
