"""The forecast worker: feature rows in, forecasts and what became of them out.

Forecasts go to the prediction tables, the topic `predictions` and Redis, outcomes to `gold_prediction_outcomes`.
Until a champion is registered, the HARX baseline fitted on what bars there are serves, flagged as such.
What does not belong here: what a model computes (`btc_core.models.bundle`), or training (`btc_assets`).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core import metrics
from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.market.messages import FeatureMessage, ForecastRow
from btc_core.models.bundle import bid_path, start_quantiles
from btc_core.models.intervals import bid_bounds_bps, volatility_bounds_bps
from btc_core.names import FEATURES_TOPIC, PREDICTIONS_TOPIC, WorkerName
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.stores.questdb import QuestDB, append
from btc_core.stores.redis_rows import forecast_fields, forecast_key
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BID_PREDICTION, PREDICTION_OUTCOMES, VOLATILITY_PREDICTION
from streaming.latest import LatestRows
from streaming.outcomes import (
    OUTCOME_WARM_UP_S,
    STATE_VERSION,
    Outcome,
    OutcomeTracker,
    TrackerState,
    count_outcome,
    restored,
    row_of,
)
from streaming.publish import Publisher
from streaming.worker import Role, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.settings import Settings
    from streaming.worker import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.FORECAST
ROLE = Role(GROUP, FEATURES_TOPIC, OUTCOME_WARM_UP_S, f"{STATE_VERSION}-{FEATURE_VERSION}")
WAIT_FOR_MODEL_S = 2.0
PREDICTIONS_LINGER_MS = 20
"""Who is in a hurry reads Redis; a request to the broker for each forecast costs as much as the forecast."""

_MODEL_COLUMNS = [FEATURE_NAMES.index(name) for name in MODEL_FEATURES]
_BID_COLUMN, _MID_COLUMN = FEATURE_NAMES.index("bid"), FEATURE_NAMES.index("mid")


class ForecastHandler:
    """Predicts a batch of rows at once and announces the results before anything else."""

    def __init__(self, settings: Settings, holder: ModelHolder) -> None:
        self._settings = settings
        self._holder = holder
        self._db = QuestDB(settings.questdb)
        self._publisher = Publisher(settings.kafka, "forecast", PREDICTIONS_LINGER_MS)
        self._latest = LatestRows(settings.redis, GROUP)
        self._decoder = msgspec.msgpack.Decoder(FeatureMessage)
        self._encoder = msgspec.msgpack.Encoder()
        self._pending: list[ForecastRow] | None = None
        self._kept: list[ForecastRow] = []
        self._trackers: dict[str, OutcomeTracker] = {}
        self._partitions: dict[str, int] = {}
        self._outcomes: list[Outcome] = []

    def reset(self) -> None:
        """Forget rows that nobody has drained, and what is open: their messages come again."""
        self._kept, self._pending = [], None
        self._outcomes, self._trackers = [], {}

    def warm(self, messages: list[Record]) -> None:
        """Forecast the last row of each minute anew: what became of it may still be open."""
        for part in _minutes(self._usable(messages, live=False)):
            self._close(part[-1])  # what becomes final here was written before its offsets were committed
            self._forecast(part[-1:])

    def save(self, partition: int, /) -> bytes:
        """What is open, and the quantiles in force, of the partition's symbols."""
        mine = {symbol for symbol, at in self._partitions.items() if at == partition}
        open_now = {symbol: each.save() for symbol, each in self._trackers.items() if symbol in mine}
        return msgspec.msgpack.encode((partition, open_now))

    def load(self, state: bytes, /) -> None:
        """Take up what `save` gave."""
        partition, saved = msgspec.msgpack.decode(state, type=tuple[int, dict[str, TrackerState]])
        for symbol, each in saved.items():
            self._trackers[symbol], self._partitions[symbol] = OutcomeTracker.loaded(each), partition

    def handle(self, messages: list[Record]) -> int:
        """Forecast and announce; rows of another feature version and rows before the first quote give no forecast."""
        if self._pending is None:
            pending = []
            for part in _minutes(self._usable(messages, live=True)):
                final = self._close(part[-1])
                self._outcomes += final
                for outcome in final:
                    count_outcome(outcome)
                pending += self._forecast(part)
            self._pending = pending
        self._announce(self._pending)
        self._kept.extend(self._pending)
        self._pending = None
        return len(self._kept)

    def _usable(self, messages: list[Record], *, live: bool) -> list[FeatureMessage]:
        """Rows of this feature version; what is no row is a dead letter when it comes `live`."""
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
            log.info("%d of %d rows are of another feature version", len(rows) - len(usable), len(rows))
        return usable

    def _announce(self, forecasts: list[ForecastRow]) -> None:
        newest = {
            forecast.symbol: forecast for forecast in forecasts if all(map(math.isfinite, forecast.sigma_path_bps))
        }
        rows = {forecast_key(symbol): forecast_fields(forecast) for symbol, forecast in newest.items()}
        if self._latest.put(rows) and forecasts:
            metrics.STAGE_LATENCY.labels("forecast").observe((now_ns() - forecasts[0].ts_recv_ns) / NS_PER_S)
        for forecast in forecasts:
            self._publisher.publish(
                PREDICTIONS_TOPIC, forecast.symbol, self._encoder.encode(forecast), forecast.ts_recv_ns
            )

    def drain(self) -> Callable[[], None]:
        """Rows of both prediction tables and of outcomes to write."""
        kept, self._kept = self._kept, []
        outcomes, self._outcomes = self._outcomes, []

        def write() -> None:
            if outcomes:
                judged = table_rows.from_records(PREDICTION_OUTCOMES, [row_of(outcome) for outcome in outcomes])
                append(self._db, PREDICTION_OUTCOMES, judged)
            if kept:
                append(self._db, BID_PREDICTION, table_rows.gold_bid_price_prediction(kept))
                append(self._db, VOLATILITY_PREDICTION, table_rows.gold_volatility_prediction(kept))
            self._publisher.flush()

        return write

    def _models(self, symbol: str) -> tuple[BidModel, VolatilityModel]:
        champions = self._holder.current
        bid, volatility = champions.bid(symbol), champions.volatility(symbol)
        if bid is None or volatility is None:
            raise ServiceError(f"no model: {'; '.join(champions.reasons)}")
        return bid, volatility

    def _close(self, row: FeatureMessage) -> list[Outcome]:
        """Close the minutes that ended before `row`; what became final by it."""
        tracker = self._trackers.get(row.symbol)
        if tracker is None:
            bid, volatility = self._models(row.symbol)
            with QuestDB(self._settings.questdb) as db:
                tracker = restored(db, row.symbol, start_quantiles(bid), start_quantiles(volatility))
            self._trackers[row.symbol] = tracker
        return tracker.advance(row.ts_event_ns)

    def _forecast(self, messages: list[FeatureMessage]) -> list[ForecastRow]:
        """Forecasts of rows of one symbol and minute, which all get the same quantiles; none before the first quote."""
        values = np.frombuffer(b"".join([message.values for message in messages])).reshape(len(messages), -1)
        quoted = np.isfinite(values[:, _BID_COLUMN])
        values = values[quoted]
        rows = [message for message, has_bid in zip(messages, quoted, strict=True) if has_bid]
        if not rows:
            return []
        matrix, bid = np.ascontiguousarray(values[:, _MODEL_COLUMNS]), values[:, _BID_COLUMN]
        bid_model, volatility = self._models(rows[0].symbol)
        tracker = self._trackers[rows[0].symbol]
        sigma, baseline = volatility.predict_both(matrix)
        moves = bid_model.predict(matrix, sigma)
        path = bid_path(bid[:, np.newaxis], moves)
        bid_bounds = bid_path(bid[:, np.newaxis, np.newaxis], bid_bounds_bps(tracker.bid_quantiles, moves, sigma))
        sigma_bounds = volatility_bounds_bps(tracker.volatility_quantiles, sigma)
        made_at_ns = now_ns()
        forecasts = [
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
        newest = matrix[-1:]
        tracker.observe(
            forecasts[-1],
            float(values[-1, _MID_COLUMN]),
            lambda: _baselines(bid_model, volatility, newest),
            volatility.harx.rv_floor,
        )
        return forecasts


def _baselines(bid: BidModel, volatility: VolatilityModel, row: np.ndarray) -> tuple[dict[str, float], float]:
    """Of one row at five minutes, bps: σ of each simple baseline, the bid's return by its autoregression."""
    sigmas = {name: float(each[0, -1]) for name, each in volatility.baseline_forecasts(row).items()}
    return sigmas, next((float(each[0, -1]) for each in bid.baseline_forecasts(row).values()), math.nan)


def _minutes(rows: list[FeatureMessage]) -> list[list[FeatureMessage]]:
    """Rows by symbol and UTC minute, each in order: one batch of the log may span many minutes."""
    parts: dict[tuple[str, int], list[FeatureMessage]] = {}
    for row in rows:
        parts.setdefault((row.symbol, row.ts_event_ns // NS_PER_MIN), []).append(row)
    return list(parts.values())


def build(settings: Settings) -> Worker:
    """The worker, ready to run; it begins once there is a model or a baseline to forecast with."""
    holder = ModelHolder(BaselineSource(settings), settings.model.reload_s)
    holder.start()
    while not (models := holder.wait(WAIT_FOR_MODEL_S)).complete:
        metrics.LOOP_AT.labels(GROUP).set_to_current_time()
        log.info("waiting for a model or for enough minute bars: %s", "; ".join(models.reasons))
    return Worker(settings, ROLE, ForecastHandler(settings, holder))
