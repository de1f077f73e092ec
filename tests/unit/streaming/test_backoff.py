"""Exponential backoff, after any number of retries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streaming.backoff import backoff_s


@given(retries=st.integers(0, 5_000))
def test_the_pause_doubles_with_each_retry_up_to_its_limit(retries: int) -> None:
    assert backoff_s(0, 0.5, 30.0) == 0.5
    assert backoff_s(retries + 1, 0.5, 30.0) == min(30.0, 2.0 * backoff_s(retries, 0.5, 30.0))
