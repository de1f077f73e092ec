"""Which models a process forecasts a market with."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from btc_core.clock import NS_PER_MIN
from btc_core.errors import InvalidInput, NotReady, SchemaError, ServiceError
from btc_core.models import pretrained
from btc_core.names import BID, VOLATILITY, ModelKey
from btc_core.registry import bundles
from btc_core.registry.champions import BaselineSource, Champions, ModelHolder
from btc_core.registry.keys import key_of_name, model_keys
from btc_core.settings import Settings
from tests.unit.btc_core.models.test_bundle import market
from tests.waiting import PATIENCE_S

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


def test_a_market_whose_bars_arrive_while_the_other_models_are_made_has_its_model_in_the_same_generation() -> None:
    """With eight markets the first one once began without forecasts, because its bars were stored a second too late."""

    class BarsArriveLate(Source):
        loads = 0

        def load(self, key: ModelKey) -> Any:
            self.loads += 1
            if self.loads <= 2 and key == ModelKey("BTC/USD", VOLATILITY):
                raise NotReady("0 minute bars are too few")
            return super().load(key)

    champions = loaded(BarsArriveLate())
    assert all(champions.can_forecast(symbol, BID) for symbol in MARKETS)
    assert champions.reasons == ()


def test_waiting_ends_when_forecasts_can_start_and_when_the_holder_is_stopped() -> None:
    holder = ModelHolder(Source(), reload_s=10.0)
    holder.start()
    assert holder.wait(PATIENCE_S).complete
    holder.stop()
    stopped = ModelHolder(Source(*model_keys(MARKETS)), reload_s=10.0)
    stopped.stop()
    started_s = time.monotonic()
    assert not stopped.wait(60.0).complete
    assert time.monotonic() - started_s < 30.0


def test_models_are_looked_for_more_often_while_forecasts_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btc_core.registry.champions.FIRST_PAUSE_S", 0.01)
    source = Source(*model_keys(MARKETS))
    holder = ModelHolder(source, reload_s=1_000.0)
    holder.start()
    assert not holder.wait(0.1).can_start
    source.missing = ()
    assert holder.wait(PATIENCE_S).can_start
    holder.stop()


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


class StoredBars:
    """The minute bars that a market has stored so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bars = market(24 * 60)
        self.known = 0

        def load_champion(_settings: Settings, key: ModelKey) -> None:
            raise NotReady(f"no champion of {key.name}")

        def champion_version(_settings: Settings, _key: ModelKey) -> None:
            return None

        monkeypatch.setattr(bundles, "load_champion", load_champion)
        monkeypatch.setattr(bundles, "champion_version", champion_version)
        monkeypatch.setattr("btc_core.registry.champions.QuestDB", lambda _settings: contextlib.nullcontext())
        monkeypatch.setattr(
            "btc_core.registry.champions.read_stored", lambda _db, _symbol, _days: self.bars[: self.known]
        )
        monkeypatch.setattr("btc_core.registry.champions.now_ns", self.now_ns)

    def now_ns(self) -> int:
        return int(self.bars["ts_ns"][self.known - 1]) + NS_PER_MIN


def test_a_new_market_gets_the_pretrained_model_with_its_first_hour_of_bars_and_again_as_they_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = StoredBars(monkeypatch)
    holder = ModelHolder(BaselineSource(Settings()), reload_s=10.0)
    stored.known = 30
    assert holder.reload().waits_for_bars("BTC/USD")
    stored.known = 60
    first = holder.reload().volatility("BTC/USD")
    assert first is not None
    assert first.kind == "xgboost"
    assert first.version == f"pretrained-{pretrained.shipped().digest}"
    stored.known = 100
    assert holder.reload().volatility("BTC/USD") is first
    stored.known = 121
    second = holder.reload().volatility("BTC/USD")
    assert second is not None
    assert second.manifest.train_rows > first.manifest.train_rows
    assert holder.current.can_start


def test_harx_starts_a_market_when_the_pretrained_file_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored = StoredBars(monkeypatch)
    stored.known = 120

    def shipped() -> None:
        raise SchemaError("the pre-trained model has layout 0, this process reads 1; run `btc pretrain`")

    monkeypatch.setattr(pretrained, "shipped", shipped)
    model = BaselineSource(Settings()).load(ModelKey("BTC/USD", VOLATILITY))
    assert model.kind == "harx"
    assert "HARX serves instead of the pre-trained model: the pre-trained model has layout 0" in caplog.text
