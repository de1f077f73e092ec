"""A bundle loads as it was saved or is refused, and training finds skill only where there is some."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from btc_assets import training
from btc_core import names
from btc_core.clock import NS_PER_MIN, column_ns
from btc_core.errors import NotReady, SchemaError
from btc_core.features import catalogue
from btc_core.market.bars import BARS
from btc_core.models import bundle, dataset, fitting, gate, model_rows
from btc_core.models.baselines import fit_autoregression
from btc_core.models.manifest import LAYOUT, Manifest, new_manifest
from btc_core.models.recipe import RECIPE
from btc_core.models.trees import Forest
from tests.paths import DATA

if TYPE_CHECKING:
    from pathlib import Path

START_NS = 1_700_000_040_000_000_000 // NS_PER_MIN * NS_PER_MIN
MICRO = [i for i, f in enumerate(catalogue.MODEL_FEATURES) if f not in catalogue.BAR_FEATURES]


def market(minutes: int, seed: int = 3) -> np.ndarray:
    """Minute bars whose volatility clusters: log σ is an AR(1) with a half-life of about half an hour."""
    rng = np.random.default_rng(seed)
    log_sigma = np.empty(minutes)
    log_sigma[0] = 0.0
    shocks = rng.normal(0.0, 0.15, minutes)
    for i in range(1, minutes):
        log_sigma[i] = 0.98 * log_sigma[i - 1] + shocks[i]
    moves = rng.normal(size=(minutes, 6)) * (5e-4 / np.sqrt(6.0) * np.exp(log_sigma))[:, np.newaxis]
    path = moves.cumsum(axis=1)
    ends = path[:, -1].cumsum()
    starts = ends - path[:, -1]
    bars = np.zeros(minutes, BARS)
    bars["ts_ns"] = START_NS + np.arange(minutes) * NS_PER_MIN
    bars["open"], bars["close"] = 30_000.0 * np.exp(starts), 30_000.0 * np.exp(ends)
    bars["high"] = 30_000.0 * np.exp(starts + np.maximum(path.max(axis=1), 0.0))
    bars["low"] = 30_000.0 * np.exp(starts + np.minimum(path.min(axis=1), 0.0))
    bars["volume"] = np.exp(log_sigma + rng.normal(0.0, 0.3, minutes))
    return bars


@pytest.fixture(scope="module")
def frame() -> dataset.Frame:
    return dataset.make_frame(market(30 * 1440))


@pytest.fixture(scope="module")
def volatility(frame: dataset.Frame) -> bundle.VolatilityModel:
    model = training.train_volatility(frame).model
    assert isinstance(model, bundle.VolatilityModel)
    return model


@pytest.fixture(scope="module")
def trees(frame: dataset.Frame) -> bundle.VolatilityModel:
    """A model with trees, whether or not the gate would let them serve."""
    model = fitting.fit_volatility(frame)
    assert model.kind == "xgboost"
    return model


@pytest.fixture(scope="module")
def bid(frame: dataset.Frame) -> bundle.BidModel:
    boosters = fitting.grow_bid(frame, np.full((len(frame.origin_ns), 5), 8.0))
    manifest = new_manifest(names.BID_MODEL, "xgboost", shrinkage=(0.0, 0.25, 0.5, 0.75, 1.0))
    return bundle.BidModel(manifest, boosters, fit_autoregression(frame.matrix, frame.bid_bps))


def test_training_finds_skill_in_a_market_with_clustered_volatility(volatility: bundle.VolatilityModel) -> None:
    scores = volatility.manifest.scores
    served = scores[f"{volatility.kind}/5m/qlike"]
    assert served < 0.6 * scores["naive/5m/qlike"]
    assert served <= 1.02 * scores["har/5m/qlike"]
    assert scores[f"{volatility.kind}/5m/r2_log"] > 0.2


def test_shuffled_labels_leave_no_skill(frame: dataset.Frame) -> None:
    order = np.random.default_rng(5).permutation(len(frame.origin_ns))
    shuffled = dataset.Frame(frame.origin_ns, frame.matrix, frame.columns, frame.realized[order], frame.bid_bps[order])
    model = training.train_volatility(shuffled).model
    assert model.kind == "harx"
    assert model.manifest.scores["harx/5m/r2_log"] < 0.02
    assert model.manifest.scores["xgboost/5m/r2_log"] < 0.02
    walk = training.train_bid(shuffled).model
    assert isinstance(walk, bundle.BidModel)
    assert np.abs(walk.baseline_forecasts(frame.matrix)["ar"]).mean() < 0.1 * np.abs(frame.bid_bps).mean()
    assert all(walk.manifest.scores[f"model/{h}m/mse_ratio"] > 0.99 for h in range(1, 6))


def test_a_market_without_a_trend_is_a_random_walk(frame: dataset.Frame) -> None:
    model = training.train_bid(frame).model
    assert model.kind == "random_walk"
    assert all(0.99 < model.manifest.scores[f"model/{h}m/mse_ratio"] < 1.01 for h in range(1, 6))


@pytest.mark.parametrize(("beats", "kind"), [(True, "xgboost"), (False, "random_walk")])
def test_trees_of_the_bid_serve_where_they_gained_if_the_gate_says_so(
    frame: dataset.Frame, bid: bundle.BidModel, monkeypatch: pytest.MonkeyPatch, *, beats: bool, kind: str
) -> None:
    monkeypatch.setattr(fitting, "fit_bid", lambda *_, **__: bid)  # it was fitted on the block, so it gains there
    verdict = gate.Verdict(passed=True, beats_baselines=beats, reason="stub")
    monkeypatch.setattr(gate, "refresh", lambda *_: verdict)
    model = training.train_bid(frame).model
    assert model.kind == kind
    assert model.manifest.shrinkage == (bid.manifest.shrinkage if beats else (0.0,) * 5)


@pytest.mark.parametrize("quantity", ["volatility", "bid"])
def test_a_champion_is_compared_only_where_it_was_not_fitted(
    frame: dataset.Frame, trees: bundle.VolatilityModel, bid: bundle.BidModel, monkeypatch: pytest.MonkeyPatch,
    quantity: str,
) -> None:  # fmt: skip
    compared = []

    def refresh(losses: np.ndarray, champion: np.ndarray, _baselines: object, **_: object) -> gate.Verdict:
        compared.append((losses, champion))
        return gate.Verdict(passed=True, reason="stub")

    monkeypatch.setattr(gate, "refresh", refresh)
    _before, block = training.hold_out(frame)
    trained_to_ns = int(block.origin_ns[1000])
    if quantity == "volatility":
        known = msgspec.structs.replace(trees.manifest, trained_to_ns=trained_to_ns)
        training.train_volatility(frame, trees.with_manifest(known))
    else:
        monkeypatch.setattr(
            fitting, "fit_bid", lambda *_, **__: bid
        )  # trees without a proven λ are compared with no champion
        known = msgspec.structs.replace(bid.manifest, trained_to_ns=trained_to_ns)
        training.train_bid(frame, bundle.BidModel(known, bid.boosters, bid.autoregression))
    ((losses, champion),) = compared
    new = block.origin_ns > trained_to_ns + RECIPE.dataset.embargo_ns
    assert 0 < new.sum() < len(new) - 1000
    assert np.array_equal(np.isfinite(champion), new)
    assert np.isfinite(losses).all()


def test_changing_the_future_changes_no_feature_and_no_forecast(trees: bundle.VolatilityModel) -> None:
    bars = market(3000)
    other = bars.copy()
    for name in ("open", "high", "low", "close", "volume"):
        other[name][2000:] *= 1.5
    every_minute = msgspec.structs.replace(RECIPE.dataset, origin_step_min=1)
    before, after = (dataset.make_frame(each, every_minute) for each in (bars, other))
    known = before.origin_ns <= bars["ts_ns"][1999] + NS_PER_MIN - 6 * NS_PER_MIN
    same = after.origin_ns <= bars["ts_ns"][1999] + NS_PER_MIN - 6 * NS_PER_MIN
    assert np.array_equal(before.matrix[known], after.matrix[same], equal_nan=True)
    assert np.array_equal(before.columns[known], after.columns[same], equal_nan=True)
    forecasts = [
        trees.predict(each.matrix[rows], each.columns[rows]) for each, rows in ((before, known), (after, same))
    ]
    assert np.array_equal(*forecasts)
    assert not np.array_equal(forecasts[0], trees.baseline(before.matrix[known]))
    assert np.array_equal(before.realized[known], after.realized[same])


def test_no_row_of_the_test_block_is_within_the_embargo_of_a_fitted_row(frame: dataset.Frame) -> None:
    for before, after in (dataset.split_by_time(frame, 0.8, RECIPE.dataset.embargo_ns), training.hold_out(frame)):
        gap = after.origin_ns.min() - before.origin_ns.max()
        assert gap >= RECIPE.dataset.embargo_ns >= 10 * NS_PER_MIN


def test_features_that_bars_do_not_hold_have_no_effect_when_they_arrive_live(
    frame: dataset.Frame, trees: bundle.VolatilityModel, bid: bundle.BidModel
) -> None:
    assert np.isnan(frame.matrix[:, MICRO]).all()
    live = frame.matrix[:500].copy()
    live[:, MICRO] = np.random.default_rng(6).normal(0.0, 100.0, (500, len(MICRO)))
    columns = frame.columns[:500]
    sigma = trees.predict(live, columns)
    assert np.array_equal(sigma, trees.predict(frame.matrix[:500], columns))
    assert np.array_equal(bid.predict(live, sigma), bid.predict(frame.matrix[:500], sigma))


def test_a_saved_bundle_loads_and_gives_the_same_numbers(
    frame: dataset.Frame, trees: bundle.VolatilityModel, bid: bundle.BidModel, tmp_path: Path
) -> None:
    golden = bundle.golden_rows(frame.sample())
    trees.save(tmp_path / "volatility", golden)
    bid.save(tmp_path / "bid", golden)
    loaded, loaded_bid = bundle.load_bundle(tmp_path / "volatility", "7"), bundle.load_bundle(tmp_path / "bid")
    assert isinstance(loaded, bundle.VolatilityModel)
    assert isinstance(loaded_bid, bundle.BidModel)
    assert (loaded.version, loaded.kind) == ("7", "xgboost")
    sigma = trees.predict(frame.matrix, frame.columns)
    assert np.array_equal(loaded.predict(frame.matrix, frame.columns), sigma)
    assert not np.array_equal(sigma, trees.baseline(frame.matrix))
    assert np.array_equal(loaded.baseline(frame.matrix), trees.baseline(frame.matrix))
    assert np.array_equal(loaded_bid.predict(frame.matrix, sigma), bid.predict(frame.matrix, sigma))
    assert np.array_equal(loaded_bid.baseline_forecasts(frame.matrix)["ar"], bid.baseline_forecasts(frame.matrix)["ar"])
    assert loaded_bid.as_baseline().autoregression == bid.autoregression


def test_one_row_at_a_time_gives_the_numbers_of_a_batch_to_the_last_bit(
    frame: dataset.Frame, trees: bundle.VolatilityModel, bid: bundle.BidModel
) -> None:
    missing = np.random.default_rng(8).random(frame.matrix[:300].shape) < 0.1
    matrix = np.where(missing, np.nan, frame.matrix[:300])
    for model in (trees, bid):
        rows = model_rows.tree_inputs(matrix, frame.columns[:300]) if model is trees else matrix
        assert model._forest is not None
        one = np.vstack([model._forest.margins(rows[i : i + 1]) for i in range(len(rows))])
        assert np.array_equal(one, model._forest.margins(rows))


def test_sigma_is_positive_and_never_falls_with_the_horizon(
    frame: dataset.Frame, trees: bundle.VolatilityModel
) -> None:
    sigma = trees.predict(frame.matrix, frame.columns)
    assert (sigma > 0.0).all()
    assert (np.diff(sigma, axis=1) >= 0.0).all()


def test_a_lambda_of_zero_serves_the_bid_itself(frame: dataset.Frame, bid: bundle.BidModel) -> None:
    sigma = np.full((10, 5), 8.0)
    path = bundle.bid_path(30_000.0, bid.predict(frame.matrix[:10], sigma))
    assert (path[:, 0] == 30_000.0).all()
    assert (path[:, 4] != 30_000.0).any()
    assert not bundle.random_walk_model().predict(frame.matrix[:10], sigma).any()


@pytest.mark.parametrize("name", ["trees.ubj", "net.npz", "harx.json", "baselines.json", "golden.npz", "bundle.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_bundle_is_refused(
    frame: dataset.Frame, trees: bundle.VolatilityModel, tmp_path: Path, name: str, damage: str
) -> None:
    trees.save(tmp_path, bundle.golden_rows(frame.sample()))
    file = tmp_path / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2 if name != "bundle.json" else 0] ^= 0xFF
        file.write_bytes(bytes(data))
    elif damage == "cut":
        file.write_bytes(bytes(data[: len(data) // 2]))
    else:
        file.unlink()
    with pytest.raises(SchemaError):
        bundle.load_bundle(tmp_path)


def test_a_net_of_another_model_is_refused_by_the_golden_batch_even_with_a_matching_hash(
    frame: dataset.Frame, trees: bundle.VolatilityModel, tmp_path: Path
) -> None:
    trees.save(tmp_path, bundle.golden_rows(frame.sample()))
    assert trees.net is not None
    data = msgspec.structs.replace(trees.net, centre=trees.net.centre + 0.1).to_bytes()
    (tmp_path / "net.npz").write_bytes(data)
    manifest = msgspec.json.decode((tmp_path / "bundle.json").read_bytes(), type=Manifest)
    files = {**manifest.files, "net.npz": hashlib.sha256(data).hexdigest()}
    (tmp_path / "bundle.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=files)))
    with pytest.raises(SchemaError, match="golden batch"):
        bundle.load_bundle(tmp_path)


def test_other_minute_columns_are_refused(tmp_path: Path) -> None:
    other = msgspec.structs.replace(bundle.random_walk_model().manifest, columns_version="0123456789ab")
    bundle.BidModel(other).save(tmp_path, np.zeros((1, len(catalogue.MODEL_FEATURES))))
    with pytest.raises(SchemaError, match=r"minute columns 0123456789ab.*train again"):
        bundle.load_bundle(tmp_path)


def test_a_row_without_columns_has_the_forecast_of_harx(frame: dataset.Frame, trees: bundle.VolatilityModel) -> None:
    columns = frame.columns[:20].copy()
    columns[::2] = np.nan
    found = trees.predict(frame.matrix[:20], columns)
    harx, full = trees.baseline(frame.matrix[:20]), trees.predict(frame.matrix[:20], frame.columns[:20])
    known = model_rows.has_columns(columns)
    assert np.array_equal(found[~known], harx[~known])
    assert np.array_equal(found[known], full[known])
    assert bundle.served_kinds(trees, columns) == ["xgboost" if each else "harx" for each in known]
    assert np.array_equal(trees.predict(frame.matrix[:20]), harx)


def test_the_forecast_corrects_harx_by_a_multiple_of_the_mean_of_its_members(
    frame: dataset.Frame, trees: bundle.VolatilityModel
) -> None:
    known = model_rows.has_columns(frame.columns)
    rows, columns = frame.matrix[known], frame.columns[known]
    members = trees.members(rows, columns)
    shares = trees.manifest.members
    assert sum(member.share for member in shares.values()) == 1.0
    mean = sum(shares[name].share * np.log(sigma[:, -1]) for name, sigma in members.items())
    harx = np.log(trees.baseline(rows)[:, -1])
    factor = trees.manifest.correction_factor
    assert factor == RECIPE.volatility.correction_factor > 1.0
    five = harx + factor * (mean - harx)
    offset = 0.5 * trees.manifest.offsets[-1]
    is_mean = np.isclose(np.log(trees.predict(rows, columns)[:, -1]), five + offset, atol=1e-9)
    assert is_mean.mean() > 0.95, "in the others, σ was kept from falling with the horizon"
    assert trees.as_baseline().members(rows, columns) == {}


def test_another_feature_set_is_refused_with_both_versions(tmp_path: Path) -> None:
    model = bundle.random_walk_model()
    other = msgspec.structs.replace(model.manifest, feature_version="0123456789ab")
    bundle.BidModel(other).save(tmp_path, np.zeros((1, len(catalogue.MODEL_FEATURES))))
    with pytest.raises(SchemaError, match=f"0123456789ab.*{catalogue.FEATURE_VERSION}"):
        bundle.load_bundle(tmp_path)


def test_another_feature_list_is_refused(tmp_path: Path) -> None:
    names = tuple(reversed(catalogue.MODEL_FEATURES))
    other = msgspec.structs.replace(bundle.random_walk_model().manifest, features=names)
    bundle.BidModel(other).save(tmp_path, np.zeros((1, len(names))))
    with pytest.raises(SchemaError, match="train again"):
        bundle.load_bundle(tmp_path)


def test_a_bundle_of_another_layout_is_refused(tmp_path: Path) -> None:
    older = msgspec.structs.replace(bundle.random_walk_model().manifest, layout=LAYOUT - 1)
    bundle.BidModel(older).save(tmp_path, np.zeros((1, len(catalogue.MODEL_FEATURES))))
    with pytest.raises(SchemaError, match=f"layout {LAYOUT - 1}, .*layout {LAYOUT}; train again"):
        bundle.load_bundle(tmp_path)


def test_rows_of_another_width_are_refused(volatility: bundle.VolatilityModel) -> None:
    with pytest.raises(SchemaError, match=r"takes \d+ features"):
        volatility.predict(np.zeros((1, 3)))


def test_a_few_hours_of_bars_give_the_flagged_baseline(tmp_path: Path) -> None:
    bars = market(400)
    model = fitting.harx_bundle(bars)
    assert model.kind == "harx"
    rows = dataset.make_frame(market(700)).matrix
    assert np.isfinite(model.predict(rows)).all()
    assert np.array_equal(model.predict(rows), model.baseline(rows))
    model.save(tmp_path, bundle.golden_rows(rows))
    assert bundle.load_bundle(tmp_path).kind == "harx"


def test_too_few_bars_for_the_baseline_are_refused() -> None:
    with pytest.raises(NotReady, match="at least 60"):
        fitting.harx_bundle(market(30))
    with pytest.raises(NotReady, match="too few"):
        fitting.harx_bundle(market(30)[:0])


REAL = DATA / "btcusdt_1m_2022_2023.parquet"


@pytest.mark.skipif(not REAL.is_file(), reason=f"no real minute bars at {REAL}")
def test_on_real_minutes_the_served_model_beats_every_simple_baseline_out_of_sample() -> None:
    table = pq.read_table(REAL)
    stamps = column_ns(table["ts"])
    from_ns = 1_656_633_600_000_000_000  # 2022-07-01, 60 days: chosen before any score was seen
    chosen = (stamps >= from_ns) & (stamps < from_ns + 60 * 86_400_000_000_000)
    bars = np.zeros(int(chosen.sum()), BARS)
    bars["ts_ns"] = stamps[chosen]
    for name in ("open", "high", "low", "close", "volume"):
        bars[name] = table[name].to_numpy()[chosen]
    model = training.train_volatility(dataset.make_frame(bars)).model
    scores = model.manifest.scores
    served = scores[f"{model.kind}/5m/qlike"]
    print({key: round(value, 4) for key, value in scores.items() if "/5m/qlike" in key}, model.kind)
    assert served < min(scores[f"{name}/5m/qlike"] for name in ("naive", "ewma", "har"))
    assert served <= scores["harx/5m/qlike"]


def test_an_explanation_adds_up_to_the_forecast(frame: dataset.Frame, trees: bundle.VolatilityModel) -> None:
    from btc_core.models.explain import explain

    for index in (1_000, 2_000):
        row, columns = frame.matrix[index : index + 1], frame.columns[index : index + 1]
        parts = explain(trees, row, columns)
        total = parts.base + parts.harx + parts.net + parts.offset + sum(parts.trees.values())
        assert parts.log_variance == pytest.approx(total, abs=1e-6)
        assert np.exp(0.5 * total) * 1e4 == pytest.approx(trees.predict(row, columns)[0, -1], rel=1e-4)
    assert explain(trees.as_baseline(), row, columns).trees == {}


def test_where_the_compiled_sums_differ_from_xgboost_xgboost_serves(
    frame: dataset.Frame, trees: bundle.VolatilityModel, caplog: pytest.LogCaptureFixture
) -> None:
    forest = Forest(trees.boosters)
    rows = model_rows.tree_inputs(frame.matrix[:3], frame.columns[:3])
    expected = forest.margins(rows)
    assert forest.check_against_xgboost(rows)
    leaves = forest._nodes["left"] == -1
    forest._nodes["value"][leaves] += 0.01
    assert not np.array_equal(forest.margins(rows), expected)
    assert not forest.check_against_xgboost(rows)
    assert "XGBoost serves" in caplog.text
    assert np.array_equal(forest.margins(rows), expected)
