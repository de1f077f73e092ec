"""The body of `GET /v1/volatility/usual`: how volatile a market usually is in this hour of the day.

What does not belong here: forecasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.names import HEADLINE_MIN
from serving.answers import iso
from serving.market_answers import UsualVolatility
from serving.served_forecast import BPS

if TYPE_CHECKING:
    import numpy.typing as npt

    from serving.deps import Deps

DAYS = 28
"""Four weeks, so that every day of the week counts as often as the others."""
MINUTES_PER_HOUR = 60
SPAN_MIN = min(HEADLINE_MIN, MINUTES_PER_HOUR // 2)
NO_BARS = "there are no minute bars of this hour of past days yet; `btc backfill` or an import adds them"


def usual_volatility(deps: Deps, symbol: str) -> UsualVolatility:
    """What is usual in the running hour; computed once an hour for each market."""
    now_ns = deps.clock.now_ns()
    hour_ns = MINUTES_PER_HOUR * NS_PER_MIN
    begin_ns = now_ns - now_ns % hour_ns
    known = deps.usual_volatility.get(symbol)
    if known is not None and known.reason is None and known.computed_at >= iso(begin_ns):
        return known
    hour = now_ns % NS_PER_DAY // hour_ns
    closes = deps.stored_rows.closes_of_hour(symbol, begin_ns - DAYS * NS_PER_DAY, begin_ns, hour)
    spans, days = _spans_bps(closes)
    low, median, high = np.quantile(spans, [0.1, 0.5, 0.9]).tolist() if len(spans) else (None, None, None)
    usual = UsualVolatility(
        symbol=symbol,
        hour_utc=hour,
        days=days,
        low_bps=low,
        median_bps=median,
        high_bps=high,
        computed_at=iso(now_ns),
        reason=None if len(spans) else NO_BARS,
    )
    deps.usual_volatility[symbol] = usual
    return usual


def _spans_bps(closes: list[tuple[int, float]]) -> tuple[npt.NDArray[np.float64], int]:
    """Realized volatilities over the headline horizon, bps, from one-minute returns, and the number of days they are from.

    A horizon of more than half an hour has too few spans in an hour; those of half an hour are scaled by the root of time.

    A minute without a trade has the close of the minute before. Spans that begin every minute overlap; their quantiles do
    not suffer from it.
    """
    spans: list[npt.NDArray[np.float64]] = []
    by_day: dict[int, dict[int, float]] = {}
    for ts_ns, close in closes:
        by_day.setdefault(ts_ns // NS_PER_DAY, {})[ts_ns // NS_PER_MIN % MINUTES_PER_HOUR] = close
    for minutes in by_day.values():
        first = min(minutes)
        filled = [minutes[first]]
        for minute in range(first + 1, MINUTES_PER_HOUR):
            filled.append(minutes.get(minute, filled[-1]))
        squares = np.diff(np.log(np.array(filled, np.float64))) ** 2
        if len(squares) >= SPAN_MIN:
            variance = np.convolve(squares, np.ones(SPAN_MIN), "valid") * HEADLINE_MIN / SPAN_MIN
            spans.append(BPS * np.sqrt(variance))
    return (np.concatenate(spans) if spans else np.empty(0)), len(spans)
