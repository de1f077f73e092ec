"""The repair worker: reads gap notices, fetches the missing trades from the exchange's REST API and appends them to the log.

A trade that also arrives on the socket does no harm: the bronze worker takes each id once. Ids that REST does not have
either, asked twice, are confirmed absent. The offset of a notice is committed once its gap is settled, so after a crash
the repair starts again.
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
from btc_core.market.messages import AbsentTrades, Envelope, GapNotice, encode_envelope
from btc_core.names import EVENTS_TOPIC, GAPS_TOPIC, WorkerName
from streaming.handler import StatelessHandler, WorkerSpec
from streaming.publisher import Publisher
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from streaming.handler import Record

log = logging.getLogger(__name__)

GROUP = WorkerName.REPAIR
MIN_GAP_AGE_S = 2.0
"""A younger gap may still close by itself: a frame came out of order, or a new connection sends a snapshot."""
RECHECK_S = 5.0
"""Pause before REST is asked a second time for ids that it did not have: it may be a moment behind the socket."""


class RepairHandler(StatelessHandler):
    """Collects open gaps in `handle`; the work that `drain` returns repairs them one by one, within the exchange's rate limit."""

    def __init__(self, settings: Settings) -> None:
        self._exchange = exchange_of(settings.exchange)
        self._publisher = Publisher(settings.kafka, GROUP)
        self._waiting: dict[tuple[str, int, int], GapRepair] = {}
        """Open gaps whose repair has not begun, by symbol, first and last id."""
        self._closed: set[tuple[str, int, int]] = set()
        """Gaps that closed by themselves after `drain` had handed them over."""
        self._requested_s = 0.0

    def reset(self) -> None:
        """Forget gaps not yet drained: their notices come again."""
        self._waiting.clear()

    def handle(self, messages: list[Record]) -> int:
        """Add gaps that opened and drop those that closed by themselves; returns how many wait."""
        for message in messages:
            try:
                notice = msgspec.json.decode(message.value, type=GapNotice)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                place = (GAPS_TOPIC, message.partition, message.offset)
                self._publisher.dead_letter("bad_gap", str(error), message.value, place)
                continue
            key = (notice.symbol, notice.first_id, notice.last_id)
            if notice.state == "open":
                self._waiting[key] = GapRepair(notice)
            elif self._waiting.pop(key, None) is None:
                self._closed.add(key)
        return len(self._waiting)

    def drain(self) -> Callable[[], None]:
        """The repair of every waiting gap."""
        gaps, self._waiting = list(self._waiting.values()), {}

        def repair() -> None:
            while gaps:
                self._repair(gaps[0])
                gaps.pop(0)
            self._closed.clear()
            self._publisher.flush()

        return repair

    def _repair(self, gap: GapRepair) -> None:
        notice = gap.notice
        _wait_until(notice.seen_ns + round(MIN_GAP_AGE_S * NS_PER_S))
        if (notice.symbol, notice.first_id, notice.last_id) in self._closed:
            return
        self._fetch(gap)
        if gap.continuity.missing():
            time.sleep(RECHECK_S)
            self._fetch(gap)
        absent = gap.continuity.open_gaps
        for first, last in absent:
            self._publish(
                notice.symbol, "absent", msgspec.json.encode(AbsentTrades(notice.symbol, first, last)), now_ns()
            )
        self._publisher.flush()
        log.info(
            "%s, trades %d to %d: %d repaired; absent: %s",
            notice.symbol,
            notice.first_id,
            notice.last_id,
            notice.last_id - notice.first_id + 1 - gap.continuity.missing(),
            absent or "none",
        )

    def _fetch(self, gap: GapRepair) -> None:
        """Page through REST to the end of the gap, publishing its trades; after an error the next call continues."""
        while gap.continuity.missing():
            for trade_id, frame in self._page(gap).items():
                if gap.continuity.observe(trade_id) is Verdict.FILLS_GAP:
                    self._publish(gap.notice.symbol, "trade", frame, now_ns())
            if gap.cursor is None:
                return

    def _page(self, gap: GapRepair) -> dict[int, bytes]:
        """Frames by trade id from one request, sent no sooner than the exchange's rate limit allows."""
        time.sleep(max(0.0, self._requested_s + self._exchange.rest_pause_s - time.monotonic()))
        self._requested_s = time.monotonic()
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


class GapRepair:
    """The repair of one gap: which ids are still missing, and where the next REST request begins."""

    def __init__(self, notice: GapNotice) -> None:
        self.notice = notice
        self.continuity = TradeContinuity(notice.last_id, [(notice.first_id, notice.last_id)])
        self.cursor: int | None = None


def _wait_until(ts_ns: int) -> None:
    time.sleep(max(0.0, (ts_ns - now_ns()) / NS_PER_S))


def build(settings: Settings) -> Worker:
    """The worker, ready to run."""
    return Worker(settings, WorkerSpec(GROUP, GAPS_TOPIC), RepairHandler(settings))


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM."""
    build(settings).run_as_process()
