"""Write-ahead logs of QuestDB's tables: which tables are suspended or behind, and how one is resumed.

QuestDB acknowledges rows once they are in the write-ahead log of their table, and applies them a little later. When it
cannot apply a transaction (the disk is full, say), it suspends the table: it still acknowledges rows, and queries no
longer show any. The rows stay in the log, so a resumed table has lost nothing.
What does not belong here: when a table is resumed (`streaming/storage_watch.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

Execute = Callable[[str], list[list[Any]]]
"""Runs one statement and returns its rows, as `QuestDB.execute` does."""

MAX_LAG_TRANSACTIONS = 300
"""A larger lag is a problem. The workers write two transactions a second to a table, and QuestDB applies hundreds, so this
is more than two minutes in which it applied none."""

_STATES = (
    "SELECT w.name, w.suspended, w.sequencerTxn - w.writerTxn, w.errorTag, w.errorMessage, t.table_type "
    "FROM wal_tables() w JOIN tables() t ON w.name = t.table_name"
)
_VIEW = "M"
"""`table_type` of a materialized view."""


class WalState(msgspec.Struct, frozen=True):
    """The write-ahead log of one table or materialized view."""

    table: str
    suspended: bool
    lag_transactions: int
    """Transactions that QuestDB has acknowledged and not applied."""
    error: str
    """Why QuestDB suspended the table, in its own words; "" when it gives no reason."""
    is_view: bool

    @property
    def problem(self) -> str:
        """What is wrong with the table; "" when nothing is."""
        if self.suspended:
            cause = f" ({self.error})" if self.error else ""
            return (
                f"QuestDB has suspended {self.table}{cause}: it acknowledges rows and does not show them, "
                f"{self.lag_transactions} transactions wait"
            )
        if self.lag_transactions > MAX_LAG_TRANSACTIONS:
            return (
                f"QuestDB does not show the newest rows of {self.table} yet: {self.lag_transactions} transactions wait"
            )
        return ""


def wal_states(execute: Execute) -> list[WalState]:
    """The state of every table and view that has a write-ahead log; raises what `execute` raises."""
    return [
        WalState(name, suspended, lag, ": ".join(filter(None, (tag, message))), kind == _VIEW)
        for name, suspended, lag, tag, message, kind in execute(_STATES)
    ]


def resume(execute: Execute, state: WalState) -> None:
    """Let QuestDB apply the log of a suspended table from the transaction that failed.

    No transaction is skipped. When the cause persists, QuestDB suspends the table again within moments.
    """
    kind = "MATERIALIZED VIEW" if state.is_view else "TABLE"
    execute(f'ALTER {kind} "{state.table}" RESUME WAL')
