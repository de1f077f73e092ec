"""How events and forecasts become stored rows: one function for each table.

The workers, the proofs of a day and the imports all make their rows here, so a proof compares rows that were made by
the same code, and a table has one definition of each of its columns. Every function returns an Arrow table with the
columns and types of the catalogue.
What does not belong here: sending rows (`stores.questdb`), or tables that a SELECT fills.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.market.bars import PRICES
from btc_core.market.events import TRADE, BarEvent, QuoteEvent, TradeEvent
from btc_core.names import HEADLINE_MIN, HORIZONS_MIN, QUANTILE_NAMES, STORED_HEADLINES_MIN, STORED_HORIZONS_MIN
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import (
    BID_PREDICTION,
    BRONZE_BARS,
    BRONZE_BOOK_CHECKS,
    BRONZE_STATUS,
    BRONZE_TICKS,
    BRONZE_TRADE_CORRECTIONS,
    BRONZE_TRADES,
    GAP_MARKS,
    MINUTE_BARS,
    SILVER_FEATURES,
    VOLATILITY_PREDICTION,
)
from btc_core.tables.proof_tables import FORECAST_MINUTES
from btc_core.tables.user_tables import USER_FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btc_core.features.user.files import FeatureFile
    from btc_core.features.user.values import ClosedMinute
    from btc_core.market.messages import FeatureId, ForecastRow
    from btc_core.tables.form import Table

NOT_FROM_THE_LOG = -1
"""The partition of a row that never was in the log: an imported trade."""
_HORIZON = re.compile(r"_(\d+)m(?:_|$)")
"""What a column with a horizon has in its name."""
_OF_HEADLINE = ("qlike_", "bid_ar_")
"""How the names of columns begin that exist for the headline horizon only."""
UNKNOWN_TRADES = -1
"""The number of trades of a bar whose source does not say."""


class BookCheck(msgspec.Struct, frozen=True, gc=False):
    """Whether the checksum of a book frame matched our book."""

    symbol: str
    ts_event_ns: int
    item: int
    kind: str
    """`snapshot` or `update`."""
    checksum: int
    matches: bool


class StatusEvent(msgspec.Struct, frozen=True, gc=False):
    """What the exchange said about its engine; `ts_event_ns` is the time of receipt."""

    ts_event_ns: int
    item: int
    system: str
    version: str
    exchange: str


class GapMark(msgspec.Struct, frozen=True, gc=False):
    """A run of trade ids that were missing, and what became of them."""

    symbol: str
    ts_event_ns: int
    """Exchange time of the trade that showed the gap."""
    first_id: int
    last_id: int
    ts_recv_ns: int
    """When the gap was seen, or when its state changed."""
    missing: int
    absent: int
    state: str


Entry = TypeVar("Entry", QuoteEvent, TradeEvent, BarEvent, BookCheck, StatusEvent)


class Logged(msgspec.Struct, Generic[Entry], frozen=True, gc=False):
    """An entry of a frame with its place in the log."""

    entry: Entry
    ts_recv_ns: int
    origin: str
    """As `Envelope.origin`."""
    partition: int
    offset: int
    mark: str = ""
    """What is odd about the id of a trade: one of the marks of `trade_recorder`, empty for nothing."""


def bronze_ticks(logged: Sequence[Logged[QuoteEvent]]) -> pa.Table:
    """Quotes as the exchange sent them."""
    names = ("bid", "bid_qty", "ask", "ask_qty", "last", "volume", "vwap")
    return _table(BRONZE_TICKS, _logged(logged) | _fields(logged, names))


def bronze_trades(logged: Sequence[Logged[TradeEvent]], import_id: str | None = None) -> pa.Table:
    """Trades of the log, or fetched or imported ones (`NOT_FROM_THE_LOG`), with the id of the import if they have one."""
    columns = {"mark": [each.mark for each in logged], "import_id": [import_id] * len(logged)}
    return _table(BRONZE_TRADES, _trades(logged) | columns)


def bronze_trade_corrections(logged: Sequence[Logged[TradeEvent]]) -> pa.Table:
    """Trades whose id came before with another content."""
    return _table(BRONZE_TRADE_CORRECTIONS, _trades(logged))


def bronze_bars(logged: Sequence[Logged[BarEvent]]) -> pa.Table:
    """Minute bars with their place in the log."""
    return _table(BRONZE_BARS, _logged(logged) | _fields(logged, (*PRICES, "volume")))


def bronze_book_checks(logged: Sequence[Logged[BookCheck]]) -> pa.Table:
    """Checks of book frames."""
    return _table(BRONZE_BOOK_CHECKS, _logged(logged) | _fields(logged, ("kind", "checksum", "matches")))


def bronze_status(logged: Sequence[Logged[StatusEvent]]) -> pa.Table:
    """What the exchange said about its engine."""
    place = _logged(logged, with_market=False)
    return _table(BRONZE_STATUS, place | _fields(logged, ("system", "version", "exchange")))


def minute_bars(bars: np.ndarray, symbol: str, source: str, import_id: str | None = None) -> pa.Table:
    """Bars (dtype `market.bars.BARS`) of one market from one source, with the id of the import if they have one."""
    columns: dict[str, Any] = {name: np.ascontiguousarray(bars[name]) for name in (*PRICES, "volume", "trades")}
    columns |= {"ts": bars["ts_ns"], "symbol": [symbol] * len(bars), "source": [source] * len(bars)}
    columns |= {"import_id": [import_id] * len(bars)}
    return _table(MINUTE_BARS, columns)


def gap_marks(marks: Sequence[GapMark]) -> pa.Table:
    """Gaps in the trade ids."""
    names = ("symbol", "first_id", "last_id", "missing", "absent", "state")
    columns = {name: [getattr(mark, name) for mark in marks] for name in names}
    columns |= {"ts_event": [mark.ts_event_ns for mark in marks], "ts_recv": [mark.ts_recv_ns for mark in marks]}
    return _table(GAP_MARKS, columns)


def silver_features(events: Mapping[str, Any], matrix: np.ndarray) -> pa.Table:
    """Feature rows: the fields of `FoldedEvent` as columns, and all features as float64, shape (rows, features)."""
    columns = {column: events[field] for field, column in _PLACE.items()}
    columns |= {name: events[name] for name in ("trade_id", "trade_price", "trade_qty", "trade_side")}
    columns |= {"kind": np.where(np.asarray(events["kind"]) == TRADE, "trade", "quote")}
    columns |= {"feature_version": [FEATURE_VERSION] * len(matrix)}
    columns |= {name: np.ascontiguousarray(matrix[:, place]) for place, name in enumerate(FEATURE_NAMES)}
    return _table(SILVER_FEATURES, columns)


def user_features(ids: Sequence[FeatureId], closed: Sequence[ClosedMinute], files: Sequence[FeatureFile]) -> pa.Table:
    """Values of the user's features at the closes of minutes; `ids` are those of the rows with which these closed."""
    columns: dict[str, Any] = {
        column: [getattr(row, field) for row in ids for _ in files] for field, column in _PLACE.items()
    }
    columns |= {"ts_event": [each.end_ns for each in closed for _ in files]}
    columns |= {
        "feature": [file.name for file in files] * len(closed),
        "feature_version": [file.version for file in files] * len(closed),
    }
    values = np.concatenate([np.empty(0), *(each.values for each in closed)])
    return _table(USER_FEATURES, columns | {"value": values})


