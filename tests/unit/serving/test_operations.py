"""`/v1/operations`: reading workers' metrics, judging alerts, and the state of the parts."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, ClassVar

import pytest
from prometheus_client import CollectorRegistry, Gauge

from btc_core import metrics
from btc_core.clock import NS_PER_S
from btc_core.exchange_settings import ExchangeSettings
from btc_core.service_settings import QuestdbSettings, StoreSettings
from btc_core.settings import BackupSettings, MetricsSettings, Settings
from deploy.grafana.alerts import ALERTS, TABLE_ALERTS
from serving import worker_metrics
from serving.alert_rules import RULES
from serving.metrics import START_S
from serving.operations import TABLES_EVERY, OperationsWatch
from serving.worker_metrics import OWN, Reading, WorkerMetrics, quantile_s
from tests.http_server import listening
from tests.serving_world import World, build, forecast_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.operation_answers import AlertState

UNUSED = "http://127.0.0.1:9"
"""A port on which nothing listens."""
LASTING_S = {"s": 1, "m": 60, "h": 3_600}


class Worker(BaseHTTPRequestHandler):
    """Serves the metrics of a worker."""

    lines: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        body = "\n".join([*self.lines, ""]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the tests has the metrics of every worker that a test has run in it; an API has only its own."""
    registry = CollectorRegistry()
    registry.register(metrics.HTTP_REQUESTS)
    monkeypatch.setattr(worker_metrics, "REGISTRY", registry)


@pytest.fixture
def worker() -> Iterator[str]:
    Worker.lines = [
        "process_start_time_seconds 1.0",
        "process_resident_memory_bytes 1e8",
        f'btc_loop_timestamp_seconds{{worker="bronze"}} {time.time()}',
        'btc_consumer_lag_messages{worker="bronze",partition="0"} 5',
    ]
    with listening(Worker) as url:
        yield url.removeprefix("http://")


def watch_of(world: World, peers: str) -> OperationsWatch:
    """A watch on these workers, without QuestDB and object store."""
    settings = Settings(
        exchange=ExchangeSettings(mode="sim", symbols=("BTC/USD",)),
        metrics=MetricsSettings(peers=peers),
        questdb=QuestdbSettings(http_url=UNUSED),
        store=StoreSettings(endpoint_url=UNUSED),
    )
    object.__setattr__(world.deps, "settings", settings)
    return OperationsWatch(world.deps)


def alert(watch: OperationsWatch, name: str) -> AlertState:
    return next(each for each in watch().alerts if each.name == name)


def part(watch: OperationsWatch, name: str) -> tuple[str, str]:
    return next((each.verdict, each.summary) for each in watch().parts if each.name == name)


def test_the_judged_alerts_are_those_of_the_rules_and_last_as_long() -> None:
    lasting = {each.name: int(each.lasting[:-1]) * LASTING_S[each.lasting[-1]] for each in ALERTS}
    lasting |= dict.fromkeys((each.name for each in TABLE_ALERTS), 300)  # `for` of each in generate.py
    assert {rule.name: rule.lasting_s for rule in RULES} == lasting


def test_nothing_is_claimed_before_the_first_collection() -> None:
    world = build()
    body = world.client.get("/v1/operations").get_json()
    assert (body["collected_at"], body["parts"], body["alerts"]) == (None, [], [])
    assert "BTC_METRICS_PEERS" in body["processes_reason"]


def test_dagster_is_not_said_to_be_away_while_it_may_still_be_starting() -> None:
    metrics.DAEMON_UP.clear()
    world = build()
    watch = watch_of(world, "")
    watch.collect()
    assert _samples(metrics.DAEMON_UP) == []
    world.clock.now += int(START_S) * NS_PER_S
    for _ in range(TABLES_EVERY):
        watch.collect()
    assert _samples(metrics.DAEMON_UP) == [0.0]
    metrics.DAEMON_UP.clear()


def _samples(gauge: Gauge) -> list[float]:
    return [sample.value for family in gauge.collect() for sample in family.samples]


