"""The table of the user's own features.

What does not belong here: the other tables (`catalogue`), and what a user's feature is (`btc_core.features.user`).
"""

from __future__ import annotations

from btc_core.tables.form import Column, Table

_INPUTS = (
    "bronze_trades.price", "bronze_trades.qty", "bronze_trades.side", "bronze_ticks.bid", "bronze_ticks.bid_qty",
    "bronze_ticks.ask", "bronze_ticks.ask_qty",
)  # fmt: skip

USER_FEATURES = Table(
    "silver_user_features",
    "silver",
    "The user's own features, one row for each feature at each closed minute.",
    (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "end of the closed minute, from which the value is known", ("bronze_ticks.ts_event",)),
        Column("ts_recv", "TIMESTAMP_NS", "UTC", "receive time of the frame with which the minute closed", ("log.ts_recv",)),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD", ("bronze_ticks.symbol",)),
        Column("feature", "SYMBOL", "", "NAME of the feature", _INPUTS),
        Column("value", "DOUBLE", "UNIT", "the value, in the UNIT of the feature; null where the feature is empty", _INPUTS),
        Column("feature_version", "SYMBOL", "", "hash of its file, and of the code that makes the minutes"),
        Column("kafka_partition", "INT", "", "partition of market.events of the quote or trade with which the minute closed",
               ("log.partition",)),
        Column("kafka_offset", "LONG", "", "its offset in market.events", ("log.offset",)),
        Column("frame_item", "INT", "", "its position in the frame's data, from 0", ("log.raw",)),
    ),
    ("ts_event", "symbol", "feature"),
)  # fmt: skip
