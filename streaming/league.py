"""The league worker: at each minute close, every model of the user forecasts the row that the serving models forecast.

It reads the same topic of feature rows as the forecast worker, in a process of its own, and serves nothing. A close is the
last row of a minute, if that is fresh, as for outcomes (`outcomes`). A row comes with the minute columns that the forecast
worker keeps in Redis; they are NaN when it does not run. The user's own features of a close come with the row after it. A
close that is older than `LATE_FORECAST_S` gets no forecast, so a restarted worker never forecasts what has happened already.
Both folders of the user are followed: an entry starts again when its file or the set of features changes.
What does not belong here: running one entry (`league_entries`), training (`btc_assets`), and scores (`btc_core.league`).
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S, SYSTEM_CLOCK
from btc_core.errors import ServiceError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.features.minute_columns import COLUMNS
from btc_core.features.user.files import version_of
from btc_core.features.user.folder import features_in
from btc_core.league import bundles
from btc_core.league.contract import Rows
from btc_core.league.folder import entries_in
from btc_core.league.states import write_states
from btc_core.market.messages import FeatureMessage
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.names import (
    FEATURES_TOPIC,
    FRESH_ROW_NS,
    HORIZONS_MIN,
    LATE_FORECAST_S,
    SCORED_QUANTILE_NAMES,
    WorkerName,
)
from btc_core.stores.questdb import QuestDB, append
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_columns
from btc_core.tables import rows as table_rows
from btc_core.tables.league_tables import LEAGUE_FORECASTS
from btc_core.user_files import SUFFIX
from streaming.handler import StatelessHandler, WorkerSpec
from streaming.league_entries import Close, EntryRunner, Inputs
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.clock import Clock
    from btc_core.league.bundles import TrainedEntry
    from btc_core.league.states import EntryState
    from btc_core.settings import Settings
    from streaming.handler import Record
    from streaming.league_entries import Made, TrainedModels

log = logging.getLogger(__name__)

GROUP = WorkerName.LEAGUE
SPEC = WorkerSpec(GROUP, FEATURES_TOPIC, eager=False, from_end=True)
FOLDER_S = 5.0
"""Time between two looks into the user's folder."""
REPORT_S = 1.0
"""Time between two writes of forecasts, and two looks at the states of the entries."""
MAX_KEPT = 10_000
"""Forecasts that are kept while QuestDB does not answer: a day of seven entries."""
STATES_S = 30.0
"""Longest time between two writes of the states of the entries."""
REDIS_S = 0.25
"""Longest time for one answer of Redis."""
COLUMNS_NS = 30 * NS_PER_S
"""Minute columns of a row this near to a close are those of the close (`btc_core.features.live_minutes`)."""


