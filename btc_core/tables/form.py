"""What a column and a table are, and the DDL made of them.

What does not belong here: which ones there are (`tables`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from btc_core.settings import QuestdbSettings

Layer = Literal["bronze", "silver", "gold"]
ColumnType = Literal["TIMESTAMP_NS", "SYMBOL", "DOUBLE", "LONG", "INT", "BOOLEAN", "VARCHAR"]


class Column(msgspec.Struct, frozen=True):
    """One column.

    `upstream` names columns as `table.column`, `kraken.channel.field`, `log.field` of the envelope, or
    `model.asset.field`. Only what comes from the code or a clock has none.
    """

    name: str
    type: ColumnType
    unit: str
    meaning: str
    upstream: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """A WAL table, partitioned by day of its first column, deduplicated on `keys`; or a materialized view."""

    name: str
    layer: Layer
    meaning: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    ttl: str = ""
    """Name of its TTL in the settings when it is not that of its layer."""
    view: str = ""
    """The SELECT of a materialized view; empty for a table."""
    sealed: bool = False
    """Written when a day is sealed, not by the stream."""

    @property
    def timestamp(self) -> str:
        """The designated timestamp."""
        return self.columns[0].name

    def ttl_days(self, settings: QuestdbSettings) -> int:
        """How long QuestDB keeps a day, from the settings of the layer."""
        return int(getattr(settings, f"ttl_{self.ttl or self.layer}_days"))

    def ddl(self, settings: QuestdbSettings, name: str = "") -> str:
        """CREATE statement, also for a scratch table of another name.

        Only views have a TTL in QuestDB: a day of a table is dropped once its backup is verified (`lake.drop_old`).
        """
        if self.view:
            return (
                f"CREATE MATERIALIZED VIEW IF NOT EXISTS {self.name} REFRESH IMMEDIATE AS ({self.view}) "
                f"PARTITION BY DAY TTL {self.ttl_days(settings)} DAYS"
            )
        columns = ", ".join(f"{column.name} {column.type}" for column in self.columns)
        return (
            f"CREATE TABLE IF NOT EXISTS {name or self.name} ({columns}) TIMESTAMP({self.timestamp}) "
            f"PARTITION BY DAY WAL DEDUP UPSERT KEYS({', '.join(self.keys)})"
        )
