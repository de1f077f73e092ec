"""Asks users' models that serve, each in a process of its own, and waits for none of them longer than its budget.

Rows that a model does not forecast in time stay NaN, and its stand-in in the same bundle forecasts them. A process that crashes, breaks
its contract, reaches its memory limit or does not answer at all is started again after a pause that doubles each time.
What does not belong here: what the process does (`btc_core.league`), and the forecast of the stand-in (`btc_core.models`).
"""

from __future__ import annotations

import logging
import queue
import subprocess
import threading
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from btc_core import metrics
from btc_core.league.process import EntryFailed
from btc_core.league.serving import SYMBOL, rows_of, started
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.models.user_model import no_sigma
from streaming.backoff import backoff_s

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from btc_core.clock import Clock
    from btc_core.league.contract import Rows
    from btc_core.league.process import EntryProcess
    from btc_core.market.messages import FeatureMessage
    from btc_core.models.bundle import VolatilityModel
    from btc_core.settings import LeagueSettings, Settings

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]
    Singles = npt.NDArray[np.float32]

log = logging.getLogger(__name__)

PAUSE_FIRST_S, PAUSE_MAX_S = 5.0, 3_600.0
"""Pause before a failed process is started again; it doubles after each failure in a row."""
IDLE_S = 0.5
"""How often the thread of a model looks whether it shall end or start its process."""
MAX_ROWS = 512
"""Most rows that a model is asked for at once, the newest; a worker that catches up has more, and most of them are late."""
ASKED_SHARE = 0.5
"""The share of the budget in which the process forecasts; the rest is for the way there and back."""

State = Literal["starting", "failing", "running"]
ASIDE: tuple[str, ...] = ("user", "slow", "failing", "starting")
"""What the counter of rows distinguishes."""


class ServedUserModel:
    """Keeps the process of one model running in a thread of its own, from its creation until `stop`."""

    def __init__(self, symbol: str, model: VolatilityModel, limits: LeagueSettings, folder: Path, clock: Clock) -> None:
        self.model = model
        self._symbol = symbol
        self._limits = limits
        self._folder = folder
        self._clock = clock
        self._asked: queue.SimpleQueue[Rows] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Floats | None] = queue.SimpleQueue()
        """One for each request: σ, or None if it failed."""
        self._is_asked = False
        """Whether a request has no answer yet. There is one at a time."""
        self._failures = 0
        self._process: EntryProcess | None = None
        self.state: State = "starting"
        self.reason = ""
        """Why it fails; empty while it does not."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"user-model-{symbol}", daemon=True)
        for word in ASIDE:
            metrics.USER_MODEL_ROWS.labels(symbol, word)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The id of the process, None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def sigma_bps(self, matrix: Floats, columns: Singles, event_ns: Longs) -> Floats:
        """σ of rows in bps, (n, horizons), NaN where it did not come within the budget; the newest rows come first.

        `matrix` is (n, features), `columns` (n, COLUMNS), and `event_ns` (n,).
        """
        sigma = no_sigma(len(matrix))
        word: str = self.state
        if word == "running" and not self._is_busy():
            newest = slice(max(0, len(matrix) - MAX_ROWS), None)
            rows = rows_of(self.model, matrix[newest], columns[newest], event_ns[newest])
            self._is_asked = True
            self._asked.put(rows)
            found = self._answer(self._limits.serve_s)
            if found is not None:
                sigma[newest] = found
        word = "slow" if self.state == "running" else self.state
        given = int(np.isfinite(sigma).all(axis=1).sum())
        metrics.USER_MODEL_ROWS.labels(self._symbol, "user").inc(given)
        metrics.USER_MODEL_ROWS.labels(self._symbol, word).inc(len(sigma) - given)
        return sigma

    def stop(self) -> None:
        """End the process and the thread, and return at once."""
        self._stop.set()
        process = self._process
        if process is not None:
            process.kill()  # a request that waits for it ends at once, and the thread closes it

    def _is_busy(self) -> bool:
        """Whether the process is still at an earlier request, whose answer nobody waits for any more."""
        if self._is_asked:
            self._answer(0.0)
        return self._is_asked

    def _answer(self, timeout_s: float) -> Floats | None:
        try:
            found = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return None  # the answer is dropped when it comes
        self._is_asked = False
        return found

    def _run(self) -> None:
        retry_s = self._clock.monotonic_s()
        while not self._stop.is_set():
            try:
                if self._process is None and self._clock.monotonic_s() >= retry_s:
                    self._start()
                self._serve_one()
            except (EntryFailed, OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
                if not self._stop.is_set():
                    retry_s = self._clock.monotonic_s() + self._fail(str(error))
        self._close()

    def _start(self) -> None:
        self._process = started(self.model, self._limits, self._folder)
        self.state = "running"
        log.info("the model %s of the user serves %s in process %d", self._name, self._symbol, self._process.pid)

    def _serve_one(self) -> None:
        try:
            rows = self._asked.get(timeout=IDLE_S)
        except queue.Empty:
            return
        sigma = None
        try:
            if self._process is not None:
                budget_s = ASKED_SHARE * self._limits.serve_s
                sigma = self._process.predict_alone(SYMBOL, rows, budget_s, self._limits.predict_s)
                self._failures, self.reason = 0, ""
        except BaseException:
            self.state = "failing"
            raise
        finally:
            self._answers.put(sigma)

    def _fail(self, reason: str) -> float:
        """Close the process; returns the pause before it is started again."""
        pause_s = backoff_s(self._failures, PAUSE_FIRST_S, PAUSE_MAX_S)
        self._failures += 1
        self.state, self.reason = "failing", reason
        self._close()
        log.warning(
            "the model %s of the user fails, and its stand-in serves %s; it is started again in %.0f s: %s",
            self._name, self._symbol, pause_s, reason,
        )  # fmt: skip
        return pause_s

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process = None

    @property
    def _name(self) -> str:
        entry = self.model.manifest.user_entry
        return "" if entry is None else entry.name


class UserModels:
    """The user's models that serve, by market."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._limits = settings.league
        self._folder = settings.user_models
        self._clock = clock
        self._served: dict[str, ServedUserModel] = {}

    def sigma_bps(
        self, rows: Sequence[FeatureMessage], model: VolatilityModel, values: Floats, columns: Singles
    ) -> Floats | None:
        """σ of rows of one market by the user's model in a bundle, as `ServedUserModel.sigma_bps`; None if the bundle has none.

        `values` are (n, all features) and `columns` (n, COLUMNS). The process of a model that is new is started, and that of the one before is ended.
        """
        symbol = rows[0].symbol
        served = self._served.get(symbol)
        if served is not None and served.model is not model:
            self._served.pop(symbol).stop()
            served = None
        if model.manifest.user_entry is None:
            return None
        if served is None:
            served = self._served[symbol] = ServedUserModel(symbol, model, self._limits, self._folder, self._clock)
        return served.sigma_bps(values[:, MODEL_COLUMNS], columns, np.array([row.ts_event_ns for row in rows]))

    def served(self, symbol: str) -> ServedUserModel | None:
        """The model of a market that serves; None if there is none."""
        return self._served.get(symbol)

    def stop(self) -> None:
        """End all processes."""
        for served in self._served.values():
            served.stop()
        self._served = {}
