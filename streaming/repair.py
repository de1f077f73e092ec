"""The repair worker: reads gap notices, fetches the missing trades from the exchange's REST API and appends them to the log.

A trade that also arrives on the socket does no harm: the bronze worker takes each id once. The offset of a notice is
committed at once, because a gap may stay open for hours; after a restart the worker knows the open gaps from its
checkpoint and from the notices of the log.
What does not belong here: finding gaps (`gaps`), which page to request (`repair_queue`), or deciding that a gap is closed
(`bronze`).
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.clock import now_ns
from btc_core.errors import BadFrame, ExchangeError, NotOffered, RateLimited, ServiceError
from btc_core.exchanges.adapters import EXCHANGES, exchange_of
from btc_core.market.messages import AbsentTrades, Envelope, GapNotice, encode_envelope
from btc_core.names import EVENTS_TOPIC, GAPS_TOPIC, WorkerName, exchange_in
from streaming.handler import WorkerSpec
from streaming.publisher import Publisher
from streaming.repair_queue import RepairQueue
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from btc_core.exchanges.interface import TradePage
    from btc_core.settings import Settings
    from streaming.handler import Record
    from streaming.repair_queue import PageRequest, PageResult

log = logging.getLogger(__name__)

GROUP = WorkerName.REPAIR
STATE_VERSION = "2"
"""Version of the saved state. Raise it when the fields of `SavedGaps` or their meaning change."""
POLL_S = 0.1
"""How soon a gap that became due is seen."""
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, BadFrame)
"""What a message of the topic `gaps` raises that is no gap of an exchange that is known."""
FLUSH_RETRY_S = 1.0
"""Pause before the next attempt while Kafka does not acknowledge."""


class SavedGaps(msgspec.Struct, frozen=True):
    """The open gaps of one partition in a checkpoint."""

    partition: int
    notices: list[GapNotice]


class ExchangeRepairs:
    """The open gaps of one exchange; `repair_until` repairs them, in a thread of its own."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._exchange = exchange_of(settings.exchange, name)
        self._log_key = settings.log_key
        self._budget = self._exchange.budget
        self._publisher = Publisher(settings.kafka, GROUP)
        """Publishes trades, in the thread of the repairs."""
        self._lock = threading.Lock()
        """Held while the queue is used."""
        self._queue = RepairQueue(self._exchange.gap_search)

    def clear(self) -> None:
        """Forget all gaps."""
        with self._lock:
            self._queue.clear()

    def apply(self, notice: GapNotice, partition: int) -> None:
        """Add a gap that opened, or remove one that closed."""
        with self._lock:
            self._queue.apply(notice, partition)

    def notices(self, partition: int) -> list[GapNotice]:
        """The notices of all open gaps from one partition."""
        with self._lock:
            return self._queue.notices(partition)

    def repair_until(self, stop: threading.Event) -> None:
        """Request page after page, within the request budget, and publish what the pages hold, until `stop` is set."""
        while not stop.wait(min(POLL_S, self._budget.ready_in_s())):
            if self._budget.ready_in_s() > 0.0:
                continue
            with self._lock:
                request = self._queue.next_request()
            if request is None:
                stop.wait(POLL_S)
                continue
            page = self._page(request)
            if page is None:
                continue
            with self._lock:
                result = self._queue.take(request, page)
            self._publish_result(request.symbol, result)
            if self._flush(stop):
                with self._lock:
                    self._queue.remove(result.settled)

    def _page(self, request: PageRequest) -> TradePage | None:
        """The requested page; None if there was no answer, and the queue then knows when to ask again."""
        outcome = "answered"
        try:
            return self._exchange.trade_page(request.symbol, request.cursor)
        except RateLimited as error:  # the request budget waits
            outcome = "limited"
            log.warning("%s; next request in %.0f s", error, self._budget.ready_in_s())
        except NotOffered as error:
            outcome = "refused"
            with self._lock:
                is_new = self._queue.refused(request)
            if is_new:
                log.error("the gaps of %s are not repaired while REST refuses it: %s", request.symbol, error)  # noqa: TRY400 - a refusal of the exchange needs no traceback
        except ExchangeError as error:
            outcome = "failed"
            with self._lock:
                pause_s = self._queue.unanswered(request)
            metrics.RETRIES.labels(GROUP).inc()
            log.warning("%s; next attempt for %s in %.1f s", error, request.symbol, pause_s)
        finally:
            metrics.REPAIR_REQUESTS.labels(self._exchange.name, outcome).inc()
        return None

    def _publish_result(self, symbol: str, result: PageResult) -> None:
        for frame in result.frames:
            self._publish(symbol, "trade", frame)
        for gap in result.settled:
            notice = gap.notice
            for first, last in gap.absent:
                self._publish(
                    symbol, "absent", msgspec.json.encode(AbsentTrades(symbol, first, last, notice.before_ns))
                )
            absent = sum(last - first + 1 for first, last in gap.absent)
            log.info(
                "%s, trades %d to %d: %d repaired; absent: %s",
                symbol,
                notice.first_id,
                notice.last_id,
                notice.last_id - notice.first_id + 1 - absent,
                gap.absent or "none",
            )

    def _publish(self, symbol: str, channel: str, raw: bytes) -> None:
        ts_ns = now_ns()
        is_other = bool(exchange_in(symbol))
        envelope = Envelope(ts_ns, 0, 0, channel, "rest", raw, exchange=self._exchange.name, qualified=is_other)
        self._publisher.publish(EVENTS_TOPIC, self._log_key(symbol), encode_envelope(envelope), ts_ns)

    def _flush(self, stop: threading.Event) -> bool:
        """Wait until Kafka has acknowledged everything published; False if the worker was stopped before that."""
        while True:
            try:
                self._publisher.flush()
            except ServiceError as error:
                metrics.RETRIES.labels(GROUP).inc()
                log.warning("%s; next attempt in %.0f s", error, FLUSH_RETRY_S)
                if stop.wait(FLUSH_RETRY_S):
                    return False
            else:
                return True


