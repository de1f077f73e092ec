"""Benchmarks of `/v1/data` and its client: a month of minutes and a day of rows, beside the pages of JSON.

What does not belong here: the other endpoints (`serving`).
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pyarrow as pa

from benchmarks.load import in_background
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import SYMBOL, stack_for_now
from benchmarks.serving import PATH, fresh_forecasts
from btc_client import Client
from btc_core.clock import NS_PER_DAY, NS_PER_US
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.stores.questdb import QuestDB, append, wait_until_applied
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST, LAST, END = "2026-10-01", "2026-10-30", "2026-10-31"
DAYS = 30
THIN_ROWS, FULL_ROWS = 30_000, 400_000
"""Feature rows of each day, and of the last one: 100,000 trades and 300,000 quotes."""
WRITE_ROWS = 20_000
JSON_PAGE = 1_000
REPEATS = 3


@benchmark("data", needs_servers=True)
def tables_over_http(plan: Plan) -> list[Figure]:
    """A month and a day of feature rows as Arrow tables in the client, and `/v1/forecast` while a day is sent."""
    with stack_for_now() as stack:
        stack.up(only=("api", "questdb", "store"))
        settings = stack.settings
        with QuestDB(settings.questdb) as db:
            ensure_tables(db)
            fill(db, plan)
        address = (settings.api.host, settings.api.port)
        url = f"http://{address[0]}:{address[1]}"
        with Client(url) as client, fresh_forecasts(settings):
            minutes = median_s(lambda: client.features(SYMBOL, FIRST, END))
            bars = median_s(lambda: client.bars(SYMBOL, FIRST, END))
            rows = median_s(lambda: client.features(SYMBOL, LAST, END, every="row"))
            few = median_s(lambda: client.features(SYMBOL, LAST, END, every="row", columns=["ts_event", "bid", "ask"]))
            in_background(address, PATH, 1, 1.0, per_s=50.0).result()  # the first requests are slower
            beside = in_background(address, PATH, 1, 2.0 * rows, per_s=50.0)
            client.features(SYMBOL, LAST, END, every="row")
            load = beside.result()
        pages = median_s(lambda: json_pages(url))
    full = plan.size(FULL_ROWS)
    return [
        Figure("a month of minute features, all columns, into Arrow", minutes, "s", 2.0),
        Figure("a month of minute bars into Arrow", bars, "s", None, "lower", "44 pages of JSON", pages),
        Figure("a day of feature rows, all columns, into Arrow", rows, "s", 5.0, note=f"{full} rows"),
        Figure("a day of feature rows, three columns", few, "s", note=f"{full} rows"),
        Figure(f"GET {PATH} while a day is sent, p99", load.percentile_ms(99), "ms", 50.0, note="50 requests/s"),
    ]


def fill(db: QuestDB, plan: Plan) -> None:
    """Write the feature rows of a month."""
    rng = np.random.default_rng(1)
    for day in range(DAYS):
        count = plan.size(FULL_ROWS if day == DAYS - 1 else THIN_ROWS)
        rows = feature_rows(day_ns(FIRST) + day * NS_PER_DAY, count, rng)
        for begin in range(0, count, WRITE_ROWS):
            append(db, SILVER_FEATURES, rows.slice(begin, WRITE_ROWS))
    wait_until_applied(db, SILVER_FEATURES.name)


def feature_rows(begin_ns: int, count: int, rng: np.random.Generator) -> pa.Table:
    """Rows of one day at random times with random values."""
    times = np.sort(begin_ns + rng.integers(0, NS_PER_DAY // NS_PER_US, count) * NS_PER_US)
    texts = {"symbol": SYMBOL, "kind": "trade", "feature_version": FEATURE_VERSION}
    schema = arrow_schema(SILVER_FEATURES)
    columns = []
    for field in schema:
        if pa.types.is_timestamp(field.type):
            values = pa.array(times)
        elif field.name in texts:
            values = pa.array([texts[field.name]] * count)
        elif pa.types.is_floating(field.type):
            values = pa.array(np.exp(rng.normal(size=count)))
        else:
            values = pa.array(np.arange(count))
        columns.append(values.cast(field.type))
    return pa.table(columns, schema=schema)


def json_pages(url: str) -> None:
    """The bars of the month as a client had to read them before: page after page of JSON."""
    since: str | None = f"{FIRST}T00:00:00Z"
    with httpx.Client(base_url=url, timeout=30) as http:
        while since and since < END:
            query: dict[str, str | int] = {"symbol": SYMBOL, "since": since, "limit": JSON_PAGE}
            since = http.get("/v1/bars", params=query).raise_for_status().json()["next"]


def median_s(work: Callable[[], object]) -> float:
    """Median duration after one warm-up."""
    work()
    times = []
    for _ in range(REPEATS):
        begin_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin_s)
    return statistics.median(times)
