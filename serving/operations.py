"""Collects the state of the whole system for operators: a thread looks every ten seconds, so that no request waits.

What does not belong here: the conditions of alerts (`alert_rules`), and repairing anything.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days.lake import kept_days
from btc_core.days.log_archive import archived_days
from btc_core.errors import BtcError
from btc_core.league.folder import entries_in
from btc_core.models.gate import DEMOTE_COVERAGE_HOURS
from btc_core.names import WorkerName
from btc_core.stores.questdb import QuestDB
from btc_core.stores.questdb_wal import wal_states
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.bar_tables import GOLD_1MIN, GOLD_1MIN_SEALED
from btc_core.tables.catalogue import GAP_MARKS, SILVER_FEATURES
from btc_core.tables.sql import within
from btc_core.utc_day import day_ns, day_of
from serving import system_gauges
from serving.alert_rules import RULES, Facts, Judge
from serving.answers import iso
from serving.metrics import EXCLUSIVE, START_S, update_gauges
from serving.operation_answers import AlertState, BackupName, DayState, GapMark, Operations, ServerState, TableState
from serving.operation_figures import Figures, parts_of
from serving.user_alerts import KEPT_NS, user_rules
from serving.worker_metrics import WorkerMetrics, peers

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.market.messages import ForecastRow
    from serving.deps import Deps
    from serving.stored_rows import Scores

PERIOD_S = 10.0
TABLES_EVERY = 3
"""Collections between two reads of the tables."""
DAYS_EVERY = 30
"""Collections between two reads of the object store."""
TIMEOUT_S = 5.0
DAYS = 7
"""As many past days are listed as the log keeps."""
MAX_GAPS = 50
SERVER_ALERT = "ServerDown"
NO_PEERS = "BTC_METRICS_PEERS names no process, so their metrics are not read"

_logger = logging.getLogger("serving")


class OperationsWatch:
    """What was collected last. The constructor raises `ConfigError` if the user's file of alerts is wrong."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._settings = deps.settings
        self._metrics = WorkerMetrics(peers(deps.settings.metrics.peers), self._may_be_absent)
        self._db = QuestDB(deps.settings.questdb, TIMEOUT_S)
        self._rules = RULES + user_rules(self._settings.alert.rules, self._settings.exchange.symbols)
        self._forecasts: dict[str, deque[ForecastRow]] = {each: deque() for each in self._settings.exchange.symbols}
        self._judge = Judge(self._settings.links)
        self._problems: dict[str, str] = {}
        self._tables: tuple[TableState, ...] = ()
        self._gaps: tuple[GapMark, ...] = ()
        self._days: tuple[DayState, ...] = ()
        self._coverage: dict[str, Scores] = {}
        self._backups_made: frozenset[BackupName] | None = None
        """Which backups were ever made; None before the object store was read."""
        self._since_s = deps.clock.monotonic_s()
        self._daemon_worked = False
        self._rounds = 0
        self._body = self._make(None, (), Figures(self._metrics))
        self._thread = threading.Thread(target=self._run, name="operations", daemon=True)

    def __call__(self) -> Operations:
        """The newest state; before the first collection it is empty."""
        return self._body

    def start(self) -> None:
        """Collect from a thread that ends with the process."""
        self._thread.start()

    def collect(self) -> None:
        """Collect once."""
        now_s, now_ns = self._deps.clock.monotonic_s(), self._deps.clock.now_ns()
        with EXCLUSIVE:
            update_gauges(self._deps)
            self._metrics.read_own(now_s)
        self._metrics.read_workers(now_s)
        if self._rounds % TABLES_EVERY == 0:
            self._attempt("tables", self._read_tables)
            self._attempt("gaps", self._read_gaps)
            self._attempt("coverage", self._read_coverage)
            is_start = now_s - self._since_s < START_S and not self._daemon_worked
            self._daemon_worked |= system_gauges.update_daemon(self._settings, may_be_starting=is_start)
            self._ask_gates()
        if self._rounds % DAYS_EVERY == 0 or "days" in self._problems:
            self._attempt("days", self._read_days)
            self._attempt("backups", self._read_backups)
            self._attempt("demotions", lambda: system_gauges.update_demotions(self._deps))
        self._attempt("forecasts", lambda: self._read_forecasts(now_ns))
        self._rounds += 1
        facts = Facts(self._metrics, self._coverage, self._forecasts)
        alerts = tuple(self._judge(rule, facts, now_s) for rule in self._rules)
        self._body = self._make(iso(now_ns), alerts, Figures(self._metrics))

    def _ask_gates(self) -> None:
        """Ask for the gate's decision about each model, so that a forecast can name it without waiting for the registry."""
        for key, model in self._deps.models.current.models.items():
            self._deps.gate_decision(key, model.version)

    def _run(self) -> None:
        stop = threading.Event()
        while True:
            try:
                self.collect()
            except Exception:
                _logger.exception("the state for operators could not be collected")
            stop.wait(PERIOD_S)

    def _attempt(self, name: str, read: Callable[[], None]) -> None:
        """Run a read, and note why it failed."""
        try:
            read()
            self._problems.pop(name, None)
        except BtcError as error:
            self._problems[name] = f"{name}: {error}"

    def _may_be_absent(self, name: str) -> bool:
        """Whether a process need not run. The league runs once there are models, which `btc models` adds and removes meanwhile."""
        return name == WorkerName.LEAGUE and not entries_in(self._settings.user_models)

    def _read_forecasts(self, now_ns: int) -> None:
        problem: BtcError | None = None
        for symbol, kept in self._forecasts.items():
            try:
                newest = self._deps.newest_rows.forecast(symbol)
            except BtcError as error:
                newest, problem = None, problem or error
            if newest is None:
                kept.clear()
                continue
            if not kept or kept[-1].ts_event_ns < newest.ts_event_ns:
                kept.append(newest)
            while kept and kept[0].ts_event_ns < now_ns - KEPT_NS:
                kept.popleft()
        if problem is not None:
            raise problem

    def _read_tables(self) -> None:
        states = wal_states(self._db.execute)
        self._tables = tuple(
            TableState(each.table, each.suspended, each.lag_transactions)
            for each in sorted(states, key=lambda state: (-state.suspended, -state.lag_transactions, state.table))
        )

    def _read_gaps(self) -> None:
        names = ("symbol", "first_id", "last_id", "missing", "state")
        since_ns = self._deps.clock.now_ns() - DAYS * NS_PER_DAY
        rows = self._db.execute(
            f"SELECT cast(ts_event AS LONG), {', '.join(names)} FROM {GAP_MARKS.name} "  # noqa: S608 - names of the catalogue
            f"WHERE {within('ts_event', since_ns, since_ns + (DAYS + 1) * NS_PER_DAY)} ORDER BY ts_event DESC LIMIT {MAX_GAPS}"
        )
        self._gaps = tuple(GapMark(iso(int(row[0])), *row[1:]) for row in rows)

    def _read_coverage(self) -> None:
        now_ns = self._deps.clock.now_ns()
        since_ns = now_ns - DEMOTE_COVERAGE_HOURS * 3_600 * NS_PER_S
        self._coverage = {
            symbol: self._deps.stored_rows.scores(symbol, since_ns, now_ns)
            for symbol in self._settings.exchange.symbols
        }

    def _read_days(self) -> None:
        today_ns = day_ns(day_of(self._deps.clock.now_ns()))
        first_ns = today_ns - DAYS * NS_PER_DAY
        live, sealed = (self._minutes(table.name, first_ns, today_ns) for table in (GOLD_1MIN, GOLD_1MIN_SEALED))
        newest = self._db.execute(f"SELECT cast(ts AS LONG) FROM {GOLD_1MIN_SEALED.name} ORDER BY ts DESC LIMIT 1")  # noqa: S608 - a name of the catalogue
        copied: set[str] | None = None
        archived: set[str] | None = None
        try:
            with ObjectStore(self._settings.store, connect_timeout_s=TIMEOUT_S, read_timeout_s=TIMEOUT_S) as store:
                copied, archived = set(kept_days(store, SILVER_FEATURES.name)), set(archived_days(store))
        finally:  # the seals are shown even if the object store does not answer
            self._days = tuple(
                DayState(day, live.get(day, 0), sealed.get(day, 0), _among(copied, day), _among(archived, day))
                for day in (day_of(today_ns - back * NS_PER_DAY) for back in range(1, DAYS + 1))
            )

            system_gauges.update_days(self._days, int(newest[0][0]) if newest else None, self._deps.clock.now_ns())

    def _read_backups(self) -> None:
        with ObjectStore(self._settings.store, connect_timeout_s=TIMEOUT_S, read_timeout_s=TIMEOUT_S) as store:
            self._backups_made = system_gauges.update_backups(self._settings, store)

    def _minutes(self, table: str, from_ns: int, to_ns: int) -> dict[str, int]:
        """Rows of each day."""
        rows = self._db.execute(
            f"SELECT cast(ts AS LONG), count() FROM {table} WHERE {within('ts', from_ns, to_ns)} SAMPLE BY 1d"  # noqa: S608 - names of the catalogue
        )
        return {day_of(int(begin_ns)): int(count) for begin_ns, count in rows}

    def _make(self, collected_at: str | None, alerts: tuple[AlertState, ...], figures: Figures) -> Operations:
        return Operations(
            collected_at=collected_at,
            parts=parts_of(self._deps, figures, alerts) if collected_at else (),
            alerts=alerts,
            processes=figures.processes(),
            processes_reason=None if self._metrics.addresses else NO_PEERS,
            servers=tuple(self._server(name, problem) for name, problem in self._deps.server_problems().items()),
            stages=figures.stages(),
            subscriptions=figures.subscriptions(),
            channels=figures.channels(),
            dead_letters=figures.dead_letters(),
            tables=self._tables,
            gaps=self._gaps,
            days=self._days,
            backups=figures.backups(self._settings, self._backups_made),
            disk=figures.disk(),
            problems=tuple(self._problems.values()),
            simulated=self._settings.simulated,
        )

    def _server(self, name: str, problem: str | None) -> ServerState:
        up = None if problem is None else not problem
        return ServerState(name, up, problem or None, self._settings.links.runbook(SERVER_ALERT))


def _among(days: set[str] | None, day: str) -> bool | None:
    """Whether a day is one of `days`; None if those are not known."""
    return None if days is None else day in days
