"""Tables and their columns, from the catalogue `btc_core/tables/catalogue.py`.

What does not belong here: how rows come about (`docs/concepts`).
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
    "bronze": "What the exchange sent.",
    "silver": "What the fold made of it.",
    "gold": "What people and models look at.",
}
HEAD = """\
# Tables

```
SELECT * FROM gold_1min WHERE symbol = 'BTC/USD' LIMIT -10     -- in QuestDB's console, port 9000
```

Tables are write-ahead logged, partitioned by day of their first column and keyed: a row that comes twice is one row.
Times are UTC with nanoseconds. A column comes from columns of other tables, from the exchange (`kraken.channel.field`),
from the envelope in the log (`log.field`) or from a model (`model.asset.field`).
"""


def page() -> str:
    """Every table by layer, in an order in which they can be created."""
    parts = [HEAD]
    for layer, words in LAYERS.items():
        parts.append(f"## {layer.title()}\n\n{words}\n")
        parts += [_table(each) for each in TABLES.values() if each.layer == layer]
    return "\n".join(parts)


def _table(one: Table) -> str:
    sources = {upstream.partition(".")[0] for column in one.columns for upstream in column.upstream} & set(TABLES)
    facts = [
        one.meaning,
        "A materialized view." if one.view else "Written when a day is sealed." if one.sealed else "",
        f"Keys: {', '.join(code(key) for key in one.keys)}.",
        f"A day leaves QuestDB after {code(variable('questdb', f'ttl_{one.ttl or one.layer}_days'))}"
        + ("." if one.view else ", once its copy is sound."),
        f"Made from {', '.join(f'[{name}](#{name})' for name in sorted(sources - {one.name}))}." if sources else "",
    ]
    rows = [(code(each.name), each.type, each.unit, each.meaning, _upstream(each)) for each in one.columns]
    shown = table(("column", "type", "unit", "meaning", "comes from"), rows)
    query = f"\n```sql\n{one.view}\n```\n" if one.view else ""
    return f"### {one.name}\n\n{' '.join(filter(None, facts))}\n\n{shown}\n{query}"


def _upstream(column: Column) -> str:
    if set(column.upstream) == EVERY_FEATURE:
        return "[every feature of the models](features.md)"
    return ", ".join(_linked(upstream) for upstream in column.upstream)


def _linked(upstream: str) -> str:
    owner, _, name = upstream.partition(".")
    return f"[{owner}](#{owner}).{name}" if owner in TABLES else code(upstream)
