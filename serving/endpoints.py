"""What an endpoint promises: its query, its answer and its refusals, written beside the view and checked from there.

The same words make the OpenAPI document (`openapi`) and parse the request, so the two cannot disagree.
What does not belong here: any single endpoint (`routes`), and bodies of features (`inputs`).
"""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from flask import request
from msgspec import UNSET, UnsetType

from serving.problem_details import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.typing import ResponseReturnValue

PROMISE = "promise"
"""Name of the attribute of a view that holds its promise."""

Symbol = (
    Annotated[str, msgspec.Meta(description="Market, as BTC/USD; the first one that is followed when left out.")]
    | UnsetType
)
"""Unset, not None: a query has no null, and the word would be taken for one."""

Query = TypeVar("Query", bound=msgspec.Struct)
View = TypeVar("View", bound="Callable[..., ResponseReturnValue]")

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_FIELD = re.compile(r" - at `\$\.(\w+)")


class SymbolQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an endpoint that is about one market and nothing else."""

    symbol: Symbol = UNSET


class NoQuery(msgspec.Struct, frozen=True):
    """The query of an endpoint that reads none."""


class Promise(msgspec.Struct, frozen=True):
    """One operation as the OpenAPI document shows it."""

    tag: str
    answers: tuple[type, ...]
    """Each a possible body of a 2xx answer."""
    status: int = HTTPStatus.OK
    query: type[msgspec.Struct] = NoQuery
    body: str = ""
    """Name of a hand-written schema of the request body; see `openapi.BODIES`."""
    problems: tuple[int, ...] = ()
    """Statuses of problem+json that this operation may give beside those that every operation may."""
    media: str = "application/json"
    also: tuple[int, ...] = ()
    """Further statuses with the same body as the answer."""
    guarded: bool = False


def promises(tag: str, *answers: type, **more: Any) -> Callable[[View], View]:
    """Attach a promise to a view; its summary is the view's docstring."""

    def attach(view: View) -> View:
        setattr(view, PROMISE, Promise(tag, answers, **more))
        return view

    return attach


def parsed(kind: type[Query]) -> Query:
    """The query of this request; 422 naming the parameter when it is unknown, repeated, malformed or out of bounds."""
    given: dict[str, str] = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise _bad(name, f"the parameter {name[:64]} is given {len(values)} times; give it once")
        given[name] = values[0]
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        found = _FIELD.search(str(error))
        name = found[1] if found else next((name for name in given if name not in kind.__struct_fields__), "")
        raise _bad(name, f"the parameter {name[:64] or '?'}: {error}; GET /docs lists what is taken") from None


def moment(name: str, text: str) -> datetime:
    """The time in a parameter; 422 for anything but ISO 8601 with a time zone, such as a number."""
    try:
        return msgspec.convert(text, _Moment)
    except msgspec.ValidationError:
        raise _bad(name, f"the parameter {name} must be a time as 2026-01-31T12:00:00Z, not {text[:64]!r}") from None


def _bad(name: str, detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "bad_parameter", detail, more={"parameter": name[:64]})
