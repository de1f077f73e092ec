"""From feature rows to forecasts and outcomes, in the order of the log. Pure: no server is used.

A batch may hold any number of rows; how the rows are batched changes neither a forecast nor an outcome.
What does not belong here: what a model computes (`btc_core.models.bundle`), or what becomes of the results (`forecast`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.market.events import TRADE
from btc_core.market.messages import FeatureMessage, ForecastRow
from btc_core.models.bundle import start_quantiles
from btc_core.models.quality import ModelLimits, qualities
from btc_core.models.row_forecasts import MODEL_COLUMNS, Models, TrackedState, forecasts_of
from btc_core.names import USER
from btc_core.stores.redis_rows import ColumnsRow
from streaming.outcomes import Outcome, OutcomeTracker, TrackerState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from btc_core.clock import Clock
    from btc_core.features.live_minutes import LiveMinutes
    from btc_core.models.bundle import BidModel, VolatilityModel

    Floats = npt.NDArray[np.float64]
    UserSigma = Callable[[Sequence[FeatureMessage], VolatilityModel, Floats, Any], Floats | None]
    """`user_models.UserModels.sigma_bps`: rows of one market, its model, all features (n, features), and (n, COLUMNS)."""

_MID_COLUMN = FEATURE_NAMES.index("mid")


def no_user_sigma(*_: object) -> None:
    """What a forecaster without users' models is given."""


class Part(msgspec.Struct, frozen=True):
    """Consecutive rows of one symbol during whose clock no minute ended."""

    tracker: OutcomeTracker
    models: Models
    rows: list[FeatureMessage]
    clocks_ns: list[int]
    """The clock of the symbol at each row: the latest event time up to it."""
    values: Any
    """All features of the rows, (n, features)."""
    columns: Any
    """The minute columns at the rows, (n, COLUMNS)."""
    bars_end_ns: list[int]
    """The end of the newest minute with a price at each row."""
    limits: ModelLimits

    def newest(self) -> Part:
        """The last row alone."""
        return msgspec.structs.replace(
            self,
            rows=self.rows[-1:],
            clocks_ns=self.clocks_ns[-1:],
            values=self.values[-1:],
            columns=self.columns[-1:],
            bars_end_ns=self.bars_end_ns[-1:],
        )


class Inputs(msgspec.Struct, frozen=True):
    """What forecasts read beside their feature rows, from a moment on. It is stored, so that a forecast can be verified."""

    symbol: str
    taken_at_ns: int
    """Our time from which forecasts used it."""
    minute_ns: int
    """The begin of the minute from which it is in force, by the clock of the market."""
    closed: Any = None
    """Minutes that ended, dtype `bars.BARS`; None if none did."""
    state: TrackedState | None = None
    """The level and the quantiles, if they or the models changed."""
    models: Models | None = None
    """The models, if `state` is set."""


class Results(msgspec.Struct, frozen=True):
    """What a batch of rows gave."""

    forecasts: list[ForecastRow]
    """One for each row with a bid."""
    unpublished: list[ForecastRow]
    """Those that were made now; the others were published before a restart."""
    outcomes: list[Outcome]
    columns: dict[str, ColumnsRow]
    """The minute columns of the newest row of each symbol."""


