"""`/v1`: the newest forecast, features and models; the past; live skill; explanations.

What does not belong here: numbers. A view parses its query, calls one function and answers with one struct.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from flask import Blueprint, Response
from msgspec import UNSET, UnsetType

from btc_core.clock import NS_PER_MIN, NS_PER_S, to_ns
from serving.answers import (
    Explanation,
    LiveFeatures,
    LiveForecast,
    LoadedModels,
    MinuteBars,
    PastForecasts,
    Skill,
    iso,
    respond,
)
from serving.deps import deps
from serving.endpoints import NoQuery, Symbol, SymbolQuery, moment, parsed, promises
from serving.live_forecast import live_features, live_forecast, loaded_models
from serving.live_skill import explain, skill
from serving.symbols import followed

blueprint = Blueprint("v1", __name__, url_prefix="/v1")

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""`since` is taken as if it lay between these: nothing was recorded before, and nanoseconds end in 2262."""
NO_OUTCOMES = "no outcome on this page: they are final five minutes after a closed minute, and kept from then on"

Since = (
    Annotated[
        str,
        msgspec.Meta(
            description="Start of the page, ISO 8601 with a time zone; the newest page when left out.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    | UnsetType
)
Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000, description="Most entries of a page.")]


class ForecastQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`stale=baseline` asks for the flagged baseline of the last row instead of a 503 when the features are stale."""

    symbol: Symbol = UNSET
    stale: Literal["refuse", "baseline"] = "refuse"


class PastQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of the past: `limit` steps of `step_s` seconds from `since` on."""

    symbol: Symbol = UNSET
    since: Since = UNSET
    step_s: Annotated[int, msgspec.Meta(ge=1, le=86_400, description="One forecast a step: the first in it.")] = 60
    limit: Limit = 60


class BarsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of minutes from `since` on."""

    symbol: Symbol = UNSET
    since: Since = UNSET
    limit: Limit = 60


class SkillQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The window that is judged: the last `hours`."""

    symbol: Symbol = UNSET
    hours: Annotated[int, msgspec.Meta(ge=1, le=720, description="Length of the judged window.")] = 24


class ExplainQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many features are listed."""

    symbol: Symbol = UNSET
    top: Annotated[int, msgspec.Meta(ge=1, le=100, description="How many features are listed.")] = 10


@blueprint.get("/forecast")
@promises("forecasts", LiveForecast, query=ForecastQuery, problems=(404, 422, 503))
def forecast() -> Response:
    """The newest forecast: bid and volatility 1 to 5 minutes ahead, with intervals, baselines and provenance."""
    query = parsed(ForecastQuery)
    return respond(live_forecast(deps(), followed(query.symbol), baseline_when_stale=query.stale == "baseline"))


@blueprint.get("/forecasts")
@promises("forecasts", PastForecasts, query=PastQuery, problems=(404, 422, 503))
def forecasts() -> Response:
    """Past forecasts with their outcomes, one a step, in pages."""
    query = parsed(PastQuery)
    symbol = followed(query.symbol)
    from_ns, to_ns, following = _window(query.since, query.step_s * NS_PER_S, query.limit)
    found = deps().history.forecasts(symbol, from_ns, to_ns, query.step_s)
    return respond(
        PastForecasts(
            symbol=symbol,
            step_s=query.step_s,
            window_from=iso(from_ns),
            window_to=iso(to_ns),
            forecasts=found,
            next=following,
            outcomes_reason=None if any(one.outcome for one in found) else NO_OUTCOMES,
            simulated=deps().settings.simulated,
        )
    )


@blueprint.get("/bars")
@promises("market", MinuteBars, query=BarsQuery, problems=(404, 422, 503))
def bars() -> Response:
    """Minutes of trades, quotes, spread and realized volatility, in pages."""
    query = parsed(BarsQuery)
    symbol = followed(query.symbol)
    from_ns, to_ns, following = _window(query.since, NS_PER_MIN, query.limit)
    return respond(
        MinuteBars(
            symbol=symbol,
            window_from=iso(from_ns),
            window_to=iso(to_ns),
            bars=deps().history.bars(symbol, from_ns, to_ns),
            next=following,
            simulated=deps().settings.simulated,
        )
    )


@blueprint.get("/features")
@promises("market", LiveFeatures, query=SymbolQuery, problems=(404, 422, 503))
def features() -> Response:
    """The newest features by name, with their age; `/v1/features/order` has units and meaning."""
    return respond(live_features(deps(), followed(parsed(SymbolQuery).symbol)))


@blueprint.get("/model")
@promises("models", LoadedModels, query=NoQuery)
def model() -> Response:
    """The loaded models: training window, inputs, and scores on data they had not seen."""
    return respond(loaded_models(deps()))


@blueprint.get("/skill")
@promises("models", Skill, query=SkillQuery, problems=(404, 422, 503))
def live_skill() -> Response:
    """Live losses against the baselines, and how often the intervals held."""
    query = parsed(SkillQuery)
    return respond(skill(deps(), followed(query.symbol), query.hours))


@blueprint.get("/explain")
@promises("models", Explanation, query=ExplainQuery, problems=(404, 422, 503))
def explanation() -> Response:
    """What the features contribute to the volatility forecast of now (TreeSHAP), largest first."""
    query = parsed(ExplainQuery)
    return respond(explain(deps(), followed(query.symbol), query.top))


def _window(since: str | UnsetType, step_ns: int, limit: int) -> tuple[int, int, str | None]:
    """From, to, and `since` of the next page: `limit` whole steps from `since`, or the last ones up to now."""
    now_ns = deps().clock.now_ns()
    last_ns = now_ns - now_ns % step_ns  # start of the running step
    if isinstance(since, UnsetType):
        from_ns = last_ns - (limit - 1) * step_ns
    else:
        asked_ns = to_ns(min(max(moment("since", since), EARLIEST), LATEST))
        from_ns = asked_ns - asked_ns % step_ns
    end_ns = from_ns + limit * step_ns
    return from_ns, end_ns, iso(end_ns) if end_ns <= last_ns else None
