"""The marks that say whose data a store holds: a stack of the simulator is switched to another market, and everything refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from btc_assets import resources
from btc_cli import doctor
from btc_core.errors import ConfigError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.names import WorkerName
from btc_core.stores import origin
from btc_core.stores.redis_connection import connect
from stack import prepare
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from stack.runtime import Stack

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

STORES = (origin.LOG, origin.TABLES, origin.OBJECTS, origin.NEWEST_ROWS)
REFUSAL = "holds the data of 'sim-kraken', and the settings are those of 'live-kraken"


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Settings:
    """A stack of the simulator, whose servers have been prepared and which one process has used."""
    started = own_servers("kafka", "questdb", "valkey", "store")
    assert origin.check(started, *STORES) == []
    return started


@pytest.fixture
def live(settings: Settings) -> Settings:
    return settings.model_copy(update={"exchange": ExchangeSettings()})


@pytest.mark.parametrize("store", STORES)
def test_each_store_is_refused_by_settings_of_another_market_and_keeps_its_mark(
    settings: Settings, live: Settings, store: str
) -> None:
    for attempt in (origin.check, origin.claim):
        with pytest.raises(ConfigError, match=REFUSAL):
            attempt(live, store)
    origin.claim(settings, store)
    perpetual = settings.model_copy(update={"exchange": ExchangeSettings(mode="sim", name="binance-perp")})
    with pytest.raises(ConfigError, match="'sim-binance-perp'"):
        origin.check(perpetual, store)
    assert origin.check(settings, store) == []


@pytest.mark.parametrize("step", [prepare.topics, prepare.tables, prepare.buckets])
def test_no_server_is_prepared_for_another_market(live: Settings, step: Callable[[Settings], None]) -> None:
    with pytest.raises(ConfigError, match=REFUSAL):
        step(live)


@pytest.mark.parametrize("program", [*(f"streaming {name}" for name in WorkerName), "serving"])
def test_a_process_of_another_market_exits_and_says_where_the_other_data_is(
    own_stack: Stack, settings: Settings, program: str
) -> None:
    switched = os.environ | own_stack.layout.environment() | {"BTC_EXCHANGE_MODE": "live", "BTC_METRICS_PORT": "0"}
    command = [sys.executable, "-m", *program.split()]
    done = subprocess.run(command, cwd=ROOT, env=switched, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in {1, 2}
    assert REFUSAL in done.stdout + done.stderr
    assert settings.kafka.bootstrap in done.stdout or settings.questdb.http_url in done.stderr


def test_dagster_gives_no_client_of_a_store_with_other_data(live: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "settings", lambda: live)
    for resource in (resources.Database(), resources.Lake()):
        origin._checked.clear()
        with pytest.raises(ConfigError, match=REFUSAL):
            resource.connect()


def test_up_refuses_and_doctor_names_each_store_until_the_settings_are_set_back(
    own_stack: Stack, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complaints() -> dict[str, str]:
        return {each.subject: each.problem for each in doctor.check_components(own_stack) if "data of " in each.subject}

    assert complaints() == dict.fromkeys(("data of kafka", "data of questdb", "data of store", "data of valkey"), "")
    with monkeypatch.context() as changed:
        changed.setenv("BTC_EXCHANGE_MODE", "live")
        with pytest.raises(ConfigError, match=REFUSAL):
            own_stack.up(only=("questdb",))
        assert all(REFUSAL in problem for problem in complaints().values())
    own_stack.up(only=("questdb",))
    assert settings.exchange.origin == "sim-kraken"


def test_redis_loses_its_mark_with_its_rows_and_the_next_process_marks_it_again(
    settings: Settings, live: Settings
) -> None:
    with connect(settings.redis) as client:
        client.flushall()
    assert origin.check(settings, origin.NEWEST_ROWS) == []
    with pytest.raises(ConfigError, match=REFUSAL):
        origin.check(live, origin.NEWEST_ROWS)


def test_a_store_that_does_not_answer_is_named_and_does_not_stop_a_process(settings: Settings) -> None:
    away = settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": "redis://127.0.0.1:9/0"})})
    (unchecked,) = origin.check(away, origin.NEWEST_ROWS)
    assert "Redis at redis://127.0.0.1:9/0 holds could not be checked" in unchecked
