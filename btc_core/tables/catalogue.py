"""The table catalogue: every column with its type, unit, meaning and upstream columns.

Bronze tables hold what the exchange sent, silver tables what the fold computed, and gold tables forecasts and summaries.
What does not belong here: what a table is in QuestDB (`form`), or making and writing rows (`rows`, `stores.questdb`).
"""

from __future__ import annotations

import msgspec

from btc_core.features.catalogue import DRIFTING_FEATURES, FEATURES
from btc_core.names import HORIZONS_MIN, LATE_FORECAST_S, LEVELS_PCT, QUANTILE_NAMES
from btc_core.tables.form import Column, Table
from btc_core.tables.proof_tables import FORECAST_MINUTES, FORECAST_ROOTS, FORECAST_STATES


def _event_times(channel: str) -> tuple[Column, Column, Column]:
    return (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "exchange time; receive time where the exchange sent none",
               (f"kraken.{channel}.timestamp",)),
        Column("ts_recv", "TIMESTAMP_NS", "UTC", "when ingest received the frame", ("log.ts_recv",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", (f"kraken.{channel}.symbol",)),
    )  # fmt: skip


_PLACE = (
    Column("kafka_partition", "INT", "", "partition of market.events", ("log.partition",)),
    Column("kafka_offset", "LONG", "", "offset in market.events", ("log.offset",)),
    Column("frame_item", "INT", "", "position in the frame's data, from 0", ("log.raw",)),
)
_IMPORT_ID = Column("import_id", "SYMBOL", "", "id of the import that wrote the row, null if none did")
_PLACE_KEYS = ("ts_event", "symbol", "kafka_partition", "kafka_offset", "frame_item")


def _kraken(channel: str, name: str, unit: str, meaning: str) -> Column:
    return Column(name, "DOUBLE", unit, meaning, (f"kraken.{channel}.{name}",))


BRONZE_TICKS = Table(
    "bronze_ticks",
    "bronze",
    "Each row is one quote of the ticker channel, as the exchange sent it.",
    (
        *_event_times("ticker"),
        _kraken("ticker", "bid", "USD", "best bid"),
        _kraken("ticker", "bid_qty", "BTC", "quantity at the best bid"),
        _kraken("ticker", "ask", "USD", "best ask"),
        _kraken("ticker", "ask_qty", "BTC", "quantity at the best ask"),
        _kraken("ticker", "last", "USD", "last trade price"),
        _kraken("ticker", "volume", "BTC", "traded over the rolling 24 hours"),
        _kraken("ticker", "vwap", "USD", "volume-weighted mean price over the rolling 24 hours"),
        *_PLACE,
    ),
    _PLACE_KEYS,
)

_TRADE_COLUMNS = (
    *_event_times("trade"),
    Column(
        "trade_id", "LONG", "", "trade id; negative for a trade whose source has no ids", ("kraken.trade.trade_id",)
    ),
    _kraken("trade", "price", "USD", "price"),
    _kraken("trade", "qty", "BTC", "quantity"),
    Column("side", "SYMBOL", "", "taker's side: buy or sell", ("kraken.trade.side",)),
    Column("ord_type", "SYMBOL", "", "taker's order type", ("kraken.trade.ord_type",)),
    Column(
        "origin",
        "SYMBOL",
        "",
        "how the trade came: ws (live), rest (it was missing and was fetched), file (imported) or redrive",
        ("log.origin",),
    ),
    *_PLACE,
)

BRONZE_TRADES = Table(
    "bronze_trades",
    "bronze",
    "Each row is one trade; every trade is stored exactly once.",
    (
        *_TRADE_COLUMNS,
        Column(
            "mark",
            "VARCHAR",
            "",
            "what is odd about the id: late (it was missing), epoch (another numbering began with it), outlier (the next "
            "trade continued the numbering before it); else empty",
            ("kraken.trade.trade_id",),
        ),
        _IMPORT_ID,
    ),
    ("ts_event", "symbol", "trade_id"),
)

BRONZE_TRADE_CORRECTIONS = Table(
    "bronze_trade_corrections",
    "bronze",
    "Trades whose id came before with another time, price or quantity. The first version stays in bronze_trades, and "
    "only the first version is part of the features.",
    _TRADE_COLUMNS,
    ("ts_event", "symbol", "trade_id", "price", "qty"),
)

BRONZE_BARS = Table(
    "bronze_bars",
    "bronze",
    "Minute bars with their place in the log, so that a replay folds each bar where the stream folded it.",
    (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "open of the bar", ("kraken.ohlc.interval_begin",)),
        Column("ts_recv", "TIMESTAMP_NS", "UTC", "when ingest received the frame", ("log.ts_recv",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("kraken.ohlc.symbol",)),
        _kraken("ohlc", "open", "USD", "first trade price"),
        _kraken("ohlc", "high", "USD", "highest trade price"),
        _kraken("ohlc", "low", "USD", "lowest trade price"),
        _kraken("ohlc", "close", "USD", "last trade price"),
        _kraken("ohlc", "volume", "BTC", "traded"),
        *_PLACE,
    ),
    _PLACE_KEYS,
    sealed=True,
)

BRONZE_BOOK_CHECKS = Table(
    "bronze_book_checks",
    "bronze",
    "Each row tells whether the checksum of a book frame matched the book that ingest keeps.",
    (
        *_event_times("book"),
        Column("kind", "SYMBOL", "", "snapshot or update", ("kraken.book.type",)),
        Column("checksum", "LONG", "", "the exchange's CRC-32", ("kraken.book.checksum",)),
        Column("matches", "BOOLEAN", "", "whether our book had the same checksum", ("kraken.book.checksum",)),
        *_PLACE,
    ),
    _PLACE_KEYS,
)

BRONZE_STATUS = Table(
    "bronze_status",
    "bronze",
    "Status messages of the exchange about its trading engine.",
    (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "when ingest received the frame", ("log.ts_recv",)),
        Column(
            "system",
            "SYMBOL",
            "",
            "online, cancel_only, maintenance, post_only or server_shutdown",
            ("kraken.status.system",),
        ),
        Column("version", "VARCHAR", "", "engine version", ("kraken.status.version",)),
        *_PLACE,
        Column("exchange", "SYMBOL", "", "exchange, null in rows from before this column", ("log.exchange",)),
    ),
    ("ts_event", "kafka_partition", "kafka_offset", "frame_item"),
)

