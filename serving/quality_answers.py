"""The quality of a forecast in answers: one word, the reasons in words, and what was measured.

What does not belong here: the thresholds and the word of a forecast of the worker (`btc_core.models.quality`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.market.messages import QualityWord, Regime
from btc_core.models.quality import DEGRADED, POOR, sentence

if TYPE_CHECKING:
    from btc_core.market.messages import Quality
    from serving.served_forecast import MarketForecast


class QualityReason(msgspec.Struct, frozen=True):
    """A reason why the quality is not `good`."""

    code: str
    """One of the documented codes, for programs."""
    text: str
    """A sentence for people."""


class ForecastQuality(msgspec.Struct, frozen=True):
    """How far a forecast can be trusted, and why. All measures are null if the forecast worker did not judge the forecast."""

    word: QualityWord
    """`good`: use it. `degraded`: use it with care; an input is impaired. `poor`: do not act on it."""
    reasons: tuple[QualityReason, ...]
    """Empty for `good`."""
    open_gaps: int | None = None
    """Open gaps in the trade ids, so trades are missing from the features."""
    conflated: bool | None = None
    """Whether older quotes were left out before the newest one."""
    quote_age_s: float | None = None
    """Age of the newest quote when the newest event came; null after a day without one. So are the other ages."""
    trade_age_s: float | None = None
    """Age of the newest trade."""
    book_age_s: float | None = None
    """Null also if the order book is unknown."""
    bars_age_s: float | None = None
    """Time since the end of the newest minute with a price; null if no minute is known."""
    feed_latency_s: float | None = None
    """From the newest event at the exchange to its receipt, corrected by the measured offset of the clocks."""
    delay_s: float | None = None
    """From the receipt of the newest event to the forecast."""
    outside_training: float | None = None
    """How far the farthest input lies outside the training data, in widths of its range there; 0 inside, null if unknown."""
    farthest_input: str | None = None
    """The input that lies farthest outside; null if none does."""
    outcomes: int | None = None
    """Outcomes of the last day in `regime`, or all of them if that is null, from which the coverage is computed."""
    bid_coverage_90: float | None = None
    """Share of them in which the 90 % interval contained the bid."""
    volatility_coverage_90: float | None = None
    """Share of them in which the 90 % interval contained the volatility."""
    regime: Regime | None = None
    """The volatility regime: whether σ stands in the `low`, the middle (`normal`) or the `high` third of the σ of the outcomes of the
    last day. Null while the regime has too few outcomes."""


NOT_JUDGED = ForecastQuality(
    DEGRADED,
    (QualityReason("not_judged", "The forecast worker is of an older version, which does not judge forecasts."),),
)
MADE_BY_API = ForecastQuality(
    DEGRADED,
    (
        QualityReason(
            "made_by_api",
            "The API made this forecast, because the forecast worker is late. It has no intervals.",
        ),
    ),
)
MADE_BY_API_WITH_INTERVALS = ForecastQuality(
    DEGRADED,
    (
        QualityReason(
            "made_by_api",
            "The API made this forecast, because the forecast worker is late. Its intervals have the quantiles of the worker's "
            "newest forecast.",
        ),
    ),
)
STALE_BASELINE = ForecastQuality(
    POOR, (QualityReason("stale_baseline", "The features are too old, so this is the baseline of the last forecast."),)
)


def quality_of(forecast: MarketForecast) -> ForecastQuality:
    """The quality of a forecast, made by the worker or by the API."""
    if forecast.is_stale_baseline:
        return STALE_BASELINE
    if forecast.origin.source != "worker":
        return MADE_BY_API_WITH_INTERVALS if forecast.volatility.bounds else MADE_BY_API
    return NOT_JUDGED if forecast.quality is None else _answer(forecast.quality)


def _answer(quality: Quality) -> ForecastQuality:
    return ForecastQuality(
        word=quality.word,
        reasons=tuple(QualityReason(code, sentence(code, quality)) for code in quality.reasons),
        open_gaps=quality.open_gaps,
        conflated=quality.conflated,
        quote_age_s=_milliseconds(quality.quote_age_s),
        trade_age_s=_milliseconds(quality.trade_age_s),
        book_age_s=_milliseconds(quality.book_age_s),
        bars_age_s=_milliseconds(quality.bars_age_s),
        feed_latency_s=_milliseconds(quality.feed_latency_s),
        delay_s=_milliseconds(quality.delay_s),
        outside_training=quality.outside,
        farthest_input=quality.farthest_input,
        outcomes=quality.outcomes,
        bid_coverage_90=quality.bid_coverage_90,
        volatility_coverage_90=quality.volatility_coverage_90,
        regime=quality.regime,
    )


def _milliseconds(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s, 3)
