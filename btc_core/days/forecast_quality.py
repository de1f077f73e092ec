"""Outcomes of forecasts with the quality that each forecast had when it was made.

The table of outcomes does not have the quality; it is read from `gold_volatility_prediction`, in QuestDB or in the copy of the day.
What does not belong here: how the quality is judged (`btc_core.models.quality`).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.days.history import in_types, selected
from btc_core.names import STORED_HEADLINES_MIN
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import PREDICTION_OUTCOMES, VOLATILITY_PREDICTION
from btc_core.tables.sql import of_symbol, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from btc_core.days.history import History, Span

QUALITY_NAMES = ("quality", "quality_reasons")
SCHEMA = pa.schema(
    [*arrow_schema(PREDICTION_OUTCOMES), *(arrow_schema(VOLATILITY_PREDICTION).field(name) for name in QUALITY_NAMES)]
)
"""The columns of an outcome, and those of the quality."""
_PLACE = ("kafka_offset", "frame_item")
_SIGMAS = tuple(f"sigma_{h}m_bps" for h in STORED_HEADLINES_MIN)
_READ = ("made_at", *_PLACE, *_SIGMAS, *QUALITY_NAMES)
_BEFORE_NS = 60 * NS_PER_MIN
"""How long before the close the row of a forecast can be. An origin is seconds old by the clock of the market, but a late
trade has an older time of its own."""
SPAN_NS = 7 * NS_PER_DAY
"""The time whose outcomes are joined with forecasts at once; a week has about three million of these."""
_WHOLE_SPAN = 2**62


def outcomes_with_quality(
    history: History, symbol: str, begin_ns: int, end_ns: int, names: Sequence[str]
) -> Iterator[pa.Table]:
    """Some columns of the outcomes of a market, in the order of time. The other table is read only if its columns are wanted."""
    own = tuple(name for name in names if name not in QUALITY_NAMES)
    if len(own) == len(names):
        yield from history.chunks(PREDICTION_OUTCOMES, symbol, begin_ns, end_ns, names)
        return
    read = tuple(dict.fromkeys(("ts_event", "made_at", *own)))
    for chunk in history.chunks(PREDICTION_OUTCOMES, symbol, begin_ns, end_ns, read):
        for outcomes in _spans_of(chunk):
            yield _with_quality(history, symbol, outcomes).select(names)


def _spans_of(outcomes: pa.Table) -> Iterator[pa.Table]:
    """The outcomes in spans that are short enough for one query over all forecasts of the same time."""
    spans = column_ns(outcomes["ts_event"]) // SPAN_NS
    borders = [0, *(np.flatnonzero(np.diff(spans)) + 1).tolist(), len(outcomes)]
    for first, last in itertools.pairwise(borders):
        yield outcomes.slice(first, last - first)


def _with_quality(history: History, symbol: str, outcomes: pa.Table) -> pa.Table:
    """Add the quality of the forecast that each outcome judges: that of the newest row of those that were made at `made_at`.

    The worker makes the forecasts of a minute's rows together, so several can share a `made_at`; the last one in the log was
    in force at the close.
    """
    made_ns, closes_ns = column_ns(outcomes["made_at"]), column_ns(outcomes["ts_event"])
    forecasts = pa.concat_tables(
        [
            arrow_schema(VOLATILITY_PREDICTION).empty_table().select(_READ),
            *_forecasts(history, symbol, closes_ns, made_ns),
        ]
    )
    has_number = np.any([np.asarray(pc.is_valid(forecasts[name])) for name in _SIGMAS], axis=0)
    ordered = forecasts.filter(pa.array(has_number)).sort_by([(name, "ascending") for name in ("made_at", *_PLACE)])
    found_ns = column_ns(ordered["made_at"])
    last = np.searchsorted(found_ns, made_ns, side="right") - 1
    is_found = last >= 0
    is_found[is_found] = found_ns[last[is_found]] == made_ns[is_found]
    chosen = pa.array(last, mask=~is_found)
    for name in QUALITY_NAMES:
        outcomes = outcomes.append_column(name, ordered[name].take(chosen))
    return outcomes


def _forecasts(history: History, symbol: str, closes_ns: np.ndarray, made_ns: np.ndarray) -> Iterator[pa.Table]:
    """The forecasts that were made at the times `made_ns`, day by day."""
    wanted = np.unique(made_ns)
    begin_ns, end_ns = int(closes_ns.min()) - _BEFORE_NS, int(closes_ns.max()) + 1
    for span in history.spans(VOLATILITY_PREDICTION, symbol, begin_ns, end_ns, _WHOLE_SPAN):
        if span.copy is None:
            yield _of_database(history, symbol, span)
            continue
        for rows in history.chunks(VOLATILITY_PREDICTION, symbol, span.begin_ns, span.end_ns, _READ):
            yield rows.filter(pa.array(np.isin(column_ns(rows["made_at"]), wanted)))


def _of_database(history: History, symbol: str, span: Span) -> pa.Table:
    """QuestDB joins, so that it sends the few rows that are wanted and not every forecast."""
    own = of_symbol(symbol)
    closes = within("ts_event", span.begin_ns, span.end_ns + NS_PER_DAY)
    rows = history.db.query(
        f"SELECT {selected(VOLATILITY_PREDICTION, _READ, 'f.')} "  # noqa: S608 - names of the catalogue
        f"FROM (SELECT {', '.join(_READ)} FROM {VOLATILITY_PREDICTION.name} WHERE {own} AND {within('ts_event', span.begin_ns, span.end_ns)}) f "
        f"JOIN (SELECT DISTINCT made_at FROM {PREDICTION_OUTCOMES.name} WHERE {own} AND {closes}) o ON f.made_at = o.made_at"
    )
    return in_types(rows, VOLATILITY_PREDICTION, _READ)
