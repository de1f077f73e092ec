"""The single objects that the API answers with. A field that a newer API adds is ignored.

What does not belong here: tables, which are Arrow tables (`client`), and scores and proofs (`score_answers`).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Model(msgspec.Struct, frozen=True):
    """The model behind a number; null while there is none."""

    kind: str | None
    version: str | None
    is_baseline: bool


class Models(msgspec.Struct, frozen=True):
    """The two models of a market."""

    bid: Model
    volatility: Model


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
    """The forecast for one horizon, beside those of the baselines."""

    horizon_min: int
    at: str
    bid_usd: float
    bid_bps: float
    sigma_bps: float
    sigma_annualized_pct: float
    intervals: tuple[Interval, ...]
    sigma_intervals: tuple[SigmaInterval, ...]
    baseline_bid_usd: float
    baseline_sigma_bps: float


class QualityReason(msgspec.Struct, frozen=True):
    """A reason why the quality is not `good`: a documented code, and a sentence for people."""

    code: str
    text: str


class Quality(msgspec.Struct, frozen=True):
    """How far a forecast can be trusted. Measures are None if the forecast worker did not judge the forecast."""

    word: Literal["good", "degraded", "poor"]
    """`good`: use it. `degraded`: use it with care; an input is impaired. `poor`: do not act on it."""
    reasons: tuple[QualityReason, ...]
    open_gaps: int | None
    conflated: bool | None
    quote_age_s: float | None
    trade_age_s: float | None
    book_age_s: float | None
    bars_age_s: float | None
    feed_latency_s: float | None
    delay_s: float | None
    outside_training: float | None
    farthest_input: str | None
    outcomes: int | None
    """Outcomes of the last day in `regime`, or all of them if that is None, from which the coverage is computed."""
    bid_coverage_90: float | None
    volatility_coverage_90: float | None
    regime: Literal["low", "normal", "high"] | None = None
    """The third in which σ stands among the σ of the outcomes of the last day; None while it has too few outcomes."""


class LiveForecast(msgspec.Struct, frozen=True):
    """The newest forecast of a market. Times are ISO 8601 in UTC."""

    symbol: str
    bid_usd: float
    horizons: tuple[HorizonForecast, ...]
    intervals_reason: str | None
    served: str
    stale: bool
    models: Models
    made_at: str
    ts_event: str
    ts_recv: str
    feature_age_s: float
    latency_ms: float
    feature_version: str
    source: str
    simulated: bool
    quality: Quality | None = None
    """None from an API of a version that does not judge forecasts."""
    bid_baseline_reason: str | None = None
    """Why a baseline forecasts the bid; None if a model does."""
    volatility_baseline_reason: str | None = None
    """Why a baseline, or the stand-in of a user's model, forecasts the volatility; None if the champion does."""


class GateDecision(msgspec.Struct, frozen=True):
    """What the gate decided about a version before it could serve, in its own words."""

    passed: bool
    reason: str
    took_over_from: str | None = None
    """For a baseline that took over from a champion whose live forecasts were worse: that champion's version."""


class RefusedModel(msgspec.Struct, frozen=True):
    """The trees of the newest training, if the gate refused them. They do not serve, and are judged in shadow once an hour."""

    version: str
    kind: str
    reason: str
    """Why the gate refused it, in its own words."""
    loss_ratio: float | None
    """Its mean loss over that of the baseline that serves in its place, on the live rows that came after its training; below 1 is
    better. The loss is QLIKE for the volatility and the squared error for the bid. Null until there is an hour of rows."""
    loss_ratio_bound: float | None
    """The upper 95 % bound of `loss_ratio`."""
    rows: int
    """The number of these rows."""
    since: str | None
    """The first of these rows."""
    until: str | None


class UserModelCard(msgspec.Struct, frozen=True):
    """The user's model in a version that serves."""

    name: str
    file_version: str
    fit: str
    stand_in: str
    """Kind of the compiled model that forecasts what it does not in time; the rest of the card describes it."""
    trained_from: str | None
    trained_to: str | None


class ModelCard(msgspec.Struct, frozen=True):
    """A model that the API has loaded, with its scores on data that it was not trained on."""

    name: str
    registered_name: str
    kind: str
    version: str
    is_baseline: bool
    created_at: str
    trained_from: str | None
    trained_to: str | None
    train_rows: int
    features: int
    streamed_days: int
    inputs_offered: int
    inputs_used: int
    gains: dict[str, float]
    stream_gain: float
    net_effects: dict[str, float]
    feature_version: str
    targets: tuple[str, ...]
    unit: str
    shrinkage: tuple[float, ...]
    pool: tuple[str, ...]
    pretrained: str
    choice: str
    scores: dict[str, float | None]
    members: dict[str, float] = {}
    gate: GateDecision | None = None
    serves_because: str = ""
    """Why it serves, in one sentence."""
    refused: RefusedModel | None = None
    user_model: UserModelCard | None = None
    """The user's model that serves, if `kind` is `user`."""


class LoadedModels(msgspec.Struct, frozen=True):
    """The models of one market; null while there is none."""

    symbol: str
    bid: ModelCard | None
    volatility: ModelCard | None
    reasons: tuple[str, ...]
    simulated: bool


class Market(msgspec.Struct, frozen=True):
    """Whether forecasts of one market are served, and by which models."""

    symbol: str
    status: str
    reasons: tuple[str, ...]
    feature_age_s: float | None
    forecast_age_s: float | None
    models: Models
    waits_for: tuple[str, ...] = ()


class Markets(msgspec.Struct, frozen=True):
    """The markets that are followed."""

    default: str
    markets: tuple[Market, ...]
    simulated: bool
    horizons_min: tuple[int, ...] = (1, 2, 3, 4, 5)
    """The horizons of every forecast, ascending; an older API does not name them. The last is the headline."""


def decoded(body: bytes, kind: Any) -> Any:
    """A body as a struct."""
    return msgspec.json.decode(body, type=kind)
