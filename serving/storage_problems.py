"""What is wrong with the tables and the disk, for `/readyz`: a thread asks QuestDB, so that no request waits for it.

What does not belong here: repairing anything, which the worker bronze does (`streaming/storage_watch.py`).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from btc_core.errors import ServiceError
from btc_core.stores.disk import disk_problem
from btc_core.stores.questdb import QuestDB
from btc_core.stores.questdb_wal import wal_states

if TYPE_CHECKING:
    from btc_core.settings import Settings

PERIOD_S = 10.0
TIMEOUT_S = 5.0
"""QuestDB answers this query within milliseconds."""


class StorageProblems:
    """The problems that were found last."""

    def __init__(self, settings: Settings) -> None:
        self._disk = settings.disk
        self._db = QuestDB(settings.questdb, TIMEOUT_S)
        self._found: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._run, name="storage-problems", daemon=True)

    def __call__(self) -> tuple[str, ...]:
        """The problems; empty when there are none."""
        if self._thread.ident is not None and not self._thread.is_alive():
            return (*self._found, "the thread that looks at the tables has ended; restart this process")
        return self._found

    def start(self) -> None:
        """Look from a thread that ends with the process."""
        self._thread.start()

    def look(self) -> None:
        """Look once."""
        try:
            found = [state.problem for state in wal_states(self._db.execute)]
        except ServiceError as error:
            found = [str(error)]
        self._found = tuple(filter(None, (*found, disk_problem(self._disk))))

    def _run(self) -> None:
        while True:
            self.look()
            time.sleep(PERIOD_S)
