"""The time machine: the forecast of a past moment as it was, and what another model or a missing input would have said.

It reads stored feature rows and computes the forecast in a second. What does not belong here: proving the forecast
(`forecast_check`), which reads frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_MIN, column_ns
from btc_core.days.forecast_hours import PLACE, horizons_of, other_horizons_text, places_of
from btc_core.days.forecast_inputs import read_minutes, read_states, read_table
from btc_core.days.forecast_replay import ReplayedRows, columns_at
from btc_core.days.forecast_search import forecast_at
from btc_core.days.user_model_again import described, stored_sigma
from btc_core.errors import InvalidInput
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.features.engine import FoldedEvent
from btc_core.features.minute_columns import COLUMNS
from btc_core.market.events import QUOTE, TRADE
from btc_core.market.messages import ForecastRow
from btc_core.models.bundle import BidModel, VolatilityModel
from btc_core.models.explain import Explanation, explain
from btc_core.models.row_forecasts import MODEL_COLUMNS, Models, TrackedState, forecasts_of
from btc_core.names import HORIZONS_MIN
from btc_core.registry.served_models import models_of
from btc_core.tables.arrow import values_of
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.sql import of_symbol

if TYPE_CHECKING:
    from btc_core.days.forecast_hours import Place
    from btc_core.days.history import History
    from btc_core.stores.s3 import ObjectStore

ROWS_NS = 3 * NS_PER_MIN
"""How long before a forecast its feature rows are read: the minute columns depend on those of two minutes."""


def version_label(model: VolatilityModel | BidModel, version: str) -> str:
    """What a forecast of another version is called; of one with a user's model, only the stand-in forecasts here."""
    whose = "stand-in of " if model.manifest.user_entry is not None else ""
    return f"{whose}volatility model {version}"


class PastForecast(msgspec.Struct, frozen=True):
    """A forecast of the past with everything that it was made from."""

    forecast: ForecastRow
    """As it is computed again."""
    features: dict[str, float]
    """The feature row by name."""
    explanation: Explanation
    equals_stored: bool
    """Whether the stored forecast is equal to the last bit."""
    rows: ReplayedRows
    columns: Any
    """The minute columns at the row, float32 (1, COLUMNS)."""
    models: Models
    state: TrackedState
    user_model: str = ""
    """The user's model that made it, whose σ is the stored one; empty if none did. Its stand-in answers all other questions."""

    def with_model(self, model: VolatilityModel | BidModel) -> ForecastRow:
        """What the forecast would have been with another model of its quantity."""
        bid, volatility = self.models
        models = (bid, model) if isinstance(model, VolatilityModel) else (model, volatility)
        return self._again(self.rows.values[-1:], self.columns, models)

    def without(self, names: tuple[str, ...]) -> ForecastRow:
        """What the forecast would have been without some inputs; raises `InvalidInput` for a name that is none."""
        values, columns = self.rows.values[-1:].copy(), self.columns.copy()
        for name in names:
            if name in MODEL_FEATURES:
                values[:, FEATURE_NAMES.index(name)] = np.nan
            elif name in COLUMNS:
                columns[:, COLUMNS.index(name)] = np.nan
            else:
                msg = f"{name} is no input of the models; the inputs are {', '.join((*MODEL_FEATURES, *COLUMNS))}"
                raise InvalidInput(msg)
        return self._again(values, columns, self.models)

    def _again(self, values: Any, columns: Any, models: Models) -> ForecastRow:
        made_ns = self.forecast.made_at_ns
        made = forecasts_of(self.rows.ids[-1:], FEATURE_VERSION, values, columns, models, self.state, made_ns)
        if not made:
            raise InvalidInput("without a bid there is no forecast")
        return made[0]


def past_forecast(history: History, store: ObjectStore, symbol: str, at_ns: int) -> PastForecast:
    """The forecast that was in force at a time, and what it was made from.

    Raises `InvalidInput` if there was none, or if its feature row or its models are not stored, and `ServiceError`.
    """
    bid, volatility = forecast_at(history, symbol, at_ns)
    stored = values_of(bid)
    event_ns, made_ns = (int(column_ns(bid[name])[0]) for name in ("ts_event", "made_at"))
    if stored["feature_version"] != FEATURE_VERSION:
        msg = f"the forecast is of feature set {stored['feature_version']}, and this program computes {FEATURE_VERSION}"
        raise InvalidInput(msg)
    made_for = horizons_of(volatility)
    if made_for != HORIZONS_MIN:
        raise InvalidInput(other_horizons_text(made_for))
    (place,) = places_of(bid)
    rows = _stored_rows(history, symbol, event_ns, place)
    states = read_states(history, symbol, event_ns, event_ns + 1)
    at = states.place(made_ns)
    if at < 0:
        raise InvalidInput("the models and the state of the forecast are not stored")
    state = states.state(at)
    names = (stored["model_version"], volatility["model_version"][0].as_py())
    models = models_of(store, states.bundles(made_ns), names)
    columns = columns_at(rows, read_minutes(history, symbol, event_ns + ROWS_NS, made_ns))
    sigma = stored_sigma(volatility, models[1])
    made = forecasts_of(rows.ids[-1:], FEATURE_VERSION, rows.values[-1:], columns, models, state, made_ns, sigma)[0]
    sigmas = [volatility[f"sigma_{h}m_bps"][0].as_py() for h in HORIZONS_MIN]
    bids = [stored[f"bid_{h}m_usd"] for h in HORIZONS_MIN]
    return PastForecast(
        made,
        dict(zip(FEATURE_NAMES, rows.values[-1].tolist(), strict=True)),
        explain(models[1], np.ascontiguousarray(rows.values[-1:, MODEL_COLUMNS]), columns),
        (made.sigma_path_bps, made.bid_path_usd) == (sigmas, bids),
        rows,
        columns,
        models,
        state,
        described(models[1]) if np.isfinite(sigma).all() else "",
    )


def _stored_rows(history: History, symbol: str, event_ns: int, place: Place) -> ReplayedRows:
    """The feature rows up to a place in the log."""
    stored = read_table(history, SILVER_FEATURES, symbol, event_ns - ROWS_NS, event_ns + ROWS_NS)
    stored = stored.sort_by([(name, "ascending") for name in PLACE])
    places = places_of(stored)
    if place not in places:
        msg = f"its feature row, of place {place} in the log, is not in {SILVER_FEATURES.name} ({of_symbol(symbol)})"
        raise InvalidInput(msg)
    stored = stored.slice(0, places.index(place) + 1)
    events, received = (column_ns(stored[name]).tolist() for name in ("ts_event", "ts_recv"))
    kinds = [TRADE if kind == "trade" else QUOTE for kind in stored["kind"].to_pylist()]
    ids = [
        FoldedEvent(symbol, event, receipt, where[0], where[1], where[2], kind)
        for event, receipt, where, kind in zip(events, received, places, kinds, strict=False)
    ]
    values = np.column_stack([stored[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in FEATURE_NAMES])
    return ReplayedRows(ids, values)
