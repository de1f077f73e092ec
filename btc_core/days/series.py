"""The series of a market that clients read by name: bars, features, trades, quotes, forecasts and skill.

Each is a generator of Arrow tables in the order of time, so a year needs no more memory than a chunk. What does not belong
here: where rows are stored (`history`), file formats (`table_formats`), and HTTP (`serving`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.days import dataset_series, forecast_quality
from btc_core.days.closing_rows import newest_rows_of_copy
from btc_core.days.history import History, Span, in_types, selected
from btc_core.errors import InvalidInput
from btc_core.names import HEADLINE_TEXT
from btc_core.stores.newest_rows import MINUTE_END, newest_rows
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.bar_tables import GOLD_1MIN
from btc_core.tables.catalogue import (
    BRONZE_TICKS,
    BRONZE_TRADES,
    MINUTE_BARS,
    PREDICTION_OUTCOMES,
    PREDICTION_SKILL,
    SILVER_FEATURES,
)
from btc_core.tables.form import Table
from btc_core.tables.sql import of_symbol, within
from btc_core.tables.user_tables import USER_FEATURES
from btc_core.utc_day import day_of, days_between

if TYPE_CHECKING:
    from collections.abc import Container

    from btc_core.features.user.files import FeatureFile


UTC_NS = pa.timestamp("ns", "UTC")
BAR_NAMES = ("ts", "symbol", "open", "high", "low", "close", "volume", "trades", "source")
DATASET = "dataset"
STREAM = "stream"
"""The source of a bar that only the stream has."""
BAR_DAYS = 30
"""Days of bars in a chunk: 43,200 rows."""
SHOWN_DAYS = 5
"""Days that an error names."""


class Series(msgspec.Struct, frozen=True):
    """A series, its columns, and how it is read."""

    name: str
    meaning: str
    schema: pa.Schema
    tables: tuple[Table, ...]
    """The tables that it is made from. A day is stored if one of them has it."""
    read: Callable[[History, str, int, int, Sequence[str]], Iterator[pa.Table]]
    """Reads some columns from a time until before another, both in ns."""
    metadata: Callable[[History, str, int, int], dict[str, str]] = lambda *_: {}
    """What an Arrow or Parquet file of the rows says about them, beside their schema."""
    minutes_end: bool = False
    """Whether a row describes a whole minute, so that the running one is left out."""

    def columns(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """The wanted columns, each once, or all if none is named; raises `InvalidInput` for an unknown one."""
        unknown = [name for name in wanted if name not in self.schema.names]
        if unknown:
            msg = f"{self.name} has no column {', '.join(unknown)}; its columns are {', '.join(self.schema.names)}"
            raise InvalidInput(msg)
        return tuple(dict.fromkeys(wanted)) or tuple(self.schema.names)

    def part(self, names: Sequence[str]) -> pa.Schema:
        """The schema of some of the columns."""
        return pa.schema([self.schema.field(name) for name in names])

    def described(self, names: Sequence[str], history: History, symbol: str, begin_ns: int, end_ns: int) -> pa.Schema:
        """The schema of some of the columns, with the metadata of the rows of a time."""
        return self.part(names).with_metadata(self.metadata(history, symbol, begin_ns, end_ns))

    def until(self, end_ns: int, now_ns: int) -> int:
        """The end of a read that asks for rows before `end_ns`: never in the future, nor in the running minute."""
        return min(end_ns, now_ns // NS_PER_MIN * NS_PER_MIN) if self.minutes_end else min(end_ns, now_ns)

    def chunks(
        self, history: History, symbol: str, begin_ns: int, end_ns: int, names: Sequence[str]
    ) -> Iterator[pa.Table]:
        """The rows as tables of the schema `part(names)`, without empty ones. Raises `ServiceError`."""
        schema = self.part(names)
        for rows in self.read(history, symbol, begin_ns, end_ns, names):
            if len(rows):
                yield pa.table([rows[field.name].cast(field.type) for field in schema], schema=schema)

    def stored_days(self, history: History, symbol: str, begin_ns: int, end_ns: int) -> dict[str, int]:
        """The days of a time that one of the tables has, each with its rows there, or an upper bound of them."""
        rows: dict[str, int] = {}
        for table in self.tables:
            for each in history.days(table, symbol, begin_ns, end_ns):
                rows[each.day] = max(rows.get(each.day, 0), each.rows)
        return rows

    def days_without(self, stored: Container[str], begin_ns: int, end_ns: int) -> list[str]:
        """The days of a time that are not among those that are stored."""
        wanted = days_between(day_of(begin_ns), day_of(end_ns - 1)) if end_ns > begin_ns else []
        return [day for day in wanted if day not in stored]


def missing_text(series: Series, symbol: str, days: Sequence[str]) -> str:
    """A sentence about days that were never stored."""
    more = f" and {len(days) - SHOWN_DAYS} other days" if len(days) > SHOWN_DAYS else ""
    return f"there are no {series.name} of {symbol} on {', '.join(days[:SHOWN_DAYS])}{more}"


def series_named(name: str) -> Series:
    """The series of a name; raises `InvalidInput` with the names that there are."""
    if name not in SERIES:
        msg = f"there is no table {name[:64]!r}; the tables are {', '.join(SERIES)}"
        raise InvalidInput(msg)
    return SERIES[name]


def with_user_features(series: Series, files: Sequence[FeatureFile]) -> Series:
    """The series with columns of the user's own features, if it has the inputs of models; any other series as it is."""
    if series.name != DATASET or not files:
        return series
    return msgspec.structs.replace(
        series,
        schema=dataset_series.schema_with(files),
        read=partial(dataset_series.rows_of, files=files),
        metadata=partial(dataset_series.metadata, files=files),
    )


