"""What keeps the workers light: one program compiles for all of them, and XGBoost brings no scikit-learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

FORECAST = """
import gc, json
import numpy as np
from numba.core.registry import CPUDispatcher
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
functions = [each for each in gc.get_objects() if isinstance(each, CPUDispatcher) and each.__module__.startswith("btc_core")]
found = {"loaded": [], "compiled": []}
for each in functions:
    found["loaded"] += [each.__name__] * sum(each.stats.cache_hits.values())
    found["compiled"] += [each.__name__] * sum(each.stats.cache_misses.values())
print(json.dumps(found))
"""
"""Makes feature rows and forecasts as the workers do, and prints which functions numba loaded and which it compiled."""

WITHOUT_SCIKIT_LEARN = """
import sys
from btc_core.models.trees import leave_out_scikit_learn
leave_out_scikit_learn()
from btc_core.models import pretrained
pretrained.shipped()  # checks what the trees give
assert "xgboost" in sys.modules
assert not any(name.startswith(("scipy.stats", "sklearn.")) for name in sys.modules)
"""


def test_after_it_nothing_is_compiled_on_the_way_from_an_event_to_a_forecast(tmp_path: Path) -> None:
    """In a cache of its own, because other tests compile, too."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    env.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-m", "btc_core.models.precompile"], check=True, env=env, cwd=ROOT)
    command = [sys.executable, "-c", FORECAST]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"fold", "put_columns", "_sum_leaves", "_forward"} <= set(found["loaded"])
    assert found["compiled"] == []


def test_trees_are_read_without_scikit_learn() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_SCIKIT_LEARN]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
