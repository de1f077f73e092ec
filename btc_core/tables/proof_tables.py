"""The tables that make a forecast verifiable: its inputs that are no feature row, and the roots of closed hours and days.

What does not belong here: all other tables (`catalogue`), and what a root is made of (`btc_core.days.forecast_leaves`).
"""

from __future__ import annotations

from btc_core.features.catalogue import BASE_UNITS
from btc_core.names import HEADLINE_MIN
from btc_core.tables.form import Column, Table

_BIDS, _SIGMAS = "gold_bid_price_prediction", "gold_volatility_prediction"
_OUTCOMES = "gold_prediction_outcomes"

FORECAST_MINUTES = Table(
    "gold_forecast_minutes",
    "gold",
    "The minutes that the forecast worker computed its minute columns from. A minute that it read again has several rows.",
    (
        Column("ts", "TIMESTAMP_NS", "UTC", "open of the minute", ("silver_features.ts_event",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("silver_features.symbol",)),
        Column("open", "DOUBLE", "USD", "first trade price; null if the minute is unknown", ("silver_features.price",)),
        *(
            Column(name, "DOUBLE", "USD", f"{what} trade price", ("silver_features.price",))
            for name, what in (("high", "highest"), ("low", "lowest"), ("close", "last"))
        ),
        Column("volume", "DOUBLE", BASE_UNITS, "traded", ("silver_features.log_volume_1m",)),
        Column("taken_at", "TIMESTAMP_NS", "UTC", "our time from which forecasts used the row"),
        Column("source", "SYMBOL", "", "stored (a row of minute_bars at a start of the worker) or stream", ("minute_bars.source",)),
    ),
    ("ts", "symbol", "taken_at"),
    ttl="bars",
)  # fmt: skip

FORECAST_STATES = Table(
    "gold_forecast_states",
    "gold",
    "The models of forecasts, and what forecasts take from earlier outcomes: a row for each change and each start of the worker.",
    (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "begin of the minute from which it is in force", (f"{_OUTCOMES}.ts_event",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", (f"{_OUTCOMES}.symbol",)),
        Column("taken_at", "TIMESTAMP_NS", "UTC", "our time from which forecasts used it"),
        Column("level", "DOUBLE", "1", "online level of the volatility", (f"{_OUTCOMES}.realized_{HEADLINE_MIN}m_bps",)),
        *(
            Column(f"{name}_quantiles", "VARCHAR", "", f"quantiles of the intervals of the {name}, as JSON", (f"{_OUTCOMES}.{name}_quantiles",))
            for name in ("bid", "volatility")
        ),
        *(
            Column(f"{name}_bundle", "VARCHAR", "", f"SHA-256 of bundle.json of the {name} model", (f"model.{name}_model.version",))
            for name in ("bid", "volatility")
        ),
    ),
    ("ts_event", "symbol", "taken_at"),
)  # fmt: skip

FORECAST_ROOTS = Table(
    "gold_forecast_roots",
    "gold",
    "The Merkle roots of closed hours and days: what was forecast in them can no longer be changed without being seen.",
    (
        Column("ts", "TIMESTAMP_NS", "UTC", "begin of the hour or day", (f"{_BIDS}.made_at",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", (f"{_BIDS}.symbol",)),
        Column("period", "SYMBOL", "", "hour or day", (f"{_BIDS}.made_at",)),
        Column("root", "VARCHAR", "", "SHA-256 root of the tree (RFC 6962), hexadecimal", (f"{_BIDS}.made_at", f"{_SIGMAS}.made_at")),
        Column("leaves", "LONG", "", "leaves of the tree, with the header", (f"{_BIDS}.made_at",)),
        Column("header", "VARCHAR", "", "the first leaf as JSON: the previous root, the models, the log, and forecasts that came too late",
               (f"{_BIDS}.model_version", f"{_SIGMAS}.model_version", "log.raw")),
        Column("closed_at", "TIMESTAMP_NS", "UTC", "when the root was made"),
    ),
    ("ts", "symbol", "period"),
)  # fmt: skip
