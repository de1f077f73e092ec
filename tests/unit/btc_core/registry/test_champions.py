"""Which models a process forecasts a market with."""

from __future__ import annotations

import time
from typing import Any

import pytest

from btc_core.errors import InvalidInput, NotReady, SchemaError, ServiceError
from btc_core.names import BID, VOLATILITY, ModelKey
from btc_core.registry import bundles
from btc_core.registry.champions import BaselineSource, Champions, ModelHolder
from btc_core.registry.keys import key_of_name, model_keys
from btc_core.settings import Settings

MARKETS = ("BTC/USD", "ETH/USD")


class NamedModel:
    """As much of a model as the holder looks at."""

    kind, version = "xgboost", "1"

    def __init__(self, key: ModelKey) -> None:
        self.key = key


class Source:
    """Has a champion for every key that is not in `missing`."""

    symbols = MARKETS

    error: type[Exception] = NotReady

    def __init__(self, *missing: ModelKey) -> None:
        self.missing = missing

    def champion_version(self, _key: ModelKey) -> str | None:
        return "1"

    def load(self, key: ModelKey) -> Any:
        if key in self.missing:
            raise self.error(f"no champion of {key.name}")
        return NamedModel(key)


def loaded(source: Source) -> Champions:
    return ModelHolder(source, reload_s=10.0).reload()


def test_a_market_is_forecast_by_its_own_models_and_by_no_others() -> None:
    """A second market was once forecast by the models of the first, and its volatility came out ten times too high."""
    champions: Any = loaded(Source())
    for symbol in MARKETS:
        assert champions.bid(symbol).key == ModelKey(symbol, BID)
        assert champions.volatility(symbol).key == ModelKey(symbol, VOLATILITY)
    assert champions.bid("SOL/USD") is None
    assert champions.volatility("SOL/USD") is None
    assert champions.waits_for_bars("SOL/USD"), "it is not followed"


def test_a_missing_model_of_one_market_leaves_the_others_and_is_not_replaced_by_theirs() -> None:
    champions = loaded(Source(ModelKey("ETH/USD", BID)))
    assert champions.bid("ETH/USD") is None
    assert champions.volatility("ETH/USD") is not None
    assert champions.bid("BTC/USD") is not None
    assert not champions.complete
    reasons = ("bid-price-model-ETHUSD: no champion could be loaded: no champion of bid-price-model-ETHUSD",)
    assert champions.reasons == champions.reasons_of("ETH/USD") == reasons
    assert champions.reasons_of("BTC/USD") == ()


def test_forecasts_start_without_a_market_that_has_too_few_bars_and_wait_for_one_whose_model_could_not_be_read() -> (
    None
):
    ether = ModelKey("ETH/USD", VOLATILITY)
    early = loaded(Source(ether))
    assert early.waits_for_bars("ETH/USD")
    assert not early.waits_for_bars("BTC/USD")
    assert early.can_start
    source = Source(ether)
    source.error = ServiceError
    away = loaded(source)
    assert not away.waits_for_bars("ETH/USD")
    assert not away.can_start
    assert not loaded(Source(*model_keys(MARKETS))).can_start, "no market has models"


def test_waiting_ends_when_forecasts_can_start_and_when_the_holder_is_stopped() -> None:
    holder = ModelHolder(Source(), reload_s=10.0)
    holder.start()
    assert holder.wait(5.0).complete
    holder.stop()
    stopped = ModelHolder(Source(*model_keys(MARKETS)), reload_s=10.0)
    stopped.stop()
    started_s = time.monotonic()
    assert not stopped.wait(5.0).complete
    assert time.monotonic() - started_s < 1.0


def test_every_registered_name_belongs_to_one_key() -> None:
    keys = model_keys(MARKETS)
    assert [key_of_name(key.name, MARKETS) for key in keys] == list(keys)
    with pytest.raises(InvalidInput, match="no model bid-model; the models are bid-price-model, volatility-model"):
        key_of_name("bid-model", MARKETS)


@pytest.mark.parametrize("error", [NotReady("none yet"), ServiceError("away"), SchemaError("of an older layout")])
def test_the_random_walk_serves_while_the_champion_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load_champion(_settings: Settings, _key: ModelKey) -> None:
        raise error

    monkeypatch.setattr(bundles, "load_champion", load_champion)
    assert BaselineSource(Settings()).load(ModelKey("BTC/USD", BID)).kind == "random_walk"
