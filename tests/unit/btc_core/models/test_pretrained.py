"""The pre-trained model: its file is checked, it has no scale, it sees no future, and it serves from the first hour on."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_assets import training
from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.errors import NotReady, SchemaError
from btc_core.models import bundle, gate, pretrained, pretrained_scores, pretraining
from btc_core.models.dataset import Frame, make_frame
from btc_core.models.harx import fit_harx
from btc_core.models.harx_prior import ShrinkageRecipe, fit_prior, shrunk_harx
from btc_core.models.pretraining import Market, PretrainingRecipe
from btc_core.models.recipe import RECIPE
from btc_core.names import VOLATILITY
from tests.unit.btc_core.models.test_bundle import START_NS, market
from tests.unit.btc_core.models.test_pooling import SMALL, scaled

if TYPE_CHECKING:
    from pathlib import Path

DENSE = msgspec.structs.replace(RECIPE.dataset, min_bars=1)
SMALL_PRETRAINING = PretrainingRecipe(
    base=SMALL, trees=40, net=SMALL.volatility.net, max_rows=4_000, short_starts=6, long_starts=2
)


def source(name: str) -> pretrained.Source:
    return pretrained.Source(name, "0" * 64, name, 1, "2023-11-14T00:00:00+00:00", "2023-11-30T00:00:00+00:00")


def frame_of(bars: np.ndarray) -> Frame:
    return make_frame(bars, DENSE)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of two markets of the same character in different units."""
    other = scaled(market(16 * 1440, seed=4), price=1e-4, volume=1e6)
    markets = [
        Market("BTC/USDT", market(16 * 1440), source("BTC/USDT")),
        Market("XRP/USDT", other, source("XRP/USDT")),
    ]
    origin = {"created": "2026-01-01", "command": "btc pretrain", "versions": {}}
    path = tmp_path_factory.mktemp("pretrained") / "small.zip"
    pretrained.save(path, *pretraining.fit(markets, SMALL_PRETRAINING, origin))
    return path


@pytest.fixture(scope="module")
def small(file: Path) -> pretrained.Pretrained:
    return pretrained.load(file)


def changed(file: Path, path: Path, name: str, data: bytes) -> Path:
    """A copy of the file with another entry."""
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(path, "w") as copy:
        for entry in archive.namelist():
            copy.writestr(entry, data if entry == name else archive.read(entry))
    return path


def manifest_of(file: Path) -> dict[str, object]:
    with zipfile.ZipFile(file) as archive:
        found: dict[str, object] = json.loads(archive.read(pretrained.MANIFEST))
    return found


