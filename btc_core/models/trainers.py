"""Where trees are grown: in the process that trains, or by the workers of a Dask cluster.

Where every value has a bin of its own and rows are not sampled, both grow the same trees
(`tests/unit/btc_core/models/test_trainers.py`). Otherwise a cluster bins values differently, because it merges the
quantile sketches of its workers, and each worker samples its own rows for a tree. The forecasts then differ from those
of one process by as much as those of another random seed do, and are as good.
What does not belong here: what is fitted, and with which parameters (`fitting`, `recipe`).
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from btc_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    import numpy.typing as npt
    import xgboost

    from btc_core.settings import ModelSettings

    Floats = npt.NDArray[np.float64]

THREADS = 1
"""Threads of one fit. Two of them on two busy cores once took a minute waiting for each other; months run in parallel
processes instead."""
BLOCK_ROWS = 100_000
"""Rows sent to a cluster at a time, 30 MB of our features. Larger blocks only need more memory."""


class TrainBooster(Protocol):
    """Trains one booster on the features that a `Trainer` was opened with."""

    def __call__(
        self, params: dict[str, Any], rounds: int, label: Floats, margin: Floats | None = None
    ) -> xgboost.Booster:
        """Train on labels (n,) that start from margins (n,), both in the order of the features' rows."""


class Trainer(Protocol):
    """Prepares features (n, features) once, with at most `bins` bins for each, for every booster trained on them."""

    def __call__(self, matrix: npt.NDArray[Any], bins: int) -> AbstractContextManager[TrainBooster]:
        """Hold the prepared features until the context is left."""


def trainer_of(settings: ModelSettings) -> Trainer:
    """The trainer that `BTC_MODEL_TRAINER` names; raises `ConfigError` for a cluster without an address."""
    if settings.trainer == "memory":
        return in_memory
    if not settings.dask_address:
        raise ConfigError("BTC_MODEL_TRAINER=dask needs BTC_MODEL_DASK_ADDRESS, for example tcp://127.0.0.1:8786")
    return functools.partial(on_cluster, address=settings.dask_address)


@contextmanager
def in_memory(matrix: npt.NDArray[Any], bins: int) -> Iterator[TrainBooster]:
    """Train in this process; the features are binned once for all boosters."""
    import xgboost  # noqa: PLC0415 - 0.6 s and 90 MB, which a process that serves a baseline does without

    data = xgboost.QuantileDMatrix(np.asarray(matrix, np.float32), nthread=THREADS, max_bin=bins)

    def train(params: dict[str, Any], rounds: int, label: Floats, margin: Floats | None = None) -> xgboost.Booster:
        data.set_info(label=label, base_margin=margin)
        return xgboost.train({**params, "nthread": THREADS}, data, rounds)

    yield train


@contextmanager
def on_cluster(matrix: npt.NDArray[Any], bins: int, address: str) -> Iterator[TrainBooster]:
    """Train on the workers of the Dask scheduler at `address`; raises `ConfigError` when Dask is not installed."""
    try:
        from distributed import Client  # noqa: PLC0415 - an optional dependency
        from xgboost import dask as cluster  # noqa: PLC0415 - needs the optional dependency
    except ImportError as error:
        msg = "BTC_MODEL_TRAINER=dask needs Dask: `make add PACKAGES='dask[distributed]'`"
        raise ConfigError(msg) from error

    with Client(address) as client:  # type: ignore[no-untyped-call]
        rows = _scatter(client, matrix)

        def train(params: dict[str, Any], rounds: int, label: Floats, margin: Floats | None = None) -> xgboost.Booster:
            start = None if margin is None else _scatter(client, margin)
            data = cluster.DaskQuantileDMatrix(client, rows, _scatter(client, label), base_margin=start, max_bin=bins)
            booster: xgboost.Booster = cluster.train(client, params, data, rounds)["booster"]
            return booster

        yield train


def _scatter(client: Any, values: npt.NDArray[Any]) -> Any:
    """Send rows to the workers as float32 blocks, at least one to each, and return them as one Dask array.

    This process holds one block at a time.
    """
    from dask import array  # noqa: PLC0415 - an optional dependency

    rows = min(BLOCK_ROWS, -(-len(values) // len(client.nthreads())))
    blocks = (values[begin : begin + rows].astype(np.float32) for begin in range(0, len(values), rows))
    parts = [array.from_delayed(client.scatter(block), block.shape, block.dtype) for block in blocks]  # type: ignore[no-untyped-call]
    return array.concatenate(parts)  # type: ignore[no-untyped-call]
