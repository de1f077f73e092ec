"""Which trades are stored already: each stored trade is the match of one trade at most, however the times were rounded."""

from __future__ import annotations

import numpy as np
import pytest

from btc_core.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from btc_core.days.trade_files import NO_ID, PAST
from btc_core.days.trade_matching import STORED, Matcher, tolerances_ns

pytestmark = pytest.mark.unit

START_NS = 1_700_000_000 * NS_PER_S
Row = tuple[int, int, float, float, bool]
"""Time since the start in µs, id, price, quantity, and whether the taker bought."""


def past(*rows: Row) -> np.ndarray:
    return np.array([(START_NS + micros * NS_PER_US, *rest) for micros, *rest in rows], PAST)


def stored(*rows: Row, tolerance_ns: int = NS_PER_US) -> np.ndarray:
    found = np.zeros(len(rows), STORED)
    trades = past(*rows)
    for name in PAST.names or ():
        found[name] = trades[name]
    found["tolerance_ns"] = tolerance_ns
    return found


def known(trades: np.ndarray, there: np.ndarray, *, has_sides: bool = True) -> list[bool]:
    return Matcher(has_sides=has_sides).known(trades, tolerances_ns(trades["ts_ns"]), there).tolist()  # type: ignore[no-any-return]


def test_a_trade_without_an_id_is_known_by_its_values_within_a_microsecond() -> None:
    there = stored((5, 7, 100.0, 1.0, True))
    for micros, expected in ((4, True), (5, True), (6, True), (7, False)):
        assert known(past((micros, NO_ID, 100.0, 1.0, True)), there) == [expected]
    assert known(past((5, NO_ID, 100.5, 1.0, True)), there) == [False]
    assert known(past((5, NO_ID, 100.0, 1.5, True)), there) == [False]


def test_each_stored_trade_matches_once() -> None:
    there = stored((5, 7, 100.0, 1.0, True), (5, 8, 100.0, 1.0, True))
    burst = past(*[(5, NO_ID, 100.0, 1.0, True)] * 3)
    assert known(burst, there) == [True, True, False]


def test_equal_sides_match_first_and_other_sides_match_when_nothing_else_does() -> None:
    there = stored((5, 7, 100.0, 1.0, False))
    assert known(past((5, NO_ID, 100.0, 1.0, True), (5, NO_ID, 100.0, 1.0, False)), there) == [False, True]
    assert known(past((5, NO_ID, 100.0, 1.0, True)), there) == [True], "the maker's side, or the tick rule"


@pytest.mark.parametrize("unit_us", [1_000, 1_000_000])
def test_the_coarser_of_both_times_decides(unit_us: int) -> None:
    exact = [(micros, 0, 100.0 + micros % 7, 1.0, True) for micros in range(300_017, 9_000_000, 700_001)]
    coarse = [(micros // unit_us * unit_us, *rest) for micros, *rest in exact]
    fine_there = stored(*[(micros, number + 1, *rest) for number, (micros, _, *rest) in enumerate(exact)])
    assert all(known(past(*coarse), fine_there))
    tolerance_ns = unit_us * NS_PER_US
    coarse_there = stored(
        *[(micros, -9 - n, *rest) for n, (micros, _, *rest) in enumerate(coarse)], tolerance_ns=tolerance_ns
    )
    assert all(known(past(*exact), coarse_there))


def test_a_few_whole_seconds_among_exact_times_are_exact() -> None:
    exact = START_NS + np.arange(1_000) * 1_000_003 * NS_PER_US
    assert tolerances_ns(exact)[0] == NS_PER_US
    mixed = np.concatenate([exact[:500], START_NS + np.arange(500) * NS_PER_MS])
    assert set(tolerances_ns(mixed).tolist()) == {NS_PER_US, NS_PER_MS}


def test_a_trade_with_an_id_is_known_by_it_and_by_the_values_of_a_trade_without_one() -> None:
    there = stored((5, 7, 100.0, 1.0, True), (6, -3, 101.0, 1.0, True))
    trades = past(
        (5, 7, 100.0, 1.0, True), (5, 8, 100.0, 1.0, True), (6, 9, 101.0, 1.0, True), (6, 10, 101.0, 1.0, True)
    )
    assert known(trades, there) == [True, False, True, False]


def test_a_stored_trade_that_matched_at_the_end_of_a_block_does_not_match_in_the_next() -> None:
    there = stored((400_000, 7, 100.0, 1.0, True))
    matcher = Matcher(has_sides=True)
    second = np.full(1, NS_PER_S)
    assert matcher.known(past((0, NO_ID, 100.0, 1.0, True)), second, there).tolist() == [True]
    assert matcher.known(past((0, NO_ID, 100.0, 1.0, True)), second, there).tolist() == [False]
