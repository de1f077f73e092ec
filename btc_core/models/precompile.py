"""`python -m btc_core.models.precompile`: compiles every numerical function that the workers and the API call.

numba compiles a function at its first call in a process and keeps the result on disk. Without this program, the features
worker, the forecast worker and the API would each compile at their first start, at the same time. Together they would use
75 s of processor time instead of 29 s, and each would keep 130 to 230 MB of compiler memory until it ends.
What does not belong here: when this program runs (`stack/servers/programs.py`).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import llvmlite.binding as llvm
import numba
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S
from btc_core.compiled import compiled_files
from btc_core.features.catalogue import FEATURE_NAMES, ROW
from btc_core.features.depth import measured
from btc_core.features.fold import EMIT_NONE, fold
from btc_core.features.live_minutes import LiveMinutes
from btc_core.features.state import EVENT, new_state
from btc_core.horizons import are_default
from btc_core.market.bars import BARS
from btc_core.models.bundle import random_walk_model
from btc_core.models.net import net_inputs
from btc_core.models.pretrained import cold_start_model, shipped
from btc_core.models.quality import ModelLimits
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTES = 1_440
"""One day of bars is enough to compute every minute column and to fit the HARX of the pre-trained model."""
_FIRST_NS = 20_000 * NS_PER_DAY
_CLOCK_NS = _FIRST_NS + MINUTES * NS_PER_MIN


def precompile() -> None:
    """Call each function once, with the types that the workers call it with.

    Compiling `fold` takes two fifths of the total time, so a second process compiles it in parallel.
    """
    bars, values = _made_up_bars(), np.ones((2, len(FEATURE_NAMES)))
    with ProcessPoolExecutor(1) as other:
        fold_is_compiled = other.submit(_compile_fold)
        minutes = LiveMinutes(bars, _CLOCK_NS)
        columns = minutes.columns([_CLOCK_NS + NS_PER_S, _CLOCK_NS + 59 * NS_PER_S], values, [True, True])
        matrix = np.ascontiguousarray(values[:, MODEL_COLUMNS])
        net_inputs(matrix, columns, np.zeros(len(values)))
        if are_default(HORIZONS_MIN):  # the shipped model is for these
            shipped()
        fold_is_compiled.result()
    model, _reason = cold_start_model(bars)
    model.predict_both(matrix, columns)
    ModelLimits((random_walk_model(), model.as_baseline())).outside(values)  # a pre-trained model has no limits


def _compile_fold() -> None:
    fold(new_state(), np.empty(0, EVENT), np.empty(0, ROW), EMIT_NONE)
    measured([], [])


def _made_up_bars() -> np.ndarray:
    """Minute bars of a random walk."""
    close = 60_000.0 * np.exp(np.random.default_rng(1).normal(0.0, 5e-4, MINUTES).cumsum())
    bars = np.zeros(MINUTES, BARS)
    bars["ts_ns"] = _FIRST_NS + np.arange(MINUTES) * NS_PER_MIN
    bars["close"], bars["open"], bars["volume"] = close, np.concatenate([close[:1], close[:-1]]), 1.0
    bars["high"], bars["low"] = np.maximum(bars["open"], close), np.minimum(bars["open"], close)
    return bars


def marker(what: str) -> Path:
    """The marker file of a group of functions.

    It exists once the group has been compiled for these files, this version of numba and this processor.

    numba compiles again when a file has another path, time or size, even if its content is the same.
    """
    states = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in compiled_files()]
    files = hashlib.sha256(repr(states).encode()).hexdigest()[:16]
    folder = Path(numba.config.CACHE_DIR)  # type: ignore[attr-defined]
    return folder / f"{what}-{numba.__version__}-{llvm.get_host_cpu_name()}-{files}"


def compile_once(what: str, compile_group: Callable[[], None]) -> None:
    """Compile a group of functions unless it is compiled already."""
    done = marker(what)
    if not done.exists():
        compile_group()
        done.touch()


def main() -> None:
    """Compile unless everything is compiled already."""
    compile_once("complete", precompile)


if __name__ == "__main__":
    main()
