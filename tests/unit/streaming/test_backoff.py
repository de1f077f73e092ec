"""The bound of a pause between tries, at any number of tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streaming.backoff import bound_s


@given(tries=st.integers(0, 5_000))
def test_the_bound_doubles_with_each_try_up_to_the_largest(tries: int) -> None:
    assert bound_s(0, 0.5, 30.0) == 0.5
    assert bound_s(tries + 1, 0.5, 30.0) == min(30.0, 2.0 * bound_s(tries, 0.5, 30.0))
