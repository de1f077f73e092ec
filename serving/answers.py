"""What a client gets: the structs of every 2xx body, and the one function that turns one into a response.

Units are in the names. Times are ISO 8601, UTC, microseconds: nanoseconds as JSON numbers would lose digits in a browser.
What does not belong here: errors (`problems`) and how a number is computed (`forecasts`).
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from flask import Response

from btc_core.clock import NS_PER_S, NS_PER_US, from_ns
from btc_core.names import Quantity

Source = Literal["worker", "api", "request"]
"""`worker`: the forecast worker made it; `api`: made here because the worker is behind; `request`: from given features."""


class ModelInfo(msgspec.Struct, frozen=True):
    """Which model made a number; nulls while there is none."""

    kind: str | None = None
    version: str | None = None
    is_baseline: bool = False


class Models(msgspec.Struct, frozen=True):
    """The two models behind a forecast."""

    bid: ModelInfo
    volatility: ModelInfo


class Prediction(msgspec.Struct, frozen=True):
    """The quantity that was asked for, alone; the same numbers are in `path`."""

    quantity: Quantity
    unit: Literal["USD", "bps"]
    horizons_min: tuple[int, ...]
    values: tuple[float | None, ...]


class HorizonPoint(msgspec.Struct, frozen=True):
    """The forecast for one horizon; σ is over the whole horizon, the baselines are the random walk and HARX."""

    horizon_min: int
    bid_usd: float | None
    bid_bps: float | None
    baseline_bid_usd: float | None
    sigma_bps: float
    sigma_annualized_pct: float
    baseline_sigma_bps: float | None


class Forecast(msgspec.Struct, frozen=True):
    """One forecast with everything needed to judge it; nulls where given features leave something open."""

    symbol: str
    prediction: Prediction
    bid: float | None
    path: tuple[HorizonPoint, ...]
    made_at: str
    ts_event: str | None
    ts_recv: str | None
    feature_age_s: float | None
    models: Models
    feature_version: str
    source: Source
    simulated: bool


class Batch(msgspec.Struct, frozen=True):
    """Forecasts for the rows of a batch, in their order."""

    forecasts: list[Forecast]


class ServedModel(msgspec.Struct, frozen=True):
    """As `/readyz` shows a model."""

    kind: str | None
    version: str | None


class ServedModels(msgspec.Struct, frozen=True):
    """As `/readyz` shows the models."""

    bid: ServedModel
    volatility: ServedModel


class Readiness(msgspec.Struct, frozen=True):
    """Whether forecasts are served; `reasons` may also name what is wrong without stopping them."""

    status: Literal["ready", "starting"]
    simulated: bool
    reasons: tuple[str, ...]
    feature_age_s: float | None
    forecast_age_s: float | None
    models: ServedModels


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Test(msgspec.Struct, frozen=True):
    """What `/test` says."""

    message: str
    feature_version: str
    models: Models
    simulated: bool


class Echo(msgspec.Struct, frozen=True):
    """What `/test_post` says."""

    message: str
    received: Any


class Reloaded(msgspec.Struct, frozen=True):
    """The models served after `/reload`, and why one is not the newest, if so."""

    models: Models
    reasons: tuple[str, ...]


class Retraining(msgspec.Struct, frozen=True):
    """A started training run; the new models are served some seconds after it has promoted them."""

    status: Literal["started"]
    job: str
    run_id: str
    url: str


class OrderedFeature(msgspec.Struct, frozen=True):
    """One place of a feature list."""

    index: int
    name: str
    unit: str
    meaning: str


class FeatureOrder(msgspec.Struct, frozen=True):
    """The documented order of a feature list."""

    feature_version: str
    count: int
    features: tuple[OrderedFeature, ...]


class Interval(msgspec.Struct, frozen=True):
    """Where the bid will be with a probability of `level_pct`."""

    level_pct: int
    low_usd: float
    high_usd: float


class SigmaInterval(msgspec.Struct, frozen=True):
    """Where the realized volatility will be with a probability of `level_pct`."""

    level_pct: int
    low_bps: float
    high_bps: float


class HorizonForecast(msgspec.Struct, frozen=True):
    """One horizon of `/v1/forecast`: the model's numbers, and beside them what the baselines say."""

    horizon_min: int
    at: str
    """When the forecast comes due."""
    bid_usd: float
    bid_bps: float
    sigma_bps: float
    sigma_annualized_pct: float
    intervals: tuple[Interval, ...]
    sigma_intervals: tuple[SigmaInterval, ...]
    baseline_bid_usd: float
    baseline_sigma_bps: float


class LiveForecast(msgspec.Struct, frozen=True):
    """The newest forecast with its provenance."""

    symbol: str
    bid_usd: float
    horizons: tuple[HorizonForecast, ...]
    intervals_reason: str | None
    """Why there are no intervals; null when there are."""
    served: Literal["model", "baseline"]
    """`baseline` only when `stale=baseline` was asked for and the features are too old for the model."""
    stale: bool
    models: Models
    made_at: str
    ts_event: str
    ts_recv: str
    feature_age_s: float
    latency_ms: float
    """From the exchange's time of the newest event to the finished forecast; the clocks of two machines."""
    feature_version: str
    source: Source
    simulated: bool


class LiveFeatures(msgspec.Struct, frozen=True):
    """The newest features by name; null while a window is not covered yet. Units: `/v1/features/order`."""

    symbol: str
    values: dict[str, float | None]
    ts_event: str
    ts_recv: str
    age_s: float
    stale: bool
    feature_version: str
    simulated: bool


