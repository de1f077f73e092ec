"""The folder for what can be made again: compiled functions, and the classes that Java has loaded.

What does not belong here: what is kept in it (`compiled`, `stack.java`).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """`btc-forecast` in the first folder for caches that can be written; a container may have a read-only home.

    It need not exist yet.
    """
    for base in (os.environ.get("XDG_CACHE_HOME"), Path.home() / ".cache"):
        if not base:
            continue
        try:
            Path(base).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(base, os.W_OK):
            return Path(base) / "btc-forecast"
    return Path(tempfile.gettempdir()) / f"cache-{os.geteuid()}" / "btc-forecast"
