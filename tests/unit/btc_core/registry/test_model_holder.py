"""The holder of the champions: swaps, keeps what works, never stops looking."""

from __future__ import annotations

import threading
from typing import Any

from btc_core.errors import ServiceError, StoreError
from btc_core.models.bundle import random_walk_model
from btc_core.names import BID_MODEL, ModelKey
from btc_core.registry.champions import ModelHolder
from tests.waiting import PATIENCE_S, wait_for


class Named:
    """As much of a model as the holder looks at."""

    kind = "xgboost"

    def __init__(self, version: str) -> None:
        self.version = version


class Registry:
    """A registry whose answers a test sets; counts loads and tells when it was asked."""

    symbols = ("BTC/USD",)

    def __init__(self) -> None:
        self.versions: dict[str, str | None] = {}
        self.version_error: Exception | None = None
        self.load_error: Exception | None = None
        self.loads = 0
        self.asked = threading.Event()

    def champion_version(self, key: ModelKey) -> str | None:
        self.asked.set()
        if self.version_error is not None:
            raise self.version_error
        return self.versions.get(key.name, "1")

    def load(self, key: ModelKey) -> Any:
        if self.load_error is not None:
            raise self.load_error
        self.loads += 1
        return Named(self.versions.get(key.name) or "1")


def test_models_are_loaded_once_and_again_only_for_another_version() -> None:
    registry = Registry()
    holder = ModelHolder(registry, reload_s=10.0)
    first = holder.reload()
    holder.reload()
    assert registry.loads == 2
    registry.versions[BID_MODEL] = "2"
    second = holder.reload()
    assert registry.loads == 3
    assert second.bid("BTC/USD") is not None
    assert second.bid("BTC/USD").version == "2"
    assert second.volatility("BTC/USD") is first.volatility("BTC/USD")


def test_a_forced_reload_loads_the_same_version_again() -> None:
    registry = Registry()
    holder = ModelHolder(registry, reload_s=10.0)
    holder.reload()
    holder.reload(force=True)
    assert registry.loads == 4


def test_a_request_keeps_its_generation_through_a_swap() -> None:
    registry = Registry()
    holder = ModelHolder(registry, reload_s=10.0)
    taken = holder.reload()
    registry.versions[BID_MODEL] = "2"
    holder.reload()
    assert taken.bid("BTC/USD") is not None
    assert taken.bid("BTC/USD").version == "1"


def test_held_models_stay_while_the_registry_is_away_and_the_reason_is_shown() -> None:
    registry = Registry()
    holder = ModelHolder(registry, reload_s=10.0)
    before = holder.reload()
    registry.version_error = StoreError("MLflow does not answer")
    after = holder.reload()
    assert after.bid("BTC/USD") is before.bid("BTC/USD")
    assert after.volatility("BTC/USD") is before.volatility("BTC/USD")
    assert len(holder.reasons) == 2
    assert "MLflow does not answer" in holder.reasons[0]
    registry.version_error = None
    holder.reload()
    assert holder.reasons == ()


def test_a_model_that_cannot_be_loaded_leaves_the_one_before() -> None:
    registry = Registry()
    holder = ModelHolder(registry, reload_s=10.0)
    holder.reload()
    registry.versions[BID_MODEL] = "2"
    registry.load_error = StoreError("the bundle does not reproduce its golden batch")
    after = holder.reload()
    assert after.bid("BTC/USD") is not None
    assert after.bid("BTC/USD").version == "1"
    assert "golden batch" in after.reasons[0]


def test_the_cache_is_tried_when_the_registry_is_away_at_the_start() -> None:
    registry = Registry()
    registry.version_error = ServiceError("MLflow does not answer")
    assert ModelHolder(registry, reload_s=10.0).reload().bid("BTC/USD") is not None


def test_the_thread_outlives_any_fault_and_shows_it() -> None:
    registry = Registry()
    registry.version_error = ZeroDivisionError("nobody foresaw this")
    holder = ModelHolder(registry, reload_s=0.01)
    holder.start()
    try:
        for _ in range(3):
            registry.asked.clear()
            assert registry.asked.wait(PATIENCE_S)
        assert any("ZeroDivisionError: nobody foresaw this" in reason for reason in holder.reasons)
        registry.version_error = None
        registry.asked.clear()
        assert registry.asked.wait(PATIENCE_S)
        assert registry.asked.wait(PATIENCE_S)
        wait_for(lambda: not holder.reasons, "the fault is over")
        assert holder.current.bid("BTC/USD") is not None
    finally:
        holder.stop()


def test_random_walk_is_a_baseline_kind() -> None:
    from serving.served_forecast import model_info

    assert model_info(random_walk_model().kind, "1").is_baseline
