"""Describes an endpoint beside its view: its query, its answers and its errors.

The OpenAPI document (`openapi`) is made from this description and the query of a request is parsed with it, so the two
cannot disagree. What does not belong here: any single endpoint (`routes`, `legacy`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from flask import request
from msgspec import UNSET, UnsetType

from btc_core.clock import to_ns
from serving.plain_errors import unknown_parameter, wrong_parameter
from serving.problem_details import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from flask.typing import ResponseReturnValue

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Bounds of times in parameters. Nothing was recorded before the first, and times in nanoseconds end in 2262."""
SHOWN_CHARACTERS = 64
"""How much of a client's own text an error repeats."""

Symbol = (
    Annotated[str, msgspec.Meta(description="Market, such as BTC/USD. Default: the first market that is followed.")]
    | UnsetType
)
"""Unset rather than None, because a query has no null: the text `null` would be taken for it."""

Query = TypeVar("Query", bound=msgspec.Struct)
View = TypeVar("View", bound="Callable[..., ResponseReturnValue]")

_ATTRIBUTE = "endpoint"
"""The attribute of a view that holds its description."""
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_FIELD_OF_ERROR = re.compile(r" - at `\$\.(\w+)|required field `(\w+)`")


class SymbolQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an endpoint that only needs to know the market."""

    symbol: Symbol = UNSET


class NoQuery(msgspec.Struct, frozen=True):
    """The query of an endpoint that has no parameters."""


class RequestBody(msgspec.Struct, frozen=True):
    """A request body: the name of its JSON schema, and this schema with all that it refers to."""

    name: str
    schemas: dict[str, dict[str, Any]]


class Endpoint(msgspec.Struct, frozen=True):
    """The description of an operation."""

    tag: str
    answers: tuple[type, ...]
    """The possible bodies of a 2xx answer."""
    status: int = HTTPStatus.OK
    query: type[msgspec.Struct] = NoQuery
    body: RequestBody | None = None
    problems: tuple[int, ...] = ()
    """Statuses of the errors that are particular to this operation."""
    media: str = "application/json"
    other_media: tuple[str, ...] = ()
    """Further media types of a 2xx answer, which the query chooses from."""
    path: dict[str, tuple[str, tuple[str, ...]]] = {}
    """The parameters in the path, each with its meaning and its possible values."""
    also: tuple[int, ...] = ()
    """Further statuses that come with the body of a 2xx answer."""
    needs_admin: bool = False
    """Whether it is an admin action; `auth` demands the token."""
    is_fast: bool = False
    """Whether an answer needs no more than memory and one read of Redis; see `server.Dispatcher`."""


def documented(tag: str, *answers: type, **more: Any) -> Callable[[View], View]:
    """Describe a view, whose docstring is the summary; `more` are fields of `Endpoint`."""

    def attach(view: View) -> View:
        setattr(view, _ATTRIBUTE, Endpoint(tag, answers, **more))
        return view

    return attach


def endpoint_of(app: Flask, name: str) -> Endpoint | None:
    """The description of the view that Flask knows as `name`, None if it has none."""
    endpoint: Endpoint | None = getattr(app.view_functions[name], _ATTRIBUTE, None)
    return endpoint


def fast_paths(app: Flask) -> frozenset[str]:
    """The paths whose GET needs no more than memory and one read of Redis."""
    fast = (rule for rule in app.url_map.iter_rules() if getattr(endpoint_of(app, rule.endpoint), "is_fast", False))
    return frozenset(rule.rule for rule in fast)


def schema_ref(name: str) -> dict[str, str]:
    """A reference to a schema of the OpenAPI document."""
    return {"$ref": f"#/components/schemas/{name}"}


def parse_query(kind: type[Query]) -> Query:
    """The query of this request; raises a 422 that names a parameter if it is unknown, repeated, malformed or too large."""
    given: dict[str, str] = {}
    known = {each.encode_name for each in msgspec.structs.fields(kind)}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise bad_parameter(
                name, f"the parameter {name[:SHOWN_CHARACTERS]} is given {len(values)} times; give it once"
            )
        given[name] = values[0]
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        found, unknown = _FIELD_OF_ERROR.search(str(error)), next((each for each in given if each not in known), None)
        if found is None and unknown is not None:
            name, detail = unknown, unknown_parameter(kind, unknown[:SHOWN_CHARACTERS])
        else:
            name = found[1] or found[2] if found else ""
            detail = wrong_parameter(kind, name, given.get(name))
        raise bad_parameter(name, f"{detail}; GET /docs lists the parameters of each path") from None


def parse_time_ns(name: str, text: str) -> int:
    """The time in a parameter in ns since the epoch, within `EARLIEST` and `LATEST`.

    Raises a 422 for anything but ISO 8601 with a time zone, for example for a number.
    """
    try:
        moment: datetime = msgspec.convert(text, _Moment)
    except msgspec.ValidationError:
        shown = text[:SHOWN_CHARACTERS]
        raise bad_parameter(
            name, f"the parameter {name} must be a time such as 2026-01-31T12:00:00Z, not {shown!r}"
        ) from None
    return to_ns(min(max(moment, EARLIEST), LATEST))


def bad_parameter(name: str, detail: str) -> Problem:
    """The 422 for a parameter."""
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "bad_parameter", detail, more={"parameter": name[:SHOWN_CHARACTERS]}
    )
