"""Outcomes of forecasts: each minute's forecast joined with what the market did, and the intervals corrected by it.

An origin is the end of a UTC minute. Its forecast is that of the last row before it in the order of the log, unless that
is older than `FRESH_ROW_NS`. After the longest horizon its outcome is final: returns of the bid and realized variances over
each horizon. It has no outcome when one of the minutes until then has no fresh forecast. Outcomes whose origins are at
multiples of `APART_MIN` move the quantiles of the intervals (`btc_core.models.intervals`), unless the forecast was made too late to serve.

The realized variance is the one that the model forecast: that of minutes, from the mids of the origins, or that of ticks, from
the mid at each second. It has no outcome either when such a mid is not known.

The clock of a symbol is the latest event time of its rows so far, as in the fold: a row that comes late holds the prices
of the minute in which it comes, and belongs to it.
What does not belong here: forecasting (`forecaster`), or writing tables.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core import horizons, metrics
from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S
from btc_core.market.messages import ForecastRow
from btc_core.models import intervals, scores
from btc_core.models import level as online_level
from btc_core.models.regimes import RECENT_HOURS, Judged, RecentCoverage, recent_coverage
from btc_core.models.row_forecasts import TrackedState
from btc_core.models.targets import APART_NS, LABEL_SPAN_NS
from btc_core.models.tick_variance import is_current, log_price_by_second, tick_variance
from btc_core.names import (
    FRESH_ROW_NS,
    HEADLINE_MIN,
    HORIZONS_MIN,
    LEVELS_PCT,
    MINUTES,
    SCORED_LEVELS_PCT,
    STORED_HORIZONS_MIN,
    TICKS,
    VolatilityTarget,
)
from btc_core.tables.sql import of_headline, of_symbol, of_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from btc_core.stores.questdb import QuestDB

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

OUTCOME_WARM_UP_S = (HEADLINE_MIN + 2) * 60.0
"""Warm-up before the first live message: the longest horizon, the minute in progress, and one as a margin."""
COVERAGE_NS = RECENT_HOURS * 60 * NS_PER_MIN
"""The time whose outcomes give the coverage in the quality of a forecast."""
LEVEL_DAYS = 7
"""Days of outcomes from which the level is restored: seven half-lives, after which its start does not matter."""
KEPT_PRICES = (LABEL_SPAN_NS + NS_PER_MIN) // NS_PER_S
"""Seconds whose mids are kept at least: the longest horizon, and a minute for the last mid before it."""
_HORIZONS = np.asarray(HORIZONS_MIN)
_SIGMAS = ", ".join(f"sigma_{h}m_bps" for h in STORED_HORIZONS_MIN)
STATE_VERSION = f"8{horizons.suffix(HORIZONS_MIN)}"
"""Version of the saved state. Raise it when the fields of `TrackerState` or their meaning change; other horizons are another meaning."""


class Origin(msgspec.Struct, frozen=True):
    """The last forecast of a minute, with what its outcome is compared with."""

    minute_ns: int
    """The end of the minute."""
    forecast: ForecastRow
    mid: float
    """Mid price at the forecast, USD."""
    baselines_bps: dict[str, float]
    """σ of the headline horizon by each simple baseline."""
    ar_bps: float
    """Return of the bid over the headline horizon by its autoregression; NaN when there is none."""
    variance_floor: tuple[float, ...]
    """Least realized variance by horizon, ln², from the model; a smaller one, such as 0, counts as this."""
    sigma_factor: float = 1.0
    """What the online level multiplied the model's σ by."""
    volatility_target: VolatilityTarget = MINUTES
    """Which variance the model forecast."""


class Outcome(msgspec.Struct, frozen=True):
    """An origin and what the market did after it."""

    origin: Origin
    return_bps: list[float]
    """Return of the bid by horizon."""
    realized: list[float]
    """Realized variance by horizon, ln², not below the floor."""
    qlike: dict[str, float]
    """QLIKE of the headline forecast of the model and of each baseline."""
    bid_inside: dict[int, bool]
    """By level (%), whether the bid after the headline horizon was inside the interval. A level without bounds is left out."""
    volatility_inside: dict[int, bool]
    """The same of the realized volatility over it."""
    bid_quantiles: tuple[tuple[float, ...], ...]
    """Quantiles of the bid's intervals after this outcome; a restarted worker continues with those of the newest row."""
    volatility_quantiles: tuple[tuple[float, ...], ...]
    """Quantiles of the volatility's intervals after this outcome."""


