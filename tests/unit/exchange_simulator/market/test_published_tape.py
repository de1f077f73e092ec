"""Stream, REST and bars agree about every trade, whatever faults voided or stamped with a wrong time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_MIN, NS_PER_S
from exchange_simulator.market.clock import MarketClock
from exchange_simulator.market.events import Trade
from exchange_simulator.market.generated import GeneratedMarket
from exchange_simulator.market.published_tape import PublishedTape
from exchange_simulator.pairs import BTC_USD
from exchange_simulator.rest.api import Listing, RestApi

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.unit

SYMBOL = BTC_USD.symbol
MINUTE = 29_000_000
"""A minute of the generated market, in 2025."""


class SetClock:
    """A clock that shows the time that it was set to."""

    def __init__(self, now_ns: int) -> None:
        self.at_ns = now_ns

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic_s(self) -> float:
        return self.at_ns / NS_PER_S


START_NS = MINUTE * NS_PER_MIN
SPAN_S = 240
MARKET = GeneratedMarket(BTC_USD, seed=5)
FAULTS = st.lists(
    st.tuples(
        st.integers(1, SPAN_S - 1),
        st.one_of(
            st.integers(1, 4), st.floats(-2.0, 2.0, allow_nan=False), st.sampled_from(("jump", "restart", "late"))
        ),
    ),
    max_size=6,
).map(lambda faults: sorted(faults, key=lambda fault: fault[0]))


def _published(faults: Sequence[tuple[int, float | str]]) -> tuple[PublishedTape, MarketClock, list[Trade]]:
    """A market that has published four minutes; a whole number voids trades, another number skews the clock, and the
    words change ids or withhold a trade until the end."""
    clock = SetClock(START_NS)
    market_clock = MarketClock(1.0, clock)
    tape = PublishedTape(MARKET, market_clock)
    pending, published = list(faults), list[Trade]()
    for trade in MARKET.trades_since(START_NS - 1, 10**9, START_NS + SPAN_S * NS_PER_S):
        while pending and START_NS + pending[0][0] * NS_PER_S < trade.ts_ns:
            at_s, fault = pending.pop(0)
            clock.at_ns = START_NS + at_s * NS_PER_S
            if isinstance(fault, int):
                tape.void_next(fault)
            elif fault == "jump":
                tape.jump_next(10**15)
            elif fault == "restart":
                tape.restart_next(1_000)
            elif fault == "late":
                tape.withhold_next()
            elif isinstance(fault, float):
                market_clock.set_skew(int(fault * NS_PER_S))
        clock.at_ns = trade.ts_ns
        published += tape.publish([trade])
    clock.at_ns = START_NS + SPAN_S * NS_PER_S
    return tape, market_clock, published + tape.release()


@settings(deadline=None, max_examples=60)
@given(FAULTS, st.integers(30, 200))
def test_rest_returns_every_published_trade_once_whatever_was_voided_or_skewed(
    faults: list[tuple[int, float | str]], page: int
) -> None:
    tape, clock, published = _published(faults)
    since_ns = START_NS - 5 * NS_PER_S
    earlier = MARKET.trades_since(since_ns, 10**9, START_NS - 1)
    rest = RestApi({SYMBOL: Listing(BTC_USD, tape)}, clock, trades_per_s=0.0)
    rows, since = [], str(since_ns)
    while True:
        result = rest.answer("Trades", {"pair": "XBTUSD", "since": since, "count": str(page)}, "")["result"]
        if not result["XXBTZUSD"]:
            break
        rows += result["XXBTZUSD"]
        since = result["last"]
    times = [row[2] for row in rows]
    assert times == sorted(times)
    ids = [row[6] for row in sorted(rows, key=lambda row: (row[2], row[6]))]
    assert ids == [trade.trade_id for trade in sorted(earlier + published, key=lambda each: each[:2])]


@settings(deadline=None, max_examples=40)
@given(FAULTS)
def test_bars_are_those_of_the_published_trades(faults: list[tuple[int, float | str]]) -> None:
    tape, _, published = _published(faults)
    happened = MARKET.trades_since(START_NS - 1, 10**9, START_NS + SPAN_S * NS_PER_S)
    place = {(trade.price, trade.qty): at for at, trade in enumerate(happened)}
    # Without the first and the last minute: they also hold trades from before and after these four minutes.
    bars = tape.minute_bars(MINUTE + 1, MINUTE + 3)
    for row, minute in enumerate(bars.start_min.tolist()):
        trades = [trade for trade in published if trade.ts_ns // NS_PER_MIN == minute]
        first, high, low, last, volume, count = bars.columns[row].tolist()
        assert count == len(trades)
        assert volume == sum(trade.qty for trade in trades)
        if trades:
            # Trades of one time, of which one was withheld and published last, are in the order in which they happened.
            trades.sort(key=lambda each: (each.ts_ns, place[each.price, each.qty]))
            prices = [trade.price for trade in trades]
            assert (first, high, low, last) == (prices[0], max(prices), min(prices), prices[-1])


def test_while_voids_are_pending_rest_returns_only_trades_that_are_decided() -> None:
    clock = SetClock(START_NS)
    tape = PublishedTape(MARKET, MarketClock(1.0, clock))
    first, second, *_ = MARKET.trades_since(START_NS, 10, START_NS + NS_PER_MIN)
    tape.void_next(2)
    clock.at_ns = second.ts_ns + NS_PER_S
    assert tape.trades_since(START_NS, 10, clock.at_ns) == []
    assert tape.publish([first, second]) == []
    assert not tape.changes_pending
    ids = [trade.trade_id for trade in tape.trades_since(START_NS, 10, clock.at_ns + NS_PER_MIN)]
    assert ids == list(range(second.trade_id + 1, second.trade_id + 11))


def test_a_trade_that_rest_may_have_returned_already_is_not_voided_when_it_is_published_late() -> None:
    first, *_, later = MARKET.trades_since(START_NS, 10, START_NS + NS_PER_MIN)
    assert later.ts_ns > first.ts_ns
    clock = SetClock(first.ts_ns)
    tape = PublishedTape(MARKET, MarketClock(1.0, clock))
    tape.void_next(1)
    assert tape.publish([first, later]) == [first]


def _market(count: int = 10) -> tuple[PublishedTape, SetClock, list[Trade]]:
    """A published tape, its clock, and the trades that are next."""
    clock = SetClock(START_NS)
    trades = MARKET.trades_since(START_NS, count, START_NS + NS_PER_MIN)
    return PublishedTape(MARKET, MarketClock(1.0, clock)), clock, trades


def test_one_id_jumps_far_ahead_and_the_next_continue_as_before() -> None:
    tape, clock, trades = _market()
    tape.jump_next(1_000_000)
    ids = [trade.trade_id for trade in tape.publish(trades)]
    first = trades[0].trade_id
    assert ids == [first + 1_000_000, *range(first + 1, first + 10)]
    clock.at_ns = trades[-1].ts_ns
    assert [trade.trade_id for trade in tape.trades_since(START_NS, 10, clock.at_ns)] == ids


def test_ids_restart_below_every_earlier_numbering_and_never_below_one() -> None:
    tape, clock, trades = _market()
    first = trades[0].trade_id
    ids = [trade.trade_id for trade in tape.publish(trades[:3])]
    for part, below in ((trades[3:6], 1_000), (trades[6:8], 1_000), (trades[8:], 10**18)):
        clock.at_ns = part[0].ts_ns - 1
        tape.restart_next(below)
        ids += [trade.trade_id for trade in tape.publish(part)]
    second = first + 3 - 1_000
    assert ids == [*range(first, first + 3), *range(second, second + 3), second - 1_000, second - 999, 1, 2]
    assert [trade.trade_id for trade in tape.last_trades(10, trades[-1].ts_ns)] == ids


def test_a_withheld_trade_is_nowhere_until_it_is_released_and_then_everywhere() -> None:
    tape, clock, trades = _market()
    tape.withhold_next()
    assert tape.publish(trades) == trades[1:]
    clock.at_ns = trades[-1].ts_ns
    assert trades[0] not in tape.trades_since(START_NS, 10, clock.at_ns)
    assert tape.release() == trades[:1]
    assert tape.trades_since(START_NS, 10, clock.at_ns) == trades
    assert tape.release() == []