class Forecaster:
    """The outcome trackers of all symbols, and the forecasts of their rows.

    `models_of` returns the models of a symbol, `new_tracker` its tracker at the first row, and `new_minutes` its minutes up
    to a time in ns; they may raise `ServiceError`, and then the batch has had no effect. `published` returns the forecast that was already published of a
    row. `clock` stamps the forecasts. `user_sigma` asks the user's models that serve.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - whom it asks
        self,
        models_of: Callable[[str], Models],
        new_tracker: Callable[[str], OutcomeTracker],
        new_minutes: Callable[[str, int], LiveMinutes],
        published: Callable[[FeatureMessage], ForecastRow | None],
        clock: Clock,
        user_sigma: UserSigma = no_user_sigma,
    ) -> None:
        self._user_sigma = user_sigma
        self._models_of = models_of
        self._new_tracker = new_tracker
        self._new_minutes = new_minutes
        self._published = published
        self._clock = clock
        self._trackers: dict[str, OutcomeTracker] = {}
        self._minutes: dict[str, LiveMinutes] = {}
        self._states: dict[str, tuple[TrackedState, Models]] = {}
        """The state and the models of each symbol that were last added to the inputs."""
        self._inputs: list[Inputs] = []
        self._limits: dict[str, tuple[Models, ModelLimits]] = {}

    def reset(self) -> None:
        """Forget outcomes that are still open: their rows come again."""
        self._trackers, self._minutes, self._states, self._inputs = {}, {}, {}, []

    def save(self, symbols: set[str]) -> dict[str, TrackerState]:
        """The trackers of some symbols."""
        return {symbol: tracker.save() for symbol, tracker in self._trackers.items() if symbol in symbols}

    def load(self, states: dict[str, TrackerState]) -> None:
        """Restore the trackers that `save` returned."""
        for symbol, state in states.items():
            self._trackers[symbol] = OutcomeTracker.load(state)

    def take_inputs(self) -> list[Inputs]:
        """What became an input of forecasts since the last call, in the order of time."""
        inputs, self._inputs = self._inputs, []
        return inputs

    def warm(self, rows: Sequence[FeatureMessage]) -> None:
        """Take rows that were handled before; only the forecast of the last row of each minute is needed again.

        Outcomes that become final here were written before the offset of these rows was committed.
        """
        for part in self._parts(rows):
            part.tracker.advance(part.clocks_ns[0])
            _take_prices(part)
            newest = part.newest()
            if not _observe_last(newest, self._as_published(newest, _forecasts(newest, self._clock.now_ns(), None))):
                _observe_last(part, self._as_published(part, _forecasts(part, self._clock.now_ns(), None)))
            part.tracker.advance(part.clocks_ns[-1])

    def handle(self, rows: Sequence[FeatureMessage]) -> Results:
        """Forecast rows; a row before the first quote has no forecast."""
        results = Results([], [], [], {})
        for part in self._parts(rows):
            results.outcomes.extend(part.tracker.advance(part.clocks_ns[0]))
            _take_prices(part)
            sigma = self._asked_sigma(part)  # takes time, so it comes before the time at which the forecasts were made
            made_at_ns = self._clock.now_ns()
            self._note_state(part, made_at_ns)
            made = _forecasts(part, made_at_ns, sigma)
            forecasts = self._as_published(part, made)
            _observe_last(part, forecasts)
            part.tracker.advance(part.clocks_ns[-1])
            symbol, newest = part.rows[-1].symbol, part.columns[-1:]
            results.columns[symbol] = ColumnsRow(symbol, part.clocks_ns[-1], part.tracker.level, newest)
            results.forecasts.extend(forecasts.values())
            results.unpublished.extend(each for place, each in forecasts.items() if each is made[place])
        return results

    def _asked_sigma(self, part: Part) -> Floats | None:
        """σ of the rows by the user's model that serves; None if none does."""
        return self._user_sigma(part.rows, part.models[1], part.values, part.columns)

    def _parts(self, rows: Sequence[FeatureMessage]) -> list[Part]:
        by_symbol: dict[str, list[FeatureMessage]] = {}
        for row in rows:
            by_symbol.setdefault(row.symbol, []).append(row)
        models = {symbol: self._models_of(symbol) for symbol in by_symbol}
        for symbol, own in by_symbol.items():
            known = self._limits.get(symbol)
            is_new = symbol not in self._trackers or known is None or known[0] != models[symbol]
            if symbol not in self._trackers:
                self._trackers[symbol] = self._new_tracker(symbol)
            target, tracker = models[symbol][1].manifest.volatility_target, self._trackers[symbol]
            if tracker.volatility_target != target:
                tracker.change_target(target, start_quantiles(models[symbol][1]))
            if is_new:
                tracker.take_tails(*(start_quantiles(model) for model in models[symbol]))
            if symbol not in self._minutes:
                begin_ns = max(self._trackers[symbol].clock_ns, own[0].ts_event_ns)
                self._minutes[symbol] = self._new_minutes(symbol, begin_ns)
        parts = []
        for symbol, own in by_symbol.items():
            tracker = self._trackers[symbol]
            clocks_ns = np.maximum.accumulate([tracker.clock_ns, *(row.ts_event_ns for row in own)])[1:]
            values = np.frombuffer(b"".join([row.values for row in own])).reshape(len(own), -1)
            is_trade = [row.kind == TRADE for row in own]
            columns = self._minutes[symbol].columns(clocks_ns.tolist(), values, is_trade)
            bars_end_ns = self._minutes[symbol].bars_end_ns
            closed = self._minutes[symbol].take_closed()
            if len(closed):
                minute_ns = int(closed["ts_ns"][-1]) + NS_PER_MIN
                self._inputs.append(Inputs(symbol, self._clock.now_ns(), minute_ns, closed))
            ends = np.flatnonzero(np.diff(clocks_ns // NS_PER_MIN)) + 1
            for begin, end in zip([0, *ends.tolist()], [*ends.tolist(), len(own)], strict=True):
                of_part = slice(begin, end)
                parts.append(
                    Part(
                        tracker,
                        models[symbol],
                        own[of_part],
                        clocks_ns[of_part].tolist(),
                        values[of_part],
                        columns[of_part],
                        bars_end_ns[of_part],
                        self._limits_of(symbol, models[symbol]),
                    )
                )
        return parts

    def _limits_of(self, symbol: str, models: Models) -> ModelLimits:
        """The limits of the models of a market, which are made again when one of them was replaced."""
        known = self._limits.get(symbol)
        if known is None or known[0] != models:  # models are compared by identity
            known = self._limits[symbol] = models, ModelLimits(models)
        return known[1]

    def _note_state(self, part: Part, at_ns: int) -> None:
        """Add the state and the models in force to the inputs, if they are not those that were added last."""
        symbol, state = part.rows[0].symbol, part.tracker.tracked_state()
        before, models = self._states.get(symbol, (None, None))
        if models != part.models or not state.is_that_of(before):
            self._states[symbol] = state, part.models
            minute_ns = part.clocks_ns[0] // NS_PER_MIN * NS_PER_MIN
            self._inputs.append(Inputs(symbol, at_ns, minute_ns, state=state, models=part.models))

    def _as_published(self, part: Part, made: dict[int, ForecastRow]) -> dict[int, ForecastRow]:
        """The forecasts, each replaced by the one that was published before a restart, if there is one."""
        return {place: self._published(part.rows[place]) or forecast for place, forecast in made.items()}


def _take_prices(part: Part) -> None:
    """Give the tracker the mids of all rows if an outcome depends on them."""
    if not part.tracker.needs_prices:
        return
    ts_ns = np.array([row.ts_event_ns for row in part.rows])
    part.tracker.take_prices(ts_ns, np.array(part.clocks_ns), part.values[:, _MID_COLUMN])


def _observe_last(part: Part, forecasts: dict[int, ForecastRow]) -> bool:
    """Give the tracker the last forecast without a NaN, which may become an origin; False if there is none."""
    bid_model, volatility = part.models
    for place in reversed(forecasts):
        values = part.values[place]
        matrix = np.ascontiguousarray(values[np.newaxis, MODEL_COLUMNS])
        baselines = partial(_baselines, bid_model, volatility, matrix)
        mid, floor = float(values[_MID_COLUMN]), volatility.harx.rv_floor
        target = volatility.manifest.volatility_target
        if part.tracker.observe(forecasts[place], part.clocks_ns[place], mid, baselines, floor, target):
            return True
    return False


def _forecasts(part: Part, made_at_ns: int, user_sigma_bps: Floats | None) -> dict[int, ForecastRow]:
    """The forecast of each row with a bid, by its place in the part, with the intervals that the tracker has now."""
    version = part.rows[0].feature_version
    state = part.tracker.tracked_state()
    made = forecasts_of(part.rows, version, part.values, part.columns, part.models, state, made_at_ns, user_sigma_bps)
    volatility = part.models[1]
    stand_ins = set[int]()
    if volatility.kind == USER:
        stand_ins = {place for place, each in made.items() if each.volatility_model_kind != USER}
    judged = qualities(
        part.rows,
        part.values,
        clocks_ns=part.clocks_ns,
        bars_end_ns=part.bars_end_ns,
        are_of_model={
            place: each.volatility_model_kind in {volatility.kind, volatility.manifest.kind}
            for place, each in made.items()
        },
        sigma_bps={place: each.sigma_path_bps[-1] for place, each in made.items()},
        stand_ins=stand_ins,
        limits=part.limits,
        coverage=part.tracker.coverage,
        made_at_ns=made_at_ns,
    )
    return {place: msgspec.structs.replace(each, quality=judged[place]) for place, each in made.items()}


def _baselines(bid: BidModel, volatility: VolatilityModel, row: np.ndarray) -> tuple[dict[str, float], float]:
    """Forecasts of one row at the headline horizon, in bps: σ by each simple baseline; the bid's return by its autoregression."""
    sigmas = {name: float(each[0, -1]) for name, each in volatility.baseline_forecasts(row).items()}
    return sigmas, next((float(each[0, -1]) for each in bid.baseline_forecasts(row).values()), math.nan)


def state_row(inputs: Inputs, bundles: tuple[str, ...]) -> dict[str, Any]:
    """The state among some inputs as a row of `gold_forecast_states`; `bundles` are the hashes of both models."""
    state = inputs.state
    assert state is not None  # noqa: S101 - the caller has looked
    return {
        "ts_event": inputs.minute_ns,
        "symbol": inputs.symbol,
        "taken_at": inputs.taken_at_ns,
        "level": state.level,
        "bid_quantiles": msgspec.json.encode(state.bid_quantiles.tolist()).decode(),
        "volatility_quantiles": msgspec.json.encode(state.volatility_quantiles.tolist()).decode(),
        "bid_bundle": bundles[0],
        "volatility_bundle": bundles[1],
    }