def gold_bid_price_prediction(forecasts: Sequence[ForecastRow]) -> pa.Table:
    """Forecasts of the bid with the bounds of their intervals."""
    columns = _forecast(forecasts, "bid_model") | {"bid": [row.bid for row in forecasts]}
    columns |= _path(forecasts, "bid_path_usd", "bid_{}m_usd")
    return _filled(BID_PREDICTION, columns | _bounds(forecasts, "bid_bounds_usd", "bid_{}m_q{}_usd"))


def gold_volatility_prediction(forecasts: Sequence[ForecastRow]) -> pa.Table:
    """Forecasts of realized volatility with the bounds of their intervals, beside the HARX baseline."""
    columns = _forecast(forecasts, "volatility_model")
    columns |= _path(forecasts, "sigma_path_bps", "sigma_{}m_bps")
    columns |= _path(forecasts, "baseline_sigma_path_bps", "baseline_sigma_{}m_bps")
    return _filled(VOLATILITY_PREDICTION, columns | _bounds(forecasts, "sigma_bounds_bps", "sigma_{}m_q{}_bps"))


def forecast_minutes(symbol: str, bars: np.ndarray, taken_at_ns: int, source: str) -> pa.Table:
    """Minutes (dtype `market.bars.BARS`) that the forecast worker used from a time on."""
    columns: dict[str, Any] = {name: np.ascontiguousarray(bars[name]) for name in (*PRICES, "volume")}
    columns |= {"ts": bars["ts_ns"], "symbol": [symbol] * len(bars), "taken_at": [taken_at_ns] * len(bars)}
    return _table(FORECAST_MINUTES, columns | {"source": [source] * len(bars)})


