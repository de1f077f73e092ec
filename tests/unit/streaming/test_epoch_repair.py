"""Ids that restart, from the socket through bronze and repair to REST and back: nothing is lost, and every gap ends."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_S
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.interface import PageTrade, TradePage
from btc_core.exchanges.kraken import Kraken
from btc_core.features.engine import FeatureEngine
from btc_core.market.messages import AbsentTrades, Envelope, encode_envelope
from streaming.bronze_rows import BronzeReader
from streaming.handler import Record
from streaming.repair_queue import PageRequest, RepairQueue
from tests.http_server import answering
from tests.odd_trades import BEGIN_NS, FIRST_ID, run_of, trade
from tests.unit.streaming.test_odd_ids import frame

if TYPE_CHECKING:
    from btc_core.market.events import TradeEvent

pytestmark = pytest.mark.unit

PAGE_TRADES = 1_000
Identity = tuple[int, int, float]


def identity(each: TradeEvent) -> Identity:
    return each.trade_id, each.ts_event_ns, each.price


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def now_ns(self) -> int:
        return BEGIN_NS + round(self.s * NS_PER_S)

    def monotonic_s(self) -> float:
        return 1_000.0 + self.s


class System:
    """Bronze, features and repair on one log, and an exchange whose REST API has `trades`."""

    def __init__(self, trades: list[TradeEvent], symbol: str = "BTC/USD") -> None:
        self.trades = sorted(trades, key=lambda each: each.ts_event_ns)
        self.symbol = symbol
        self.clock = Clock()
        self.reader, self.engine = BronzeReader(), FeatureEngine()
        self.queue = RepairQueue(Kraken(ExchangeSettings()).gap_search, self.clock)
        self.requests: list[PageRequest] = []
        self.absent: list[AbsentTrades] = []
        self.states: dict[tuple[int, int, int], str] = {}
        """The newest state of each gap."""
        self.lag_s = 0.0
        """How far REST is behind."""
        self._offset = 0

    def receive(self, *trades: TradeEvent) -> None:
        """Deliver trades on the socket."""
        for each in trades:
            self.clock.s = max(self.clock.s, (each.ts_event_ns - BEGIN_NS) / NS_PER_S + 0.05)
            self._append("trade", "ws", frame(each))

    def repair(self, seconds: float) -> None:
        """Let the repair worker work, with a request a second."""
        until_s = self.clock.s + seconds
        while self.clock.s < until_s:
            request = self.queue.next_request()
            self.clock.s += 1.0
            if request is None:
                continue
            self.requests.append(request)
            result = self.queue.take(request, self._page(request.cursor))
            for raw in result.frames:
                self._append("trade", "rest", raw)
            for gap in result.settled:
                for first, last in gap.absent:
                    self.absent.append(AbsentTrades(self.symbol, first, last, gap.notice.before_ns))
                    self._append("absent", "rest", msgspec.json.encode(self.absent[-1]))
            self.queue.remove(result.settled)

    def _page(self, since_ns: int) -> TradePage:
        shown_ns = self.clock.now_ns() - round(self.lag_s * NS_PER_S)
        page = [each for each in self.trades if since_ns < each.ts_event_ns <= shown_ns][:PAGE_TRADES]
        is_last = len(page) < PAGE_TRADES // 2
        return TradePage(
            [PageTrade(each.trade_id, each.ts_event_ns, frame(each)) for each in page],
            None if is_last else page[-1].ts_event_ns - 1,
        )

    def _append(self, channel: str, origin: str, raw: bytes) -> None:
        envelope = Envelope(self.clock.now_ns(), 1, self._offset, channel, origin, raw)
        self.reader.read(Record(0, self._offset, encode_envelope(envelope)))
        self.engine.push(envelope, 0, self._offset)
        self._offset += 1
        for notice in self.reader.notices:
            self.states[notice.first_id, notice.last_id, notice.before_ns] = notice.state
            self.queue.apply(notice, 0)
        self.reader.notices.clear()

    def stored(self) -> set[Identity]:
        """The trades in `bronze_trades`, and those whose id another trade had shortly before."""
        rows = self.reader.rows
        return {identity(row.entry) for row in (*rows.trades, *rows.corrections)}

    def open_gaps(self) -> list[tuple[int, int, int]]:
        return [gap for gap, state in self.states.items() if state == "open"]


class LoopbackSystem(System):
    """A system whose REST API is a server on loopback, which Kraken's adapter requests."""

    def __init__(self, trades: list[TradeEvent], url: str) -> None:
        super().__init__(trades)
        self._kraken = Kraken(ExchangeSettings(rest_url=url))

    def _page(self, since_ns: int) -> TradePage:
        return self._kraken.trade_page(self.symbol, since_ns)


