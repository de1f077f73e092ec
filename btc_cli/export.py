"""`btc export`: stored rows of a market as a Parquet, CSV or Arrow file.

What does not belong here: the series that can be exported (`btc_core.days.series`).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli.options import DataDir, FirstDay, LastDay, open_stack, require_folder
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days.history import History
from btc_core.days.series import SERIES, missing_text, series_named, with_user_features
from btc_core.days.table_formats import encoded
from btc_core.errors import InvalidInput
from btc_core.features.user.folder import features_in
from btc_core.files import atomic_write
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.utc_day import day_ns, days_between

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from btc_core.days.series import Series
    from btc_core.days.table_formats import Format

FORMATS: dict[str, Format] = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".arrows": "arrow"}


def export(  # noqa: PLR0913 - every option of the command is an argument
    table: Annotated[str, typer.Argument(help=f"What to export: {', '.join(SERIES)}.")],
    first: FirstDay,
    last: LastDay,
    *,
    out: Annotated[Path, typer.Option(help="The file to write; its suffix is .parquet, .csv or .arrow (a stream).")],
    symbol: Annotated[str, typer.Option(help="Market. Default: the first one that the stack follows.")] = "",
    columns: Annotated[
        list[str] | None, typer.Option(help="Column to export; may be repeated. Default: all columns.")
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option(
            "--skip-missing", help="Export the other days if some were never stored. Without it, that is an error."
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Write stored rows of a market to a file, from QuestDB and, for older days, from the object store.

    `btc evaluate --bars` reads the file of `btc export bars`.
    """
    series = series_named(table)
    form = FORMATS.get(out.suffix)
    if form is None:
        raise InvalidInput(f"--out {out}: the suffix must be one of {', '.join(FORMATS)}")
    require_folder("--out", out)
    days_between(first, last)
    settings = open_stack(data_dir).settings
    series = with_user_features(series, features_in(settings.user_features))
    names = series.columns(columns or [])
    begin_ns, end_ns = day_ns(first), series.until(day_ns(last) + NS_PER_DAY, now_ns())
    market = symbol or settings.exchange.symbols[0]
    with QuestDB(settings.questdb) as db:
        history = History(db, lambda: ObjectStore(settings.store))
        try:
            _check_days(series, history, market, begin_ns, end_ns, skip_missing=skip_missing)
            schema = series.described(names, history, market, begin_ns, end_ns)
            counter = _Counter(series.chunks(history, market, begin_ns, end_ns, names))
            _write(out, encoded(counter, schema, form))
        finally:
            history.close()
    typer.echo(f"{counter.rows} rows of {table} of {market} → {out}")


def _check_days(  # noqa: PLR0913 - the range and what to do about it
    series: Series, history: History, symbol: str, begin_ns: int, end_ns: int, *, skip_missing: bool
) -> None:
    stored = series.stored_days(history, symbol, begin_ns, end_ns)
    missing = series.days_without(stored, begin_ns, end_ns)
    if missing and not skip_missing:
        msg = f"{missing_text(series, symbol, missing)}; choose other days, or add --skip-missing"
        raise InvalidInput(msg)


class _Counter:
    """Tables that are passed on, and how many rows they had."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self.rows = 0

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self._tables:
            self.rows += len(table)
            yield table


def _write(out: Path, pieces: Iterator[bytes]) -> None:
    with atomic_write(out) as file:
        for piece in pieces:
            file.write(piece)