def test_each_server_is_listed_with_what_is_wrong_and_the_section_of_the_runbook() -> None:
    world = build()
    problems = {"questdb": "it refuses connections", "kafka": "", "mlflow": None}
    object.__setattr__(world.deps, "server_problems", lambda: problems)
    watch = watch_of(world, "")
    watch.collect()
    servers = watch().servers
    assert [(each.name, each.up, each.problem) for each in servers] == [
        ("questdb", False, "it refuses connections"), ("kafka", True, None), ("mlflow", None, None)
    ]  # fmt: skip
    assert {each.runbook for each in servers} == {"docs/runbook.md#serverdown"}


def test_a_worker_is_listed_with_its_loop_lag_and_memory(worker: str) -> None:
    world = build()
    world.newest.forecast_row = forecast_row()
    watch = watch_of(world, f"bronze={worker}")
    watch.collect()
    (process,) = watch().processes
    assert (process.name, process.up, process.lag_messages, process.memory_bytes) == ("bronze", True, 5.0, 1e8)
    assert process.loop_age_s is not None
    assert process.loop_age_s < 60
    assert part(watch, "pipeline") == ("good", "1 of 1 workers run")
    assert alert(watch, "LoopStuck").state == "ok"
    assert alert(watch, "DiskLow").state == "unknown"
    assert part(watch, "storage") == ("unknown", "not watched")
    assert any(problem.startswith("tables: QuestDB") for problem in watch().problems)


def test_an_alert_is_pending_until_its_condition_has_lasted_and_then_fires() -> None:
    world = build()
    watch = watch_of(world, "ingest=127.0.0.1:9")
    watch.collect()
    assert (alert(watch, "ProcessDown").state, part(watch, "pipeline")[0]) == ("pending", "warn")
    world.clock.now += 15 * NS_PER_S
    watch.collect()
    down = alert(watch, "ProcessDown")
    assert (down.state, down.runbook) == ("firing", "docs/runbook.md#processdown")
    assert "ingest does not answer at http://127.0.0.1:9/metrics" in down.details[0]
    assert part(watch, "pipeline")[0] == "bad"


def test_a_gauge_above_its_bound_fires_and_names_its_labels(worker: str) -> None:
    Worker.lines += [
        'btc_gaps_open{symbol="BTC/USD"} 2',
        'btc_repair_gaps{symbol="BTC/USD",state="refused"} 1',
        'btc_repair_gaps{symbol="BTC/USD",state="behind"} 0',
        'btc_questdb_suspended{table="bronze_ticks"} 1',
        'btc_disk_free_bytes{path="/data"} 5e9',
        'btc_disk_saving_step{path="/data"} 1',
        'btc_disk_days_left{path="/data"} +Inf',
    ]
    world = build()
    watch = watch_of(world, f"bronze={worker}")
    watch.collect()
    assert alert(watch, "RepairRefused").details == ("1 gaps of BTC/USD cannot be repaired",)
    assert alert(watch, "RepairBehind").state == "ok"
    assert alert(watch, "GapOpen").state == "pending"
    assert alert(watch, "TableSuspended").details == ("bronze_ticks is suspended",)
    assert part(watch, "storage")[0] == "bad"
    disk = watch().disk
    assert disk is not None
    assert (disk.path, disk.free_bytes, disk.days_left, disk.saving_step) == ("/data", 5e9, None, 1)


def test_backups_are_fresh_old_failed_never_made_or_not_set_up(
    worker: str,
) -> None:
    world = build()
    watch = watch_of(world, f"bronze={worker}")

    def states() -> dict[str, tuple[str, bool, str]]:
        watch.collect()
        return {each.name: (each.state, each.at is not None, each.runbook[15:]) for each in watch().backups}

    assert {state for state, _, _ in states().values()} == {"unknown", "not_set_up"}, "the object store does not answer"
    watch._backups_made = frozenset()
    Worker.lines.append(f'btc_restore_drill_timestamp_seconds{{copies="days"}} {time.time()}')
    assert states() == {
        "databases": ("never", False, "#backupold"),
        "second_copy": ("not_set_up", False, "#copyold"),
        "restore_drill": ("never", False, "#drillold"),
    }
    watch._backups_made = frozenset({"databases", "second_copy", "restore_drill"})
    object.__setattr__(watch._settings, "backup", BackupSettings(copy_to="/mnt/copies"))
    Worker.lines += [
        f'btc_backup_timestamp_seconds{{what="system"}} {time.time() - 129_000}',
        f'btc_offsite_copy_timestamp_seconds{{copy="second"}} {time.time() - 130_000}',
    ]
    assert states() == {
        "databases": ("fresh", True, "#backupold"),
        "second_copy": ("old", True, "#copyold"),
        "restore_drill": ("fresh", True, "#drillold"),
    }
    Worker.lines.append('btc_restore_drill_failed{copies="days"} 1')
    assert states()["restore_drill"] == ("failed", True, "#drillfailed")