MINUTE_BARS = Table(
    "minute_bars",
    "bronze",
    "Minute bars from the exchange, from files or from sealed trades. The models train on them.",
    (
        Column("ts", "TIMESTAMP_NS", "UTC", "open of the bar", ("kraken.ohlc.interval_begin",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("kraken.ohlc.symbol",)),
        _kraken("ohlc", "open", "USD", "first trade price"),
        _kraken("ohlc", "high", "USD", "highest trade price"),
        _kraken("ohlc", "low", "USD", "lowest trade price"),
        _kraken("ohlc", "close", "USD", "last trade price"),
        _kraken("ohlc", "volume", "BTC", "traded"),
        Column("trades", "LONG", "", "number of trades, −1 when unknown", ("kraken.ohlc.trades",)),
        Column(
            "source",
            "SYMBOL",
            "",
            "where the bar comes from: history or rest (the exchange), trades (of REST), bronze (trades in bronze_trades), "
            "sealed (trades of a sealed day) or file (imported bars)",
            ("log.origin",),
        ),
        _IMPORT_ID,
    ),
    ("ts", "symbol"),
    ttl="bars",
)

GAP_MARKS = Table(
    "gap_marks",
    "bronze",
    "Gaps in the trade ids: the ids that were missing, and what became of them.",
    (
        Column(
            "ts_event",
            "TIMESTAMP_NS",
            "UTC",
            "exchange time of the trade that showed the gap",
            ("kraken.trade.timestamp",),
        ),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("kraken.trade.symbol",)),
        Column("first_id", "LONG", "", "first missing trade_id", ("kraken.trade.trade_id",)),
        Column("last_id", "LONG", "", "last missing trade_id", ("kraken.trade.trade_id",)),
        Column("ts_recv", "TIMESTAMP_NS", "UTC", "when the gap was seen, or when its state changed", ("log.ts_recv",)),
        Column("missing", "LONG", "", "number of ids that are still missing", ("kraken.trade.trade_id",)),
        Column("absent", "LONG", "", "number of ids that the exchange does not have", ("log.raw",)),
        Column(
            "state",
            "SYMBOL",
            "",
            "open (ids are missing), repaired (all ids came), absent (the rest does not exist at the exchange) or "
            "withdrawn (the trade that showed the gap had a wrong id)",
            ("kraken.trade.trade_id",),
        ),
    ),
    ("ts_event", "symbol", "first_id"),
)