def test_a_file_is_equal_if_its_contents_are(small: pretrained.Pretrained, file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        arrays = np.load(archive.open(pretrained.GOLDEN), allow_pickle=False)
        golden = {name: arrays[name] for name in arrays.files}
    pretrained.save(tmp_path / "again.zip", small, golden)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_the_loaded_model_gives_what_xgboost_gave_for_the_golden_batch(file: Path, tmp_path: Path) -> None:
    """The golden batch holds XGBoost's own margins; one that differs is refused."""
    with zipfile.ZipFile(file) as archive:
        arrays = np.load(archive.open(pretrained.GOLDEN), allow_pickle=False)
        golden = {name: arrays[name] for name in arrays.files}
    golden["margins"] = golden["margins"] + np.float32(0.01)
    pretrained.save(tmp_path / "other.zip", pretrained.load(file), golden)
    with pytest.raises(SchemaError, match="does not reproduce the margins of its golden batch"):
        pretrained.load(tmp_path / "other.zip")


@pytest.mark.parametrize("name", [pretrained.HARX, pretrained.TREES, pretrained.NET, pretrained.GOLDEN])
def test_an_altered_entry_is_refused(file: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(SchemaError, match=f"{name} in .* its SHA-256 differs"):
        pretrained.load(changed(file, tmp_path / "altered.zip", name, b"something else"))


def test_a_file_of_an_older_layout_or_of_other_inputs_is_refused(file: Path, tmp_path: Path) -> None:
    older = json.dumps(manifest_of(file) | {"layout": pretrained.LAYOUT - 1}).encode()
    with pytest.raises(SchemaError, match=r"has layout 0, this process reads 1; run `btc pretrain`"):
        pretrained.load(changed(file, tmp_path / "older.zip", pretrained.MANIFEST, older))
    other = json.dumps(manifest_of(file) | {"inputs": "of another version"}).encode()
    with pytest.raises(SchemaError, match=r"reads inputs of another version, .*; run `btc pretrain`"):
        pretrained.load(changed(file, tmp_path / "other.zip", pretrained.MANIFEST, other))


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_a_file_that_cannot_be_read_is_refused_and_harx_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "damaged.zip"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(pretrained, "shipped", lambda: pretrained.load(path))
    model, reason = pretrained.cold_start_model(market(400))
    assert (model.kind, model.manifest.pretrained) == ("harx", "")
    assert reason.startswith("HARX serves, because the pre-trained model")


def test_with_an_hour_of_bars_the_model_serves_and_with_half_an_hour_nothing_does(
    small: pretrained.Pretrained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained, "shipped", lambda: small)
    bars = market(2 * 1440)
    model, reason = pretrained.cold_start_model(bars[:60])
    assert model.kind == "xgboost"
    assert small.digest in reason
    assert model.version == f"pretrained-{small.digest}"
    assert model.manifest.pool == ("BTC/USDT", "XRP/USDT")
    later = frame_of(bars)
    rows = later.between(int(bars["ts_ns"][60]), int(bars["ts_ns"][-1]))
    assert np.isnan(rows.columns[0]).all(), "columns need half a day"
    sigma, harx = model.predict_both(rows.matrix, rows.columns)
    assert np.isfinite(sigma).all()
    assert (sigma != harx).any(axis=1).all()
    assert bundle.served_kinds(model, rows.columns) == ["xgboost"] * len(rows.origin_ns)
    ratio = np.median(sigma[:, -1]) / np.median(np.sqrt(rows.realized[:, -1]) * 1e4)
    assert 0.5 < ratio < 2.0
    model.save(tmp_path, bundle.golden_rows(later.sample()))
    loaded = bundle.load_bundle(tmp_path)
    assert isinstance(loaded, bundle.VolatilityModel)
    assert loaded.manifest.pretrained == small.provenance
    assert np.allclose(loaded.predict(rows.matrix, rows.columns), sigma)
    assert loaded.as_baseline().manifest.pretrained == ""
    with pytest.raises(NotReady, match="at least 30 labelled rows"):
        pretrained.cold_start_model(bars[:30])
    with pytest.raises(NotReady):
        pretrained.cold_start_model(bars[:0])


def test_a_history_that_is_too_short_for_the_file_is_served_by_harx_and_the_reason_says_so(
    small: pretrained.Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    careful = msgspec.structs.replace(small.manifest, min_history_h=6.0)
    monkeypatch.setattr(pretrained, "shipped", lambda: msgspec.structs.replace(small, manifest=careful))
    model, reason = pretrained.cold_start_model(market(300))
    assert model.kind == "harx"
    assert reason.startswith("HARX serves until 6 h of bars are known")
    assert pretrained.cold_start_model(market(400))[0].kind == "xgboost"


def test_a_forecast_has_the_scale_of_its_market(small: pretrained.Pretrained) -> None:
    bars = market(3 * 1440)
    bars["volume"] += 1.0
    wild = scaled(bars, price=1e-4, volume=1e6)
    for name in ("open", "high", "low", "close"):
        wild[name] = wild["open"][0] * (wild[name] / wild["open"][0]) ** 3.0
    for minutes in (90, 1000, len(bars)):
        one, other = (
            pretrained.model_of_bars(small, each[:minutes]).predict(*rows_of(each[:minutes])) for each in (bars, wild)
        )
        assert np.median(other / one) == pytest.approx(3.0, rel=0.05)


def rows_of(bars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frame = frame_of(bars)
    return frame.matrix[-50:], frame.columns[-50:]


def test_harx_is_that_of_other_markets_at_first_and_the_market_s_own_at_last() -> None:
    prior = fit_prior([frame_of(market(20 * 1440, seed=8))])
    variances = [1 + k for k, name in enumerate(prior.terms) if not name.startswith("log_volume_")]
    volumes = [1 + k for k, name in enumerate(prior.terms) if name.startswith("log_volume_")]
    coefficients = np.asarray(prior.coefficients)
    assert np.allclose(coefficients[:, variances].sum(axis=1), 1.0)
    assert not coefficients[:, volumes].any()
    frame = make_frame(market(60 * 1440))
    early = frame_of(market(61))
    little = ShrinkageRecipe()
    young = shrunk_harx(prior, early, little)
    assert np.abs(np.asarray(young.coefficients)[:, variances] - coefficients[:, variances]).max() < 0.05
    own = fit_harx(frame.harx_inputs, frame.realized, frame.days)
    none = ShrinkageRecipe(slope_rows=1.0, constant_rows=1.0)
    logs, wanted = (harx.log_variance(frame.harx_inputs[-500:]) for harx in (shrunk_harx(prior, frame, none), own))
    assert np.abs(logs - wanted).mean() < 0.01
    old, new = (shrunk_harx(prior, each, little).log_variance(frame.harx_inputs[-500:]) for each in (frame, early))
    assert np.abs(old - wanted).mean() < np.abs(new - wanted).mean()


def test_no_forecast_sees_what_comes_after_it(small: pretrained.Pretrained) -> None:
    bars = market(3 * 1440)
    border = START_NS + 2 * NS_PER_DAY
    other = bars.copy()
    late = other["ts_ns"] >= border
    for name in ("open", "high", "low", "close"):
        other[name][late] *= np.linspace(1.0, 1.2, int(late.sum()))
    other["volume"][late] *= 5.0
    first, second = (pretrained_scores.walk(small, each) for each in (bars, other))
    known = first.origin_ns <= border - 5 * NS_PER_MIN
    assert 100 < known.sum() < len(known)
    for name, forecast in first.forecasts.items():
        assert np.array_equal(forecast[known], second.forecasts[name][known]), name
        assert not np.array_equal(forecast[~known], second.forecasts[name][~known]), name


def test_scores_compare_the_model_with_the_best_baseline_at_each_age(small: pretrained.Pretrained) -> None:
    walks = pretrained_scores.fresh_starts(small, market(12 * 1440, seed=11), 3, 2.0)
    ages = pretrained_scores.by_age(walks)
    assert [row["age"] for row in ages] == [name for name, _, _ in pretrained_scores.AGES[:6]][: len(ages)]
    assert all(row["starts"] == 3 and row["ratio_error"] >= 0.0 for row in ages)
    months = pretrained_scores.by_month(walks[0])
    assert sum(row["rows"] for row in months) == len(walks[0].origin_ns)


@pytest.mark.parametrize("price", [1e-3, 100.0])
def test_minutes_without_trades_missing_minutes_and_coarse_ticks_give_finite_forecasts(
    small: pretrained.Pretrained, price: float
) -> None:
    random = np.random.default_rng(3)
    bars = scaled(market(3 * 1440), price=price, volume=1e3)
    tick = bars["close"].mean() * 1e-3
    for name in ("open", "high", "low", "close"):
        bars[name] = np.round(bars[name] / tick) * tick
    silent = random.random(len(bars)) < 0.3
    bars["volume"][silent] = 0.0
    for name in ("open", "high", "low"):
        bars[name][silent] = bars["close"][silent]
    bars = bars[random.random(len(bars)) > 0.05]
    walk = pretrained_scores.walk(small, bars)
    assert len(walk.origin_ns) > 200
    for name, forecast in walk.forecasts.items():
        assert np.isfinite(forecast).all(), name
        assert (forecast > 0.0).all(), name


def test_a_market_without_any_trade_gets_the_floor(small: pretrained.Pretrained) -> None:
    bars = market(300)
    for name in ("open", "high", "low", "close"):
        bars[name] = 100.0
    bars["volume"] = 0.0
    sigma = pretrained.model_of_bars(small, bars).predict(*rows_of(bars))
    assert np.isfinite(sigma).all()
    assert (sigma > 0.0).all()


def test_an_unregistered_model_is_made_again_when_the_history_has_doubled(small: pretrained.Pretrained) -> None:
    manifest = pretrained.model_of_bars(small, market(180)).manifest
    last = manifest.trained_to_ns
    assert not pretrained.is_outgrown(manifest, last + 120 * NS_PER_MIN)
    assert pretrained.is_outgrown(manifest, last + 180 * NS_PER_MIN)
    assert not pretrained.is_outgrown(msgspec.structs.replace(manifest, version="7"), last + NS_PER_DAY)


def test_in_a_new_market_only_a_clearly_better_fit_replaces_the_pretrained_one() -> None:
    random = np.random.default_rng(5)
    pre = random.gamma(2.0, 0.25, 400)
    noise = random.normal(0.0, 0.3, 400)
    little_better = pre * 0.99 + noise - noise.mean()
    assert gate.choose(little_better, None, 1, pre, is_new_market=True).fit == "pretrained"
    assert gate.choose(little_better, None, 1, pre).fit == "own"
    chosen = gate.choose(pre * 0.9, None, 1, pre, is_new_market=True)
    assert chosen.fit == "own"
    assert chosen.reason.startswith("the market's own fit is the candidate: pre-trained loss 1.111")
    three = gate.choose(pre * 0.9, pre * 0.8, 3, pre, is_new_market=True)
    assert three.is_pooled
    assert three.figures["ratio_pretrained_to_own"] == pytest.approx(1.0 / 0.9)
    assert gate.choose(pre, pre * 0.95, 2, pre * 0.9).fit == "pretrained"


def test_in_a_new_market_the_gate_refuses_the_pretrained_model_only_if_it_is_clearly_worse() -> None:
    random = np.random.default_rng(5)
    harx = random.gamma(2.0, 0.25, 400)
    noise = random.normal(0.0, 0.3, 400)
    little_worse = harx * 1.01 + noise - noise.mean()
    judged = gate.refresh(little_worse, None, {"harx": harx}, is_new_market=True, is_pretrained=True)
    assert judged.beats_baselines
    assert not gate.refresh(little_worse, None, {"harx": harx}, is_new_market=True).beats_baselines
    assert not gate.refresh(harx * 1.21, None, {"harx": harx}, is_new_market=True, is_pretrained=True).beats_baselines
    assert not gate.refresh(little_worse, None, {"harx": harx}, is_pretrained=True).beats_baselines


def never_live(_since_ns: int) -> Frame:
    raise AssertionError("nothing is in shadow")


def test_a_new_market_with_half_a_day_of_bars_gets_the_pretrained_model_from_its_training(
    small: pretrained.Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = msgspec.structs.replace(small, manifest=msgspec.structs.replace(small.manifest, trained_to_ns=0))
    monkeypatch.setattr(pretrained, "shipped", lambda: unseen)
    result, _ = training.train(VOLATILITY, market(720, seed=12), None, None, never_live)
    assert result.verdict.passed
    assert result.verdict.beats_baselines
    assert isinstance(result.model, bundle.VolatilityModel)
    assert result.model.kind == "xgboost"
    assert result.model.manifest.pretrained == unseen.provenance
    assert result.model.manifest.choice.startswith("the pre-trained model is the candidate: pre-trained loss")
    assert "pretrained/5m/qlike" in result.model.manifest.scores
    frozen = msgspec.structs.replace(small, manifest=msgspec.structs.replace(small.manifest, trained_to_ns=2**62))
    monkeypatch.setattr(pretrained, "shipped", lambda: frozen)
    judged_by_what_it_was_fitted_on, _ = training.train(VOLATILITY, market(720, seed=12), None, None, never_live)
    assert judged_by_what_it_was_fitted_on.model.manifest.pretrained == ""


def test_the_gate_replaces_a_bad_pretrained_champion_by_the_market_s_own_fit(
    small: pretrained.Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = market(21 * 1440, seed=12)
    wrong = tuple(offset + 1.5 for offset in small.manifest.offsets)
    bad = msgspec.structs.replace(
        small, manifest=msgspec.structs.replace(small.manifest, offsets=wrong, trained_to_ns=0)
    )
    champion = pretrained.model_of_bars(bad, bars[:90])
    monkeypatch.setattr(pretrained, "shipped", lambda: bad)
    result, _ = training.train(VOLATILITY, bars, champion, None, never_live)
    assert result.verdict.passed
    assert result.model.manifest.pretrained == ""
    assert result.model.manifest.choice.startswith("the market's own fit is the candidate")
    assert result.verdict.figures["ratio_pretrained_to_own"] > 1.0


def test_the_shipped_file_fits_this_code_and_holds_no_bars() -> None:
    shipped = pretrained.load(pretrained.SHIPPED)
    assert pretrained.SHIPPED.stat().st_size < 1_000_000
    with zipfile.ZipFile(pretrained.SHIPPED) as archive:
        assert sorted(archive.namelist()) == ["golden.npz", "harx.json", "manifest.json", "net.npz", "trees.ubj"]
    assert shipped.manifest.recipe == PretrainingRecipe().digest, "run `make pretrained`: the recipe has changed"
    assert all(len(each.sha256) >= 64 for each in shipped.manifest.sources)
    model = pretrained.model_of_bars(shipped, market(90))
    assert np.isfinite(model.predict(*rows_of(market(90)))).all()