def _shown(schema: pa.Schema) -> pa.Schema:
    """A schema of the catalogue with the time zone that its times have."""
    return pa.schema(
        [pa.field(field.name, UTC_NS if pa.types.is_timestamp(field.type) else field.type) for field in schema]
    )


def _rows_of(table: Table) -> Callable[[History, str, int, int, Sequence[str]], Iterator[pa.Table]]:
    def read(history: History, symbol: str, begin_ns: int, end_ns: int, names: Sequence[str]) -> Iterator[pa.Table]:
        yield from history.chunks(table, symbol, begin_ns, end_ns, names)

    return read


def _bars(history: History, symbol: str, begin_ns: int, end_ns: int, names: Sequence[str]) -> Iterator[pa.Table]:
    """Minute bars. `minute_bars` wins where both have a minute: it holds proven and published bars, and models train on it."""
    if end_ns - begin_ns > BAR_DAYS * NS_PER_DAY:
        begin_ns = min(history.begin_of_rows(table, begin_ns, end_ns) for table in (MINUTE_BARS, GOLD_1MIN))
    for first_ns in range(begin_ns, end_ns, BAR_DAYS * NS_PER_DAY):
        last_ns = min(first_ns + BAR_DAYS * NS_PER_DAY, end_ns)
        kept = list(history.chunks(MINUTE_BARS, symbol, first_ns, last_ns, BAR_NAMES))
        streamed = history.db.query(
            f"SELECT {selected(GOLD_1MIN, BAR_NAMES[:-1])} FROM {GOLD_1MIN.name} "  # noqa: S608 - names of the catalogue
            f"WHERE {of_symbol(symbol)} AND {within('ts', first_ns, last_ns)} AND open IS NOT NULL"
        )
        yield join_bars(kept, in_types(streamed, GOLD_1MIN, BAR_NAMES[:-1])).select(names)


def join_bars(kept: list[pa.Table], streamed: pa.Table) -> pa.Table:
    """The bars of `minute_bars`, and those minutes of the stream that it lacks, in the order of time."""
    schema = pa.schema([arrow_schema(MINUTE_BARS).field(name) for name in BAR_NAMES])
    bars = pa.concat_tables([schema.empty_table(), *kept])
    new = streamed.filter(pa.array(~np.isin(column_ns(streamed["ts"]), column_ns(bars["ts"]))))
    new = new.append_column("source", pa.array([STREAM] * len(new), pa.string())).cast(schema)
    return pa.concat_tables([bars, new]).sort_by("ts") if len(new) else bars


