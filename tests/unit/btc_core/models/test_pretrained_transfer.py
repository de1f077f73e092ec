"""The shipped model on real markets that it was not fitted on, from their first hour on. Run with `-s` to see the figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from btc_core.clock import column_ns
from btc_core.exchanges.history import TRADES, bars_of_trades
from btc_core.market.bars import BARS
from btc_core.models import pretrained, pretrained_scores
from btc_core.models.pretrained_scores import BASELINES, MODEL
from tests.paths import DATA

BTC, ALTS = "btcusdt_1m_2024_2025h1.parquet", "alts_1m_taker_2023_2026.parquet"
BITFLYER = "bitflyer_btcjpy_executions_20180121_20180130.parquet"
STARTS, DAYS = 12, 2.0


def real(name: str, symbol: str = "") -> np.ndarray:
    """The minute bars of a file that are later than those that the shipped model was fitted on."""
    if not (DATA / name).is_file():
        pytest.skip(f"the bars ../shared/data/{name} do not exist")
    table = pq.read_table(DATA / name, filters=[("symbol", "=", symbol)] if symbol else None).sort_by("ts")
    bars = np.zeros(len(table), BARS)
    bars["ts_ns"] = column_ns(table["ts"])
    for column in ("open", "high", "low", "close", "volume"):
        bars[column] = table[column].to_numpy()
    return bars[bars["ts_ns"] > pretrained.shipped().manifest.trained_to_ns]


def thinned(bars: np.ndarray) -> np.ndarray:
    """The bars with 30 % of the minutes without trades, prices in yen in ticks of three bps, and volumes × 1000."""
    thin = bars.copy()
    silent = np.random.default_rng(3).random(len(bars)) < 0.3
    silent[0] = False
    newest = np.maximum.accumulate(np.where(silent, 0, np.arange(len(bars))))
    tick = float(np.median(bars["close"])) * 150.0 * 3e-4
    for name in ("open", "high", "low", "close"):
        prices = np.round(bars[name] * 150.0 / tick) * tick
        thin[name] = np.where(silent, np.round(bars["close"][newest] * 150.0 / tick) * tick, prices)
    thin["volume"] = np.where(silent, 0.0, bars["volume"] * 1e3)
    return thin


def report(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    for row in rows:
        losses = ", ".join(f"{name} {row['qlike'][name]:.4f}" for name in (MODEL, *BASELINES))
        ratio = f"{row['ratio']:.3f} ± {row['ratio_error']:.3f} of {row['best_baseline']}"
        print(f"  {row['age']}: {losses}; {ratio} on {row['rows']}")


def overall_ratio(rows: list[dict[str, Any]]) -> float:
    """The model's loss over all ages relative to that of the best baseline of each age."""
    counts = [row["rows"] for row in rows]
    model = np.average([row["qlike"][MODEL] for row in rows], weights=counts)
    best = np.average([row["qlike"][row["best_baseline"]] for row in rows], weights=counts)
    return float(model / best)


@pytest.mark.parametrize("kind", ["later months", "coin left out", "thinned"])
def test_on_fresh_starts_it_beats_the_best_baseline_of_each_age(kind: str) -> None:
    bars = real(ALTS, "AVAXUSDT") if kind == "coin left out" else real(BTC)
    walks = pretrained_scores.fresh_starts(
        pretrained.shipped(), thinned(bars) if kind == "thinned" else bars, STARTS, DAYS
    )
    rows = pretrained_scores.by_age(walks)
    report(f"{kind}, {STARTS} starts of {DAYS:g} days", rows)
    assert overall_ratio(rows) < 0.95


def test_after_a_month_it_is_still_better_than_the_best_baseline() -> None:
    rows = pretrained_scores.by_age(pretrained_scores.fresh_starts(pretrained.shipped(), real(BTC), 3, 36.0))
    report("later months, 3 starts of 36 days", rows)
    month = {row["age"]: row["ratio"] for row in rows}
    assert month["14 to 30 days"] < 0.99
    assert month["more than 30 days"] < 0.99


def test_on_ten_days_of_executions_on_another_exchange_it_is_not_worse_than_the_best_baseline() -> None:
    if not (DATA / BITFLYER).is_file():
        pytest.skip(f"the executions ../shared/data/{BITFLYER} do not exist")
    table = pq.read_table(DATA / BITFLYER, columns=["ts", "price", "size"]).drop_null().sort_by("ts")
    trades = np.zeros(len(table), TRADES)
    trades["ts_ns"] = column_ns(table["ts"])
    trades["price"], trades["qty"] = table["price"].to_numpy(), table["size"].to_numpy()
    rows = pretrained_scores.by_age([pretrained_scores.walk(pretrained.shipped(), bars_of_trades(trades))])
    report("bitFlyer BTC/JPY, January 2018", rows)
    assert overall_ratio(rows) < 1.0
