"""Skill and drift on a real QuestDB: they become rows and checks, and a champion with a bad day is demoted."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.errors import NotReady, SchemaError
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.models import gate
from btc_core.models.baselines import Autoregression
from btc_core.models.bundle import BidModel, VolatilityModel, random_walk_model
from btc_core.models.harx import INPUTS, fit_harx
from btc_core.models.histograms import histogram_of
from btc_core.models.manifest import new_manifest
from btc_core.models.recipe import RECIPE
from btc_core.names import BID_MODEL, HORIZONS_MIN, VOLATILITY_MODEL, ModelKey
from btc_core.registry.bundles import Registration
from btc_core.registry.promotion import Promotion
from btc_core.registry.shadows import RefusedVersion
from btc_core.stores.live_rows import live_frame
from btc_core.stores.questdb import QuestDB
from btc_core.tables.catalogue import PREDICTION_OUTCOMES
from btc_core.tables.schema import ensure_tables
from tests.service.workers import count, unique
from tests.waiting import wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets.resources import Database, Environment, Registry
    from btc_assets.shadows import refused_in_shadow
    from btc_assets.skill import demotions, feature_drift, prediction_skill

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.names import Baseline, ModelKind
    from btc_core.registry.shadows import ShadowScore
    from btc_core.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]

MINUTES = 300
WORLD: dict[str, Any] = {}


class WorldEnvironment(Environment):
    def get(self) -> Settings:
        return WORLD["settings"]  # type: ignore[no-any-return]


class RealDatabase(Database):
    def connect(self) -> QuestDB:
        return QuestDB(WORLD["settings"].questdb)


class FakeRegistry(Registry):
    """Has the champions in `WORLD`, by quantity, and remembers which was demoted and why."""

    def champion(self, key: ModelKey) -> BidModel | VolatilityModel:
        if key.symbol == WORLD.get("damaged"):
            raise SchemaError(f"the champion of {key.name} is damaged")
        if key.quantity not in WORLD:
            raise NotReady(f"no champion of {key.name}")
        return WORLD[key.quantity]  # type: ignore[no-any-return]

    def demote(
        self, key: ModelKey, model: BidModel | VolatilityModel, baseline: Baseline, rows: Any, reason: str
    ) -> Registration:
        WORLD["demoted"] = (key, model.version, baseline, len(rows), reason)
        return Registration(key.name, "8", "run", "url")

    def refused(self, key: ModelKey) -> RefusedVersion | None:
        is_refused = key.symbol == WORLD["refused"]
        return RefusedVersion("7", "xgboost", "it lost", WORLD["scores"].get(key.quantity)) if is_refused else None

    def version(self, key: ModelKey, _version: str) -> BidModel | VolatilityModel:
        return bid_that_knows() if key.quantity == "bid" else model().as_baseline()

    def keep_shadow_score(self, key: ModelKey, version: str, score: ShadowScore) -> None:
        assert (key.symbol, version, WORLD["scores"].get(key.quantity)) == (WORLD["refused"], "7", None)
        WORLD["scores"][key.quantity] = score

    def promote_refused(self, key: ModelKey, version: str, reason: str) -> Promotion:
        WORLD["promoted"].append(key.quantity)
        return Promotion(version, reason)


def outcomes(symbol: str, loss: float, inside: float, *, late: bool = False, target: str = "ticks") -> pd.DataFrame:
    """Five hours of outcomes of version 7, whose QLIKE is `loss` where HARX's is about 0.5; late ones between the minutes."""
    rng = np.random.default_rng(2)
    rows: dict[str, Any] = {}
    for column in PREDICTION_OUTCOMES.columns:
        if column.type == "DOUBLE":
            rows[column.name] = rng.normal(0.0, 1.0, MINUTES)
        elif column.type == "BOOLEAN":
            rows[column.name] = rng.random(MINUTES) < inside
        elif column.type in {"SYMBOL", "VARCHAR"}:
            rows[column.name] = pd.Categorical(["7"] * MINUTES) if column.type == "SYMBOL" else ["[]"] * MINUTES
    newest = now_ns() // NS_PER_MIN * NS_PER_MIN + (20 * NS_PER_S if late else 0)
    stamps = pd.to_datetime(newest - np.arange(MINUTES)[::-1] * NS_PER_MIN)
    rows |= {"ts_event": stamps, "made_at": stamps, "symbol": pd.Categorical([symbol] * MINUTES)}
    rows["late"] = np.full(MINUTES, late)
    for name, mean in (("model", loss), ("harx", 0.5), ("har", 0.6), ("ewma", 0.6), ("naive", 1.2)):
        rows[f"qlike_{name}_5m"] = rng.gamma(2.0, mean / 2.0, MINUTES)
    rows["bid_forecast_5m_bps"] = np.zeros(MINUTES)
    rows["volatility_target"] = pd.Categorical([target] * MINUTES)
    return pd.DataFrame(rows)


