"""What became of forecasts: each minute's forecast joined to what the market did, and intervals corrected by it.

An origin is a closed UTC minute; the state at it is the last row before it, none when that is older than `FRESH_NS`.
Five minutes later its outcome is final: returns of the bid and realized variances over 1…5 min, or nothing when a minute
between is unknown. Outcomes five minutes apart move the quantiles of the intervals (`btc_core.models.intervals`).
What does not belong here: forecasting (`forecast`), and writing tables.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core import metrics
from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.market.messages import ForecastRow
from btc_core.models import intervals, scores
from btc_core.models.targets import LABEL_SPAN_NS
from btc_core.names import HORIZONS_MIN, LEVELS_PCT
from btc_core.tables.sql import of_symbol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from btc_core.stores.questdb import QuestDB

    Floats = npt.NDArray[np.float64]

FRESH_NS = 10 * NS_PER_S
"""A state older than this at the end of a minute is not the state at that minute."""
OUTCOME_WARM_UP_S = 420.0
"""Of the log before the first live message: the longest horizon, a minute in progress, and one to be sure."""
STATE_VERSION = "2"
"""Raise it when `TrackerState` changes."""


class Origin(msgspec.Struct, frozen=True):
    """The forecast that stood when a minute closed, with what its outcome is judged against."""

    minute_ns: int
    forecast: ForecastRow
    mid: float
    baselines_bps: dict[str, float]
    """σ over five minutes of the simple baselines."""
    ar_bps: float
    """Return of the bid over five minutes by its autoregression; NaN when there is none."""
    variance_floor: tuple[float, ...]
    """Of the model, ln²: what an RV of 0 counts as."""


class Outcome(msgspec.Struct, frozen=True):
    """An origin and what came; the row of `gold_prediction_outcomes`."""

    origin: Origin
    return_bps: list[float]
    """Of the bid, per horizon."""
    realized: list[float]
    """RV per horizon, ln², floored."""
    qlike_5m: dict[str, float]
    """Loss over five minutes of the model and each baseline."""
    bid_inside: dict[int, bool]
    volatility_inside: dict[int, bool]
    """Whether the five-minute outcome was inside the interval of each level."""
    bid_quantiles: tuple[tuple[float, ...], ...]
    volatility_quantiles: tuple[tuple[float, ...], ...]
    """In force after this outcome: a restarted worker goes on from the newest."""


class TrackerState(msgspec.Struct, frozen=True):
    """Everything a tracker remembers, for a checkpoint."""

    bid_quantiles: tuple[tuple[float, ...], ...]
    volatility_quantiles: tuple[tuple[float, ...], ...]
    known_until_ns: int
    minute: int
    last: Origin | None
    origins: dict[int, Origin]


class OutcomeTracker:
    """Of one symbol; feed it every forecast in order with `observe`."""

    def __init__(self, bid_quantiles: Floats, volatility_quantiles: Floats, known_until_ns: int = 0) -> None:
        self.bid_quantiles = bid_quantiles
        self.volatility_quantiles = volatility_quantiles
        self._known_until_ns = known_until_ns
        self._minute = 0
        self._last: Origin | None = None
        self._seen: Callable[[], Origin] | None = None
        self._origins: dict[int, Origin] = {}

    def save(self) -> TrackerState:
        """What `loaded` makes an equal tracker of."""
        quantiles = _plain(self.bid_quantiles), _plain(self.volatility_quantiles)
        return TrackerState(*quantiles, self._known_until_ns, self._minute, self._newest(), dict(self._origins))

    @classmethod
    def loaded(cls, state: TrackerState) -> OutcomeTracker:
        """The inverse of `save`."""
        tracker = cls(np.array(state.bid_quantiles), np.array(state.volatility_quantiles), state.known_until_ns)
        tracker._minute, tracker._last, tracker._origins = state.minute, state.last, dict(state.origins)
        return tracker

    def advance(self, ts_ns: int) -> list[Outcome]:
        """Time has come to `ts_ns`: close every minute that has ended; the outcomes that became final by it."""
        minute = ts_ns // NS_PER_MIN
        begin = max(self._minute + 1, minute - len(HORIZONS_MIN))
        closed = [self._close(each * NS_PER_MIN) for each in range(begin, minute + 1)] if self._minute else []
        self._minute = max(self._minute, minute)
        return [outcome for outcome in closed if outcome is not None]

    def _close(self, minute_ns: int) -> Outcome | None:
        last = self._newest()
        if last is not None and 0 <= minute_ns - last.forecast.ts_event_ns <= FRESH_NS:
            self._origins[minute_ns] = msgspec.structs.replace(last, minute_ns=minute_ns)
        self._origins = {at: origin for at, origin in self._origins.items() if at >= minute_ns - LABEL_SPAN_NS}
        path = [self._origins.get(minute_ns - LABEL_SPAN_NS + k * NS_PER_MIN) for k in range(len(HORIZONS_MIN) + 1)]
        known = [origin for origin in path if origin is not None]
        if len(known) < len(path) or known[0].minute_ns <= self._known_until_ns:
            return None
        return self._judge(known)

    def observe(
        self,
        forecast: ForecastRow,
        mid: float,
        baselines: Callable[[], tuple[dict[str, float], float]],
        floor: tuple[float, ...],
    ) -> None:
        """The newest forecast; `advance` has closed the minutes before it. A forecast still warming up does not count.

        The baselines, `baselines_bps` and `ar_bps` of the origin, are asked for only if the forecast turns out to be the
        last one of its minute.
        """
        if all(map(math.isfinite, (*forecast.sigma_path_bps, *forecast.bid_path_usd))):
            self._seen = lambda: Origin(0, forecast, mid, *baselines(), floor)

    def _newest(self) -> Origin | None:
        if self._seen is not None:
            self._last, self._seen = self._seen(), None
        return self._last

    def _judge(self, path: list[Origin]) -> Outcome:
        origin = path[0]
        bids, mids = (np.log([getattr(each, name) for each in values]) for name, values in
                      (("bid", [each.forecast for each in path]), ("mid", path)))  # fmt: skip
        moves = (bids[1:] - bids[0]) * 1e4
        realized = np.maximum(np.cumsum(np.square(np.diff(mids))), origin.variance_floor)
        sigma = np.asarray(origin.forecast.sigma_path_bps)
        forecast = np.log(np.asarray(origin.forecast.bid_path_usd) / origin.forecast.bid) * 1e4
        if origin.minute_ns % LABEL_SPAN_NS == 0:
            self.bid_quantiles = intervals.update(self.bid_quantiles, intervals.bid_score(moves, forecast, sigma))
            score = intervals.volatility_score(realized, np.square(sigma / 1e4))
            self.volatility_quantiles = intervals.update(self.volatility_quantiles, score)
        compared = {"model": sigma[-1], "harx": origin.forecast.baseline_sigma_path_bps[-1], **origin.baselines_bps}
        bid_5m = origin.forecast.bid * math.exp(moves[-1] / 1e4)
        return Outcome(
            origin=origin,
            return_bps=moves.tolist(),
            realized=realized.tolist(),
            qlike_5m={
                name: float(scores.qlike_losses(realized[-1:], np.array([(float(each) / 1e4) ** 2]))[0])
                for name, each in compared.items()
            },
            bid_inside=_inside(bid_5m, origin.forecast.bid_bounds_usd),
            volatility_inside=_inside(math.sqrt(realized[-1]) * 1e4, origin.forecast.sigma_bounds_bps),
            bid_quantiles=_plain(self.bid_quantiles),
            volatility_quantiles=_plain(self.volatility_quantiles),
        )


def restored(db: QuestDB, symbol: str, bid_start: Floats, volatility_start: Floats) -> OutcomeTracker:
    """A tracker that goes on from the newest outcome in the table, else from the models' own calibration."""
    found = db.execute(
        "SELECT cast(ts_event AS LONG), bid_quantiles, volatility_quantiles FROM gold_prediction_outcomes "  # noqa: S608
        f"WHERE {of_symbol(symbol)} ORDER BY ts_event DESC LIMIT 1"
    )
    if not found:
        return OutcomeTracker(bid_start, volatility_start)
    known_ns, bid, volatility = found[0]
    return OutcomeTracker(np.array(msgspec.json.decode(bid)), np.array(msgspec.json.decode(volatility)), int(known_ns))


