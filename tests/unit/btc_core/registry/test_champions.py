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

    modelled_symbols = MARKETS

    def __init__(self, *missing: ModelKey) -> None:
        self.missing = missing

    def champion_version(self, _key: ModelKey) -> str | None:
        return "1"

    def load(self, key: ModelKey) -> Any:
        if key in self.missing:
            raise NotReady(f"no champion of {key.name}")
        return NamedModel(key)


def loaded(source: Source) -> Champions:
    return ModelHolder(source, reload_s=10.0).reload()


def test_a_market_is_forecast_by_its_own_models_and_one_without_models_by_those_of_the_first() -> None:
    champions: Any = loaded(Source())
    for symbol, expected in (("BTC/USD", "BTC/USD"), ("ETH/USD", "ETH/USD"), ("SOL/USD", "BTC/USD")):
        assert champions.bid(symbol).key == ModelKey(expected, BID)
        assert champions.volatility(symbol).key == ModelKey(expected, VOLATILITY)


def test_a_missing_model_of_one_market_leaves_the_others_and_is_not_replaced_by_theirs() -> None:
    champions = loaded(Source(ModelKey("ETH/USD", BID)))
    assert champions.bid("ETH/USD") is None
    assert champions.volatility("ETH/USD") is not None
    assert champions.bid("BTC/USD") is not None
    assert not champions.complete
    assert champions.reasons == (
        "bid-price-model-ETHUSD: no champion could be loaded: no champion of bid-price-model-ETHUSD",
    )


def test_waiting_ends_when_all_models_are_loaded_and_when_the_holder_is_stopped() -> None:
    holder = ModelHolder(Source(), reload_s=10.0)
    holder.start()
    assert holder.wait(5.0).complete
    holder.stop()
    stopped = ModelHolder(Source(ModelKey("BTC/USD", BID)), reload_s=10.0)
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
