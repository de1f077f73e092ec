"""`/v1/data/{table}`: the stored rows of a series as an Arrow stream, a Parquet file or a CSV file.

What does not belong here: reading rows (`btc_core.days`), and the limits of a read (`data_exports`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from flask import Blueprint, Response
from msgspec import UNSET, UnsetType

from btc_core.days.series import DATASET, SERIES, with_user_features
from btc_core.days.table_formats import MEDIA, Format, encoded
from btc_core.errors import InvalidInput
from btc_core.features.user.folder import features_in
from btc_core.utc_day import day_ns
from serving.answers import iso
from serving.data_exports import Wanted
from serving.deps import deps
from serving.endpoints import SHOWN_CHARACTERS, Symbol, bad_parameter, documented, parse_query, parse_time_ns
from serving.problem_details import Problem
from serving.symbols import requested_symbol

if TYPE_CHECKING:
    from btc_core.days.series import Series

blueprint = Blueprint("data", __name__, url_prefix="/v1")

DAY_CHARACTERS = 10
SUFFIXES: dict[Format, str] = {"arrow": "arrows", "parquet": "parquet", "csv": "csv"}

_TIME_SCHEMA = {"anyOf": [{"format": "date-time"}, {"format": "date"}]}
_A_TIME = "ISO 8601 with a time zone, or a UTC day such as 2026-07-19"

_SERIES_MEANINGS = "\n".join(
    ["The series to read:", "", *(f"- `{each.name}`: {each.meaning}" for each in SERIES.values())]
)


class DataQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    """The rows from `from` until before `to`."""

    begin: Annotated[
        str, msgspec.Meta(description=f"Time of the first row: {_A_TIME}.", extra_json_schema=_TIME_SCHEMA)
    ]
    end: (
        Annotated[
            str,
            msgspec.Meta(description=f"End, not included: {_A_TIME}. Default: now.", extra_json_schema=_TIME_SCHEMA),
        ]
        | UnsetType
    ) = UNSET
    symbol: Symbol = UNSET
    format: Annotated[
        Literal["arrow", "parquet", "csv"],
        msgspec.Meta(description="An Arrow IPC stream, a Parquet file, or CSV with a header."),
    ] = "arrow"
    columns: (
        Annotated[str, msgspec.Meta(description="Only these columns, separated by commas. Default: all.", min_length=1)]
        | UnsetType
    ) = UNSET
    missing: Annotated[
        Literal["refuse", "skip"],
        msgspec.Meta(
            description="If days of the range were never stored: a 404 that names them, or the rows of the others."
        ),
    ] = "refuse"


@blueprint.get("/data/<table>")
@documented(
    "market",
    str,
    query=DataQuery,
    problems=(404, 422, 503),
    media=MEDIA["arrow"],
    other_media=(MEDIA["parquet"], MEDIA["csv"]),
    path={"table": (_SERIES_MEANINGS, tuple(SERIES))},
)
def data(table: str) -> Response:
    """Stored rows in the order of time: bars, features, trades, quotes, or forecasts with their outcomes.

    They come from QuestDB and, for days that have left it, from the object store.
    """
    series = _series(table)
    query = parse_query(DataQuery)
    symbol = requested_symbol(query.symbol)
    begin_ns, end_ns = _period(query, series)
    names = tuple(name.strip() for name in query.columns.split(",")) if query.columns else ()
    try:
        columns = series.columns(names)
    except InvalidInput as error:
        raise bad_parameter("columns", str(error)) from None
    export = deps().exports.start(Wanted(series, symbol, begin_ns, end_ns, columns, query.missing == "skip"))
    body = encoded(export.chunks, export.schema, query.format)
    response = Response(body, content_type=MEDIA[query.format])
    name = f"{table}-{symbol.replace('/', '')}-{iso(begin_ns)[:10]}.{SUFFIXES[query.format]}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.call_on_close(export.close)
    return response


def _series(name: str) -> Series:
    if name in SERIES:
        return with_user_features(SERIES[name], features_in(deps().settings.user_features) if name == DATASET else ())
    raise Problem(
        HTTPStatus.NOT_FOUND,
        "unknown_table",
        f"there is no table {name[:SHOWN_CHARACTERS]!r}; the tables are {', '.join(SERIES)}",
        more={"tables": list(SERIES)},
    )


def _period(query: DataQuery, series: Series) -> tuple[int, int]:
    """The times in ns; the end is now at the latest."""
    now_ns = deps().clock.now_ns()
    begin_ns = _time_ns("from", query.begin)
    end_ns = now_ns if isinstance(query.end, UnsetType) else _time_ns("to", query.end)
    if begin_ns >= end_ns:
        detail = f"from ({iso(begin_ns)}) must be before to ({iso(end_ns)}), which is not included"
        raise bad_parameter("from", detail)
    return begin_ns, max(begin_ns, series.until(end_ns, now_ns))


def _time_ns(name: str, text: str) -> int:
    if len(text) == DAY_CHARACTERS:
        try:
            return day_ns(text)
        except InvalidInput as error:
            raise bad_parameter(name, f"the parameter {name}: {error}") from None
    return parse_time_ns(name, text)
