"""When jobs run by themselves."""

from __future__ import annotations

import dagster as dg
import pytest

from btc_assets import jobs
from btc_assets.resources import Environment
from btc_assets.skill import prediction_skill
from btc_core.clock import NS_PER_S
from btc_core.exchange_settings import ExchangeSettings
from btc_core.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


MARKETS = ("BTC/USD", "ETH/USD", "SOL/USD")


class ThreeMarkets(Environment):
    def get(self) -> Settings:
        return Settings(exchange=ExchangeSettings(symbols=MARKETS))


def report(instance: dg.DagsterInstance, name: str, *bad: str) -> None:
    """The newest evaluation of a live check, which failed for these markets."""
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=prediction_skill.key, check_name=name, passed=not bad,
            metadata={"bad_markets": dg.MetadataValue.text(", ".join(bad))}, severity=dg.AssetCheckSeverity.WARN,
        )
    )  # fmt: skip


def test_a_training_of_a_market_is_requested_when_its_live_check_fails_and_not_again_for_hours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour_ns = 3_600 * NS_PER_S
    now_ns = 1_800_000_000 * NS_PER_S
    cursor: str | None = None

    def tick() -> list[str | None]:
        """The markets whose training is requested."""
        nonlocal cursor
        context = dg.build_sensor_context(instance, cursor=cursor, resources={"environment": ThreeMarkets()})
        monkeypatch.setattr(jobs, "now_ns", lambda: now_ns)
        result = jobs.retrain_on_bad_skill(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        if isinstance(result, dg.SkipReason):
            return []
        cursor = result.cursor
        requests = result.run_requests or []
        assert {request.tags["btc/because"] for request in requests} == {"volatility_is_good"}
        return [request.partition_key for request in requests]

    with dg.DagsterInstance.ephemeral() as instance:
        assert tick() == [], "nothing is known yet"
        report(instance, "bid_is_good")
        report(instance, "volatility_is_good")
        assert tick() == []
        report(instance, "volatility_is_good", "ETH/USD")
        assert tick() == ["ETH/USD"]
        now_ns += hour_ns
        assert tick() == [], "it was requested an hour ago"
        report(instance, "volatility_is_good", "ETH/USD", "SOL/USD", "OLD/USD")
        assert tick() == ["SOL/USD"], "the other was requested an hour ago, and one is not followed"
        now_ns += 6 * hour_ns
        assert tick() == ["ETH/USD", "SOL/USD"], "they still fail"
        report(instance, "volatility_is_good")
        now_ns += 24 * hour_ns
        assert tick() == []


def test_a_daily_training_is_one_run_for_all_markets() -> None:
    context = dg.build_schedule_context(resources={"environment": ThreeMarkets()})
    request = jobs.daily_retrain(context)
    assert isinstance(request, dg.RunRequest)
    assert request.tags == {
        "dagster/asset_partition_range_start": "BTC/USD",
        "dagster/asset_partition_range_end": "SOL/USD",
    }
