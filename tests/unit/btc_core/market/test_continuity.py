"""The continuity of trade ids, compared with a simple model: a set of observed ids and a set of missing ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_core.market.continuity import TradeContinuity, Verdict

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
