"""Every alert of Prometheus fires on the metrics of its fault and on no others, judged by Prometheus's own `promtool`."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.grafana.alerts import ALERTS
from tests.alert_cases import EDGES, FAULTS, HEALTHY, INTERVAL_S, judged_at_s
from tests.panels import DEPLOY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus has it)"
)


def _case(name: str, series: dict[str, str], firing: dict[str, float]) -> dict[str, Any]:
    return {
        "name": name,
        "interval": f"{INTERVAL_S}s",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{judged_at_s(name)}s",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": count} for alert, count in firing.items()
                ],
            }
        ],
    }


def _judge(cases: list[dict[str, Any]], folder: Path) -> str:
    """What promtool says about the cases; empty if all hold."""
    file = folder / "cases.yml"
    file.write_text(
        yaml.safe_dump(
            {"rule_files": [str(DEPLOY / "prometheus/rules.yml")], "evaluation_interval": "15s", "tests": cases}
        )
    )
    promtool = shutil.which("promtool") or ""
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_fires_on_its_fault_and_no_other_does(tmp_path: Path) -> None:
    assert set(FAULTS) == {alert.name for alert in ALERTS}
    assert _judge([_case(name, series, {name: 1}) for name, series in FAULTS.items()], tmp_path) == ""


def test_no_alert_fires_on_a_healthy_system_or_at_a_slow_first_start(tmp_path: Path) -> None:
    assert _judge([_case(" ".join(series), series, {}) for series in HEALTHY], tmp_path) == ""


def test_edges_of_conditions_are_judged_as_meant(tmp_path: Path) -> None:
    cases = [_case(name, series, dict.fromkeys(firing, 1)) for name, (series, firing) in EDGES.items()]
    assert _judge(cases, tmp_path) == ""


def test_promtool_would_find_an_alert_that_does_not_fire(tmp_path: Path) -> None:
    assert "FAILED" in _judge([_case("wrong", HEALTHY[1], {"StreamSilent": 1})], tmp_path)
