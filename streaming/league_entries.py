"""One entry of the league: a thread that keeps the entry's process running and asks it for a forecast at each close.

Each entry has a thread and a process, so a slow or crashing one delays neither the worker nor another entry. A process
that fails is killed and started again after a pause that doubles each time. A forecast that comes too late is not kept.
What does not belong here: reading feature rows (`league`), and what happens inside the process (`btc_core.league.child`).
"""

from __future__ import annotations

import logging
import queue
import subprocess
import threading
from typing import TYPE_CHECKING, Protocol

import msgspec

from btc_core import metrics
from btc_core.clock import NS_PER_S
from btc_core.errors import SchemaError, ServiceError
from btc_core.league.contract import Rows
from btc_core.league.folder import EntryFile
from btc_core.league.process import EntryFailed, EntryForecast, EntryProcess
from btc_core.league.rows import INPUTS
from btc_core.league.states import EntryState, State
from btc_core.names import LATE_FORECAST_S
from streaming.backoff import backoff_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.clock import Clock
    from btc_core.league.bundles import TrainedEntry
    from btc_core.settings import LeagueSettings

log = logging.getLogger(__name__)

RELOAD_S = 30.0
"""Time between two looks for a newer model of an entry."""
PAUSE_FIRST_S, PAUSE_MAX_S = 5.0, 3_600.0
"""Pause before a failed process is started again; it doubles after each failure in a row."""
IDLE_S = 0.5
"""How often the thread looks whether it has something to do between two closes."""


class TrainedModels(Protocol):
    """Where trained models come from."""

    def newest_version(self, entry: str, symbol: str) -> str | None:
        """The version that forecasts, None if none was trained; raises `ServiceError`."""
        ...

    def load(self, entry: str, symbol: str, version: str, own_version: str) -> TrainedEntry:
        """A version that was trained with this set of the user's features, with its files.

        Raises `ServiceError`, and `SchemaError` for a version of other inputs.
        """
        ...


