"""The repair worker: gaps in the trade ids in, the missing trades out to the log, fetched from the exchange's REST API.

A trade that comes on the socket after all is no harm: the bronze worker takes each id once. What REST does not have
either, asked twice, is confirmed absent. A gap's offset is committed when it is settled, so a crash begins it again.
What does not belong here: finding gaps (`gaps`), or deciding that one is closed (`bronze`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ExchangeError
from btc_core.exchanges.adapters import exchange_of
from btc_core.market.continuity import TradeContinuity, Verdict
from btc_core.market.messages import Absent, Envelope, GapNotice, encode_envelope
from btc_core.names import EVENTS_TOPIC, GAPS_TOPIC, WorkerName
from streaming.publish import Publisher
from streaming.worker import Role, Stateless, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from streaming.worker import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.REPAIR
PATIENCE_S = 2.0
"""A gap younger than this may still close by itself: a frame out of order, the snapshot of a new connection."""
RECHECK_S = 5.0
"""Before an id counts as absent REST is asked again: it may be a moment behind the socket."""


class RepairHandler(Stateless):
    """Gaps wait in `handle`; the work of `drain` repairs them one by one, slowly enough for the exchange."""

    def __init__(self, settings: Settings) -> None:
        self._exchange = exchange_of(settings.exchange)
        self._publisher = Publisher(settings.kafka, GROUP)
        self._waiting: dict[tuple[str, int, int], Missing] = {}
        self._settled: set[tuple[str, int, int]] = set()
        self._asked_at_s = 0.0

    def reset(self) -> None:
        """Forget gaps that nobody has taken up: their notices come again."""
        self._waiting.clear()

    def handle(self, messages: list[Record]) -> int:
        """Take up gaps that opened; let go of those that closed by themselves."""
        for message in messages:
            try:
                notice = msgspec.json.decode(message.value, type=GapNotice)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                place = (GAPS_TOPIC, message.partition, message.offset)
                self._publisher.dead_letter("bad_gap", str(error), message.value, place)
                continue
            key = (notice.symbol, notice.first_id, notice.last_id)
            if notice.state == "open":
                self._waiting[key] = Missing(notice)
            elif self._waiting.pop(key, None) is None:
                self._settled.add(key)
        return len(self._waiting)

    def drain(self) -> Callable[[], None]:
        """The repair of every gap taken up so far."""
        gaps, self._waiting = list(self._waiting.values()), {}

        def repair() -> None:
            while gaps:
                self._repair(gaps[0])
                gaps.pop(0)
            self._settled.clear()
            self._publisher.flush()

        return repair

    def _repair(self, gap: Missing) -> None:
        notice = gap.notice
        _wait_until(notice.seen_ns + round(PATIENCE_S * NS_PER_S))
        if (notice.symbol, notice.first_id, notice.last_id) in self._settled:
            return
        self._fetch(gap)
        if gap.seen.missing():
            time.sleep(RECHECK_S)
            self._fetch(gap)
        absent = gap.seen.open_gaps
        for first, last in absent:
            self._publish(notice.symbol, "absent", msgspec.json.encode(Absent(notice.symbol, first, last)), now_ns())
        self._publisher.flush()
        log.info(
            "%s: trades %d to %d: %d repaired, absent: %s",
            *(notice.symbol, notice.first_id, notice.last_id),
            *(notice.last_id - notice.first_id + 1 - gap.seen.missing(), absent or "none"),
        )

    def _fetch(self, gap: Missing) -> None:
        """Page through REST until the gap is behind; may be called again after an error and goes on."""
        while gap.seen.missing():
            for trade_id, frame in self._page(gap).items():
                if gap.seen.observe(trade_id) is Verdict.FILLS_GAP:
                    self._publish(gap.notice.symbol, "trade", frame, now_ns())
            if gap.cursor is None:
                return

    def _page(self, gap: Missing) -> dict[int, bytes]:
        """One request, not too soon after the one before."""
        time.sleep(max(0.0, self._asked_at_s + self._exchange.rest_pause_s - time.monotonic()))
        self._asked_at_s = time.monotonic()
        try:
            found, gap.cursor = self._exchange.missing_trades(gap.notice, gap.cursor)
        except ExchangeError:
            metrics.REPAIR_REQUESTS.labels("failed").inc()
            raise
        metrics.REPAIR_REQUESTS.labels("answered").inc()
        return found

    def _publish(self, symbol: str, channel: str, raw: bytes, ts_ns: int) -> None:
        envelope = Envelope(ts_ns, 0, 0, channel, "rest", raw, exchange=self._exchange.name)
        self._publisher.publish(EVENTS_TOPIC, symbol, encode_envelope(envelope), ts_ns)


class Missing:
    """A gap at work: which ids are still missing, and where REST is read next."""

    def __init__(self, notice: GapNotice) -> None:
        self.notice = notice
        self.seen = TradeContinuity(notice.last_id, [(notice.first_id, notice.last_id)])
        self.cursor: int | None = None


def _wait_until(ts_ns: int) -> None:
    time.sleep(max(0.0, (ts_ns - now_ns()) / NS_PER_S))


def build(settings: Settings) -> Worker:
    """The worker, ready to run."""
    return Worker(settings, Role(GROUP, GAPS_TOPIC), RepairHandler(settings))
