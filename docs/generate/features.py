"""Features, from the catalogue `btc_core/features/catalogue.py`, each with its formula as `btc_core/features/formulas.py` computes it.

What does not belong here: which of them a model likes; MLflow has each model's importances.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import btc_core
from btc_core.features.catalogue import FEATURE_VERSION, FEATURES
from docs.generate.markdown import code, table

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = ("features/formulas.py", "features/state.py")
"""Where formulas, and the functions they call, are."""
ROW_NAMES = {"row", "s.block"}
"""What a row is called where its columns are computed."""
GROUPS = {
    "volatility": "How much the mid moved; also from minute bars alone.",
    "returns": "Where the mid moved; also from minute bars alone.",
    "time": "The clock; also from minute bars alone.",
    "activity": "How much was traded; also from minute bars alone.",
    "microstructure": "The book, the flow of orders and the pace of events; empty on minute bars, which trees take.",
    "chart": "For people: means and extremes of the last quotes. No model reads them.",
    "gold": "For the bars of `gold_1min`. No model reads them.",
}
HEAD = f"""\
# Features

```
curl -s http://127.0.0.1:5050/v1/features          # the newest row, by name
btc replay frames.txt --out rows.parquet           # the same columns from a recorded file
```

One fold computes them, row by row, in the stream and in every replay. A row is a quote or a trade. Windows end at the
event and begin at a whole second; steps of a minute end at the last whole second. A feature is empty until its window is
covered. Sets carry a version, now `{FEATURE_VERSION}`: rows and models of another one are refused.

The formula is the line of [`btc_core/features/formulas.py`](#functions) that fills the column; `s` is the state of the fold.
"""


def page() -> str:
    """Every feature by group, then the functions that formulas call."""
    expressions = formulas()
    parts = [HEAD]
    for group, words in GROUPS.items():
        rows = [
            (code(each.name), each.unit, f"{each.meaning}<br>{code(expressions[each.name])}", columns(each.upstream))
            for each in FEATURES
            if each.group == group
        ]
        shown = table(("feature", "unit", "meaning and formula", "comes from"), rows)
        parts.append(f"## {group.title()}\n\n{words}\n\n{shown}\n")
    parts.append("## Functions\n\nThose that formulas call.\n")
    parts += [f"```python\n{text}\n```\n" for text in _functions(" ".join(expressions.values()))]
    return "\n".join(parts)


def columns(upstream: tuple[str, ...]) -> str:
    """Columns of bronze by their table."""
    tables: dict[str, list[str]] = {}
    for owner, _, name in (place.partition(".") for place in upstream):
        tables.setdefault(owner, []).append(name)
    return "; ".join(f"[{owner}](tables.md#{owner}): {', '.join(names)}" for owner, names in tables.items())


def formulas() -> dict[str, str]:
    """What each column is set to, as the code says it; the last time where it is set more than once."""
    found: dict[str, str] = {}
    assigned = (node for tree, _ in _parsed() for node in ast.walk(tree) if isinstance(node, ast.Assign))
    for node in sorted(assigned, key=lambda node: node.lineno):
        for target, value in _pairs(node):
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) in ROW_NAMES:
                text = ast.unparse(value)
                if not text.startswith("block.") and text != "math.nan":
                    found[target.attr] = text
    return found


def _pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets and what each gets; a call that gives several values is what each of them gets."""
    for target in node.targets:
        if not isinstance(target, ast.Tuple):
            yield target, node.value
        elif isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield from ((one, node.value) for one in target.elts)


def _functions(text: str) -> Iterator[str]:
    """Source of the functions that are called in `text`."""
    for tree, source in _parsed():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and f"{node.name}(" in text:
                yield ast.get_source_segment(source, node) or ""


def _parsed() -> Iterator[tuple[ast.Module, str]]:
    folder = Path(btc_core.__file__).parent
    for name in SOURCES:
        source = (folder / name).read_text()
        yield ast.parse(source), source
