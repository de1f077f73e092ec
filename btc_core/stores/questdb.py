"""A thin client of QuestDB: statements, reads as Arrow tables, and acknowledged batch writes.

It reads Parquet over `GET /exp` and writes ILP over HTTP, which QuestDB acknowledges once the rows are in the WAL.
What does not belong here: what the tables look like (`tables`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

import httpx
import pyarrow as pa
from questdb import QuestDBError as _SenderError
from questdb import QuestDBErrorCode, Sender

from btc_core import metrics
from btc_core.errors import QuestDBError, RowsRefused, ServiceError
from btc_core.stores import origin, questdb_rows
from btc_core.stores.questdb_connection import explain_refusal, explain_silence, http_client, sender_conf
from btc_core.tables.arrow import read_parquet
from btc_core.waiting import wait_until

if TYPE_CHECKING:
    import pandas as pd
    from questdb.ingress import Buffer

    from btc_core.service_settings import QuestdbSettings
    from btc_core.tables.form import Table

TIMEOUT_S = 60.0
APPLY_TIMEOUT_S = 120.0
"""The longest time that written rows may take to become readable."""
WRITE_BYTES = 20_000_000
"""The size of one write. It is large enough for 100,000 rows/s and small enough to bound QuestDB's memory."""
BACKLOG_ROWS = 5_000
"""How many rows of large writes a client encodes one by one while pandas is not loaded. They are the backlog of a start; encoding
them takes as long as loading pandas, which would then stay in memory."""
_VALUE_ERRORS = {QuestDBErrorCode.BadDataFrame, QuestDBErrorCode.InvalidTimestamp, QuestDBErrorCode.InvalidUtf8}
"""The client cannot encode a value, such as a time before 1970."""
_SERVER_REFUSAL = '"code":"invalid"'
"""QuestDB cannot store a value in its column; other answers, such as a full disk, have other codes."""


class QuestDB:
    """One client; threads may share it for reads but not for writes."""

    def __init__(self, settings: QuestdbSettings, timeout_s: float = TIMEOUT_S) -> None:
        self.settings = settings
        self._http = http_client(settings, timeout_s)
        self._sender: Sender | None = None
        self._backlog_rows = BACKLOG_ROWS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Rows that were not acknowledged have already been reported as failed."""
        self._http.close()
        self._drop_sender()

    def execute(self, sql: str) -> list[list[Any]]:
        """Run one statement; the result's rows as JSON values, for DDL and small answers.

        Raises `QuestDBError` with QuestDB's message when it refuses, `ServiceError` when it does not answer.
        """
        answer = self._get("/exec", query=sql).json()
        return answer.get("dataset", [])  # type: ignore[no-any-return]

    def query(self, sql: str) -> pa.Table:
        """The result of a SELECT as an Arrow table; raises as `execute`, also when the answer is no Parquet file."""
        content = self._get("/exp", query=sql, fmt="parquet").content
        try:
            return read_parquet(content)
        except pa.ArrowInvalid as error:
            msg = f"QuestDB answered {len(content)} bytes that are no Parquet file ({error}) to: {sql[:300]}"
            raise QuestDBError(msg) from error

    def warnings(self) -> list[str]:
        """What QuestDB finds too low on its machine, such as the limit of memory maps; raises as `execute`."""
        return [str(each["warning"]) for each in self._get("/warnings").json()]

    def write(
        self, table: str, rows: pa.Table | pd.DataFrame, timestamp: str = "ts_event", *, once: bool = False
    ) -> None:
        """Write rows and return when QuestDB has acknowledged all of them.

        Many rows are encoded as a data frame, for which the process loads pandas. With `once`, they are always encoded one by
        one: use it for rows that a process writes only at its start.

        Strings that are SYMBOL columns are sent as strings; the table must exist. Raises `RowsRefused` when QuestDB will
        never take one of the values, and `QuestDBError` when it did not take the rows for another reason. The caller may
        write the same rows again: the table's keys deduplicate them.
        """
        if len(rows) == 0:
            return
        origin.before_write(origin.TABLES, self.settings.http_url, QuestDBError)
        try:
            with metrics.WRITE_TIME.labels(table).time():
                sender = self._open_sender()
                most = len(rows) if once else self._most_rows_without_frame(len(rows))
                sender.flush(_encoded(sender, table, rows, timestamp, most))
        except _SenderError as error:
            refused = _is_refusal(error)
            if not refused:
                self._drop_sender()
            msg = f"QuestDB at {self.settings.http_url} did not take {len(rows)} rows for {table}: {error}"
            raise (RowsRefused if refused else QuestDBError)(msg) from error
        metrics.ACKED_ROWS.labels(table).inc(len(rows))

    def _most_rows_without_frame(self, count: int) -> int:
        """How many rows the next write, of `count` rows, may have to be encoded one by one."""
        if questdb_rows.MOST_ROWS < count <= self._backlog_rows and "pandas" not in sys.modules:
            self._backlog_rows -= count
            return count
        return questdb_rows.MOST_ROWS

    def _open_sender(self) -> Sender:
        if self._sender is None:
            self._sender = Sender.from_conf(sender_conf(self.settings))
            self._sender.establish()  # type: ignore[no-untyped-call]
        return self._sender

    def _drop_sender(self) -> None:
        if self._sender is not None:
            self._sender.close(flush=False)
            self._sender = None

    def _get(self, path: str, **params: str) -> httpx.Response:
        try:
            response = self._http.get(path, params=params)
        except httpx.HTTPError as error:
            raise ServiceError(explain_silence(self.settings, error)) from error
        if response.status_code != httpx.codes.OK:
            refusal = explain_refusal(self.settings, response.status_code)
            if refusal:
                raise QuestDBError(refusal)
            try:
                words = response.json().get("error", response.text)
            except ValueError:
                words = response.text
            msg = f"QuestDB refused ({response.status_code}): {words[:500]} in: {params.get('query', path)[:300]}"
            raise QuestDBError(msg)
        return response


def _encoded(sender: Sender, table: str, rows: pa.Table | pd.DataFrame, timestamp: str, most: int) -> Buffer:
    """Rows as the sender sends them, one by one if they are not more than `most`; raises the client's error for a value that it cannot encode."""
    if isinstance(rows, pa.Table) and questdb_rows.can_encode(rows, most):
        buffer = sender.new_buffer()
        try:
            questdb_rows.encode(buffer, table, rows, timestamp)
        except ValueError:
            pass  # as a data frame the client names the value in its own error
        else:
            return buffer
    frame = rows.to_pandas() if isinstance(rows, pa.Table) else rows
    aware = frame.select_dtypes("datetimetz")
    if not aware.empty:  # the sender takes naive UTC times
        frame = frame.assign(**{str(name): aware[name].dt.tz_convert(None) for name in aware})
    buffer = sender.new_buffer()
    buffer.dataframe(frame, table_name=table, at=timestamp)
    return buffer


