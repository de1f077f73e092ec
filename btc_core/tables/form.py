"""What a column and a table are, and the DDL that creates a table.

What does not belong here: which tables there are (`catalogue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from btc_core.service_settings import QuestdbSettings

Layer = Literal["bronze", "silver", "gold"]
ColumnType = Literal["TIMESTAMP_NS", "SYMBOL", "DOUBLE", "LONG", "INT", "BOOLEAN", "VARCHAR"]


class Column(msgspec.Struct, frozen=True):
    """One column.

    `upstream` names columns as `table.column`, `kraken.channel.field`, `log.field` of the envelope, or
    `model.asset.field`. A column that comes from the code or from a clock has no upstream.
    """

    name: str
    type: ColumnType
    unit: str
    meaning: str
    upstream: tuple[str, ...] = ()


class Table(msgspec.Struct, frozen=True):
    """A WAL table that is partitioned by day of its first column and deduplicated on `keys`, or a materialized view."""

    name: str
    layer: Layer
    meaning: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    ttl: str = ""
    """The name of its TTL in the settings, where that is not the TTL of its layer."""
    view: str = ""
    """The SELECT of a materialized view; empty for a table."""
    sealed: bool = False
    """Whether the sealing of a day writes it, and not the stream."""

    @property
    def timestamp(self) -> str:
        """The designated timestamp."""
        return self.columns[0].name

    def ttl_days(self, settings: QuestdbSettings) -> int:
        """The number of days that QuestDB keeps, from the settings."""
        return int(getattr(settings, f"ttl_{self.ttl or self.layer}_days"))

    def ddl(self, settings: QuestdbSettings, name: str = "") -> str:
        """The CREATE statement; `name` creates a scratch table of the same form under another name.

        Only views have a TTL in QuestDB. A day of a table is dropped once its copy is verified (`days.lake.drop_old`).
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