SILVER_FEATURES = Table(
    "silver_features",
    "silver",
    "Each row holds the features right after one quote or one trade.",
    (
        *_event_times("ticker"),
        Column("kind", "SYMBOL", "", "quote or trade", ("log.channel",)),
        Column("trade_id", "LONG", "", "trade id on the row of a trade, else 0", ("bronze_trades.trade_id",)),
        Column("trade_price", "DOUBLE", "USD", "price on the row of a trade, else NaN", ("bronze_trades.price",)),
        Column("trade_qty", "DOUBLE", "BTC", "quantity on the row of a trade, else NaN", ("bronze_trades.qty",)),
        Column("trade_side", "DOUBLE", "", "on the row of a trade: +1 when the taker bought, −1 when the taker sold", ("bronze_trades.side",)),
        *(
            Column(feature.name, "DOUBLE", feature.unit, feature.meaning, feature.upstream) for feature in FEATURES
        ),
        Column("feature_version", "SYMBOL", "", "hash of the feature set"),
        *_PLACE,
    ),
    _PLACE_KEYS,
)  # fmt: skip


def _origin(*upstream: str) -> tuple[Column, ...]:
    return (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "exchange time of the feature row", ("silver_features.ts_event",)),
        Column("ts_recv", "TIMESTAMP_NS", "UTC", "receive time of that frame", ("silver_features.ts_recv",)),
        Column("made_at", "TIMESTAMP_NS", "UTC", "when the forecast was made", upstream),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("silver_features.symbol",)),
    )


def _provenance(asset: str) -> tuple[Column, ...]:
    return (
        Column("model_version", "SYMBOL", "", "version in the model registry", (f"model.{asset}.version",)),
        Column("model_kind", "SYMBOL", "", "xgboost, or the baseline that served (harx, random_walk)",
               (f"model.{asset}.kind",)),
        Column("feature_version", "SYMBOL", "", "hash of the feature set", ("silver_features.feature_version",)),
        *_PLACE,
    )  # fmt: skip


_MODEL_INPUTS = tuple(f"silver_features.{f.name}" for f in FEATURES if f.group not in {"chart", "gold"})


def _bounds(template: str, unit: str, what: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            template.format(h, percent),
            "DOUBLE",
            unit,
            f"{percent} % quantile of the {what} over {h} min: a bound of an interval",
            _MODEL_INPUTS,
        )
        for h in HORIZONS_MIN
        for percent in QUANTILE_NAMES
    )


BID_PREDICTION = Table(
    "gold_bid_price_prediction",
    "gold",
    "Forecasts of the bid 1 to 5 minutes ahead. The baseline is the random walk, that is, the bid itself.",
    (
        *_origin(),
        Column("bid", "DOUBLE", "USD", "best bid at the origin", ("silver_features.bid",)),
        *(
            Column(f"bid_{h}m_usd", "DOUBLE", "USD", f"forecast of the bid {h} min ahead", _MODEL_INPUTS)
            for h in HORIZONS_MIN
        ),
        *_bounds("bid_{}m_q{}_usd", "USD", "bid"),
        *_provenance("bid_model"),
    ),
    _PLACE_KEYS,
)

VOLATILITY_PREDICTION = Table(
    "gold_volatility_prediction",
    "gold",
    "Forecasts of the realized volatility of the next 1 to 5 minutes, with those of the HARX baseline.",
    (
        *_origin(),
        *(
            Column(f"sigma_{h}m_bps", "DOUBLE", "bps", f"forecast σ of the next {h} min", _MODEL_INPUTS)
            for h in HORIZONS_MIN
        ),
        *(
            Column(f"baseline_sigma_{h}m_bps", "DOUBLE", "bps", f"HARX σ of the next {h} min", _MODEL_INPUTS)
            for h in HORIZONS_MIN
        ),
        *_bounds("sigma_{}m_q{}_bps", "bps", "realized volatility"),
        *_provenance("volatility_model"),
    ),
    _PLACE_KEYS,
)

