"""The walk-forward forecasts a month from what came before it, finds skill where there is some, and reports it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.market.bars import BARS
from btc_core.models import evaluation
from btc_core.models.dataset import make_frame
from btc_core.settings import ModelSettings

if TYPE_CHECKING:
    from pathlib import Path

BEGIN_NS = 1_704_067_200_000_000_000  # 2024-01-01
DAYS = 72
DAYS_ORIGINS = 288


def market(minutes: int) -> np.ndarray:
    """Volatility clusters, and 30 % of a minute's move is reversed in the next minute: both can be forecast."""
    rng = np.random.default_rng(12)
    log_sigma, moves = np.zeros(minutes), np.zeros(minutes)
    shocks, draws = rng.normal(0.0, 0.15, minutes), rng.normal(size=minutes)
    for i in range(1, minutes):
        log_sigma[i] = 0.98 * log_sigma[i - 1] + shocks[i]
        moves[i] = 5e-4 * math.exp(log_sigma[i]) * draws[i] - 0.3 * moves[i - 1]
    close = 40_000.0 * np.exp(moves.cumsum())
    bars = np.zeros(minutes, BARS)
    bars["ts_ns"] = BEGIN_NS + np.arange(minutes) * NS_PER_MIN
    bars["close"], bars["open"] = close, np.concatenate([close[:1], close[:-1]])
    bars["high"], bars["low"] = np.maximum(bars["open"], close) * 1.0001, np.minimum(bars["open"], close) * 0.9999
    bars["volume"] = np.exp(log_sigma)
    return bars


@pytest.fixture(scope="module")
def bars() -> np.ndarray:
    return market(DAYS * 1440)


def test_months_are_fitted_on_as_much_history_as_the_live_system_fits_on() -> None:
    assert ModelSettings().train_days == evaluation.WINDOW_DAYS


def test_borders_of_months_are_months_and_the_ends() -> None:
    day = NS_PER_DAY
    assert evaluation.month_borders(BEGIN_NS + 10 * day, BEGIN_NS + 70 * day) == [
        BEGIN_NS + 10 * day, BEGIN_NS + 31 * day, BEGIN_NS + 60 * day, BEGIN_NS + 70 * day,
    ]  # fmt: skip


def test_a_month_is_forecast_the_same_whatever_comes_after_it(bars: np.ndarray) -> None:
    changed = bars.copy()
    border = BEGIN_NS + 45 * NS_PER_DAY
    late = changed["ts_ns"] >= border
    for name in ("open", "high", "low", "close"):
        changed[name][late] *= np.exp(np.random.default_rng(1).normal(0.0, 1e-3, late.sum()).cumsum())
    changed["high"] = np.max([changed[name] for name in ("open", "high", "low", "close")], axis=0)
    changed["low"] = np.min([changed[name] for name in ("open", "high", "low", "close")], axis=0)
    known, other = (
        evaluation.forecast_block(make_frame(each), border - 5 * NS_PER_DAY, border + NS_PER_DAY, 20.0)
        for each in (bars, changed)
    )
    before = known.origin_ns <= border
    assert 1_000 < int(before.sum()) < len(known.origin_ns)
    assert np.array_equal(known.sigma_bps[before], other.sigma_bps[before])
    assert np.array_equal(known.bid_forecast_bps[before], other.bid_forecast_bps[before])
    assert not np.array_equal(known.sigma_bps[~before], other.sigma_bps[~before])


def test_the_command_finds_the_skill_of_the_models_and_writes_every_figure(bars: np.ndarray, tmp_path: Path) -> None:
    from btc_cli.app import app

    half = len(bars) // 2
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file, part in zip(files, (bars[:half], bars[half:]), strict=True):
        columns = {name: pa.array(part[name]) for name in ("open", "high", "low", "close", "volume")}
        pq.write_table(pa.table({"ts": pa.array(part["ts_ns"], pa.timestamp("ns")), **columns}), file)
    out, report = tmp_path / "found.json", tmp_path / "report.html"
    done = CliRunner().invoke(
        app,
        ["evaluate", "--bars", str(files[0]), str(files[1]), "--from", "2024-02-20", "--to", "2024-03-10",
         "--window-days", "45", "--json", str(out), "--report", str(report), "--processes", "2"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = msgspec.json.decode(out.read_bytes())
    assert found["months"] == ["2024-02", "2024-03"]
    assert found["origins"] == 20 * DAYS_ORIGINS
    model = found["volatility"]["model"]
    assert {"qlike", "r2_log", "gain_vs_har", "dm_t", "months_better", "months"} <= set(model)
    assert set(found["volatility"]) == {"model", "without_level", "trees", "net", "har", "harx", "ewma", "naive"}
    assert sum(found["members"].values()) == 1.0
    assert found["refit"] == "monthly"
    assert [row["months_better"] for row in found["horizons"].values()] == [2] * 5
    assert found["horizons"]["5"]["qlike"] == pytest.approx(model["qlike"])
    assert 0.88 < found["horizons"]["1"]["coverage_90"] < 0.92
    assert found["economic"]["from_volatility"]["target_error"]["difference"] < 0.0
    assert found["economic"]["value_at_risk"]["0.05"]["model"]["breaches"] == pytest.approx(0.05, abs=0.01)
    assert found["economic"]["crps"]["volatility"]["difference"] < 0.0
    assert model["qlike"] < 0.6 * found["volatility"]["naive"]["qlike"]
    assert model["r2_log"] > 0.3
    assert found["price"]["1"]["mse_ratio"] < 0.998
    assert found["price"]["1"]["ar_mse_ratio"] == pytest.approx(1.0 - 0.3**2, abs=0.02)
    assert found["price"]["1"]["ar_dm_t"] < -3
    assert found["price"]["1"]["direction"] > 0.5 + 2 * found["price"]["1"]["direction_se"]
    assert 0.88 < found["intervals"]["90"]["coverage"] < 0.92
    assert list(found["intervals"]["50"]["coverage_by_month"]) == found["months"]
    assert found["intervals"]["90"]["winkler"] > found["intervals"]["90"]["width"]
    assert report.read_text().count("data:image/png") == 7


def test_a_period_without_bars_is_refused_with_the_month(bars: np.ndarray) -> None:
    from btc_core.errors import InvalidInput

    frame = make_frame(bars)
    with pytest.raises(InvalidInput, match="2025-01 cannot be forecast"):
        evaluation.walk_forward(frame, BEGIN_NS + 366 * NS_PER_DAY, BEGIN_NS + 367 * NS_PER_DAY)
