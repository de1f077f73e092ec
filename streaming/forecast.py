"""The forecast worker: reads feature rows and writes forecasts and their outcomes.

Forecasts go to the prediction tables, the topic `predictions` and Redis, outcomes to `gold_prediction_outcomes`.
Each market is forecast by its own models. Until a champion is registered, the pre-trained volatility model serves on the
market's own minute bars, and the random walk for the bid. A market with less than half an hour of bars has no forecasts yet.
What does not belong here: forecasts and outcomes without servers (`forecaster`, `outcomes`), or training (`btc_assets`).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from btc_core import metrics
from btc_core.clock import NS_PER_MIN, SYSTEM_CLOCK
from btc_core.errors import ServiceError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.features.live_minutes import LiveMinutes
from btc_core.features.minute_columns import MEMORY_DAYS
from btc_core.market.messages import FeatureMessage, ForecastRow
from btc_core.models.bundle import start_quantiles
from btc_core.models.trees import leave_out_scikit_learn
from btc_core.names import FEATURES_TOPIC, PREDICTIONS_TOPIC, WorkerName
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.stores.minute_bars import changed_minutes, read_stored
from btc_core.stores.questdb import QuestDB, append
from btc_core.stores.redis_rows import columns_fields, columns_key, forecast_fields, forecast_key
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BID_PREDICTION, PREDICTION_OUTCOMES, VOLATILITY_PREDICTION
from btc_core.tables.proof_tables import FORECAST_MINUTES, FORECAST_STATES
from streaming.forecaster import Forecaster, Inputs, state_row
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
from streaming.published_forecasts import PublishedForecasts
from streaming.publisher import Publisher
from streaming.served_models import ServedModels
from streaming.table_writer import TableWriter
from streaming.user_models import UserModels
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.clock import Clock
    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.settings import Settings
    from btc_core.stores.redis_rows import ColumnsRow
    from streaming.handler import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.FORECAST
SPEC = WorkerSpec(GROUP, FEATURES_TOPIC, OUTCOME_WARM_UP_S, f"{STATE_VERSION}-{FEATURE_VERSION}")
WAIT_FOR_MODEL_S = 2.0
"""Time between two log lines, and two updates of the loop metric, while there is no model."""
PREDICTIONS_LINGER_MS = 20
"""How long forecasts are gathered into one request to Kafka: a request for each costs as much processor time as the
forecast itself. Redis gets every forecast at once."""


class ForecastHandler:
    """Publishes forecasts of rows, and keeps them and final outcomes for the tables."""

    def __init__(self, settings: Settings, holder: ModelHolder, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._holder = holder
        self._clock = clock
        self._publisher = Publisher(settings.kafka, "forecast", PREDICTIONS_LINGER_MS)
        self._tables = TableWriter(settings.questdb, self._publisher)
        self._redis = LatestRows(settings.redis, GROUP)
        self._decoder = msgspec.msgpack.Decoder(FeatureMessage)
        self._encoder = msgspec.msgpack.Encoder()
        self._published = PublishedForecasts(settings.kafka, clock)
        self.user_models = UserModels(settings, clock)
        """The user's models that serve."""
        self._forecaster = Forecaster(
            self._models,
            self._new_tracker,
            self._new_minutes,
            self._published_forecast,
            clock,
            self.user_models.sigma_bps,
        )
        self._partitions: dict[str, int] = {}
        self._waiting: set[str] = set()
        """Markets of the newest batch that have too few bars for a model."""
        self._kept: list[ForecastRow] = []
        self._outcomes: list[Outcome] = []
        self._minutes: list[pa.Table] = []
        """Rows of `gold_forecast_minutes` that are not written yet."""
        self._states: list[dict[str, Any]] = []
        """Rows of `gold_forecast_states` that are not written yet, by column."""
        self._served = ServedModels(settings.store)

    def reset(self) -> None:
        """Forget rows not yet drained, and outcomes still open: their messages come again."""
        self._kept, self._outcomes, self._minutes, self._states = [], [], [], []
        self._forecaster.reset()
        self._published.forget()
        self.user_models.stop()

    def warm(self, messages: list[Record]) -> None:
        """Continue the outcomes that may still be open."""
        self._forecaster.warm(self._usable(messages, live=False))

    def save(self, partition: int, /) -> bytes:
        """The outcome trackers of the partition's symbols."""
        symbols = {symbol for symbol, its_partition in self._partitions.items() if its_partition == partition}
        return msgspec.msgpack.encode((partition, self._forecaster.save(symbols)))

    def load(self, state: bytes, /) -> None:
        """Restore the outcome trackers that `save` returned."""
        partition, states = msgspec.msgpack.decode(state, type=tuple[int, dict[str, TrackerState]])
        self._forecaster.load(states)
        self._partitions |= dict.fromkeys(states, partition)

    def handle(self, messages: list[Record]) -> int:
        """Forecast rows and publish the forecasts; returns how many are kept by now.

        Rows of another feature version, rows before the first quote, and rows of a market with too few bars for a model
        have no forecast. A row whose forecast was published before a restart keeps it.
        """
        results = self._forecaster.handle(self._usable(messages, live=True))
        for outcome in results.outcomes:
            count_outcome(outcome)
        self._outcomes += results.outcomes
        self._note_inputs(self._forecaster.take_inputs())
        self._count(results.forecasts)
        self._publish(results.unpublished, results.columns)
        self._kept += results.forecasts
        return len(self._kept)

    def _usable(self, messages: list[Record], *, live: bool) -> list[FeatureMessage]:
        """Rows that can be forecast; a message that is not a feature row becomes a dead letter when it is `live`.

        Published forecasts of these rows are loaded.
        """
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
        usable = self._with_models([row for row in rows if row.feature_version == FEATURE_VERSION], live=live)
        for partition in {self._partitions[row.symbol] for row in usable}:
            self._published.load(partition, [row for row in usable if self._partitions[row.symbol] == partition])
        old = sum(row.feature_version != FEATURE_VERSION for row in rows)
        if old:
            log.info("%d of %d rows have another feature version and get no forecast", old, len(rows))
        return usable

    def _with_models(self, rows: list[FeatureMessage], *, live: bool) -> list[FeatureMessage]:
        """The rows without those of markets that have too few bars for a model, which are counted when they are `live`."""
        champions = self._holder.current
        waiting = {symbol for symbol in {row.symbol for row in rows} if champions.waits_for_bars(symbol)}
        for symbol in sorted(waiting - self._waiting):
            log.info(
                "%s has no forecasts yet: %s", symbol, "; ".join(champions.reasons_of(symbol)) or "it is not followed"
            )
        self._waiting = waiting
        if not waiting:
            return rows
        if live:
            for row in rows:
                if row.symbol in waiting:
                    metrics.ROWS_WITHOUT_MODEL.labels(row.symbol).inc()
        return [row for row in rows if row.symbol not in waiting]

    def _count(self, forecasts: list[ForecastRow]) -> None:
        """Count forecasts, and how many of them HARX's floor decides: a clip that binds must not be silent."""
        champions, counts = self._holder.current, Counter[tuple[str, str]]()
        for forecast in forecasts:
            model = champions.volatility(forecast.symbol)
            at_floor = model is not None and forecast.baseline_sigma_path_bps[-1] <= model.harx.floor_bps
            counts[forecast.symbol, "yes" if at_floor else "no"] += 1
        for labels, count in counts.items():
            metrics.FORECASTS.labels(*labels).inc(count)

    def _publish(self, forecasts: list[ForecastRow], columns: dict[str, ColumnsRow]) -> None:
        newest = {
            forecast.symbol: forecast for forecast in forecasts if all(map(math.isfinite, forecast.sigma_path_bps))
        }
        rows = {forecast_key(symbol): forecast_fields(forecast) for symbol, forecast in newest.items()}
        rows |= {columns_key(symbol): columns_fields(columns[symbol]) for symbol in newest}
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
        minutes, self._minutes = self._minutes, []
        states, self._states = self._states, []

        def write() -> None:
            self._publisher.flush()  # first, so that a forecast that is stored is published, and a restart finds it
            if minutes:
                self._tables.write(FORECAST_MINUTES, pa.concat_tables(minutes))
            if states:
                self._tables.write(FORECAST_STATES, table_rows.from_records(FORECAST_STATES, states))
                self._served.store()
            if outcomes:
                rows = table_rows.from_records(PREDICTION_OUTCOMES, [outcome_row(outcome) for outcome in outcomes])
                self._tables.write(PREDICTION_OUTCOMES, rows)
            if kept:
                self._tables.write(BID_PREDICTION, table_rows.gold_bid_price_prediction(kept))
                self._tables.write(VOLATILITY_PREDICTION, table_rows.gold_volatility_prediction(kept))
            self._publisher.flush()  # the dead letters of refused rows

        return write

    def _note_inputs(self, inputs: list[Inputs]) -> None:
        """Keep what the forecasts read beside their rows: without it nobody could compute them again."""
        for each in inputs:
            if each.closed is not None:
                self._minutes.append(table_rows.forecast_minutes(each.symbol, each.closed, each.taken_at_ns, "stream"))
            if each.models is not None:
                bundles = tuple(self._served.digest(model) for model in each.models)
                self._states.append(state_row(each, bundles))

    def _models(self, symbol: str) -> tuple[BidModel, VolatilityModel]:
        champions = self._holder.current
        bid, volatility = champions.bid(symbol), champions.volatility(symbol)
        if bid is None or volatility is None:
            raise ServiceError(f"there is no model of {symbol}: {'; '.join(champions.reasons_of(symbol))}")
        return bid, volatility

    def _new_tracker(self, symbol: str) -> OutcomeTracker:
        bid, volatility = self._models(symbol)
        with QuestDB(self._settings.questdb) as db:
            return restore_tracker(db, symbol, start_quantiles(bid), start_quantiles(volatility))

    def _new_minutes(self, symbol: str, clock_ns: int) -> LiveMinutes:
        with QuestDB(self._settings.questdb) as db:
            bars = read_stored(db, symbol, MEMORY_DAYS)
            minute_ns = clock_ns // NS_PER_MIN * NS_PER_MIN
            bars = bars[bars["ts_ns"] < minute_ns]
            changed = changed_minutes(db, symbol, bars, minute_ns)
            rows = table_rows.forecast_minutes(symbol, changed, self._clock.now_ns(), "stored")
            append(db, FORECAST_MINUTES, rows, once=True)
        return LiveMinutes(bars, clock_ns)

    def _published_forecast(self, row: FeatureMessage) -> ForecastRow | None:
        return self._published.get(self._partitions[row.symbol], row)


def build(settings: Settings) -> Worker:
    """The worker, ready to run; returns once every market has models or baselines, or too few bars for them."""
    holder = ModelHolder(BaselineSource(settings), settings.model.reload_s)
    holder.start()
    while not (models := holder.wait(WAIT_FOR_MODEL_S)).can_start:
        metrics.LOOP_AT.labels(GROUP).set_to_current_time()
        log.info("waiting for a model, or for enough minute bars to fit a baseline: %s", "; ".join(models.reasons))
    return Worker(settings, SPEC, ForecastHandler(settings, holder))


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM."""
    leave_out_scikit_learn()
    build(settings).run_as_process()
