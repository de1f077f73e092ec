"""The table catalogue: every column with its type, unit, meaning and upstream columns.

Bronze tables hold what the exchange sent, silver tables what the fold computed, and gold tables forecasts and summaries.
What does not belong here: what a table is in QuestDB (`form`), or making and writing rows (`rows`, `stores.questdb`).
"""

from __future__ import annotations

from btc_core.features.catalogue import BASE_UNITS, DRIFTING_FEATURES, FEATURES
from btc_core.names import (
    HEADLINE_MIN,
    HEADLINE_TEXT,
    HORIZONS_TEXT,
    LATE_FORECAST_S,
    LEVELS_PCT,
    QUANTILES,
    SCORED_LEVELS_PCT,
    STORED_HEADLINES_MIN,
    STORED_HORIZONS_MIN,
    quantile_name,
)
from btc_core.tables.bar_tables import GOLD_1MIN, GOLD_1MIN_SEALED, GOLD_5MIN, GOLD_5MIN_SEALED
from btc_core.tables.form import Column, Table
from btc_core.tables.league_tables import LEAGUE_FORECASTS
from btc_core.tables.proof_tables import FORECAST_MINUTES, FORECAST_ROOTS, FORECAST_STATES
from btc_core.tables.user_tables import USER_FEATURES


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
        _kraken("ticker", "bid_qty", BASE_UNITS, "quantity at the best bid"),
        _kraken("ticker", "ask", "USD", "best ask"),
        _kraken("ticker", "ask_qty", BASE_UNITS, "quantity at the best ask"),
        _kraken("ticker", "last", "USD", "last trade price"),
        _kraken("ticker", "volume", BASE_UNITS, "traded over the rolling 24 hours"),
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
    _kraken("trade", "qty", BASE_UNITS, "quantity"),
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
        _kraken("ohlc", "volume", BASE_UNITS, "traded"),
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
        _kraken("ohlc", "volume", BASE_UNITS, "traded"),
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
        Column("trade_qty", "DOUBLE", BASE_UNITS, "quantity on the row of a trade, else NaN", ("bronze_trades.qty",)),
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


_QUALITY_INPUTS = (
    *(f"silver_features.{name}" for name in ("ts_event", "ts_recv", "since_quote_s", "since_trade_s", "book_age_s")),
    "bronze_trades.trade_id",
)


def _provenance(asset: str) -> tuple[Column, ...]:
    return (
        Column("model_version", "SYMBOL", "", "version in the model registry", (f"model.{asset}.version",)),
        Column("model_kind", "SYMBOL", "", "xgboost, user (a user's model), or the baseline that served (harx, har, ewma, naive, random_walk, ar)",
               (f"model.{asset}.kind",)),
        Column("feature_version", "SYMBOL", "", "hash of the feature set", ("silver_features.feature_version",)),
        *_PLACE,
        Column("quality", "SYMBOL", "", "good, degraded or poor when the forecast was made; null in rows from before this column",
               _QUALITY_INPUTS),
        Column("quality_reasons", "SYMBOL", "", "codes of the reasons for the quality, separated by spaces; null without a reason",
               _QUALITY_INPUTS),
    )  # fmt: skip


_MODEL_INPUTS = tuple(f"silver_features.{f.name}" for f in FEATURES if f.group not in {"chart", "gold"})


def _bounds(template: str, unit: str, what: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            template.format(h, quantile_name(quantile)),
            "DOUBLE",
            unit,
            f"{100 * quantile:g} % quantile of the {what} over {h} min: a bound of an interval",
            _MODEL_INPUTS,
        )
        for h in STORED_HORIZONS_MIN
        for quantile in QUANTILES
    )


BID_PREDICTION = Table(
    "gold_bid_price_prediction",
    "gold",
    f"Forecasts of the bid {HORIZONS_TEXT} ahead. The baseline is the random walk, that is, the bid itself.",
    (
        *_origin(),
        Column("bid", "DOUBLE", "USD", "best bid at the origin", ("silver_features.bid",)),
        *(
            Column(f"bid_{h}m_usd", "DOUBLE", "USD", f"forecast of the bid {h} min ahead", _MODEL_INPUTS)
            for h in STORED_HORIZONS_MIN
        ),
        *_bounds("bid_{}m_q{}_usd", "USD", "bid"),
        *_provenance("bid_model"),
    ),
    _PLACE_KEYS,
)

