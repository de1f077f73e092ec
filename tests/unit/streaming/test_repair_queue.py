"""The queue of open gaps against a REST API that is given, with a clock that the test moves."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest

from btc_core import metrics
from btc_core.clock import NS_PER_S
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.coinbase import Coinbase
from btc_core.exchanges.interface import PageTrade, TradePage
from btc_core.exchanges.kraken import Kraken
from btc_core.market.messages import GapNotice
from streaming.repair_queue import BEHIND_MAX_S, MAX_GAP_TRADES, REFUSED_FIRST_S, REFUSED_MAX_S, RepairQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streaming.repair_queue import PageRequest, PageResult

pytestmark = pytest.mark.unit

START_S = 1_760_000_000
PAUSE_S = 1.0
"""Time that passes with each request."""


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.s = 100_000.0

    def now_ns(self) -> int:
        return START_S * NS_PER_S + round((self.s - 100_000.0) * NS_PER_S)

    def monotonic_s(self) -> float:
        return self.s


class Rest:
    """A REST API with one trade a second: id `n` has the time `START_S + n`. `ids` are those that it shows."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = set(ids)
        self.requests: list[PageRequest] = []

    def page(self, request: PageRequest) -> TradePage:
        """A page as Kraken's: trades after a time."""
        self.requests.append(request)
        found = sorted(i for i in self.ids if (START_S + i) * NS_PER_S > request.cursor)[:1_000]
        next_ns = (START_S + found[-1]) * NS_PER_S - 1 if len(found) >= 500 else None
        return TradePage([PageTrade(i, (START_S + i) * NS_PER_S, b"%d" % i) for i in found], next_ns)


def notice(first: int, last: int, symbol: str = "BTC/USD", **times: int) -> GapNotice:
    """An open gap, seen at the time of the trade after it."""
    before_ns = (START_S + last + 1) * NS_PER_S
    known = {"after_ns": (START_S + first - 1) * NS_PER_S, "before_ns": before_ns, "seen_ns": before_ns} | times
    return GapNotice(symbol, first, last, "open", known["after_ns"], known["before_ns"], known["seen_ns"])


class Repairs:
    """A queue that is worked off like the repair worker does it, and what came out."""

    def __init__(self, rest: Rest, *notices: GapNotice, past_s: float = 50.0) -> None:
        self.rest = rest
        self.clock = ManualClock()
        self.clock.s += past_s
        self.queue = RepairQueue(Kraken(ExchangeSettings()).gap_search, self.clock)
        for each in notices:
            self.queue.apply(each, 0)
        self.filled: list[int] = []
        self.absent: list[tuple[int, int]] = []

    def work(self, seconds: float) -> None:
        until_s = self.clock.s + seconds
        while self.clock.s < until_s:
            request = self.queue.next_request()
            if request is not None:
                self._took(self.queue.take(request, self.rest.page(request)))
            self.clock.s += PAUSE_S

    def _took(self, result: PageResult) -> None:
        self.filled += [int(frame) for frame in result.frames]
        self.absent += [ids for gap in result.settled for ids in gap.absent]
        self.queue.remove(result.settled)

    def open_gaps(self) -> list[tuple[int, int]]:
        return [(each.first_id, each.last_id) for each in self.queue.notices(0)]


def state(symbol: str, name: str) -> float:
    return metrics.REPAIR_GAPS.labels(symbol, name)._value.get()


def test_one_page_fills_every_gap_that_lies_in_it() -> None:
    repairs = Repairs(Rest(range(500)), *(notice(10 * k, 10 * k) for k in range(1, 41)), past_s=450.0)
    repairs.work(1.0)
    assert sorted(repairs.filled) == [10 * k for k in range(1, 41)]
    assert len(repairs.rest.requests) == 1
    assert repairs.open_gaps() == []


def test_open_gaps_stay_bounded_while_the_socket_loses_every_sixth_trade() -> None:
    rest = Rest([])
    repairs = Repairs(rest)
    most = 0
    for now in range(1, 301):
        rest.ids.add(now)
        if now % 6 == 0:
            repairs.queue.apply(notice(now - 1, now - 1), 0)
        repairs.clock.s = 100_000.0 + now
        repairs.work(PAUSE_S)
        most = max(most, len(repairs.open_gaps()))
    assert most <= 2
    assert len(repairs.filled) >= 49


def test_trades_are_not_absent_while_rest_is_behind_and_are_filled_once_it_has_them() -> None:
    rest = Rest(range(1, 100))
    repairs = Repairs(rest, notice(101, 109), past_s=112.0)
    repairs.work(600.0)
    assert (repairs.filled, repairs.absent, repairs.open_gaps()) == ([], [], [(101, 109)])
    assert state("BTC/USD", "behind") == 1
    assert len(rest.requests) >= 8
    rest.ids |= set(range(100, 200))
    repairs.work(BEHIND_MAX_S + 1.0)
    assert (repairs.filled, repairs.absent, repairs.open_gaps()) == (list(range(101, 110)), [], [])
    assert state("BTC/USD", "behind") == 0


