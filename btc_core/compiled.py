"""Compilation of the fold and the models with numba: cached on disk, and without the GIL.

numba's own cache compares only the file of the function that is called, not the files of the functions that it inlines.
The cache directory is therefore named by a hash of all files with compiled functions.
What does not belong here: anything that computes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba

_ROOMS = ("features", "models")
"""The packages with compiled functions. A change in any of their files leads to a new cache directory."""


def _cache_dir() -> str:
    core = Path(__file__).parent
    files = sorted(file for room in _ROOMS for file in (core / room).glob("**/*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(base / "btc-forecast" / f"numba-{digest}")


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = _cache_dir()  # type: ignore[attr-defined]


def njit(function: Any) -> Any:
    """Compile a function at its first call, cache the result on disk, and release the GIL while the function runs."""
    return numba.njit(cache=True, nogil=True)(function)
