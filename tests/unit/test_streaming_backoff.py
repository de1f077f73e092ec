"""Pauses between tries: never below the first, never above the bound, at any number of tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streaming.backoff import pause_s


@given(tries=st.integers(0, 5_000))
def test_a_pause_lies_between_the_first_and_a_bound_that_doubles(tries: int) -> None:
    bound_s = 30.0 if tries > 6 else min(30.0, 0.5 * 2**tries)
    assert 0.5 <= pause_s(tries, 0.5, 30.0) <= bound_s


def test_pauses_of_many_tries_use_the_whole_range() -> None:
    pauses = [pause_s(5_000, 0.5, 30.0) for _ in range(200)]
    assert min(pauses) < 10.0
    assert max(pauses) > 20.0
