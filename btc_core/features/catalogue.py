"""The feature catalogue: name, unit, meaning, group and source columns of every feature that the fold computes.

The order here is the order of a feature list in an HTTP request, of a message on the topic `features` and of a model's
inputs. The formulas are in `formulas`; a change there that changes numbers must raise `FOLD_REVISION`.

A window ends at the event and begins at a whole second: at the time t, a window of w minutes covers (⌊t⌋ − 60 w s, t].
Volatilities and returns over minutes use steps of exactly one minute, which end at ⌊t⌋, ⌊t⌋ − 60 s, …
They are those of the price, which is the price of the last trade, or the close of a later minute bar. A bar is made of
trades, so at the close of a minute its bar and its trades give the same features. Returns over seconds are those of the mid.
A feature is NaN until the data covers its window. Features of quotes and trades are NaN on minute bars.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
import numpy as np

FOLD_REVISION = 6
"""Raise this whenever the fold gives other numbers for the same events. Rows and model bundles of another revision are
refused."""

Group = Literal["volatility", "returns", "time", "activity", "microstructure", "chart", "gold"]

MODEL_GROUPS: tuple[Group, ...] = ("volatility", "returns", "time", "activity", "microstructure")
"""The groups whose features are inputs of the models; these do not depend on the price level."""


class Feature(msgspec.Struct, frozen=True):
    """One feature. `upstream` lists the bronze columns it is computed from, as `table.column`."""

    name: str
    unit: str
    meaning: str
    group: Group
    upstream: tuple[str, ...]


BASE_UNITS = "base units"
"""The unit of quantities: what the market trades, so BTC for BTC/USD and ETH for ETH/USD."""

_MID = ("bronze_ticks.bid", "bronze_ticks.ask")
_QUOTE = ("bronze_ticks.bid", "bronze_ticks.bid_qty", "bronze_ticks.ask", "bronze_ticks.ask_qty")
_TRADE = ("bronze_trades.price", "bronze_trades.qty", "bronze_trades.side")
_PRICE = ("bronze_trades.price",)
_VOLUME = ("bronze_trades.qty",)
_TIME = ("bronze_ticks.ts_event",)
_BOOK = ("bronze_book_checks.checksum",)

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
BOOK_SIDES = ("bid", "ask")
DEPTH_DISTANCES_BPS = (1, 5, 10)
LEAD_WINDOWS = ("5s", "30s", "1m", "5m")

FEATURES: tuple[Feature, ...] = (
    *(
        Feature(
            f"log_rv_{w}m",
            "ln",
            f"log of the realized variance over {w} min, which is the sum of the squared one-minute log returns of the "
            "price; if some returns are missing, the sum is scaled up to the whole window",
            "volatility",
            _PRICE,
        )
        for w in RV_WINDOWS_MIN
    ),
    *(
        Feature(
            f"log_ewma_{h}m",
            "ln",
            f"log of the exponentially weighted mean of squared one-minute log returns (RiskMetrics), half-life {h} min",
            "volatility",
            _PRICE,
        )
        for h in EWMA_HALF_LIVES_MIN
    ),
    *(
        Feature(
            f"log_parkinson_{w}m",
            "ln",
            f"log of the sum of the variances of the last {w} minutes, which are ln(high/low)²/(4 ln 2) of each minute (Parkinson 1980)",
            "volatility",
            _PRICE,
        )
        for w in PARKINSON_WINDOWS_MIN
    ),
    *(
        Feature(
            f"log_bipower_{w}m",
            "ln",
            f"log of the bipower variation over {w} min (Barndorff-Nielsen and Shephard 2004), which is robust to jumps",
            "volatility",
            _PRICE,
        )
        for w in BIPOWER_WINDOWS_MIN
    ),
    Feature(
        "downside_share_60m",
        "1",
        "share of the realized variance over 60 min that comes from negative one-minute returns",
        "volatility",
        _PRICE,
    ),
    Feature(
        "log_rv_5s_1m",
        "ln",
        "log of the realized variance of 5-second returns of the mid over 1 min",
        "microstructure",
        _MID,
    ),
    Feature(
        "log_rv_5s_5m",
        "ln",
        "log of the realized variance of 5-second returns of the mid over 5 min",
        "microstructure",
        _MID,
    ),
    *(
        Feature(f"return_{w}m_bps", "bps", f"log return of the price over {w} min", "returns", _PRICE)
        for w in RETURN_WINDOWS_MIN
    ),
    Feature("minute_of_day_sin", "1", "sine of the UTC minute of the day, with a period of 1440 min", "time", _TIME),
    Feature("minute_of_day_cos", "1", "cosine of the UTC minute of the day, with a period of 1440 min", "time", _TIME),
    Feature("weekday", "day", "UTC day of the week; Monday is 0", "time", _TIME),
    Feature("minute_of_hour", "min", "minute of the hour; orders cluster at round times", "time", _TIME),
    Feature(
        "new_york_minute",
        "min",
        "minute of the day in New York, including daylight saving time; US data releases and the US stock market "
        "follow this clock",
        "time",
        _TIME,
    ),
    *(
        Feature(
            f"log_volume_{w}m",
            f"ln(1+{BASE_UNITS})",
            f"log of one plus the quantity traded over {w} min",
            "activity",
            _VOLUME,
        )
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
            f"log_quotes_{w}m",
            "ln(1+n)",
            f"log of one plus the number of quotes over {w} min; empty without a quote in the last hour",
            "microstructure",
            _MID,
        )
        for w in QUOTE_COUNT_WINDOWS_MIN
    ),
    Feature("spread_bps", "bps", "ask minus bid, divided by the mid", "microstructure", _MID),
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
        "microprice (the mid weighted by the quantities at the top of the book) minus mid, divided by the mid",
        "microstructure",
        _QUOTE,
    ),
    *(
        Feature(
            f"ofi_{w}s",
            "1",
            f"order-flow imbalance over {w} s (Cont, Kukanov and Stoikov 2014), divided by the mean quantity of one side "
            "at the top of the book",
            "microstructure",
            _QUOTE,
        )
        for w in OFI_WINDOWS_S
    ),
    *(
        Feature(
            f"trade_sign_imbalance_{w}s",
            "1",
            f"quantity bought by takers minus quantity sold by takers over {w} s, divided by the quantity traded; 0 without trades",
            "microstructure",
            _TRADE,
        )
        for w in SIGN_WINDOWS_S
    ),
    *(
        Feature(
            f"zero_move_share_{w}s",
            "1",
            f"share of the quotes over {w} s that did not change the mid",
            "microstructure",
            _MID,
        )
        for w in ZERO_MOVE_WINDOWS_S
    ),
    Feature(
        "since_quote_s", "s", "time since the last quote before this row; empty after a day", "microstructure", _TIME
    ),
    Feature(
        "since_trade_s",
        "s",
        "time since the last trade before this row; empty after a day",
        "microstructure",
        ("bronze_trades.ts_event",),
    ),
    # the ten best levels of each side of the order book; see `depth`
    Feature(
        "book_imbalance",
        "1",
        "(bid quantity − ask quantity) / (bid quantity + ask quantity) over the ten best levels of each side of the order "
        "book; like every feature of the order book, it is empty if the book is unknown (its checksum was wrong, or no "
        "snapshot came yet) or older than 90 s",
        "microstructure",
        _BOOK,
    ),
    *(
        Feature(
            f"book_slope_{side}",
            "1",
            f"exponent b of the {side} side's cumulative quantity q ~ d^b at the distance d from the mid, by least squares "
            "over the ten best levels in logs: an elasticity like that of Næs and Skjeltorp (2006)",
            "microstructure",
            _BOOK,
        )
        for side in BOOK_SIDES
    ),
    *(
        Feature(
            f"depth_{distance}bps_{side}",
            "1",
            f"log of one plus the quantity on the {side} side within {distance} bps of the mid, divided by the quantity "
            "traded per minute over 240 min; empty if the ten best levels end before that distance",
            "microstructure",
            (*_BOOK, *_VOLUME),
        )
        for distance in DEPTH_DISTANCES_BPS
        for side in BOOK_SIDES
    ),
    *(
        Feature(
            f"book_resilience_{side}",
            "1",
            f"how far the {side} side refills after trades that hit it: log of its quantity over the ten best levels 5 s "
            "after a trade divided by that right before the trade, exponential mean over the last 32 trades with half-life "
            "8 trades; 0 means that everything came back (Large 2007)",
            "microstructure",
            (*_BOOK, "bronze_trades.side"),
        )
        for side in BOOK_SIDES
    ),
    Feature(
        "book_age_s",
        "s",
        "time since the last frame of the order book; empty if the book is unknown or older than an hour",
        "microstructure",
        _BOOK,
    ),
    # the market that `BTC_LEADER` names, at the moment of the row; see `leader`
    *(
        Feature(
            f"lead_return_{window}_bps",
            "bps",
            f"log return of the leading market's mid over {window}; like every feature of the leader, it is empty for the "
            "leader itself, without a leader, and after a silence of the leader of 90 s",
            "microstructure",
            _MID,
        )
        for window in LEAD_WINDOWS
    ),
    *(
        Feature(
            f"lead_log_rv_{window}",
            "ln",
            f"log of the realized variance of the leading market's one-second returns over {window}",
            "microstructure",
            _MID,
        )
        for window in LEAD_WINDOWS
    ),
    *(
        Feature(
            f"lead_volume_{window}",
            "1",
            f"log of the leading market's volume over {window}, divided by its mean over windows of that length in the last "
            "hour, plus 0.01",
            "microstructure",
            _VOLUME,
        )
        for window in LEAD_WINDOWS
    ),
    Feature(
        "lead_basis_bps",
        "bps",
        "log of the leading market's mid divided by the own mid, minus the exponential mean of that over the last 8 h with "
        "half-life 1 h, from one sample per minute",
        "microstructure",
        _MID,
    ),
    # the current top of the book, also on the rows of trades
    Feature("bid", "USD", "best bid", "gold", ("bronze_ticks.bid",)),
    Feature("bid_qty", BASE_UNITS, "quantity at the best bid", "gold", ("bronze_ticks.bid_qty",)),
    Feature("ask", "USD", "best ask", "gold", ("bronze_ticks.ask",)),
    Feature("ask_qty", BASE_UNITS, "quantity at the best ask", "gold", ("bronze_ticks.ask_qty",)),
    Feature("mid", "USD", "mean of the best bid and the best ask; after a minute bar, its close", "gold", _MID),
    Feature(
        "price", "USD", "price of the last trade; after a minute bar, its close; empty after 5 min", "gold", _PRICE
    ),
    # indicators for people, in the units of a price chart
    Feature("ma_5", "USD", "mean of the last 5 bids", "chart", _MID),
    Feature("ma_14", "USD", "mean of the last 14 bids", "chart", _MID),
    Feature(
        "ema_5",
        "USD",
        "exponential mean of the last 64 bids with span 5 (α = 1/3); the weights add up to 1",
        "chart",
        _MID,
    ),
    Feature("std_14", "USD", "sample standard deviation of the last 14 bids", "chart", _MID),
    Feature("price_change", "USD", "bid minus the previous bid", "chart", _MID),
    Feature("price_change_pct", "%", "bid minus the previous bid, in percent of the previous bid", "chart", _MID),
    Feature("max_14", "USD", "highest of the last 14 bids", "chart", _MID),
    Feature("min_14", "USD", "lowest of the last 14 bids", "chart", _MID),
    Feature(
        "vwap_diff",
        "USD",
        "price of the last trade minus the volume-weighted mean price of the trades over 60 min",
        "chart",
        _TRADE,
    ),
    Feature("bid_ask_spread", "USD", "ask minus bid", "chart", _MID),
    Feature("log_return", "ln", "log of the bid divided by the previous bid", "chart", _MID),
    Feature("momentum", "USD", "bid minus the bid 14 quotes earlier", "chart", _MID),
    Feature("volatility", "ln", "sample standard deviation of the last 14 log returns of the bid", "chart", _MID),
    Feature("cumulative_volume", BASE_UNITS, "quantity traded since midnight UTC", "chart", _VOLUME),
    Feature(
        "volume_change",
        BASE_UNITS,
        "quantity traded in the last minute minus that of the minute before",
        "chart",
        _VOLUME,
    ),
    Feature("mean_bid_qty", BASE_UNITS, "mean quantity at the best bid over the last 14 quotes", "chart", _QUOTE),
    Feature("mean_ask_qty", BASE_UNITS, "mean quantity at the best ask over the last 14 quotes", "chart", _QUOTE),
    Feature(
        "rv_5s_step",
        "ln²",
        "sum of the squared 5-second returns of the mid that ended since the previous row; the sum over the rows of a "
        "period is its realized variance",
        "gold",
        _MID,
    ),
)

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
DEPTH_FEATURES: tuple[str, ...] = (
    "book_imbalance",
    *(f"book_slope_{side}" for side in BOOK_SIDES),
    *(f"depth_{distance}bps_{side}" for distance in DEPTH_DISTANCES_BPS for side in BOOK_SIDES),
    *(f"book_resilience_{side}" for side in BOOK_SIDES),
    "book_age_s",
)
"""The features that need frames of the order book."""
LEADER_FEATURES: tuple[str, ...] = (
    *(f"lead_{what.format(window)}" for what in ("return_{}_bps", "log_rv_{}", "volume_{}") for window in LEAD_WINDOWS),
    "lead_basis_bps",
)
"""The features that need a leading market."""
MODEL_FEATURES: tuple[str, ...] = tuple(feature.name for feature in FEATURES if feature.group in MODEL_GROUPS)
BAR_FEATURES: tuple[str, ...] = tuple(
    feature.name for feature in FEATURES if feature.group in {"volatility", "returns", "time", "activity"}
)
"""The model features that can be computed from minute bars alone."""
DRIFTING_FEATURES: tuple[str, ...] = tuple(
    feature.name for feature in FEATURES if feature.group in {"volatility", "returns", "activity"}
)
"""The features whose distribution is compared with that of the training data. Features of time do not drift, and
minute bars, from which models are trained, do not contain those of the order book."""

ROW = np.dtype([(name, np.float64) for name in FEATURE_NAMES])
"""The dtype of a row: every feature as float64, in the order of `FEATURES`."""

_HASHED = [(f.name, f.unit.replace(BASE_UNITS, "BTC")) for f in FEATURES]
"""Base units were called BTC at first. The new word changes no number, so it must not refuse rows and models."""

FEATURE_VERSION: str = hashlib.sha256(repr((FOLD_REVISION, _HASHED)).encode()).hexdigest()[:12]
"""A hash of the names, the units and the revision. Every row, message and model bundle contains the version, and those
of another version are refused."""


def as_matrix(rows: np.ndarray) -> np.ndarray:
    """Return all features of rows of dtype `ROW` as a float64 matrix of shape (rows, features)."""
    return np.ascontiguousarray(rows).view(np.float64).reshape(len(rows), len(FEATURES))


def model_matrix(rows: np.ndarray, names: tuple[str, ...] = MODEL_FEATURES) -> np.ndarray:
    """Return the named features of rows of dtype `ROW`, in the given order, as a float64 matrix of shape (rows, names)."""
    return as_matrix(rows)[:, [FEATURE_NAMES.index(name) for name in names]]
