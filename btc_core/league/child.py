"""The process in which a user's model runs: `python -m btc_core.league.child MEMORY_BYTES`.

It reads requests from its standard input and writes an answer to each to its standard output. What the user's code
prints goes to the log. The process holds no secret of the system, may use only so much memory, runs at a low priority,
and exits with its parent. This keeps mistakes away from the system; it is no protection against malice.
What does not belong here: deadlines and restarts, which are up to the parent (`process`).
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import struct
import sys
import time
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import msgspec
import numpy as np

from btc_core.errors import InvalidInput
from btc_core.league.contract import Dataset, Rows, checked
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "league_entry"
"""The name of the user's module in this process. Classes of the file are found under it when a model is unpickled."""
NICE = 10
"""What is added to the niceness: a busy model gives way to the workers."""
KILLED_FIRST = 1_000
"""The score with which the kernel kills this process before all others when memory is short."""
MAX_MODEL_BYTES = 256_000_000
"""Largest pickled model: it is stored each day."""
_PDEATHSIG = 1
_LENGTH = struct.Struct("<Q")


class Load(msgspec.Struct, frozen=True, tag=True):
    """Execute the file, and check that it has both functions."""

    source: bytes
    file: str
    """Its name in messages."""
    path: str
    """Its path, the `__file__` of the module, so that `fit` finds weights beside it."""
    inputs: tuple[str, ...]


class Fit(msgspec.Struct, frozen=True, tag=True):
    """Fit on the data set in a folder (`write_dataset`)."""

    folder: str


class Use(msgspec.Struct, frozen=True, tag=True):
    """Forecast a market with this model from now on."""

    symbol: str
    model: bytes


class Predict(msgspec.Struct, frozen=True, tag=True):
    """Forecast rows of a market."""

    symbol: str
    matrix: bytes
    origin_ns: bytes


class PredictAlone(msgspec.Struct, frozen=True, tag=True):
    """Forecast rows of a market one by one, the last first, until the time is over."""

    symbol: str
    matrix: bytes
    origin_ns: bytes
    budget_s: float


Request: TypeAlias = Load | Fit | Use | Predict | PredictAlone


class Done(msgspec.Struct, frozen=True, tag=True):
    """The file was executed, or the model is in use."""


class Fitted(msgspec.Struct, frozen=True, tag=True):
    """The pickled model."""

    model: bytes
    took_s: float


class Predicted(msgspec.Struct, frozen=True, tag=True):
    """A forecast; float64 in the shapes of the contract."""

    sigma_bps: bytes
    quantiles_bps: bytes | None
    took_s: float
    is_sigma_derived: bool


class Failed(msgspec.Struct, frozen=True, tag=True):
    """What went wrong, in words for the author of the file."""

    reason: str


Answer: TypeAlias = Done | Fitted | Predicted | Failed

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


