"""Closing hours and days: the Merkle root over all forecasts that were made in an hour, and over the hours of a day.

A forecast belongs to the hour of our clock in which it was made. The first leaf of an hour is a header with the root of the
hour before, so each root contains all earlier ones; the other leaves are the forecasts in the order of the log. The leaves
of a day are a header and the roots of its hours. A closed hour is never closed again: a forecast that is stored after that
is listed in the header of a later hour, with the hour that it says it was made in.
What does not belong here: the bytes of a leaf (`forecast_leaves`), and when hours are closed (`btc_assets.forecast_roots`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from btc_core.clock import NS_PER_DAY, NS_PER_S, column_ns, now_ns
from btc_core.days import forecast_hours
from btc_core.days.fold_states import FoldState
from btc_core.days.forecast_hours import HOUR_NS, LATE_DAYS, hour_text, kept_leaves, leaves_of, read_hour
from btc_core.days.history import selected
from btc_core.days.log_hours import LogHour, LogHours, LogRange
from btc_core.days.merkle import leaf_hash, root_of
from btc_core.errors import SchemaError, ServiceError
from btc_core.stores.questdb import applied, write_rows
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION
from btc_core.tables.proof_tables import FORECAST_ROOTS, FORECAST_STATES
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from btc_core.days.history import History
    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore

CLOSE_GRACE_S = 240
"""How long after its end an hour is closed at the earliest, so that its last forecasts are stored and readable."""
LATE_LISTED = 1_000
"""Late forecasts that a header lists; it has the number of all."""
LATE_HOURS = 24
"""How many closed hours are searched for late forecasts. An older one would be missing in every root, which its proof says."""
HOUR, DAY = "hour", "day"
CLOSED_TABLES = (BID_PREDICTION, VOLATILITY_PREDICTION, SILVER_FEATURES, FORECAST_STATES)
"""The tables whose written rows must be readable before an hour is closed."""


class LateForecast(msgspec.Struct, frozen=True):
    """A forecast that was stored after its hour had been closed."""

    hour: str
    """The hour in which it says it was made."""
    place: str
    """Partition, offset and item of its row, joined by colons."""
    leaf: str
    """Its leaf hash."""


class HourHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first leaf of an hour, as JSON."""

    version: int = 1
    symbol: str
    hour: str
    forecasts: int
    previous: str
    """The root of the hour that was closed before; empty for the first."""
    bundles: tuple[str, ...]
    """The hashes of the bundles of all models that made these forecasts."""
    log: tuple[LogRange, ...]
    """The messages that reached the log in the hour; empty if the log had dropped them already."""
    states: tuple[FoldState, ...] = ()
    """The states of the features after these messages, one for each partition whose messages are known back to its windows."""
    simulated: bool
    """Whether the market is simulated, so that nobody can pass its forecasts off as those of an exchange."""
    late_forecasts: int = 0
    late: tuple[LateForecast, ...] = ()


class DayHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first leaf of a day, as JSON."""

    version: int = 1
    symbol: str
    day: str
    hours: tuple[str, ...]
    """The hours whose roots are the other leaves, in this order."""
    previous: str
    """The root of the day that was closed before; empty for the first."""


_Header = TypeVar("_Header", HourHeader, DayHeader)


class ClosedPeriod(msgspec.Struct, frozen=True):
    """A row of `gold_forecast_roots`."""

    symbol: str
    period: str
    begin_ns: int
    root: str
    leaves: int
    header: str
    closed_at_ns: int

    @property
    def hour_header(self) -> HourHeader:
        """The header of an hour; raises `SchemaError` if it is not one."""
        return self._decoded(HourHeader)

    @property
    def log_hour(self) -> LogHour:
        """What the header of an hour says of the log; raises `SchemaError` if it is not one."""
        header = self.hour_header
        return LogHour(self.begin_ns, header.log, header.states)

    @property
    def day_header(self) -> DayHeader:
        """The header of a day; raises `SchemaError` if it is not one."""
        return self._decoded(DayHeader)

    @property
    def name(self) -> str:
        """The hour or the day, as in its header."""
        return hour_text(self.begin_ns) if self.period == HOUR else day_of(self.begin_ns)

    def _decoded(self, kind: type[_Header]) -> _Header:
        try:
            return msgspec.json.decode(self.header, type=kind)
        except msgspec.MsgspecError as error:
            msg = f"the header of {self.name} of {self.symbol} in {FORECAST_ROOTS.name} cannot be read: {error}"
            raise SchemaError(msg) from error


def closed_periods(history: History, symbol: str, begin_ns: int, end_ns: int) -> list[ClosedPeriod]:
    """The closed hours and days that begin in a range of time, oldest first; a day comes after its hours."""
    rows = [row for chunk in history.chunks(FORECAST_ROOTS, symbol, begin_ns, end_ns) for row in _periods(chunk)]
    return sorted(
        rows, key=lambda row: (row.begin_ns + (HOUR_NS if row.period == HOUR else NS_PER_DAY), row.period != HOUR)
    )


def _periods(rows: pa.Table) -> list[ClosedPeriod]:
    begins, closed = column_ns(rows["ts"]).tolist(), column_ns(rows["closed_at"]).tolist()
    others = rows.select(["symbol", "period", "root", "leaves", "header"]).to_pylist()
    return [
        ClosedPeriod(row["symbol"], row["period"], begin_ns, row["root"], row["leaves"], row["header"], closed_ns)
        for row, begin_ns, closed_ns in zip(others, begins, closed, strict=True)
    ]


def close_before_repair(history: History, settings: Settings, store: ObjectStore, days: Sequence[str]) -> None:
    """Close every hour that is over, of each market that has forecasts on these days in hours that are open.

    Feature rows are repaired after that, because a root contains the rows as they were streamed. Raises `ServiceError`.
    """
    closer = Closer(history, settings, store)
    for symbol in settings.exchange.symbols:
        if any(closer.has_open_hours(symbol, day) for day in days):
            closer.close(symbol, now_ns())


class Closer:
    """Closes the hours and days of markets. `history` reads the tables, and `store` keeps the leaves."""

    def __init__(self, history: History, settings: Settings, store: ObjectStore) -> None:
        self._history = history
        self._db = history.db
        self._simulated = settings.simulated
        self._store = store
        self._log = LogHours(settings, store)

    def has_open_hours(self, symbol: str, day: str) -> bool:
        """Whether forecasts were made on a day, after the newest hour that is closed. Raises `ServiceError`."""
        newest = self._newest(symbol, HOUR)
        begin_ns, end_ns = day_ns(day), day_ns(day) + NS_PER_DAY
        if newest is not None:
            begin_ns = max(begin_ns, newest.begin_ns + HOUR_NS)
        return begin_ns < end_ns and bool(self._forecasts_by_hour(symbol, begin_ns, end_ns))

    def close(self, symbol: str, now: int) -> list[ClosedPeriod]:
        """Close every hour and day of a market that is over and not closed yet; returns them, oldest first.

        The first hour that is ever closed is the newest that is over: a root over older ones would prove nothing.
        Raises `ServiceError` when a server does not answer; then the hours that were closed before stay closed.
        """
        unread = [table.name for table in CLOSED_TABLES if not applied(self._db, table.name)]
        if unread:
            msg = f"rows of {', '.join(unread)} are written but not yet readable, so no hour can be closed"
            raise ServiceError(msg)
        newest_ns = (now - CLOSE_GRACE_S * NS_PER_S) // HOUR_NS * HOUR_NS - HOUR_NS
        before = self._newest(symbol, HOUR)
        begin_ns = newest_ns if before is None else before.begin_ns + HOUR_NS
        closed = []
        counts = self._forecasts_by_hour(symbol, begin_ns, newest_ns + HOUR_NS)
        for hour_ns in range(begin_ns, newest_ns + HOUR_NS, HOUR_NS):
            if counts.get(hour_ns):
                before = self._close_hour(symbol, hour_ns, before)
                closed.append(before)
            if (hour_ns + HOUR_NS) % NS_PER_DAY == 0:
                day = self._close_day(symbol, hour_ns + HOUR_NS - NS_PER_DAY)
                closed += [] if day is None else [day]
        return closed

    def _close_hour(self, symbol: str, begin_ns: int, before: ClosedPeriod | None) -> ClosedPeriod:
        hour = read_hour(self._history, symbol, begin_ns)
        leaves = leaves_of(hour)
        late = self._late(symbol, begin_ns)
        log = self._log.of_hour(begin_ns, None if before is None else before.log_hour)
        header = HourHeader(
            symbol=symbol,
            hour=hour_text(begin_ns),
            forecasts=len(leaves),
            previous="" if before is None else before.root,
            bundles=tuple(sorted({each.hex() for pair in hour.bundles for each in pair})),
            log=log.ranges,
            states=log.states,
            simulated=self._simulated,
            late_forecasts=len(late),
            late=tuple(late[:LATE_LISTED]),
        )
        forecast_hours.keep_leaves(self._store, symbol, begin_ns, leaves)
        return self._write(symbol, HOUR, begin_ns, msgspec.json.encode(header), [each.leaf for each in leaves])

    def _close_day(self, symbol: str, begin_ns: int) -> ClosedPeriod | None:
        """The day, once; None if no hour of it was closed."""
        periods = closed_periods(self._history, symbol, begin_ns, begin_ns + NS_PER_DAY)
        hours = [each for each in periods if each.period == HOUR]
        if not hours or any(each.period == DAY for each in periods):
            return None
        before = self._newest(symbol, DAY)
        header = DayHeader(
            symbol=symbol,
            day=day_of(begin_ns),
            hours=tuple(each.name for each in hours),
            previous="" if before is None else before.root,
        )
        entries = [leaf_hash(bytes.fromhex(each.root)) for each in hours]
        return self._write(symbol, DAY, begin_ns, msgspec.json.encode(header), entries)

    def _write(self, symbol: str, period: str, begin_ns: int, header: bytes, leaves: list[bytes]) -> ClosedPeriod:
        root = root_of([leaf_hash(header), *leaves]).hex()
        closed = ClosedPeriod(symbol, period, begin_ns, root, len(leaves) + 1, header.decode(), now_ns())
        record = msgspec.structs.asdict(closed)
        record |= {"ts": record.pop("begin_ns"), "closed_at": record.pop("closed_at_ns")}
        write_rows(self._db, FORECAST_ROOTS, table_rows.from_records(FORECAST_ROOTS, [record]))
        return closed

    def _newest(self, symbol: str, period: str) -> ClosedPeriod | None:
        names = selected(FORECAST_ROOTS, [column.name for column in FORECAST_ROOTS.columns])
        rows = self._db.query(
            f"SELECT {names} FROM {FORECAST_ROOTS.name} WHERE {of_symbol(symbol)} AND period = '{period}' "  # noqa: S608 - names of the catalogue
            "ORDER BY ts DESC LIMIT 1"
        )
        found = _periods(rows)
        return found[0] if found else None

    def _forecasts_by_hour(self, symbol: str, begin_ns: int, end_ns: int) -> dict[int, int]:
        """The number of stored forecasts by the hour in which they were made."""
        counted = self._db.execute(
            f"SELECT cast(made_at AS LONG) / {HOUR_NS} h, count() FROM {BID_PREDICTION.name} WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
            f"AND {within('ts_event', begin_ns - LATE_DAYS * NS_PER_DAY, end_ns + HOUR_NS)} "
            f"AND {within('made_at', begin_ns, end_ns)} GROUP BY h"
        )
        return {int(hour) * HOUR_NS: int(count) for hour, count in counted}

    def _late(self, symbol: str, begin_ns: int) -> list[LateForecast]:
        """The forecasts that were stored after their hour, one of the last before `begin_ns`, had been closed."""
        since_ns = begin_ns - LATE_HOURS * HOUR_NS
        hours = [each for each in closed_periods(self._history, symbol, since_ns, begin_ns) if each.period == HOUR]
        listed = {late.leaf for each in hours for late in each.hour_header.late}
        counts = self._forecasts_by_hour(symbol, since_ns, begin_ns)
        late = []
        for hour in hours:
            if counts.get(hour.begin_ns, 0) < hour.leaves:
                continue
            in_time = {each.record for each in kept_leaves(self._store, symbol, hour.begin_ns)}
            stored = read_hour(self._history, symbol, hour.begin_ns)
            for leaf, place in zip(leaves_of(stored), stored.places, strict=True):
                if leaf.record not in in_time and leaf.leaf.hex() not in listed:
                    late.append(LateForecast(hour.name, place, leaf.leaf.hex()))
        return late
