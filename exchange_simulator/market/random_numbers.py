"""Random numbers that are pure functions of a key and a counter, and how the functions of this package are compiled.

The numbers are splitmix64 over a counter, so any minute can be computed alone and is always equal.

What does not belong here: what is drawn (`volatility`, `kernels`).
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any]")

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""The increment of splitmix64."""
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_SUM_OF_FOUR_SD = 65_536.0 / math.sqrt(3.0)
"""Standard deviation of the sum of four uniform numbers of 16 bits."""
POISSON_EXACT_BELOW = 12.0
"""Above this mean a rounded normal number replaces the Poisson number."""


def _cache_dir() -> str:
    """The folder of the compiled functions, whose name holds a hash of the sources.

    numba's own check looks only at the file of the function that is called, not at those of the functions that it inlines.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    base = os.environ.get("NUMBA_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(Path(base) / "btc-forecast" / f"numba-simulator-{digest}")


_CACHE_DIR = _cache_dir()


def compiled(function: _Function) -> _Function:
    """Compile at the first call, keep the result on disk, release the GIL while the function runs."""
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = _CACHE_DIR  # type: ignore[attr-defined]
    try:
        return cast("_Function", numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


@compiled
def mix(value: Any) -> Any:
    """The output function of splitmix64: uint64 -> uint64."""
    z = value
    z = (z ^ (z >> np.uint64(30))) * _MIX_A
    z = (z ^ (z >> np.uint64(27))) * _MIX_B
    return z ^ (z >> np.uint64(31))


@compiled
def stream_key(seed: Any, minute: int, stream: int) -> Any:
    """The key of one random stream in one minute."""
    return mix(mix(np.uint64(seed) + GOLDEN_GAMMA * np.uint64(minute)) + GOLDEN_GAMMA * np.uint64(stream))


@compiled
def uniform(key: Any, counter: int) -> float:
    """A uniform number strictly between 0 and 1."""
    bits = mix(key + GOLDEN_GAMMA * np.uint64(counter)) >> np.uint64(11)
    return float((np.float64(bits) + 0.5) * (1.0 / 9007199254740992.0))


@compiled
def normal(key: Any, counter: int) -> float:
    """A standard normal number by Box-Muller. It uses the uniform numbers of counters `2 * counter` and the next."""
    radius = math.sqrt(-2.0 * math.log(uniform(key, 2 * counter)))
    return radius * math.cos(6.283185307179586 * uniform(key, 2 * counter + 1))


@compiled
def quick_normal(key: Any, counter: int) -> float:
    """Nearly a standard normal number, never beyond 3.5: the sum of four uniform numbers from one draw.

    It takes a fifth of the time of `normal` and is for sums of many numbers, in which the tails do not matter.
    """
    bits = mix(key + GOLDEN_GAMMA * np.uint64(counter))
    low = np.uint64(0xFFFF)
    total = (bits & low) + ((bits >> np.uint64(16)) & low) + ((bits >> np.uint64(32)) & low) + (bits >> np.uint64(48))
    return float((np.float64(total) - 131_070.0) / _SUM_OF_FOUR_SD)


@compiled
def poisson(mean: float, key: Any, counter: int) -> int:
    """A Poisson number: exact for small means (Knuth's method), else a rounded normal number, which is faster."""
    if mean > POISSON_EXACT_BELOW:
        return max(0, int(mean + math.sqrt(mean) * normal(key, counter) + 0.5))
    limit = math.exp(-mean)
    product = uniform(key, 2 * counter)
    count = 0
    while product > limit:
        count += 1
        product *= uniform(key, 2 * counter + count)
    return count
