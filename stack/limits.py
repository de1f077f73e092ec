"""Limits of the operating system that QuestDB and Kafka can run into: open files and memory maps.

What does not belong here: showing them (`btc_cli/doctor.py`).
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

OPEN_FILES = 65_536
"""QuestDB keeps a file open for each column of each partition in use, Kafka three for each segment: a few thousand in all.
On a stock machine the soft limit is 1,024."""
MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
MEMORY_MAPS = 1_048_576
"""The number that QuestDB recommends for `vm.max_map_count`."""
NEARLY = 0.8
"""A process that uses more than this share of a limit soon meets it."""


def open_files() -> int:
    """The number of open files that this process may allow the servers: what it has, or what it may raise it to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [OPEN_FILES if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard)]
    return max(limits[0], min(OPEN_FILES, limits[1]))


@dataclass(frozen=True)
class Usage:
    """How much of a limit a process uses."""

    what: str
    used: int
    limit: int

    @property
    def is_near(self) -> bool:
        """Whether the process soon meets the limit."""
        return self.used > NEARLY * self.limit

    def __str__(self) -> str:
        return f"{self.used:,} of {self.limit:,} {self.what}"


def usage_of(pid: int) -> list[Usage]:
    """What a process uses of the limits, as far as this system and this account may see it."""
    found = []
    try:
        process = psutil.Process(pid)
        soft, _hard = process.rlimit(psutil.RLIMIT_NOFILE)
        if soft >= 0:
            found.append(Usage("open files", process.num_fds(), soft))
        maps = len((Path("/proc") / str(pid) / "maps").read_bytes().splitlines())
        found.append(Usage("memory maps", maps, int(MAX_MAP_COUNT.read_text())))
    except (psutil.Error, OSError):
        pass
    return found
