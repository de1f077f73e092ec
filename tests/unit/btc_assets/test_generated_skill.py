"""On the generated market trees and net win at the gate, by about as much as on a real one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN
from btc_core.market.bars import BARS
from btc_core.models.dataset import make_frame
from exchange_simulator.market.generated import EPOCH_MIN, GeneratedMarket
from exchange_simulator.pairs import BTC_USD

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from btc_assets import training

pytestmark = pytest.mark.unit

LOTS = 1e8
DAYS = 60
"""Half of what a fresh start fetches, for the sake of time."""


def generated_bars(seed: int, first_day: int) -> np.ndarray:
    begin = EPOCH_MIN + first_day * 1440
    made = GeneratedMarket(BTC_USD, seed=seed).minute_bars(begin, begin + DAYS * 1440)
    bars = np.zeros(len(made.start_min), BARS)
    bars["ts_ns"] = made.start_min * NS_PER_MIN
    for place, name in enumerate(("open", "high", "low", "close")):
        bars[name] = made.columns[:, place] / BTC_USD.ticks_per_unit
    bars["volume"], bars["trades"] = made.columns[:, 4] / LOTS, made.columns[:, 5]
    return bars[bars["trades"] > 0]


def test_trees_and_net_win_at_the_gate_by_no_more_than_a_real_market_would_allow() -> None:
    result = training.train_volatility(make_frame(generated_bars(seed=1, first_day=340)))
    losses = result.model.manifest.scores
    assert result.verdict.beats_baselines, result.verdict.reason
    assert 0.85 < losses["xgboost/5m/qlike"] / losses["harx/5m/qlike"] < 0.99
    assert 0.70 < losses["xgboost/5m/qlike"] / losses["har/5m/qlike"] < 0.95
