"""The docstrings of the fields of structs, which msgspec leaves out of a JSON Schema.

What does not belong here: the document that they go into (`openapi`).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def describe(schemas: dict[str, dict[str, Any]], roots: Iterable[type]) -> None:
    """Add the docstrings of fields to the schemas of these structs and of all structs in them."""
    for kind in _structs(roots):
        properties = schemas.get(kind.__name__, {}).get("properties", {})
        texts = field_docs(kind)
        for field in msgspec.structs.fields(kind):
            if field.name in texts and field.encode_name in properties:
                schema = properties[field.encode_name]
                schema.setdefault("description", texts[field.name])


def field_docs(kind: type) -> dict[str, str]:
    """The docstring below each field of a class or of its bases, by the name of the field."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.partition(".")[0] in {"builtins", "msgspec"}:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, text in pairwise(statements):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = inspect.cleandoc(text.value.value).replace("\n", " ")
    return found


def _structs(roots: Iterable[type]) -> set[type[msgspec.Struct]]:
    """These structs and all structs that their fields can hold."""
    found: set[type[msgspec.Struct]] = set()
    waiting: list[Any] = list(msgspec.inspect.multi_type_info(roots))
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found.add(info.cls)
        waiting += _parts(info)
    return found


def _parts(info: Any) -> Iterator[Any]:
    """The types that a description of a type names."""
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, msgspec.inspect.Type):
                yield each
            elif isinstance(each, msgspec.inspect.Field):
                yield each.type
