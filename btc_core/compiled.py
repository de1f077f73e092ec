"""How numerical functions are compiled: with numba, cached on disk, without the GIL.

numba's own cache looks only at the file of the function that is called, not at the files of the functions that it
inlines. So the cache lies in a folder that is named by a hash of all of their text.
What does not belong here: anything that computes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba

from btc_core.cache_folder import cache_folder

_COMPILED_PACKAGES = ("features", "models")
"""Packages with compiled functions. A change in any of their files starts a new cache."""
_COMPILED_FILES = (
    "days/many_hashes.py",
    "exchanges/envelope_blocks.py",
    "exchanges/recorded_blocks.py",
    "exchanges/recorded_lines.py",
    "exchanges/tick_lines.py",
    "market/events.py",
)
"""Other files with compiled functions, and with the constants that these contain."""


def compiled_files() -> list[Path]:
    """The files whose text decides what is compiled."""
    core = Path(__file__).parent
    packages = {file for package in _COMPILED_PACKAGES for file in (core / package).glob("**/*.py")}
    return sorted(packages | {core / name for name in _COMPILED_FILES})


def _cache_dir() -> str:
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in compiled_files())).hexdigest()[:16]
    return str(cache_folder() / f"numba-{digest}")


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = _cache_dir()  # type: ignore[attr-defined]


def njit(function: Any) -> Any:
    """Compile at the first call, keep the result on disk, release the GIL while it runs."""
    return numba.njit(cache=True, nogil=True)(function)
