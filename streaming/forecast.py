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
import pandas as pd

from btc_core import metrics
from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.market.messages import FeatureMessage
from btc_core.models.bundle import bid_path, start_quantiles
from btc_core.models.intervals import bid_bounds_bps, volatility_bounds_bps
from btc_core.names import FEATURES_TOPIC, HORIZONS_MIN, PREDICTIONS_TOPIC, QUANTILE_NAMES, WorkerName
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_rows import ForecastRow, forecast_fields, forecast_key
from btc_core.tables.catalogue import PREDICTION_OUTCOMES
from streaming.latest import LatestRows
from streaming.outcomes import (
    STATE_VERSION,
    WARM_UP_S,
    Outcome,
    OutcomeTracker,
    TrackerState,
    restored,
    row_of,
    tell_skill,
)
from streaming.publish import Publisher
from streaming.table_rows import typed
from streaming.worker import Role, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.settings import Settings
    from streaming.worker import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.FORECAST
ROLE = Role(GROUP, FEATURES_TOPIC, WARM_UP_S, f"{STATE_VERSION}-{FEATURE_VERSION}")
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
        """Forget rows that nobody has cut, and what is open: their messages come again."""
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
                    tell_skill(outcome)
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

    def cut(self) -> Callable[[], None]:
        """Rows of both prediction tables and of outcomes to write."""
        kept, self._kept = self._kept, []
        outcomes, self._outcomes = self._outcomes, []

        def write() -> None:
            if outcomes:
                self._db.write("gold_prediction_outcomes", outcome_frame(outcomes))
            if kept:
                self._db.write("gold_bid_price_prediction", bid_frame(kept))
                self._db.write("gold_volatility_prediction", volatility_frame(kept))
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
        values = np.frombuffer(b"".join([message.values for message in messages])).reshape(len(messages), -1)  # noqa: PD011 - a struct's field
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
                made_at_ns,
                row.partition,
                row.offset,
                row.item,
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
        tracker.see(
            forecasts[-1],
            float(values[-1, _MID_COLUMN]),
            lambda: _baselines(bid_model, volatility, newest),
            volatility.harx.rv_floor,
        )
        return forecasts


def _baselines(bid: BidModel, volatility: VolatilityModel, row: np.ndarray) -> tuple[dict[str, float], float]:
    """Of one row at five minutes, bps: σ of each simple baseline, the bid's return by its autoregression."""
    sigmas = {name: float(each[0, -1]) for name, each in volatility.others(row).items()}
    return sigmas, next((float(each[0, -1]) for each in bid.others(row).values()), math.nan)


def _minutes(rows: list[FeatureMessage]) -> list[list[FeatureMessage]]:
    """Rows by symbol and UTC minute, each in order: one batch of the log may span many minutes."""
    parts: dict[tuple[str, int], list[FeatureMessage]] = {}
    for row in rows:
        parts.setdefault((row.symbol, row.ts_event_ns // NS_PER_MIN), []).append(row)
    return list(parts.values())


def _identity(rows: list[ForecastRow], version: str, kind: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "ts_event": pd.to_datetime([row.ts_event_ns for row in rows]),
            "ts_recv": pd.to_datetime([row.ts_recv_ns for row in rows]),
            "made_at": pd.to_datetime([row.made_at_ns for row in rows]),
            "symbol": pd.Categorical([row.symbol for row in rows]),
            "model_version": pd.Categorical([getattr(row, version) for row in rows]),
            "model_kind": pd.Categorical([getattr(row, kind) for row in rows]),
            "feature_version": pd.Categorical([row.feature_version for row in rows]),
            "kafka_partition": np.array([row.partition for row in rows], np.int32),
            "kafka_offset": np.array([row.offset for row in rows], np.int64),
            "frame_item": np.array([row.item for row in rows], np.int32),
        }
    )


def _paths(rows: list[ForecastRow], field: str, column: str) -> dict[str, np.ndarray]:
    values = np.array([getattr(row, field) for row in rows])
    return {column.format(horizon): values[:, index] for index, horizon in enumerate(HORIZONS_MIN)}


def _bounds(rows: list[ForecastRow], field: str, column: str) -> dict[str, np.ndarray]:
    values = np.array([getattr(row, field) for row in rows])
    return {
        column.format(horizon, percent): values[:, place, at]
        for place, horizon in enumerate(HORIZONS_MIN)
        for at, percent in enumerate(QUANTILE_NAMES)
    }


def bid_frame(rows: list[ForecastRow]) -> pd.DataFrame:
    """Rows of `gold_bid_price_prediction`."""
    frame = _identity(rows, "bid_model_version", "bid_model_kind")
    return frame.assign(
        bid=[row.bid for row in rows],
        **_paths(rows, "bid_path_usd", "bid_{}m_usd"),
        **_bounds(rows, "bid_bounds_usd", "bid_{}m_q{}_usd"),
    )


def volatility_frame(rows: list[ForecastRow]) -> pd.DataFrame:
    """Rows of `gold_volatility_prediction`."""
    return _identity(rows, "volatility_model_version", "volatility_model_kind").assign(
        **_paths(rows, "sigma_path_bps", "sigma_{}m_bps"),
        **_paths(rows, "baseline_sigma_path_bps", "baseline_sigma_{}m_bps"),
        **_bounds(rows, "sigma_bounds_bps", "sigma_{}m_q{}_bps"),
    )


def outcome_frame(outcomes: list[Outcome]) -> pd.DataFrame:
    """Rows of `gold_prediction_outcomes`."""
    return typed(PREDICTION_OUTCOMES, [row_of(outcome) for outcome in outcomes])


def build(settings: Settings) -> Worker:
    """The worker, ready to run; it begins once there is a model or a baseline to forecast with."""
    holder = ModelHolder(BaselineSource(settings), settings.model.reload_s)
    holder.start()
    while not (models := holder.wait(WAIT_FOR_MODEL_S)).complete:
        metrics.LOOP_AT.labels(GROUP).set_to_current_time()
        log.info("waiting for a model or for enough minute bars: %s", "; ".join(models.reasons))
    return Worker(settings, ROLE, ForecastHandler(settings, holder))
