"""The pooled fit: its inputs have no scale, its trees see nothing after their time, and each market keeps its own level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY
from btc_core.errors import SchemaError
from btc_core.features import catalogue
from btc_core.models import bundle, fitting, pooling
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.explain import explain, mean_effects
from btc_core.models.recipe import RECIPE
from btc_core.models.trainers import in_memory
from btc_core.names import HORIZONS_MIN
from tests.unit.btc_core.models.test_bundle import market

if TYPE_CHECKING:
    from pathlib import Path

DAYS = 16
SMALL = msgspec.structs.replace(
    RECIPE,
    volatility=msgspec.structs.replace(RECIPE.volatility, trees_from_harx=20, trees_from_level=20),
    bid=msgspec.structs.replace(RECIPE.bid, trees=5, max_dm_t=1e9, validation_parts=1),
)
"""The shipped recipe with few trees, and a bid whose λ is chosen without a test."""


def scaled(bars: np.ndarray, *, price: float, volume: float) -> np.ndarray:
    """The same market in other units: of another price level, and traded in other quantities."""
    other = bars.copy()
    for name in ("open", "high", "low", "close"):
        other[name] *= price
    other["volume"] *= volume
    return other


def pool_of(frames: dict[str, Frame], recipe: object = SMALL) -> pooling.Pool:
    assert isinstance(recipe, type(RECIPE))
    members = [
        pooling.pool_rows(symbol, frame, fitting.pool_log_variance(frame, recipe), 5_000)
        for symbol, frame in frames.items()
    ]
    return pooling.Pool(members, in_memory, recipe)


@pytest.fixture(scope="module")
def frames() -> dict[str, Frame]:
    """Two markets of one character, the second of which costs a ten-thousandth and trades in millions."""
    return {
        "BTC/USD": make_frame(market(DAYS * 1440)),
        "XRP/USD": make_frame(scaled(market(DAYS * 1440, seed=4), price=1e-4, volume=1e6)),
    }


@pytest.fixture(scope="module")
def pool(frames: dict[str, Frame]) -> pooling.Pool:
    return pool_of(frames)


def test_the_inputs_of_the_trees_do_not_depend_on_the_units_of_a_market() -> None:
    bars = market(2 * 1440)
    bars["volume"] += 1.0
    one, other = (make_frame(each) for each in (bars, scaled(bars, price=1e-4, volume=1e6)))
    volumes = [place for place, name in enumerate(catalogue.MODEL_FEATURES) if name.startswith("log_volume_")]
    assert np.nanmin(np.abs(one.matrix[:, volumes] - other.matrix[:, volumes])) > 10.0
    log_variance = one.matrix[:, catalogue.MODEL_FEATURES.index("log_rv_5m")] + 0.3
    first, second = (pooling.relative_inputs(frame.matrix, log_variance, -14.0) for frame in (one, other))
    assert first.shape == (len(one.matrix), len(pooling.RELATIVE_FEATURES))
    assert np.allclose(first, second, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_the_inputs_of_the_trees_do_not_depend_on_how_wild_a_market_is() -> None:
    frame = make_frame(market(2 * 1440))
    names = catalogue.MODEL_FEATURES
    factor = 9.0
    wilder = frame.matrix.copy()
    for place, name in enumerate(names):
        if name.startswith(("log_rv_", "log_ewma_", "log_parkinson_", "log_bipower_")):
            wilder[:, place] += 2.0 * np.log(factor)
        elif name.endswith("_bps"):
            wilder[:, place] *= factor
    log_variance = frame.matrix[:, names.index("log_rv_5m")]
    calm = pooling.relative_inputs(frame.matrix, log_variance, -14.0)
    wild = pooling.relative_inputs(wilder, log_variance + 2.0 * np.log(factor), -14.0 + 2.0 * np.log(factor))
    assert np.allclose(calm, wild, equal_nan=True)


def test_a_feature_with_a_unit_that_pooled_trees_do_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    feature = catalogue.FEATURES[0]
    monkeypatch.setattr(pooling, "FEATURES", (msgspec.structs.replace(feature, unit="BTC"), *catalogue.FEATURES[1:]))
    with pytest.raises(SchemaError, match=f"{feature.name} has the unit 'BTC'"):
        pooling._kinds()


def test_a_pooled_model_forecasts_every_market_at_its_own_level(frames: dict[str, Frame], pool: pooling.Pool) -> None:
    for frame in frames.values():
        train, test = frame.last_days(DAYS), frame.last_days(2.0)
        model = fitting.fit_volatility(train, SMALL, pool=pool)
        assert (model.kind, model.manifest.pool) == ("xgboost", pool.symbols)
        forecast, actual = model.predict(test.matrix)[:, -1], np.sqrt(test.realized[:, -1]) * 1e4
        assert 0.5 < np.median(forecast) / np.median(actual) < 2.0
        harx = model.as_baseline()
        assert (harx.kind, harx.manifest.pool) == ("harx", ())
        assert np.array_equal(harx.predict(test.matrix), model.baseline(test.matrix))


def test_a_market_with_hours_of_bars_gets_the_pooled_trees(frames: dict[str, Frame], pool: pooling.Pool) -> None:
    young = frames["XRP/USD"].last_days(0.5)
    assert fitting.fit_volatility(young, SMALL).kind == "harx"
    model = fitting.fit_volatility(young, SMALL, pool=pool)
    assert model.kind == "xgboost"
    assert np.isfinite(model.predict(young.matrix)).all()


def test_the_trees_see_no_row_after_their_time_and_are_grown_once(frames: dict[str, Frame]) -> None:
    border = int(frames["BTC/USD"].origin_ns[0]) + 12 * NS_PER_DAY
    changed = {}
    for symbol, frame in frames.items():
        realized, bid = frame.realized.copy(), frame.bid_bps.copy()
        later = frame.origin_ns > border
        realized[later] *= 50.0
        bid[later] *= -3.0
        changed[symbol] = Frame(frame.origin_ns, frame.matrix, realized, bid)
    pools = [pool_of(each) for each in (frames, changed)]
    for trees in ("volatility_trees", "bid_trees"):
        one, other = (getattr(each, trees)(border) for each in pools)
        assert [booster.save_raw() for booster in one] == [booster.save_raw() for booster in other]
        assert getattr(pools[0], trees)(border + 1) is one
        assert getattr(pools[0], trees)(border + NS_PER_DAY) is not one


def test_no_market_gives_more_rows_than_its_share(frames: dict[str, Frame]) -> None:
    frame = frames["BTC/USD"]
    rows = pooling.pool_rows("BTC/USD", frame, np.zeros((len(frame.origin_ns), len(HORIZONS_MIN))), 100)
    assert 50 < len(rows.origin_ns) <= 100
    spacing_ns = np.diff(rows.origin_ns)
    assert spacing_ns.min() == spacing_ns.max()


def test_pooled_bundles_load_as_they_were_saved_and_explain_themselves(
    frames: dict[str, Frame], pool: pooling.Pool, tmp_path: Path
) -> None:
    frame = frames["XRP/USD"]
    rows, sigma = frame.matrix[::50], np.full((len(frame.matrix[::50]), len(HORIZONS_MIN)), 8.0)
    volatility, bid = fitting.fit_volatility(frame, SMALL, pool=pool), fitting.fit_bid(frame, SMALL, pool=pool)
    assert bid.manifest.pool == pool.symbols
    assert bid.as_baseline().manifest.pool == ()
    for number, model in enumerate((volatility, bid)):
        model.save(tmp_path / str(number), bundle.golden_rows(frame.matrix))
    loaded, loaded_bid = (bundle.load_bundle(tmp_path / str(number)) for number in range(2))
    assert isinstance(loaded, bundle.VolatilityModel)
    assert isinstance(loaded_bid, bundle.BidModel)
    assert np.array_equal(loaded.predict(rows), volatility.predict(rows))
    assert np.array_equal(loaded_bid.predict(rows, sigma), bid.predict(rows, sigma))
    for place in (0, 7):
        one = rows[place : place + 1]
        assert loaded.predict(one)[0] == pytest.approx(volatility.predict(rows)[place], rel=1e-6)
        parts = explain(loaded, one)
        assert set(parts.trees) == set(pooling.RELATIVE_FEATURES)
        assert np.exp(0.5 * parts.log_variance) * 1e4 == pytest.approx(loaded.predict(one)[0, -1], rel=1e-4)
        assert parts.base + parts.harx + parts.offset + sum(parts.trees.values()) == pytest.approx(parts.log_variance)
    assert set(mean_effects(loaded_bid, rows)) == set(pooling.RELATIVE_FEATURES)
