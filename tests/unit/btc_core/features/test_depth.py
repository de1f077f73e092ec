"""The features of the order book: a second implementation, unknown books, restarts, look-ahead, and the replay of a day."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_S
from btc_core.days.day_books import book_events
from btc_core.days.day_replay import LOGGED, in_log_order, orders, replay
from btc_core.exchanges.decoding import events_of
from btc_core.exchanges.recorded_lines import RecordedMessage, read_lines
from btc_core.features.catalogue import DEPTH_FEATURES, FEATURE_NAMES, ROW
from btc_core.features.depth import MAX_SNAPSHOT_AGE_S, measured
from btc_core.features.engine import FeatureEngine, run
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.state import EVENT, EVENT_FIELDS, new_state, pack, slot_of
from btc_core.market.events import BOOK_ASKS, BOOK_BIDS, QUOTE, TRADE, BarEvent, QuoteEvent, TradeEvent
from btc_core.market.messages import Envelope
from tests.book_frames import BEGIN_NS, BookTape, Sides
from tests.paths import DATA

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.unit

NAN = math.nan
BAR_MESSAGE = (BEGIN_NS - 241 * 60 * NS_PER_S, 241)


def bars(first_ns: int, count: int, volume: float = 2.0) -> Envelope:
    """Closed minute bars, so that the volume over 240 minutes is known from the first row on."""
    data = [
        {"symbol": "BTC/USD", "open": 6e4, "high": 6e4, "low": 6e4, "close": 6e4, "volume": volume, "interval": 1,
         "interval_begin": f"{np.datetime64(first_ns + k * 60 * NS_PER_S, 'ns')}Z"}
        for k in range(count)
    ]  # fmt: skip
    frame = {"channel": "ohlc", "type": "snapshot", "data": data}
    return Envelope(first_ns + count * 60 * NS_PER_S + 6 * NS_PER_S, 1, 0, "ohlc", "rest", msgspec.json.encode(frame))


def rows_of(
    messages: Iterable[tuple[Envelope, int, int]], engine: FeatureEngine | None = None, size: int = 50
) -> np.ndarray:
    batches = run(engine or FeatureEngine(), messages, size)
    return np.concatenate([batch.values for batch in batches]) if batches else np.empty(0, ROW)


def equal(left: np.ndarray, right: np.ndarray) -> bool:
    return left.tobytes() == right.tobytes()


# --- the second implementation --------------------------------------------------------------------------------------


def side_reference(side: list[tuple[float, float]], mid: float) -> list[float]:
    prices, sizes = np.array(side).T
    distance, total = np.abs(prices - mid), np.cumsum(sizes)
    slope = np.polyfit(np.log(distance), np.log(total), 1)[0] if len(side) >= 3 else NAN
    bps = distance / mid * 1e4
    depths = [sizes[bps <= d].sum() if len(side) < 10 or bps[-1] > d else NAN for d in (1, 5, 10)]
    return [total[-1], slope, *depths]


def book_reference(sides: Sides) -> np.ndarray:
    mid = (sides[0][0][0] + sides[1][0][0]) / 2
    return np.array([side_reference(side[:10], mid) for side in sides])


SIDE = st.lists(
    st.tuples(st.integers(1, 800), st.floats(1e-8, 1e6)), min_size=1, max_size=10, unique_by=lambda level: level[0]
)


@settings(max_examples=150, deadline=None)
@given(SIDE, SIDE, st.sampled_from((0.01, 1.0, 7_000.0)))
def test_the_measures_of_a_book_equal_those_of_a_plain_regression(bids: list, asks: list, tick: float) -> None:
    sides = (
        sorted(((10_000 - gap) * tick, qty) for gap, qty in bids)[::-1],
        sorted(((10_000 + gap) * tick, qty) for gap, qty in asks),
    )
    expected, actual = book_reference(sides), measured(*sides)
    boundary = np.abs(np.array([[abs(p / 10_000 / tick - 1) * 1e4 for p, _ in side[-1:]] for side in sides]))
    assert actual[:, :2] == pytest.approx(expected[:, :2], rel=1e-6, abs=1e-7, nan_ok=True)
    if not np.isin(np.round(boundary, 6), (1, 5, 10)).any():
        assert actual[:, 2:] == pytest.approx(expected[:, 2:], rel=1e-3, nan_ok=True)


def test_a_crossed_or_one_sided_book_has_no_measures() -> None:
    assert np.isnan(measured([(100.0, 1.0)], [])).all()
    assert np.isnan(measured([], [(100.0, 1.0)])).all()
    assert np.isnan(measured([(100.0, 1.0)], [(100.0, 1.0)])).all()


class Market:
    """What the features of the order book should be at each quote and trade of a tape, computed from its whole past."""

    def __init__(self, tape: BookTape, volume_per_min: float) -> None:
        self.rows: list[dict[str, float]] = []
        self.books: list[tuple[int, np.ndarray]] = []
        self.results: list[list[tuple[int, float]]] = [[], []]
        self.hits: list[tuple[int, float] | None] = [None, None]
        per_minute = volume_per_min
        clock = 0
        traded = 0.0
        for index, envelope in enumerate(tape.envelopes):
            if index in tape.sides:
                ts_ns = envelope.ts_recv_ns - 20_000_000
                self._measure(ts_ns)
                self.books.append((ts_ns, book_reference(tape.sides[index])))
                continue
            (event,) = events_of(envelope)
            clock = event.ts_event_ns
            self._measure(clock)
            if isinstance(event, TradeEvent):
                traded += event.qty
                self._hit(event)
            self.rows.append(self._row(clock, per_minute, traded))

    def _measure(self, now_ns: int) -> None:
        for side, hit in enumerate(self.hits):
            if hit is not None and now_ns - hit[0] >= 5 * NS_PER_S:
                self.hits[side] = None
                if hit[0] + 5 * NS_PER_S - self.books[-1][0] <= 90 * NS_PER_S:
                    self.results[side].append((hit[0], math.log(self.books[-1][1][side][0] / hit[1])))

    def _hit(self, trade: TradeEvent) -> None:
        side = 1 if trade.side == "buy" else 0
        before = [book for ts_ns, book in self.books if ts_ns < trade.ts_event_ns]
        if self.hits[side] is None and before and trade.ts_event_ns - self.books[-1][0] <= 90 * NS_PER_S:
            self.hits[side] = trade.ts_event_ns, before[-1][side][0]

    def _row(self, clock: int, per_minute: float, traded: float) -> dict[str, float]:
        if not self.books:
            return dict.fromkeys(DEPTH_FEATURES, NAN)
        ts_ns, (bids, asks) = self.books[-1]
        age_s = (clock - ts_ns) / 1e9
        row = dict.fromkeys(DEPTH_FEATURES, NAN) | {"book_age_s": age_s}
        if age_s > 90.0:
            return row
        row["book_imbalance"] = (bids[0] - asks[0]) / (bids[0] + asks[0])
        for name, side, place in (("bid", bids, 0), ("ask", asks, 1)):
            row[f"book_slope_{name}"] = side[1]
            minutes = per_minute + traded / 240.0
            row |= {f"depth_{d}bps_{name}": math.log1p(side[2 + k] / minutes) for k, d in enumerate((1, 5, 10))}
            recent = [
                (at, result)
                for at, result in self.results[place]
                if self.results[place][-1][0] - at <= 3_600 * NS_PER_S
            ]
            recent = recent[-32:][::-1]
            if recent and clock - recent[0][0] <= 3_600 * NS_PER_S:
                weights = 0.5 ** (np.arange(len(recent)) / 8)
                row[f"book_resilience_{name}"] = float(np.average([result for _, result in recent], weights=weights))
        return row


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((0.05, 2.0, 30.0)))
def test_every_feature_of_the_order_book_equals_its_definition(seed: int, pace_s: float) -> None:
    tape = BookTape(seed).run(900, pace_s)
    compared = [*DEPTH_FEATURES]
    if tape.now_ns - BEGIN_NS > 60 * NS_PER_S:  # the first bars have left the window of the volume
        compared = [name for name in DEPTH_FEATURES if not name.startswith("depth_")]
    rows = rows_of([(bars(*BAR_MESSAGE), 0, -1), *tape.messages()])
    expected = Market(tape, 2.0).rows
    assert len(rows) == len(expected) > 200
    for index, row in enumerate(rows):
        for name in compared:
            assert row[name] == pytest.approx(expected[index][name], rel=1e-9, abs=1e-9, nan_ok=True), (name, index)
    assert not np.isnan(rows["book_resilience_bid"]).all()


def test_depth_is_measured_in_minutes_of_the_markets_own_trading() -> None:
    tape = BookTape(1)
    tape.snapshot()
    tape.quote()
    first = rows_of([(bars(*BAR_MESSAGE, volume=2.0), 0, -1), *tape.messages()])[0]
    second = rows_of([(bars(*BAR_MESSAGE, volume=4.0), 0, -1), *tape.messages()])[0]
    assert np.expm1(first["depth_1bps_bid"]) == pytest.approx(2.0 * np.expm1(second["depth_1bps_bid"]))
    assert np.isnan(rows_of(tape.messages())[0]["depth_1bps_bid"]), "the volume of 240 minutes is not known"


# --- books that are not known ---------------------------------------------------------------------------------------


def known(row: np.void) -> bool:
    return not math.isnan(row["book_imbalance"])


def test_a_wrong_checksum_makes_the_book_unknown_until_the_next_snapshot() -> None:
    tape = BookTape(2)
    for step in (tape.snapshot, tape.quote, tape.update, tape.quote):
        step()
    tape.update(wrong_checksum=True)
    for step in (tape.quote, tape.update, tape.quote, tape.snapshot, tape.quote):
        step()
    engine = FeatureEngine()
    rows = rows_of(tape.messages(), engine)
    assert [known(row) for row in rows] == [True, True, False, False, True]
    assert np.isnan(rows["book_age_s"]).tolist() == [False, False, True, True, False]
    assert engine.rejected == {"book_checksum": 1}


def test_a_frame_that_is_missing_in_the_log_makes_the_book_unknown() -> None:
    tape = BookTape(3)
    tape.snapshot()
    for _ in range(6):
        tape.update()
        tape.quote()
    del tape.envelopes[3]
    rows = rows_of(tape.messages())
    assert [known(row) for row in rows] == [True, True, False, False, False, False]


def test_an_update_before_any_snapshot_is_no_book() -> None:
    tape = BookTape(4)
    tape.snapshot()
    tape.update()
    tape.quote()
    del tape.envelopes[0]
    assert not known(rows_of(tape.messages())[0])


def test_a_silent_book_is_not_used_after_90_seconds_and_its_age_is_shown_for_an_hour() -> None:
    tape = BookTape(5)
    tape.snapshot()
    begin_ns = tape.now_ns
    for after_s in (1, 90, 91, 3_600, 3_601):
        tape.now_ns = begin_ns + after_s * NS_PER_S
        tape.quote()
    rows = rows_of(tape.messages())
    assert [known(row) for row in rows] == [True, True, False, False, False]
    assert rows["book_age_s"].tolist()[:4] == [1.0, 90.0, 91.0, 3_600.0]
    assert math.isnan(rows["book_age_s"][4])


def test_a_book_is_unknown_six_hours_after_its_snapshot_so_that_a_restart_can_know_it() -> None:
    tape = BookTape(6)
    tape.snapshot()
    begin_ns = tape.now_ns
    for after_s in (60, MAX_SNAPSHOT_AGE_S, MAX_SNAPSHOT_AGE_S + 1):
        tape.now_ns = begin_ns + after_s * NS_PER_S
        tape.update()
        tape.quote()
    assert [known(row) for row in rows_of(tape.messages())] == [True, True, False]


def test_an_older_snapshot_of_a_second_connection_does_not_replace_a_known_book() -> None:
    tape = BookTape(7)
    tape.snapshot()
    late = tape.envelopes[0]
    tape.now_ns += NS_PER_S
    tape.update()
    tape.envelopes.append(late)
    tape.update()
    tape.quote()
    assert known(rows_of(tape.messages())[0])


# --- the future, restarts and replay --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_later_frames_do_not_change_earlier_rows(seed: int) -> None:
    tape, other = BookTape(seed).run(600), BookTape(seed).run(300)
    other._rng = np.random.default_rng(seed + 1_000)
    other.run(300)
    left, right = rows_of(tape.messages()), rows_of(other.messages())
    same = sum(envelope.channel != "book" for envelope in tape.envelopes[:300])
    assert equal(left[:same], right[:same])
    assert not equal(left[same:][:50], right[same:][:50])


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_rows_do_not_depend_on_how_frames_are_batched(size: int) -> None:
    tape = BookTape(9).run(800)
    assert equal(rows_of(tape.messages(), size=size), rows_of(tape.messages(), size=33))


def test_a_restart_from_a_checkpoint_gives_the_same_rows_at_every_place() -> None:
    tape = BookTape(10).run(400)
    tape.update(wrong_checksum=True)
    tape.run(200)
    messages = list(tape.messages())
    whole = rows_of(messages)
    for stop in range(0, len(messages), 23):
        first = FeatureEngine()
        before = rows_of(messages[:stop], first)
        second = FeatureEngine()
        second.load(first.save(0))
        assert equal(np.concatenate([before, rows_of(messages[stop:], second)]), whole), stop


def test_a_restart_without_a_checkpoint_gives_the_same_book_after_the_first_snapshot() -> None:
    tape = BookTape(11).run(4_000, pace_s=4.0)
    messages = list(tape.messages())
    snapshots = [place for place, (envelope, *_) in enumerate(messages) if b'"snapshot"' in envelope.raw]
    start = snapshots[len(snapshots) // 4] - 10
    whole, late = rows_of(messages), rows_of(messages[start:])
    settled = sum(
        e.channel != "book" and e.ts_recv_ns > messages[start][0].ts_recv_ns + 7_300 * NS_PER_S for e, *_ in messages
    )
    assert settled > 200
    names = [name for name in DEPTH_FEATURES if not name.startswith("depth_")]
    for name in names:
        assert whole[name][-settled:].tobytes() == late[name][-settled:].tobytes(), name


def bronze(messages: list[tuple[Envelope, int, int]]) -> np.ndarray:
    """The quotes, trades and bars of messages, as the tables of bronze have them."""
    rows = []
    for envelope, partition, offset in messages:
        for event in events_of(envelope):
            assert isinstance(event, QuoteEvent | TradeEvent | BarEvent)
            trade_id = event.trade_id if isinstance(event, TradeEvent) else 0
            rows.append((*pack(event), envelope.ts_recv_ns, partition, offset, event.item, trade_id, False))
    return np.array(rows, LOGGED)


def test_the_replay_of_stored_events_with_the_frames_of_the_log_equals_the_stream() -> None:
    tape = BookTape(12).run(500)
    tape.update(wrong_checksum=True)
    tape.run(500)
    messages = [(bars(*BAR_MESSAGE), 0, -1), *tape.messages()]
    messages = [(envelope, 0, offset + 1) for envelope, _, offset in messages]
    books = book_events(messages)["BTC/USD"]
    ordered = orders(in_log_order(np.concatenate([bronze(messages), books])))
    assert ordered.moved_trades == 0
    replayed = np.concatenate([rows for _, rows in replay(ordered.truth, 0, 2**62)])
    assert equal(replayed, rows_of(messages))
    assert known(replayed[-1])


def test_events_of_the_book_change_only_features_of_the_book() -> None:
    tape = BookTape(13).run(600)
    without = rows_of([message for message in tape.messages() if message[0].channel != "book"])
    rows = rows_of(tape.messages())
    for name in set(FEATURE_NAMES) - set(DEPTH_FEATURES):
        assert rows[name].tobytes() == without[name].tobytes(), name


# --- recorded frames ------------------------------------------------------------------------------------------------


def test_recorded_frames_give_the_features_of_the_recorded_book() -> None:
    """1,254 real frames with checksums, and a made-up quote after each of them."""
    path = DATA / "kraken_v2_book_btcusd_20260719.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is missing; the recorded market data is not part of the project")
    sides: tuple[dict[float, float], dict[float, float]] = ({}, {})
    state, rows, expected, frames = new_state(), np.empty(1, ROW), [], 0
    engine = FeatureEngine()
    for number, line in read_lines(path):
        assert isinstance(line, RecordedMessage)
        if line.envelope.channel != "book":
            continue
        engine.push(line.envelope, 0, number)
        frame = msgspec.json.decode(line.envelope.raw)
        (data,) = frame["data"]
        for side, name in zip(sides, ("bids", "asks"), strict=True):
            side.update({level["price"]: level["qty"] for level in data[name]})
            for price in [price for price, qty in side.items() if qty == 0.0]:
                del side[price]
        best = sorted(sides[0].items(), reverse=True)[:10], sorted(sides[1].items())[:10]
        for side, kept in zip(sides, best, strict=True):
            side.clear()
            side.update(kept)
        expected.append(book_reference(best))
        events = np.array(engine._markets[0, "BTC/USD"].events[-2:], EVENT)
        assert events["kind"].tolist() == [BOOK_BIDS, BOOK_ASKS]
        for event, side in zip(events, expected[-1], strict=True):
            values = [event[slot_of(BOOK_BIDS, field)] for field in EVENT_FIELDS[BOOK_BIDS]]
            assert values == pytest.approx(side.tolist(), rel=1e-8, nan_ok=True), number
        fold(state, events, np.empty(0, ROW), EMIT_TICKS)
        (bid, bid_qty), (ask, ask_qty) = best[0][0], best[1][0]
        fold(state, np.array([(events["ts_ns"][0], QUOTE, bid, bid_qty, ask, ask_qty, 0.0)], EVENT), rows, EMIT_TICKS)
        bids, asks = expected[-1]
        assert rows["book_imbalance"][0] == pytest.approx((bids[0] - asks[0]) / (bids[0] + asks[0]))
        assert rows["book_age_s"][0] == 0.0
        frames += 1
    assert (frames, engine.rejected) == (1_254, {})
    assert TRADE not in [event[1] for event in engine._markets[0, "BTC/USD"].events]
