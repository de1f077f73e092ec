"""The env file of a composition without a checkout: everything that docker-compose.yml asks for, with new secrets."""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO

import pytest
from dotenv import dotenv_values

from tests.paths import ROOT

pytestmark = pytest.mark.unit


def _printed(exchange: str) -> dict[str, str | None]:
    command = [sys.executable, "-m", "stack.first_env", "--exchange", exchange]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dotenv_values(stream=StringIO(done.stdout), interpolate=False)


def test_it_has_every_variable_without_which_the_composition_does_not_start() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    live, simulated = _printed("live"), _printed("sim")
    assert all(live[name] and simulated[name] for name in required)
    secret = {name for name in required if name.endswith(("PASSWORD", "SECRET_KEY", "TOKEN"))}
    assert secret
    assert all(live[name] != simulated[name] for name in secret)
    added = dotenv_values(ROOT / "deploy" / "compose.sim.env", interpolate=False)
    assert added.items() <= simulated.items()
    assert not added.keys() & live.keys()
