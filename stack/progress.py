"""Whether a process that starts makes progress: it uses the processor, or it writes to its log.

What does not belong here: how long a start without progress may last (`Component.start_timeout_s`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

MIN_CPU_S = 0.5
"""Processor time that counts as progress. An idle server uses less in a minute; one that starts on a crowded machine uses it
in a few seconds."""


class Progress:
    """When a starting process last made progress."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._log_bytes = -1
        self._cpu_s = -MIN_CPU_S
        self._pid = 0
        self._last_s = time.monotonic()

    def idle_s(self, pid: int) -> float:
        """How long the process has made no progress, s."""
        cpu_s, log_bytes = _cpu_s(pid), self._size()
        if pid != self._pid or cpu_s - self._cpu_s >= MIN_CPU_S or log_bytes != self._log_bytes:
            self._pid, self._cpu_s, self._log_bytes = pid, cpu_s, log_bytes
            self._last_s = time.monotonic()
        return time.monotonic() - self._last_s

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0


def _cpu_s(pid: int) -> float:
    """Processor time of a process and its children, s; 0 when it cannot be read."""
    try:
        process = psutil.Process(pid)
        used = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    except psutil.Error:
        return 0.0
    return sum(times.user + times.system for times in used)
