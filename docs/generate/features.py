"""Generate the page about features: the entries of the catalogue, each with its formula from the source code.

The importance of a feature for a model does not belong here: MLflow holds the importances of each model.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.features import depth as depth_module
from btc_core.features import formulas as formulas_module
from btc_core.features import leader as leader_module
from btc_core.features import state as state_module
from btc_core.features import window_sums as window_sums_module
from btc_core.features.catalogue import FEATURE_VERSION, FEATURES
from docs.generate.markdown import code, table

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = tuple(
    Path(str(module.__file__))
    for module in (formulas_module, depth_module, leader_module, window_sums_module, state_module)
)
"""The files that contain the formulas and the functions that formulas call."""
ROW_NAMES = {"row", "s.minute_features"}
"""The expressions that stand for a row in the code that computes its columns."""
GROUPS = {
    "volatility": "These features measure how much the mid price moved. Minute bars alone are enough to compute them.",
    "returns": "These features measure in which direction the mid price moved. Minute bars alone are enough to compute them.",
    "time": "These features encode the time of day. Minute bars alone are enough to compute them.",
    "activity": "These features measure how much was traded. Minute bars alone are enough to compute them.",
    "microstructure": "These features describe the order book, the order flow and the rate of events. They are empty on rows that are made "
    "from minute bars; the trees handle missing values.",
    "chart": "These features are means and extremes of the last quotes, for people to read. No model uses them.",
    "gold": "The bars of `gold_1min` are computed from these features. No model uses them.",
}
HEAD = f"""\
# Features

```
curl -s http://127.0.0.1:5050/v1/features          # the newest row, by name
btc replay frames.txt --out rows.parquet           # the same columns from a recorded file
```

The same code computes the features in the stream and in every replay. Each quote and each trade produces one row. A window
ends at the event and begins at a whole second. One-minute steps end at the last whole second before the event. A feature is
empty until the data covers its window. The feature set has a version, which is now `{FEATURE_VERSION}`. Rows and models of
another version are refused.

The formula in the table is the line of `btc_core/features/formulas.py` that computes the column. In a formula, `s` is the
state that the feature engine keeps of a market. The last section, [Functions](#functions), shows the functions that the
formulas call.
"""


def page() -> str:
    """Describe every feature by group, then the functions that the formulas call."""
    expressions = formulas()
    parts = [HEAD]
    for group, description in GROUPS.items():
        rows = [
            (code(each.name), each.unit, f"{each.meaning}<br>{code(expressions[each.name])}", columns(each.upstream))
            for each in FEATURES
            if each.group == group
        ]
        shown = table(("feature", "unit", "meaning and formula", "comes from"), rows)
        parts.append(f"## {group.title()}\n\n{description}\n\n{shown}\n")
    parts.append("## Functions\n\nThe formulas call these functions.\n")
    parts += [f"```python\n{text}\n```\n" for text in _functions(" ".join(expressions.values()))]
    return "\n".join(parts)


def columns(upstream: tuple[str, ...]) -> str:
    """List bronze columns by their table, with links to the tables."""
    tables: dict[str, list[str]] = {}
    for owner, _, name in (place.partition(".") for place in upstream):
        tables.setdefault(owner, []).append(name)
    return "; ".join(f"[{owner}](tables.md#{owner}): {', '.join(names)}" for owner, names in tables.items())


def formulas() -> dict[str, str]:
    """Return the expression that the code assigns to each column; the last one if there are several assignments."""
    found: dict[str, str] = {}
    assigned = (node for tree, _ in _parsed() for node in ast.walk(tree) if isinstance(node, ast.Assign))
    for node in sorted(assigned, key=lambda node: node.lineno):
        for target, value in _pairs(node):
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) in ROW_NAMES:
                text = ast.unparse(value)
                if not text.startswith("source.") and text != "math.nan":
                    found[target.attr] = text
    return found


def _pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield each target of an assignment with its value; a call that returns several values is the value of each target."""
    for target in node.targets:
        if not isinstance(target, ast.Tuple):
            yield target, node.value
        elif isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield from ((element, node.value) for element in target.elts)


def _functions(text: str) -> Iterator[str]:
    """Yield the source of each function that `text` calls."""
    for tree, source in _parsed():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and f"{node.name}(" in text:
                yield ast.get_source_segment(source, node) or ""


def _parsed() -> Iterator[tuple[ast.Module, str]]:
    for path in SOURCES:
        source = path.read_text()
        yield ast.parse(source), source