def model() -> VolatilityModel:
    rng = np.random.default_rng(7)
    inputs = rng.normal(-14.0, 1.0, (300, len(INPUTS)))
    realized = np.exp(rng.normal(-14.0, 0.3, (300, 5))) * np.arange(1, 6)
    known = {name: histogram_of(rng.normal(size=5_000), bins=10) for name in ("log_rv_5m", "return_1m_bps")}
    manifest = new_manifest(VOLATILITY_MODEL, "xgboost", distributions=known)
    return VolatilityModel(msgspec.structs.replace(manifest, version="7"), fit_harx(inputs, realized, 1.0))


def bid_that_knows(kind: ModelKind = "ar") -> BidModel:
    """A model of the bid whose forecast is the return of the last minute."""
    windows = RECIPE.baselines.ar_windows_min
    weights = tuple(float(place == 0) for place in range(len(windows)))
    autoregression = Autoregression(windows, tuple(weights for _ in HORIZONS_MIN))
    return BidModel(new_manifest(BID_MODEL, kind), (), autoregression)


def silver(symbol: str) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = {name: rng.normal(size=MINUTES) for name in FEATURE_NAMES}
    rows["return_1m_bps"] += 4.0
    stamps = pd.to_datetime(now_ns() // NS_PER_MIN * NS_PER_MIN - np.arange(MINUTES)[::-1] * NS_PER_MIN)
    names = {
        "symbol": pd.Categorical([symbol] * MINUTES),
        "feature_version": pd.Categorical([FEATURE_VERSION] * MINUTES),
    }
    place = {name: np.zeros(MINUTES, np.int64) for name in ("kafka_partition", "frame_item", "trade_id")}
    place["kafka_offset"] = np.arange(MINUTES) * 10
    return pd.DataFrame({"ts_event": stamps, **names, **rows, **place})


def run(settings: Settings, *symbols: str) -> dict[str, bool]:
    """Materialize all three assets for these markets; returns which checks passed."""
    exchange = settings.exchange.model_copy(update={"symbols": symbols})
    WORLD["settings"] = settings.model_copy(update={"exchange": exchange})
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [prediction_skill, feature_drift, demotions],
            resources={"environment": WorldEnvironment(), "database": RealDatabase(), "registry": FakeRegistry()},
            instance=instance,
        )
    assert done.success
    return {check.check_name: check.passed for check in done.get_asset_check_evaluations()}


def test_skill_and_drift_are_written_and_checked_and_a_champion_with_a_bad_day_is_demoted(
    servers: Callable[..., Settings],
) -> None:
    settings = servers("questdb")
    WORLD.clear()
    WORLD.update({"volatility": model(), "bid": random_walk_model()})
    good, bad, empty = unique("GOOD"), unique("BAD"), unique("EMPTY")
    with QuestDB(settings.questdb) as db:
        for symbol, loss in ((good, 0.45), (bad, 0.9)):
            db.write(PREDICTION_OUTCOMES.name, outcomes(symbol, loss, 0.9), "ts_event")
            db.write(PREDICTION_OUTCOMES.name, outcomes(symbol, 50.0, 0.0, late=True), "ts_event")
            before = outcomes(symbol, 50.0, 0.0, target="minutes")
            before["ts_event"] -= pd.Timedelta(minutes=MINUTES)
            db.write(PREDICTION_OUTCOMES.name, before, "ts_event")
            wait_for(lambda symbol=symbol: count(db, PREDICTION_OUTCOMES.name, symbol) == 3 * MINUTES, "outcomes")  # type: ignore[misc]
        db.write("silver_features", silver(good), "ts_event")
        wait_for(lambda: count(db, "silver_features", good) == MINUTES, "feature rows")

        checks = run(settings, good)
        assert checks == {
            "volatility_is_good": True, "bid_is_good": True, "outcomes_arrive": True, "features_are_familiar": True,
        }  # fmt: skip
        assert "demoted" not in WORLD
        wait_for(lambda: count(db, "gold_prediction_skill", good) == 8, "skill of two quantities over four periods")
        skill = db.execute(
            "SELECT outcomes, best_baseline, ratio, coverage_90, target FROM gold_prediction_skill "
            f"WHERE symbol = '{good}' AND quantity = 'volatility' AND hours = 24"
        )
        assert skill[0][:2] == [MINUTES, "harx"]
        assert skill[0][2] == pytest.approx(0.9, abs=0.2)
        assert skill[0][3] == pytest.approx(0.9, abs=0.05)
        assert skill[0][4] == "ticks", "outcomes of a model of minutes are in the same period and are not mixed in"
        wait_for(lambda: count(db, "gold_feature_drift", good) == 2, "drift of two features")
        found = dict(db.execute(f"SELECT feature, psi - psi_by_chance FROM gold_feature_drift WHERE symbol = '{good}'"))
        assert found["log_rv_5m"] < 0.0 < found["return_1m_bps"]

        assert not run(settings, bad)["volatility_is_good"]
        key, version, baseline, _, reason = WORLD.pop("demoted")
        assert (key, version, baseline) == (ModelKey(bad, "volatility"), "7", "harx")
        assert "of harx's" in reason

        assert all(run(settings, empty).values())

        checks = run(settings, good, bad, empty)
        assert not checks["volatility_is_good"], "one bad market is enough"
        assert checks["outcomes_arrive"]
        assert WORLD["demoted"][0] == ModelKey(bad, "volatility"), "the champion of the good market stays"
        WORLD.pop("demoted")
        WORLD["damaged"] = good
        run(settings, good, bad)
        assert WORLD["demoted"][0] == ModelKey(bad, "volatility"), (
            "one that cannot be read stops the judgement of no other"
        )