def test_an_empty_answer_is_no_evidence_that_trades_are_absent() -> None:
    repairs = Repairs(Rest([]), notice(101, 109), notice(120, 120))
    repairs.work(1_200.0)
    assert (repairs.filled, repairs.absent) == ([], [])
    assert repairs.open_gaps() == [(101, 109), (120, 120)]
    assert len(repairs.rest.requests) <= 2 * 25, "the pauses grow"


def test_ids_that_rest_leaves_out_among_others_are_absent_only_after_it_was_asked_twice() -> None:
    repairs = Repairs(Rest(set(range(1, 200)) - {102, 103}), notice(101, 104), past_s=210.0)
    repairs.work(1.0)
    assert (repairs.filled, repairs.absent) == ([101, 104], [])
    repairs.work(10.0)
    assert repairs.absent == [(102, 103)]
    assert repairs.open_gaps() == []


def test_trades_that_appear_between_the_two_requests_are_filled() -> None:
    rest = Rest(set(range(1, 200)) - {102})
    repairs = Repairs(rest, notice(101, 104), past_s=210.0)
    repairs.work(1.0)
    rest.ids.add(102)
    repairs.work(10.0)
    assert (sorted(repairs.filled), repairs.absent) == ([101, 102, 103, 104], [])


@pytest.mark.parametrize("symbol_first", ["MATIC/USD", "ZEC/USD"])
def test_a_symbol_that_rest_refuses_holds_up_no_other_and_is_asked_rarely(symbol_first: str) -> None:
    refused_symbol = "MATIC/USD"
    repairs = Repairs(Rest(range(500)), notice(3, 4, symbol_first), notice(3, 4, refused_symbol), notice(30, 40))
    refusals: list[float] = []
    reported = 0
    for _ in range(4 * 3_600):
        request = repairs.queue.next_request()
        if request is not None and request.symbol == refused_symbol:
            refusals.append(repairs.clock.s)
            reported += repairs.queue.refused(request)
        elif request is not None:
            repairs._took(repairs.queue.take(request, repairs.rest.page(request)))
        repairs.clock.s += PAUSE_S
    assert set(range(30, 41)) <= set(repairs.filled)
    assert [each.symbol for each in repairs.queue.notices(0)] == [refused_symbol]
    assert state(refused_symbol, "refused") == 1
    assert reported == 1, "it is logged once"
    pauses = [later - earlier for earlier, later in itertools.pairwise(refusals)]
    assert REFUSED_FIRST_S <= pauses[0] <= pauses[-1]
    assert pauses[-1] >= REFUSED_MAX_S


def test_a_refused_symbol_is_repaired_when_rest_knows_it_again() -> None:
    repairs = Repairs(Rest(range(500)), notice(30, 40))
    request = repairs.queue.next_request()
    assert request is not None
    repairs.queue.refused(request)
    assert state("BTC/USD", "refused") == 1
    repairs.work(REFUSED_FIRST_S + 5.0)
    assert repairs.filled == list(range(30, 41))
    assert state("BTC/USD", "refused") == 0


def test_a_request_without_an_answer_pauses_its_symbol_only() -> None:
    repairs = Repairs(Rest(range(500)), notice(30, 40), notice(30, 40, "ETH/USD"))
    first = repairs.queue.next_request()
    assert first is not None
    assert repairs.queue.unanswered(first) == 1.0
    second = repairs.queue.next_request()
    assert second is not None
    assert second.symbol != first.symbol
    assert repairs.queue.next_request() is not None, "a request that is under way does not block its symbol"


@pytest.mark.parametrize(
    "times",
    [
        pytest.param({"after_ns": NS_PER_S}, id="the trade before the gap is stamped 1970"),
        pytest.param({"before_ns": NS_PER_S}, id="the trade after the gap is stamped 1970"),
        pytest.param({"before_ns": 4_000_000_000 * NS_PER_S}, id="the trade after the gap is stamped 2096"),
        pytest.param(
            {"after_ns": (START_S + 50_000 - 86_400) * NS_PER_S}, id="the trade before the gap is a day early"
        ),
    ],
)
def test_a_gap_with_a_wrong_time_is_searched_near_the_other_one(times: dict[str, int]) -> None:
    rest = Rest(range(60_000))
    repairs = Repairs(rest, notice(50_000, 50_001, **times), past_s=50_010.0)
    repairs.work(120.0)
    assert repairs.filled == [50_000, 50_001]
    assert len(rest.requests) <= 25, "the whole history has 60 pages"
    assert repairs.open_gaps() == []


