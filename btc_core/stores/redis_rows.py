"""The newest feature row, forecast and minute columns of each market in Redis: keys, fields, writing and reading.

What does not belong here: older rows. Those are in QuestDB.
"""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.errors import SchemaError
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.minute_columns import COLUMNS, COLUMNS_VERSION
from btc_core.market.messages import FeatureId, ForecastRow, Quality
from btc_core.names import HORIZONS_MIN, QUANTILE_NAMES, SCORED_QUANTILE_NAMES
from btc_core.stores import origin
from btc_core.stores.redis_connection import explained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.stores.redis_connection import Client

_SIGMA = re.compile(r"sigma_\d+m_bps")
_PATH_FIELDS = {
    name: tuple(template.format(horizon) for horizon in HORIZONS_MIN)
    for name, template in {
        "bid_path_usd": "bid_{}m_usd",
        "sigma_path_bps": "sigma_{}m_bps",
        "baseline_sigma_path_bps": "baseline_sigma_{}m_bps",
    }.items()
}
_BOUND_FIELDS = {
    name: tuple(tuple(template.format(horizon, percent) for percent in QUANTILE_NAMES) for horizon in HORIZONS_MIN)
    for name, template in {"bid_bounds_usd": "bid_{}m_q{}_usd", "sigma_bounds_bps": "sigma_{}m_q{}_bps"}.items()
}
"""The fields of a Redis hash for each field of `ForecastRow`."""
_SCORED = QUANTILE_NAMES.index(SCORED_QUANTILE_NAMES[0])
"""The place of the first quantile that every forecast with intervals has."""


class FeatureRow(FeatureId, frozen=True):
    """One feature row."""

    feature_version: str
    values: list[float]
    """In the order of `features.catalogue.FEATURE_NAMES`."""
    user: dict[str, float] = msgspec.field(default_factory=dict)
    """The user's own features at the newest closed minute, by name."""

    def value(self, name: str) -> float:
        """One feature by name."""
        return self.values[FEATURE_NAMES.index(name)]

    @property
    def bid(self) -> float:
        """Best bid, USD."""
        return self.value("bid")

    @property
    def ask(self) -> float:
        """Best ask, USD."""
        return self.value("ask")

    @property
    def bid_qty(self) -> float:
        """Quantity at the best bid, BTC."""
        return self.value("bid_qty")

    @property
    def ask_qty(self) -> float:
        """Quantity at the best ask, BTC."""
        return self.value("ask_qty")


class ColumnsRow(msgspec.Struct, frozen=True):
    """What the forecast of a row was made from beside the features: the minute columns and the online level."""

    symbol: str
    ts_event_ns: int
    level: float
    columns: Any
    """(1, COLUMNS), float32."""


def compact(symbol: str) -> str:
    """A symbol as keys spell it: `BTCUSD` for `BTC/USD`."""
    return symbol.replace("/", "")


def feature_key(symbol: str) -> str:
    """The key of the newest feature row."""
    return f"feature:{compact(symbol)}"


def forecast_key(symbol: str) -> str:
    """The key of the newest forecast."""
    return f"forecast:{compact(symbol)}"


def columns_key(symbol: str) -> str:
    """The key of the newest minute columns."""
    return f"columns:{compact(symbol)}"


def update_channel(key: str) -> str:
    """The channel that announces a new row: `feature_update:BTCUSD` for the key `feature:BTCUSD`."""
    kind, _, name = key.partition(":")
    return f"{kind}_update:{name}"


def replace(client: Client, rows: Mapping[str, dict[str, Any]], ttl_s: int) -> None:
    """Replace the hash at each key, set its TTL and announce it, in one transaction and one round trip.

    The announcement carries the row's event time in ns. Raises `ServiceError`.
    """
    origin.before_write(origin.NEWEST_ROWS, client.settings.url)
    with explained(client), client.pipeline(transaction=True) as pipe:
        for key, fields in rows.items():
            mapping: Any = fields  # the type of the client's keys is invariant
            pipe.delete(key)
            pipe.hset(key, mapping=mapping)
            pipe.expire(key, ttl_s)
            pipe.publish(update_channel(key), fields["ts_event_ns"])
        pipe.execute()


_IDENTITY = (*FeatureId.__struct_fields__, "feature_version")


