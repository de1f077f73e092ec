"""How the fold is compiled: numba, cached on disk, without the GIL.

numba's own cache looks only at the file of the function that is called, not at those of the functions it inlines.
So the cache lies in a folder named by the text of all of them.
What does not belong here: anything that computes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba

_ROOMS = ("features", "models")
"""Packages with compiled functions. Any change in any of their files makes a new cache."""


def _cache_dir() -> str:
    core = Path(__file__).parent
    files = sorted(file for room in _ROOMS for file in (core / room).glob("**/*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(base / "btc-forecast" / f"numba-{digest}")


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = _cache_dir()  # type: ignore[attr-defined]


def njit(function: Any) -> Any:
    """Compile at the first call, keep the result on disk, release the GIL while it runs."""
    return numba.njit(cache=True, nogil=True)(function)
