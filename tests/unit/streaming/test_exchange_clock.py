"""The offset of an exchange's clock where no answer to a ping has its time."""

from __future__ import annotations

import pytest

from btc_core.clock import NS_PER_MS, NS_PER_S
from streaming.exchange_clock import MIN_SECONDS, WINDOW_S, ExchangeClock

pytestmark = pytest.mark.unit

START_NS = 1_785_000_000 * NS_PER_S
ROUND_TRIP_NS = 80 * NS_PER_MS
ONE_WAY_NS = ROUND_TRIP_NS // 2
TOLERANCE_NS = 2 * NS_PER_MS


def feed(clock: ExchangeClock, seconds: range, ahead_ns: int, delays_ns: tuple[int, ...] = (0, 30, 400)) -> None:
    """Frames in each second: the exchange's clock is `ahead_ns` ahead, and each frame is delayed by some ms more."""
    for second in seconds:
        for number, delay_ms in enumerate(delays_ns):
            sent_ns = START_NS + second * NS_PER_S + number * 100 * NS_PER_MS
            event_ns = (sent_ns + ahead_ns) // NS_PER_MS * NS_PER_MS
            clock.observe("trade", event_ns, sent_ns + ONE_WAY_NS + delay_ms * NS_PER_MS)


@pytest.mark.parametrize("ahead_ns", [0, 700 * NS_PER_MS, -90 * NS_PER_S, 20 * NS_PER_S])
def test_the_offset_follows_from_the_fastest_frames_and_half_of_the_round_trip(ahead_ns: int) -> None:
    clock = ExchangeClock("binance-perp")
    clock.measure_round_trip(2 * ROUND_TRIP_NS)
    clock.measure_round_trip(ROUND_TRIP_NS)
    feed(clock, range(MIN_SECONDS), ahead_ns)
    assert clock.measured_offset_ns is None, "too few seconds"
    feed(clock, range(MIN_SECONDS, WINDOW_S), ahead_ns)
    assert clock.measured_offset_ns is not None
    assert abs(clock.measured_offset_ns - ahead_ns) <= TOLERANCE_NS


def test_without_a_round_trip_there_is_no_offset() -> None:
    clock = ExchangeClock("binance-perp")
    feed(clock, range(WINDOW_S), 0)
    assert clock.measured_offset_ns is None


def test_frames_with_a_wrong_time_do_not_set_the_offset() -> None:
    clock = ExchangeClock("binance-perp")
    clock.measure_round_trip(ROUND_TRIP_NS)
    feed(clock, range(WINDOW_S), 0)
    for second in (3, 4, 5):
        now_ns = START_NS + (WINDOW_S + second) * NS_PER_S
        clock.observe("trade", now_ns + 300 * NS_PER_S, now_ns)
    assert abs(clock.measured_offset_ns or 0) <= TOLERANCE_NS, "an event from the future must not make itself believed"


def test_the_offset_follows_a_step_of_the_clock_within_half_of_the_window() -> None:
    clock = ExchangeClock("binance-perp")
    clock.measure_round_trip(ROUND_TRIP_NS)
    feed(clock, range(WINDOW_S), 0)
    feed(clock, range(WINDOW_S, WINDOW_S + WINDOW_S // 2 + 2), 5 * NS_PER_S)
    assert abs(clock.offset_ns - 5 * NS_PER_S) <= TOLERANCE_NS


def test_an_answer_with_the_time_of_the_exchange_is_preferred_to_the_times_in_frames() -> None:
    clock = ExchangeClock("kraken")
    clock.measure(START_NS, START_NS + ONE_WAY_NS, START_NS + ONE_WAY_NS, START_NS + ROUND_TRIP_NS)
    feed(clock, range(WINDOW_S), 5 * NS_PER_S)
    assert clock.offset_ns == 0
