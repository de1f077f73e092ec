"""A year of small days, as a system that has run for so long would have them: rows in QuestDB, copies and archives on S3.

Every partition of QuestDB is a directory with a file for each column, so that a year of all tables would be 150,000 files.
Tables with few columns have rows on every day, and the others around the end of their retention and on a few days between.
What does not belong here: a year of Dagster and MLflow (`past_runs`), and tests.
"""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns, now_ns
from btc_core.days import forecast_hours, lake, log_archive
from btc_core.days.forecast_hours import HOUR_NS, KeptLeaf, hour_text
from btc_core.days.forecast_roots import DAY, HOUR, DayHeader, HourHeader
from btc_core.days.merkle import leaf_hash, root_of
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.market.bars import BARS
from btc_core.stores.questdb import append, wait_until_applied
from btc_core.tables import rows as table_rows
from btc_core.tables.arrow import arrow_schema, digest, in_form
from btc_core.tables.catalogue import GAP_MARKS, MINUTE_BARS, PREDICTION_OUTCOMES, STORED
from btc_core.tables.proof_tables import FORECAST_ROOTS
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table

SYMBOL = "BTC/USD"
OVERDUE = 3
"""Days that QuestDB has and may no longer keep."""
ALL_DAYS = 365 + OVERDUE
SEALED_AGO = 2
"""How many days ago the day was that the test streams and seals. Until then, only narrow tables have rows of it."""
NARROW = frozenset({"minute_bars", "gold_prediction_skill"})
"""Tables that have rows on every day."""
COPIED_DAILY = frozenset({"bronze_trades", "silver_features"})
"""Tables that have a copy of every day."""
STEP = 30
"""Each other table has rows on its newest days, around the end of its retention, and on every thirtieth day between."""
NEWEST = 6
"""How many of its newest days have rows."""
ROWS_A_DAY = 4
BARS_A_DAY = 4
TRAINED_DAYS = 1
"""Days of which all minutes have bars, so that a model can be trained on them."""
SEAL = "0123456789ab"
THREADS = 8
MINUTES_A_DAY = 1_440


def day_ago(ago: int) -> str:
    """The day so many days before today. The rows are of the past, so that no clock of a server must move."""
    return day_of(now_ns() - ago * NS_PER_DAY)


def days_of(ages: Iterable[int]) -> list[str]:
    """The days of these ages, oldest first."""
    return [day_ago(ago) for ago in sorted(ages, reverse=True)]


def ages_around(kept_days: int) -> set[int]:
    """Ages of days around the end of a retention, of the newest days, and of some between."""
    edge = range(kept_days - OVERDUE + 1, kept_days + OVERDUE + 1)
    return {*edge, *range(STEP, kept_days, STEP), *range(1, NEWEST + 1)} - {SEALED_AGO}


def days_in_questdb(table: Table, settings: Settings) -> list[str]:
    """The days that QuestDB has of a table before its retention is applied."""
    if table.name in NARROW:
        return days_of(range(1, ALL_DAYS + 1))
    return days_of(ago for ago in ages_around(table.ttl_days(settings.questdb)) if ago <= ALL_DAYS)


def days_with_copies(table: Table, settings: Settings) -> list[str]:
    """The days that have a copy: those in QuestDB, and all of the trades and features."""
    more = [ago for ago in range(1, ALL_DAYS + 1) if ago != SEALED_AGO] if table.name in COPIED_DAILY else []
    return sorted({*days_in_questdb(table, settings), *days_of(more)})


def archived_days(settings: Settings) -> list[str]:
    """The days of the year whose messages were archived and are kept."""
    return days_of(ages_around(settings.backup.log_days))


def rows_of(table: Table, days: Sequence[str]) -> pa.Table:
    """A few rows of a table for each day, in the form of the catalogue."""
    if table == FORECAST_ROOTS:
        return _roots(days)
    if table == MINUTE_BARS:
        return _bars(days)
    rng = np.random.default_rng(len(table.name))
    starts = np.array([day_ns(day) for day in days], np.int64) + 23 * HOUR_NS
    times = (starts[:, None] + np.arange(ROWS_A_DAY) * NS_PER_MIN).ravel()
    columns: dict[str, Any] = {}
    for field in arrow_schema(table):
        if pa.types.is_timestamp(field.type):
            values: Any = times
        elif pa.types.is_floating(field.type):
            values = 60_000.0 + rng.normal(0.0, 3.0, len(times)).round(1)
        elif pa.types.is_string(field.type):
            values = _texts(table, field.name, len(times))
        elif pa.types.is_boolean(field.type):
            values = np.arange(len(times)) % 2 == 0
        else:
            values = np.arange(1, len(times) + 1)
        columns[field.name] = pa.array(values).cast(field.type)
    columns |= _special(table, columns, len(times))
    return in_form(pa.table(columns), table)


