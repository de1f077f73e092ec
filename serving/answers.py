"""The bodies of the 2xx answers, and the functions that turn one into a response.

The OpenAPI document is made from these structs and their docstrings. Times are ISO 8601 in UTC with microseconds:
a browser would lose digits of nanoseconds as JSON numbers. What does not belong here: errors (`problem_details`), the
bodies of the old paths (`legacy.answers`), and how a number comes about.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from flask import Response

from btc_core.clock import NS_PER_S, NS_PER_US, from_ns
from serving.quality_answers import ForecastQuality
from serving.utc_time import UtcTime

Source = Literal["worker", "api", "request"]
"""Who made a forecast: the forecast worker, this process because the worker is late, or this process from the features of
a request."""
Unit = Literal["USD", "bps"]


class ModelInfo(msgspec.Struct, frozen=True):
    """The model behind a number; all null while there is none."""

    kind: str | None = None
    """`xgboost`, `user` for a user's model that serves, or the baseline: `harx`, `har`, `ewma` or `naive` of the volatility, `random_walk` or `ar` of the bid."""
    version: str | None = None
    """Its version in the registry. A model that is in no registry has a name of another form."""
    is_baseline: bool = False
    """Whether it is a baseline, which is a simple formula."""


class Models(msgspec.Struct, frozen=True):
    """The two models behind a forecast."""

    bid: ModelInfo
    """The model of the bid."""
    volatility: ModelInfo
    """The model of the volatility."""


class ServedModel(msgspec.Struct, frozen=True):
    """A model in the answer of `/readyz`."""

    kind: str | None
    """`xgboost`, `user`, or the name of a baseline; null while there is none."""
    version: str | None
    """Its version in the registry; null while there is none."""


class ServedModels(msgspec.Struct, frozen=True):
    """The models in the answer of `/readyz`."""

    bid: ServedModel
    """The model of the bid."""
    volatility: ServedModel
    """The model of the volatility."""


class MarketReadiness(msgspec.Struct, frozen=True):
    """Whether forecasts of one market are served, and by which models."""

    symbol: str
    """Market, such as BTC/USD."""
    status: Literal["ready", "starting", "waits_for_bars", "not_ready"]
    """`starting`: the system began minutes ago, and `waits_for` says what comes next. `waits_for_bars`: the market has too few
    minute bars for a model, so it has no forecasts yet. `not_ready`: something is wrong, and `reasons` says what."""
    waits_for: tuple[str, ...]
    """What is waited for while the system starts."""
    reasons: tuple[str, ...]
    """What is wrong; empty if nothing is."""
    feature_age_s: float | None
    """Time since the data behind the newest features was received; null without features."""
    forecast_age_s: float | None
    """The same for the newest forecast; null without a forecast."""
    models: Models
    """The models of this market that are loaded."""


class Readiness(msgspec.Struct, frozen=True):
    """Whether forecasts are served. With several markets, ages and models are those of one that is not ready."""

    status: Literal["ready", "starting", "waits_for_bars", "not_ready"]
    """`starting` in the first minutes, while `waits_for` comes; `waits_for_bars` if no market has enough minute bars for a model;
    `not_ready` if no forecasts are served although they should be."""
    simulated: bool
    """True if the market is made up by the simulator."""
    waits_for: tuple[str, ...]
    """What is waited for while the system starts; empty otherwise."""
    reasons: tuple[str, ...]
    """Why no forecasts are served, and what is wrong without stopping them."""
    feature_age_s: float | None
    """Time since the data behind the newest features was received; null without features."""
    forecast_age_s: float | None
    """The same for the newest forecast; null without a forecast."""
    models: ServedModels
    """The models that are loaded."""
    markets: tuple[MarketReadiness, ...]
    """The state of each market that is followed."""


class Markets(msgspec.Struct, frozen=True):
    """The markets that are followed, each with its state and its models."""

    default: str
    """The market of a request that names none."""
    horizons_min: tuple[int, ...]
    """The horizons of every forecast, ascending. The last is the headline, which scores and alerts are about."""
    markets: tuple[MarketReadiness, ...]
    """Each market that is followed, in the order of the settings."""
    simulated: bool
    """True if the market is made up by the simulator."""


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"
    """Always `alive`: an answer is all that this asks for."""


class MarketModels(msgspec.Struct, frozen=True):
    """The models of one market."""

    symbol: str
    """Market, such as BTC/USD."""
    models: Models
    """The models of this market that are loaded."""


class Reloaded(msgspec.Struct, frozen=True):
    """The models that serve after `/reload`, and why one of them is not the newest."""

    models: Models
    """Those of the first market."""
    markets: tuple[MarketModels, ...]
    """The models of each market."""
    reasons: tuple[str, ...]
    """Why a model is missing or not the newest; empty if nothing is wrong."""


class Retraining(msgspec.Struct, frozen=True):
    """A training run. New models serve a few seconds after the run has promoted them."""

    status: Literal["started", "already_running"]
    """What became of the request: `started` if it made a new run, which may still wait, and `already_running` if a training waits
    or runs already: none is started then, and the others describe that one."""
    run_status: str | None
    """What the run did when this was answered, in Dagster's words: `queued`, `not_started`, `starting`, `started`, or how it ended;
    null if Dagster did not say."""
    job: str
    """The job in Dagster."""
    run_id: str
    """Id of the run in Dagster."""
    url: str
    """The page of the run, on which a person can watch it."""


class OrderedFeature(msgspec.Struct, frozen=True):
    """One feature and its place in a list of features."""

    index: int
    """Place in a list of features, from 0 on."""
    name: str
    """Name of the feature."""
    unit: str
    """Unit of its value: `ln` for a natural log, `1` for a share or a ratio."""
    meaning: str
    """What it is, in words."""


