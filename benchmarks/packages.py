"""Benchmark of the installation: how much each package takes on the disk.

What does not belong here: what a running system takes (`start`, `growth`).
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from benchmarks.registry import Figure, Plan, benchmark

LOCK = Path(__file__).parents[1] / "requirements.lock"
SHOWN = 20
MB = 1e6


@benchmark("packages")
def packages(_plan: Plan) -> list[Figure]:
    """What the packages take that running needs: all of them, and each of the largest, without compiled bytecode."""
    sizes = {name: size for name in locked() if (size := installed_bytes(name))}
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:SHOWN]
    return [
        Figure(f"{len(sizes)} packages of {LOCK.name}", sum(sizes.values()) / MB, "MB"),
        *(Figure(name, sizes[name] / MB, "MB") for name in largest),
    ]


def locked() -> list[str]:
    """The packages of the lock, each once, also where it has a version for each version of Python."""
    return list(dict.fromkeys(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", LOCK.read_text(), re.MULTILINE)))


def installed_bytes(name: str) -> int:
    """The bytes of the files of an installed package, without compiled bytecode; 0 for one that this machine does not need."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return 0
    found = (Path(str(file.locate())) for file in files if "__pycache__" not in file.parts)
    return sum(path.stat().st_size for path in found if path.is_file())
