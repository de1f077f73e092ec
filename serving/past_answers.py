"""The bodies of answers about the past: stored forecasts with their outcomes, and minute bars.

What does not belong here: reading them (`stored_rows`).
"""

from __future__ import annotations

import msgspec

from btc_core.market.messages import QualityWord
from btc_core.names import HEADLINE_MIN, MINUTES
from serving.utc_time import UtcTime


class PastModel(msgspec.Struct, frozen=True):
    """The model that made a past forecast."""

    kind: str
    """`xgboost`, or the name of a baseline."""
    version: str
    """Its version in the registry."""


class Outcome(msgspec.Struct, frozen=True):
    """What happened after the forecast in force at the close of a minute. Paths have one entry for each horizon.

    That forecast is not the one of the record, which is the first of its step. Its numbers are those with `forecast` in
    their names, and `forecast_made_at` says when it was made.
    """

    ts_event: UtcTime
    """The closed minute."""
    bid_usd: float
    """The bid at that time."""
    bid_return_path_bps: tuple[float, ...]
    """The log return of the bid that came."""
    bid_forecast_path_bps: tuple[float, ...]
    """The log return of the bid that was forecast."""
    realized_sigma_path_bps: tuple[float, ...]
    """The volatility that came, over each whole horizon."""
    sigma_forecast_path_bps: tuple[float, ...]
    """The volatility that was forecast."""
    qlike: float = msgspec.field(name=f"qlike_{HEADLINE_MIN}m")
    """Loss of the volatility forecast over the longest horizon; 0 is perfect."""
    harx_qlike: float | None = msgspec.field(name=f"harx_qlike_{HEADLINE_MIN}m")
    """The same loss of HARX; null if it is not known."""
    forecast_made_at: UtcTime
    """When the forecast that was scored was made."""
    forecast_bid_path_usd: tuple[float, ...]
    """Its bids."""
    forecast_bid_model: PastModel
    """The model of the bid behind the scored forecast."""
    forecast_volatility_model: PastModel
    """The model of the volatility behind it."""
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
    """Probability with which the bid lies inside, percent."""
    low_path_usd: tuple[float | None, ...]
    """Lower end at each horizon; null if it is not known."""
    high_path_usd: tuple[float | None, ...]
    """Upper end at each horizon; null if it is not known."""


class PastForecast(msgspec.Struct, frozen=True):
    """A past forecast: the first of its step. Paths have a value for each horizon after `ts_event`."""

    ts_event: UtcTime
    """Exchange time of the newest event behind the forecast."""
    made_at: UtcTime
    """When the forecast was made."""
    bid_usd: float | None
    """The best bid at that time."""
    bid_path_usd: tuple[float | None, ...]
    """The bid that was forecast."""
    sigma_path_bps: tuple[float | None, ...]
    """The volatility that was forecast, over each whole horizon."""
    baseline_sigma_path_bps: tuple[float | None, ...]
    """That of HARX."""
    bid_model: PastModel
    """The model of the bid that made it."""
    volatility_model: PastModel
    """The model of the volatility that made it."""
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
    """Market, such as BTC/USD."""
    step_s: int
    """Length of a step."""
    window_from: UtcTime = msgspec.field(name="from")
    """Begin of the page."""
    window_to: UtcTime = msgspec.field(name="to")
    """End of the page, which is not part of it."""
    forecasts: list[PastForecast]
    """The forecasts in the order of time; steps without one are left out."""
    next: str | None
    """`since` of the next page that has rows; null if this page reaches the present, or nothing is stored after it."""
    outcomes_reason: str | None
    """Why no forecast of this page has an outcome; null if one has."""
    simulated: bool
    """True if the market is made up by the simulator."""


class MinuteBar(msgspec.Struct, frozen=True):
    """One minute of trades and quotes; null where there were none."""

    ts: UtcTime
    """Start of the minute."""
    open: float | None
    """Price of the first trade, USD."""
    high: float | None
    """Highest price of a trade, USD."""
    low: float | None
    """Lowest price of a trade, USD."""
    close: float | None
    """Price of the last trade, USD."""
    volume_base: float | None
    """Traded quantity in the base asset: BTC in BTC/USD, ETH in ETH/USD."""
    trades: int | None
    """Number of trades; null also if it is not known."""
    quotes: int | None
    """Number of quotes."""
    bid_close: float | None
    """Last best bid, USD."""
    ask_close: float | None
    """Last best ask, USD."""
    spread_mean_bps: float | None
    """Mean spread over quotes and trades."""
    realized_volatility_bps: float | None
    """Root of the sum of squared 5-second returns of the mid."""


class MinuteBars(msgspec.Struct, frozen=True):
    """A page of minutes from `from` until before `to`."""

    symbol: str
    """Market, such as BTC/USD."""
    window_from: UtcTime = msgspec.field(name="from")
    """Begin of the page."""
    window_to: UtcTime = msgspec.field(name="to")
    """End of the page, which is not part of it."""
    bars: list[MinuteBar]
    """The minutes in the order of time; those without data are left out."""
    next: str | None
    """`since` of the next page that has rows; null if this page reaches the present, or nothing is stored after it."""
    simulated: bool
    """True if the market is made up by the simulator."""