class BarColumn(msgspec.Struct, frozen=True):
    """One column of minute bars, which models read beside the features."""

    name: str
    """Name of the column."""
    unit: str
    """`ln` for a natural log, `1` for a share or another number from -1 to 1."""
    meaning: str
    """What it is, in words."""


class FeatureOrder(msgspec.Struct, frozen=True):
    """The inputs of the models in the order that a list of features must have."""

    feature_version: str
    """Version of the set of features: a hash of names and units."""
    count: int
    """Number of features."""
    features: tuple[OrderedFeature, ...]
    """The features in the order of a list of them."""
    columns: tuple[BarColumn, ...]
    """The columns of minute bars, which this system computes itself: a request gives none of them."""


class Interval(msgspec.Struct, frozen=True):
    """The interval that holds the future bid with a probability of `level_pct` percent."""

    level_pct: int
    """Probability with which the future bid lies inside, percent."""
    low_usd: float
    """Lower end."""
    high_usd: float
    """Upper end."""


class SigmaInterval(msgspec.Struct, frozen=True):
    """The interval that holds the realized volatility with a probability of `level_pct` percent."""

    level_pct: int
    """Probability with which the realized volatility lies inside, percent."""
    low_bps: float
    """Lower end, over the whole horizon."""
    high_bps: float
    """Upper end, over the whole horizon."""


class HorizonForecast(msgspec.Struct, frozen=True):
    """The forecast for one horizon: the numbers of the models and, for comparison, those of the baselines."""

    horizon_min: int
    """Minutes ahead."""
    at: UtcTime
    """The time that the forecast is for."""
    bid_usd: float
    """The bid that is forecast."""
    bid_bps: float
    """Log return from the current bid."""
    sigma_bps: float
    """Volatility over the whole horizon."""
    sigma_annualized_pct: float
    """The same volatility in percent a year."""
    intervals: tuple[Interval, ...]
    """Intervals of the bid, widest first; empty with a reason in `intervals_reason`."""
    sigma_intervals: tuple[SigmaInterval, ...]
    """Intervals of the volatility, widest first; empty for the same reason."""
    baseline_bid_usd: float
    """The random walk: the current bid."""
    baseline_sigma_bps: float
    """HARX."""


class LiveForecast(msgspec.Struct, frozen=True):
    """The newest forecast, and what is needed to judge it."""

    symbol: str
    """Market, such as BTC/USD."""
    bid_usd: float
    """The best bid that the forecast starts from."""
    horizons: tuple[HorizonForecast, ...]
    """One forecast for each horizon, the longest last."""
    intervals_reason: str | None
    """Why intervals of the bid are missing, all or those of the widest level; null if none are."""
    bid_baseline_reason: str | None
    """Why a baseline forecasts the bid, in one sentence; null if a model does."""
    volatility_baseline_reason: str | None
    """Why a baseline, or the stand-in of a user's model, forecasts the volatility, in one sentence; null if the champion does."""
    quality: ForecastQuality
    """How far this forecast can be trusted: `good`, `degraded` or `poor`, with the reasons."""
    served: Annotated[Literal["model", "baseline"], msgspec.Meta(extra_json_schema={"deprecated": True})]
    """Deprecated, because it repeats `stale`: `baseline` if that is true, and otherwise `model`, also while what serves is a
    baseline. Read in `models` what made each number."""
    stale: bool
    """Whether the baselines stand in for the models, because the features are too old and the request has `stale=baseline`."""
    models: Models
    """The models or baselines that made the numbers."""
    made_at: UtcTime
    """When the forecast was made."""
    ts_event: UtcTime
    """Exchange time of the newest event in the features."""
    ts_recv: UtcTime
    """When this system received that event."""
    feature_age_s: float
    """Time since `ts_recv`."""
    latency_ms: float
    """From `ts_event` to `made_at`. The two times come from the clocks of two machines."""
    feature_version: str
    """Version of the set of features: a hash of names and units."""
    source: Source
    """`worker`: made by the forecast worker. `api`: made by the API because the worker is late."""
    simulated: bool
    """True if the market is made up by the simulator."""


class LiveFeatures(msgspec.Struct, frozen=True):
    """The newest features by name, null while the data does not cover a window. `/v1/features/order` has the units."""

    symbol: str
    """Market, such as BTC/USD."""
    values: dict[str, float | None]
    """Each feature by name; null while the data does not cover its window."""
    ts_event: UtcTime
    """Exchange time of the newest event in the features."""
    ts_recv: UtcTime
    """When this system received that event."""
    age_s: float
    """Time since `ts_recv`."""
    stale: bool
    """Whether they are too old for a forecast (`BTC_API_MAX_FEATURE_AGE_S`)."""
    feature_version: str
    """Version of the set of features: a hash of names and units."""
    simulated: bool
    """True if the market is made up by the simulator."""


_encoder = msgspec.json.Encoder()


def encoded(body: msgspec.Struct) -> bytes:
    """The JSON of a body."""
    return _encoder.encode(body)


def respond(body: msgspec.Struct, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A response with a JSON body."""
    return Response(_encoder.encode(body), status=status.value, content_type="application/json")


def iso(ts_ns: int) -> str:
    """A time as answers show it.

    >>> iso(1_500_000_000)
    '1970-01-01T00:00:01.500000Z'
    """
    second, rest_ns = divmod(ts_ns, NS_PER_S)
    return f"{_iso_second(second)}.{rest_ns // NS_PER_US:06d}Z"


@lru_cache(maxsize=256)
def _iso_second(second: int) -> str:
    """A time in whole seconds. Cached, because an answer has nine times and most share a few seconds."""
    return from_ns(second * NS_PER_S).replace(tzinfo=None).isoformat()