def test_an_absurd_range_is_neither_searched_nor_called_absent_and_does_not_hide_other_gaps() -> None:
    rest = Rest(range(1, 500))
    absurd = notice(200, 9_000_000_000_000_000_000, before_ns=(START_S + 201) * NS_PER_S)
    repairs = Repairs(rest, absurd, notice(101, 104), past_s=300.0)
    repairs.work(600.0)
    assert (repairs.filled, repairs.absent) == ([101, 102, 103, 104], [])
    assert repairs.open_gaps() == [(200, 9_000_000_000_000_000_000)]
    assert state("BTC/USD", "refused") == 1
    assert len(rest.requests) == 1


def test_a_wrong_id_ahead_is_not_absent_until_rest_has_passed_it() -> None:
    rest = Rest(range(1, 500))
    end_ns = (START_S + 201) * NS_PER_S
    repairs = Repairs(rest, notice(200, 50_000, before_ns=end_ns, seen_ns=end_ns), past_s=510.0)
    repairs.work(600.0)
    assert (repairs.filled, repairs.absent) == (list(range(200, 500)), [])
    assert repairs.open_gaps() == [(200, 50_000)]


def test_a_gap_of_many_pages_does_not_hold_up_new_gaps() -> None:
    rest = Rest(range(200_000))
    repairs = Repairs(rest, notice(10, 150_000), past_s=200_000.0)
    repairs.work(10.0)
    repairs.queue.apply(notice(199_000, 199_000), 0)
    repairs.work(5.0)
    assert 199_000 in repairs.filled
    repairs.work(400.0)
    assert len(set(repairs.filled)) == len(repairs.filled) == 149_992
    assert repairs.open_gaps() == []


def test_a_settled_gap_stays_until_its_trades_are_in_the_log_and_a_closed_one_goes() -> None:
    repairs = Repairs(Rest(range(500)), notice(30, 40), notice(60, 70), past_s=450.0)
    request = repairs.queue.next_request()
    assert request is not None
    result = repairs.queue.take(request, repairs.rest.page(request))
    assert len(result.settled) == 2
    assert repairs.open_gaps() == [(30, 40), (60, 70)], "a checkpoint of this moment must contain them"
    assert repairs.queue.next_request() is None
    repairs.queue.remove(result.settled[:1])
    repairs.queue.apply(msgspec.structs.replace(notice(60, 70), state="repaired"), 0)
    assert repairs.open_gaps() == []


def test_a_gap_may_close_by_itself_before_rest_is_asked() -> None:
    repairs = Repairs(Rest(range(500)), past_s=41.0)
    repairs.queue.apply(notice(30, 40), 0)
    assert repairs.queue.next_request() is None
    repairs.queue.apply(msgspec.structs.replace(notice(30, 40), state="repaired"), 0)
    repairs.work(10.0)
    assert repairs.rest.requests == []


def test_only_the_notices_of_a_partition_are_saved_with_it() -> None:
    queue = RepairQueue(Kraken(ExchangeSettings()).gap_search, ManualClock())
    queue.apply(notice(3, 4), 0)
    queue.apply(notice(5, 6, "ETH/USD"), 1)
    queue.apply(notice(10, 10 + MAX_GAP_TRADES, "ETH/USD"), 1)
    assert queue.notices(0) == [notice(3, 4)]
    assert queue.notices(1) == [notice(5, 6, "ETH/USD"), notice(10, 10 + MAX_GAP_TRADES, "ETH/USD")]
    queue.clear()
    assert queue.notices(1) == []
    assert state("ETH/USD", "refused") == 0


def test_gaps_of_an_exchange_that_finds_trades_by_id_are_judged_by_the_trades_around_them() -> None:
    clock = ManualClock()
    queue = RepairQueue(Coinbase(ExchangeSettings(name="coinbase")).gap_search, clock)
    ids = set(range(1, 110))

    def work(seconds: int) -> list[list[tuple[int, int]]]:
        absent = []
        for _ in range(seconds):
            request = queue.next_request()
            if request is not None:
                found = sorted((i for i in ids if i < -request.cursor), reverse=True)[:1_000]
                result = queue.take(
                    request, TradePage([PageTrade(i, (START_S + i) * NS_PER_S, b"") for i in found], None)
                )
                absent += [gap.absent for gap in result.settled]
                queue.remove(result.settled)
            clock.s += PAUSE_S
        return absent

    queue.apply(notice(110, 112), 0)
    assert work(600) == [], "REST has no trade after the gap"
    ids |= {113, 111}
    assert work(100) == [[(110, 110), (112, 112)]]
