"""The model assets, from stored bars to a registered and checked champion, with fakes instead of QuestDB and MLflow."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_MIN
from btc_core.errors import NotReady, SchemaError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.market.bars import BARS
from btc_core.models import pretrained
from btc_core.models.bundle import golden_rows, load_bundle
from btc_core.names import CHALLENGER, QUANTITIES, REFUSED, ModelKey
from btc_core.registry.bundles import Registration
from btc_core.registry.promotion import Promotion
from btc_core.settings import Settings
from btc_core.stores.dagster import market_tags

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets import model_assets
    from btc_assets.resources import Database, Environment, Lake, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.models.gate import Verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


def _bars(minutes: int, seed: int = 11) -> np.ndarray:
    rng = np.random.default_rng(seed)
    log_sigma = np.zeros(minutes)
    for i in range(1, minutes):
        log_sigma[i] = 0.98 * log_sigma[i - 1] + rng.normal(0.0, 0.15)
    close = 30_000.0 * np.exp((rng.normal(size=minutes) * 5e-4 * np.exp(log_sigma)).cumsum())
    bars = np.zeros(minutes, BARS)
    bars["ts_ns"] = 1_700_000_040_000_000_000 // NS_PER_MIN * NS_PER_MIN + np.arange(minutes) * NS_PER_MIN
    bars["close"], bars["open"] = close, np.concatenate([close[:1], close[:-1]])
    bars["high"], bars["low"] = np.maximum(bars["open"], close) * 1.0001, np.minimum(bars["open"], close) * 0.9999
    bars["volume"] = np.exp(log_sigma)
    return bars


class FakeQuestDB:
    """Has bars of markets and answers the two statements that read them; none of the bars is of a sealed day."""

    def __init__(self, bars: dict[str, np.ndarray]) -> None:
        self.bars = bars

    def execute(self, sql: str) -> list[list[Any]]:
        if "source = 'sealed'" in sql or "SAMPLE BY 1d" in sql:
            return []
        bars = self._bars(sql)
        return [[int(bars["ts_ns"][-1]) if len(bars) else None]]

    def _bars(self, sql: str) -> np.ndarray:
        return self.bars[sql.split("symbol = '")[1].split("'", maxsplit=1)[0]]

    def query(self, sql: str) -> pa.Table:
        since = int(sql.split("cast(")[1].split(maxsplit=1)[0])
        bars = self._bars(sql)
        chosen = bars[bars["ts_ns"] > since]
        columns = {name: pa.array(chosen[name]) for name in BARS.names or () if name != "ts_ns"}
        return pa.table({"ts": pa.array(chosen["ts_ns"], pa.timestamp("ns")), **columns})


WORLD: dict[str, Any] = {}


class FakeDatabase(Database):
    @contextmanager
    def connect(self) -> Iterator[FakeQuestDB]:  # type: ignore[override]
        yield FakeQuestDB(WORLD["bars"])


class NoLake(Lake):
    @contextmanager
    def connect(self) -> Iterator[None]:  # type: ignore[override]
        yield None


class FakeRegistry(Registry):
    def register(
        self,
        key: ModelKey,
        model: BidModel | VolatilityModel,
        rows: Any,
        verdict: Verdict,
        *,
        params: dict[str, str],
        pictures: dict[str, bytes],
        alias: str = CHALLENGER,
    ) -> Registration:
        with tempfile.TemporaryDirectory() as scratch:
            model.save(Path(scratch), golden_rows(rows))
            WORLD[alias, key.name] = load_bundle(Path(scratch), "1"), verdict
        WORLD["registered"].append(WORLD[alias, key.name])
        assert params["trees"]
        assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
        assert ("importance.png" in pictures) == bool(model.boosters)
        assert ("unseen_days.png" in pictures) == bool(model.manifest.scores)
        return Registration(key.name, str(len(WORLD["registered"])), "run", "http://127.0.0.1:5000/#/models")

    def release(self, key: ModelKey, alias: str) -> None:
        WORLD.pop((alias, key.name), None)

    def promote_challenger(self, key: ModelKey) -> Promotion | None:
        model, verdict = WORLD.get(("challenger", key.name), (None, None))
        if verdict is None or not verdict.passed:
            return None
        WORLD[key.name] = model
        return Promotion("1", verdict.reason)

    def challenger(self, key: ModelKey) -> BidModel | VolatilityModel:
        if ("challenger", key.name) not in WORLD:
            raise NotReady(f"no challenger of {key.name}")
        return WORLD["challenger", key.name][0]  # type: ignore[no-any-return]

    def champion(self, key: ModelKey) -> BidModel | VolatilityModel:
        if key.name not in WORLD:
            raise NotReady(f"no champion of {key.name}")
        return WORLD[key.name]  # type: ignore[no-any-return]


class TheseMarkets(Environment):
    def get(self) -> Settings:
        return Settings(exchange=ExchangeSettings(symbols=tuple(WORLD["bars"])))


def _run(
    bars: np.ndarray | dict[str, np.ndarray], *trained: str, champions: dict[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    """Train BTC/USD, or all of several markets, or of those only the `trained`, whose names are neighbours."""
    markets = bars if isinstance(bars, dict) else {"BTC/USD": bars}
    WORLD.clear()
    WORLD.update(champions or {})
    WORLD["bars"], WORLD["registered"] = markets, []
    chosen = trained or tuple(markets)
    partitions = dg.StaticPartitionsDefinition(list(markets))
    assets = [
        make(quantity, partitions)
        for make in (model_assets._model_asset, model_assets._champion_asset)
        for quantity in QUANTITIES
    ]
    with tempfile.TemporaryDirectory() as scratch, dg.DagsterInstance.ephemeral(tempdir=scratch) as instance:
        return dg.materialize(
            [*assets, *model_assets.SERVES_CHECKS],
            resources={
                "environment": TheseMarkets(),
                "database": FakeDatabase(),
                "lake": NoLake(),
                "registry": FakeRegistry(),
            },
            instance=instance,
            tags=market_tags(chosen),
        )


def test_both_models_are_trained_registered_and_pass_their_checks() -> None:
    result = _run(_bars(21 * 1440))
    assert result.success
    checks = result.get_asset_check_evaluations()
    assert len(checks) == 4
    assert all(check.passed for check in checks), [check.metadata for check in checks]
    metadata = result.asset_materializations_for_node("volatility_model")[0].metadata
    assert metadata["kind"].value == WORLD["volatility-model"].kind
    assert metadata["harx_5m_qlike"].value > 0.0
    assert 0.0 <= metadata["floor_share"].value < 0.5
    assert 0.0 <= result.asset_materializations_for_node("bid_model")[0].metadata["clipped_share"].value < 0.01
    assert "| harx / 5m |" in str(metadata["scores"].value)
    assert "/#/models" in str(metadata["mlflow"].value)


def test_trees_that_do_not_beat_the_baseline_are_kept_as_a_version_that_does_not_serve() -> None:
    result = _run(_bars(21 * 1440, seed=2))  # trees and HARX are equally good, far from the bound of the gate
    champion = WORLD["volatility-model"]
    assert champion.kind == "harx", "nothing in these bars can be forecast better"
    (refused, verdict), (baseline, its_verdict) = (
        each for each in WORLD["registered"] if each[0].manifest.name == "volatility-model"
    )
    assert (refused.kind, verdict.passed, verdict.beats_baselines) == ("xgboost", False, False)
    assert refused.manifest.scores == baseline.manifest.scores
    assert baseline is champion
    metadata = result.asset_materializations_for_node("volatility_model")[0].metadata
    assert its_verdict.reason.endswith(f"version {metadata['refused_version'].value} keeps them, in shadow")
    assert WORLD[REFUSED, "volatility-model"][0] is refused


def test_losing_trees_of_the_bid_are_kept_and_the_same_random_walk_is_not_promoted_again() -> None:
    bars = _bars(21 * 1440, seed=2)
    _run(bars)
    champion = WORLD["bid-price-model"]
    assert champion.kind == "random_walk", "nothing in these bars can be forecast"
    refused, verdict = WORLD[REFUSED, "bid-price-model"]
    assert (refused.kind, verdict.passed, verdict.beats_baselines) == ("xgboost", False, False)
    assert refused.manifest.shrinkage == (0.1,) * 5
    rows = np.random.default_rng(1).normal(size=(9, len(MODEL_FEATURES)))
    assert np.any(refused.predict(rows, np.full((9, 5), 8.0)))
    assert verdict.reason.startswith(
        "no share λ of what the trees forecast was certainly better than no change on the days that choose it; "
    )
    assert verdict.figures["ratio_to_baseline"] != 1.0, "the trees are judged, and not the random walk"
    assert refused.manifest.scores == champion.manifest.scores

    result = _run(bars, champions={"bid-price-model": champion})
    assert WORLD["bid-price-model"] is champion
    bids = [model.kind for model, _ in WORLD["registered"] if model.manifest.name == "bid-price-model"]
    assert bids == ["xgboost"], "the trees are kept, and no other version of the random walk"
    assert WORLD[REFUSED, "bid-price-model"][0].kind == "xgboost"
    metadata = result.asset_materializations_for_node("bid_model")[0].metadata
    assert metadata["kept_version"].value == champion.version
    assert f"version {metadata['refused_version'].value} keeps them, in shadow; version" in metadata["gate"].value
    assert result.asset_materializations_for_node("bid_champion")[0].metadata["moved"].value is False


def test_twelve_hours_of_bars_give_the_flagged_baselines() -> None:
    result = _run(_bars(720))
    assert result.success
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert (WORLD["volatility-model"].kind, WORLD["bid-price-model"].kind) == ("harx", "random_walk")


def test_a_random_walk_stays_champion_while_the_new_bid_model_is_the_same_random_walk() -> None:
    assert _run(_bars(720)).success
    champion = WORLD["bid-price-model"]
    result = _run(_bars(720), champions={"bid-price-model": champion})
    assert WORLD["bid-price-model"] is champion
    assert [model.manifest.name for model, _ in WORLD["registered"]] == ["volatility-model"], "no version of the bid"
    metadata = result.asset_materializations_for_node("bid_model")[0].metadata
    assert metadata["kept_version"].value == champion.version
    assert "stays champion: both are the random walk" in str(metadata["gate"].value)
    assert result.asset_materializations_for_node("bid_champion")[0].metadata["moved"].value is False
    assert all(check.passed for check in result.get_asset_check_evaluations())


def test_a_random_walk_is_replaced_when_it_lacks_something_or_is_a_week_old() -> None:
    from btc_assets.training import RENEWAL_NS, same_walk
    from btc_core.models.bundle import BidModel, random_walk_model

    assert _run(_bars(720)).success
    fitted, cold = WORLD["bid-price-model"], random_walk_model()
    at_ns = fitted.manifest.created_ns
    assert same_walk(fitted, cold, at_ns), "what is fitted stays when there are too few bars once"
    assert not same_walk(cold, fitted, at_ns), "it has no intervals and no autoregression"
    assert not same_walk(fitted, fitted, at_ns + RENEWAL_NS + 1)
    assert not same_walk(None, fitted, at_ns)
    assert not same_walk(BidModel(fitted.manifest, (), None), fitted, at_ns)
    assert not same_walk(fitted.as_baseline("ar"), fitted, at_ns)


def test_a_few_hours_of_bars_give_the_pretrained_model_without_scores() -> None:
    assert _run(_bars(240)).success
    model, verdict = WORLD["challenger", "volatility-model"]
    assert model.kind == "xgboost"
    assert model.manifest.pretrained == pretrained.shipped().provenance
    assert model.manifest.scores == {}
    assert verdict.reason == f"too few bars to judge a model: the {pretrained.shipped().provenance} serves"
    assert WORLD["volatility-model"] is model, "it is the champion"
    assert WORLD["bid-price-model"].kind == "random_walk"


def test_a_few_hours_of_bars_give_the_flagged_baseline_when_the_pretrained_file_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shipped() -> None:
        raise SchemaError("the pre-trained model has layout 0")

    monkeypatch.setattr(pretrained, "shipped", shipped)
    assert _run(_bars(240)).success
    assert WORLD["volatility-model"].kind == "harx"
    assert WORLD["volatility-model"].manifest.scores == {}


def test_without_bars_the_run_fails_and_says_why() -> None:
    with pytest.raises(NotReady, match="too few"):
        _run(np.empty(0, BARS))


def test_a_check_fails_with_the_reason_when_there_is_no_champion() -> None:
    WORLD.clear()
    WORLD["bars"] = {"BTC/USD": _bars(300)}
    passed, facts = model_assets.serves(FakeDatabase(), FakeRegistry(), ModelKey("BTC/USD", "volatility"))
    assert not passed
    assert "no champion" in facts["reason"]


def test_the_scores_table_has_a_row_per_model_and_horizon() -> None:
    text = model_assets.scores_table({"harx/5m/qlike": 0.5, "har/5m/qlike": 0.6, "har/5m/dm_t": 2.0, "test_rows": 9.0})
    assert text.splitlines() == [
        "| model / horizon | qlike | dm_t |",
        "|---|---|---|",
        "| harx / 5m | 0.5 | – |",
        "| har / 5m | 0.6 | 2 |",
    ]


def test_another_recipe_goes_into_shadow_and_the_champion_stays() -> None:
    import msgspec

    from btc_core.models import fitting
    from btc_core.models.dataset import make_frame

    bars = _bars(21 * 1440)
    assert _run(bars).success
    trained = WORLD["challenger", "volatility-model"][0]
    old = fitting.fit_volatility(make_frame(bars[: 18 * 1440]))
    other = msgspec.structs.replace(old.manifest, recipe="another", version="9")
    champion = old.with_manifest(other)
    result = _run(bars, champions={"volatility-model": champion})
    (gate,) = (check for check in result.get_asset_check_evaluations() if check.asset_key.path == ["volatility_model"])
    assert not gate.passed
    assert gate.metadata["refused"].value == "BTC/USD"
    assert WORLD["volatility-model"] is champion
    entered, verdict = WORLD["challenger", "volatility-model"]
    assert "in shadow" in verdict.reason
    assert entered.manifest.recipe == trained.manifest.recipe != "another"


def test_each_market_is_a_partition_with_models_of_its_own_and_one_that_cannot_be_trained_stops_no_other() -> None:
    markets = {"BTC/USD": _bars(720), "ETH/USD": _bars(720, seed=12), "NEW/USD": np.empty(0, BARS)}
    result = _run(markets)
    assert result.success
    made = {each.partition: each.metadata for each in result.asset_materializations_for_node("volatility_model")}
    assert set(made) == set(markets)
    assert made["BTC/USD"]["harx_5m_qlike"].value != made["ETH/USD"]["harx_5m_qlike"].value
    assert "too few" in made["NEW/USD"]["error"].value
    assert (WORLD["volatility-model"].kind, WORLD["volatility-model-ETHUSD"].kind) == ("harx", "harx")
    assert "volatility-model-NEWUSD" not in WORLD
    checks = {(check.asset_key.path[0], check.check_name): check for check in result.get_asset_check_evaluations()}
    gate = checks["volatility_model", "gate"]
    assert (gate.passed, gate.metadata["refused"].value) == (False, "NEW/USD")
    serves = checks["volatility_champion", "volatility_champion_serves"]
    assert (serves.passed, serves.metadata["failed"].value) == (False, "NEW/USD")


def test_one_market_can_be_trained_alone() -> None:
    result = _run({"BTC/USD": _bars(720), "ETH/USD": _bars(720, seed=12)}, "ETH/USD")
    assert [each.partition for each in result.asset_materializations_for_node("bid_champion")] == ["ETH/USD"]
    assert "volatility-model-ETHUSD" in WORLD
    assert "volatility-model" not in WORLD
