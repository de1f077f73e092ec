"""`btc evaluate --stored` and the variance of ticks on a real stack with four sealed days, one of which has left QuestDB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S
from btc_core.days.gold import fill_minute_bars, make_gold
from btc_core.days.lake import back_up
from btc_core.days.seals import seal_of
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import drop_days_through
from btc_core.days.tick_labels import read_tick_labels
from btc_core.days.training_rows import read_training_rows
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED
from btc_core.tables.catalogue import BRONZE_TICKS, BRONZE_TRADES, MINUTE_BARS, SILVER_FEATURES
from btc_core.tables.rows import minute_bars
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_ns, day_of
from tests.paths import ROOT
from tests.service.past_day import keep_nothing
from tests.unit.btc_core.features.test_minute_columns import market

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from btc_core.settings import Settings
    from btc_core.tables.form import Table
    from stack.runtime import Stack

pytestmark = [pytest.mark.service, pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")]

SYMBOL = "BTC/USD"
FIRST_DAY, SEALED = "2026-03-01", ("2026-03-17", "2026-03-18", "2026-03-19", "2026-03-20")
"""Sixteen days of bars alone, then two sealed days to learn from and two to judge on."""
STEP_S = 6
"""Seconds between two quotes; a trade follows every second one."""


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers("questdb", "store")


@pytest.fixture(scope="module")
def db(settings: Settings) -> Iterator[QuestDB]:
    with QuestDB(settings.questdb) as client:
        yield client


def rows_of(table: Table, count: int, **given: Any) -> pa.Table:
    """Rows with the given columns; numbers that are not given are 0, and texts are null."""
    columns = []
    for field in arrow_schema(table):
        values = given.get(field.name)
        if values is None:
            values = pa.nulls(count, field.type) if pa.types.is_string(field.type) else np.zeros(count)
        elif isinstance(values, str):
            values = [values] * count
        columns.append(pa.array(values).cast(field.type) if not isinstance(values, pa.Array) else values)
    return pa.table(columns, schema=arrow_schema(table))


def seal_day(db: QuestDB, day: str, begin_mid: float, seed: int) -> float:
    """Write the quotes and trades of a day, and seal it as Dagster does; returns the last mid."""
    rng = np.random.default_rng(seed)
    count = 86_400 // STEP_S
    ts_ns = day_ns(day) + np.arange(count) * STEP_S * NS_PER_S + rng.integers(0, NS_PER_S, count)
    mid = begin_mid * np.exp(np.cumsum(rng.normal(0.0, 1e-4, count)))
    bid, ask = np.round(mid - 0.5, 1), np.round(mid + 0.5, 1)
    place = {
        "symbol": SYMBOL,
        "ts_event": ts_ns,
        "ts_recv": ts_ns + 1_000,
        "kafka_offset": (seed * count + np.arange(count)) * 2,
    }
    quotes = rows_of(
        BRONZE_TICKS,
        count,
        **place,
        bid=bid,
        ask=ask,
        bid_qty=rng.gamma(2.0, 1.0, count),
        ask_qty=rng.gamma(2.0, 1.0, count),
    )
    some, buys = np.arange(0, count, 2), rng.random(count // 2) < 0.5
    trades = rows_of(
        BRONZE_TRADES,
        len(some),
        symbol=SYMBOL,
        ts_event=ts_ns[some] + 1_000_000,
        ts_recv=ts_ns[some] + 2_000_000,
        trade_id=seed * len(some) + 1 + np.arange(len(some)),
        price=np.where(buys, ask[some], bid[some]),
        qty=rng.gamma(1.0, 0.1, len(some)),
        side=np.where(buys, "buy", "sell").tolist(),
        kafka_offset=(seed * count + some) * 2 + 1,
    )
    write_rows(db, BRONZE_TICKS, quotes)
    write_rows(db, BRONZE_TRADES, trades)
    proof = prove(db, SYMBOL, day, keep_nothing)
    assert not proof.refusal
    make_gold(db, GOLD_1MIN_SEALED, day)
    fill_minute_bars(db, day)
    return float(mid[-1])


@pytest.fixture(scope="module")
def sealed(settings: Settings, db: QuestDB) -> list[str]:
    """The sealed days; the first one is on the object store only."""
    ensure_tables(db)
    bars = market(16 * 1440, day_ns(FIRST_DAY))
    write_rows(db, MINUTE_BARS, minute_bars(bars, SYMBOL, "file"))
    mid = float(bars["close"][-1])
    for seed, day in enumerate(SEALED):
        mid = seal_day(db, day, mid, seed)
    with ObjectStore(settings.store) as store:
        before = read_tick_labels(db, store, SYMBOL, day_ns(FIRST_DAY))
        for table in (BRONZE_TICKS, BRONZE_TRADES, SILVER_FEATURES):
            back_up(db, store, table, SEALED[0], seal_of(db, SEALED[0]).id)
        assert drop_days_through(db, SILVER_FEATURES, SEALED[0]) == [SEALED[0]]
        for _ in ("from the copy", "from what was kept of it"):
            after = read_tick_labels(db, store, SYMBOL, day_ns(FIRST_DAY))
            assert after.origin_ns.tolist() == before.origin_ns.tolist()
            assert np.array_equal(after.realized, before.realized)
    return list(SEALED)


def test_the_models_are_judged_on_sealed_days_with_and_without_the_stream(
    own_stack: Stack, sealed: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "btc_cli", "evaluate", "--stored", "--symbol", SYMBOL]
    command += [
        "--from",
        sealed[2],
        "--to",
        sealed[3],
        "--data-dir",
        str(own_stack.layout.data_dir),
        "--json",
        str(out),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], capture_output=True, text=True, env=environment, check=False, timeout=300
        )

    refused = run()
    assert refused.returncode != 0
    assert "2 sealed days" in refused.stderr
    assert "14 are needed to learn from and 5 to judge on" in " ".join(refused.stderr.split())
    done = run("--min-trained-days", "2", "--min-tested-days", "2")
    assert done.returncode == 0, done.stderr
    stream = json.loads(out.read_text())["stream"]
    assert (stream["trained_days"], stream["tested_days"]) == (2, 2)
    assert stream["rows"] > 2 * 280
    for losses in stream["qlike"].values():
        assert 0.0 < losses["with_stream"] < 5.0
        assert losses["difference"] == pytest.approx(losses["with_stream"] - losses["without_stream"])
        assert losses["error"] > 0.0


def test_training_on_ticks_reads_the_days_that_hold_quotes(settings: Settings, db: QuestDB, sealed: list[str]) -> None:
    with ObjectStore(settings.store) as store:
        rows = read_training_rows(db, store, SYMBOL, 100.0, "ticks")
    frame = rows.frame()
    assert frame.target == "ticks"
    assert {day_of(each) for each in frame.origin_ns.tolist()} == set(sealed)
    assert len(frame.origin_ns) > 4 * 1_400, "every minute, because there are few"
    assert frame.is_streamed.mean() > 0.99
    minutes = read_training_rows(db, None, SYMBOL, 100.0).frame()
    of_both = np.isin(minutes.origin_ns, frame.origin_ns)
    of_ticks = frame.realized[np.isin(frame.origin_ns, minutes.origin_ns[of_both]), -1]
    ratio = of_ticks.mean() / minutes.realized[of_both, -1].mean()
    assert 0.5 < ratio < 1.0, "trades bounce by a dollar between bid and ask; mids do not"
    assert np.diff(frame.origin_ns).max() < NS_PER_DAY
    assert np.diff(frame.origin_ns).min() == NS_PER_MIN