class Inputs(msgspec.Struct, frozen=True):
    """The inputs of every entry: those of the system, then the user's own features."""

    own: tuple[str, ...] = ()
    own_version: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns."""
        return (*INPUTS, *self.own)


class Close(msgspec.Struct, frozen=True):
    """The close of a minute, and the row of inputs that was known at it."""

    symbol: str
    minute_ns: int
    rows: Rows


class Made(msgspec.Struct, frozen=True):
    """A forecast that was made in time."""

    close: Close
    entry: str
    version: str
    model_version: str
    made_at_ns: int
    forecast: EntryForecast


class EntryRunner:
    """Runs one entry in a thread of its own from `start` until `stop`."""

    def __init__(  # noqa: PLR0913, PLR0917 - the file, and what it runs on
        self,
        entry: EntryFile,
        symbols: Sequence[str],
        limits: LeagueSettings,
        models: TrainedModels,
        clock: Clock,
        inputs: Inputs,
    ) -> None:
        self.entry = entry
        """The file in the user's folder; the process runs the one that the newest model was trained with."""
        self._symbols = tuple(symbols)
        self._limits = limits
        self._models = models
        self._clock = clock
        self.inputs = inputs
        self._closes: queue.Queue[Close] = queue.Queue(max(1, len(symbols)))
        self._made: queue.SimpleQueue[Made] = queue.SimpleQueue()
        self._process: EntryProcess | None = None
        self._source: bytes = b""
        """The file that the process runs."""
        self._file_version = entry.version
        self._outdated: set[bytes] = set()
        """Files that the process ran before: a market whose newest model is of one of them waits for its training."""
        self._loaded: dict[str, str] = {}
        """By market the version of the model that the process uses."""
        self._refused: dict[str, str] = {}
        """By market why its newest model is not used."""
        self._looked_s: dict[str, float] = {}
        """By market when a newer model was last looked for (monotonic clock)."""
        self._retry_s = 0.0
        """Until when a failed process stays down (monotonic clock)."""
        self._state = EntryState(entry.name, entry.version, "waiting", "it is starting")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"league-{entry.name}", daemon=True)
        metrics.LEAGUE_FAILING.labels(entry.name).set(0)
        metrics.LEAGUE_FAILURES.labels(entry.name)

    @property
    def state(self) -> EntryState:
        """What the entry does now."""
        return self._state

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and kill the process."""
        self._stop.set()
        process = self._process
        if process is not None:
            process.kill()  # a request that waits for it ends at once
        self._thread.join(self._limits.predict_s + RELOAD_S)
        metrics.LEAGUE_FAILING.remove(self.entry.name)

    def offer(self, close: Close) -> None:
        """Ask for a forecast at a close, and return at once; an entry that is still at earlier ones skips it."""
        try:
            self._closes.put_nowait(close)
        except queue.Full:
            metrics.LEAGUE_SKIPPED.labels(self.entry.name).inc()

    def take(self) -> list[Made]:
        """The forecasts that were made since the last call."""
        found: list[Made] = []
        while True:
            try:
                found.append(self._made.get_nowait())
            except queue.Empty:
                return found

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                close = self._closes.get(timeout=IDLE_S)
            except queue.Empty:
                close = None
            if self._clock.monotonic_s() < self._retry_s:
                if close is not None:
                    metrics.LEAGUE_SKIPPED.labels(self.entry.name).inc()
                continue
            try:
                for symbol in self._symbols if close is None else ():
                    self._keep_model(symbol)
                if close is not None:
                    self._forecast(close)
            except (EntryFailed, OSError, subprocess.SubprocessError) as error:
                self._fail(str(error))
        self._end_process()

    def _keep_model(self, symbol: str) -> None:
        """Load the newest model of a market into the process, when it is time to look for one."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s.get(symbol, -RELOAD_S) < RELOAD_S:
            return
        self._looked_s[symbol] = now_s
        try:
            version = self._models.newest_version(self.entry.name, symbol)
            if version is None:
                if not self._loaded:
                    self._set(
                        "waiting",
                        f"it has no trained model of {symbol} yet; the Dagster job train_league makes one",
                        self._state.failures,
                    )
                return
            if self._loaded.get(symbol) == version:
                self._refused.pop(symbol, None)
                return
            trained = self._models.load(self.entry.name, symbol, version, self.inputs.own_version)
        except (ServiceError, SchemaError) as error:
            if not self._loaded:
                self._set("waiting", str(error), self._state.failures)
            elif isinstance(error, SchemaError):  # a server that does not answer for a moment refuses nothing
                self._refused[symbol] = f"the newest model of {symbol} is not used: {error}"
                self._say_running()
            return
        self._use(symbol, trained)

    def _use(self, symbol: str, trained: TrainedEntry) -> None:
        if trained.source in self._outdated:
            return
        if self._process is None or trained.source != self._source:
            if self._source and trained.source != self._source:
                self._outdated.add(self._source)
            self._end_process()
            file = EntryFile(self.entry.name, self.entry.path, trained.source)
            self._process = EntryProcess(file, self.inputs.names, self._limits.memory_bytes)
            self._source, self._file_version = trained.source, trained.file_version
            self._looked_s = {symbol: self._clock.monotonic_s()}
        self._process.use(symbol, trained.model)
        self._loaded[symbol] = trained.version
        self._refused.pop(symbol, None)
        log.info("%s forecasts %s with version %s of its model", self.entry.name, symbol, trained.version)
        self._say_running()

    def _forecast(self, close: Close) -> None:
        version = self._loaded.get(close.symbol)
        if self._process is None or version is None:
            metrics.LEAGUE_SKIPPED.labels(self.entry.name).inc()
            return
        forecast = self._process.predict(close.symbol, close.rows, self._limits.predict_s)
        made_at_ns = self._clock.now_ns()
        metrics.LEAGUE_PREDICT_TIME.labels(self.entry.name).observe(forecast.took_s)
        self._set("running", "; ".join(self._refused.values()))
        if made_at_ns - close.minute_ns > LATE_FORECAST_S * NS_PER_S:
            metrics.LEAGUE_SKIPPED.labels(self.entry.name).inc()
            return
        self._made.put(Made(close, self.entry.name, self._file_version, version, made_at_ns, forecast))

    def _fail(self, reason: str) -> None:
        if self._stop.is_set():  # the process was killed on purpose
            return
        failures = self._state.failures
        pause_s = backoff_s(failures, PAUSE_FIRST_S, PAUSE_MAX_S)
        self._retry_s = self._clock.monotonic_s() + pause_s
        self._end_process()
        metrics.LEAGUE_FAILURES.labels(self.entry.name).inc()
        log.warning("%s failed and is started again in %.0f s: %s", self.entry.name, pause_s, reason)
        self._set("failing", reason, failures + 1)

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process, self._loaded, self._refused, self._looked_s = None, {}, {}, {}

    def _say_running(self) -> None:
        """Say that models are loaded, and which are not used; a failing entry must make a forecast first."""
        if self._state.state != "failing":
            self._set("running", "; ".join(self._refused.values()))

    def _set(self, state: State, reason: str, failures: int = 0) -> None:
        metrics.LEAGUE_FAILING.labels(self.entry.name).set(state == "failing")
        self._state = EntryState(self.entry.name, self._file_version, state, reason, failures)
