"""A user's model in a process of its own, seen from outside: each request has a deadline, and a late process is killed.

What does not belong here: what the process does (`child`), and when it is restarted (`streaming.league_entries`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from btc_core.errors import BtcError
from btc_core.horizons import VARIABLE, text_of
from btc_core.league import child
from btc_core.names import HORIZONS_MIN, SCORED_QUANTILES

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.league.contract import Dataset, Rows
    from btc_core.league.folder import EntryFile

    Floats = npt.NDArray[np.float64]

START_S = 60.0
"""Longest time to import the file. A deep learning library takes ten seconds on a loaded machine."""
KEPT_VARIABLES = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
"""All that a model's process sees of the environment, beside the horizons: settings and passwords stay outside."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""A row is small; more threads would take cores and memory from the workers."""
EXIT_S = 5.0
_READ_BYTES = 1 << 20
_answers: msgspec.msgpack.Decoder[child.Answer] = msgspec.msgpack.Decoder(child.Answer)


class EntryFailed(BtcError):
    """A user's model failed; the message says what happened, for its author."""


class EntryForecast(msgspec.Struct, frozen=True):
    """A checked forecast of some rows."""

    sigma_bps: Floats
    """(n, 5)."""
    quantiles_bps: Floats | None
    """(n, 5, 6)."""
    took_s: float
    """Time in `predict`."""
    is_sigma_derived: bool = False
    """Whether σ follows from the quantiles (`contract.sigma_of`)."""


class EntryProcess:
    """One process with one user's file. Every method raises `EntryFailed`, after which the process may have been killed."""

    def __init__(self, entry: EntryFile, inputs: tuple[str, ...], memory_bytes: int) -> None:
        self._file = entry.path.name
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        kept[VARIABLE] = text_of(HORIZONS_MIN)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "btc_core.league.child", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=kept | ONE_THREAD,
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe, and mypy does not see it
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._out, False)
        self._selector.register(self._out, selectors.EVENT_READ)
        try:
            self._ask(child.Load(entry.source, self._file, str(entry.path.absolute()), inputs), START_S, "its import")
        except EntryFailed:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def fit(self, dataset: Dataset, timeout_s: float) -> child.Fitted:
        """Fit on a data set."""
        with tempfile.TemporaryDirectory(prefix="btc-league-") as folder:
            child.write_dataset(Path(folder), dataset)
            answer = self._ask(child.Fit(folder), timeout_s, "fit")
        assert isinstance(answer, child.Fitted)  # noqa: S101 - the child answers a request with its own answer
        return answer

    def use(self, symbol: str, model: bytes) -> None:
        """Forecast a market with a model that `fit` returned."""
        self._ask(child.Use(symbol, model), START_S, "unpickling its model")

    def predict(self, symbol: str, rows: Rows, timeout_s: float) -> EntryForecast:
        """Forecast rows of a market."""
        matrix = np.ascontiguousarray(rows.matrix, np.float64)
        request = child.Predict(symbol, matrix.tobytes(), rows.origin_ns.astype(np.int64).tobytes())
        answer = self._ask(request, timeout_s, "predict")
        assert isinstance(answer, child.Predicted)  # noqa: S101 - the child answers a request with its own answer
        shape = len(rows), len(HORIZONS_MIN)
        sigma = np.frombuffer(answer.sigma_bps).reshape(shape)
        bounds = None if answer.quantiles_bps is None else np.frombuffer(answer.quantiles_bps)
        quantiles = None if bounds is None else bounds.reshape(*shape, len(SCORED_QUANTILES))
        return EntryForecast(sigma, quantiles, answer.took_s, answer.is_sigma_derived)

    def predict_alone(self, symbol: str, rows: Rows, budget_s: float, timeout_s: float) -> Floats:
        """σ of rows of a market in bps, (n, horizons), each predicted alone, the last first; NaN for which `budget_s` had no time.

        One row is predicted whatever the budget. A process that takes longer than `timeout_s` is killed.
        """
        matrix = np.ascontiguousarray(rows.matrix, np.float64)
        request = child.PredictAlone(symbol, matrix.tobytes(), rows.origin_ns.astype(np.int64).tobytes(), budget_s)
        answer = self._ask(request, timeout_s, "predict")
        assert isinstance(answer, child.Predicted)  # noqa: S101 - the child answers a request with its own answer
        return np.frombuffer(answer.sigma_bps).reshape(len(rows), len(HORIZONS_MIN))

    def kill(self) -> None:
        """Kill the process with all that it started; a request in another thread fails at once. `close` must follow."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has exited, and so has its group
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process, which has nothing to finish, and free what belongs to it."""
        self.kill()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # a request was still in the buffer; nobody will read it
        self._process.wait(EXIT_S)

    def _ask(self, request: child.Request, timeout_s: float, what: str) -> child.Answer:
        deadline_s = time.monotonic() + timeout_s
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe, and mypy does not see it
        try:
            self._process.stdin.write(child.framed(request))
            self._process.stdin.flush()
            answer = _answers.decode(self._read(child.length_of(self._read(child.HEAD_BYTES, deadline_s)), deadline_s))
        except (BrokenPipeError, EOFError) as error:
            raise EntryFailed(f"{self._file}: the process that ran {what} {self._ending()}") from error
        except TimeoutError as error:
            self.close()
            raise EntryFailed(
                f"{self._file}: {what} took longer than {timeout_s:g} s, and the process was killed"
            ) from error
        if isinstance(answer, child.Failed):
            raise EntryFailed(answer.reason)
        return answer

    def _read(self, count: int, deadline_s: float) -> bytes:
        """Read exactly `count` bytes; raises `TimeoutError` at the deadline and `EOFError` if the process exits."""
        parts: list[bytes] = []
        missing = count
        while missing:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0.0 or not self._selector.select(left_s):
                raise TimeoutError
            part = os.read(self._out, min(missing, _READ_BYTES))
            if not part:
                raise EOFError
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _ending(self) -> str:
        """How the process exited."""
        try:
            code = self._process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return "closed its pipe and still runs"
        if code >= 0:
            return f"exited with code {code}; its log may say why"
        name = signal.Signals(-code).name
        more = ", as the kernel does when memory is short" if -code == signal.SIGKILL else ""
        return f"was ended by {name}{more}"
