"""Faults of the simulated exchange: the catalogue, what they do to frames and to the past, the schedule."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import BadFrame, InvalidInput
from btc_core.market import frames
from exchange_simulator.faults import catalogue, frame_faults, schedule
from exchange_simulator.market.clock import MarketClock
from exchange_simulator.market.generated import Market, Quote, Trade
from exchange_simulator.market.published_tape import ToldTape
from exchange_simulator.pairs import BTC_USD
from exchange_simulator.rest.api import Listing, RestApi
from exchange_simulator.websocket import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.unit

SYMBOL = BTC_USD.symbol
MINUTE = 29_000_000
"""A minute of the generated market, in 2025."""


@pytest.mark.parametrize(
    ("kind", "given_texts", "named"),
    [
        ("explode", {}, "'explode'"),
        ("", {}, "kind"),
        ("stall", {"seconds": "soon"}, "seconds"),
        ("stall", {"seconds": "nan"}, "seconds"),
        ("stall", {"minutes": "1"}, "minutes"),
        ("close", {"code": "1005"}, "code"),
        ("skip_trades", {"count": "0"}, "count"),
        ("reorder_trades", {"count": "1"}, "count"),
        ("clock_skew", {"seconds": "2.1"}, "seconds"),
        ("oversized", {"bytes": "99999999"}, "bytes"),
        ("status", {"system": "asleep"}, "system"),
    ],
)
def test_a_bad_argument_is_refused_by_name(kind: str, given_texts: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        catalogue.parse(kind, given_texts)


def test_texts_become_values_and_the_catalogue_explains_every_argument() -> None:
    assert catalogue.parse("clock_skew", {"seconds": "-1.5"}) == catalogue.ClockSkew(seconds=-1.5)
    assert catalogue.parse("bad_quote", {"price": "null"}) == catalogue.BadQuote(price="null")
    text = "\n".join(catalogue.described())
    for name, kind in catalogue.CATALOGUE.items():
        assert catalogue.parse(name, {}).kind == name
        assert f"{name}: {kind.__doc__}" in text
        assert all(argument.meaning for argument in catalogue.arguments(kind))


def _trade_frames(sizes: Sequence[int]) -> list[wire.Frame]:
    """Trades numbered from 1, as many in each frame as told."""
    ids = itertools.count(1)
    return [
        wire.trade(BTC_USD, "update", [Trade(0, next(ids), 600_001, 1_234, True, False) for _ in range(size)])
        for size in sizes
    ]


def _ids_after(fault: frame_faults.Altering, sizes: Sequence[int]) -> tuple[list[list[int]], bool]:
    """The trade ids of the frames that are sent, by what the client reads, and whether the fault is spent."""
    alteration = frame_faults.alteration(fault, SYMBOL)
    sent = [changed for frame in _trade_frames(sizes) for changed in alteration(frame)]
    spent = alteration.spent
    sent += alteration.flush()
    read = [[row["trade_id"] for row in json.loads(frame.text)["data"]] for frame in sent]
    assert read == [list(frame.trade_ids) for frame in sent]
    assert all(read)
    return read, spent


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=12)
COUNTS = st.integers(2, 30)


@given(SIZES, COUNTS)
def test_trade_faults_touch_the_next_trades_and_no_others_however_they_are_framed(sizes: list[int], count: int) -> None:
    total = sum(sizes)
    first, rest = list(range(1, min(count, total) + 1)), list(range(count + 1, total + 1))

    skipped, spent = _ids_after(catalogue.SkipTrades(count=count), sizes)
    assert list(itertools.chain(*skipped)) == rest
    assert spent == (total >= count)
    doubled, _ = _ids_after(catalogue.DuplicateTrades(count=count), sizes)
    assert sorted(itertools.chain(*doubled)) == sorted(first + first + rest)
    reordered, _ = _ids_after(catalogue.ReorderTrades(count=count), sizes)
    assert list(itertools.chain(*reordered)) == first[::-1] + rest
    merged, _ = _ids_after(catalogue.MergeTrades(count=count), sizes)
    assert merged[0] == first
    assert list(itertools.chain(*merged)) == first + rest


def test_a_trade_fault_leaves_other_symbols_and_channels_alone() -> None:
    alteration = frame_faults.alteration(catalogue.SkipTrades(count=1), "ETH/USD")
    (trades,) = _trade_frames([2])
    ticker = wire.ticker(BTC_USD, "update", Quote(0, 1, 1, 2, 1), 1, wire.DayFigures(1, 1, 1, 1, 1.0))
    assert [alteration(trades), alteration(ticker)] == [[trades], [ticker]]
    assert not alteration.spent


def test_only_so_many_checksums_are_wrong_and_the_levels_stay() -> None:
    sides = {600_000: 5}, {600_001: 7}
    frame = wire.book(BTC_USD, "update", sides, wire.checksum(*sides), 0)
    alteration = frame_faults.alteration(catalogue.BadChecksum(count=2), SYMBOL)
    sent = [json.loads(alteration(frame)[0].text)["data"][0] for _ in range(3)]
    right = json.loads(frame.text)["data"][0]
    assert [data["checksum"] == right["checksum"] for data in sent] == [False, False, True]
    assert all(data | {"checksum": 0} == right | {"checksum": 0} for data in sent)
    assert alteration.spent


def test_extra_frames_are_what_they_say() -> None:
    for fault, reason in ((catalogue.Malformed(), "malformed_json"), (catalogue.Unknown(), "unknown_channel")):
        with pytest.raises(BadFrame) as raised:
            frames.decode(frame_faults.extra_frame(fault, None).text)
        assert raised.value.reason == reason
    large = frame_faults.extra_frame(catalogue.Oversized(size_bytes=70_000), None)
    assert len(large.text) == 70_000
    assert len(json.loads(large.text)["data"][0]) < 70_000
    ticker = wire.ticker(BTC_USD, "snapshot", Quote(0, 600_000, 1, 600_001, 1), 1, wire.DayFigures(1, 1, 1, 1, 1.0))
    bids = {}
    for price in ("null", "nan", "negative", "crossed"):
        frame = frame_faults.extra_frame(catalogue.parse("bad_quote", {"price": price}), ticker)  # type: ignore[arg-type]
        body = json.loads(frame.text)
        assert body["type"] == "update"
        bids[price] = body["data"][0]["bid"]
    assert bids["null"] is None
    assert np.isnan(bids["nan"])
    assert bids["negative"] < 0
    assert bids["crossed"] > 60_000.1


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self, now_ns: int) -> None:
        self.at_ns = now_ns

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic_s(self) -> float:
        return self.at_ns / NS_PER_S


START_NS = MINUTE * NS_PER_MIN
SPAN_S = 240
MARKET = Market(BTC_USD, seed=5)
ACTS = st.lists(
    st.tuples(
        st.integers(1, SPAN_S - 1),
        st.one_of(st.integers(1, 4), st.floats(-2.0, 2.0, allow_nan=False)),
    ),
    max_size=6,
).map(lambda acts: sorted(acts, key=lambda act: act[0]))


def _lived(acts: Sequence[tuple[int, float]]) -> tuple[ToldTape, MarketClock, list[Trade]]:
    """A market that published four minutes, with voids (whole numbers) and clock skews (others) on the way."""
    clock = SetClock(START_NS)
    market_clock = MarketClock(1.0, clock)
    tape = ToldTape(MARKET, market_clock)
    pending, told = list(acts), list[Trade]()
    for trade in MARKET.trades_since(START_NS - 1, 10**9, START_NS + SPAN_S * NS_PER_S):
        while pending and START_NS + pending[0][0] * NS_PER_S < trade.ts_ns:
            at_s, what = pending.pop(0)
            clock.at_ns = START_NS + at_s * NS_PER_S
            if isinstance(what, int):
                tape.void_next(what)
            else:
                market_clock.set_skew(int(what * NS_PER_S))
        clock.at_ns = trade.ts_ns
        told += tape.publish([trade])
    clock.at_ns = START_NS + SPAN_S * NS_PER_S
    return tape, market_clock, told


@settings(deadline=None, max_examples=60)
@given(ACTS, st.integers(30, 200))
def test_rest_tells_every_trade_once_as_it_was_published_whatever_was_void_or_badly_stamped(
    acts: list[tuple[int, float]], page: int
) -> None:
    tape, clock, told = _lived(acts)
    since_ns = START_NS - 5 * NS_PER_S
    earlier = MARKET.trades_since(since_ns, 10**9, START_NS - 1)
    rest = RestApi({SYMBOL: Listing(BTC_USD, tape)}, clock, trades_per_s=0.0)
    ids, since = [], str(since_ns)
    while True:
        result = rest.answer("Trades", {"pair": "XBTUSD", "since": since, "count": str(page)}, "")["result"]
        if not result["XXBTZUSD"]:
            break
        ids += [row[6] for row in result["XXBTZUSD"]]
        since = result["last"]
    assert ids == [trade.trade_id for trade in sorted(earlier + told, key=lambda each: each[:2])]


@settings(deadline=None, max_examples=40)
@given(ACTS)
def test_bars_are_those_of_the_trades_that_were_told(acts: list[tuple[int, float]]) -> None:
    tape, _, told = _lived(acts)
    # The first and the last minute hold trades of before and after.
    bars = tape.minute_bars(MINUTE + 1, MINUTE + 3)
    for row, minute in enumerate(bars.start_min.tolist()):
        trades = [trade for trade in told if trade.ts_ns // NS_PER_MIN == minute]
        first, high, low, last, volume, count = bars.columns[row].tolist()
        assert count == len(trades)
        assert volume == sum(trade.qty for trade in trades)
        if trades:
            prices = [trade.price for trade in sorted(trades, key=lambda each: each[:2])]
            assert (first, high, low, last) == (prices[0], max(prices), min(prices), prices[-1])


def test_while_trades_are_to_be_void_rest_tells_none_that_is_not_decided() -> None:
    clock = SetClock(START_NS)
    tape = ToldTape(MARKET, MarketClock(1.0, clock))
    first, second, *_ = MARKET.trades_since(START_NS, 10, START_NS + NS_PER_MIN)
    tape.void_next(2)
    clock.at_ns = second.ts_ns + NS_PER_S
    assert tape.trades_since(START_NS, 10, clock.at_ns) == []
    assert tape.publish([first, second]) == []
    assert not tape.voiding
    ids = [trade.trade_id for trade in tape.trades_since(START_NS, 10, clock.at_ns + NS_PER_MIN)]
    assert ids == list(range(second.trade_id + 1, second.trade_id + 11))


def test_a_trade_that_rest_may_have_told_already_does_not_become_void_when_it_is_published_late() -> None:
    first, *_, later = MARKET.trades_since(START_NS, 10, START_NS + NS_PER_MIN)
    assert later.ts_ns > first.ts_ns
    clock = SetClock(first.ts_ns)
    tape = ToldTape(MARKET, MarketClock(1.0, clock))
    tape.void_next(1)
    assert tape.publish([first, later]) == [first]


def test_a_seed_gives_one_sequence_of_faults_and_every_kind_comes_in_turn() -> None:
    kinds, symbols = tuple(catalogue.CATALOGUE), ("BTC/USD", "ETH/USD")

    def drawn(seed: int, count: int) -> list[tuple[float, catalogue.Fault]]:
        return list(itertools.islice(schedule.sequence(seed, 10.0, kinds, symbols), count))

    first = drawn(7, 200)
    assert first == drawn(7, 200)
    assert first != drawn(8, 200)
    assert {fault.kind for _, fault in first[: len(kinds)]} == set(kinds)
    assert all(5.0 <= pause_s <= 15.0 for pause_s, _ in first)
    assert {getattr(fault, "symbol", "BTC/USD") for _, fault in first} == set(symbols)


def test_a_schedule_of_an_unknown_kind_is_refused() -> None:
    assert schedule.kinds_of("close, stall") == ("close", "stall")
    with pytest.raises(InvalidInput, match="'quake'"):
        schedule.kinds_of("close,quake")
