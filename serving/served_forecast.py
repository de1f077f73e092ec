"""The one shape of a forecast in this package: every answer is made from it, whoever made the forecast.

What belongs here: the shape, and making it from a row of the forecast worker or from the output of the models.
What does not: choosing between those two (`forecasts`), and the bodies of answers (`live_forecast`, `legacy.answers`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_S
from btc_core.errors import NotReady
from btc_core.market.messages import Quality
from btc_core.names import BASELINE_KINDS, BID, HORIZONS_MIN, VOLATILITY, ModelKind, Quantity
from serving.answers import ModelInfo, Models, Source, Unit

if TYPE_CHECKING:
    from btc_core.market.messages import ForecastRow
    from btc_core.models.bundle import BidModel, VolatilityModel

BPS = 10_000.0
"""Basis points in one."""
NO_CHANGE_BPS = (0.0,) * len(HORIZONS_MIN)
"""The random walk as log returns."""
MINUTES_PER_YEAR = 525_600

STALE_KINDS: dict[Quantity, ModelKind] = {BID: "random_walk", VOLATILITY: "harx"}
"""The baseline of each quantity that takes the place of a model while the features are too old."""

_ANNUAL_PCT = tuple(100.0 / BPS * math.sqrt(MINUTES_PER_YEAR / horizon) for horizon in HORIZONS_MIN)


class Origin(msgspec.Struct, frozen=True):
    """Who made a forecast and when, and the market data it was made from."""

    source: Source
    made_at_ns: int
    feature_version: str
    bid_usd: float | None
    """Best bid at the time of the features; None if a request gave features without it."""
    ts_event_ns: int | None = None
    ts_recv_ns: int | None = None
    """Exchange time and receipt of the newest event in the features; None for the features of a request."""
    feature_age_s: float | None = None
    """Time from the receipt to the answer; None for the features of a request."""


class ServedForecast(msgspec.Struct, frozen=True):
    """The forecast of one quantity of one market. Each list has one entry for each horizon of `HORIZONS_MIN`."""

    symbol: str
    quantity: Quantity
    origin: Origin
    model: ModelInfo
    unit: Unit
    """bps for the volatility; USD for the bid, or bps if there is no bid to start from."""
    path: list[float]
    """The bid, or the volatility over the whole horizon."""
    path_bps: list[float]
    """The log return of the bid, or the volatility again."""
    baseline_path: list[float]
    """What the random walk or HARX says."""
    bounds: list[list[float]] = []
    """Ascending quantiles of the outcome; empty if the model gives no intervals."""

    def as_baseline(self) -> ServedForecast:
        """This forecast with the baseline in place of the model, of whose version it is; it has no intervals."""
        path_bps = self.baseline_path if self.unit == "bps" else list(NO_CHANGE_BPS)
        model = ModelInfo(kind=STALE_KINDS[self.quantity], version=self.model.version, is_baseline=True)
        return msgspec.structs.replace(self, model=model, path=self.baseline_path, path_bps=path_bps, bounds=[])


class MarketForecast(msgspec.Struct, frozen=True):
    """The forecasts of both quantities of one market, made at one time from the same features."""

    bid: ServedForecast | None
    """None if there is no model of the bid."""
    volatility: ServedForecast
    is_stale_baseline: bool = False
    """Whether the baselines take the place of the models because the features are too old."""
    quality: Quality | None = None
    """How the forecast worker judged the forecast; None if it did not."""

    def of(self, quantity: Quantity) -> ServedForecast:
        """The forecast of one quantity; raises `NotReady` if there is no model of it."""
        forecast = self.bid if quantity == BID else self.volatility
        if forecast is None:
            raise NotReady("there is no model of the bid yet; ask again in a minute")
        return forecast

    @property
    def origin(self) -> Origin:
        """The origin of both."""
        return self.volatility.origin

    @property
    def models(self) -> Models:
        """The models of both, as answers show them."""
        return Models(bid=self.bid.model if self.bid is not None else ModelInfo(), volatility=self.volatility.model)

    @property
    def is_finite(self) -> bool:
        """Whether every number of the models is finite. It is not while the features are warming up."""
        returns_bps = self.bid.path_bps if self.bid is not None else ()
        return all(map(math.isfinite, self.volatility.path_bps)) and all(map(math.isfinite, returns_bps))

    def as_stale_baseline(self) -> MarketForecast:
        """This forecast with the baselines in place of the models."""
        bid = self.bid.as_baseline() if self.bid is not None else None
        return MarketForecast(bid, self.volatility.as_baseline(), is_stale_baseline=True)


def from_worker_row(row: ForecastRow, now_ns: int) -> MarketForecast:
    """The forecast of the forecast worker, with its age at `now_ns`."""
    origin = Origin(
        source="worker",
        made_at_ns=row.made_at_ns,
        feature_version=row.feature_version,
        bid_usd=row.bid,
        ts_event_ns=row.ts_event_ns,
        ts_recv_ns=row.ts_recv_ns,
        feature_age_s=age_s(now_ns, row.ts_recv_ns),
    )
    bid = ServedForecast(
        symbol=row.symbol,
        quantity=BID,
        origin=origin,
        model=model_info(row.bid_model_kind, row.bid_model_version),
        unit="USD",
        path=row.bid_path_usd,
        path_bps=[BPS * math.log(usd / row.bid) if usd > 0 and row.bid > 0 else math.nan for usd in row.bid_path_usd],
        baseline_path=[row.bid] * len(HORIZONS_MIN),
        bounds=row.bid_bounds_usd,
    )
    volatility = ServedForecast(
        symbol=row.symbol,
        quantity=VOLATILITY,
        origin=origin,
        model=model_info(row.volatility_model_kind, row.volatility_model_version),
        unit="bps",
        path=row.sigma_path_bps,
        path_bps=row.sigma_path_bps,
        baseline_path=row.baseline_sigma_path_bps,
        bounds=row.sigma_bounds_bps,
    )
    return MarketForecast(bid, volatility, quality=row.quality)


def bid_from_model(symbol: str, origin: Origin, model: BidModel, returns_bps: list[float]) -> ServedForecast:
    """The forecast of the bid from the log returns that its model gives."""
    start = origin.bid_usd
    if start is None:
        unit: Unit = "bps"
        path, baseline_path = returns_bps, list(NO_CHANGE_BPS)
    else:
        unit = "USD"
        path = [start * math.exp(bps / BPS) if bps < BPS else math.nan for bps in returns_bps]
        baseline_path = [start] * len(HORIZONS_MIN)
    return ServedForecast(
        symbol=symbol,
        quantity=BID,
        origin=origin,
        model=model_info(model.kind, model.version),
        unit=unit,
        path=path,
        path_bps=returns_bps,
        baseline_path=baseline_path,
    )


def volatility_from_model(
    symbol: str, origin: Origin, model: ModelInfo, sigma_bps: list[float], baseline_bps: list[float]
) -> ServedForecast:
    """The forecast of the volatility from the numbers of its model and of HARX."""
    return ServedForecast(
        symbol=symbol,
        quantity=VOLATILITY,
        origin=origin,
        model=model,
        unit="bps",
        path=sigma_bps,
        path_bps=sigma_bps,
        baseline_path=baseline_bps,
    )


def model_info(kind: str, version: str) -> ModelInfo:
    """What an answer says about a model."""
    return ModelInfo(kind=kind, version=version, is_baseline=kind in BASELINE_KINDS)


def models_of(bid: BidModel | None, volatility: VolatilityModel | None) -> Models:
    """What an answer says about the loaded models of a market."""
    return Models(bid=_info_of(bid), volatility=_info_of(volatility))


def _info_of(model: BidModel | VolatilityModel | None) -> ModelInfo:
    return model_info(model.kind, model.version) if model is not None else ModelInfo()


def annual_pct(sigma_bps: float, index: int) -> float:
    """The volatility over the horizon at `index` of `HORIZONS_MIN`, in percent a year."""
    return sigma_bps * _ANNUAL_PCT[index]


def age_s(now_ns: int, ts_recv_ns: int) -> float:
    """Seconds since `ts_recv_ns`, rounded to milliseconds; 0 if the clock of the process that wrote it is ahead of ours."""
    return round(max(0, now_ns - ts_recv_ns) / NS_PER_S, 3)
