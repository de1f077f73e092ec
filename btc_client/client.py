"""The client: each method is one request, and tables come as Arrow, pandas or polars.

What does not belong here: retries (`connection`), and the structs of single objects (`answers`, `score_answers`).
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
from btc_client.score_answers import ForecastProof, League, Roots, Skill

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
    have to be installed. A request is repeated up to `retries` times after 429, 502, 503 and 504, as long after as the
    API asks for, and after a broken connection. `ca_file` is a PEM file with the authority of the API's certificate, if that
    is a private one; without it, the authorities that this machine knows count. Methods raise `ApiError` with the API's `detail`, and `NoConnection`.
    """

    def __init__(  # noqa: PLR0913 - what a user may choose
        self,
        url: str = "http://127.0.0.1:5050",
        token: str | None = None,
        *,
        frame: Frame = "arrow",
        timeout_s: float = 60.0,
        retries: int = 5,
        ca_file: str | None = None,
    ) -> None:
        self._connection = Connection(url, token, timeout_s, retries, ca_file)
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
        """The forecast in force at the end of each minute, with its outcome.

        `quality` is `good`, `degraded` or `poor`, as judged when the forecast was made, and `quality_reasons` has the codes of the
        reasons, separated by spaces. Both are null for forecasts that were not judged.
        """
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

    def book(self, symbol: str, at: Time, *, frame: Frame | None = None) -> Any:
        """The order book of a past moment: `side` (bid or ask), `level` from 1, `price` in USD, `quantity`.

        The API reads it from the frames of the exchange, which takes a second or two. Raises `ApiError` if no forecast was
        in force at the moment, or if its book was not known.
        """
        found = self.get("/v1/at", symbol=symbol, at=_time("at", at), book="true")["book"]
        rows = [
            {"side": side, "level": level, "price": price, "quantity": quantity}
            for side in ("bid", "ask")
            for level, (price, quantity) in enumerate(found[f"{side}s"], 1)
        ]
        return _framed(pa.Table.from_pylist(rows), frame or self._frame)

    def models(self, symbol: str | None = None) -> LoadedModels:
        """The models of a market with their scores."""
        models: LoadedModels = decoded(self._connection.get("/v1/model", _market(symbol)), LoadedModels)
        return models

    def markets(self) -> Markets:
        """The markets that are followed."""
        markets: Markets = decoded(self._connection.get("/v1/markets", {}), Markets)
        return markets

    def league(self, symbol: str | None = None, *, days: Literal[1, 7, 28] = 7) -> League:
        """The user's own models beside the champion and the baselines, scored over the last days, best first."""
        league: League = decoded(self._connection.get("/v1/league", {**_market(symbol), "days": str(days)}), League)
        return league

    def live_skill(self, symbol: str | None = None, *, hours: int = 24) -> Skill:
        """The losses of the last hours beside those of the baselines, and the coverage; `skill` has it as a table over time."""
        skill: Skill = decoded(self._connection.get("/v1/skill", {**_market(symbol), "hours": str(hours)}), Skill)
        return skill

    def roots(self, symbol: str | None = None, start: Time | None = None, end: Time | None = None) -> Roots:
        """The Merkle roots over the forecasts of closed hours and days; without times, those of the last day."""
        times = {
            "from": None if start is None else _time("start", start),
            "to": None if end is None else _time("end", end),
        }
        roots: Roots = decoded(self._connection.get("/v1/proofs", {**_market(symbol), **_given(times)}), Roots)
        return roots

    def proof(self, symbol: str, at: Time) -> ForecastProof:
        """The proof that the forecast in force at a time is in the root of its hour. `btc verify` checks it."""
        query = {**_market(symbol), "at": _time("at", at)}
        proof: ForecastProof = decoded(self._connection.get("/v1/proofs/forecast", query), ForecastProof)
        return proof

    def get(self, path: str, **query: str | int | None) -> dict[str, Any]:
        """The JSON of any other GET of the API, such as `get("/v1/explain", top=5)`. What is None is left out."""
        found: dict[str, Any] = decoded(self._connection.get(path, _given(query)), dict[str, Any])
        return found

    def pages(self, path: str, **query: str | int | None) -> Iterator[dict[str, Any]]:
        """The JSON of each page of a GET that answers in pages, as `pages("/v1/bars", since="2026-10-01T00:00:00Z")`.

        Begin with a `since`: without one, the API answers with the newest page, which is the last. Each page is asked for when
        the one before is used up, so a loop may end at any page. Raises `ClientError` if the answer has no pages.
        """
        since = query.pop("since", None)
        while True:
            page = self.get(path, since=since, **query)
            if "next" not in page:
                msg = f"{path} does not answer in pages; use get({path!r})"
                raise ClientError(msg)
            yield page
            if page["next"] is None:
                return
            if page["next"] == since:
                msg = f"{path} names the page of {since} as the one after it"
                raise ClientError(msg)
            since = page["next"]

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


def _given(query: Mapping[str, str | int | None]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


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