class RegisteredModels:
    """Trained models in MLflow."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def newest_version(self, entry: str, symbol: str) -> str | None:
        """As `TrainedModels`."""
        return bundles.newest_version(self._settings, entry, symbol)

    def load(self, entry: str, symbol: str, version: str, own_version: str) -> TrainedEntry:
        """As `TrainedModels`."""
        return bundles.load(self._settings, entry, symbol, version, own_version)


class LeagueHandler(StatelessHandler):
    """Finds the closes among the rows and hands each to every entry; a thread of its own writes their forecasts."""

    def __init__(self, settings: Settings, models: TrainedModels, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._models = models
        self._clock = clock
        self._inputs = Inputs()
        self._files: tuple[tuple[str, int, int], ...] = ()
        """The files of the user's features when they were read: names, times of the last change, and sizes."""
        self._decoder = msgspec.msgpack.Decoder(FeatureMessage)
        self._db = QuestDB(settings.questdb)
        self._redis = connect(settings.redis, REDIS_S)
        self._runners: dict[str, EntryRunner] = {}
        """Entries by name; the thread that follows the folder replaces the whole dictionary."""
        self._last: dict[str, FeatureMessage] = {}
        """By market the newest row."""
        self._clock_ns: dict[str, int] = {}
        """By market the latest event time of its rows."""
        self._kept: list[Made] = []
        self._reported: list[EntryState] = []
        self._reported_s = -STATES_S
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep_entries, name="league", daemon=True)

    def reset(self) -> None:
        """Forget the newest rows; the rows of the new partitions come next."""
        self._last, self._clock_ns = {}, {}

    def handle(self, messages: list[Record]) -> int:
        """Offer the closes among the rows to the entries; returns 0, because no offset waits for their forecasts."""
        if self._keeper.ident is not None and not self._keeper.is_alive():
            raise RuntimeError("the thread that writes the forecasts of the league has ended; the log has the reason")
        for message in messages:
            try:
                row = self._decoder.decode(message.value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # the forecast worker makes it a dead letter
            if row.feature_version == FEATURE_VERSION:
                self._take(row)
        return 0

    def drain(self) -> Callable[[], None]:
        """No write: forecasts are made after their rows were handled, and a thread of this handler writes them."""
        return lambda: None

    def start(self) -> None:
        """Follow the user's folder from now on, also while no rows arrive."""
        self._keeper.start()

    def close(self) -> None:
        """Stop all entries."""
        self._stop.set()
        self._keeper.join()
        for runner in self._runners.values():
            runner.stop()
        self._write()
        self._runners = {}

    def _take(self, row: FeatureMessage) -> None:
        before_ns = self._clock_ns.get(row.symbol, row.ts_event_ns)
        now_ns = max(before_ns, row.ts_event_ns)
        minute_ns = (before_ns // NS_PER_MIN + 1) * NS_PER_MIN
        last = self._last.get(row.symbol)
        if last is not None and now_ns >= minute_ns and minute_ns - before_ns <= FRESH_ROW_NS:
            self._offer(last, minute_ns, row)
        self._last[row.symbol], self._clock_ns[row.symbol] = row, now_ns

    def _offer(self, row: FeatureMessage, minute_ns: int, next_row: FeatureMessage) -> None:
        """Hand the last row of a minute to every entry, unless the minute ended too long ago."""
        runners = self._runners
        if not runners or self._clock.now_ns() - minute_ns > LATE_FORECAST_S * NS_PER_S:
            return
        inputs = next(iter(runners.values())).inputs  # those that run together have the same
        values = np.frombuffer(row.values)[np.newaxis, MODEL_COLUMNS]
        columns = [values, self._columns(row.symbol, minute_ns), _own(next_row, minute_ns, inputs)]
        matrix = np.hstack(columns, dtype=np.float64)
        close = Close(row.symbol, minute_ns, Rows(inputs.names, matrix, np.array([minute_ns])))
        for runner in runners.values():
            runner.offer(close)

    def _columns(self, symbol: str, minute_ns: int) -> Any:
        try:
            found = read_columns(self._redis, symbol)
        except ServiceError as error:
            log.warning("the close has no minute columns: %s", error)
            found = None
        if found is None or abs(found.ts_event_ns - minute_ns) > COLUMNS_NS:
            return np.full((1, len(COLUMNS)), np.nan)
        return found.columns

    def _keep_entries(self) -> None:
        looked_s = -FOLDER_S
        while not self._stop.wait(REPORT_S):
            now_s = self._clock.monotonic_s()
            if now_s - looked_s >= FOLDER_S:
                looked_s = now_s
                try:
                    self._look_into_folders()
                except (OSError, ServiceError) as error:  # such as a file that was removed while it was read
                    log.warning("the user's folders in %s cannot be read: %s", self._settings.user_models.parent, error)
            self._write()
            self._report(now_s)

    def _write(self) -> None:
        """Write the forecasts that were made; while QuestDB does not take them, the newest are kept."""
        for runner in self._runners.values():
            self._kept += runner.take()
        self._kept = self._kept[-MAX_KEPT:]
        if not self._kept:
            return
        rows = table_rows.from_records(LEAGUE_FORECASTS, [_record(each) for each in self._kept])
        try:
            append(self._db, LEAGUE_FORECASTS, rows)
        except ServiceError as error:
            log.warning("%d forecasts are not written yet: %s", len(self._kept), error)
        else:
            self._kept = []

    def _look_into_folders(self) -> None:
        """Stop entries that were removed or have another file or other inputs, and start those that are new or have such."""
        self._read_features()
        limits, symbols = self._settings.league, self._settings.exchange.symbols
        found = {entry.name: entry for entry in entries_in(self._settings.user_models)[: limits.max_entries]}
        before = self._runners
        kept = {
            name: each
            for name, each in before.items()
            if name in found and (each.entry, each.inputs) == (found[name], self._inputs)
        }
        self._runners = kept
        for name in before.keys() - kept.keys():
            before[name].stop()
            log.info("%s %s left the league", name, before[name].entry.version)
        new = {
            name: EntryRunner(entry, symbols, limits, self._models, self._clock, self._inputs)
            for name, entry in found.items()
            if name not in kept
        }
        for name, runner in new.items():
            runner.start()
            log.info("%s %s joined the league", name, runner.entry.version)
        self._runners = kept | new

    def _read_features(self) -> None:
        """Read the user's features if their folder has changed; one that is refused is said once."""
        folder = self._settings.user_features
        states = [(path.name, path.stat()) for path in sorted(folder.glob(f"*{SUFFIX}"))]
        files = tuple((name, state.st_mtime_ns, state.st_size) for name, state in states)
        if files == self._files:
            return
        own = features_in(folder)
        self._files, self._inputs = files, Inputs(tuple(file.name for file in own), version_of(own))
        log.info("the inputs of the entries have %d features of the user", len(own))

    def _report(self, now_s: float) -> None:
        """Write the states of the entries to Redis when they change, and before they expire there."""
        states = [runner.state for runner in self._runners.values()]
        if states == self._reported and now_s - self._reported_s < STATES_S:
            return
        try:
            write_states(self._redis, states)
        except ServiceError as error:
            log.warning("the states of the entries were not written: %s", error)
        self._reported, self._reported_s = states, now_s


def _own(row: FeatureMessage, minute_ns: int, inputs: Inputs) -> Any:
    """The user's features at the close of a minute, which the first row after it has; NaN if that row has others."""
    if row.user_version != inputs.own_version or row.user_end_ns != minute_ns:
        return np.full((1, len(inputs.own)), np.nan)
    return np.frombuffer(row.user_values)[np.newaxis]


def _record(made: Made) -> dict[str, Any]:
    forecast = made.forecast
    bounds = forecast.quantiles_bps
    return {
        "ts_event": made.close.minute_ns,
        "symbol": made.close.symbol,
        "entry": made.entry,
        "version": made.version,
        "model_version": made.model_version,
        "made_at": made.made_at_ns,
        "predict_s": forecast.took_s,
        "feature_version": FEATURE_VERSION,
        **{f"sigma_{h}m_bps": float(forecast.sigma_bps[0, at]) for at, h in enumerate(HORIZONS_MIN)},
        **{
            f"sigma_{h}m_q{percent}_bps": None if bounds is None else float(bounds[0, at, place])
            for at, h in enumerate(HORIZONS_MIN)
            for place, percent in enumerate(SCORED_QUANTILE_NAMES)
        },
    }


def build(settings: Settings, models: TrainedModels, clock: Clock = SYSTEM_CLOCK) -> tuple[Worker, LeagueHandler]:
    """The worker and its handler, which runs the entries from now on; the caller closes it after the worker has ended."""
    handler = LeagueHandler(settings, models, clock)
    handler.start()
    return Worker(settings, SPEC, handler), handler


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM."""
    worker, handler = build(settings, RegisteredModels(settings))
    try:
        worker.run_as_process()
    finally:
        handler.close()
