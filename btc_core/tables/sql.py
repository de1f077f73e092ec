"""Conditions of SQL statements about tables of the catalogue.

What does not belong here: whole statements; those are where they are sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_DAY
from btc_core.names import HEADLINE_MIN, MINUTES, SCORED_LEVELS_PCT
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from btc_core.names import VolatilityTarget
    from btc_core.tables.form import Table


def of_symbol(symbol: str) -> str:
    """The condition for the rows of one market.

    >>> of_symbol("BTC/USD")
    "symbol = 'BTC/USD'"
    """
    quoted = symbol.replace("'", "''")
    return f"symbol = '{quoted}'"


def of_target(target: VolatilityTarget) -> str:
    """The condition for the outcomes of volatilities of one target. Those that were stored without one are of minutes.

    >>> of_target("ticks")
    "volatility_target = 'ticks'"
    """
    condition = f"volatility_target = '{target}'"
    return condition if target != MINUTES else f"({condition} OR volatility_target IS NULL)"


def of_headline() -> str:
    """The condition for the outcomes that are scored at the headline horizon, not at that of a former setting."""
    return f"qlike_model_{HEADLINE_MIN}m IS NOT NULL"


def inside_share(quantity: str, level_pct: int) -> str:
    """The share of outcomes inside the intervals of a level; outcomes of forecasts without such an interval are left out.

    >>> inside_share("bid", 90), inside_share("bid", 99)
    ('avg(CASE WHEN bid_inside_90 THEN 1.0 ELSE 0.0 END)', 'avg(bid_inside_99)')
    """
    column = f"{quantity}_inside_{level_pct}"
    return f"avg(CASE WHEN {column} THEN 1.0 ELSE 0.0 END)" if level_pct in SCORED_LEVELS_PCT else f"avg({column})"


def within(column: str, begin_ns: int, end_ns: int) -> str:
    """The condition for timestamps from `begin_ns` up to, and without, `end_ns`."""
    return f"{column} >= cast({begin_ns} AS TIMESTAMP_NS) AND {column} < cast({end_ns} AS TIMESTAMP_NS)"


def on_day(table: Table, day: str) -> str:
    """The condition for the rows of one UTC day."""
    return within(table.timestamp, day_ns(day), day_ns(day) + NS_PER_DAY)