def test_days_that_could_not_be_read_are_read_again_with_the_next_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """QuestDB starts beside the API; the days once stayed unknown for minutes after it had."""
    watch = watch_of(build(), "")
    watch.collect()
    assert any(problem.startswith("days: QuestDB") for problem in watch().problems)
    monkeypatch.setattr(watch, "_read_days", lambda: None)
    watch.collect()
    assert not any(problem.startswith("days") for problem in watch().problems)


def test_dead_letters_are_counted_since_the_start_and_lately(worker: str) -> None:
    letters = 'btc_dead_letters_total{{worker="bronze",reason="bad_json"}} {}'
    Worker.lines.append(letters.format(3))
    world = build()
    watch = watch_of(world, f"bronze={worker}")
    watch.collect()
    world.client.get("/healthz")  # the API counts it, so its metrics have a second reading
    Worker.lines[-1] = letters.format(5)
    world.clock.now += 10 * NS_PER_S
    watch.collect()
    (count,) = watch().dead_letters
    assert (count.process, count.reason, count.count, count.recent) == ("bronze", "bad_json", 5, 2)
    assert alert(watch, "DeadLetters").details == ("2 dead letters of bronze: bad_json",)


def test_frames_that_reach_no_table_and_trades_that_are_all_duplicates_are_found(worker: str) -> None:
    def counted(frames: int, rows: int, duplicates: int, others: int) -> list[str]:
        return [
            f'btc_frames_total{{exchange="kraken",channel="trade"}} {frames}',
            f'btc_rows_acked_total{{worker="bronze",table="bronze_trades"}} {rows}',
            f'btc_trades_total{{symbol="BTC/USD",verdict="duplicate"}} {duplicates}',
            f'btc_trades_total{{symbol="BTC/USD",verdict="new"}} {others}',
        ]

    base = list(Worker.lines)
    world = build()
    watch = watch_of(world, f"ingest={worker}")
    for figures, details in (
        ((10, 10, 0, 10), ()),
        ((40, 11, 0, 40), ()),
        ((40, 11, 30, 41), ()),
    ):
        Worker.lines = [*base, *counted(*figures)]
        watch.collect()
        world.clock.now += 10 * NS_PER_S
        assert alert(watch, "NothingStored").details == details
    world.clock.now += 400 * NS_PER_S
    watch.collect()
    world.clock.now += 10 * NS_PER_S
    Worker.lines = [*base, *counted(90, 11, 70, 41)]
    watch.collect()
    assert alert(watch, "NothingStored").details == (
        "50 frames of the channel trade came, and bronze_trades got no row",
        "all 40 trades of BTC/USD were taken for duplicates",
    )


def test_growth_survives_a_restart_and_counts_a_new_series_from_zero() -> None:
    readings = WorkerMetrics({})
    key = ("btc_frames_total", (("channel", "trade"),))
    for at_s, samples in ((0.0, {}), (10.0, {key: 4.0}), (20.0, {key: 1.0})):
        readings._add(OWN, Reading(at_s, samples))
    assert [each.value for each in readings.growth("btc_frames_total", 10.0)] == [1.0]
    assert [each.value for each in readings.growth("btc_frames_total", 100.0)] == [1.0]
    assert readings.span_s(OWN, 15.0) == 10.0


def test_old_readings_are_forgotten() -> None:
    readings = WorkerMetrics({})
    for at_s in range(0, 2_000, 10):
        readings._add(OWN, Reading(float(at_s), {}))
    assert readings.span_s(OWN, 5_000.0) == 900.0


def test_a_quantile_is_interpolated_and_never_infinite() -> None:
    assert quantile_s({}, 0.5) is None
    assert quantile_s({0.01: 0.0, float("inf"): 0.0}, 0.5) is None
    assert quantile_s({0.01: 0.0, 0.02: 10.0, float("inf"): 10.0}, 0.5) == 0.015
    assert quantile_s({0.01: 1.0, float("inf"): 10.0}, 0.99) == 0.01
