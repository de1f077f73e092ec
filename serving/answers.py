"""The bodies of the 2xx answers, and the functions that turn one into a response.

The OpenAPI document is made from these structs and their docstrings. Times are ISO 8601 in UTC with microseconds:
a browser would lose digits of nanoseconds as JSON numbers. What does not belong here: errors (`problem_details`), the
bodies of the old paths (`legacy.answers`), and how a number comes about.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Literal

import msgspec
from flask import Response

from btc_core.clock import NS_PER_S, NS_PER_US, from_ns
from btc_core.market.messages import QualityWord
from btc_core.names import HEADLINE_MIN, MINUTES
from serving.quality_answers import ForecastQuality

Source = Literal["worker", "api", "request"]
"""Who made a forecast: the forecast worker, this process because the worker is late, or this process from the features of
a request."""
Unit = Literal["USD", "bps"]


class ModelInfo(msgspec.Struct, frozen=True):
    """The model behind a number; all null while there is none."""

    kind: str | None = None
    version: str | None = None
    is_baseline: bool = False


class Models(msgspec.Struct, frozen=True):
    """The two models behind a forecast."""

    bid: ModelInfo
    volatility: ModelInfo


class ServedModel(msgspec.Struct, frozen=True):
    """A model in the answer of `/readyz`."""

    kind: str | None
    version: str | None


class ServedModels(msgspec.Struct, frozen=True):
    """The models in the answer of `/readyz`."""

    bid: ServedModel
    volatility: ServedModel


class MarketReadiness(msgspec.Struct, frozen=True):
    """Whether forecasts of one market are served, and by which models."""

    symbol: str
    status: Literal["ready", "starting", "waits_for_bars", "not_ready"]
    """`starting`: the system began minutes ago, and `waits_for` says what comes next. `waits_for_bars`: the market has too few
    minute bars for a model, so it has no forecasts yet. `not_ready`: something is wrong, and `reasons` says what."""
    waits_for: tuple[str, ...]
    """What is waited for while the system starts."""
    reasons: tuple[str, ...]
    feature_age_s: float | None
    forecast_age_s: float | None
    models: Models


class Readiness(msgspec.Struct, frozen=True):
    """Whether forecasts are served. With several markets, ages and models are those of one that is not ready."""

    status: Literal["ready", "starting", "waits_for_bars", "not_ready"]
    """`starting` in the first minutes, while `waits_for` comes; `waits_for_bars` if no market has enough minute bars for a model;
    `not_ready` if no forecasts are served although they should be."""
    simulated: bool
    waits_for: tuple[str, ...]
    """What is waited for while the system starts; empty otherwise."""
    reasons: tuple[str, ...]
    """Why no forecasts are served, and what is wrong without stopping them."""
    feature_age_s: float | None
    forecast_age_s: float | None
    models: ServedModels
    markets: tuple[MarketReadiness, ...]
    """The state of each market that is followed."""


class Markets(msgspec.Struct, frozen=True):
    """The markets that are followed, each with its state and its models."""

    default: str
    """The market of a request that names none."""
    horizons_min: tuple[int, ...]
    """The horizons of every forecast, ascending. The last is the headline, which scores and alerts are about."""
    markets: tuple[MarketReadiness, ...]
    simulated: bool


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class MarketModels(msgspec.Struct, frozen=True):
    """The models of one market."""

    symbol: str
    models: Models


class Reloaded(msgspec.Struct, frozen=True):
    """The models that serve after `/reload`, and why one of them is not the newest."""

    models: Models
    """Those of the first market."""
    markets: tuple[MarketModels, ...]
    reasons: tuple[str, ...]


class Retraining(msgspec.Struct, frozen=True):
    """A training run. New models serve a few seconds after the run has promoted them."""

    status: Literal["started", "already_running"]
    """`already_running` if a training waits or runs already: none is started then, and the others describe that one."""
    job: str
    run_id: str
    url: str


class OrderedFeature(msgspec.Struct, frozen=True):
    """One feature and its place in a list of features."""

    index: int
    name: str
    unit: str
    meaning: str


class FeatureOrder(msgspec.Struct, frozen=True):
    """The inputs of the models in the order that a list of features must have."""

    feature_version: str
    count: int
    features: tuple[OrderedFeature, ...]


class Interval(msgspec.Struct, frozen=True):
    """The interval that holds the future bid with a probability of `level_pct` percent."""

    level_pct: int
    low_usd: float
    high_usd: float


class SigmaInterval(msgspec.Struct, frozen=True):
    """The interval that holds the realized volatility with a probability of `level_pct` percent."""

    level_pct: int
    low_bps: float
    high_bps: float


class HorizonForecast(msgspec.Struct, frozen=True):
    """The forecast for one horizon: the numbers of the models and, for comparison, those of the baselines."""

    horizon_min: int
    at: str
    """The time that the forecast is for."""
    bid_usd: float
    bid_bps: float
    """Log return from the current bid."""
    sigma_bps: float
    """Volatility over the whole horizon."""
    sigma_annualized_pct: float
    intervals: tuple[Interval, ...]
    sigma_intervals: tuple[SigmaInterval, ...]
    baseline_bid_usd: float
    """The random walk: the current bid."""
    baseline_sigma_bps: float
    """HARX."""


class LiveForecast(msgspec.Struct, frozen=True):
    """The newest forecast, and what is needed to judge it."""

    symbol: str
    bid_usd: float
    horizons: tuple[HorizonForecast, ...]
    intervals_reason: str | None
    """Why there are no intervals; null if there are."""
    quality: ForecastQuality
    """How far this forecast can be trusted: `good`, `degraded` or `poor`, with the reasons."""
    served: Literal["model", "baseline"]
    """`baseline` only if the request has `stale=baseline` and the features are too old for the model."""
    stale: bool
    models: Models
    made_at: str
    ts_event: str
    """Exchange time of the newest event in the features."""
    ts_recv: str
    """When this system received that event."""
    feature_age_s: float
    """Time since `ts_recv`."""
    latency_ms: float
    """From `ts_event` to `made_at`. The two times come from the clocks of two machines."""
    feature_version: str
    source: Source
    """`worker`: made by the forecast worker. `api`: made by the API because the worker is late."""
    simulated: bool


class LiveFeatures(msgspec.Struct, frozen=True):
    """The newest features by name, null while the data does not cover a window. `/v1/features/order` has the units."""

    symbol: str
    values: dict[str, float | None]
    ts_event: str
    ts_recv: str
    age_s: float
    stale: bool
    feature_version: str
    simulated: bool


class PastModel(msgspec.Struct, frozen=True):
    """The model that made a past forecast."""

    kind: str
    version: str


class Outcome(msgspec.Struct, frozen=True):
    """What happened after the forecast in force at the close of a minute. Paths have one entry for each horizon.

    That forecast is not the one of the record, which is the first of its step. Its numbers are those with `forecast` in
    their names, and `forecast_made_at` says when it was made.
    """

    ts_event: str
    """The closed minute."""
    bid_usd: float
    bid_return_path_bps: tuple[float, ...]
    bid_forecast_path_bps: tuple[float, ...]
    realized_sigma_path_bps: tuple[float, ...]
    sigma_forecast_path_bps: tuple[float, ...]
    qlike: float = msgspec.field(name=f"qlike_{HEADLINE_MIN}m")
    harx_qlike: float | None = msgspec.field(name=f"harx_qlike_{HEADLINE_MIN}m")
    forecast_made_at: str
    """When the forecast that was scored was made."""
    forecast_bid_path_usd: tuple[float, ...]
    """Its bids."""
    forecast_bid_model: PastModel
    forecast_volatility_model: PastModel
    count: int = 1
    """Number of closed minutes in the step that have an outcome. The other fields are of the first of them."""
    bid_outside_90: int = 0
    """How many of them ended outside the 90 % interval of the bid at the longest horizon."""
    volatility_outside_90: int = 0
    """How many of them ended outside the 90 % interval of the volatility over the longest horizon."""
    volatility_target: str = MINUTES
    """What the realized volatility and its forecast are: that of one-minute returns (`minutes`), or of 5-second returns of the
    mid (`ticks`)."""


class PathInterval(msgspec.Struct, frozen=True):
    """The interval of the future bid with a probability of `level_pct` percent, at each horizon."""

    level_pct: int
    low_path_usd: tuple[float | None, ...]
    high_path_usd: tuple[float | None, ...]


class PastForecast(msgspec.Struct, frozen=True):
    """A past forecast: the first of its step. Paths have a value for each horizon after `ts_event`."""

    ts_event: str
    made_at: str
    bid_usd: float | None
    bid_path_usd: tuple[float | None, ...]
    sigma_path_bps: tuple[float | None, ...]
    baseline_sigma_path_bps: tuple[float | None, ...]
    bid_model: PastModel
    volatility_model: PastModel
    outcome: Outcome | None = None
    """What happened after the closed minute of this step, beside the forecast that was in force then."""
    intervals: tuple[PathInterval, ...] = ()
    """The intervals of the bid, widest first; empty unless the request asks for them with `intervals=true`."""
    quality: QualityWord | None = None
    """The quality when the forecast was made; null in forecasts from before it was judged."""
    quality_reasons: tuple[str, ...] = ()
    """The codes of the reasons for the quality."""


class PastForecasts(msgspec.Struct, frozen=True):
    """A page of past forecasts: the first one of each step from `from` until before `to`."""

    symbol: str
    step_s: int
    window_from: str = msgspec.field(name="from")
    window_to: str = msgspec.field(name="to")
    forecasts: list[PastForecast]
    next: str | None
    """`since` of the next page; null if this page reaches the present."""
    outcomes_reason: str | None
    """Why no forecast of this page has an outcome; null if one has."""
    simulated: bool


class MinuteBar(msgspec.Struct, frozen=True):
    """One minute of trades and quotes; null where there were none."""

    ts: str
    """Start of the minute."""
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume_base: float | None
    """Traded quantity in the base asset: BTC in BTC/USD, ETH in ETH/USD."""
    trades: int | None
    quotes: int | None
    bid_close: float | None
    ask_close: float | None
    spread_mean_bps: float | None
    realized_volatility_bps: float | None


class MinuteBars(msgspec.Struct, frozen=True):
    """A page of minutes from `from` until before `to`."""

    symbol: str
    window_from: str = msgspec.field(name="from")
    window_to: str = msgspec.field(name="to")
    bars: list[MinuteBar]
    next: str | None
    """`since` of the next page; null if this page reaches the present."""
    simulated: bool


class GateDecision(msgspec.Struct, frozen=True):
    """What the gate decided about a version before it could serve, in its own words."""

    passed: bool
    reason: str


class RefusedModel(msgspec.Struct, frozen=True):
    """The version of the newest training that the gate refused. It never serves, and is judged in shadow once an hour."""

    version: str
    kind: str
    reason: str
    """Why the gate refused it, in its own words."""
    loss_ratio: float | None
    """Its mean loss over that of the baseline that serves in its place, on the live rows that came after its training; below 1 is
    better. Null until there is an hour of them."""
    loss_ratio_bound: float | None
    """The upper 95 % bound of `loss_ratio`."""
    rows: int
    """The number of these rows."""
    since: str | None
    """The first of these rows."""
    until: str | None


class ModelCard(msgspec.Struct, frozen=True):
    """A loaded model: its training window, its inputs, and its scores on data that it was not trained on."""

    name: str
    """Name of the kind of model."""
    registered_name: str
    """Name of the registered model in MLflow, which contains the market."""
    kind: str
    version: str
    is_baseline: bool
    created_at: str
    trained_from: str | None
    trained_to: str | None
    train_rows: int
    features: int
    """Number of features that a request must give; `inputs_used` says what the model makes of them."""
    streamed_days: int
    """Sealed days of the training window whose rows have the features of the stream; the others come from minute bars."""
    inputs_offered: int
    """Number of inputs that the trees could choose from: features and columns of minute bars. 0 without trees."""
    inputs_used: int
    """Number of these that the trees use."""
    gains: dict[str, float]
    """Share of each input that the trees use in their total gain, largest first; empty without trees."""
    stream_gain: float
    """Share of the gain that comes from inputs that only the stream has, and no minute bar."""
    net_effects: dict[str, float]
    """Share of each input of the net in the changes of its output if inputs are missing, largest first."""
    feature_version: str
    targets: tuple[str, ...]
    unit: str
    shrinkage: tuple[float, ...]
    """λ of the bid model for each horizon; 0 is the random walk."""
    pool: tuple[str, ...]
    """The markets that its trees and net were fitted on, if those are several; empty for a fit on the market alone."""
    pretrained: str
    """Where the pre-trained trees and net come from; empty for those that this system has fitted."""
    choice: str
    """Why this fit was chosen: the market's own, the pooled or the pre-trained one; empty where there was no choice."""
    scores: dict[str, float | None]
    members: dict[str, float] = {}
    """The members that the forecast is a mean of, in logs, with their shares; empty for a baseline."""
    gate: GateDecision | None = None
    """What the gate decided; null if the registry does not know or does not answer."""
    refused: RefusedModel | None = None
    """The version that was refused in favour of this one; null if none was, or the registry does not answer."""


class LoadedModels(msgspec.Struct, frozen=True):
    """The models of one market that this process has loaded; null while there is none."""

    symbol: str
    bid: ModelCard | None
    volatility: ModelCard | None
    reasons: tuple[str, ...]
    """Why a model is missing or not the newest."""
    simulated: bool


class Contribution(msgspec.Struct, frozen=True):
    """How much one input moves the forecast, and its value. The net as a whole is listed as `net`, without a value."""

    feature: str
    value: float | None
    contribution: float


class Explanation(msgspec.Struct, frozen=True):
    """The forecast of the volatility over the longest horizon as a sum of parts, which together are `log_variance`."""

    symbol: str
    horizon_min: int
    unit: str
    log_variance: float
    base: float
    """The forecast for an average row of features."""
    harx: float
    """What the linear part adds."""
    offset: float
    rest: float
    """Sum of the contributions that are not listed."""
    contributions: tuple[Contribution, ...]
    model: ModelInfo
    ts_event: str
    reason: str | None
    """Why there are no contributions; null if there are."""
    simulated: bool


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
