"""The command `python -m streaming`."""

from __future__ import annotations

import importlib

import pytest

from btc_core.names import WorkerName
from streaming.__main__ import MODULES

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", WorkerName)
def test_every_worker_has_a_module_that_runs_it(name: WorkerName) -> None:
    assert callable(importlib.import_module(MODULES[name]).run)
