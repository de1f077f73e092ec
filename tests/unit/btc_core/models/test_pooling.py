"""The pooled fit: its inputs have no scale, its trees and net see nothing after their time, and each market keeps its own level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY
from btc_core.errors import SchemaError
from btc_core.features import catalogue
from btc_core.features.catalogue import DEPTH_FEATURES, LEADER_FEATURES, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS
from btc_core.models import bundle, fitting, pooling
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.explain import explain, mean_effects
from btc_core.models.model_rows import has_columns
from btc_core.models.net import INPUTS, Net, net_inputs
from btc_core.models.recipe import RECIPE
from btc_core.models.trainers import in_memory
from btc_core.models.trees import Forest
from btc_core.names import HORIZONS_MIN
from tests.unit.btc_core.models.test_bundle import market

if TYPE_CHECKING:
    from pathlib import Path

    import xgboost

DAYS = 16
SMALL = msgspec.structs.replace(
    RECIPE,
    volatility=msgspec.structs.replace(
        RECIPE.volatility,
        trees=40,
        net=msgspec.structs.replace(RECIPE.volatility.net, hidden=(8, 4), seeds=2, epochs=2),
    ),
    bid=msgspec.structs.replace(RECIPE.bid, trees=5, max_dm_t=1e9, validation_parts=1),
)
"""The shipped recipe with few trees and a small net, and a bid whose λ is chosen without a test."""


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
    first, second = (pooling.relative_columns(frame.columns, log_variance) for frame in (one, other))
    assert np.allclose(first, second, rtol=1e-4, atol=1e-4, equal_nan=True)


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


def test_the_minute_columns_do_not_depend_on_how_wild_a_market_is_either() -> None:
    factor = 3.0
    bars = market(2 * 1440)
    wild = bars.copy()
    for name in ("open", "high", "low", "close"):
        wild[name] = bars["open"][0] * (bars[name] / bars["open"][0]) ** factor
    frames = make_frame(bars), make_frame(wild)
    logs = np.full(len(frames[0].columns), -13.0)
    calm, wilder = (
        pooling.relative_columns(frame.columns, level)
        for frame, level in zip(frames, (logs, logs + 2.0 * np.log(factor)), strict=True)
    )
    differs = ~np.isclose(calm, wilder, rtol=1e-3, atol=1e-3, equal_nan=True).all(axis=0)
    assert not differs.any(), [name for name, each in zip(COLUMNS, differs, strict=True) if each]


def test_the_net_reads_of_the_pool_what_it_reads_of_one_market(frames: dict[str, Frame]) -> None:
    for symbol, frame in frames.items():
        logs = fitting.pool_log_variance(frame, SMALL)
        rows = pooling.pool_rows(symbol, frame, logs, len(frame.origin_ns))
        known = np.isin(frame.origin_ns, rows.origin_ns)
        assert np.array_equal(known, has_columns(frame.columns))
        expected = net_inputs(frame.matrix[known], frame.columns[known], logs[known, -1])
        pooled = pooling._stacked([rows], pooling._NET_PLACES)
        assert np.allclose(pooled, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


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
        forecast, actual = model.predict(test.matrix, test.columns)[:, -1], np.sqrt(test.realized[:, -1]) * 1e4
        assert 0.5 < np.median(forecast) / np.median(actual) < 2.0
        harx = model.as_baseline()
        assert (harx.kind, harx.manifest.pool) == ("harx", ())
        assert np.array_equal(harx.predict(test.matrix, test.columns), model.baseline(test.matrix))
        for sigma in model.members(test.matrix, test.columns).values():
            assert 0.5 < np.median(sigma[:, -1]) / np.median(actual) < 2.0


def test_a_market_with_hours_of_bars_gets_the_pooled_trees(frames: dict[str, Frame], pool: pooling.Pool) -> None:
    young = frames["XRP/USD"].last_days(0.5)
    assert fitting.fit_volatility(young, SMALL).kind == "harx"
    model = fitting.fit_volatility(young, SMALL, pool=pool)
    assert model.kind == "xgboost"
    assert not np.array_equal(model.predict(young.matrix, young.columns), model.baseline(young.matrix))
    assert np.isfinite(model.predict(young.matrix, young.columns)).all()


def test_a_market_without_half_a_day_of_bars_has_no_pooled_trees_yet(pool: pooling.Pool) -> None:
    assert fitting.fit_volatility(make_frame(market(700, seed=5)), SMALL, pool=pool).kind == "harx"


def saved(member: xgboost.Booster | Net) -> bytes:
    return member.to_bytes() if isinstance(member, Net) else bytes(member.save_raw())


def test_trees_and_net_see_no_row_after_their_time_and_are_fitted_once(frames: dict[str, Frame]) -> None:
    border = int(frames["BTC/USD"].origin_ns[0]) + 12 * NS_PER_DAY
    border -= border % (NS_PER_DAY // 4)
    changed = {}
    for symbol, frame in frames.items():
        realized, bid, columns = frame.realized.copy(), frame.bid_bps.copy(), frame.columns.copy()
        later = frame.origin_ns > border
        columns[later] += 1.0
        realized[later] *= 50.0
        bid[later] *= -3.0
        changed[symbol] = Frame(frame.origin_ns, frame.matrix, columns, realized, bid)
    pools = [pool_of(each) for each in (frames, changed)]
    for fitted in (pooling.Pool.volatility_members, pooling.Pool.bid_trees):
        one, other = ([saved(member) for member in fitted(each, border)] for each in pools)
        assert one == other
        assert fitted(pools[0], border + 1) is fitted(pools[0], border)
        assert fitted(pools[0], border + NS_PER_DAY) is not fitted(pools[0], border)
        later = ([saved(member) for member in fitted(each, border + 2 * NS_PER_DAY)] for each in pools)
        assert all(one != other for one, other in zip(*later, strict=True)), "what came in between is seen"


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
    rows, columns = frame.matrix[::50], frame.columns[::50]
    sigma = np.full((len(rows), len(HORIZONS_MIN)), 8.0)
    volatility, bid = fitting.fit_volatility(frame, SMALL, pool=pool), fitting.fit_bid(frame, SMALL, pool=pool)
    assert bid.manifest.pool == pool.symbols
    assert bid.as_baseline().manifest.pool == ()
    volatility.save(tmp_path / "0", bundle.golden_rows(frame.sample()))
    bid.save(tmp_path / "1", bundle.golden_rows(frame.sample()))
    loaded, loaded_bid = (bundle.load_bundle(tmp_path / str(number)) for number in range(2))
    assert isinstance(loaded, bundle.VolatilityModel)
    assert isinstance(loaded_bid, bundle.BidModel)
    assert np.array_equal(loaded.predict(rows, columns), volatility.predict(rows, columns))
    assert np.array_equal(loaded_bid.predict(rows, sigma), bid.predict(rows, sigma))
    for place in (9, 17):
        one, its = rows[place : place + 1], columns[place : place + 1]
        forecast = loaded.predict(one, its)[0]
        assert forecast == pytest.approx(volatility.predict(rows, columns)[place], rel=1e-6)
        parts = explain(loaded, one, its)
        assert set(parts.trees) == set(pooling.POOLED_TREE_INPUTS)
        assert np.exp(0.5 * parts.log_variance) * 1e4 == pytest.approx(forecast[-1], rel=1e-4)
        total = parts.base + parts.harx + parts.net + parts.offset + sum(parts.trees.values())
        assert total == pytest.approx(parts.log_variance)
    assert set(mean_effects(loaded, frame.sample(50))) == set(pooling.POOLED_TREE_INPUTS)
    assert set(mean_effects(loaded_bid, rows)) == set(pooling.RELATIVE_FEATURES)


def test_compiled_sums_of_pooled_trees_are_checked_on_the_inputs_that_they_read(
    frames: dict[str, Frame], pool: pooling.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = frames["XRP/USD"].last_days(1.0)
    model = fitting.fit_volatility(frame, SMALL, pool=pool)
    seen: list[np.ndarray] = []
    monkeypatch.setattr(Forest, "check_against_xgboost", lambda _forest, inputs: seen.append(inputs))
    model.check_against_xgboost(frame.matrix, frame.columns)
    assert seen[0].shape == (len(frame.matrix), len(pooling.POOLED_TREE_INPUTS))
    above = model.harx.log_variance(frame.harx_inputs)[:, -1] - model.manifest.level
    assert np.allclose(seen[0][:, pooling.POOLED_TREE_INPUTS.index(pooling.HARX_OVER_LEVEL)], above, atol=1e-4)


def test_features_of_the_order_book_and_of_the_leader_lose_their_scale_and_the_net_reads_none_of_them() -> None:
    added = {*DEPTH_FEATURES, *LEADER_FEATURES}
    assert added <= set(MODEL_FEATURES)
    assert not added & set(INPUTS)
    matrix = np.ones((1, len(MODEL_FEATURES)))
    calm, wild = (pooling.relative_inputs(matrix, np.array([log]), 0.0)[0] for log in (-18.0, -14.0))
    depends = {name for place, name in enumerate(MODEL_FEATURES) if calm[place] != wild[place]} & added
    assert depends == {name for name in LEADER_FEATURES if "_rv_" in name or name.endswith("_bps")}
