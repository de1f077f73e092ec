"""What a client gets: the structs of every 2xx body, and the one function that turns one into a response.

Units are in the names. Times are ISO 8601, UTC, microseconds: nanoseconds as JSON numbers would lose digits in a browser.
What does not belong here: errors (`problems`) and how a number is computed (`forecasts`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

import msgspec
from flask import Response

from btc_core.clock import from_ns

Quantity = Literal["bid", "volatility"]
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
    received: object


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


_encoder = msgspec.json.Encoder()


def respond(body: msgspec.Struct, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A JSON response."""
    return Response(_encoder.encode(body), status=status.value, content_type="application/json")


def iso(ts_ns: int) -> str:
    """A time as clients get it.

    >>> iso(1_500_000_000)
    '1970-01-01T00:00:01.500000Z'
    """
    return from_ns(ts_ns).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