def framed(message: msgspec.Struct) -> bytes:
    """A message as it is sent: its length, then its bytes."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """The length of the message that follows its first eight bytes."""
    (length,) = _LENGTH.unpack(head)
    return int(length)


HEAD_BYTES = _LENGTH.size


def write_dataset(folder: Path, dataset: Dataset) -> None:
    """Write a data set as files that `Fit` maps into memory, so that the rows are not copied."""
    np.save(folder / "matrix.npy", dataset.matrix)
    np.save(folder / "origin_ns.npy", dataset.origin_ns)
    np.save(folder / "realized_variance.npy", dataset.realized_variance)
    (folder / "symbol").write_text(dataset.symbol)


class Host:
    """The user's module, and its models by market."""

    def __init__(self) -> None:
        self._module = types.ModuleType(MODULE)
        self._file = ""
        self._inputs: tuple[str, ...] = ()
        self._models: dict[str, Any] = {}

    def answer(self, request: Request) -> Answer:
        """Do what was asked; whatever the user's code raises becomes a `Failed`."""
        work: dict[type, Callable[[Any], Answer]] = {
            Load: self._load,
            Fit: self._fit,
            Use: self._use,
            Predict: self._predict,
            PredictAlone: self._predict_alone,
        }
        try:
            return work[type(request)](request)
        except InvalidInput as error:
            return Failed(f"{self._file}: {error}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the code is the user's, and may raise anything
            return Failed(self._words(error))

    def _load(self, request: Load) -> Answer:
        self._file, self._inputs = request.file, request.inputs
        self._module.__file__ = request.path
        sys.modules[MODULE] = self._module
        exec(compile(request.source, request.file, "exec"), self._module.__dict__)  # noqa: S102 - running the user's file is the purpose
        for name, arguments in (("fit", "dataset"), ("predict", "model, rows")):
            if not callable(getattr(self._module, name, None)):
                return Failed(f"{request.file} has no function {name}; add `def {name}({arguments}):`")
        return Done()

    def _fit(self, request: Fit) -> Answer:
        folder = Path(request.folder)
        matrix, origin_ns, realized = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("matrix", "origin_ns", "realized_variance")
        )
        dataset = Dataset(self._inputs, matrix, origin_ns, realized, (folder / "symbol").read_text())
        began_s = time.perf_counter()
        model = self._module.fit(dataset)
        took_s = time.perf_counter() - began_s
        try:
            pickled = pickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # noqa: BLE001 - a user's class may raise anything when it is pickled
            return Failed(
                f"{self._file}: fit returned {type(model).__name__}, which pickle cannot store ({error}); return plain data, or a class "
                "of the file that pickle can store"
            )
        if len(pickled) > MAX_MODEL_BYTES:
            return Failed(
                f"{self._file}: the model has {len(pickled):,} bytes; at most {MAX_MODEL_BYTES:,} are stored. Return a smaller one"
            )
        return Fitted(pickled, took_s)

    def _use(self, request: Use) -> Answer:
        self._models[request.symbol] = pickle.loads(request.model)  # noqa: S301 - made by the same file, in a process of its own
        return Done()

    def _predict_alone(self, request: PredictAlone) -> Answer:
        """NaN in the rows for which there was no time. A row alone gives the same bits whatever rows come with it."""
        rows = self._rows(request)
        sigma = np.full((len(rows), len(HORIZONS_MIN)), np.nan)
        began_s = time.perf_counter()
        for place in reversed(range(len(rows))):
            part = slice(place, place + 1)
            alone = Rows(rows.names, rows.matrix[part].copy(), rows.origin_ns[part].copy())
            sigma[place] = checked(self._module.predict(self._models[request.symbol], alone), 1).sigma_bps[0]
            if time.perf_counter() - began_s >= request.budget_s:
                break
        return Predicted(sigma.tobytes(), None, time.perf_counter() - began_s, False)

    def _rows(self, request: Predict | PredictAlone) -> Rows:
        origin_ns = np.frombuffer(request.origin_ns, np.int64)
        matrix = np.frombuffer(request.matrix, np.float64).reshape(len(origin_ns), len(self._inputs))
        return Rows(self._inputs, matrix.copy(), origin_ns.copy())

    def _predict(self, request: Predict) -> Answer:
        rows = self._rows(request)
        began_s = time.perf_counter()
        forecast = self._module.predict(self._models[request.symbol], rows)
        took_s = time.perf_counter() - began_s
        found = checked(forecast, len(rows))
        quantiles = None if found.quantiles_bps is None else found.quantiles_bps.tobytes()
        return Predicted(found.sigma_bps.tobytes(), quantiles, took_s, found.is_sigma_derived)

    def _words(self, error: BaseException) -> str:
        """The error with the line of the user's file that it came from."""
        if isinstance(error, SyntaxError):
            return f"{self._file}, line {error.lineno}: {error.msg}"
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self._file]
        place = f"{self._file}, line {lines[-1]}" if lines else self._file
        if isinstance(error, ModuleNotFoundError):
            return (
                f"{place}: the module {error.name} is not installed in {sys.prefix}; install its package "
                "there (in a clone: `make add PACKAGES=…`), and wherever else the league runs"
            )
        text = str(error) or "without a message"
        memory = ". It may have reached its memory limit" if isinstance(error, MemoryError) else ""
        return f"{place}: {type(error).__name__}: {text[:500]}{memory}"


def _confine(memory_bytes: int) -> None:
    """Limit this process: its memory, its priority, and its life to that of its parent."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent exited before the model was loaded")
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)
    try:
        Path("/proc/self/oom_score_adj").write_text(str(KILLED_FIRST))
    except OSError:  # no such file in this kernel, or no permission: the limit above still holds
        return


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    host = Host()
    while len(head := requests.read(HEAD_BYTES)) == HEAD_BYTES:
        request = _requests.decode(requests.read(length_of(head)))
        answers.write(framed(host.answer(request)))
        answers.flush()


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    _confine(int(sys.argv[1]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the user's code prints must not mix with the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