def _minute_features(
    history: History, symbol: str, begin_ns: int, end_ns: int, names: Sequence[str]
) -> Iterator[pa.Table]:
    """The newest feature row of each minute, by the end of the minute, the time from which it is known.

    Minutes are whole: a row belongs to a minute if the minute ends after `begin_ns` and not after `end_ns`.
    """
    first_ns, last_ns = (each // NS_PER_MIN * NS_PER_MIN for each in (begin_ns, end_ns))
    read = tuple(dict.fromkeys(("ts_event", *(name for name in names if name != MINUTE_END))))
    for span in history.spans(SILVER_FEATURES, symbol, first_ns, last_ns, 2**62):
        for rows in _newest_rows(history, symbol, span, read):
            typed = in_types(rows, SILVER_FEATURES, read)
            yield typed.add_column(0, MINUTE_END, rows[MINUTE_END]).select(names)


def _newest_rows(history: History, symbol: str, span: Span, names: Sequence[str]) -> Iterator[pa.Table]:
    if span.copy is None:
        yield from newest_rows(history.db, symbol, span.begin_ns, span.end_ns, names)
        return
    with history.open_copy(span.copy) as file:
        yield newest_rows_of_copy(file, symbol, names, after_ns=span.begin_ns, until_ns=span.end_ns)


_FEATURES = arrow_schema(SILVER_FEATURES)
_BARS_SCHEMA = pa.schema([arrow_schema(MINUTE_BARS).field(name) for name in BAR_NAMES])

SERIES: dict[str, Series] = {
    each.name: each
    for each in (
        Series(
            "bars",
            "Minute bars: those of minute_bars (imported, fetched or made from sealed trades) and, for minutes that it lacks, "
            "those of the stream.",
            _shown(_BARS_SCHEMA),
            (MINUTE_BARS, GOLD_1MIN),
            _bars,
            minutes_end=True,
        ),
        Series(
            "features",
            "One row for each quote and trade, with the features right after it.",
            _shown(_FEATURES),
            (SILVER_FEATURES,),
            _rows_of(SILVER_FEATURES),
        ),
        Series(
            "minute_features",
            "The newest feature row of each minute in the order of the log, without late ones. It is known from minute_end on.",
            _shown(pa.schema([pa.field(MINUTE_END, pa.timestamp("ns")), *_FEATURES])),
            (SILVER_FEATURES,),
            _minute_features,
            minutes_end=True,
        ),
        Series(
            "user_features",
            USER_FEATURES.meaning,
            _shown(arrow_schema(USER_FEATURES)),
            (USER_FEATURES,),
            _rows_of(USER_FEATURES),
        ),
        Series("trades", BRONZE_TRADES.meaning, _shown(arrow_schema(BRONZE_TRADES)), (BRONZE_TRADES,), _rows_of(BRONZE_TRADES)),
        Series("quotes", BRONZE_TICKS.meaning, _shown(arrow_schema(BRONZE_TICKS)), (BRONZE_TICKS,), _rows_of(BRONZE_TICKS)),
        Series(
            "forecasts",
            f"The forecast in force at the end of each minute, which was scored, with its outcome over the next {HEADLINE_TEXT} and the "
            "quality that it had when it was made: good, degraded or poor, with the codes of the reasons.",
            _shown(forecast_quality.SCHEMA),
            (PREDICTION_OUTCOMES,),
            forecast_quality.outcomes_with_quality,
        ),
        Series(
            DATASET,
            "The inputs of the models and their labels: the rows that training would fit now, with the stream's inputs on sealed days.",
            dataset_series.SCHEMA,
            (MINUTE_BARS,),
            dataset_series.rows_of,
            metadata=dataset_series.metadata,
            minutes_end=True,
        ),
        Series("skill", PREDICTION_SKILL.meaning, _shown(arrow_schema(PREDICTION_SKILL)), (PREDICTION_SKILL,), _rows_of(PREDICTION_SKILL)),
    )
}  # fmt: skip
"""All series by name."""