def _inside(value: float, bounds: list[list[float]]) -> dict[int, bool]:
    return {level: bounds[-1][low] <= value <= bounds[-1][high] for level, (low, high) in intervals.BOUNDS.items()}


def _plain(quantiles: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in quantiles.tolist())


def count_outcome(outcome: Outcome) -> None:
    """Count an outcome: ratios of the metrics' rates are live skill and coverage over any window."""
    symbol = outcome.origin.forecast.symbol
    for name, loss in outcome.qlike_5m.items():
        if math.isfinite(loss):
            metrics.OUTCOME_QLIKE.labels(symbol, name).observe(loss)
    for quantity, inside in (("bid", outcome.bid_inside), ("volatility", outcome.volatility_inside)):
        for level, was_inside in inside.items():
            metrics.OUTCOMES.labels(symbol, quantity, str(level), "yes" if was_inside else "no").inc()


def row_of(outcome: Outcome) -> dict[str, Any]:
    """The row of `gold_prediction_outcomes`, by column."""
    origin, forecast = outcome.origin, outcome.origin.forecast
    row: dict[str, Any] = {
        "ts_event": origin.minute_ns,
        "symbol": forecast.symbol,
        "made_at": forecast.made_at_ns,
        "bid": forecast.bid,
        "bid_model_version": forecast.bid_model_version,
        "bid_model_kind": forecast.bid_model_kind,
        "volatility_model_version": forecast.volatility_model_version,
        "volatility_model_kind": forecast.volatility_model_kind,
        "feature_version": forecast.feature_version,
    }
    for index, horizon in enumerate(HORIZONS_MIN):
        row[f"bid_return_{horizon}m_bps"] = outcome.return_bps[index]
        row[f"bid_forecast_{horizon}m_bps"] = math.log(forecast.bid_path_usd[index] / forecast.bid) * 1e4
        row[f"sigma_{horizon}m_bps"] = forecast.sigma_path_bps[index]
        row[f"realized_{horizon}m_bps"] = math.sqrt(outcome.realized[index]) * 1e4
    row["bid_ar_5m_bps"] = origin.ar_bps
    for name in ("model", "harx", "har", "ewma", "naive"):
        row[f"qlike_{name}_5m"] = outcome.qlike_5m.get(name, math.nan)
    for level in LEVELS_PCT:
        row[f"bid_inside_{level}"] = outcome.bid_inside[level]
        row[f"volatility_inside_{level}"] = outcome.volatility_inside[level]
    row["bid_quantiles"] = msgspec.json.encode(outcome.bid_quantiles).decode()
    row["volatility_quantiles"] = msgspec.json.encode(outcome.volatility_quantiles).decode()
    return row
