"""What keeps the workers light: one program compiles for all of them, and XGBoost brings no scikit-learn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.compiled_functions import called
from tests.paths import ROOT

pytestmark = pytest.mark.unit

FORECAST = """
import numpy as np
from btc_core.features.bar_features import bar_features
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.depth import measured
from btc_core.features.live_minutes import LiveMinutes
from btc_core.market.events import TRADE
from btc_core.market.messages import FeatureMessage
from btc_core.models import pretrained
from btc_core.models.bundle import random_walk_model, start_quantiles
from btc_core.clock import NS_PER_MIN, NS_PER_S, SYSTEM_CLOCK
from streaming.forecaster import Forecaster
from streaming.outcomes import OutcomeTracker
from tests.unit.btc_core.features.test_minute_columns import market

minutes, begin_ns = 1_500, 1_760_000_100 * NS_PER_S // NS_PER_MIN * NS_PER_MIN
bars = market(minutes, begin_ns)
models = random_walk_model(), pretrained.model_of_bars(pretrained.shipped(), bars)
forecaster = Forecaster(
    lambda _symbol: models,
    lambda _symbol: OutcomeTracker(start_quantiles(models[0]), start_quantiles(models[1])),
    lambda _symbol, clock_ns: LiveMinutes(bars, clock_ns),
    lambda _row: None,
    SYSTEM_CLOCK,
)
measured([(1.0, 1.0)], [(2.0, 1.0)])
values = np.array([bar_features(bars)[-1][name] for name in FEATURE_NAMES])
values[FEATURE_NAMES.index("bid")] = bars["close"][-1]
for second in (10, 50):
    at_ns = begin_ns + minutes * NS_PER_MIN + second * NS_PER_S
    row = FeatureMessage("BTC/USD", at_ns, at_ns, 0, second, 0, TRADE, FEATURE_VERSION, values.tobytes())
    (forecast,) = forecaster.handle([row]).forecasts
    assert forecast.volatility_model_kind == "xgboost"
"""
"""Makes feature rows and forecasts as the workers do."""

PRECOMPILE = """
from btc_core.models.precompile import _compile_fold, precompile
precompile()
_compile_fold()  # which happened in another process
"""

WITHOUT_SCIKIT_LEARN = """
import sys
from btc_core.models.trees import leave_out_scikit_learn
leave_out_scikit_learn()
from btc_core.models import pretrained
pretrained.shipped()  # checks what the trees give
assert "xgboost" in sys.modules
assert not any(name.startswith(("scipy.stats", "sklearn.")) for name in sys.modules)
"""


def test_forecasts_call_nothing_that_was_not_compiled_ahead() -> None:
    ahead = called(PRECOMPILE)  # first, so that it compiles what no cache has
    needed = called(FORECAST)
    assert {"fold", "put_columns", "_sum_leaves", "_forward"} <= {each.partition("(")[0] for each in needed}
    assert needed <= ahead


def test_trees_are_read_without_scikit_learn() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_SCIKIT_LEARN]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
