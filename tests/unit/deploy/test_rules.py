"""Every alert of Prometheus fires on the metrics of its fault and on no others, judged by Prometheus's own `promtool`."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.grafana.panels import ALERTS
from tests.panels import DEPLOY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus has it)"
)

AT_S = 900
"""When alerts are judged, in seconds since the epoch, where promtool begins; older times are negative."""
LATER_S = {"MarketWithoutModel": 8_400}
"""Alerts that last longer are judged later."""


def _ago(age_s: int) -> str:
    """A time that lies this long before the moment of the judgement."""
    return f"{AT_S - age_s}x60"


FAULTS: dict[str, dict[str, str]] = {
    "StreamSilent": {
        'btc_forecast_age_seconds{symbol="BTC/USD"}': "11x60",
        'btc_forecast_starting{symbol="BTC/USD"}': "0x60",
    },
    "FeedSilent": {'btc_frames_total{exchange="kraken",channel="trade"}': "7x60"},
    "ProcessDown": {'up{process="bronze"}': "0x60"},
    "LoopStuck": {'btc_loop_timestamp_seconds{worker="bronze"}': _ago(61)},
    "GapOpen": {'btc_gaps_open{symbol="BTC/USD"}': "1x60"},
    "RepairRefused": {'btc_repair_gaps{symbol="BTC/USD",state="refused"}': "1x60"},
    "RepairBehind": {'btc_repair_gaps{symbol="BTC/USD",state="behind"}': "1x60"},
    "NothingStored": {
        'btc_frames_total{exchange="kraken",channel="trade"}': "0+5x60",
        'btc_rows_acked_total{table="bronze_trades"}': "9x60",
    },
    "TradeIdsOdd": {'btc_odd_trades_total{symbol="BTC/USD",kind="outlier"}': "_x40 1x20"},
    "TableSuspended": {'btc_questdb_suspended{table="bronze_trades"}': "1x60"},
    "WalBehind": {'btc_questdb_wal_lag_transactions{table="bronze_trades"}': "301x60"},
    "DiskLow": {'btc_disk_saving_step{path="/data"}': "1x60"},
    "DiskFilling": {'btc_disk_days_left{path="/data"}': "1.9x60"},
    "LatencyHigh": {
        'btc_stage_latency_seconds_bucket{stage="forecast",le="0.05"}': "0x60",
        'btc_stage_latency_seconds_bucket{stage="forecast",le="0.1"}': "0+9x60",
        'btc_stage_latency_seconds_bucket{stage="forecast",le="+Inf"}': "0+9x60",
    },
    "LagGrowing": {'btc_consumer_lag_messages{worker="bronze",partition="0"}': "1001x60"},
    "RowsUnwritten": {'btc_unwritten_age_seconds{worker="bronze"}': "31x60"},
    "RetriesRepeated": {'btc_retries_total{worker="bronze"}': "0+2x60"},
    "ConsumerReplaced": {'btc_consumer_rejoins_total{worker="bronze"}': "0+1x60"},
    "LogBroken": {'btc_log_breaks_total{worker="bronze",problem="expired"}': "1x60"},
    "CheckpointFailed": {'btc_checkpoint_failures_total{worker="bronze"}': "0+1x60"},
    "ModelStale": {'btc_model_created_timestamp_seconds{symbol="BTC/USD",model="m",kind="harx"}': _ago(174_000)},
    "MarketWithoutModel": {'btc_rows_without_model_total{symbol="BTC/USD"}': "0+1x600"},
    "ForecastAtFloor": {
        'btc_forecasts_total{symbol="BTC/USD",at_floor="yes"}': "0+2x60",
        'btc_forecasts_total{symbol="BTC/USD",at_floor="no"}': "0+1x60",
    },
    "LeagueEntryFailing": {'btc_league_entry_failing{entry="mine"}': "1x60"},
    "DeadLetters": {'btc_dead_letters_total{worker="bronze",reason="bad"}': "_x45 1x15"},
    "BookMismatch": {'btc_book_mismatches_total{symbol="BTC/USD"}': "_x45 1x15"},
    "BookUnverified": {'btc_book_unverified{symbol="BTC/USD"}': "1x60"},
    "SubscriptionDown": {
        'btc_subscription_state{channel="trade",symbol="BTC/USD",btc_subscription_state="stale"}': "1x60"
    },
    "ConnectionRefused": {'btc_connections_total{exchange="kraken",event="http_429"}': "_x45 1x15"},
    "ApiErrors": {'btc_http_requests_total{path="/x",method="GET",status="500"}': "0+1x60"},
    "DayUnsealed": {'btc_days_lacking{what="seal"}': "1x60"},
    "DayUncopied": {'btc_days_lacking{what="copy"}': "1x60"},
    "SealOld": {'btc_sealed_until_timestamp_seconds{table="gold_1min_sealed"}': _ago(174_000)},
    "BackupOld": {'btc_backup_timestamp_seconds{backup="system"}': _ago(130_000)},
    "CopyOld": {'btc_offsite_copy_timestamp_seconds{place="second"}': _ago(130_000)},
    "DrillOld": {'btc_restore_drill_timestamp_seconds{copies="days"}': _ago(1_297_000)},
    "DrillFailed": {'btc_restore_drill_failed{copies="days"}': "1x60"},
    "DaemonDown": {'btc_dagster_daemon_up{daemon="dagster"}': "0x60"},
    "ModelDemoted": {'btc_model_demoted_timestamp_seconds{symbol="BTC/USD",model="m"}': _ago(80_000)},
}
"""The metrics of each fault: the alert fires, and no other."""
HEALTHY: tuple[dict[str, str], ...] = (
    {'btc_forecast_age_seconds{symbol="BTC/USD"}': "60x60", 'btc_forecast_starting{symbol="BTC/USD"}': "1x60"},
    {'btc_forecast_age_seconds{symbol="BTC/USD"}': "9x60"},
    {'btc_days_lacking{what="seal"}': "0x60", 'btc_days_lacking{what="copy"}': "0x60"},
    {'btc_sealed_until_timestamp_seconds{table="gold_1min_sealed"}': _ago(100_000)},
    {'btc_backup_timestamp_seconds{backup="system"}': _ago(100_000)},
    {'btc_offsite_copy_timestamp_seconds{place="second"}': _ago(100_000)},
    {
        'btc_restore_drill_timestamp_seconds{copies="days"}': _ago(700_000),
        'btc_restore_drill_failed{copies="days"}': "0x60",
    },
    {'btc_dagster_daemon_up{daemon="dagster"}': "1x60"},
    {'btc_model_demoted_timestamp_seconds{symbol="BTC/USD",model="m"}': _ago(87_400)},
    {'btc_dead_letters_total{worker="bronze",reason="bad"}': "4x60"},
)
"""Metrics on which no alert fires."""


def _case(name: str, series: dict[str, str], firing: dict[str, float]) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "15s",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{LATER_S.get(name, AT_S)}s",
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


def test_promtool_would_find_an_alert_that_does_not_fire(tmp_path: Path) -> None:
    assert "FAILED" in _judge([_case("wrong", HEALTHY[1], {"StreamSilent": 1})], tmp_path)