def rest_answer(trades: list[TradeEvent], path: str) -> tuple[int, bytes]:
    """What Kraken's REST API answers if it has these trades."""
    query = {name: int(value[0]) for name, value in parse_qs(urlsplit(path).query).items() if name != "pair"}
    if "since" not in query:
        return 200, b'{"error":[],"result":{"XXBTZUSD":{"wsname":"XBT/USD","altname":"XBTUSD"}}}'
    page = [each for each in trades if each.ts_event_ns > query["since"]][: query["count"]]
    rows = ",".join(
        f'["{each.price}","{each.qty}",{each.ts_event_ns / NS_PER_S:.6f},"b","l","",{each.trade_id}]' for each in page
    )
    last_ns = page[-1].ts_event_ns if page else query["since"]
    return 200, f'{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":"{last_ns}"}}}}'.encode()


def test_an_epoch_is_repaired_from_a_rest_api_that_serves_both_numberings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.0)
    old, new = run_of(FIRST_ID, 1_200, 0), run_of(FIRST_ID - 5_000, 1_200, 4_800)
    with answering(lambda path: rest_answer(old + new, path)) as url:
        system = LoopbackSystem(old + new, url)
        system.receive(*old[:1_100], *new[100:])
        assert sum(each.last_id - each.first_id + 1 for each in system.queue.notices(0)) > 3_600_000
        system.repair(60.0)
    assert system.stored() == {identity(each) for each in old + new}
    assert len(system.requests) == 2
    assert system.open_gaps() == []
    assert len(system.absent) == 2


def test_an_epoch_after_an_hour_of_silence_is_settled_with_a_few_requests_and_two_ranges() -> None:
    before, after = run_of(FIRST_ID, 20, 0), run_of(100_000_000_000, 20, 3_620)
    system = System(before + after)
    system.receive(*before, *after)
    sizes = [notice.last_id - notice.first_id + 1 for notice in system.queue.notices(0)]
    assert len(sizes) == 2
    assert min(sizes) > 3_600_000, "as many ids as there can have been trades"
    system.repair(60.0)
    assert len(system.requests) == 2, "one search serves both gaps, and a second one confirms it"
    assert len(system.absent) == 2, "a message for each range, not for each id"
    assert sorted(system.states.values()) == ["absent", "absent"]
    assert len(system.reader.save(0)) < 10_000


def test_trades_of_an_hour_without_the_socket_around_an_epoch_are_all_repaired() -> None:
    old, new = run_of(FIRST_ID, 1_900, 0), run_of(5_000, 1_900, 1_900)
    system = System(old + new)
    system.receive(*old[:10], *new[-10:])
    system.repair(60.0)
    assert system.stored() == {identity(each) for each in old + new}
    assert len(system.requests) <= 14, "4 pages of a thousand trades, for two searches"
    assert system.open_gaps() == []


@pytest.mark.parametrize("first_id", [5, 1_000, FIRST_ID - 500_000, FIRST_ID - 10])
def test_ids_that_move_back_leave_no_gap_open_and_nothing_is_absent_while_rest_is_behind(first_id: int) -> None:
    old, new = run_of(FIRST_ID, 20, 0), run_of(first_id, 20, 30)
    system = System(old + new)
    system.lag_s = 120.0
    system.receive(*old[:18], *new[3:])
    system.repair(60.0)
    assert system.absent == []
    system.lag_s = 0.0
    system.repair(120.0)
    assert system.stored() == {identity(each) for each in old + new}
    assert system.open_gaps() == []