VOLATILITY_PREDICTION = Table(
    "gold_volatility_prediction",
    "gold",
    f"Forecasts of the realized volatility of the next {HORIZONS_TEXT}, with those of the HARX baseline.",
    (
        *_origin(),
        *(
            Column(f"sigma_{h}m_bps", "DOUBLE", "bps", f"forecast σ of the next {h} min", _MODEL_INPUTS)
            for h in STORED_HORIZONS_MIN
        ),
        *(
            Column(f"baseline_sigma_{h}m_bps", "DOUBLE", "bps", f"HARX σ of the next {h} min", _MODEL_INPUTS)
            for h in STORED_HORIZONS_MIN
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
    f"The outcome of the forecast in force at each closed minute, written {HEADLINE_TEXT} later.",
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
            for h in STORED_HORIZONS_MIN
            for column in (
                Column(f"bid_return_{h}m_bps", "DOUBLE", "bps", f"log return of the bid over {h} min",
                       ("silver_features.bid",)),
                Column(f"bid_forecast_{h}m_bps", "DOUBLE", "bps", "forecast of that return; the random walk's forecast is 0",
                       (f"{_BIDS}.bid_{h}m_usd",)),
                Column(f"realized_{h}m_bps", "DOUBLE", "bps", f"root of the summed squared one-minute log-mid returns over {h} min, "
                       "or of the variance of ticks if that is the target", ("silver_features.mid",)),
                Column(f"sigma_{h}m_bps", "DOUBLE", "bps", f"forecast of the realized volatility over {h} min", (f"{_SIGMAS}.sigma_{h}m_bps",)),
            )
        ),
        *(
            Column(f"bid_ar_{h}m_bps", "DOUBLE", "bps",
                   f"forecast of the bid's return over {h} min by the autoregression; NaN when none was fitted",
                   tuple(f"silver_features.{f.name}" for f in FEATURES if f.group == "returns"))
            for h in STORED_HEADLINES_MIN
        ),
        *(
            Column(f"qlike_{name}_{h}m", "DOUBLE", "1", f"QLIKE of {what} over {h} min", (f"{_SIGMAS}.sigma_{h}m_bps",))
            for h in STORED_HEADLINES_MIN
            for name, what in (("model", "the served forecast"), ("harx", "HARX"), ("har", "HAR"), ("ewma", "EWMA"),
                               ("naive", "the last five minutes"))
        ),
        *(
            Column(f"{name}_inside_{level}",
                   "BOOLEAN" if level in SCORED_LEVELS_PCT else "DOUBLE",  # a BOOLEAN has no null
                   "" if level in SCORED_LEVELS_PCT else "1",
                   f"whether the {level} % interval over {HEADLINE_MIN} min held the outcome"
                   + ("" if level in SCORED_LEVELS_PCT else ": 1 or 0, null without such an interval"), (f"{table}.{column}",))
            for name, table, column in (
                ("bid", _BIDS, f"bid_{HEADLINE_MIN}m_q05_usd"), ("volatility", _SIGMAS, f"sigma_{HEADLINE_MIN}m_q05_bps")
            )
            for level in LEVELS_PCT
        ),
        *(
            Column(f"{name}_quantiles", "VARCHAR", "", "quantiles of the intervals up to 90 % after this outcome, as JSON; a restarted "
                   "worker continues from them", ("silver_features.mid",))
            for name in ("bid", "volatility")
        ),
        *(
            Column(f"{name}_tails", "VARCHAR", "", "the quantiles beyond them, as JSON; null while they are not known. They have a column "
                   "of their own, so that an older version can continue from the others", ("silver_features.mid",))
            for name in ("bid", "volatility")
        ),
        Column("late", "BOOLEAN", "", f"whether the forecast was made more than {LATE_FORECAST_S} s after its row was received; scores "
               "and coverage leave such outcomes out", (f"{_BIDS}.made_at", f"{_BIDS}.ts_recv")),
        Column("volatility_target", "SYMBOL", "", "what the volatility model forecast and realized_… is: the variance of minutes or "
               "of ticks; null is minutes", (f"{_SIGMAS}.model_version",)),
    ),
    ("ts_event", "symbol"),
)  # fmt: skip

_OUTCOMES = "gold_prediction_outcomes"
_QLIKE_MODEL = f"{_OUTCOMES}.qlike_model_{HEADLINE_MIN}m"
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
        Column("loss", "DOUBLE", "1", f"mean QLIKE of the volatility, mean squared error of the bid in bps², at {HEADLINE_MIN} min",
               (_QLIKE_MODEL, f"{_OUTCOMES}.bid_forecast_{HEADLINE_MIN}m_bps")),
        Column("best_baseline", "SYMBOL", "", "the baseline with the smallest loss", (f"{_OUTCOMES}.qlike_harx_{HEADLINE_MIN}m",)),
        Column("baseline_loss", "DOUBLE", "1", "loss of the best baseline", (f"{_OUTCOMES}.qlike_harx_{HEADLINE_MIN}m",)),
        Column("ratio", "DOUBLE", "1", "loss over the best baseline's: below 1 is skill",
               (_QLIKE_MODEL,)),
        *(
            Column(f"coverage_{level}", "DOUBLE", "1", f"share of outcomes inside the {level} % interval",
                   (f"{_OUTCOMES}.bid_inside_{level}", f"{_OUTCOMES}.volatility_inside_{level}"))
            for level in LEVELS_PCT
        ),
        Column("target", "SYMBOL", "", "what the volatility was: minutes or ticks; null for the bid, and for minutes in older rows",
               (f"{_OUTCOMES}.volatility_target",)),
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

_BRONZE = (
    BRONZE_TICKS, BRONZE_TRADES, BRONZE_TRADE_CORRECTIONS, BRONZE_BARS, BRONZE_BOOK_CHECKS, BRONZE_STATUS, MINUTE_BARS,
    GAP_MARKS,
)  # fmt: skip
_GOLD = (
    BID_PREDICTION, VOLATILITY_PREDICTION, PREDICTION_OUTCOMES, LEAGUE_FORECASTS, PREDICTION_SKILL, FEATURE_DRIFT,
    FORECAST_MINUTES, FORECAST_STATES, FORECAST_ROOTS, GOLD_1MIN, GOLD_5MIN, GOLD_1MIN_SEALED, GOLD_5MIN_SEALED,
)  # fmt: skip
TABLES: dict[str, Table] = {table.name: table for table in (*_BRONZE, SILVER_FEATURES, USER_FEATURES, *_GOLD)}
"""All tables, in an order in which they can be created."""


STORED: tuple[Table, ...] = tuple(table for table in TABLES.values() if not table.view)
"""Tables with rows of their own. These are backed up; views are recomputed."""
