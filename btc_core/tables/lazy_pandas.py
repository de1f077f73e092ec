"""Keeping pandas out of a process until it converts rows to a frame, which most processes never do.

What does not belong here: converting rows (`arrow`, and `stores.questdb`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence


class _NoPandas:
    """An import hook that hides pandas."""

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: object = None) -> None:
        if name == "pandas":
            raise ImportError(name)


def leave_out_pandas() -> None:
    """Let this process load pandas only when it converts rows to a frame, which saves 50 MB and 0.3 s until then.

    Arrow imports pandas, if it is installed, for the first array that it makes, to learn whether a pandas Series was given.
    Without pandas, `to_pylist` refuses times with nanoseconds.
    """
    if "pandas" in sys.modules:
        return
    hidden = _NoPandas()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)