def from_records(table: Table, records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows that are already spelled by column, for tables with a single writer."""
    names = [column.name for column in table.columns]
    return _filled(
        table, {name: [each[name] for each in records] for name in names if not records or name in records[0]}
    )


_PLACE = {
    "ts_event_ns": "ts_event",
    "ts_recv_ns": "ts_recv",
    "symbol": "symbol",
    "partition": "kafka_partition",
    "offset": "kafka_offset",
    "item": "frame_item",
}
"""The columns of a row's identity by the fields of `messages.RowId`."""


def _table(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    schema = arrow_schema(table)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _filled(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    """A table whose columns of former horizons, which new rows do not have, are null. Raises `KeyError` for any other one."""
    rows = len(columns[table.timestamp])
    former = [each.name for each in table.columns if each.name not in columns and _is_former(each.name)]
    return _table(table, {**columns, **dict.fromkeys(former, [None] * rows)})


def _is_former(column: str) -> bool:
    """Whether only rows from before a change of the horizons have values in a column."""
    found = _HORIZON.search(column)
    if found is None:
        return False
    minutes = int(found[1])
    if column.startswith(_OF_HEADLINE):
        return minutes in STORED_HEADLINES_MIN and minutes != HEADLINE_MIN
    return minutes in STORED_HORIZONS_MIN and minutes not in HORIZONS_MIN


def _logged(logged: Sequence[Logged[Any]], *, with_market: bool = True) -> dict[str, Any]:
    """The columns of every bronze table that is filled from the log."""
    columns: dict[str, Any] = {
        "ts_event": [each.entry.ts_event_ns for each in logged],
        "kafka_partition": [each.partition for each in logged],
        "kafka_offset": [each.offset for each in logged],
        "frame_item": [each.entry.item for each in logged],
    }
    if with_market:
        columns["ts_recv"] = [each.ts_recv_ns for each in logged]
        columns["symbol"] = [each.entry.symbol for each in logged]
    return columns


def _trades(logged: Sequence[Logged[TradeEvent]]) -> dict[str, Any]:
    """The columns that both tables of trades have."""
    columns = _fields(logged, ("trade_id", "price", "qty", "side", "ord_type"))
    return _logged(logged) | columns | {"origin": [each.origin for each in logged]}


def _fields(logged: Sequence[Logged[Any]], names: Iterable[str]) -> dict[str, Any]:
    return {name: [getattr(each.entry, name) for each in logged] for name in names}


def _forecast(forecasts: Sequence[ForecastRow], model: str) -> dict[str, Any]:
    """The columns of both prediction tables; `model` is `bid_model` or `volatility_model`."""
    return {column: [getattr(row, field) for row in forecasts] for field, column in _PLACE.items()} | {
        "made_at": [row.made_at_ns for row in forecasts],
        "model_version": [getattr(row, f"{model}_version") for row in forecasts],
        "model_kind": [getattr(row, f"{model}_kind") for row in forecasts],
        "feature_version": [row.feature_version for row in forecasts],
        "quality": [row.quality.word if row.quality is not None else None for row in forecasts],
        "quality_reasons": [
            " ".join(row.quality.reasons) or None if row.quality is not None else None for row in forecasts
        ],
    }


def _path(forecasts: Sequence[ForecastRow], field: str, column: str) -> dict[str, Any]:
    values = np.array([getattr(row, field) for row in forecasts]).reshape(len(forecasts), len(HORIZONS_MIN))
    return {column.format(h): np.ascontiguousarray(values[:, place]) for place, h in enumerate(HORIZONS_MIN)}


def _bounds(forecasts: Sequence[ForecastRow], field: str, column: str) -> dict[str, Any]:
    shape = (len(forecasts), len(HORIZONS_MIN), len(QUANTILE_NAMES))
    values = np.array([getattr(row, field) for row in forecasts]).reshape(shape)
    return {
        column.format(h, quantile): np.ascontiguousarray(values[:, place, bound])
        for place, h in enumerate(HORIZONS_MIN)
        for bound, quantile in enumerate(QUANTILE_NAMES)
    }
