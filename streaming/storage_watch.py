"""A thread of the bronze worker that watches where rows end up: QuestDB's write-ahead logs and the disk.

It exports what it sees as metrics and resumes suspended tables. No transaction is ever skipped. Bronze is the process
that watches because it runs wherever tables are written, and no forecast waits for it.
What does not belong here: what ingest gives up when the disk fills (`disk_saver`).
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Self

from btc_core import metrics
from btc_core.errors import ServiceError
from btc_core.stores.disk import DiskTrend, Saving, free_bytes, saving
from btc_core.stores.questdb import QuestDB
from btc_core.stores.questdb_wal import Execute, WalState, resume, wal_states
from streaming.backoff import backoff_s

if TYPE_CHECKING:
    from btc_core.settings import DiskSettings, Settings

log = logging.getLogger(__name__)

LOOP_NAME = "bronze_storage"
"""The thread's name in `btc_loop_timestamp_seconds`: the alert LoopStuck notices when it has ended or hangs."""
PERIOD_S = 5.0
QUESTDB_TIMEOUT_S = 10.0
"""The query takes milliseconds. While QuestDB hangs, the thread must iterate more often than LoopStuck waits."""
JOIN_TIMEOUT_S = 1.0
"""Longest wait for the thread when the worker stops; a thread that waits for QuestDB ends with the process."""
RESUME_FIRST_S, RESUME_MAX_S = 5.0, 60.0
"""Pause between two attempts to resume a table, doubling. An attempt costs one failing transaction, and rows should appear
within a minute after the cause is gone."""
FORGET_S = 600.0
"""A table that is suspended again within this time continues with the long pause."""


class Resumer:
    """Resumes suspended tables, each after a pause that doubles while it is suspended again."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self._last_s: dict[str, float] = {}

    def look(self, execute: Execute, states: list[WalState], now_s: float) -> None:
        """Resume the tables whose pause is over; `now_s` is monotonic. Raises what `execute` raises."""
        for state in states:
            name = state.table
            since_s = now_s - self._last_s.get(name, float("-inf"))
            if not state.suspended:
                if name in self._attempts and since_s >= FORGET_S:
                    del self._attempts[name]
                continue
            attempts = self._attempts.get(name, 0)
            if attempts and since_s < backoff_s(attempts - 1, RESUME_FIRST_S, RESUME_MAX_S):
                continue
            self._attempts[name] = attempts + 1
            self._last_s[name] = now_s
            log.error("%s; attempt %d to resume it", state.problem, attempts + 1)
            metrics.WAL_RESUMES.labels(name).inc()
            resume(execute, state)


class StorageWatch:
    """Looks at QuestDB and at the disk every few seconds."""

    def __init__(self, settings: Settings) -> None:
        self._db = QuestDB(settings.questdb, QUESTDB_TIMEOUT_S)
        self._disk = settings.disk
        self._resumer = Resumer()
        self._trend = DiskTrend()
        self._suspended: set[str] = set()
        self._exported: set[str] = set()
        """Tables that have gauges."""
        self._step = Saving.NOTHING
        self._failure = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=LOOP_NAME, daemon=True)

    def __enter__(self) -> Self:
        """Watch from a thread until the end of the block."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(JOIN_TIMEOUT_S)
        if not self._thread.is_alive():
            self._db.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            metrics.LOOP_AT.labels(LOOP_NAME).set_to_current_time()
            self.look(time.monotonic())
            self._stop.wait(PERIOD_S)

    def look(self, now_s: float) -> None:
        """Look once; `now_s` is monotonic."""
        if self._disk.path:
            self._look_at_disk(self._disk, now_s)
        try:
            states = wal_states(self._db.execute)
            self._export(states)
            self._resumer.look(self._db.execute, states, now_s)
            self._failure = ""
        except ServiceError as error:
            if str(error) != self._failure:
                self._failure = str(error)
                log.warning("the write-ahead logs of the tables cannot be checked: %s", error)
            self._remove_gauges(self._exported)

    def _export(self, states: list[WalState]) -> None:
        suspended = {state.table for state in states if state.suspended}
        for name in self._suspended - suspended:
            log.warning("QuestDB applies the rows of %s again", name)
        self._suspended = suspended
        self._remove_gauges(self._exported - {state.table for state in states})
        for state in states:
            self._exported.add(state.table)
            metrics.WAL_SUSPENDED.labels(state.table).set(state.suspended)
            metrics.WAL_LAG.labels(state.table).set(state.lag_transactions)

    def _remove_gauges(self, tables: set[str]) -> None:
        for name in list(tables):
            metrics.WAL_SUSPENDED.remove(name)
            metrics.WAL_LAG.remove(name)
            self._exported.discard(name)

    def _look_at_disk(self, disk: DiskSettings, now_s: float) -> None:
        try:
            free = free_bytes(disk.path)
        except OSError as error:
            log.warning("the disk of %s cannot be read: %s", disk.path, error)
            return
        self._trend.add(now_s, free)
        self._step = saving(free, disk, self._step)
        metrics.DISK_FREE.labels(disk.path).set(free)
        metrics.DISK_DAYS_LEFT.labels(disk.path).set(self._trend.days_left())
        metrics.DISK_SAVING.labels(disk.path).set(self._step)
