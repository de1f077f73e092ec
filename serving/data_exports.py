"""Long reads of a series for `/v1/data`: how many at once, how many rows, and for how long.

They have threads, connections and limits of their own, so they take nothing from the pages of `stored_rows` and from the
live endpoints. What does not belong here: which series there are (`btc_core.days.series`), and HTTP parameters
(`routes.data`).
"""

from __future__ import annotations

import itertools
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from btc_core.days.history import History
from btc_core.days.series import Series, missing_text
from btc_core.errors import ServiceError
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from serving.problem_details import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.clock import Clock
    from btc_core.settings import Settings

TIMEOUT_S = 30.0
"""Longest time for one chunk. One takes less than a second."""
RETRY_AFTER_S = 5
SHOWN_DAYS = 366
"""Days that an error lists."""


class Wanted(msgspec.Struct, frozen=True):
    """The rows that a request asks for."""

    series: Series
    symbol: str
    begin_ns: int
    end_ns: int
    columns: tuple[str, ...]
    may_miss_days: bool


class DataExports:
    """Starts reads, and refuses those beyond the limits."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._slots = threading.BoundedSemaphore(settings.api.max_exports)

    def start(self, wanted: Wanted) -> Export:
        """Start a read and fetch its first chunk, so that what fails at once is an error and not half an answer.

        Raises a 404 for days that were never stored, a 422 for too many rows, a 503 while too many reads are running, and
        `ServiceError`. The caller closes the export.
        """
        if not self._slots.acquire(blocking=False):
            most = self._settings.api.max_exports
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_exports",
                f"{most} answers of /v1/data are being sent already (BTC_API_MAX_EXPORTS); ask again in {RETRY_AFTER_S} s",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        export = Export(self._settings, self._slots)
        try:
            self._check(wanted, export.history)
            span = (wanted.symbol, wanted.begin_ns, wanted.end_ns)
            export.schema = wanted.series.described(wanted.columns, export.history, *span)
            export.begin(self._chunks(wanted, export.history))
        except BaseException:
            export.close()
            raise
        return export

    def _check(self, wanted: Wanted, history: History) -> None:
        """Refuse a read of days that are not stored, or of too many rows."""
        series, symbol, begin_ns, end_ns = wanted.series, wanted.symbol, wanted.begin_ns, wanted.end_ns
        stored = series.stored_days(history, symbol, begin_ns, end_ns)
        missing = series.days_without(stored, begin_ns, end_ns)
        if missing and not wanted.may_miss_days:
            raise Problem(
                HTTPStatus.NOT_FOUND,
                "days_not_stored",
                f"{missing_text(series, symbol, missing)}; ask for other days, or add missing=skip",
                more={"days": missing[:SHOWN_DAYS], "missing_days": len(missing)},
            )
        rows, most = sum(stored.values()), self._settings.api.export_max_rows
        if rows > most:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "too_many_rows",
                f"these days have {rows} rows, and an answer may have {most} (BTC_API_EXPORT_MAX_ROWS); ask for fewer days",
                more={"rows": rows, "max_rows": most},
            )

    def _chunks(self, wanted: Wanted, history: History) -> Iterator[pa.Table]:
        """The chunks until the time is over. An answer that has begun can only be broken off."""
        deadline_s = self._clock.monotonic_s() + self._settings.api.export_max_s
        series = wanted.series
        for chunk in series.chunks(history, wanted.symbol, wanted.begin_ns, wanted.end_ns, wanted.columns):
            yield chunk
            if self._clock.monotonic_s() > deadline_s:
                msg = f"the answer took more than {self._settings.api.export_max_s:g} s (BTC_API_EXPORT_MAX_S)"
                raise ServiceError(msg)


class Export:
    """A read that is running."""

    def __init__(self, settings: Settings, slots: threading.BoundedSemaphore) -> None:
        self._db = QuestDB(settings.questdb, TIMEOUT_S)
        self.history = History(self._db, lambda: ObjectStore(settings.store))
        self._slots = slots
        self._closed = threading.Lock()
        self.schema = pa.schema([])
        """The schema of all chunks."""
        self.chunks: Iterator[pa.Table] = iter(())

    def begin(self, chunks: Iterator[pa.Table]) -> None:
        """Fetch the first chunk."""
        first = list(itertools.islice(chunks, 1))
        self.chunks = itertools.chain(first, chunks)

    def close(self) -> None:
        """End the read. It may be called twice."""
        if self._closed.acquire(blocking=False):
            self.history.close()
            self._db.close()
            pa.default_memory_pool().release_unused()  # Arrow would keep it for its next allocations
            self._slots.release()