class TrackerState(msgspec.Struct, frozen=True):
    """An `OutcomeTracker` in a checkpoint; `clock_ns` and `known_until_ns` are those of the tracker."""

    bid_quantiles: tuple[tuple[float, ...], ...]
    volatility_quantiles: tuple[tuple[float, ...], ...]
    known_until_ns: int
    clock_ns: int
    last: Origin | None
    """The newest forecast; its `minute_ns` is not set yet."""
    last_ns: int
    """The clock at the row of the newest forecast."""
    level: float
    """The online level of the volatility."""
    origins: dict[int, Origin]
    """Origins whose outcome may still be needed, by `minute_ns`."""
    prices: list[tuple[int, float]]
    volatility_target: VolatilityTarget
    judged: list[Judged]


class OutcomeTracker:
    """The origins and the quantiles of one symbol. Call `advance`, then `observe`, for every forecast in order.

    Origins up to `known_until_ns` have their outcome in the table already and get no second one.
    """

    def __init__(
        self,
        bid_quantiles: Floats,
        volatility_quantiles: Floats,
        known_until_ns: int = 0,
        level_in_force: float = online_level.START,
        volatility_target: VolatilityTarget = MINUTES,
    ) -> None:
        self.bid_quantiles = bid_quantiles
        self.volatility_quantiles = volatility_quantiles
        self.level = level_in_force
        """The online level of the volatility (`btc_core.models.level`)."""
        self.clock_ns = 0
        """The latest event time of all rows so far; 0 before the first one."""
        self.volatility_target: VolatilityTarget = volatility_target
        """The variance that the quantiles of the volatility and the level are of."""
        self._prices: list[tuple[int, float]] = []
        """The clock and the mid at the last row of each of the newest seconds."""
        self._known_until_ns = known_until_ns
        self._last: Origin | None = None
        self._last_ns = 0
        """The clock at the row of the newest forecast."""
        self._make_last: Callable[[], Origin] | None = None
        """Makes the newest forecast an origin; called only if it is the last one of its minute."""
        self._origins: dict[int, Origin] = {}
        self._judged: deque[Judged] = deque()
        """The outcomes of the last hours, without those of late forecasts."""
        self.coverage = RecentCoverage()

    def save(self) -> TrackerState:
        """The tracker as `load` takes it."""
        return TrackerState(
            _tuples(self.bid_quantiles),
            _tuples(self.volatility_quantiles),
            self._known_until_ns,
            self.clock_ns,
            self._last_origin(),
            self._last_ns,
            self.level,
            dict(self._origins),
            list(self._prices),
            self.volatility_target,
            list(self._judged),
        )

    @classmethod
    def load(cls, state: TrackerState) -> OutcomeTracker:
        """A tracker that continues where the saved one was."""
        tracker = cls(
            np.array(state.bid_quantiles),
            np.array(state.volatility_quantiles),
            state.known_until_ns,
            state.level,
            state.volatility_target,
        )
        tracker._prices = list(state.prices)
        tracker.clock_ns, tracker._last, tracker._last_ns = state.clock_ns, state.last, state.last_ns
        tracker._origins = dict(state.origins)
        tracker.restore_coverage(state.judged)
        return tracker

    def change_target(self, target: VolatilityTarget, volatility_quantiles: Floats) -> None:
        """Begin with the quantiles of a model of another variance: errors and level of the one before say nothing about it."""
        self.volatility_target, self.volatility_quantiles, self.level = target, volatility_quantiles, online_level.START
        self.restore_coverage(())

    def take_tails(self, bid_start: Floats, volatility_start: Floats) -> None:
        """Begin the widest intervals with the quantiles of the models in force, if they were unknown until now."""
        self.bid_quantiles = intervals.with_known_tails(self.bid_quantiles, bid_start)
        self.volatility_quantiles = intervals.with_known_tails(self.volatility_quantiles, volatility_start)

    def restore_coverage(self, judged: Iterable[Judged]) -> None:
        """Continue with the coverage of earlier outcomes, oldest first."""
        self._judged = deque(judged)
        self.coverage = recent_coverage(self._judged)

    @property
    def needs_prices(self) -> bool:
        """Whether an outcome depends on the mid at each second: that of the model in force, or one that is not final yet."""
        return TICKS in (self.volatility_target, *(each.volatility_target for each in self._origins.values()))

    def take_prices(self, ts_ns: Longs, clocks_ns: Longs, mids: Floats) -> None:
        """Take the mids of rows, in the order of the log, with their event times and the clock at each.

        `advance` must have closed the minutes before them.
        """
        usable = np.flatnonzero((mids > 0.0) & is_current(ts_ns, clocks_ns))
        if not len(usable):
            return
        seconds = clocks_ns[usable] // NS_PER_S
        last = usable[np.append(seconds[1:] != seconds[:-1], True)]
        if self._prices and self._prices[-1][0] // NS_PER_S == seconds[0]:
            self._prices.pop()
        self._prices += zip(clocks_ns[last].tolist(), mids[last].tolist(), strict=True)
        if len(self._prices) > 2 * KEPT_PRICES:
            del self._prices[:-KEPT_PRICES]

    def tracked_state(self) -> TrackedState:
        """What a forecast that is made now takes from the outcomes."""
        return TrackedState(self.level, self.bid_quantiles, self.volatility_quantiles)

    def advance(self, ts_ns: int) -> list[Outcome]:
        """Set the clock to `ts_ns` unless it is later, and close the minutes that ended; returns the outcomes that became final."""
        before, minute = self.clock_ns // NS_PER_MIN, ts_ns // NS_PER_MIN
        begin = max(before + 1, minute - HEADLINE_MIN)
        closed = [self._close(each * NS_PER_MIN) for each in range(begin, minute + 1)] if before else []
        self.clock_ns = max(self.clock_ns, ts_ns)
        return [outcome for outcome in closed if outcome is not None]

    def _close(self, minute_ns: int) -> Outcome | None:
        last = self._last_origin()
        if last is not None and minute_ns - self._last_ns <= FRESH_ROW_NS:
            self._origins[minute_ns] = msgspec.structs.replace(last, minute_ns=minute_ns)
        self._origins = {at: origin for at, origin in self._origins.items() if at >= minute_ns - LABEL_SPAN_NS}
        path = [self._origins.get(minute_ns - LABEL_SPAN_NS + k * NS_PER_MIN) for k in range(HEADLINE_MIN + 1)]
        known = [origin for origin in path if origin is not None]
        if len(known) < len(path) or known[0].minute_ns <= self._known_until_ns:
            return None
        realized = self._realized(known)
        return None if realized is None else self._judge(known, realized)

    def _realized(self, path: list[Origin]) -> Floats | None:
        """The realized variance over each horizon after the first origin of a path; None if it is not known."""
        origin = path[0]
        if origin.volatility_target == MINUTES:
            variance = np.cumsum(np.square(np.diff(np.log([each.mid for each in path]))))[_HORIZONS - 1]
        else:
            clocks_ns, prices = (np.array(each) for each in zip(*self._prices, strict=True))
            first_s = origin.minute_ns // NS_PER_S
            logs = log_price_by_second(clocks_ns, prices, first_s, first_s + LABEL_SPAN_NS // NS_PER_S)
            (variance,) = tick_variance(logs, np.array([first_s]), first_s)
        return None if np.isnan(variance).any() else np.maximum(variance, origin.variance_floor)

    def observe(  # noqa: PLR0913, PLR0917 - the fields of an origin
        self,
        forecast: ForecastRow,
        clock_ns: int,
        mid: float,
        baselines: Callable[[], tuple[dict[str, float], float]],
        floor: tuple[float, ...],
        volatility_target: VolatilityTarget = MINUTES,
    ) -> bool:
        """Take the newest forecast, and the clock at its row; False if it has a NaN and does not count.

        `advance` must have closed the minutes before it.
        `baselines` returns the `baselines_bps` and `ar_bps` of the origin, `floor` is its `variance_floor`, and
        `volatility_target` is the variance that the model forecasts. The baselines are computed only if this is the last forecast of its minute.
        """
        if not all(map(math.isfinite, (*forecast.sigma_path_bps, *forecast.bid_path_usd))):
            return False
        self._last_ns = clock_ns
        factor = online_level.sigma_factor(self.level) if forecast.volatility_model_kind == "xgboost" else 1.0
        self._make_last = lambda: Origin(0, forecast, mid, *baselines(), floor, factor, volatility_target)
        return True

    def _last_origin(self) -> Origin | None:
        if self._make_last is not None:
            self._last, self._make_last = self._make_last(), None
        return self._last

    def _judge(self, path: list[Origin], realized: Floats) -> Outcome:
        """The outcome of the first origin of a path, a minute apart; moves the quantiles once in `APART_MIN` minutes."""
        origin = path[0]
        bids = np.log([each.forecast.bid for each in path])
        returns = (bids[_HORIZONS] - bids[0]) * 1e4
        sigma = np.asarray(origin.forecast.sigma_path_bps)
        forecast_returns = np.log(np.asarray(origin.forecast.bid_path_usd) / origin.forecast.bid) * 1e4
        if origin.minute_ns % APART_NS == 0 and not origin.forecast.is_late:
            bid_score = intervals.bid_score(returns, forecast_returns, sigma)
            self.bid_quantiles = intervals.update(self.bid_quantiles, bid_score)
            volatility_score = intervals.volatility_score(realized, np.square(sigma / 1e4))
            self.volatility_quantiles = intervals.update(self.volatility_quantiles, volatility_score)
            if origin.forecast.volatility_model_kind == "xgboost":
                uncorrected = float(sigma[-1]) / origin.sigma_factor / 1e4
                self.level = online_level.update(self.level, float(realized[-1]) / uncorrected**2)
        sigmas = {"model": sigma[-1], "harx": origin.forecast.baseline_sigma_path_bps[-1], **origin.baselines_bps}
        bid_then = origin.forecast.bid * math.exp(returns[-1] / 1e4)
        outcome = Outcome(
            origin=origin,
            return_bps=returns.tolist(),
            realized=realized.tolist(),
            qlike={
                name: float(scores.qlike_losses(realized[-1:], np.array([(float(each) / 1e4) ** 2]))[0])
                for name, each in sigmas.items()
            },
            bid_inside=_inside(bid_then, origin.forecast.bid_bounds_usd),
            volatility_inside=_inside(math.sqrt(realized[-1]) * 1e4, origin.forecast.sigma_bounds_bps),
            bid_quantiles=_tuples(self.bid_quantiles),
            volatility_quantiles=_tuples(self.volatility_quantiles),
        )
        if not origin.forecast.is_late and origin.volatility_target == self.volatility_target:
            self._count(origin.minute_ns, outcome)
        return outcome

    def _count(self, minute_ns: int, outcome: Outcome) -> None:
        """Add an outcome to the coverage of the last hours."""
        sigma_bps = outcome.origin.forecast.sigma_path_bps[-1]
        self._judged.append((minute_ns, sigma_bps, outcome.bid_inside[90], outcome.volatility_inside[90]))
        while self._judged[0][0] <= minute_ns - COVERAGE_NS:
            self._judged.popleft()
        self.coverage = recent_coverage(self._judged)


def restore_tracker(db: QuestDB, symbol: str, bid_start: Floats, volatility_start: Floats) -> OutcomeTracker:
    """A tracker that continues after the newest outcome in the table, else starts with the given quantiles.

    It also starts with these if the newest outcome is of other horizons.
    """
    found = db.execute(
        f"SELECT cast(ts_event AS LONG), bid_quantiles, bid_tails, volatility_quantiles, volatility_tails, volatility_target, {_SIGMAS} "  # noqa: S608 - `of_symbol` quotes the name
        f"FROM gold_prediction_outcomes WHERE {of_symbol(symbol)} ORDER BY ts_event DESC LIMIT 1"
    )
    if not found:
        return OutcomeTracker(bid_start, volatility_start)
    known_ns, *quantiles, target = found[0][:6]
    sigmas = found[0][6:]
    target = target or MINUTES
    if any(
        (sigma is not None) != (horizon in HORIZONS_MIN)
        for horizon, sigma in zip(STORED_HORIZONS_MIN, sigmas, strict=True)
    ):
        return OutcomeTracker(bid_start, volatility_start, int(known_ns), volatility_target=target)
    bid, bid_tails, volatility, volatility_tails = map(_decoded, quantiles)
    tracker = OutcomeTracker(
        intervals.with_tails(bid, bid_tails),
        intervals.with_tails(volatility, volatility_tails),
        int(known_ns),
        _restored_level(db, symbol, int(known_ns), target),
        target,
    )
    tracker.restore_coverage(_restored_judged(db, symbol, int(known_ns), target))
    return tracker


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _restored_level(db: QuestDB, symbol: str, newest_ns: int, target: VolatilityTarget) -> float:
    """The level that the outcomes of the last days give. They hold served forecasts, whose own level follows on the way."""
    found = db.execute(
        f"SELECT cast(ts_event AS LONG), sigma_{HEADLINE_MIN}m_bps, realized_{HEADLINE_MIN}m_bps FROM gold_prediction_outcomes "  # noqa: S608 - `of_symbol` quotes the name
        f"WHERE {of_symbol(symbol)} AND {of_target(target)} AND late = false AND volatility_model_kind = 'xgboost' AND {of_headline()} "
        f"AND ts_event > cast({newest_ns - LEVEL_DAYS * NS_PER_DAY} AS TIMESTAMP_NS) ORDER BY ts_event"
    )
    current = online_level.START
    for ts_ns, sigma_bps, realized_bps in found:
        if int(ts_ns) % APART_NS == 0:
            uncorrected_bps = sigma_bps / online_level.sigma_factor(current)
            current = online_level.update(current, (realized_bps / uncorrected_bps) ** 2)
    return current


def _restored_judged(db: QuestDB, symbol: str, newest_ns: int, target: VolatilityTarget) -> list[Judged]:
    found = db.execute(
        f"SELECT cast(ts_event AS LONG), sigma_{HEADLINE_MIN}m_bps, bid_inside_90, volatility_inside_90 FROM gold_prediction_outcomes "  # noqa: S608 - `of_symbol` quotes the name
        f"WHERE {of_symbol(symbol)} AND {of_target(target)} AND late = false AND {of_headline()} "
        f"AND ts_event > cast({newest_ns - COVERAGE_NS} AS TIMESTAMP_NS) ORDER BY ts_event"
    )
    return [(int(ts_ns), float(sigma), bool(bid), bool(each)) for ts_ns, sigma, bid, each in found]


def _inside(value: float, bounds: list[list[float]]) -> dict[int, bool]:
    pairs = {level: (bounds[-1][low], bounds[-1][high]) for level, (low, high) in intervals.BOUNDS.items()}
    return {level: low <= value <= high for level, (low, high) in pairs.items() if not math.isnan(low + high)}


def _tuples(quantiles: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in quantiles.tolist())


def count_outcome(outcome: Outcome) -> None:
    """Add an outcome to the metrics, unless its forecast was late: their rates give live skill and coverage over any window."""
    if outcome.origin.forecast.is_late:
        return
    symbol = outcome.origin.forecast.symbol
    for name, loss in outcome.qlike.items():
        if math.isfinite(loss):
            metrics.OUTCOME_QLIKE.labels(symbol, name).observe(loss)
    for quantity, inside in (("bid", outcome.bid_inside), ("volatility", outcome.volatility_inside)):
        for level, was_inside in inside.items():
            metrics.OUTCOMES.labels(symbol, quantity, str(level), "yes" if was_inside else "no").inc()


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """The outcome as a row of `gold_prediction_outcomes`, by column."""
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
    row[f"bid_ar_{HEADLINE_MIN}m_bps"] = origin.ar_bps
    for name in ("model", "harx", "har", "ewma", "naive"):
        row[f"qlike_{name}_{HEADLINE_MIN}m"] = outcome.qlike.get(name, math.nan)
    for level in LEVELS_PCT:
        for quantity, inside in (("bid", outcome.bid_inside), ("volatility", outcome.volatility_inside)):
            found = inside.get(level)
            is_boolean = level in SCORED_LEVELS_PCT  # other columns are numbers, because a BOOLEAN has no null
            row[f"{quantity}_inside_{level}"] = found if is_boolean or found is None else float(found)
    for quantity, quantiles in (("bid", outcome.bid_quantiles), ("volatility", outcome.volatility_quantiles)):
        inner, tails = intervals.split(quantiles)
        row[f"{quantity}_quantiles"] = msgspec.json.encode(inner).decode()
        row[f"{quantity}_tails"] = None if tails is None else msgspec.json.encode(tails).decode()
    row["late"] = forecast.is_late
    row["volatility_target"] = origin.volatility_target
    return row