class Outcome(msgspec.Struct, frozen=True):
    """What became of the forecast that stood when the first minute of the step closed; paths per horizon."""

    ts_event: str
    """The closed minute."""
    bid_usd: float
    bid_return_path_bps: tuple[float, ...]
    bid_forecast_path_bps: tuple[float, ...]
    realized_sigma_path_bps: tuple[float, ...]
    sigma_forecast_path_bps: tuple[float, ...]
    qlike_5m: float
    harx_qlike_5m: float | None


class PastModel(msgspec.Struct, frozen=True):
    """The model that made a past forecast."""

    kind: str
    version: str


class PastForecast(msgspec.Struct, frozen=True):
    """One forecast of the past; paths are 1 to 5 minutes ahead of `ts_event`."""

    ts_event: str
    made_at: str
    bid_usd: float | None
    bid_path_usd: tuple[float | None, ...]
    sigma_path_bps: tuple[float | None, ...]
    baseline_sigma_path_bps: tuple[float | None, ...]
    bid_model: PastModel
    volatility_model: PastModel
    outcome: Outcome | None = None


class PastForecasts(msgspec.Struct, frozen=True):
    """One page: the first forecast of each step in [from, to)."""

    symbol: str
    step_s: int
    window_from: str = msgspec.field(name="from")
    window_to: str = msgspec.field(name="to")
    forecasts: list[PastForecast]
    next: str | None
    """`since` of the next page; null when this page reaches the present."""
    outcomes_reason: str | None
    """Why no outcome is on this page; null when there is one."""
    simulated: bool


class MinuteBar(msgspec.Struct, frozen=True):
    """One minute of trades and quotes; null where there were none. `ts` is its open."""

    ts: str
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume_btc: float | None
    trades: int | None
    quotes: int | None
    bid_close: float | None
    ask_close: float | None
    spread_mean_bps: float | None
    realized_volatility_bps: float | None


class MinuteBars(msgspec.Struct, frozen=True):
    """One page of minutes in [from, to)."""

    symbol: str
    window_from: str = msgspec.field(name="from")
    window_to: str = msgspec.field(name="to")
    bars: list[MinuteBar]
    next: str | None
    simulated: bool


class ModelCard(msgspec.Struct, frozen=True):
    """What a loaded model is: its training window, inputs, and scores on data it had not seen."""

    name: str
    kind: str
    version: str
    is_baseline: bool
    created_at: str
    trained_from: str | None
    trained_to: str | None
    train_rows: int
    features: int
    feature_version: str
    targets: tuple[str, ...]
    unit: str
    shrinkage: tuple[float, ...]
    """λ per horizon of the bid model; 0 is the random walk."""
    scores: dict[str, float | None]


class LoadedModels(msgspec.Struct, frozen=True):
    """The models this process has loaded; null with a reason while there is none."""

    bid: ModelCard | None
    volatility: ModelCard | None
    reasons: tuple[str, ...]
    simulated: bool


class SkillRow(msgspec.Struct, frozen=True):
    """Live losses of one quantity at one horizon; a ratio below 1 is better than the baseline."""

    quantity: Quantity
    horizon_min: int
    forecasts: int
    loss: str
    model_loss: float | None
    baseline: str
    baseline_loss: float | None
    ratio: float | None


class CoverageRow(msgspec.Struct, frozen=True):
    """How often the outcome lay inside an interval."""

    quantity: Quantity
    level_pct: int
    horizon_min: int
    forecasts: int
    covered_pct: float | None


class Skill(msgspec.Struct, frozen=True):
    """Live skill against the baselines over the last hours."""

    symbol: str
    hours: int
    rows: list[SkillRow]
    coverage: list[CoverageRow]
    reason: str | None
    """Why there is nothing to judge yet; null when there is."""
    simulated: bool


class Contribution(msgspec.Struct, frozen=True):
    """How much one feature moves the forecast, and the value it has."""

    feature: str
    value: float | None
    contribution: float


class Explanation(msgspec.Struct, frozen=True):
    """The volatility over five minutes taken apart: base, HARX, offset, contributions and rest add up to log_variance."""

    symbol: str
    horizon_min: int
    unit: str
    log_variance: float
    base: float
    """What the forecast of an average row would be."""
    harx: float
    """What the linear part adds."""
    offset: float
    rest: float
    """Sum of the contributions that are not listed."""
    contributions: tuple[Contribution, ...]
    model: ModelInfo
    ts_event: str
    reason: str | None
    """Why there are no contributions; null when there are."""
    simulated: bool


def past_model(kind: str | None, version: str | None) -> PastModel:
    """The model of a past row; a row without one says so."""
    return PastModel(kind=kind or "unknown", version=version or "unknown")


_encoder = msgspec.json.Encoder()


def encoded(body: msgspec.Struct) -> bytes:
    """The JSON of an answer."""
    return _encoder.encode(body)


def respond(body: msgspec.Struct, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A JSON response."""
    return Response(_encoder.encode(body), status=status.value, content_type="application/json")


def iso(ts_ns: int) -> str:
    """A time as clients get it.

    >>> iso(1_500_000_000)
    '1970-01-01T00:00:01.500000Z'
    """
    second, rest_ns = divmod(ts_ns, NS_PER_S)
    return f"{_to_second(second)}.{rest_ns // NS_PER_US:06d}Z"


@lru_cache(maxsize=256)
def _to_second(second: int) -> str:
    """An answer has nine times, most within the same few seconds."""
    return from_ns(second * NS_PER_S).replace(tzinfo=None).isoformat()
