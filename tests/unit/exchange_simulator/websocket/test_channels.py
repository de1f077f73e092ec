"""The changes of a book that a client is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange_simulator.websocket.channels import book_changes

pytestmark = pytest.mark.unit

SIDES = st.dictionaries(st.integers(1, 60), st.integers(1, 10**10), min_size=12, max_size=40)


def _best(levels: dict[int, int], depth: int, outward: int) -> dict[int, int]:
    return dict(sorted(levels.items(), key=lambda level: outward * level[0])[:depth])


@given(SIDES, SIDES, st.sampled_from([1, -1]))
def test_a_client_that_applies_the_changes_and_truncates_has_the_exchanges_side(
    old: dict[int, int], new: dict[int, int], outward: int
) -> None:
    depth = 10
    before, after = _best(old, depth, outward), _best(new, depth, outward)
    client = dict(before)
    for price, qty in book_changes(before, after, outward=outward).items():
        if qty:
            client[price] = qty
        else:
            client.pop(price, None)
    assert _best(client, depth, outward) == after


@given(SIDES, SIDES)
def test_a_level_that_falls_out_of_the_depth_is_not_sent(old: dict[int, int], new: dict[int, int]) -> None:
    before, after = _best(old, 10, 1), _best(new, 10, 1)
    deleted = {price for price, qty in book_changes(before, after, outward=1).items() if qty == 0}
    assert all(price < max(after) for price in deleted)
