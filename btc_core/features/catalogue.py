"""The feature catalogue: name, unit, meaning, group and upstream of every column the fold computes.

The order here is the documented order of a feature list in an HTTP request, of a message on the topic `features`
and of a model's inputs. The formulas live in `fold`; a change there that changes numbers must raise `FOLD_REVISION`.

Windows end "now" and are anchored at whole seconds: a window of w minutes at time t covers (⌊t⌋ − 60 w s, t].
Volatilities and returns over minutes use steps of exactly one minute that end at ⌊t⌋, ⌊t⌋ − 60 s, …
A feature is NaN until its window is covered; features of quotes and trades are NaN on minute bars.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
import numpy as np

FOLD_REVISION = 4
"""Raise it whenever the fold gives other numbers for the same events: rows and bundles of another revision are refused."""

Group = Literal["volatility", "returns", "time", "activity", "microstructure", "chart", "gold"]

MODEL_GROUPS: tuple[Group, ...] = ("volatility", "returns", "time", "activity", "microstructure")
"""Groups whose features are scale-free and feed the models; the others are columns for people."""


class Feature(msgspec.Struct, frozen=True):
    """One feature; `upstream` names bronze columns as `table.column`."""

    name: str
    unit: str
    meaning: str
    group: Group
    upstream: tuple[str, ...]


_MID = ("bronze_ticks.bid", "bronze_ticks.ask")
_QUOTE = ("bronze_ticks.bid", "bronze_ticks.bid_qty", "bronze_ticks.ask", "bronze_ticks.ask_qty")
_TRADE = ("bronze_trades.price", "bronze_trades.qty", "bronze_trades.side")
_VOLUME = ("bronze_trades.qty",)
_TIME = ("bronze_ticks.ts_event",)

RV_WINDOWS_MIN = (1, 5, 15, 30, 60, 240, 1440)
EWMA_HALF_LIVES_MIN = (3, 10, 30, 120)
PARKINSON_WINDOWS_MIN = (1, 5, 30)
BIPOWER_WINDOWS_MIN = (15, 60)
RETURN_WINDOWS_MIN = (1, 2, 3, 5, 10, 15, 30, 60)
VOLUME_WINDOWS_MIN = (1, 5, 15, 60, 240)
TRADE_COUNT_WINDOWS_MIN = (1, 5, 60, 240)
QUOTE_COUNT_WINDOWS_MIN = (1, 5, 60)
OFI_WINDOWS_S = (5, 30, 60, 300)
SIGN_WINDOWS_S = (30, 60, 300)
ZERO_MOVE_WINDOWS_S = (60, 300)

FEATURES: tuple[Feature, ...] = (
    *(
        Feature(
            f"log_rv_{w}m",
            "ln",
            f"log of the realized variance over {w} min: sum of squared one-minute "
            "log-mid returns, scaled to full coverage",
            "volatility",
            _MID,
        )
        for w in RV_WINDOWS_MIN
    ),
    *(
        Feature(
            f"log_ewma_{h}m",
            "ln",
            f"log of the exponentially weighted mean of squared one-minute returns, half-life {h} min (RiskMetrics)",
            "volatility",
            _MID,
        )
        for h in EWMA_HALF_LIVES_MIN
    ),
    *(
        Feature(
            f"log_parkinson_{w}m",
            "ln",
            f"log of the summed Parkinson (1980) variance ln(high/low)²/(4 ln 2) of {w} one-minute steps",
            "volatility",
            _MID,
        )
        for w in PARKINSON_WINDOWS_MIN
    ),
    *(
        Feature(
            f"log_bipower_{w}m",
            "ln",
            f"log of the bipower variation over {w} min (Barndorff-Nielsen and Shephard 2004): robust to jumps",
            "volatility",
            _MID,
        )
        for w in BIPOWER_WINDOWS_MIN
    ),
    Feature(
        "downside_share_60m",
        "1",
        "share of negative one-minute returns in the realized variance of 60 min",
        "volatility",
        _MID,
    ),
    Feature("log_rv_5s_1m", "ln", "log of the realized variance over 1 min on a 5-second grid", "microstructure", _MID),
    Feature("log_rv_5s_5m", "ln", "log of the realized variance over 5 min on a 5-second grid", "microstructure", _MID),
    *(Feature(f"return_{w}m_bps", "bps", f"log-mid return over {w} min", "returns", _MID) for w in RETURN_WINDOWS_MIN),
    Feature("minute_of_day_sin", "1", "sine of the UTC minute of the day", "time", _TIME),
    Feature("minute_of_day_cos", "1", "cosine of the UTC minute of the day", "time", _TIME),
    Feature("weekday", "day", "UTC day of the week, Monday 0", "time", _TIME),
    Feature("minute_of_hour", "min", "minute of the hour: orders cluster on round times", "time", _TIME),
    Feature(
        "new_york_minute",
        "min",
        "minute of the day in New York, with its summer time: American data and the stock market open by that clock",
        "time",
        _TIME,
    ),
    *(
        Feature(f"log_volume_{w}m", "ln(1+BTC)", f"log of one plus the BTC traded over {w} min", "activity", _VOLUME)
        for w in VOLUME_WINDOWS_MIN
    ),
    *(
        Feature(
            f"log_trades_{w}m",
            "ln(1+n)",
            f"log of one plus the number of trades over {w} min",
            "microstructure",
            _VOLUME,
        )
        for w in TRADE_COUNT_WINDOWS_MIN
    ),
    *(
        Feature(
            f"log_quotes_{w}m", "ln(1+n)", f"log of one plus the number of quotes over {w} min", "microstructure", _MID
        )
        for w in QUOTE_COUNT_WINDOWS_MIN
    ),
    Feature("spread_bps", "bps", "ask minus bid over mid", "microstructure", _MID),
    Feature(
        "top_imbalance",
        "1",
        "(bid quantity − ask quantity) / (bid quantity + ask quantity) at the top of the book",
        "microstructure",
        _QUOTE,
    ),
    Feature(
        "microprice_minus_mid_bps",
        "bps",
        "microprice (quantity-weighted mid) minus mid, over mid",
        "microstructure",
        _QUOTE,
    ),
    *(
        Feature(
            f"ofi_{w}s",
            "1",
            f"order-flow imbalance over {w} s (Cont, Kukanov and Stoikov 2014) over the mean "
            "depth of the top of the book",
            "microstructure",
            _QUOTE,
        )
        for w in OFI_WINDOWS_S
    ),
    *(
        Feature(
            f"trade_sign_imbalance_{w}s",
            "1",
            f"(bought − sold) / traded BTC by the taker's side over {w} s; 0 without trades",
            "microstructure",
            _TRADE,
        )
        for w in SIGN_WINDOWS_S
    ),
    *(
        Feature(
            f"zero_move_share_{w}s",
            "1",
            f"share of quotes over {w} s that left the mid where it was",
            "microstructure",
            _MID,
        )
        for w in ZERO_MOVE_WINDOWS_S
    ),
    Feature("since_quote_s", "s", "time since the quote before this row, at most a day", "microstructure", _TIME),
    Feature(
        "since_trade_s",
        "s",
        "time since the trade before this row, at most a day",
        "microstructure",
        ("bronze_trades.ts_event",),
    ),
    # the top of the book as the state holds it, also on the rows of trades
    Feature("bid", "USD", "best bid", "gold", ("bronze_ticks.bid",)),
    Feature("bid_qty", "BTC", "quantity at the best bid", "gold", ("bronze_ticks.bid_qty",)),
    Feature("ask", "USD", "best ask", "gold", ("bronze_ticks.ask",)),
    Feature("ask_qty", "BTC", "quantity at the best ask", "gold", ("bronze_ticks.ask_qty",)),
    Feature("mid", "USD", "mean of best bid and best ask; on bar history the close", "gold", _MID),
    # what people look at, not models: indicators in the units of a price chart, over the last quotes and trades
    Feature("ma_5", "USD", "mean of the last 5 bids", "chart", _MID),
    Feature("ma_14", "USD", "mean of the last 14 bids", "chart", _MID),
    Feature(
        "ema_5", "USD", "exponential mean of the last 64 bids, span 5 (α = 1/3), weights normalised", "chart", _MID
    ),
    Feature("std_14", "USD", "sample standard deviation of the last 14 bids", "chart", _MID),
    Feature("price_change", "USD", "bid minus the bid before", "chart", _MID),
    Feature("price_change_pct", "%", "price_change over the bid before", "chart", _MID),
    Feature("max_14", "USD", "highest of the last 14 bids", "chart", _MID),
    Feature("min_14", "USD", "lowest of the last 14 bids", "chart", _MID),
    Feature(
        "vwap_diff",
        "USD",
        "last trade price minus the volume-weighted mean price of 60 min of trades",
        "chart",
        _TRADE,
    ),
    Feature("bid_ask_spread", "USD", "ask minus bid", "chart", _MID),
    Feature("log_return", "ln", "log of bid over the bid before", "chart", _MID),
    Feature("momentum", "USD", "bid minus the bid 14 quotes before", "chart", _MID),
    Feature("volatility", "ln", "sample standard deviation of the last 14 log returns of the bid", "chart", _MID),
    Feature("cumulative_volume", "BTC", "traded since UTC midnight", "chart", _VOLUME),
    Feature("volume_change", "BTC", "traded in the last minute minus the minute before", "chart", _VOLUME),
    Feature("mean_bid_qty", "BTC", "mean best-bid quantity of the last 14 quotes", "chart", _QUOTE),
    Feature("mean_ask_qty", "BTC", "mean best-ask quantity of the last 14 quotes", "chart", _QUOTE),
    Feature(
        "rv_5s_step",
        "ln²",
        "sum of the squared 5-second returns that ended since the row before; sums up to the "
        "realized variance of any period",
        "gold",
        _MID,
    ),
)

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
MODEL_FEATURES: tuple[str, ...] = tuple(feature.name for feature in FEATURES if feature.group in MODEL_GROUPS)
BAR_FEATURES: tuple[str, ...] = tuple(
    feature.name for feature in FEATURES if feature.group in {"volatility", "returns", "time", "activity"}
)
"""Model features that minute bars alone can give."""
DRIFTING_FEATURES: tuple[str, ...] = tuple(
    feature.name for feature in FEATURES if feature.group in {"volatility", "returns", "activity"}
)
"""Those whose distribution is compared with that of training: the clock's do not drift, and bars do not hold the book's."""

ROW = np.dtype([(name, np.float64) for name in FEATURE_NAMES])
"""One row as a record; `rows.view(np.float64).reshape(-1, len(FEATURES))` is the matrix."""

FEATURE_VERSION: str = hashlib.sha256(repr((FOLD_REVISION, [(f.name, f.unit) for f in FEATURES])).encode()).hexdigest()[
    :12
]
"""Carried by every row, message and bundle; those of another version are refused."""


def as_matrix(rows: np.ndarray) -> np.ndarray:
    """Rows of dtype `ROW` as a float64 matrix of shape (rows, features)."""
    return np.ascontiguousarray(rows).view(np.float64).reshape(len(rows), len(FEATURES))


def matrix(rows: np.ndarray, names: tuple[str, ...] = MODEL_FEATURES) -> np.ndarray:
    """Rows of dtype `ROW` as a float64 matrix of shape (rows, names) in the given order."""
    return as_matrix(rows)[:, [FEATURE_NAMES.index(name) for name in names]]