def _is_refusal(error: _SenderError) -> bool:
    """Whether a value is the reason, so that the same rows will be refused again."""
    if error.code in _VALUE_ERRORS:
        return True
    return error.code is QuestDBErrorCode.ServerFlushError and _SERVER_REFUSAL in str(error)


def append(db: QuestDB, table: Table, rows: pa.Table, name: str = "", *, once: bool = False) -> None:
    """Write rows of a table of the catalogue; `name` is that of a scratch table of the same form.

    QuestDB has acknowledged the rows when this returns, and shows them to queries a little later. `once` is that of `write`.
    """
    symbols = {column.name for column in table.columns if column.type == "SYMBOL"}
    # The sender cannot send a column of symbols without any value. A column that is not sent is null.
    empty = [name for name in rows.column_names if name in symbols and rows.column(name).null_count == len(rows)]
    rows = rows.drop_columns(empty)
    for place, column in enumerate(rows.column_names):
        if column in symbols:
            rows = rows.set_column(place, column, rows.column(column).combine_chunks().dictionary_encode())
    db.write(name or table.name, rows, table.timestamp, once=once)


def write_rows(db: QuestDB, table: Table, rows: pa.Table, name: str = "") -> None:
    """Upsert rows and return when queries can read them; a row whose keys are stored already replaces the stored one."""
    step = max(1_000, WRITE_BYTES // (8 * max(1, rows.num_columns)))
    for start in range(0, len(rows), step):
        append(db, table, rows.slice(start, step), name)
    if len(rows):
        wait_until_applied(db, name or table.name)


def applied(db: QuestDB, name: str) -> bool:
    """Whether queries can read everything that was written to a table.

    Raises `QuestDBError` when QuestDB has suspended the table.
    """
    state = db.execute(f"SELECT sequencerTxn, writerTxn, suspended FROM wal_tables() WHERE name = '{name}'")  # noqa: S608 - names of the catalogue
    if state and state[0][2]:
        msg = (
            f"QuestDB has suspended {name}: it acknowledges rows and does not show them. Free disk space if there is none; "
            "the worker bronze resumes the table within a minute"
        )
        raise QuestDBError(msg)
    return bool(state) and state[0][0] == state[0][1]


def wait_until_applied(db: QuestDB, name: str) -> None:
    """Return when queries can read what was written to a table; raises `QuestDBError` after `APPLY_TIMEOUT_S`."""
    if not wait_until(lambda: applied(db, name), APPLY_TIMEOUT_S, pause_s=0.02):
        msg = f"rows written to {name} were not readable after {APPLY_TIMEOUT_S:g} s"
        raise QuestDBError(msg)
