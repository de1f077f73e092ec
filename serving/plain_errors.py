"""What is wrong with a query or a body, in plain words: what is allowed, and what was given.

msgspec checks both, and its messages are for programmers ("Expected `int` >= 1 - at `$.limit`"). A long value is not repeated,
because somebody may have pasted a token into the wrong place. What does not belong here: the status and code of an error
(`problem_details`).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec

ECHOED_CHARACTERS = 12
"""The longest value that an error repeats; every token is longer."""
_KINDS = {
    "str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "null": "null", "array": "a list",
    "object": "an object", "any": "any value",
}  # fmt: skip
_EXPECTED = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
_FIELD = re.compile(r"(unknown|required) field `([^`]+)`")


def wrong_parameter(kind: type[msgspec.Struct], name: str, given: str | None) -> str:
    """What a parameter of a query must be, and what it is; `given` is None if it is missing."""
    allowed = allowed_words(_properties(kind).get(name, {}))
    if given is None:
        return f"the parameter {name} is missing; it must be {allowed}"
    return f"the parameter {name} must be {allowed}, and {_shown(given)} was given"


def unknown_parameter(kind: type[msgspec.Struct], name: str) -> str:
    """That a query has no parameter of this name, and which it has."""
    return f"there is no parameter {name!r} at this path; there {_listed(list(_properties(kind)))}"


def allowed_words(schema: dict[str, Any]) -> str:
    """The values that a JSON schema of a parameter allows.

    >>> allowed_words({"type": "integer", "minimum": 1, "maximum": 1000}), allowed_words({"enum": [1, 7, 28]})
    ('a whole number from 1 to 1,000', '1, 7 or 28')
    """
    if "enum" in schema:
        *most, last = map(str, schema["enum"])
        return f"{', '.join(most)} or {last}" if most else last
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    words = (
        "a time such as 2026-01-31T12:00:00Z"
        if "date-time" in {each.get("format") for each in (schema, *schema.get("anyOf", ()))}
        else kinds.get(schema.get("type", ""), "a text")
    )
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{words} from {low:,} to {high:,}"
    if "maxLength" in schema:
        return f"{words} of at most {schema['maxLength']:,} characters"
    return (
        f"{words} of at least {low:,}"
        if low is not None
        else f"{words} of at most {high:,}"
        if high is not None
        else words
    )


def wrong_body(error: msgspec.ValidationError, kind: type[msgspec.Struct], where: str) -> str:
    """What is wrong with a part of a body; `where` is its place, such as `rows[3].`, or "" for the body itself."""
    part, message = where.rstrip(".") or "the body", str(error)
    field = _FIELD.search(message)
    if field is not None and field[1] == "required":
        return f"{part} has no field {field[2]}, which it needs"
    if field is not None:
        return f"{part} has a field {field[2]!r} that is not known; it may have {', '.join(kind.__struct_fields__)}"
    found = _EXPECTED.search(message)
    if found is None:
        return f"{part}: {message}"
    needed = " or ".join(dict.fromkeys(_KINDS.get(each.strip(), each.strip()) for each in found[1].split("|")))
    name = f"{where}{found[3]}" if found[3] else part
    return f"{name} must be {needed}, and {_KINDS.get(found[2], found[2])} was given"


def _listed(names: list[str]) -> str:
    return f"are {', '.join(names)}" if len(names) > 1 else f"is {names[0]}" if names else "is none"


def _shown(value: str) -> str:
    return repr(value) if len(value) <= ECHOED_CHARACTERS else f"a text of {len(value)} characters"


@cache
def _properties(kind: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """The schemas of the parameters of a query."""
    _, components = msgspec.json.schema_components([kind])
    properties: dict[str, dict[str, Any]] = components[kind.__name__]["properties"]
    return properties