def test_a_trade_of_the_old_numbering_does_not_fill_the_gap_of_the_new_one() -> None:
    """REST serves both numberings, and the ids of the missing trades were used right before the restart."""
    old, new = run_of(1_000, 20, 0), [trade(1_010 + number, 22 + number, price=7.0) for number in range(10)]
    system = System(old + new)
    system.receive(*old, *new[4:])
    system.repair(60.0)
    assert system.stored() == {identity(each) for each in old + new}
    assert system.open_gaps() == []


@pytest.mark.parametrize("missed", [slice(10, 11), slice(8, 15)])
def test_a_trade_with_an_id_far_ahead_that_the_socket_lost_is_repaired_with_the_trades_around_it(missed: slice) -> None:
    trades = run_of(FIRST_ID, 20, 0)
    trades[10] = msgspec.structs.replace(trades[10], trade_id=FIRST_ID + 10**12)
    received = trades[: missed.start] + trades[missed.stop :]
    system = System(trades)
    system.receive(*received)
    system.repair(60.0)
    assert system.stored() == {identity(each) for each in trades}
    assert system.open_gaps() == []
    system.receive(*run_of(FIRST_ID + 20, 5, 100))
    assert system.open_gaps() == [], "the numbering continues as before"
    assert [row.mark for row in system.reader.rows.trades if row.entry.trade_id > 10**12][-1] == "outlier"


def test_two_epochs_that_lack_the_same_ids_are_repaired_both() -> None:
    numberings = [run_of(FIRST_ID, 10, 0), *(run_of(1, 10, 1_000 * number) for number in (1, 2, 3))]
    lost = {identity(each) for numbering in numberings[1:] for each in numbering[4:6]}
    everything = [each for numbering in numberings for each in numbering]
    system = System(everything)
    system.receive(*(each for each in everything if identity(each) not in lost))
    assert len({gap for gap in system.queue.notices(0) if (gap.first_id, gap.last_id) == (5, 6)}) == 3
    system.repair(120.0)
    assert system.stored() == {identity(each) for each in everything}
    assert system.open_gaps() == []


def test_the_gaps_of_other_symbols_do_not_wait_for_those_around_an_epoch() -> None:
    old, new = run_of(FIRST_ID, 3_000, 0), run_of(100_000_000_000, 3_000, 3_000)
    system = System(old + new)
    system.receive(*old[:10], *new[-10:])
    system.clock.s += 10.0
    first = system.queue.notices(0)[0]
    system.queue.apply(msgspec.structs.replace(first, symbol="ETH/USD", first_id=5, last_id=6, between_epochs=False), 0)
    asked = []
    system.clock.s += 3.0
    for _ in range(3):
        request = system.queue.next_request()
        assert request is not None
        asked.append(request.symbol)
        system.clock.s += 1.0
    assert "ETH/USD" in asked[:2]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_trade_that_rest_has_is_stored_whatever_the_numberings_and_the_socket_lost(data: st.DataObject) -> None:
    system = System([])
    everything: list[TradeEvent] = []
    last_ids: list[int] = []
    at_s, first_seen_ns = 0.0, 0
    for price in range(1, data.draw(st.integers(2, 4)) + 1):
        first_id = data.draw(st.sampled_from((1, 2, 40, 100_000, 10**9, 10**15)))
        count = data.draw(st.integers(6, 30))
        numbering = [trade(first_id + number, at_s + number, price=float(price)) for number in range(count)]
        lost = data.draw(st.sets(st.integers(0, count - 4), max_size=count))
        # ids that reach the last one of an earlier numbering, or a plausible one after it, seem to continue it
        assume(all(each + 10_000_000 < first_id or numbering[-1].trade_id < each for each in last_ids))
        seen = [each for number, each in enumerate(numbering) if number not in lost]
        first_seen_ns = first_seen_ns or seen[0].ts_event_ns
        everything += numbering
        system.trades += numbering
        system.receive(*seen)
        system.repair(30.0)
        last_ids.append(numbering[-1].trade_id)
        at_s += count + data.draw(st.sampled_from((40, 700, 4_000)))
    system.repair(400.0)
    assert system.stored() >= {identity(each) for each in everything if each.ts_event_ns >= first_seen_ns}
    assert system.open_gaps() == []
