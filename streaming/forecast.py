"""The forecast worker: feature rows in, forecasts out to the prediction tables, the topic `predictions` and Redis.

Until a champion is registered, the HARX baseline fitted on what bars there are serves, flagged as such.
What does not belong here: what a model computes (`btc_core.bundle`), or training (`btc_assets`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd

from btc_core import metrics
from btc_core.bundle import bid_path
from btc_core.champions import BaselineSource, ModelHolder
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.features import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.log import FEATURES, PREDICTIONS, FeatureMessage
from btc_core.questdb_client import QuestDB
from btc_core.redis_row import HORIZONS_MIN, ForecastRow, forecast_fields, forecast_key
from streaming.latest import LatestRows
from streaming.publish import Publisher
from streaming.worker import Role, Stateless, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from streaming.worker import Record

log = logging.getLogger(__name__)

GROUP = "forecast"
WAIT_FOR_MODEL_S = 2.0

_MODEL_COLUMNS = [FEATURE_NAMES.index(name) for name in MODEL_FEATURES]
_BID_COLUMN = FEATURE_NAMES.index("bid")


class ForecastHandler(Stateless):
    """Predicts a batch of rows at once and announces the results before anything else."""

    def __init__(self, settings: Settings, holder: ModelHolder) -> None:
        self._settings = settings
        self._holder = holder
        self._db = QuestDB(settings.questdb)
        self._publisher = Publisher(settings.kafka, "forecast")
        self._latest = LatestRows(settings.redis, GROUP)
        self._decoder = msgspec.msgpack.Decoder(FeatureMessage)
        self._encoder = msgspec.msgpack.Encoder()
        self._pending: list[ForecastRow] | None = None
        self._kept: list[ForecastRow] = []

    def reset(self) -> None:
        """Forget rows that nobody has cut: their messages come again."""
        self._kept, self._pending = [], None

    def handle(self, messages: list[Record]) -> int:
        """Forecast and announce; rows of another feature version and rows before the first quote give no forecast."""
        if self._pending is None:
            rows = [self._decoder.decode(message.value) for message in messages]
            usable = [row for row in rows if row.feature_version == FEATURE_VERSION]
            if len(usable) < len(rows):
                log.info("%d of %d rows are of another feature version", len(rows) - len(usable), len(rows))
            self._pending = self._forecast(usable) if usable else []
        self._announce(self._pending)
        self._kept.extend(self._pending)
        self._pending = None
        return len(self._kept)

    def _announce(self, forecasts: list[ForecastRow]) -> None:
        newest = {forecast.symbol: forecast for forecast in forecasts if np.isfinite(forecast.sigma_path_bps).all()}
        rows = {forecast_key(symbol): forecast_fields(forecast) for symbol, forecast in newest.items()}
        if self._latest.put(rows) and forecasts:
            metrics.STAGE_LATENCY.labels("forecast").observe((now_ns() - forecasts[0].ts_recv_ns) / NS_PER_S)
        for forecast in forecasts:
            self._publisher.publish(PREDICTIONS, forecast.symbol, self._encoder.encode(forecast), forecast.ts_recv_ns)

    def cut(self) -> Callable[[], None]:
        """Rows of both prediction tables to write."""
        kept, self._kept = self._kept, []

        def write() -> None:
            if kept:
                self._db.write("gold_bid_price_prediction", bid_frame(kept))
                self._db.write("gold_volatility_prediction", volatility_frame(kept))
            self._publisher.flush()

        return write

    def _forecast(self, messages: list[FeatureMessage]) -> list[ForecastRow]:
        values = np.frombuffer(b"".join([message.values for message in messages])).reshape(len(messages), -1)  # noqa: PD011 - a struct's field
        quoted = np.isfinite(values[:, _BID_COLUMN])
        values = values[quoted]
        rows = [message for message, has_bid in zip(messages, quoted, strict=True) if has_bid]
        if not rows:
            return []
        matrix, bid = np.ascontiguousarray(values[:, _MODEL_COLUMNS]), values[:, _BID_COLUMN]
        models = self._holder.current
        volatility, bid_model = models.volatility, models.bid
        if volatility is None or bid_model is None:
            raise ServiceError(f"no model: {'; '.join(models.reasons)}")
        sigma = volatility.predict(matrix)
        baseline = volatility.baseline(matrix)
        path = bid_path(bid[:, np.newaxis], bid_model.predict(matrix, sigma))
        made_at_ns = now_ns()
        return [
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
            )
            for index, row in enumerate(rows)
        ]


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


def bid_frame(rows: list[ForecastRow]) -> pd.DataFrame:
    """Rows of `gold_bid_price_prediction`."""
    frame = _identity(rows, "bid_model_version", "bid_model_kind")
    return frame.assign(bid=[row.bid for row in rows], **_paths(rows, "bid_path_usd", "bid_{}m_usd"))


def volatility_frame(rows: list[ForecastRow]) -> pd.DataFrame:
    """Rows of `gold_volatility_prediction`."""
    return _identity(rows, "volatility_model_version", "volatility_model_kind").assign(
        **_paths(rows, "sigma_path_bps", "sigma_{}m_bps"),
        **_paths(rows, "baseline_sigma_path_bps", "baseline_sigma_{}m_bps"),
    )


def build(settings: Settings) -> Worker:
    """The worker, ready to run; it begins once there is a model or a baseline to forecast with."""
    holder = ModelHolder(BaselineSource(settings), settings.model.reload_s)
    holder.start()
    while not (models := holder.wait(WAIT_FOR_MODEL_S)).complete:
        metrics.LOOP_AT.labels(GROUP).set_to_current_time()
        log.info("waiting for a model or for enough minute bars: %s", "; ".join(models.reasons))
    return Worker(settings, Role(GROUP, FEATURES), ForecastHandler(settings, holder))
