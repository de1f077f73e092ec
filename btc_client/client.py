"""The client: each method is one request, and tables come as Arrow, pandas or polars.

What does not belong here: retries (`connection`), and the structs of single objects (`answers`).
"""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from btc_client.answers import LiveForecast, LoadedModels, Markets, decoded
from btc_client.connection import Connection
from btc_client.dataset import dataset_of, label_names
from btc_client.errors import ClientError
from btc_client.events import async_events, events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from btc_client.dataset import Dataset, Label
    from btc_client.events import Event

Frame = Literal["arrow", "pandas", "polars"]
Time = str | date
"""ISO 8601 with a time zone, a UTC day, a `date`, or a `datetime` with a time zone."""
Missing = Literal["refuse", "skip"]
FORMATS = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".arrows": "arrow"}


class Client:
    """A client of one API. Use it in a `with`, or close it.

    `frame` is what tables come as, unless a call says otherwise: `arrow` (a `pyarrow.Table`), `pandas` or `polars`, which
    have to be installed. A request is repeated up to `retries` times after 429 and 503, as long after as the API asks for,
    and after a broken connection. Methods raise `ApiError` with the API's `detail`, and `NoConnection`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:5050",
        token: str | None = None,
        *,
        frame: Frame = "arrow",
        timeout_s: float = 60.0,
        retries: int = 5,
    ) -> None:
        self._connection = Connection(url, token, timeout_s, retries)
        self._frame: Frame = frame

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def bars(self, symbol: str, start: Time, end: Time | None = None, **options: Any) -> Any:
        """Closed minute bars from `start` until before `end`. Options: those of `table`."""
        return self.table("bars", symbol, start, end, **options)

    def features(
        self,
        symbol: str,
        start: Time,
        end: Time | None = None,
        *,
        every: Literal["row", "minute"] = "minute",
        **options: Any,
    ) -> Any:
        """Features: the newest row of each minute, or with `every="row"` one row for each quote and trade."""
        return self.table("features" if every == "row" else "minute_features", symbol, start, end, **options)

    def trades(self, symbol: str, start: Time, end: Time | None = None, **options: Any) -> Any:
        """Trades from `start` until before `end`."""
        return self.table("trades", symbol, start, end, **options)

    def quotes(self, symbol: str, start: Time, end: Time | None = None, **options: Any) -> Any:
        """Quotes from `start` until before `end`."""
        return self.table("quotes", symbol, start, end, **options)

    def forecasts(self, symbol: str, start: Time, end: Time | None = None, **options: Any) -> Any:
        """The forecast in force at the end of each minute, with its outcome."""
        return self.table("forecasts", symbol, start, end, **options)

    def skill(self, symbol: str, start: Time, end: Time | None = None, **options: Any) -> Any:
        """The rolling skill of the forecasts against the best baseline."""
        return self.table("skill", symbol, start, end, **options)

    def table(  # noqa: PLR0913 - the range and the options of a read
        self,
        name: str,
        symbol: str,
        start: Time,
        end: Time | None = None,
        *,
        columns: Sequence[str] | None = None,
        missing: Missing = "refuse",
        frame: Frame | None = None,
    ) -> Any:
        """The rows of a table of the API from `start` until before `end` (default: now).

        Days that were never stored are an `ApiError` with the code `days_not_stored`, unless `missing` is `skip`.
        """
        query = _query(symbol, start, end, columns, missing)
        return _framed(self._read(name, query), frame or self._frame)

    def save(  # noqa: PLR0913 - the range and the options of a read
        self,
        path: str | Path,
        name: str,
        symbol: str,
        start: Time,
        end: Time | None = None,
        *,
        columns: Sequence[str] | None = None,
        missing: Missing = "refuse",
    ) -> Path:
        """Write the rows of a table to a Parquet, CSV or Arrow stream file, by its suffix, with little memory."""
        target = Path(path)
        form = FORMATS.get(target.suffix)
        if form is None:
            msg = f"{target.name}: the suffix must be one of {', '.join(FORMATS)}"
            raise ClientError(msg)
        query = {**_query(symbol, start, end, columns, missing), "format": form}
        part = target.with_name(f"{target.name}.part")

        def write() -> None:
            with self._connection.stream(f"/v1/data/{name}", query) as response, part.open("wb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)

        try:
            self._connection.tried(write)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def dataset(  # noqa: PLR0913 - the range and what is wanted of it
        self,
        symbol: str,
        start: Time,
        end: Time | None = None,
        *,
        horizon: int | None = None,
        features: Sequence[str] | None = None,
        labels: Sequence[Label] = ("volatility", "bid"),
        missing: Missing = "refuse",
    ) -> Dataset:
        """Inputs and labels at every fifth minute, point in time, as the system's own training makes them.

        `horizon` is how many minutes ahead the labels are: one of the horizons of the system (default: the longest). `features`
        names some of the inputs (default: all).
        """
        if horizon is None:
            horizon = self.markets().horizons_min[-1]
        wanted = label_names(labels, horizon)
        columns = None if features is None else ["origin", *features, *wanted]
        table = self._read("dataset", _query(symbol, start, end, columns, missing))
        return dataset_of(table, features, wanted, horizon)

    def latest(self, symbol: str | None = None) -> LiveForecast:
        """The newest forecast."""
        forecast: LiveForecast = decoded(self._connection.get("/v1/forecast", _market(symbol)), LiveForecast)
        return forecast

    def models(self, symbol: str | None = None) -> LoadedModels:
        """The models of a market with their scores."""
        models: LoadedModels = decoded(self._connection.get("/v1/model", _market(symbol)), LoadedModels)
        return models

    def markets(self) -> Markets:
        """The markets that are followed."""
        markets: Markets = decoded(self._connection.get("/v1/markets", {}), Markets)
        return markets

    def get(self, path: str, **query: str | int | None) -> dict[str, Any]:
        """The JSON of any other GET of the API, such as `get("/v1/skill", hours=6)`. What is None is left out."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        found: dict[str, Any] = decoded(self._connection.get(path, given), dict[str, Any])
        return found

    def events(self, symbol: str | None = None) -> Iterator[Event]:
        """The events of the live stream, without end; it connects again by itself."""
        return events(self._connection, _market(symbol))

    def async_events(self, symbol: str | None = None) -> AsyncIterator[Event]:
        """The same events as an asynchronous iterator."""
        return async_events(self._connection, _market(symbol))

    def _read(self, name: str, query: Mapping[str, str]) -> pa.Table:
        def read() -> pa.Table:
            with self._connection.stream(f"/v1/data/{name}", query) as response:
                source = io.BufferedReader(_Body(response.iter_bytes()), 1_000_000)
                return pa.ipc.open_stream(source).read_all()

        return self._connection.tried(read)


