"""Copies of days that an import or its undoing has to respect: days that only the object store holds, and stale copies.

What does not belong here: making and restoring copies (`lake`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.days import lake
from btc_core.days.stored_days import stored_days
from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table


def check_in_questdb(db: QuestDB, store: ObjectStore, tables: Sequence[Table], first: str, last: str) -> None:
    """Raise `InvalidInput` if a copy of a day from `first` to `last` has more rows than QuestDB has of that day.

    Such a day has left QuestDB. Rows that are compared with it or removed from it there would be wrong after a restore.
    """
    for table in tables:
        stored = stored_days(db, table)
        days = [
            day
            for day in lake.kept_days(store, table.name)
            if first <= day <= last
            and (manifest := lake.read_manifest(store, table.name, day)) is not None
            and manifest.rows > stored.get(day, 0)
        ]
        if days:
            msg = (
                f"the object store has rows of {table.name} from {days[0]} to {days[-1]} ({len(days)} days) that QuestDB "
                f"no longer has. Restore them first: btc restore --from {days[0]} --to {days[-1]}"
            )
            raise InvalidInput(msg)


def delete_copies(store: ObjectStore, table: Table, days: Iterable[str]) -> None:
    """Delete the copies of some days. The next backup of a day makes a new one from the rows that the day has then."""
    for day in days:
        manifest = lake.read_manifest(store, table.name, day)
        if manifest is not None:
            store.delete(lake.manifest_key(table.name, day))
            store.delete(manifest.key)
