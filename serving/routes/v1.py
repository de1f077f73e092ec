"""`/v1`: the newest forecast, features and models; past rows; live skill; explanations.

What does not belong here: numbers. A view parses its query, calls one function and answers with one struct.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from flask import Blueprint, Response
from msgspec import UNSET, UnsetType

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S
from btc_core.features.catalogue import FEATURE_VERSION, FEATURES, MODEL_FEATURES
from btc_core.features.column_meanings import COLUMN_MEANINGS
from btc_core.names import HEADLINE_TEXT, HORIZONS_MIN
from serving.answers import BarColumn, FeatureOrder, LiveFeatures, LiveForecast, Markets, OrderedFeature, iso, respond
from serving.deps import deps
from serving.endpoints import Symbol, SymbolQuery, documented, parse_query, parse_time_ns
from serving.explanations import explanation
from serving.league_answers import League
from serving.live_features import live_features
from serving.live_forecast import live_forecast
from serving.live_league import live_league
from serving.live_skill import live_skill
from serving.market_answers import Releases, UsualVolatility
from serving.model_answers import Explanation, LoadedModels
from serving.model_cards import loaded_models
from serving.past_answers import MinuteBars, PastForecasts
from serving.readiness import market_states
from serving.releases import releases_between
from serving.skill_answers import Skill
from serving.symbols import default_symbol, requested_symbol
from serving.usual_volatility import usual_volatility

blueprint = Blueprint("v1", __name__, url_prefix="/v1")

NO_OUTCOMES = f"no forecast of this page has an outcome; outcomes are final {HEADLINE_TEXT} after a closed minute"

_BY_NAME = {feature.name: feature for feature in FEATURES}
_FEATURE_ORDER = FeatureOrder(
    feature_version=FEATURE_VERSION,
    count=len(MODEL_FEATURES),
    features=tuple(
        OrderedFeature(index=index, name=name, unit=_BY_NAME[name].unit, meaning=_BY_NAME[name].meaning)
        for index, name in enumerate(MODEL_FEATURES)
    ),
    columns=tuple(BarColumn(name, column.unit, column.meaning) for name, column in COLUMN_MEANINGS.items()),
)

Since = (
    Annotated[
        str,
        msgspec.Meta(
            description="Start of the page, ISO 8601 with a time zone. Default: the newest page.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    | UnsetType
)
Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000, description="Most entries of a page.")]


class ForecastQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of the newest forecast."""

    symbol: Symbol = UNSET
    stale: Annotated[
        Literal["refuse", "baseline"],
        msgspec.Meta(description="If the features are too old: a 503, or the flagged baseline of the last forecast."),
    ] = "refuse"


class PastQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of past forecasts: `limit` steps of `step_s` seconds from `since` on."""

    symbol: Symbol = UNSET
    since: Since = UNSET
    step_s: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=86_400, description="Length of a step in seconds. A page has the first forecast of each."
        ),
    ] = 60
    limit: Limit = 60
    intervals: Annotated[bool, msgspec.Meta(description="Whether each forecast has its intervals of the bid.")] = False


class ReleasesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The time whose releases are listed."""

    since: Since = UNSET
    days: Annotated[int, msgspec.Meta(ge=1, le=366, description="Length of the listed time in days.")] = 14


class BarsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of minutes from `since` on."""

    symbol: Symbol = UNSET
    since: Since = UNSET
    limit: Limit = 60


class SkillQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The time that is scored: the last `hours`."""

    symbol: Symbol = UNSET
    hours: Annotated[int, msgspec.Meta(ge=1, le=720, description="Score the forecasts of this many hours.")] = 24


class LeagueQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The time over which the league is scored."""

    symbol: Symbol = UNSET
    days: Annotated[Literal[1, 7, 28], msgspec.Meta(description="Score the forecasts of this many days.")] = 7


class ExplainQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many features are listed."""

    symbol: Symbol = UNSET
    top: Annotated[int, msgspec.Meta(ge=1, le=100, description="How many features are listed.")] = 10


@blueprint.get("/forecast")
@documented("forecasts", LiveForecast, query=ForecastQuery, problems=(404, 422, 503), is_fast=True)
def forecast() -> Response:
    """The newest forecast: bid and volatility at each horizon, with intervals, baselines and the models behind it."""
    query = parse_query(ForecastQuery)
    symbol = requested_symbol(query.symbol)
    return respond(live_forecast(deps(), symbol, baseline_when_stale=query.stale == "baseline"))


@blueprint.get("/forecasts")
@documented("forecasts", PastForecasts, query=PastQuery, problems=(404, 422, 503))
def forecasts() -> Response:
    """Past forecasts with their outcomes, one for each step, in pages."""
    query = parse_query(PastQuery)
    symbol = requested_symbol(query.symbol)
    from_ns, to_ns, next_since = _page(query.since, query.step_s * NS_PER_S, query.limit)
    found = deps().stored_rows.forecasts(symbol, from_ns, to_ns, query.step_s, with_intervals=query.intervals)
    return respond(
        PastForecasts(
            symbol=symbol,
            step_s=query.step_s,
            window_from=iso(from_ns),
            window_to=iso(to_ns),
            forecasts=found,
            next=_next_with_rows("forecasts", symbol, next_since, query.step_s * NS_PER_S, is_empty=not found),
            outcomes_reason=None if any(each.outcome for each in found) else NO_OUTCOMES,
            simulated=deps().settings.simulated,
        )
    )


