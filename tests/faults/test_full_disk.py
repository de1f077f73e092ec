"""A disk of its own that fills up under the running system and is emptied again: nothing is lost but what is said to be."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from btc_core.service_settings import QuestdbSettings
from btc_core.settings import DiskSettings, Settings
from btc_core.stores.disk import free_bytes
from stack import preflight
from streaming.storage_watch import StorageWatch
from tests import waiting
from tests.faults.__main__ import system
from tests.faults.chaos import Chaos, query
from tests.faults.plan import Plan
from tests.faults.small_disk import MB, SmallDisk, small_disk
from tests.faults.verdict import judge
from tests.real_alerts import Looks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.runtime import Stack

pytestmark = pytest.mark.timeout(900)

DISK_MB = 8_000
BOOKS_MB, QUOTES_MB, KAFKA_MB = 5_000, 3_000, 1_000
"""QuestDB allocates segments in advance, several hundred MB at a time. The bounds lie further apart than that, so that the
system crosses one bound in each step of the test. The file of the disk is sparse and takes no such room."""
wait_for = partial(waiting.wait_for, patience_s=120.0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    """A disk with bounds that fit its size."""
    monkeypatch.setattr(preflight, "MIN_DISK_GB", 0.5)
    for name, bound in (("BOOKS", BOOKS_MB), ("QUOTES", QUOTES_MB), ("KAFKA_STOPS", KAFKA_MB)):
        monkeypatch.setenv(f"BTC_DISK_{name}_BELOW_BYTES", str(bound * MB))
    with small_disk(DISK_MB) as mounted:
        yield mounted


def metric(stack: Stack, worker: str, name: str, **labels: str) -> float:
    """The sum of a worker's samples with these labels; 0 while it does not answer."""
    (status,) = stack.status((worker,))
    try:
        text = httpx.get(status.url, timeout=10).text
    except httpx.HTTPError:
        return 0.0
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def last_trade(stack: Stack) -> int:
    return int(query(stack.settings, "SELECT max(trade_id) FROM bronze_trades")[0][0] or 0)


@pytest.mark.causes("DiskFilling")
def test_a_disk_that_would_be_full_within_two_days_is_reported_before_it_is_full() -> None:
    unused = QuestdbSettings(http_url="http://127.0.0.1:9")
    with small_disk(200) as disk:
        bounds = dict.fromkeys(("books_below_bytes", "quotes_below_bytes", "kafka_stops_below_bytes"), 10 * MB)
        watch = StorageWatch(Settings(disk=DiskSettings(path=str(disk.path), **bounds), questdb=unused))
        looks, ten_minutes_s = Looks(), 600.0
        with watch._db:
            for number in range(2):
                watch.look(number * ten_minutes_s)
            assert not looks.find("DiskFilling", str(disk.path)), "nothing was written"
            disk.fill_to(free_bytes(disk.path) // MB - 2)
            watch.look(2 * ten_minutes_s)
        assert looks.find("DiskFilling", f"the disk of {disk.path} is full in")
        assert not looks.find("DiskLow", str(disk.path))


@pytest.mark.causes("DiskLow")
def test_a_full_disk_costs_books_then_quotes_and_never_a_trade(disk: SmallDisk) -> None:
    stack = system(disk.path / "data", markets=("kraken:BTC/USD",), leader="")
    left_out = partial(metric, stack, "ingest", "btc_disk_left_out_total")
    try:
        wait_for(lambda: last_trade(stack) > 0, "the first trades")
        wait_for(lambda: metric(stack, "bronze", "btc_disk_free_bytes") > BOOKS_MB * MB, "room at the start")
        assert not stack.disk_problem()

        disk.fill_to(BOOKS_MB - 100)
        wait_for(lambda: left_out(channel="book") > 0, "books left out first")
        assert left_out(channel="ticker") == 0
        wait_for(lambda: metric(stack, "bronze", "btc_disk_saving_step") == 1.0, "a metric that says so")
        assert Looks({"bronze": stack.status(("bronze",))[0].url}).find("DiskLow")
        assert "order books are not recorded" in stack.disk_problem()

        disk.fill_to(QUOTES_MB - 100)
        wait_for(lambda: left_out(channel="ticker") > 0, "then superseded quotes")
        before = last_trade(stack)
        wait_for(lambda: last_trade(stack) > before, "trades are recorded all the same")

        disk.fill_to(KAFKA_MB - 50)
        wait_for(lambda: "held back" in stack.status(("kafka",))[0].reason, "Kafka is stopped before the disk is full")
        disk.fill_to(0)
        assert free_bytes(disk.path) < 10 * MB
        (kafka,) = stack.status(("kafka",))
        assert "starts by itself" in kafka.reason
        assert stack.status(("ingest",))[0].state == "healthy", "frames wait in its memory"

        disk.empty()
        wait_for(lambda: last_trade(stack) > before, "new trades after there is room again")
        Chaos(stack, Plan()).run()
        assert not stack.disk_problem()
        assert not list((disk.path / "data" / "kafka" / "data").glob("*-stray")), "Kafka has kept its topics"
        verdict = judge(stack.settings)
        assert verdict.sound, verdict
        assert verdict.quotes_kept < verdict.quotes_sent
    finally:
        stack.down()
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)
