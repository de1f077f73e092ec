"""The metrics about seals, backups, drills, demotions and the daemon, and the alerts that the API makes of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from btc_core.clock import NS_PER_S
from btc_core.errors import StoreError
from btc_core.utc_day import day_ns
from serving.alert_rules import RULES, Facts
from serving.metrics import START_S
from serving.operation_answers import DayState
from serving.system_gauges import update_days, update_demotions
from serving.worker_metrics import Reading, WorkerMetrics, samples_of
from tests.serving_world import build, forecast_row

if TYPE_CHECKING:
    from serving.alert_rules import Rule

HOUR_NS = 3_600 * NS_PER_S
AFTER_NOON_NS = day_ns("2026-07-10") + 13 * HOUR_NS


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def _day(day: str, *, sealed: int = 1_440, copied: bool | None = True, minutes: int = 1_440) -> DayState:
    return DayState(day, minutes, sealed, copied, archived=True)


def test_a_day_is_missed_twelve_hours_after_its_end_and_one_without_rows_is_not() -> None:
    days = (
        _day("2026-07-09", sealed=0, copied=False),
        _day("2026-07-08", copied=False),
        _day("2026-07-07", copied=None),
        _day("2026-07-06", sealed=0, copied=False, minutes=0),
    )
    update_days(days, day_ns("2026-07-08") + 5 * HOUR_NS, AFTER_NOON_NS)
    assert _value("btc_days_lacking", what="seal") == 1
    assert _value("btc_days_lacking", what="copy") == 1
    assert _value("btc_sealed_until_timestamp_seconds", table="gold_1min_sealed") == day_ns("2026-07-09") / NS_PER_S
    update_days(days, None, AFTER_NOON_NS - 2 * HOUR_NS)
    assert _value("btc_days_lacking", what="seal") == 0, "yesterday is not due yet"


def _judge(rule: Rule, line: str) -> list[str] | None:
    metrics = WorkerMetrics({"api2": "http://127.0.0.1:9"})
    families = text_string_to_metric_families(line + "\n")
    metrics._add("api2", Reading(0.0, samples_of(families)))
    found = rule.check(Facts(metrics, {}, {}))
    return None if found is None else list(found.values())


NOW_S = time.time()
CASES = [
    ("DayUnsealed", 'btc_days_lacking{what="seal"}', 1, 0),
    ("DayUncopied", 'btc_days_lacking{what="copy"}', 1, 0),
    ("SealOld", 'btc_sealed_until_timestamp_seconds{table="gold_1min_sealed"}', NOW_S - 173_000, NOW_S - 100_000),
    ("BackupOld", 'btc_backup_timestamp_seconds{backup="system"}', NOW_S - 130_000, NOW_S - 100_000),
    ("CopyOld", 'btc_offsite_copy_timestamp_seconds{place="second"}', NOW_S - 130_000, NOW_S - 100_000),
    ("DrillOld", 'btc_restore_drill_timestamp_seconds{copies="days"}', NOW_S - 1_297_000, NOW_S - 700_000),
    ("DrillFailed", 'btc_restore_drill_failed{copies="days"}', 2, 0),
    ("DaemonDown", 'btc_dagster_daemon_up{daemon="dagster"}', 0, 1),
    ("ModelDemoted", 'btc_model_demoted_timestamp_seconds{symbol="BTC/USD",model="m"}', NOW_S - 40_000, NOW_S - 90_000),
    ("StreamSilent", 'btc_forecast_starting{symbol="BTC/USD"} 0\nbtc_forecast_age_seconds{symbol="BTC/USD"}', 11, 9),
]


@pytest.mark.parametrize(("name", "series", "bad", "good"), CASES, ids=[case[0] for case in CASES])
def test_each_alert_fires_on_its_metric(name: str, series: str, bad: float, good: float) -> None:
    rule = next(each for each in RULES if each.name == name)
    assert _judge(rule, f"{series} {bad}")
    assert _judge(rule, f"{series} {good}") == []


def test_a_registry_that_does_not_answer_hides_no_demotion(monkeypatch: pytest.MonkeyPatch) -> None:
    world = build()
    world.load_models()
    for model in world.deps.models.current.models.values():
        monkeypatch.setattr(model, "manifest", msgspec.structs.replace(model.manifest, version="3"))

    def demoted(*_: object) -> float:
        if is_away:
            raise StoreError("MLflow does not answer")
        return NOW_S

    monkeypatch.setattr("serving.system_gauges.demoted_at_s", demoted)
    names = [model.manifest.name for model in world.deps.models.current.models.values()]
    is_away = False
    update_demotions(world.deps)
    is_away = True
    with pytest.raises(StoreError):
        update_demotions(world.deps)
    shown = [_value("btc_model_demoted_timestamp_seconds", symbol="BTC/USD", model=name) for name in names]
    assert shown == [NOW_S] * len(names)


def test_a_slow_first_start_is_no_silent_stream() -> None:
    world = build()
    rule = next(each for each in RULES if each.name == "StreamSilent")

    def silent() -> list[str] | None:
        lines = world.client.get("/metrics").text
        chosen = "\n".join(
            line for line in lines.splitlines() if line.startswith("btc_forecast_") and "BTC/USD" in line
        )
        return _judge(rule, chosen)

    world.newest.forecast_row = None
    assert silent() == []
    world.clock.now += 60 * NS_PER_S
    assert silent() == [], "the forecast worker still starts"
    world.clock.now += round(START_S) * NS_PER_S
    assert silent(), "it has had its time"
    world.newest.forecast_row = forecast_row(-60.0 - START_S)
    assert silent() == []
