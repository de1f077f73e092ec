"""Real servers for tests: started once a session by the code that `btc up` runs, on free ports, in a directory that goes.

```
def test_rows_are_kept(servers):
    settings = servers("questdb")
```
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack.ports import free_ports
from stack.runtime import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings


@contextmanager
def _fresh_stack() -> Iterator[Stack]:
    """A stack of its own in which nothing runs yet; whatever is started in it is stopped at the end."""
    # Not pytest's own directory: it takes back the permissions that PostgreSQL, not being root, needs to pass.
    directory = Path(tempfile.mkdtemp(prefix="btc-test-"))
    stack = Stack(directory)
    stack.create("sim", free_ports())
    try:
        yield stack
    finally:
        stack.down()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


def _starter(stack: Stack) -> Callable[..., Settings]:
    def start(*names: str) -> Settings:
        stack.up(only=names)
        return stack.settings

    return start


@pytest.fixture(scope="session")
def stack_of_session() -> Iterator[Stack]:
    """The stack that tests share."""
    with _fresh_stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def servers(stack_of_session: Stack) -> Callable[..., Settings]:
    """`servers("questdb", "kafka")` starts these (and what they wait for) unless they run, and gives the settings."""
    return _starter(stack_of_session)


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """A stack of a module's own: for tests that judge whole days, or lose a server's data."""
    with _fresh_stack() as stack:
        yield stack


@pytest.fixture(scope="module")
def own_servers(own_stack: Stack) -> Callable[..., Settings]:
    """As `servers`, in the module's own stack."""
    return _starter(own_stack)