_BIDS = "gold_bid_price_prediction"
_SIGMAS = "gold_volatility_prediction"
PREDICTION_OUTCOMES = Table(
    "gold_prediction_outcomes",
    "gold",
    "The outcome of the forecast in force at each closed minute, written five minutes later.",
    (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "the closed minute: origin of the forecast", (f"{_BIDS}.ts_event",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", (f"{_BIDS}.symbol",)),
        Column("made_at", "TIMESTAMP_NS", "UTC", "when the forecast was made", (f"{_BIDS}.made_at",)),
        Column("bid", "DOUBLE", "USD", "best bid at the origin", (f"{_BIDS}.bid",)),
        *(
            Column(f"{name}_model_{what}", "SYMBOL", "", f"{what} of the {name} model", (f"{table}.model_{what}",))
            for name, table in (("bid", _BIDS), ("volatility", _SIGMAS))
            for what in ("version", "kind")
        ),
        Column("feature_version", "SYMBOL", "", "hash of the feature set", (f"{_BIDS}.feature_version",)),
        *(
            column
            for h in HORIZONS_MIN
            for column in (
                Column(f"bid_return_{h}m_bps", "DOUBLE", "bps", f"log return of the bid over {h} min",
                       ("silver_features.bid",)),
                Column(f"bid_forecast_{h}m_bps", "DOUBLE", "bps", "forecast of that return; the random walk's forecast is 0",
                       (f"{_BIDS}.bid_{h}m_usd",)),
                Column(f"realized_{h}m_bps", "DOUBLE", "bps",
                       f"root of the summed squared one-minute log-mid returns over {h} min", ("silver_features.mid",)),
                Column(f"sigma_{h}m_bps", "DOUBLE", "bps", f"forecast of the realized volatility over {h} min", (f"{_SIGMAS}.sigma_{h}m_bps",)),
            )
        ),
        Column("bid_ar_5m_bps", "DOUBLE", "bps", "forecast of the bid's return over 5 min by the autoregression; NaN when none was fitted",
               tuple(f"silver_features.{f.name}" for f in FEATURES if f.group == "returns")),
        *(
            Column(f"qlike_{name}_5m", "DOUBLE", "1", f"QLIKE of {what} over 5 min", (f"{_SIGMAS}.sigma_5m_bps",))
            for name, what in (("model", "the served forecast"), ("harx", "HARX"), ("har", "HAR"), ("ewma", "EWMA"),
                               ("naive", "the last five minutes"))
        ),
        *(
            Column(f"{name}_inside_{level}", "BOOLEAN", "", f"whether the {level} % interval over 5 min held the outcome",
                   (f"{table}.{column}",))
            for name, table, column in (("bid", _BIDS, "bid_5m_q05_usd"), ("volatility", _SIGMAS, "sigma_5m_q05_bps"))
            for level in LEVELS_PCT
        ),
        *(
            Column(f"{name}_quantiles", "VARCHAR", "", "quantiles of the intervals after this outcome, as JSON; a restarted worker "
                   "continues from them", ("silver_features.mid",))
            for name in ("bid", "volatility")
        ),
        Column("late", "BOOLEAN", "", f"whether the forecast was made more than {LATE_FORECAST_S} s after its row was received; scores "
               "and coverage leave such outcomes out", (f"{_BIDS}.made_at", f"{_BIDS}.ts_recv")),
    ),
    ("ts_event", "symbol"),
)  # fmt: skip

_OUTCOMES = "gold_prediction_outcomes"
PREDICTION_SKILL = Table(
    "gold_prediction_skill",
    "gold",
    "Rolling skill of live forecasts against the best baseline, and the coverage of their intervals.",
    (
        Column("ts", "TIMESTAMP_NS", "UTC", "end of the period", (f"{_OUTCOMES}.ts_event",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", (f"{_OUTCOMES}.symbol",)),
        Column("quantity", "SYMBOL", "", "bid or volatility", (f"{_OUTCOMES}.ts_event",)),
        Column("hours", "INT", "h", "length of the period", (f"{_OUTCOMES}.ts_event",)),
        Column("outcomes", "LONG", "", "number of forecasts in the period whose outcome is known", (f"{_OUTCOMES}.ts_event",)),
        Column("loss", "DOUBLE", "1", "mean QLIKE of the volatility, mean squared error of the bid in bps², at 5 min",
               (f"{_OUTCOMES}.qlike_model_5m", f"{_OUTCOMES}.bid_forecast_5m_bps")),
        Column("best_baseline", "SYMBOL", "", "the baseline with the smallest loss", (f"{_OUTCOMES}.qlike_harx_5m",)),
        Column("baseline_loss", "DOUBLE", "1", "loss of the best baseline", (f"{_OUTCOMES}.qlike_harx_5m",)),
        Column("ratio", "DOUBLE", "1", "loss over the best baseline's: below 1 is skill",
               (f"{_OUTCOMES}.qlike_model_5m",)),
        *(
            Column(f"coverage_{level}", "DOUBLE", "1", f"share of outcomes inside the {level} % interval",
                   (f"{_OUTCOMES}.bid_inside_{level}", f"{_OUTCOMES}.volatility_inside_{level}"))
            for level in LEVELS_PCT
        ),
    ),
    ("ts", "symbol", "quantity", "hours"),
)  # fmt: skip

FEATURE_DRIFT = Table(
    "gold_feature_drift",
    "gold",
    "How far the features of the last week have moved from those that the volatility model was trained on.",
    (
        Column("ts", "TIMESTAMP_NS", "UTC", "time of the run that compared", ("silver_features.ts_event",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("silver_features.symbol",)),
        Column("feature", "SYMBOL", "", "name of the feature", ("silver_features.feature_version",)),
        Column("rows", "LONG", "", "number of minutes compared, of the last week", ("silver_features.ts_event",)),
        Column("psi", "DOUBLE", "1", "population stability index over ten bins",
               tuple(f"silver_features.{name}" for name in DRIFTING_FEATURES)),
        Column("psi_by_chance", "DOUBLE", "1", "the 99.9 % quantile of the index without any drift",
               ("silver_features.ts_event",)),
    ),
    ("ts", "symbol", "feature"),
)  # fmt: skip

_BAR_COLUMNS = (
    Column("ts", "TIMESTAMP_NS", "UTC", "open of the bar", ("silver_features.ts_event",)),
    Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("silver_features.symbol",)),
    Column("open", "DOUBLE", "USD", "first trade price", ("silver_features.trade_price",)),
    Column("high", "DOUBLE", "USD", "highest trade price", ("silver_features.trade_price",)),
    Column("low", "DOUBLE", "USD", "lowest trade price", ("silver_features.trade_price",)),
    Column("close", "DOUBLE", "USD", "last trade price", ("silver_features.trade_price",)),
    Column("volume", "DOUBLE", "BTC", "traded", ("silver_features.trade_qty",)),
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

_BRONZE = (
    BRONZE_TICKS, BRONZE_TRADES, BRONZE_TRADE_CORRECTIONS, BRONZE_BARS, BRONZE_BOOK_CHECKS, BRONZE_STATUS, MINUTE_BARS,
    GAP_MARKS,
)  # fmt: skip
_GOLD = (
    BID_PREDICTION, VOLATILITY_PREDICTION, PREDICTION_OUTCOMES, PREDICTION_SKILL, FEATURE_DRIFT, FORECAST_MINUTES,
    FORECAST_STATES, FORECAST_ROOTS, GOLD_1MIN, GOLD_5MIN, GOLD_1MIN_SEALED, GOLD_5MIN_SEALED,
)  # fmt: skip
TABLES: dict[str, Table] = {table.name: table for table in (*_BRONZE, SILVER_FEATURES, *_GOLD)}
"""All tables, in an order in which they can be created."""


STORED: tuple[Table, ...] = tuple(table for table in TABLES.values() if not table.view)
"""Tables with rows of their own. These are backed up; views are recomputed."""
