"""Where boosters are grown: in memory, from blocks on disk, or by the workers of a Dask cluster.

Where every value has a bin of its own and no rows are drawn, all three grow the same trees (`tests/unit/btc_core/models/test_trainers.py`).
A cluster merges the sketches of its workers into other bins, and each worker draws its own rows for a tree: its forecasts
then differ from those of one process as far as those of another seed do, and are as good.
What does not belong here: what is fitted, and with which parameters (`fitting`).
"""

from __future__ import annotations

import secrets
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xgboost

from btc_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import numpy.typing as npt

    from btc_core.settings import ModelSettings

    Floats = npt.NDArray[np.float64]

THREADS = 1
"""Of one fit: two busy threads on two busy cores once took a minute waiting for each other; months run in parallel."""
BLOCK_ROWS = 100_000
"""Read at a time from disk, and sent at a time to a cluster: 30 MB of our features. Larger blocks only need more memory."""


class Train(Protocol):
    """Grows one booster on the rows it was opened with; labels and margins are (n,)."""

    def __call__(
        self, params: dict[str, Any], rounds: int, label: Floats, margin: Floats | None = None
    ) -> xgboost.Booster:
        """Labels and margins go with the rows in their order."""


def trainer(settings: ModelSettings, matrix: Floats, bins: int) -> AbstractContextManager[Train]:
    """What `BTC_MODEL_TRAINER` names, for features (n, features) and a number of bins a feature.

    Raises `ConfigError` when it is a cluster without an address, or one whose packages are missing.
    """
    if settings.trainer == "dask":
        return on_cluster(matrix, bins, settings.dask_address)
    return from_disk(matrix, bins) if settings.trainer == "disk" else in_memory(matrix, bins)


@contextmanager
def in_memory(matrix: Floats, bins: int) -> Iterator[Train]:
    """The rows as one array."""
    yield _train_on(xgboost.QuantileDMatrix(matrix.astype(np.float32), nthread=THREADS, max_bin=bins))


@contextmanager
def from_disk(matrix: Floats, bins: int) -> Iterator[Train]:
    """The rows in blocks, binned into files in `TMPDIR` that go with the last reference; `matrix` may be a memmap."""
    yield _train_on(xgboost.ExtMemQuantileDMatrix(_Blocks(matrix), nthread=THREADS, max_bin=bins))


@contextmanager
def on_cluster(matrix: Floats, bins: int, address: str) -> Iterator[Train]:
    """The rows spread over the workers of the scheduler at `address`, block by block."""
    if not address:
        raise ConfigError("BTC_MODEL_TRAINER=dask needs BTC_MODEL_DASK_ADDRESS, as tcp://127.0.0.1:8786")
    try:
        from distributed import Client  # noqa: PLC0415 - an extra
        from xgboost import dask as cluster  # noqa: PLC0415 - the same
    except ImportError as error:
        msg = "BTC_MODEL_TRAINER=dask needs Dask: `pip install 'dask[distributed]'`"
        raise ConfigError(msg) from error

    with Client(address) as client:  # type: ignore[no-untyped-call]
        rows = _spread(client, matrix)

        def train(params: dict[str, Any], rounds: int, label: Floats, margin: Floats | None = None) -> xgboost.Booster:
            start = None if margin is None else _spread(client, margin)
            data = cluster.DaskQuantileDMatrix(client, rows, _spread(client, label), base_margin=start, max_bin=bins)
            booster: xgboost.Booster = cluster.train(client, params, data, rounds)["booster"]
            return booster

        yield train


def _train_on(data: xgboost.DMatrix) -> Train:
    """The rows are binned once for all boosters."""

    def train(params: dict[str, Any], rounds: int, label: Floats, margin: Floats | None = None) -> xgboost.Booster:
        data.set_info(label=label, base_margin=margin)
        return xgboost.train({**params, "nthread": THREADS}, data, rounds)

    return train


class _Blocks(xgboost.DataIter):
    """Rows a block at a time; XGBoost passes over them twice, once for the bins."""

    def __init__(self, matrix: Floats) -> None:
        self._matrix = matrix
        self._begin = 0
        super().__init__(cache_prefix=f"{tempfile.gettempdir()}/btc-train-{secrets.token_hex(8)}")

    def next(self, input_data: Callable[..., None]) -> bool:
        """Give the next block; False when there is none."""
        if self._begin >= len(self._matrix):
            return False
        input_data(data=self._matrix[self._begin : self._begin + BLOCK_ROWS].astype(np.float32))
        self._begin += BLOCK_ROWS
        return True

    def reset(self) -> None:
        """Start again."""
        self._begin = 0


def _spread(client: Any, values: Floats) -> Any:
    """A Dask array of float32 whose blocks lie on the workers, none of them without one; this process holds one at a time."""
    from dask import array  # noqa: PLC0415 - an extra

    rows = min(BLOCK_ROWS, -(-len(values) // len(client.nthreads())))
    blocks = (values[begin : begin + rows].astype(np.float32) for begin in range(0, len(values), rows))
    parts = [array.from_delayed(client.scatter(block), block.shape, block.dtype) for block in blocks]  # type: ignore[no-untyped-call]
    return array.concatenate(parts)  # type: ignore[no-untyped-call]
