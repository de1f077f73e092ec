"""The endpoint of a process: its metrics, and whether its loops iterate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client import Gauge

from btc_core import metrics
from btc_core.settings import Settings
from deploy.grafana.alerts import ALERTS
from stack.component import Context
from stack.health_checks import problem_of
from stack.layout import Layout
from stack.ports import InternalPorts
from stack.servers import programs
from tests.serving_process import free_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Gauge:
    gauge = Gauge("btc_loop_timestamp_seconds", "of no process", ["worker"], registry=None)
    monkeypatch.setattr(metrics, "LOOP_AT", gauge)
    return gauge


def test_the_health_of_a_process_is_whether_each_of_its_loops_iterates(loops: Gauge, tmp_path: Path) -> None:
    port = free_port()
    metrics.serve("127.0.0.1", port)
    context = Context(Layout(tmp_path), Settings(), InternalPorts(bronze_metrics=port))
    (check,) = (each.check for each in programs.components(context) if each.name == "bronze")
    assert check is not None

    def health() -> tuple[int, str]:
        answer = httpx.get(f"http://127.0.0.1:{port}/healthz")
        return answer.status_code, answer.text

    assert health() == (503, "no loop has completed an iteration yet")
    loops.labels("bronze").set(time.time())
    assert health() == (200, "ok")
    assert problem_of(check) == ""
    loops.labels("storage").set(time.time() - metrics.MAX_ITERATION_S - 10)
    status, reason = health()
    assert status == 503
    assert reason.startswith("the loop storage has done nothing for 7")
    assert problem_of(check).startswith(f"bronze answers 503: {reason}; `btc logs bronze`")
    assert "btc_retries" in httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_a_loop_may_pause_as_long_as_the_alert_allows(loops: Gauge) -> None:
    loops.labels("bronze").set(1_000.0)
    assert metrics.stuck_loop(1_000.0 + metrics.MAX_ITERATION_S) == ""
    assert metrics.stuck_loop(1_001.0 + metrics.MAX_ITERATION_S) == "the loop bronze has done nothing for 61 s"
    (alert,) = (each for each in ALERTS if each.name == "LoopStuck")
    assert alert.expr == f"time() - btc_loop_timestamp_seconds > {metrics.MAX_ITERATION_S:g}"
