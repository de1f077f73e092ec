"""The tables of minute and five-minute bars: materialized views of the stream, and what is kept of them on sealed days.

What does not belong here: all other tables (`catalogue`).
"""

from __future__ import annotations

import msgspec

from btc_core.features.catalogue import BASE_UNITS
from btc_core.tables.form import Column, Table

_BAR_COLUMNS = (
    Column("ts", "TIMESTAMP_NS", "UTC", "open of the bar", ("silver_features.ts_event",)),
    Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("silver_features.symbol",)),
    Column("open", "DOUBLE", "USD", "first trade price", ("silver_features.trade_price",)),
    Column("high", "DOUBLE", "USD", "highest trade price", ("silver_features.trade_price",)),
    Column("low", "DOUBLE", "USD", "lowest trade price", ("silver_features.trade_price",)),
    Column("close", "DOUBLE", "USD", "last trade price", ("silver_features.trade_price",)),
    Column("volume", "DOUBLE", BASE_UNITS, "traded", ("silver_features.trade_qty",)),
    Column("notional", "DOUBLE", "USD", "traded",
           ("silver_features.trade_price", "silver_features.trade_qty")),
    Column("vwap", "DOUBLE", "USD", "notional over volume",
           ("silver_features.trade_price", "silver_features.trade_qty")),
    Column("trades", "LONG", "", "number of trades", ("silver_features.trade_price",)),
    Column("quotes", "LONG", "", "number of quotes", ("silver_features.kind",)),
    Column("bid_close", "DOUBLE", "USD", "last best bid", ("silver_features.bid",)),
    Column("ask_close", "DOUBLE", "USD", "last best ask", ("silver_features.ask",)),
    Column("spread_sum_bps", "DOUBLE", "bps", "sum of the spreads of all rows", ("silver_features.spread_bps",)),
    Column("spread_rows", "LONG", "", "rows with a spread", ("silver_features.spread_bps",)),
    Column("spread_mean_bps", "DOUBLE", "bps", "mean spread over quotes and trades",
           ("silver_features.spread_bps",)),
    Column("realized_variance", "DOUBLE", "ln²", "sum of squared 5-second log-mid returns",
           ("silver_features.rv_5s_step",)),
    Column("realized_volatility_bps", "DOUBLE", "bps", "root of realized_variance",
           ("silver_features.rv_5s_step",)),
)  # fmt: skip

_GOLD_1MIN = """
SELECT ts_event AS ts, symbol,
  first_not_null(trade_price) AS open, max(trade_price) AS high, min(trade_price) AS low,
  last_not_null(trade_price) AS close,
  sum(trade_qty) AS volume, sum(trade_price * trade_qty) AS notional,
  sum(trade_price * trade_qty) / sum(trade_qty) AS vwap,
  count(trade_price) AS trades, count() - count(trade_price) AS quotes,
  last_not_null(bid) AS bid_close, last_not_null(ask) AS ask_close,
  sum(spread_bps) AS spread_sum_bps, count(spread_bps) AS spread_rows, avg(spread_bps) AS spread_mean_bps,
  sum(rv_5s_step) AS realized_variance, sqrt(sum(rv_5s_step)) * 10000 AS realized_volatility_bps
FROM silver_features SAMPLE BY 1m
"""

_GOLD_5MIN = """
SELECT ts, symbol,
  first_not_null(open) AS open, max(high) AS high, min(low) AS low, last_not_null(close) AS close,
  sum(volume) AS volume, sum(notional) AS notional, sum(notional) / sum(volume) AS vwap,
  sum(trades) AS trades, sum(quotes) AS quotes,
  last_not_null(bid_close) AS bid_close, last_not_null(ask_close) AS ask_close,
  sum(spread_sum_bps) AS spread_sum_bps, sum(spread_rows) AS spread_rows,
  sum(spread_sum_bps) / sum(spread_rows) AS spread_mean_bps,
  sum(realized_variance) AS realized_variance, sqrt(sum(realized_variance)) * 10000 AS realized_volatility_bps
FROM gold_1min SAMPLE BY 5m
"""

GOLD_1MIN = Table(
    "gold_1min", "gold", "One-minute bars of trades, quotes, spread and realized volatility.",
    _BAR_COLUMNS, ("ts", "symbol"), view=" ".join(_GOLD_1MIN.split()),
)  # fmt: skip
GOLD_5MIN = Table(
    "gold_5min", "gold", "Five-minute bars, rolled up from gold_1min.",
    tuple(
        msgspec.structs.replace(column, upstream=(f"gold_1min.{column.name}",)) for column in _BAR_COLUMNS
    ),
    ("ts", "symbol"), view=" ".join(_GOLD_5MIN.split()),
)  # fmt: skip


def _of_sealed_days(view: Table, source: str) -> Table:
    """The table that keeps a view's rows permanently. They are computed again when a day is sealed."""
    columns = tuple(
        msgspec.structs.replace(
            column, upstream=tuple(f"{source}.{name.partition('.')[2]}" for name in column.upstream)
        )
        for column in view.columns
    )
    meaning = f"{view.meaning.removesuffix('.')}, of sealed days, computed from {source}."
    return Table(f"{view.name}_sealed", "gold", meaning, columns, view.keys, sealed=True)


GOLD_1MIN_SEALED = _of_sealed_days(GOLD_1MIN, "silver_features")
GOLD_5MIN_SEALED = _of_sealed_days(GOLD_5MIN, "gold_1min_sealed")
