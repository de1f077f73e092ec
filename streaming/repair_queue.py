"""The open gaps of every symbol: which page of trades to request next, and what a page settles. Pure: nothing is requested here.

Each symbol has a queue of its own, so a symbol that REST refuses holds up no other. Every page is used for every gap
of its symbol. A missing id counts as absent only on evidence: in two searches, REST showed trades before and after the
gap but not this one. Until then the gap stays open. Before and after are meant by id within one numbering, and by time if
another numbering began in between.
What does not belong here: requests, publishing and threads (`repair`).
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.clock import NS_PER_DAY, NS_PER_S, SYSTEM_CLOCK
from btc_core.market.continuity import BURST_IDS, CLOCK_STEP_NS, MAX_IDS_PER_S, TradeContinuity, period_of
from btc_core.market.messages import GapNotice
from streaming.backoff import backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.clock import Clock
    from btc_core.exchanges.interface import GapSearch, PageTrade, TradePage

log = logging.getLogger(__name__)

MIN_GAP_AGE_S = 2.0
"""A younger gap may still close by itself: a frame came out of order, or a new connection sends a snapshot."""
RECHECK_S = 5.0
"""Pause before REST is asked a second time for ids that it did not have among trades that it has."""
BEHIND_FIRST_S, BEHIND_MAX_S = 5.0, 60.0
"""Pause before a search is repeated that did not get past the gap, because REST is behind the socket; it doubles each time."""
FAILED_FIRST_S, FAILED_MAX_S = 1.0, 30.0
"""Pause of a symbol after a request without an answer; it doubles each time."""
REFUSED_FIRST_S, REFUSED_MAX_S = 60.0, 3_600.0
"""Pause of a symbol that REST does not know; it doubles each time, because a listing rarely comes back."""
MAX_GAP_TRADES = 1_000_000
"""A larger gap is not searched for: it would take more than 1,000 requests. The most traded pairs need days to get there,
so the reason is almost always a wrong trade id. The size of a gap between two epochs says nothing; see
`MAX_EPOCH_SILENCE_NS`."""
MAX_EPOCH_SILENCE_NS = 7 * NS_PER_DAY
"""A gap between two epochs is not searched for if the trades around it are further apart than this, because one of their
times is wrong. Its search has as many pages as REST has trades in this time, and rarely more than one."""
EXTRA_PAGES = 20
"""A search ends after twice the pages that the gap fills and this many: more means that it began at a wrong time."""
TRADES_A_PAGE = 1_000
CONFIRMATIONS = 2
"""In how many searches REST must show the trades around a missing id without showing the id."""
STATES = ("searching", "behind", "refused")

GapKey = tuple[int, int, int]
"""First and last missing id, and the time of the trade that showed the gap: two numberings may lack the same ids."""


def _key(notice: GapNotice) -> GapKey:
    return notice.first_id, notice.last_id, notice.before_ns


class PageRequest(msgspec.Struct, frozen=True):
    """A page to request: the trades of a symbol behind a cursor."""

    symbol: str
    cursor: int
    gap: GapKey
    """The gap that this request is for; its page may fill others too."""


class SettledGap(msgspec.Struct, frozen=True):
    """A gap whose ids are all found or confirmed absent."""

    notice: GapNotice
    absent: list[tuple[int, int]]
    """Inclusive ranges of the ids that the exchange does not have."""


class PageResult(msgspec.Struct, frozen=True):
    """What a page gave: frames of missing trades, and the gaps that are settled."""

    frames: list[bytes]
    settled: list[SettledGap]


class _SortedPage:
    """The trades of a page by id, and what the page shows."""

    def __init__(self, page: TradePage) -> None:
        self.next = page.next
        self._trades = sorted(page.trades, key=lambda trade: trade.trade_id)
        self._ids = [trade.trade_id for trade in self._trades]
        self._oldest_ns = min((trade.ts_ns for trade in page.trades), default=0)
        self._newest_ns = max((trade.ts_ns for trade in page.trades), default=0)

    def between(self, first_id: int, last_id: int) -> list[PageTrade]:
        """The trades with ids from `first_id` to `last_id`."""
        return self._trades[bisect_left(self._ids, first_id) : bisect_right(self._ids, last_id)]

    def at(self, after_ns: int, before_ns: int) -> Iterator[PageTrade]:
        """The trades with times between these two, without them."""
        return (trade for trade in self._trades if after_ns < trade.ts_ns < before_ns)

    def shows_before(self, notice: GapNotice) -> bool:
        """Whether the page has a trade from before a gap."""
        if notice.between_epochs:
            return bool(self._ids) and self._oldest_ns <= notice.after_ns
        return bool(self._ids) and self._ids[0] < notice.first_id

    def shows_after(self, notice: GapNotice) -> bool:
        """Whether the page has a trade from after a gap."""
        if notice.between_epochs:
            return bool(self._ids) and self._newest_ns >= notice.before_ns
        return bool(self._ids) and self._ids[-1] > notice.last_id


def _is_plausible(notice: GapNotice) -> bool:
    """Whether the gap is not too large to be searched for."""
    if notice.between_epochs:
        return 0 <= notice.before_ns - notice.after_ns <= MAX_EPOCH_SILENCE_NS
    return 0 < notice.last_id - notice.first_id + 1 <= MAX_GAP_TRADES


class OpenGap:
    """One gap and the search for its trades."""

    def __init__(self, notice: GapNotice, partition: int, search: GapSearch, due_s: float) -> None:
        self.notice = notice
        self.partition = partition
        """The partition of the notice."""
        self.search = search
        self.missing = TradeContinuity(notice.last_id, [(notice.first_id, notice.last_id)])
        self._earliest_ns, self._latest_ns = period_of(
            notice.after_ns, notice.before_ns, between_epochs=notice.between_epochs
        )
        self._beside: set[tuple[int, int]] = set()
        """Ids and times of the trades with a missing id that were found right before these times, or after them, and of
        the trades at the time of the gap whose ids belong to no numbering around it."""
        self.eligible_s = due_s
        """When the gap is old enough to be filled (monotonic)."""
        self.due_s = due_s
        """When its next page may be requested (monotonic)."""
        self.is_behind = False
        self.is_settled = False
        self._confirmations = 0
        self._fruitless = 0
        """Searches in a row that did not get past the gap."""
        self._restart(0)

    @property
    def size(self) -> int:
        """How many ids the gap has."""
        return self.notice.last_id - self.notice.first_id + 1

    def _restart(self, begin: int) -> None:
        """Begin a search at one of the cursors of `search`."""
        self._begin = begin
        self.cursor = self.search.begins[begin]
        self._pages = 0
        self._found_before = self._found_after = False

    def fill(self, page: _SortedPage) -> Iterator[bytes]:
        """Yield the frames of the page that were missing; of an id that comes twice in it, both.

        A trade right before the time of a gap between epochs, or after it, is yielded too, but the search for its id
        continues: the exchange's clock may have stepped, or another numbering has the id.
        """
        found_id = 0
        for trade in page.between(self.notice.first_id, self.notice.last_id):
            if not self._earliest_ns <= trade.ts_ns <= self._latest_ns:
                place = trade.trade_id, trade.ts_ns
                if trade.ts_ns >= self._earliest_ns - CLOCK_STEP_NS and place not in self._beside:
                    self._beside.add(place)
                    yield trade.frame
                continue
            is_missing = self.missing.mark_absent(trade.trade_id, trade.trade_id) > 0  # it no longer is
            if is_missing or trade.trade_id == found_id:
                found_id = trade.trade_id
                yield trade.frame
        yield from self._fill_odd_ids(page)
        self.is_settled = not self.missing.open_gaps

    def _fill_odd_ids(self, page: _SortedPage) -> Iterator[bytes]:
        """Yield the trades at the time of the gap whose ids are too far from it to belong to its numbering.

        The exchange gave them wrong ids, so no gap has their ids, and they were missed together with those of this gap.
        """
        after_ns, before_ns = sorted((self.notice.after_ns, self.notice.before_ns))
        reach = BURST_IDS + MAX_IDS_PER_S * (before_ns - after_ns) // NS_PER_S
        for trade in page.at(after_ns, before_ns):
            is_near = self.notice.first_id - reach <= trade.trade_id <= self.notice.last_id + reach
            if not is_near and (trade.trade_id, trade.ts_ns) not in self._beside:
                self._beside.add((trade.trade_id, trade.ts_ns))
                yield trade.frame

    def advance(self, cursor: int, page: _SortedPage, now_s: float) -> None:
        """Continue the search behind a page that was requested with `cursor`, if the page is the next one of the search."""
        if self.is_settled or now_s < self.due_s or not self._is_next(cursor, page):
            return
        self._pages += 1
        self._found_before |= page.shows_before(self.notice)
        self._found_after |= page.shows_after(self.notice)
        if page.next is None or page.next >= self.search.end:
            self._end_search(now_s)
        elif self._pages > EXTRA_PAGES + 2 * min(self.size, MAX_GAP_TRADES) // TRADES_A_PAGE:
            self._try_next_begin(now_s)
        else:
            self.cursor = page.next

    def _is_next(self, cursor: int, page: _SortedPage) -> bool:
        return cursor <= self.cursor and (page.next is None or self.cursor < page.next)

    def _end_search(self, now_s: float) -> None:
        if not self._found_after:
            self._wait_for_rest(now_s)
        elif not self._found_before:
            self._try_next_begin(now_s)
        else:
            self.is_behind = False
            self._confirmations += 1
            self.is_settled = self._confirmations >= CONFIRMATIONS
            self.due_s = now_s + RECHECK_S
            self._restart(self._begin)

    def _try_next_begin(self, now_s: float) -> None:
        """Search from the next cursor; after the last one, start over after a pause."""
        if self._begin + 1 < len(self.search.begins):
            self._restart(self._begin + 1)
        else:
            self._wait_for_rest(now_s)

    def _wait_for_rest(self, now_s: float) -> None:
        if not self.is_behind:
            log.warning(
                "%s: REST does not show the trades around %d to %d yet; they stay missing until it does",
                self.notice.symbol,
                self.notice.first_id,
                self.notice.last_id,
            )
        self.is_behind = True
        self.due_s = now_s + backoff_s(self._fruitless, BEHIND_FIRST_S, BEHIND_MAX_S)
        self._fruitless += 1
        self._restart(0)


class SymbolQueue:
    """The open gaps of one symbol."""

    def __init__(self) -> None:
        self.gaps: dict[GapKey, OpenGap] = {}
        self.oversized: dict[GapKey, tuple[GapNotice, int]] = {}
        """Gaps that are too large to be searched for, with the partitions of their notices."""
        self.requested_s = 0.0
        """When a page of this symbol was last requested (monotonic)."""
        self.blocked_until_s = 0.0
        """No request is sent before this time (monotonic)."""
        self.failures = 0
        """Requests in a row that were not answered, or refused."""
        self.is_refused = False
        self._requested_gap: GapKey | None = None

    def due(self, now_s: float) -> OpenGap | None:
        """The gap whose page to request now: the earliest cursor, but not one gap twice while another one waits."""
        if now_s < self.blocked_until_s:
            return None
        waiting = [(gap.cursor, key) for key, gap in self.gaps.items() if gap.due_s <= now_s and not gap.is_settled]
        if not waiting:
            return None
        _, key = min([each for each in waiting if each[1] != self._requested_gap] or waiting)
        self._requested_gap = key
        self.requested_s = now_s
        return self.gaps[key]

    def states(self) -> Counter[str]:
        """How many gaps are in each of `STATES`."""
        if self.is_refused:
            return Counter(refused=len(self.gaps) + len(self.oversized))
        behind = sum(gap.is_behind for gap in self.gaps.values())
        return Counter(behind=behind, searching=len(self.gaps) - behind, refused=len(self.oversized))


class RepairQueue:
    """The open gaps of all symbols. Not safe for several threads."""

    def __init__(self, search: Callable[[GapNotice], GapSearch], clock: Clock = SYSTEM_CLOCK) -> None:
        self._search = search
        self._clock = clock
        self._symbols: dict[str, SymbolQueue] = {}

    def clear(self) -> None:
        """Forget all gaps."""
        for queue in self._symbols.values():
            queue.gaps.clear()
            queue.oversized.clear()
        self._export()
        self._symbols.clear()

    def apply(self, notice: GapNotice, partition: int) -> None:
        """Add a gap that opened, or remove one that closed; `partition` is that of the notice."""
        key = _key(notice)
        queue = self._symbols.setdefault(notice.symbol, SymbolQueue())
        if notice.state != "open":
            queue.gaps.pop(key, None)
            queue.oversized.pop(key, None)
        elif not _is_plausible(notice):
            if key not in queue.oversized:
                log.error(
                    "%s: the gap from trade %d to %d is too large and is not repaired; a trade id or time is wrong",
                    *(notice.symbol, notice.first_id, notice.last_id),
                )
            queue.oversized[key] = notice, partition
        elif key not in queue.gaps:
            age_s = (self._clock.now_ns() - notice.seen_ns) / NS_PER_S
            due_s = self._clock.monotonic_s() + min(MIN_GAP_AGE_S, max(0.0, MIN_GAP_AGE_S - age_s))
            queue.gaps[key] = OpenGap(notice, partition, self._search(notice), due_s)
        self._export()

    def notices(self, partition: int) -> list[GapNotice]:
        """The notices of all open gaps from one partition."""
        return [
            notice
            for queue in self._symbols.values()
            for notice, of in (
                *((gap.notice, gap.partition) for gap in queue.gaps.values()),
                *queue.oversized.values(),
            )
            if of == partition
        ]

    def next_request(self) -> PageRequest | None:
        """The next page to request, None if nothing is due. The symbols take turns."""
        now_s = self._clock.monotonic_s()
        for symbol, queue in sorted(self._symbols.items(), key=lambda item: item[1].requested_s):
            gap = queue.due(now_s)
            if gap is not None:
                return PageRequest(symbol, gap.cursor, _key(gap.notice))
        return None

    def take(self, request: PageRequest, page: TradePage) -> PageResult:
        """Use the page that was requested for every gap of its symbol.

        A settled gap stays in the queue until `remove` is called: it must not be forgotten before its trades are in the
        log.
        """
        queue = self._symbols.get(request.symbol)
        if queue is None:  # the partitions were given away meanwhile
            return PageResult([], [])
        queue.failures, queue.is_refused = 0, False
        now_s = self._clock.monotonic_s()
        found = _SortedPage(page)
        result = PageResult([], [])
        waiting = [gap for gap in queue.gaps.values() if not gap.is_settled and now_s >= gap.eligible_s]
        for gap in waiting:
            result.frames.extend(gap.fill(found))
            gap.advance(request.cursor, found, now_s)
            if gap.is_settled:
                result.settled.append(SettledGap(gap.notice, gap.missing.open_gaps))
        self._export()
        return result

    def remove(self, settled: list[SettledGap]) -> None:
        """Forget settled gaps; their trades are in the log."""
        for each in settled:
            queue = self._symbols.get(each.notice.symbol)
            if queue is not None:
                queue.gaps.pop(_key(each.notice), None)
        self._export()

    def unanswered(self, request: PageRequest) -> float:
        """Pause a symbol because a request had no answer; returns the pause in seconds."""
        return self._block(request.symbol, FAILED_FIRST_S, FAILED_MAX_S)

    def refused(self, request: PageRequest) -> bool:
        """Pause a symbol because REST does not know it; returns whether this is new."""
        queue = self._symbols.get(request.symbol)
        if queue is None:
            return False
        was_refused, queue.is_refused = queue.is_refused, True
        if not was_refused:
            queue.failures = 0
        self._block(request.symbol, REFUSED_FIRST_S, REFUSED_MAX_S)
        self._export()
        return not was_refused

    def _block(self, symbol: str, first_s: float, max_s: float) -> float:
        queue = self._symbols.get(symbol)
        if queue is None:
            return 0.0
        pause_s = backoff_s(queue.failures, first_s, max_s)
        queue.failures += 1
        queue.blocked_until_s = self._clock.monotonic_s() + pause_s
        return pause_s

    def _export(self) -> None:
        for symbol, queue in self._symbols.items():
            states = queue.states()
            for state in STATES:
                metrics.REPAIR_GAPS.labels(symbol, state).set(states[state])