@blueprint.get("/bars")
@documented("market", MinuteBars, query=BarsQuery, problems=(404, 422, 503))
def bars() -> Response:
    """Minutes of trades, quotes, spread and realized volatility, in pages. `/v1/data/bars` has long ranges."""
    query = parse_query(BarsQuery)
    symbol = requested_symbol(query.symbol)
    from_ns, to_ns, next_since = _page(query.since, NS_PER_MIN, query.limit)
    found = deps().stored_rows.bars(symbol, from_ns, to_ns)
    return respond(
        MinuteBars(
            symbol=symbol,
            window_from=iso(from_ns),
            window_to=iso(to_ns),
            bars=found,
            next=_next_with_rows("bars", symbol, next_since, NS_PER_MIN, is_empty=not found),
            simulated=deps().settings.simulated,
        )
    )


@blueprint.get("/volatility/usual")
@documented("market", UsualVolatility, query=SymbolQuery, problems=(404, 422, 503))
def volatility_usual() -> Response:
    """The volatility over the longest horizon that is usual in this hour of the day (UTC), from the last 28 days."""
    return respond(usual_volatility(deps(), requested_symbol(parse_query(SymbolQuery).symbol)))


@blueprint.get("/releases")
@documented("market", Releases, query=ReleasesQuery, problems=(422,))
def releases() -> Response:
    """US economic releases that the models know of, from a day ago unless `since` says otherwise."""
    query = parse_query(ReleasesQuery)
    now_ns = deps().clock.now_ns()
    since_ns = now_ns - NS_PER_DAY
    if not isinstance(query.since, UnsetType):
        since_ns = parse_time_ns("since", query.since)
    return respond(releases_between(since_ns, since_ns + query.days * NS_PER_DAY, now_ns))


@blueprint.get("/features")
@documented("market", LiveFeatures, query=SymbolQuery, problems=(404, 422, 503), is_fast=True)
def features() -> Response:
    """The newest features by name, with their age. `/v1/features/order` has their units and meaning."""
    return respond(live_features(deps(), requested_symbol(parse_query(SymbolQuery).symbol)))


@blueprint.get("/features/order")
@documented("market", FeatureOrder)
def feature_order() -> Response:
    """The inputs of the models in their order, with units and meaning."""
    return respond(_FEATURE_ORDER)


@blueprint.get("/markets")
@documented("market", Markets)
def markets() -> Response:
    """The markets that are followed, each with its state and its models."""
    settings = deps().settings
    return respond(Markets(default_symbol(settings), HORIZONS_MIN, market_states(deps()), settings.simulated))


@blueprint.get("/model")
@documented("models", LoadedModels, query=SymbolQuery, problems=(404, 422))
def model() -> Response:
    """The loaded models of a market: training window, inputs, and scores on data they were not trained on."""
    return respond(loaded_models(deps(), requested_symbol(parse_query(SymbolQuery).symbol)))


@blueprint.get("/skill")
@documented("models", Skill, query=SkillQuery, problems=(404, 422, 503))
def skill() -> Response:
    """Live losses beside those of the baselines, and how often the intervals held the outcome."""
    query = parse_query(SkillQuery)
    return respond(live_skill(deps(), requested_symbol(query.symbol), query.hours))


@blueprint.get("/league")
@documented("models", League, query=LeagueQuery, problems=(404, 422, 503))
def league() -> Response:
    """The user's own models beside the champion and the baselines: scores at the same closes, best first. None of them serves."""
    query = parse_query(LeagueQuery)
    return respond(live_league(deps(), requested_symbol(query.symbol), query.days))


@blueprint.get("/explain")
@documented("models", Explanation, query=ExplainQuery, problems=(404, 422, 503))
def explain() -> Response:
    """What each feature contributes to the newest forecast of the volatility (TreeSHAP), largest first."""
    query = parse_query(ExplainQuery)
    return respond(explanation(deps(), requested_symbol(query.symbol), query.top))


def _page(since: str | UnsetType, step_ns: int, limit: int) -> tuple[int, int, str | None]:
    """Start and end of a page, and `since` of the next one: `limit` steps from `since`, or the last ones until now."""
    now_ns = deps().clock.now_ns()
    running_step_ns = now_ns - now_ns % step_ns
    if isinstance(since, UnsetType):
        from_ns = running_step_ns - (limit - 1) * step_ns
    else:
        since_ns = parse_time_ns("since", since)
        from_ns = since_ns - since_ns % step_ns
    end_ns = from_ns + limit * step_ns
    return from_ns, end_ns, iso(end_ns) if end_ns <= running_step_ns else None


def _next_with_rows(
    rows: Literal["forecasts", "bars"], symbol: str, next_since: str | None, step_ns: int, *, is_empty: bool
) -> str | None:
    """`since` of the next page; after an empty page it is the step of the first later row, so nobody walks empty years."""
    if next_since is None or not is_empty:
        return next_since
    first_ns = deps().stored_rows.first_ns(rows, symbol, parse_time_ns("since", next_since))
    return None if first_ns is None else iso(first_ns - first_ns % step_ns)
