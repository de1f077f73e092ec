"""The API's alerts fire on the same metrics as Prometheus's, whose own judgement of them is in `deploy/test_rules.py`."""

from __future__ import annotations

import re
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from btc_core.league.folder import read_builtin, store
from deploy.grafana.alerts import ALERTS
from serving import alert_rules
from serving.alert_rules import RULES, Facts
from serving.operations import OperationsWatch
from serving.worker_metrics import OWN, Reading, Samples, WorkerMetrics
from tests.alert_cases import EDGES, FAULTS, HEALTHY, INTERVAL_S, judged_at_s
from tests.serving_world import build

if TYPE_CHECKING:
    from pathlib import Path

RULES_OF_METRICS = [rule for rule in RULES if rule.name in {alert.name for alert in ALERTS}]
CASES = {
    **{name: (series, {name}) for name, series in FAULTS.items()},
    **{f"healthy {place}": (series, set[str]()) for place, series in enumerate(HEALTHY)},
    **EDGES,
}
PART = re.compile(r"(?P<value>_|-?[\d.]+)(?P<step>[+-][\d.]+)?(?:x(?P<times>\d+))?")


def _values(text: str) -> list[float | None]:
    """The values of a series in the notation of promtool; None where there is none."""
    found: list[float | None] = []
    for part in text.split():
        match = PART.fullmatch(part)
        assert match, part
        times = int(match["times"] or 0)
        if match["value"] == "_":
            found += [None] * max(times, 1)
        else:
            found += [float(match["value"]) + place * float(match["step"] or 0) for place in range(times + 1)]
    return found


def _series(text: str) -> tuple[str, str, dict[str, str]]:
    """The process that exports a series, its name and its labels."""
    name, _, labels = text.partition("{")
    found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    process = found.pop("instance", None) or found.pop("process", None) or found.get("worker", "ingest")
    return process, name, found


def _firing(series: dict[str, str], until_s: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The alerts of the API that fire after it has read these metrics at each interval."""
    monkeypatch.setenv("BTC_USER_DIR", str(folder))
    watch = OperationsWatch(build().deps)
    if "btc_league_entries" in series:
        store(watch._settings.user_models, read_builtin("log_har"))
    parsed = [(*_series(each), _values(values)) for each, values in series.items()]
    metrics = WorkerMetrics({process: "" for process, *_ in parsed}, watch._may_be_absent)
    states: dict[str, str] = {}
    for place in range(until_s // INTERVAL_S + 1):
        now_s = float(place * INTERVAL_S)
        samples: dict[str, Samples] = defaultdict(dict)
        samples[OWN]["btc_http_requests_total", ()] = 1.0
        down = set()
        for process, name, labels, values in parsed:
            value = values[place] if place < len(values) else None
            if name == "up":
                down |= {process} if value == 0 and not metrics._may_be_absent(process) else set()
            elif value is not None:
                samples[process][name, tuple(sorted(labels.items()))] = value
        metrics.problems = dict.fromkeys(down, "does not answer")
        for process in {OWN, *metrics.addresses} - down:
            metrics._add(process, Reading(now_s, samples[process]))
        monkeypatch.setattr(alert_rules, "time", SimpleNamespace(time=lambda now_s=now_s: now_s))
        facts = Facts(metrics, {}, {})
        states = {rule.name: watch._judge(rule, facts, now_s).state for rule in RULES_OF_METRICS}
    return {name for name, state in states.items() if state == "firing"}


@pytest.mark.parametrize("name", CASES)
def test_an_alert_of_the_api_fires_where_that_of_prometheus_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, firing = CASES[name]
    assert _firing(series, judged_at_s(name), tmp_path, monkeypatch) == firing


def test_values_are_read_as_promtool_reads_them() -> None:
    assert _values("_x2 1x1 0+5x2 -0.6") == [None, None, 1.0, 1.0, 0.0, 5.0, 10.0, -0.6]