def _texts(table: Table, name: str, count: int) -> list[str | None]:
    fixed: dict[str, str | None] = {
        "symbol": SYMBOL, "feature_version": FEATURE_VERSION, "import_id": None, "mark": None, "origin": "ws",
        "source": "sealed", "state": "repaired", "quality": "good", "quality_reasons": None,
    }  # fmt: skip
    return [fixed.get(name, "7" if table.name.startswith("gold") else "a")] * count


def _special(table: Table, columns: dict[str, Any], count: int) -> dict[str, Any]:
    """Columns whose values have a meaning for the jobs that read them."""
    if table == PREDICTION_OUTCOMES:
        loss = {name: np.full(count, 0.5) for name in columns if name.startswith("qlike_")}
        loss |= {name: np.zeros(count) for name in columns if "_forecast_" in name or "_return_" in name}
        return {name: pa.array(values) for name, values in loss.items()} | {"late": pa.array(np.zeros(count, bool))}
    if table.name == "bronze_ticks":
        return {"ask": pc.add(columns["bid"], 0.1)}
    if table == GAP_MARKS:
        return {name: pa.array(np.zeros(count, np.int64)) for name in ("missing", "absent")}
    return {}


def _bars(days: Sequence[str]) -> pa.Table:
    """Bars of a random walk: all minutes of the newest days, and the last minutes of the others."""
    counts = [MINUTES_A_DAY if number >= len(days) - TRAINED_DAYS else BARS_A_DAY for number in range(len(days))]
    ends = [day_ns(day) + NS_PER_DAY for day in days]
    bars = np.zeros(sum(counts), BARS)
    bars["ts_ns"] = np.concatenate(
        [end_ns + np.arange(-count, 0) * NS_PER_MIN for end_ns, count in zip(ends, counts, strict=True)]
    )
    rng = np.random.default_rng(4)
    bars["close"] = 60_000.0 * np.exp((5e-4 * rng.normal(size=len(bars))).cumsum())
    bars["open"] = np.concatenate([bars["close"][:1], bars["close"][:-1]])
    bars["high"] = np.maximum(bars["open"], bars["close"]) + 1.0
    bars["low"] = np.minimum(bars["open"], bars["close"]) - 1.0
    bars["volume"] = np.exp(rng.normal(0.0, 0.3, len(bars)))
    return in_form(table_rows.minute_bars(bars, SYMBOL, "sealed"), MINUTE_BARS)


def _roots(days: Sequence[str]) -> pa.Table:
    """Closed hours and days whose roots form a chain, as `btc_core.days.forecast_roots` makes it."""
    records: list[dict[str, Any]] = []
    last = {HOUR: "", DAY: ""}

    def close(period: str, begin_ns: int, header: HourHeader | DayHeader, leaves: list[bytes], until_ns: int) -> None:
        body = msgspec.json.encode(header)
        last[period] = root_of([leaf_hash(body), *leaves]).hex()
        records.append(
            {"ts": begin_ns, "symbol": SYMBOL, "period": period, "root": last[period], "leaves": len(leaves) + 1,
             "header": body.decode(), "closed_at": until_ns + 5 * NS_PER_MIN}
        )  # fmt: skip

    for day in days:
        hours = hours_of(day)
        roots = []
        for begin_ns in hours:
            leaves = [each.leaf for each in leaves_of_hour(begin_ns)]
            header = HourHeader(
                symbol=SYMBOL, hour=hour_text(begin_ns), forecasts=len(leaves), previous=last[HOUR], bundles=(), log=(),
                simulated=True,
            )  # fmt: skip
            close(HOUR, begin_ns, header, leaves, begin_ns + HOUR_NS)
            roots.append(bytes.fromhex(last[HOUR]))
        whole = DayHeader(symbol=SYMBOL, day=day, hours=tuple(map(hour_text, hours)), previous=last[DAY])
        close(DAY, day_ns(day), whole, [leaf_hash(root) for root in roots], day_ns(day) + NS_PER_DAY)
    return in_form(table_rows.from_records(FORECAST_ROOTS, records), FORECAST_ROOTS)


