"""`/v1/proofs` and `/v1/at`: the Merkle roots over forecasts, proofs, and past forecasts as they were.

What does not belong here: reading them (`forecast_proofs`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint, Response
from msgspec import UNSET, UnsetType

from btc_core.clock import NS_PER_DAY
from serving.answers import iso, respond
from serving.deps import deps
from serving.endpoints import Symbol, bad_parameter, documented, parse_query, parse_time_ns
from serving.proof_answers import ForecastProof, PastMoment, Roots
from serving.symbols import requested_symbol

blueprint = Blueprint("proofs", __name__, url_prefix="/v1")

MAX_DAYS = 31
"""The longest time of an answer: 800 roots."""
_TIME_SCHEMA = {"format": "date-time"}


class RootsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    """The hours and days that begin from `from` until before `to`."""

    symbol: Symbol = UNSET
    begin: (
        Annotated[
            str,
            msgspec.Meta(
                description="ISO 8601 with a time zone. Default: a day before `to`.", extra_json_schema=_TIME_SCHEMA
            ),
        ]
        | UnsetType
    ) = UNSET
    end: (
        Annotated[
            str,
            msgspec.Meta(
                description="End, not included: ISO 8601 with a time zone. Default: now.",
                extra_json_schema=_TIME_SCHEMA,
            ),
        ]
        | UnsetType
    ) = UNSET


class ProofQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The time whose forecast is proven."""

    at: Annotated[
        str,
        msgspec.Meta(
            description="When the forecast was in force, ISO 8601 with a time zone.", extra_json_schema=_TIME_SCHEMA
        ),
    ]
    symbol: Symbol = UNSET


class MomentQuery(ProofQuery, frozen=True, forbid_unknown_fields=True):
    """The time that is looked at, and what is changed."""

    without: Annotated[
        str, msgspec.Meta(description="Inputs of the models to leave out, separated by commas.", max_length=1_000)
    ] = ""
    model: Annotated[
        str,
        msgspec.Meta(description="A registered version of the volatility model, for example 7.", pattern=r"^\d{0,9}$"),
    ] = ""
    book: Annotated[
        bool,
        msgspec.Meta(
            description="Also the order book of the moment, which is read from the frames in a second or two."
        ),
    ] = False


@blueprint.get("/proofs")
@documented("forecasts", Roots, query=RootsQuery, problems=(404, 422, 503))
def roots() -> Response:
    """The Merkle roots of closed hours and days. Whoever keeps one can tell later that nothing before it was changed."""
    query = parse_query(RootsQuery)
    symbol = requested_symbol(query.symbol)
    end_ns = deps().clock.now_ns() if isinstance(query.end, UnsetType) else parse_time_ns("to", query.end)
    begin_ns = end_ns - NS_PER_DAY if isinstance(query.begin, UnsetType) else parse_time_ns("from", query.begin)
    if not 0 < end_ns - begin_ns <= MAX_DAYS * NS_PER_DAY:
        raise bad_parameter("from", f"from must be before to, and at most {MAX_DAYS} days before it")
    found = deps().proofs.roots(symbol, begin_ns, end_ns)
    return respond(Roots(symbol, iso(begin_ns), iso(end_ns), tuple(found), deps().settings.simulated))


@blueprint.get("/proofs/forecast")
@documented("forecasts", ForecastProof, query=ProofQuery, problems=(404, 422, 503))
def forecast() -> Response:
    """The proof that the forecast in force at a time is in the root of its hour. `btc verify` checks it back to the frames."""
    query = parse_query(ProofQuery)
    symbol = requested_symbol(query.symbol)
    return respond(deps().proofs.proof(symbol, parse_time_ns("at", query.at)))


@blueprint.get("/at")
@documented("forecasts", PastMoment, query=MomentQuery, problems=(404, 422, 503))
def at() -> Response:
    """The forecast of a past moment with its features and explanation, and what another model or input would have said."""
    query = parse_query(MomentQuery)
    symbol = requested_symbol(query.symbol)
    without = tuple(name.strip() for name in query.without.split(",") if name.strip())
    return respond(
        deps().proofs.past(symbol, parse_time_ns("at", query.at), without, query.model, with_book=query.book)
    )
