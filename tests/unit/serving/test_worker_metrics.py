"""Reading the metrics of processes that come and go, and what a counter grew by between slow looks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from btc_core.league.folder import read_builtin, store
from btc_core.settings import MetricsSettings, Settings
from serving.alert_rules import RULES, Facts
from serving.operations import OperationsWatch
from serving.worker_metrics import Reading, WorkerMetrics
from tests.http_server import answering
from tests.serving_world import build

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FRAMES = ("btc_frames_total", (("exchange", "kraken"),))
AWAY = "127.0.0.1:9"
"""A port on which nothing listens."""


def _down(metrics: WorkerMetrics) -> list[str] | None:
    rule = next(each for each in RULES if each.name == "ProcessDown")
    found = rule.check(Facts(metrics, {}, {}))
    return None if found is None else list(found)


def test_looks_that_take_longer_than_a_window_see_no_counter_stand_still() -> None:
    metrics = WorkerMetrics({})
    for at_s, frames in ((0.0, 1.0), (40.0, 9.0)):
        metrics._add("ingest", Reading(at_s, {FRAMES: frames}))
    assert [each.value for each in metrics.growth("btc_frames_total", 15.0)] == [8.0]
    assert metrics.span_s("ingest", 15.0) == 40.0


def test_a_process_that_does_not_answer_leaves_the_windows() -> None:
    metrics = WorkerMetrics({})
    for at_s, frames in ((0.0, 1.0), (10.0, 9.0)):
        metrics._add("ingest", Reading(at_s, {FRAMES: frames}))
    metrics.problems = {"ingest": "does not answer"}
    metrics._add("bronze", Reading(20.0, {}))
    assert [each.value for each in metrics.growth("btc_frames_total", 20.0)] == [8.0]
    metrics._add("bronze", Reading(30.0, {}))
    assert metrics.growth("btc_frames_total", 20.0) == []


def test_each_pod_behind_a_name_is_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = ["127.0.0.1", "127.0.0.2"]
    asked: Any = socket.getaddrinfo

    def resolved(host: str, *rest: Any, **options: Any) -> Any:
        found = pods if host == "features" else [host]
        return [each for pod in found for each in asked(pod, *rest, **options)]

    monkeypatch.setattr("serving.worker_metrics.socket.getaddrinfo", resolved)
    with answering(lambda _: (200, b'btc_consumer_lag_messages{worker="features",partition="0"} 5\n')) as url:
        metrics = WorkerMetrics({"features": f"{url.replace('127.0.0.1', 'features')}/metrics"})
        metrics.read_workers(0.0)  # the second pod does not listen on its address
        assert metrics.processes == ("features 127.0.0.1", "features 127.0.0.2")
        assert _down(metrics) == ["features 127.0.0.2"]
        assert [each.value for each in metrics.now("btc_consumer_lag_messages")] == [5.0]
        del pods[1]
        metrics.addresses["features"] = f"{url}/metrics"
        metrics.read_workers(10.0)
    assert (metrics.processes, _down(metrics)) == (("features",), [])


def test_a_league_is_watched_once_there_are_models_and_until_the_last_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_USER_DIR", str(tmp_path))
    world = build()
    settings = Settings(metrics=MetricsSettings(peers=f"league={AWAY}"))
    object.__setattr__(world.deps, "settings", settings)
    metrics = OperationsWatch(world.deps)._metrics
    assert settings.user_models == tmp_path / "models"
    metrics.read_workers(0.0)
    assert (metrics.processes, _down(metrics)) == ((), [])
    store(settings.user_models, read_builtin("log_har"))
    metrics.read_workers(10.0)
    assert (metrics.processes, _down(metrics)) == (("league",), ["league"])
    for file in settings.user_models.iterdir():
        file.unlink()
    metrics.read_workers(20.0)
    assert (metrics.processes, _down(metrics)) == ((), [])
