"""The continuity of trade ids, compared with a simple model, and the identity of trades in any order of odd ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_core.clock import NS_PER_S
from btc_core.market.continuity import MAX_IDS_PER_S, IntakeState, TradeContinuity, TradeIntake, Verdict
from tests.odd_trades import BEGIN_NS, FAR_ID, FIRST_ID, identity, odd_streams, run_of, trade

if TYPE_CHECKING:
    from btc_core.market.events import TradeEvent

pytestmark = pytest.mark.unit


class SetModel:
    def __init__(self) -> None:
        self.observed: set[int] = set()
        self.missing: set[int] = set()

    def observe(self, trade_id: int) -> Verdict:
        if trade_id in self.missing:
            self.missing.remove(trade_id)
            return Verdict.FILLS_GAP
        if self.observed and trade_id <= max(self.observed):
            return Verdict.DUPLICATE
        skipped = set(range(max(self.observed) + 1, trade_id)) if self.observed else set()
        self.missing |= skipped
        self.observed.add(trade_id)
        return Verdict.OPENS_GAP if skipped else Verdict.NEXT


@given(st.lists(st.integers(1, 60), max_size=120))
def test_every_verdict_equals_that_of_the_set_model(ids: list[int]) -> None:
    tested, model = TradeContinuity(), SetModel()
    for trade_id in ids:
        assert tested.observe(trade_id) is model.observe(trade_id)
        assert tested.missing() == len(model.missing)
        assert {i for low, high in tested.open_gaps for i in range(low, high + 1)} == model.missing
        assert all(low <= high for low, high in tested.open_gaps)
        assert tested.open_gaps == sorted(tested.open_gaps)


@given(st.permutations(range(100, 130)))
def test_all_ids_in_any_order_leave_no_gap_above_the_first_one(ids: list[int]) -> None:
    tested = TradeContinuity()
    accepted = [trade_id for trade_id in ids if tested.observe(trade_id) is not Verdict.DUPLICATE]
    assert tested.open_gaps == []
    assert sorted(accepted) == list(range(ids[0], 130))


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(0, 60))
def test_a_restored_sequence_gives_the_verdicts_of_one_that_never_stopped(ids: list[int], stop: int) -> None:
    whole, first = TradeContinuity(), TradeContinuity()
    verdicts = [whole.observe(trade_id) for trade_id in ids]
    for trade_id in ids[:stop]:
        first.observe(trade_id)
    second = TradeContinuity(first.last_id, first.open_gaps)
    assert [second.observe(trade_id) for trade_id in ids[stop:]] == verdicts[stop:]


def test_a_jump_of_a_billion_ids_is_stored_as_one_gap() -> None:
    tested = TradeContinuity(last_id=1)
    assert tested.observe(1_000_000_001) is Verdict.OPENS_GAP
    assert tested.observe(500) is Verdict.FILLS_GAP
    assert tested.open_gaps == [(2, 499), (501, 1_000_000_000)]
    assert tested.missing() == 999_999_998


def taken(intake: TradeIntake, *trades: TradeEvent) -> list[str]:
    return [intake.take(each, each.ts_event_ns + 50_000_000).verdict.value for each in trades]


def test_an_id_far_ahead_is_an_outlier_and_the_trades_after_it_are_taken() -> None:
    intake = TradeIntake()
    assert taken(intake, *run_of(FIRST_ID, 100, 0)) == ["next"] * 100
    assert taken(intake, trade(FAR_ID, 100)) == ["starts_epoch"]
    next_trade = trade(FIRST_ID + 100, 101)
    decision = intake.take(next_trade, next_trade.ts_event_ns)
    assert (decision.verdict, decision.settled, decision.epoch) == (Verdict.NEXT, "outlier", 0)
    assert taken(intake, *run_of(FIRST_ID + 101, 1_000, 102)) == ["next"] * 1_000
    assert intake.open_gaps() == []


def test_a_gap_right_after_an_outlier_is_still_seen() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(FIRST_ID, 10, 0), trade(FAR_ID, 10))
    assert taken(intake, trade(FIRST_ID + 12, 11)) == ["opens_gap"]
    assert [gap.missing for gap in intake.open_gaps()] == [[(FIRST_ID + 10, FIRST_ID + 11)]]


def test_an_id_a_little_ahead_whose_numbering_is_not_continued_withdraws_its_gap() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(FIRST_ID, 10, 0))
    assert taken(intake, trade(FIRST_ID + 500, 10)) == ["opens_gap"]
    after = trade(FIRST_ID + 10, 11)
    decision = intake.take(after, after.ts_event_ns)
    assert (decision.verdict, decision.settled) == (Verdict.NEXT, "outlier")
    assert [gap.state for gap in decision.gaps] == ["withdrawn"]
    assert intake.open_gaps() == []
    assert taken(intake, trade(FIRST_ID + 13, 12)) == ["opens_gap"]
    assert intake.missing() == 2


def test_ids_that_restart_at_one_begin_an_epoch_and_none_of_their_trades_is_left_out() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(FIRST_ID, 10, 0))
    first, second = trade(1, 20), trade(2, 21)
    assert intake.take(first, first.ts_event_ns).verdict is Verdict.STARTS_EPOCH
    decision = intake.take(second, second.ts_event_ns)
    assert (decision.verdict, decision.settled, decision.epoch) == (Verdict.NEXT, "epoch", 1)
    assert set(taken(intake, *run_of(3, 998, 22))) == {"next"}


def test_trades_that_were_missed_around_a_restart_are_waited_for() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(FIRST_ID, 10, 0))
    after_s, start = 30, FIRST_ID - 1_000_000
    missed = [trade(FIRST_ID + 10, 10), trade(FIRST_ID + 11, 11), *run_of(start, 3, 20)]
    taken(intake, trade(start + 3, after_s))
    second = trade(start + 4, after_s + 1)
    opened = intake.take(second, second.ts_event_ns).gaps
    assert [(gap.after_ns, gap.before_ns) for gap in opened] == [
        (BEGIN_NS + 9 * NS_PER_S, BEGIN_NS + after_s * NS_PER_S)
    ] * 2
    assert all(any(gap.waits_for(each.trade_id, each.ts_event_ns) for gap in opened) for each in missed)
    assert taken(intake, *missed) == ["fills_gap"] * 5
    assert [count for _, count in intake.mark_absent(1, FIRST_ID + 10**8)] == [
        gap.last_id - gap.first_id + 1 - filled for gap, filled in zip(opened, (2, 3), strict=True)
    ]
    assert intake.open_gaps() == []


def test_an_epoch_that_two_outliers_began_ends_when_the_old_numbering_continues() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(FIRST_ID, 10, 0), trade(7, 10), trade(8, 11))
    after = trade(FIRST_ID + 12, 12)
    decision = intake.take(after, after.ts_event_ns)
    assert decision.verdict is Verdict.OPENS_GAP
    assert [(gap.first_id, gap.last_id, gap.state) for gap in decision.gaps] == [
        (FIRST_ID + 10, FIRST_ID + 2_009, "withdrawn"),
        (FIRST_ID + 10, FIRST_ID + 11, "open"),
    ]


def test_late_and_repeated_trades_of_the_old_numbering_are_recognized_after_a_restart() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(FIRST_ID, 10, 0), trade(FIRST_ID + 12, 12), trade(FIRST_ID + 13, 13), *run_of(1, 20, 20))
    assert taken(intake, trade(FIRST_ID + 11, 11), trade(FIRST_ID + 9, 9)) == ["fills_gap", "duplicate"]
    assert next(gap.missing for gap in intake.open_gaps()) == [(FIRST_ID + 10, FIRST_ID + 10)]
    assert taken(intake, *run_of(21, 5, 40)) == ["next"] * 5


def test_a_jump_is_plausible_if_the_market_could_have_traded_so_often_since_the_last_trade() -> None:
    outage_s = 3_600
    intake = TradeIntake()
    taken(intake, trade(1, 0))
    assert taken(intake, trade(1 + MAX_IDS_PER_S * outage_s, outage_s)) == ["opens_gap"]
    intake = TradeIntake()
    taken(intake, trade(1, 0))
    assert taken(intake, trade(1 + 2 * MAX_IDS_PER_S * outage_s, outage_s)) == ["starts_epoch"]


def test_a_trade_that_was_called_absent_is_taken_and_its_gap_corrected() -> None:
    intake = TradeIntake()
    taken(intake, trade(1, 0), trade(2, 1), trade(5, 2))
    (changed,) = intake.mark_absent(3, 4)
    assert changed[1] == 2
    assert changed[0].state == "absent"
    late = trade(3, 1.5)
    decision = intake.take(late, BEGIN_NS + 20 * NS_PER_S)
    assert decision.verdict is Verdict.FILLS_GAP
    assert [(gap.state, gap.absent) for gap in decision.gaps] == [("absent", [(4, 4)])]
    late = trade(4, 1.6)
    assert [gap.state for gap in intake.take(late, BEGIN_NS + 21 * NS_PER_S).gaps] == ["repaired"]
    assert taken(intake, late, trade(6, 30)) == ["duplicate", "next"]


def test_the_same_id_with_another_price_quantity_or_time_is_a_correction() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(1, 5, 0))
    changed = [trade(3, 2, price=50.0), trade(3, 2, qty=0.2), trade(3, 1), trade(4, 30)]
    assert taken(intake, *changed) == ["corrects"] * 4
    assert taken(intake, *changed) == ["duplicate"] * 4
    assert taken(intake, *run_of(6, 20, 31)) == ["next"] * 20


def test_a_time_that_rest_rounds_differently_is_no_correction() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(1, 5, 0))
    assert taken(intake, trade(3, 2.000_001), trade(3, 1.999_999)) == ["duplicate", "duplicate"]


def test_corrections_of_the_newest_trades_begin_no_epoch() -> None:
    intake = TradeIntake()
    taken(intake, *run_of(1, 5, 0))
    assert taken(intake, trade(5, 6, price=1.0), trade(4, 6, price=1.0)) == ["corrects", "corrects"]
    after = trade(6, 7)
    decision = intake.take(after, after.ts_event_ns)
    assert (decision.verdict, decision.epoch, decision.gaps) == (Verdict.NEXT, 0, ())


def test_a_repeated_trade_closes_a_gap_that_wrongly_waits_for_it() -> None:
    intake = TradeIntake()
    # 104 comes first and is taken for an outlier, because the exchange's clock stepped back before 101.
    taken(intake, trade(100, 0), trade(104, 1), trade(101, 2), trade(102, 3), trade(103, 3), trade(105, 4))
    assert [gap.missing for gap in intake.open_gaps()] == [[(104, 104)]]
    again = trade(104, 1)
    decision = intake.take(again, BEGIN_NS + 9 * NS_PER_S)
    assert (decision.verdict, [gap.state for gap in decision.gaps]) == (Verdict.DUPLICATE, ["repaired"])
    assert intake.open_gaps() == []


def test_a_forgotten_trade_counts_as_a_duplicate_by_its_time() -> None:
    intake = TradeIntake(remembered=10)
    taken(intake, *run_of(1, 100, 0))
    assert len(intake.state.known) == 10
    assert taken(intake, trade(50, 49)) == ["duplicate"]
    assert taken(intake, trade(1, 101), trade(2, 102)) == ["starts_epoch", "next"]


@given(stream=odd_streams())
def test_every_identity_is_taken_exactly_once_whatever_the_ids_do(stream: list[TradeEvent]) -> None:
    intake = TradeIntake()
    kept: list[tuple[int, int, float, float]] = []
    keys: list[tuple[int, int]] = []
    for number, each in enumerate(stream):
        decision = intake.take(each, BEGIN_NS + (number + 1) * NS_PER_S)
        if decision.verdict is not Verdict.DUPLICATE:
            kept.append(identity(each))
        if decision.verdict not in (Verdict.DUPLICATE, Verdict.CORRECTS):
            keys.append((each.ts_event_ns, each.trade_id))
    assert len(kept) == len(set(kept))
    assert set(kept) == {identity(each) for each in stream}
    assert len(keys) == len(set(keys)), "a key of bronze_trades is used for one trade"


@given(stream=odd_streams(), stop=st.integers(0, 60))
def test_a_restored_intake_decides_like_one_that_never_stopped(stream: list[TradeEvent], stop: int) -> None:
    whole, first = TradeIntake(), TradeIntake()
    expected = [msgspec.to_builtins(whole.take(each, each.ts_event_ns)) for each in stream]
    for each in stream[:stop]:
        first.take(each, each.ts_event_ns)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(first.state), type=IntakeState)
    second = TradeIntake(state)
    assert [msgspec.to_builtins(second.take(each, each.ts_event_ns)) for each in stream[stop:]] == expected[stop:]
