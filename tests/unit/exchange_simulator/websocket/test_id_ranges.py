"""The compact set of trade ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange_simulator.websocket.id_ranges import IdRanges

pytestmark = pytest.mark.unit


@given(st.lists(st.integers(0, 60)))
def test_id_ranges_are_a_set(numbers: list[int]) -> None:
    ids = IdRanges()
    for number in numbers:
        ids.add(number)
    listed = [number for first, last in ids.ranges() for number in range(first, last + 1)]
    assert listed == sorted(set(numbers))
    assert len(ids) == len(set(numbers))
    assert ids.repeats == len(numbers) - len(set(numbers))
    assert all(later[0] > earlier[1] + 1 for earlier, later in zip(ids.ranges(), ids.ranges()[1:], strict=False))
