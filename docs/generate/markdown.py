"""Format Markdown tables and code, and describe JSON Schema in words.

The content of a page does not belong here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matches `{}`",
}
"""JSON Schema keywords and the constraint that each expresses."""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table; line breaks in a cell become spaces.

    >>> print(table(("a", "b"), [("1", "2 or 3")]))
    | a | b |
    | --- | --- |
    | 1 | 2 or 3 |
    """
    lines = (headings, ("---",) * len(headings), *rows)
    return "\n".join(f"| {' | '.join(' '.join(text.split()) for text in line)} |" for line in lines)


def code(text: object) -> str:
    """Format text as code; an empty text stays empty."""
    return f"`{text}`" if text != "" else ""


def kind(schema: dict[str, Any]) -> str:
    """Describe the type that a schema requires; a reference to a named schema becomes a link to its heading.

    >>> kind({"type": "array", "items": {"type": "integer"}})
    'array of integer'
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return " or ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(option) for option in schema["anyOf"]))
    types = schema.get("type", "anything")
    name = " or ".join(types) if isinstance(types, list) else types
    if schema.get("format"):
        name = f"{name} ({schema['format']})"
    element = schema.get("items") or schema.get("additionalProperties")
    return f"{name} of {kind(element)}" if element else name


def bounds(schema: dict[str, Any]) -> str:
    """Describe the bounds that a schema sets beside the type.

    >>> bounds({"type": "integer", "minimum": 1, "maximum": 5})
    'at least 1, at most 5'
    """
    return ", ".join(text.format(schema[name]) for name, text in BOUNDS.items() if name in schema)
