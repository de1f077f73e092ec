"""The schedule of faults."""

from __future__ import annotations

import itertools

import pytest

from btc_core.errors import InvalidInput
from exchange_simulator.faults import catalogue, schedule

pytestmark = pytest.mark.unit


def test_a_seed_gives_one_sequence_of_faults_with_every_kind_once_before_any_repeats() -> None:
    kinds, symbols = tuple(catalogue.CATALOGUE), ("BTC/USD", "ETH/USD")

    def drawn(seed: int, count: int) -> list[tuple[float, catalogue.Fault]]:
        return list(itertools.islice(schedule.sequence(seed, 10.0, kinds, symbols), count))

    first = drawn(7, 200)
    assert first == drawn(7, 200)
    assert first != drawn(8, 200)
    assert {fault.kind for _, fault in first[: len(kinds)]} == set(kinds)
    assert all(5.0 <= pause_s <= 15.0 for pause_s, _ in first)
    assert {getattr(fault, "symbol", "BTC/USD") for _, fault in first} == set(symbols)


def test_an_unknown_kind_in_a_schedule_is_refused() -> None:
    assert schedule.parse_kinds("close, stall") == ("close", "stall")
    with pytest.raises(InvalidInput, match="'quake'"):
        schedule.parse_kinds("close,quake")
