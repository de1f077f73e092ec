"""Generate the page about tables and their columns from the catalogue `btc_core/tables/catalogue.py`.

An explanation of how rows are produced does not belong here: it is in `docs/concepts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.tables.catalogue import TABLES
from docs.generate.markdown import code, table
from docs.generate.settings import variable

if TYPE_CHECKING:
    from btc_core.tables.form import Column, Table

EVERY_FEATURE = {f"silver_features.{name}" for name in MODEL_FEATURES}
LAYERS = {
    "bronze": "Bronze tables hold what the exchange sent.",
    "silver": "Silver tables hold the features that were computed from bronze.",
    "gold": "Gold tables hold bars, forecasts and their outcomes, for people and models.",
}
HEAD = """\
# Tables

```
SELECT * FROM gold_1min WHERE symbol = 'BTC/USD' LIMIT -10     -- in QuestDB's console, port 9000
```

Every table uses QuestDB's write-ahead log and is partitioned by the day of its first column. Every table has a
deduplication key: writing a row twice leaves one row. Times are UTC with nanosecond resolution. The last column says where
a value comes from: columns of other tables, the exchange (`kraken.channel.field`), the envelope of a Kafka message
(`log.field`) or a model (`model.asset.field`).
"""


def page() -> str:
    """Describe every table by layer, in an order in which the tables can be created."""
    parts = [HEAD]
    for layer, description in LAYERS.items():
        parts.append(f"## {layer.title()}\n\n{description}\n")
        parts += [_table(each) for each in TABLES.values() if each.layer == layer]
    return "\n".join(parts)


def _table(described: Table) -> str:
    sources = {upstream.partition(".")[0] for column in described.columns for upstream in column.upstream} & set(TABLES)
    facts = [
        described.meaning,
        "It is a materialized view."
        if described.view
        else "Rows are written when a day is sealed."
        if described.sealed
        else "",
        f"The key is {', '.join(code(key) for key in described.keys)}.",
        f"A day is dropped from QuestDB after {code(variable('questdb', f'ttl_{described.ttl or described.layer}_days'))}"
        + ("." if described.view else ", once its copy on the object store is verified."),
        f"It is computed from {', '.join(f'[{name}](#{name})' for name in sorted(sources - {described.name}))}."
        if sources
        else "",
    ]
    rows = [(code(each.name), each.type, each.unit, each.meaning, _upstream(each)) for each in described.columns]
    shown = table(("column", "type", "unit", "meaning", "comes from"), rows)
    query = f"\n```sql\n{described.view}\n```\n" if described.view else ""
    return f"### {described.name}\n\n{' '.join(filter(None, facts))}\n\n{shown}\n{query}"


def _upstream(column: Column) -> str:
    if set(column.upstream) == EVERY_FEATURE:
        return "[every model feature](features.md)"
    return ", ".join(_linked(upstream) for upstream in column.upstream)


def _linked(upstream: str) -> str:
    owner, _, name = upstream.partition(".")
    return f"[{owner}](#{owner}).{name}" if owner in TABLES else code(upstream)