class RepairHandler:
    """Keeps the open gaps from the notices, each with those of its exchange.

    A gap of an exchange that is no longer followed stays open: it is kept, and no request is sent for it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.exchange.name
        self._refusals = Publisher(settings.kafka, GROUP)
        """Publishes dead letters, in the thread of the loop."""
        self.followed = {name: ExchangeRepairs(settings, name) for name in settings.exchange.names}
        """By exchange, those whose gaps are repaired."""
        self._unfollowed: dict[str, ExchangeRepairs] = {}
        self._handled = 0
        """Messages since the last `drain`."""

    def reset(self) -> None:
        """Forget all gaps: their notices come again."""
        for repairs in self._all():
            repairs.clear()
        self._handled = 0

    def warm(self, messages: list[Record]) -> None:
        """Rebuild which gaps are open."""
        for message in messages:
            try:
                self._apply(message)
            except UNREADABLE:  # it became a dead letter when it was handled
                continue

    def save(self, partition: int) -> bytes:
        """The open gaps of the partition."""
        notices = [notice for repairs in self._all() for notice in repairs.notices(partition)]
        return msgspec.msgpack.encode(SavedGaps(partition, notices))

    def load(self, state: bytes) -> None:
        """Restore the open gaps of a partition."""
        saved = msgspec.msgpack.decode(state, type=SavedGaps)
        for notice in saved.notices:
            self._repairs_of(notice.symbol).apply(notice, saved.partition)

    def handle(self, messages: list[Record]) -> int:
        """Add gaps that opened and drop those that closed; returns the messages since the last `drain`."""
        for message in messages:
            try:
                self._apply(message)
            except UNREADABLE as error:
                place = (GAPS_TOPIC, message.partition, message.offset)
                self._refusals.dead_letter("bad_gap", str(error), message.value, place)
        self._handled += len(messages)
        return self._handled

    def drain(self) -> Callable[[], None]:
        """The wait until Kafka has acknowledged the dead letters."""
        self._handled = 0
        return self._refusals.flush

    def _apply(self, message: Record) -> None:
        notice = msgspec.json.decode(message.value, type=GapNotice)
        self._repairs_of(notice.symbol).apply(notice, message.partition)

    def _all(self) -> list[ExchangeRepairs]:
        return [*self.followed.values(), *self._unfollowed.values()]

    def _repairs_of(self, symbol: str) -> ExchangeRepairs:
        """Where the gaps of a symbol are kept; raises `BadFrame` if there is no adapter for its exchange."""
        name = exchange_in(symbol) or self._home
        if name in self.followed:
            return self.followed[name]
        if name not in EXCHANGES:
            raise BadFrame("unknown_exchange", f"there is no adapter for the exchange of {symbol[:64]!r}")
        if name not in self._unfollowed:
            log.error("the gaps of %s are not repaired, because %s is not followed", symbol, name)
            self._unfollowed[name] = ExchangeRepairs(self._settings, name)
        return self._unfollowed[name]


class RepairWorker(Worker):
    """A worker that repairs the gaps of each exchange in a thread while its loop reads notices.

    An exchange whose REST API does not answer, or refuses this address, holds up no repair of another one.
    """

    def __init__(self, settings: Settings, spec: WorkerSpec, handler: RepairHandler) -> None:
        super().__init__(settings, spec, handler)
        self._repairs = handler.followed

    def run(self) -> None:
        """Work until `stop` is called; raises what any thread raised."""
        stop_repairs = threading.Event()

        def ended(_: Future[None]) -> None:  # without repairs, the worker must not continue
            self.stop()

        with ThreadPoolExecutor(len(self._repairs), thread_name_prefix="repairs") as pool:
            running = [pool.submit(repairs.repair_until, stop_repairs) for repairs in self._repairs.values()]
            for repairs in running:
                repairs.add_done_callback(ended)
            try:
                super().run()
            finally:
                stop_repairs.set()
            for repairs in running:
                repairs.result()


def build(settings: Settings) -> Worker:
    """The worker, ready to run. It reads all notices that the log still has, unless a checkpoint knows the open gaps."""
    spec = WorkerSpec(GROUP, GAPS_TOPIC, settings.kafka.retention_hours * 3_600.0, STATE_VERSION)
    return RepairWorker(settings, spec, RepairHandler(settings))


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM."""
    build(settings).run_as_process()