def test_rows_for_judging_a_version_in_shadow_are_the_last_of_each_minute_and_one_that_wins_on_them_is_promoted(
    servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = servers("questdb")
    symbol = unique("SHADOW")
    rows = silver(symbol)
    early = rows.assign(ts_event=rows["ts_event"] - pd.Timedelta(seconds=20), return_1m_bps=0.0)
    late = rows.assign(ts_event=rows["ts_event"] - pd.Timedelta(seconds=2))
    other = rows.assign(
        ts_event=rows["ts_event"] - pd.Timedelta(seconds=1), feature_version=pd.Categorical(["another"] * MINUTES)
    )
    what_came = outcomes(symbol, 0.4, 0.9, target="minutes")
    what_came["ts_event"] = what_came["made_at"] = rows["ts_event"]  # a minute may have begun since
    known = bid_that_knows().baseline_forecasts(rows[list(MODEL_FEATURES)].to_numpy())["ar"]
    known += np.random.default_rng(5).normal(0.0, np.sqrt(np.square(known).mean()), known.shape)
    what_came[[f"bid_return_{horizon}m_bps" for horizon in HORIZONS_MIN]] = known
    what_came["late"] = what_came["ts_event"].astype("int64") % (15 * NS_PER_MIN) == 0
    with QuestDB(settings.questdb) as db:
        ensure_tables(db)
        for part in (early, late, other):
            db.write("silver_features", part)
        db.write(PREDICTION_OUTCOMES.name, what_came)
        wait_for(lambda: count(db, "silver_features", symbol) == 3 * MINUTES, "the features are readable")
        wait_for(lambda: count(db, PREDICTION_OUTCOMES.name, symbol) == MINUTES, "the outcomes are readable")
        origin_ns = what_came["ts_event"].astype("int64").to_numpy()
        fifths = (origin_ns % (5 * NS_PER_MIN) == 0) & ~what_came["late"].to_numpy()
        fifths[-1] = False  # no row is younger, so the newest minute may not have ended
        frame = live_frame(db, symbol, int(origin_ns[fifths][0]) - 1)
    exchange = settings.exchange.model_copy(update={"symbols": (symbol, "NONE/USD")})
    WORLD.clear()
    WORLD.update({"settings": settings.model_copy(update={"exchange": exchange}), "refused": symbol, "scores": {}})
    WORLD.update({"volatility": model().as_baseline(), "bid": random_walk_model(), "promoted": []})
    resources = {"environment": WorldEnvironment(), "database": RealDatabase(), "registry": FakeRegistry()}
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):  # the second run leaves a score of the last hour as it is
            assert dg.materialize([refused_in_shadow], resources=resources, instance=instance).success
        for score in WORLD["scores"].values():
            assert 12 <= score.rows <= fifths.sum()
            assert score.to_ns == origin_ns[fifths][-1]
        assert WORLD["scores"]["volatility"].ratio == pytest.approx(1.0)
        assert WORLD["scores"]["bid"].ratio == pytest.approx(0.5, abs=0.15), "the random walk knows nothing of the move"
        assert WORLD["promoted"] == [], "forty rows are too few"

        monkeypatch.setattr(gate, "WON_MIN_ROWS", 12)
        for serving in (random_walk_model(), bid_that_knows("xgboost")):
            WORLD.update({"bid": serving, "scores": {}})
            assert dg.materialize([refused_in_shadow], resources=resources, instance=instance).success
        assert set(WORLD["scores"]) == {"volatility", "bid"}
        assert WORLD["promoted"] == ["bid"], "a version in shadow replaces no trees"
    assert np.array_equal(frame.origin_ns, origin_ns[fifths])
    assert np.array_equal(frame.matrix, late.loc[fifths, list(MODEL_FEATURES)].to_numpy())
    assert np.array_equal(frame.bid_bps[:, -1], what_came.loc[fifths, "bid_return_5m_bps"].to_numpy())
    assert np.allclose(frame.realized[:, -1], (what_came.loc[fifths, "realized_5m_bps"].to_numpy() / 1e4) ** 2)
