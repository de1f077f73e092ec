"""When jobs run by themselves."""

from __future__ import annotations

import dagster as dg
import pytest

from btc_assets import jobs
from btc_core.clock import NS_PER_S

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


def report(instance: dg.DagsterInstance, name: str, *, passed: bool) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=jobs.prediction_skill.key, check_name=name, passed=passed, metadata={},
            severity=dg.AssetCheckSeverity.WARN,
        )
    )  # fmt: skip


def test_a_training_is_requested_when_a_live_check_fails_and_not_again_for_hours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour_ns = 3_600 * NS_PER_S
    now_ns = 1_800_000_000 * NS_PER_S
    cursor: str | None = None

    def tick() -> dg.RunRequest | dg.SkipReason:
        nonlocal cursor
        context = dg.build_sensor_context(instance, cursor=cursor)
        monkeypatch.setattr(jobs, "now_ns", lambda: now_ns)
        result = jobs.retrain_on_bad_skill(context)
        cursor = context.cursor
        assert isinstance(result, dg.RunRequest | dg.SkipReason)
        return result

    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(tick(), dg.SkipReason), "nothing is known yet"
        report(instance, "bid_is_good", passed=True)
        report(instance, "volatility_is_good", passed=True)
        assert isinstance(tick(), dg.SkipReason)
        report(instance, "volatility_is_good", passed=False)
        requested = tick()
        assert isinstance(requested, dg.RunRequest)
        assert requested.tags["btc/because"] == "volatility_is_good"
        now_ns += hour_ns
        assert isinstance(tick(), dg.SkipReason), "it was requested an hour ago"
        now_ns += 6 * hour_ns
        assert isinstance(tick(), dg.RunRequest), "it still fails"
        report(instance, "volatility_is_good", passed=True)
        now_ns += 24 * hour_ns
        assert isinstance(tick(), dg.SkipReason)