def feature_fields(row: FeatureRow) -> dict[str, Any]:
    """The fields of a feature row: its identity, then every feature by its name, and last the user's own."""
    fields: dict[str, Any] = {name: getattr(row, name) for name in _IDENTITY}
    fields.update(zip(FEATURE_NAMES, row.values, strict=True))
    return fields | row.user


def forecast_fields(row: ForecastRow) -> dict[str, Any]:
    """The fields of a forecast by name; a path has one for each horizon (`bid_1m_usd`), and so has a bound (`bid_1m_q05_usd`)."""
    fields: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(row).items()
        if not isinstance(value, list) and name != "horizons_min"
    }
    for name, names in _PATH_FIELDS.items():
        fields.update(zip(names, getattr(row, name), strict=True))
    for name, names_of in _BOUND_FIELDS.items():
        for names, bounds in zip(
            names_of, getattr(row, name), strict=False
        ):  # a model without intervals gives no bounds
            fields.update(zip(names, bounds, strict=True))
    if row.quality is None:
        del fields["quality"]
    else:
        fields["quality"] = msgspec.json.encode(row.quality)
    return fields


def read_features(client: Client, symbol: str) -> FeatureRow | None:
    """The newest feature row; None when there is none.

    Raises `SchemaError` when the row has another feature version than this process.
    """
    fields = _read(client, feature_key(symbol))
    if fields is None:
        return None
    if fields["feature_version"] != FEATURE_VERSION:
        msg = f"{feature_key(symbol)} has feature version {fields['feature_version']}, and this process computes version {FEATURE_VERSION}"
        raise SchemaError(msg)
    identity = {name: fields[name] for name in _IDENTITY}
    values = [float(fields.pop(name)) for name in FEATURE_NAMES]
    user = {name: float(value) for name, value in fields.items() if name not in identity}
    return msgspec.convert({**identity, "values": values, "user": user}, FeatureRow, strict=False)


def read_forecast(client: Client, symbol: str) -> ForecastRow | None:
    """The newest forecast; None when there is none, or only one of other horizons than those of this process."""
    fields: dict[str, Any] | None = _read(client, forecast_key(symbol))
    if fields is None or _has_other_horizons(fields):
        return None
    for name, names in _PATH_FIELDS.items():
        fields[name] = [float(fields.pop(each)) for each in names]
    for name, names_of in _BOUND_FIELDS.items():
        if names_of[0][_SCORED] in fields:  # a program from before the wider levels wrote none of these
            fields[name] = [[float(fields.pop(each, math.nan)) for each in names] for names in names_of]
    if "quality" in fields:
        fields["quality"] = msgspec.json.decode(fields["quality"], type=Quality)
    return msgspec.convert(fields, ForecastRow, strict=False)


def _has_other_horizons(fields: Mapping[str, str]) -> bool:
    """Whether the fields have forecasts of the volatility, and not those of this process's horizons."""
    sigmas = {name for name in fields if _SIGMA.fullmatch(name)}
    return bool(sigmas) and not set(_PATH_FIELDS["sigma_path_bps"]) <= sigmas


def columns_fields(row: ColumnsRow) -> dict[str, Any]:
    """The fields of minute columns; the columns are float32 in base64, in the order of `COLUMNS`."""
    encoded = base64.b64encode(np.asarray(row.columns, "<f4").tobytes()).decode()
    return {"ts_event_ns": row.ts_event_ns, "level": row.level, "version": COLUMNS_VERSION, "columns": encoded}


def read_columns(client: Client, symbol: str) -> ColumnsRow | None:
    """The newest minute columns; None when there are none, or they are of another version than this process computes."""
    fields = _read(client, columns_key(symbol))
    if fields is None or fields["version"] != COLUMNS_VERSION:
        return None
    columns = np.frombuffer(base64.b64decode(fields["columns"]), "<f4").reshape(1, len(COLUMNS))
    return ColumnsRow(symbol, int(fields["ts_event_ns"]), float(fields["level"]), columns)


def _read(client: Client, key: str) -> dict[str, str] | None:
    with explained(client):
        raw: Any = client.hgetall(key)
    return {name.decode(): value.decode() for name, value in raw.items()} if raw else None