class _Body(io.RawIOBase):
    """The body of an answer as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _market(symbol: str | None) -> dict[str, str]:
    return {} if symbol is None else {"symbol": symbol}


def _query(
    symbol: str, start: Time, end: Time | None, columns: Sequence[str] | None, missing: Missing
) -> dict[str, str]:
    query = {"symbol": symbol, "from": _time("start", start), "missing": missing}
    if end is not None:
        query["to"] = _time("end", end)
    if columns is not None:
        query["columns"] = ",".join(columns)
    return query


def _time(name: str, moment: Time) -> str:
    """A time as the API takes it; raises `ClientError` for a `datetime` without a time zone."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            msg = f"{name}={moment!r} has no time zone; add one, for example tzinfo=datetime.UTC"
            raise ClientError(msg)
        return moment.astimezone(UTC).isoformat()
    return moment.isoformat() if isinstance(moment, date) else moment


def _framed(table: pa.Table, frame: str) -> Any:
    """A table as the caller wants it."""
    if frame == "arrow":
        return table
    if frame == "pandas":
        return table.to_pandas()
    if frame == "polars":
        import polars as pl  # noqa: PLC0415 - optional

        return pl.from_arrow(table)
    msg = f"frame={frame!r}: choose arrow, pandas or polars"
    raise ClientError(msg)
