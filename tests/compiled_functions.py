"""Which compiled functions a program calls, for tests of the programs that compile ahead."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.paths import ROOT

CALLED = """
import gc, json
from numba.core.registry import CPUDispatcher
functions = [each for each in gc.get_objects() if isinstance(each, CPUDispatcher) and each.__module__.startswith("btc_core")]
print(json.dumps([f"{each.__name__}{signature}" for each in functions for signature in each.signatures]))
"""
"""Prints the functions that were compiled or loaded, with the types of their arguments."""


def called(code: str) -> set[str]:
    """The compiled functions that a program calls, with the types of their arguments.

    A program that is to compile ahead must be the first one that a test asks for: it then compiles what no cache has. A function
    that another compiled function calls is listed only by the program that compiles both.
    """
    command, env = [sys.executable, "-c", code + CALLED], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))
