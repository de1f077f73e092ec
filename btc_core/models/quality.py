"""The quality of a forecast: `good`, `degraded` or `poor`, with the reasons, from its inputs and its recent outcomes.

`LIMITS` holds all thresholds. Each is a limit that the system uses already: for an alert, for a gate, for the feature
windows, or for what counts as fresh. Each reason has a code for programs and a sentence for people.
What does not belong here: measuring (`streaming.forecaster`, `streaming.outcomes`), and showing (`serving`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_S
from btc_core.compiled import njit
from btc_core.features.catalogue import DEPTH_FEATURES, FEATURE_NAMES
from btc_core.features.state import MAX_SILENCE_S, PRICE_MEMORY_S
from btc_core.market.events import QUOTE, TRADE
from btc_core.market.messages import Quality, QualityWord
from btc_core.models.gate import DEMOTE_COVERAGE, MIN_OUTCOMES
from btc_core.names import FRESH_ROW_NS, LATE_FORECAST_S

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    import numpy.typing as npt

    from btc_core.market.messages import FeatureMessage, Regime
    from btc_core.models.regimes import Coverage, RecentCoverage
    from btc_core.models.row_forecasts import Models

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

GOOD: QualityWord = "good"
DEGRADED: QualityWord = "degraded"
POOR: QualityWord = "poor"

FRESH_S = FRESH_ROW_NS / NS_PER_S
SLOW_S = 1.0
"""After this delay, the live page calls a feed late, and the API makes the forecast itself."""


class Limit(msgspec.Struct, frozen=True):
    """The values of a measure above which a forecast is degraded and poor."""

    degraded: float
    poor: float = math.inf


LIMITS: dict[str, Limit] = {
    "gaps_open": Limit(0),  # gaps: the alert GapOpen
    "quotes_conflated": Limit(0),  # whether quotes were left out: the alerts on Kafka and the disk
    "quote_old": Limit(FRESH_S, MAX_SILENCE_S),  # s: a row that no longer describes the close; the mid becomes unknown
    "trade_old": Limit(PRICE_MEMORY_S),  # s: the price becomes unknown
    "book_old": Limit(MAX_SILENCE_S),  # s: the features of the order book become unknown
    "bars_old": Limit(PRICE_MEMORY_S),  # s: the price becomes unknown
    "history_short": Limit(0),  # whether HARX serves in place of the model, for want of minute bars
    "stand_in": Limit(0),  # whether the stand-in of the user's model serves in its place
    "feed_slow": Limit(SLOW_S, FRESH_S),  # s
    "made_late": Limit(SLOW_S, LATE_FORECAST_S),  # s: a late forecast counts in no score
    "outside_training": Limit(0.0, 1.0),  # widths of the range in training
    "bid_coverage_low": Limit(1.0 - DEMOTE_COVERAGE),  # share outside: the alert CoverageBid and the live gate
    "volatility_coverage_low": Limit(
        1.0 - DEMOTE_COVERAGE
    ),  # share outside: the alert CoverageVolatility, the live gate
}
"""The limits by the code of the reason. A missing quote, trade or order book counts as infinitely old; a measure that does
not exist for a forecast gives no reason."""
TINY = 1e-12
"""The least width of a range: an input that was constant in training is far outside as soon as it differs."""

_BOUNDS = tuple((code, limit.degraded, limit.poor) for code, limit in LIMITS.items())
_SINCE_QUOTE, _SINCE_TRADE, _BOOK_AGE = (
    FEATURE_NAMES.index(name) for name in ("since_quote_s", "since_trade_s", "book_age_s")
)


class ModelLimits:
    """What the models of a market say about their inputs: the ranges in training, and whether they read the order book.

    The ranges are those of the volatility model. A pre-trained model has none.
    """

    def __init__(self, models: Models) -> None:
        manifest = models[1].manifest
        known = {} if manifest.pretrained else manifest.distributions
        ranges = [(name, each.low, each.high) for name, each in known.items() if None not in (each.low, each.high)]
        self._names = [name for name, _, _ in ranges]
        self._columns = np.array([FEATURE_NAMES.index(name) for name in self._names], np.int64)
        self._low = np.array([low for _, low, _ in ranges], np.float64)
        self._high = np.array([high for _, _, high in ranges], np.float64)
        self.reads_book = any(
            share > 0.0
            for model in models
            for inputs in (model.manifest.inputs.gains, model.manifest.inputs.net_effects)
            for name, share in inputs.items()
            if name in DEPTH_FEATURES
        )

    def outside(self, values: Floats) -> list[tuple[float | None, str | None]]:
        """How far the farthest input of each row lies outside the ranges, in widths of its range, and the name of that input.

        The distance is 0 if every input lies inside, and None if no range is known.
        """
        if not self._names:
            return [(None, None)] * len(values)
        distances, places = _farthest(values, self._columns, self._low, self._high)
        return [
            (distance, self._names[place] if distance else None)
            for distance, place in zip(distances.tolist(), places.tolist(), strict=True)
        ]


@njit
def _farthest(values: Floats, columns: Longs, low: Floats, high: Floats) -> tuple[Floats, Longs]:
    """For each row of (n, features): the largest distance outside a range, in widths of that range, and the place of the range."""
    distances, places = np.zeros(len(values)), np.zeros(len(values), np.int64)
    for row in range(len(values)):
        for place in range(len(columns)):
            value = values[row, columns[place]]
            beyond = max(low[place] - value, value - high[place])
            if beyond > 0.0:  # false for a missing value
                distance = beyond / max(high[place] - low[place], TINY)
                if distance > distances[row]:
                    distances[row], places[row] = distance, place
    return distances, places


def qualities(  # noqa: PLR0913 - everything that the quality depends on
    rows: list[FeatureMessage],
    values: Floats,
    *,
    clocks_ns: list[int],
    bars_end_ns: list[int],
    are_of_model: dict[int, bool],
    sigma_bps: dict[int, float],
    limits: ModelLimits,
    coverage: RecentCoverage,
    made_at_ns: int,
    stand_ins: AbstractSet[int] = frozenset(),
) -> dict[int, Quality]:
    """The quality of each forecast, by the place of its row in `rows`.

    `values` (n, all features), `clocks_ns` and `bars_end_ns` have one entry for each row. `are_of_model` has the places with a
    forecast: true if the model forecast the volatility, and false if HARX did for want of minute bars. `sigma_bps` is the
    forecast over the headline horizon, which says in which regime of the volatility the `coverage` is looked up. `stand_ins` has
    the places that the stand-in of a user's model forecast, because that model gave nothing in time.
    """
    outside = limits.outside(values)
    return {
        place: _judged(
            rows[place],
            values[place],
            clocks_ns[place],
            bars_end_ns[place],
            outside[place],
            (is_of_model, limits, *coverage.at(sigma_bps[place]), made_at_ns, place in stand_ins),
        )
        for place, is_of_model in are_of_model.items()
    }


def _judged(  # noqa: PLR0913, PLR0917 - the measures of one row
    row: FeatureMessage,
    values: Floats,
    clock_ns: int,
    bars_end_ns: int,
    outside: tuple[float | None, str | None],
    context: tuple[bool, ModelLimits, Coverage, Regime | None, int, bool],
) -> Quality:
    is_of_model, limits, coverage, regime, made_at_ns, is_of_stand_in = context
    quote_s = 0.0 if row.kind == QUOTE else float(values[_SINCE_QUOTE])
    trade_s = 0.0 if row.kind == TRADE else float(values[_SINCE_TRADE])
    book_s = float(values[_BOOK_AGE])
    bars_s = (clock_ns - bars_end_ns) / NS_PER_S if bars_end_ns else math.nan
    feed_s = max(0.0, (row.ts_recv_ns + row.clock_offset_ns - clock_ns) / NS_PER_S)
    delay_s = max(0.0, (made_at_ns - row.ts_recv_ns) / NS_PER_S)
    judges = coverage.outcomes >= MIN_OUTCOMES
    word, reasons = word_of(
        (
            row.open_gaps,
            row.conflated,
            _or_infinite(quote_s),
            _or_infinite(trade_s),
            _or_infinite(book_s) if limits.reads_book else 0.0,
            bars_s,
            not is_of_model,
            is_of_stand_in,
            feed_s,
            delay_s,
            outside[0] or 0.0,
            1.0 - coverage.bid if judges else 0.0,
            1.0 - coverage.volatility if judges else 0.0,
        )
    )
    return Quality(
        word,
        reasons,
        row.open_gaps,
        row.conflated,
        _or_none(quote_s),
        _or_none(trade_s),
        _or_none(book_s),
        _or_none(bars_s),
        feed_s,
        delay_s,
        *outside,
        coverage.outcomes,
        _or_none(coverage.bid),
        _or_none(coverage.volatility),
        regime,
    )


def word_of(measures: tuple[float, ...]) -> tuple[QualityWord, tuple[str, ...]]:
    """The word and the codes of the reasons, from one measure for each of `LIMITS` in their order.

    >>> word_of((0, False, 0.2, 301.0, 0.0, 40.0, False, False, 0.1, 0.004, 0.0, 0.0, 0.0))
    ('degraded', ('trade_old',))
    """
    word, reasons = GOOD, []
    for (code, degraded, poor), measure in zip(_BOUNDS, measures, strict=True):
        if measure > degraded:
            reasons.append(code)
            if measure > poor:
                word = POOR
            elif word == GOOD:
                word = DEGRADED
    return word, tuple(reasons)


def sentence(code: str, quality: Quality) -> str:
    """A reason in words, with what was measured; the code itself if a newer version of the worker made it."""
    template = _SENTENCES.get(code)
    return code if template is None else template.format_map(_figures(quality))


_SENTENCES = {
    "gaps_open": "Trades are missing from the features (open gaps in the trade ids: {open_gaps}).",
    "quotes_conflated": "Older quotes were left out before the newest one, because Kafka or the disk could not take them.",
    "quote_old": "The newest quote was {quote_age_s} old.",
    "trade_old": "The newest trade was {trade_age_s} old.",
    "book_old": "The model reads the order book, whose newest frame was {book_age_s} old.",
    "bars_old": "The newest minute with a price ended {bars_age_s} ago.",
    "history_short": "There are too few minute bars for the model, so its linear baseline HARX forecast the volatility.",
    "stand_in": "The user's model that serves gave no forecast in time, so its stand-in forecast the volatility.",
    "feed_slow": "The newest event took {feed_latency_s} from the exchange.",
    "made_late": "The forecast was made {delay_s} after its data was received.",
    "outside_training": "{farthest_input} lay outside its range in the training data, by {outside} of the width of that range.",
    "bid_coverage_low": "The 90 % intervals contained {bid_coverage_90} of the last {outcomes} bids{in_regime}.",
    "volatility_coverage_low": "The 90 % intervals contained {volatility_coverage_90} of the last {outcomes} volatilities{in_regime}.",
}


def _figures(quality: Quality) -> dict[str, Any]:
    """The fields of a quality as sentences show them."""
    figures: dict[str, Any] = {"in_regime": f" in the regime of {quality.regime} volatility" if quality.regime else ""}
    for name, value in msgspec.structs.asdict(quality).items():
        if name.endswith("_s"):
            figures[name] = _UNKNOWN_AGE.get(name, "an unknown time") if value is None else _duration(value)
        elif name.endswith("_90"):
            figures[name] = "an unknown share" if value is None else f"{value:.0%}"
        elif name == "outside":
            figures[name] = f"{value or 0.0:.2g}"
        else:
            figures[name] = value
    return figures


_UNKNOWN_AGE = {"quote_age_s": "more than a day", "trade_age_s": "more than a day"}


def _duration(value_s: float) -> str:
    return f"{value_s:,.0f} s" if value_s >= 10.0 else f"{value_s:.1f} s"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_infinite(age_s: float) -> float:
    return math.inf if math.isnan(age_s) else age_s