def hours_of(day: str) -> list[int]:
    """The hours of a day that were closed."""
    return [day_ns(day) + 23 * HOUR_NS]


def leaves_of_hour(begin_ns: int) -> list[KeptLeaf]:
    """Leaves of an hour; they stand for forecasts that nobody asks about."""
    hashes = [hashlib.sha256(f"{begin_ns} {number}".encode()).digest() for number in range(2)]
    return [KeptLeaf(each, each[:8]) for each in hashes]


def write_year(settings: Settings, db: QuestDB, store: ObjectStore) -> None:
    """Write the rows of all tables, copies of their days, archives of the log, and the leaves of all hours.

    A table is written as one batch, and copies in parallel and without being read back, because thousands of them one after the
    other would take minutes. The job that drops days compares them with QuestDB.
    """
    objects: list[tuple[str, bytes]] = []
    for table in STORED:
        held, copied = days_in_questdb(table, settings), days_with_copies(table, settings)
        rows = rows_of(table, copied)
        of_day = np.array([day_of(int(ns)) for ns in column_ns(rows[table.timestamp])])
        append(db, table, rows.filter(pa.array(np.isin(of_day, held))))
        objects += _copies(table, rows, copied)
    for day in archived_days(settings):
        objects += _archive(day)
    for day in days_in_questdb(FORECAST_ROOTS, settings):
        for begin_ns in hours_of(day):
            body = b"".join(each.leaf + each.record for each in leaves_of_hour(begin_ns))
            objects.append((forecast_hours.leaves_key(SYMBOL, begin_ns), body))
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda each: store.put(*each), objects))
    for table in STORED:
        wait_until_applied(db, table.name)


def _copies(table: Table, rows: pa.Table, days: Sequence[str]) -> list[tuple[str, bytes]]:
    """Copies of days as `lake.back_up` writes them."""
    objects = []
    times = column_ns(rows[table.timestamp])
    for day in days:
        begin, end = np.searchsorted(times, [day_ns(day), day_ns(day) + NS_PER_DAY]).tolist()
        part = rows.slice(begin, end - begin)
        sink = io.BytesIO()
        pq.write_table(
            part, sink, use_dictionary=False, write_statistics=False, compression="none"
        )  # a third of the time
        body = sink.getvalue()
        sha256 = hashlib.sha256(body).hexdigest()
        manifest = lake.Manifest(
            table=table.name,
            day=day,
            key=f"{table.name}/{day}/{sha256[:16]}.parquet",
            rows=len(part),
            size_bytes=len(body),
            sha256=sha256,
            content_sha256=digest(part),
            columns=tuple((field.name, str(field.type)) for field in arrow_schema(table)),
            feature_version=FEATURE_VERSION if table.name == "silver_features" else "",
            seal=SEAL,
            written_at_ns=day_ns(day) + NS_PER_DAY + 3_600 * 10**9,
        )
        objects += [(manifest.key, body), (lake.manifest_key(table.name, day), msgspec.json.encode(manifest))]
    return objects


def _archive(day: str) -> list[tuple[str, bytes]]:
    """An archive of the log with one message, as `log_archive.write` makes it."""
    text = f"a message of {day}\n".encode()
    body = pa.compress(text, "zstd", asbytes=True)
    sha256 = hashlib.sha256(body).hexdigest()
    part = log_archive.Part(
        key=f"market.events/{day}/0-0-{sha256[:16]}.jsonl.zst", partition=0, first_offset=0, last_offset=0, messages=1,
        newest_ns=day_ns(day), text_bytes=len(text), size_bytes=len(body), sha256=sha256,
    )  # fmt: skip
    whole = log_archive.LogArchive(
        day=day, log_id="log", messages=1, channels={"ticker": 1}, text_bytes=len(text), size_bytes=len(body),
        text_sha256=hashlib.sha256(text).hexdigest(), parts=(part,), written_at_ns=day_ns(day) + NS_PER_DAY,
        partitions=(log_archive.ArchivedPartition(partition=0, messages=1, first_offset=0, last_offset=0, read_to=1),),
    )  # fmt: skip
    return [(part.key, body), (log_archive.manifest_key(day), msgspec.json.encode(whole))]
