"""The forecast worker: reads feature rows and writes forecasts and their outcomes.

Forecasts go to the prediction tables, the topic `predictions` and Redis, outcomes to `gold_prediction_outcomes`.
Until a champion is registered, the HARX baseline fitted on the available minute bars serves, and is marked as a baseline.
What does not belong here: what a model computes (`btc_core.models.bundle`), or training (`btc_assets`).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core import metrics
from btc_core.clock import NS_PER_MIN, now_ns
from btc_core.errors import ServiceError
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.market.messages import FeatureMessage, ForecastRow
from btc_core.models.bundle import bid_path, start_quantiles
from btc_core.models.intervals import bid_bounds_bps, volatility_bounds_bps
from btc_core.names import FEATURES_TOPIC, PREDICTIONS_TOPIC, WorkerName
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_rows import forecast_fields, forecast_key
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BID_PREDICTION, PREDICTION_OUTCOMES, VOLATILITY_PREDICTION
from streaming.handler import WorkerSpec
from streaming.latest_rows import LatestRows
from streaming.outcomes import (
    OUTCOME_WARM_UP_S,
    STATE_VERSION,
    Outcome,
    OutcomeTracker,
    TrackerState,
    count_outcome,
    outcome_row,
    restore_tracker,
)
from streaming.publisher import Publisher
from streaming.table_writer import TableWriter
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.settings import Settings
    from streaming.handler import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.FORECAST
SPEC = WorkerSpec(GROUP, FEATURES_TOPIC, OUTCOME_WARM_UP_S, f"{STATE_VERSION}-{FEATURE_VERSION}")
WAIT_FOR_MODEL_S = 2.0
"""Time between two log lines, and two updates of the loop metric, while there is no model."""
PREDICTIONS_LINGER_MS = 20
"""How long forecasts are gathered into one request to Kafka: a request for each costs as much processor time as the
forecast itself. Redis gets every forecast at once."""

_MODEL_COLUMNS = [FEATURE_NAMES.index(name) for name in MODEL_FEATURES]
_BID_COLUMN, _MID_COLUMN = FEATURE_NAMES.index("bid"), FEATURE_NAMES.index("mid")


class ForecastHandler:
    """Forecasts all rows of a batch together, publishes the forecasts, and keeps them and final outcomes for the tables."""

    def __init__(self, settings: Settings, holder: ModelHolder) -> None:
        self._settings = settings
        self._holder = holder
        self._publisher = Publisher(settings.kafka, "forecast", PREDICTIONS_LINGER_MS)
        self._tables = TableWriter(settings.questdb, self._publisher)
        self._redis = LatestRows(settings.redis, GROUP)
        self._decoder = msgspec.msgpack.Decoder(FeatureMessage)
        self._encoder = msgspec.msgpack.Encoder()
        self._kept: list[ForecastRow] = []
        self._trackers: dict[str, OutcomeTracker] = {}
        self._partitions: dict[str, int] = {}
        self._outcomes: list[Outcome] = []

    def reset(self) -> None:
        """Forget rows not yet drained, and outcomes still open: their messages come again."""
        self._kept, self._outcomes, self._trackers = [], [], {}

    def warm(self, messages: list[Record]) -> None:
        """Forecast the last row of each minute again: its outcome may still be open."""
        for part in _minutes(self._usable(messages, live=False)):
            self._close_minutes(
                part[-1]
            )  # outcomes that become final here were written before the offset was committed
            self._forecast(part[-1:])

    def save(self, partition: int, /) -> bytes:
        """The outcome trackers of the partition's symbols."""
        symbols = {symbol for symbol, its_partition in self._partitions.items() if its_partition == partition}
        states = {symbol: tracker.save() for symbol, tracker in self._trackers.items() if symbol in symbols}
        return msgspec.msgpack.encode((partition, states))

    def load(self, state: bytes, /) -> None:
        """Restore the outcome trackers that `save` returned."""
        partition, states = msgspec.msgpack.decode(state, type=tuple[int, dict[str, TrackerState]])
        for symbol, tracker_state in states.items():
            self._trackers[symbol] = OutcomeTracker.load(tracker_state)
            self._partitions[symbol] = partition

    def handle(self, messages: list[Record]) -> int:
        """Forecast rows and publish the forecasts; returns how many are kept by now.

        Rows of another feature version, and rows before the first quote, have no forecast.
        """
        forecasts = []
        for part in _minutes(self._usable(messages, live=True)):
            final = self._close_minutes(part[-1])
            self._outcomes += final
            for outcome in final:
                count_outcome(outcome)
            forecasts += self._forecast(part)
        self._publish(forecasts)
        self._kept += forecasts
        return len(self._kept)

    def _usable(self, messages: list[Record], *, live: bool) -> list[FeatureMessage]:
        """Rows of this feature version; a message that is not a feature row becomes a dead letter when it is `live`."""
        rows = []
        for message in messages:
            try:
                row = self._decoder.decode(message.value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("%s[%d]@%d: %s", FEATURES_TOPIC, message.partition, message.offset, error)
                if live:
                    place = (FEATURES_TOPIC, message.partition, message.offset)
                    self._publisher.dead_letter("bad_features", str(error), message.value, place)
                continue
            self._partitions[row.symbol] = message.partition
            rows.append(row)
        usable = [row for row in rows if row.feature_version == FEATURE_VERSION]
        if len(usable) < len(rows):
            log.info(
                "%d of %d rows have another feature version and get no forecast", len(rows) - len(usable), len(rows)
            )
        return usable

    def _publish(self, forecasts: list[ForecastRow]) -> None:
        newest = {
            forecast.symbol: forecast for forecast in forecasts if all(map(math.isfinite, forecast.sigma_path_bps))
        }
        rows = {forecast_key(symbol): forecast_fields(forecast) for symbol, forecast in newest.items()}
        if rows:
            self._redis.write(rows, forecasts[0].ts_recv_ns)
        for forecast in forecasts:
            self._publisher.publish(
                PREDICTIONS_TOPIC, forecast.symbol, self._encoder.encode(forecast), forecast.ts_recv_ns
            )

    def drain(self) -> Callable[[], None]:
        """The kept forecasts and outcomes as a write."""
        kept, self._kept = self._kept, []
        outcomes, self._outcomes = self._outcomes, []

        def write() -> None:
            if outcomes:
                rows = table_rows.from_records(PREDICTION_OUTCOMES, [outcome_row(outcome) for outcome in outcomes])
                self._tables.write(PREDICTION_OUTCOMES, rows)
            if kept:
                self._tables.write(BID_PREDICTION, table_rows.gold_bid_price_prediction(kept))
                self._tables.write(VOLATILITY_PREDICTION, table_rows.gold_volatility_prediction(kept))
            self._publisher.flush()

        return write

    def _models(self, symbol: str) -> tuple[BidModel, VolatilityModel]:
        champions = self._holder.current
        bid, volatility = champions.bid(symbol), champions.volatility(symbol)
        if bid is None or volatility is None:
            raise ServiceError(f"there is no model: {'; '.join(champions.reasons)}")
        return bid, volatility

    def _close_minutes(self, row: FeatureMessage) -> list[Outcome]:
        """Close the minutes that ended before `row`; returns the outcomes that became final."""
        tracker = self._trackers.get(row.symbol)
        if tracker is None:
            bid, volatility = self._models(row.symbol)
            with QuestDB(self._settings.questdb) as db:
                tracker = restore_tracker(db, row.symbol, start_quantiles(bid), start_quantiles(volatility))
            self._trackers[row.symbol] = tracker
        return tracker.advance(row.ts_event_ns)

    def _forecast(self, messages: list[FeatureMessage]) -> list[ForecastRow]:
        """Forecasts of rows of one symbol and minute, which share the quantiles in force; none before the first quote."""
        values = np.frombuffer(b"".join([message.values for message in messages])).reshape(len(messages), -1)
        quoted = np.isfinite(values[:, _BID_COLUMN])
        values = values[quoted]
        rows = [message for message, has_bid in zip(messages, quoted, strict=True) if has_bid]
        if not rows:
            return []
        matrix = np.ascontiguousarray(values[:, _MODEL_COLUMNS])
        bid_model, volatility = self._models(rows[0].symbol)
        tracker = self._trackers[rows[0].symbol]
        forecasts = _forecasts(rows, matrix, values[:, _BID_COLUMN], (bid_model, volatility), tracker)
        newest = matrix[-1:]
        tracker.observe(
            forecasts[-1],
            float(values[-1, _MID_COLUMN]),
            lambda: _baselines(bid_model, volatility, newest),
            volatility.harx.rv_floor,
        )
        return forecasts


def _forecasts(
    rows: list[FeatureMessage],
    matrix: np.ndarray,
    bid: np.ndarray,
    models: tuple[BidModel, VolatilityModel],
    tracker: OutcomeTracker,
) -> list[ForecastRow]:
    """A forecast of each row from its model features (n, features) and bid (n,), with the tracker's intervals."""
    bid_model, volatility = models
    sigma, baseline = volatility.predict_both(matrix)
    returns = bid_model.predict(matrix, sigma)
    path = bid_path(bid[:, np.newaxis], returns)
    bid_bounds = bid_path(bid[:, np.newaxis, np.newaxis], bid_bounds_bps(tracker.bid_quantiles, returns, sigma))
    sigma_bounds = volatility_bounds_bps(tracker.volatility_quantiles, sigma)
    made_at_ns = now_ns()
    return [
        ForecastRow(
            row.symbol,
            row.ts_event_ns,
            row.ts_recv_ns,
            row.partition,
            row.offset,
            row.item,
            made_at_ns,
            float(bid[index]),
            path[index].tolist(),
            sigma[index].tolist(),
            baseline[index].tolist(),
            bid_model.version,
            bid_model.kind,
            volatility.version,
            volatility.kind,
            row.feature_version,
            bid_bounds[index].tolist(),
            sigma_bounds[index].tolist(),
        )
        for index, row in enumerate(rows)
    ]


def _baselines(bid: BidModel, volatility: VolatilityModel, row: np.ndarray) -> tuple[dict[str, float], float]:
    """Forecasts of one row, five minutes ahead, in bps: σ by each simple baseline; the bid's return by its autoregression."""
    sigmas = {name: float(each[0, -1]) for name, each in volatility.baseline_forecasts(row).items()}
    return sigmas, next((float(each[0, -1]) for each in bid.baseline_forecasts(row).values()), math.nan)


def _minutes(rows: list[FeatureMessage]) -> list[list[FeatureMessage]]:
    """Group rows by symbol and UTC minute, in order: one batch may span many minutes."""
    parts: dict[tuple[str, int], list[FeatureMessage]] = {}
    for row in rows:
        parts.setdefault((row.symbol, row.ts_event_ns // NS_PER_MIN), []).append(row)
    return list(parts.values())


def build(settings: Settings) -> Worker:
    """The worker, ready to run; returns once there is a model, or a baseline, for both quantities."""
    holder = ModelHolder(BaselineSource(settings), settings.model.reload_s)
    holder.start()
    while not (models := holder.wait(WAIT_FOR_MODEL_S)).complete:
        metrics.LOOP_AT.labels(GROUP).set_to_current_time()
        log.info("waiting for a model, or for enough minute bars to fit a baseline: %s", "; ".join(models.reasons))
    return Worker(settings, SPEC, ForecastHandler(settings, holder))


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM."""
    build(settings).run_as_process()
