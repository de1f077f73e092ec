"""Markdown as the site reads it, and JSON Schema in words.

What does not belong here: what a page says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "as `{}`",
}
"""Keywords of JSON Schema and what they ask for."""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; line breaks in a cell become spaces.

    >>> print(table(("a", "b"), [("1", "2 or 3")]))
    | a | b |
    | --- | --- |
    | 1 | 2 or 3 |
    """
    lines = (headings, ("---",) * len(headings), *rows)
    return "\n".join(f"| {' | '.join(' '.join(text.split()) for text in line)} |" for line in lines)


def code(text: object) -> str:
    """Text as code, nothing for no text."""
    return f"`{text}`" if text != "" else ""


def kind(schema: dict[str, Any]) -> str:
    """The type that a schema asks for; a schema of its own is a link to its heading.

    >>> kind({"type": "array", "items": {"type": "integer"}})
    'array of integer'
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return " or ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"]))
    types = schema.get("type", "anything")
    name = " or ".join(types) if isinstance(types, list) else types
    if schema.get("format"):
        name = f"{name} ({schema['format']})"
    inside = schema.get("items") or schema.get("additionalProperties")
    return f"{name} of {kind(inside)}" if inside else name


def bounds(schema: dict[str, Any]) -> str:
    """What else it asks for.

    >>> bounds({"type": "integer", "minimum": 1, "maximum": 5})
    'at least 1, at most 5'
    """
    return ", ".join(words.format(schema[name]) for name, words in BOUNDS.items() if name in schema)
