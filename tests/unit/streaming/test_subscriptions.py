"""The states of the subscriptions of a connection, at times that the tests choose."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from btc_core.errors import SubscriptionRefused, SubscriptionSilent
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.kraken import Kraken
from btc_core.market.frames import Ack, Reply
from streaming.exchange_clock import ExchangeClock
from streaming.subscriptions import DEADLINE_MAX_S, Link, Subscriptions, SubscriptionStates

pytestmark = pytest.mark.unit

BTC, ETH = "BTC/USD", "ETH/USD"
CHANNELS = ("trade", "ticker", "book")


def ack(channel: str, symbol: str = BTC) -> Reply:
    return Reply(method="subscribe", success=True, result=Ack(channel, symbol))


def opened(symbols: tuple[str, ...] = (BTC,), deadline_s: float = 8.0) -> Subscriptions:
    subscriptions = Subscriptions(Kraken(ExchangeSettings()), symbols, deadline_s)
    subscriptions.open(0.0)
    return subscriptions


def make_live(subscriptions: Subscriptions, now_s: float = 0.0, symbols: tuple[str, ...] = (BTC,)) -> None:
    for channel in CHANNELS:
        for symbol in symbols:
            subscriptions.replied(ack(channel, symbol), now_s)
            subscriptions.heard(channel, symbol, now_s, is_new=True)


def asked(requests: list[dict[str, object]]) -> list[tuple[object, object, object]]:
    return [(each["method"], each["params"]["channel"], tuple(each["params"]["symbol"])) for each in requests]  # type: ignore[index]


def test_a_subscription_goes_from_pending_through_acked_to_live_and_data_may_come_first() -> None:
    subscriptions = opened()
    assert subscriptions.state("trade", BTC) == "pending"
    subscriptions.replied(ack("trade"), 1.0)
    assert subscriptions.state("trade", BTC) == "acked"
    subscriptions.heard("trade", BTC, 2.0, is_new=True)
    assert subscriptions.state("trade", BTC) == "live"
    subscriptions.heard("ticker", BTC, 2.0, is_new=True)
    assert subscriptions.state("ticker", BTC) == "data"
    subscriptions.replied(ack("ticker"), 3.0)
    assert subscriptions.state("ticker", BTC) == "live"


def test_only_the_silent_subscription_is_subscribed_again() -> None:
    subscriptions = opened((BTC, ETH))
    make_live(subscriptions, 0.0, (BTC, ETH))
    for channel in CHANNELS:
        for symbol in (BTC, ETH):
            if (channel, symbol) != ("trade", ETH):
                subscriptions.heard(channel, symbol, 7.0, is_new=True)
    assert subscriptions.resubscribe_overdue(7.9) == []
    again = asked(subscriptions.resubscribe_overdue(8.0))
    assert again == [("unsubscribe", "trade", (ETH,)), ("subscribe", "trade", (ETH,))]
    assert subscriptions.state("trade", ETH) == "stale"
    assert subscriptions.resubscribe_overdue(8.5) == [], "after the request it has a new deadline"


def test_a_quiet_market_is_subscribed_again_more_and_more_rarely_until_new_data_comes() -> None:
    subscriptions = opened()
    make_live(subscriptions)
    pauses, last_s, now_s = [], 0.0, 0.0
    while len(pauses) < 6:
        now_s += 0.5
        for channel in ("ticker", "book"):
            subscriptions.heard(channel, BTC, now_s, is_new=True)
        if subscriptions.resubscribe_overdue(now_s):
            pauses.append(now_s - last_s)
            last_s = now_s
            subscriptions.replied(ack("trade"), now_s)
            subscriptions.heard("trade", BTC, now_s, is_new=False)
    assert pauses == [8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert pauses[-1] == DEADLINE_MAX_S
    subscriptions.heard("trade", BTC, now_s, is_new=True)
    assert [
        channel for _, channel, _ in asked(subscriptions.resubscribe_overdue(now_s + 8.0)) if channel == "trade"
    ] == ["trade", "trade"]


def test_an_acknowledged_subscription_without_data_is_subscribed_again() -> None:
    subscriptions = opened()
    for channel in CHANNELS:
        subscriptions.replied(ack(channel), 0.1)
    subscriptions.heard("ticker", BTC, 0.2, is_new=True)
    subscriptions.heard("book", BTC, 0.2, is_new=True)
    assert {channel for _, channel, _ in asked(subscriptions.resubscribe_overdue(8.1))} == {"trade"}


def refused(words: str, number: int | None = None, symbol: str = "") -> Reply:
    return Reply(method="subscribe", success=False, error=words, req_id=number, symbol=symbol)


def test_a_temporary_refusal_is_retried_later_and_a_permanent_one_is_raised() -> None:
    subscriptions = opened()
    subscriptions.replied(Reply(Error="Exceeded msg rate"), 0.0)  # an answer without a method belongs to no request
    subscriptions.replied(refused("EService:Unavailable", 2), 0.0)
    assert subscriptions.state("trade", BTC) == "refused"
    assert subscriptions.state("ticker", BTC) == "pending"
    assert {channel for _, channel, _ in asked(subscriptions.resubscribe_overdue(2.0))} == {"trade"}
    with pytest.raises(SubscriptionRefused, match=r"not supported.*BTC_EXCHANGE_SYMBOLS"):
        subscriptions.replied(refused("Currency pair not supported NO/SUCH"), 0.0)


ODD_WORDS = [
    "EGeneral:Internal error", "EService:Deadline elapsed", "EGeneral:Temporary lockout", "EService:Busy",
    "EGeneral:Too many requests", "EService:Throttled: 1700000000", "Market in post_only mode", "Internal server error",
    "EService:Market in limit_only mode", "Too many subscriptions", "Connection limit exceeded", "", "no",
]  # fmt: skip


@pytest.mark.parametrize("words", ODD_WORDS)
def test_a_refusal_in_any_words_is_asked_again_even_before_anything_was_acknowledged(words: str) -> None:
    subscriptions = opened()
    for number in (2, 3, 4):
        subscriptions.replied(refused(words, number, BTC), 0.0)
    states = {subscriptions.state(channel, BTC) for channel in CHANNELS}
    assert states == {"refused"}
    again = asked(subscriptions.resubscribe_overdue(1.0))
    assert again == [("subscribe", channel, (BTC,)) for channel in CHANNELS]


def test_one_delisted_pair_of_64_is_refused_and_asked_again_rarely_while_the_others_stream() -> None:
    symbols = tuple(f"S{number}/USD" for number in range(64))
    subscriptions = opened(symbols)
    gone = symbols[7]
    for number, channel in enumerate(CHANNELS, 2):
        for symbol in symbols:
            if symbol != gone:
                subscriptions.replied(ack(channel, symbol), 0.0)
        subscriptions.replied(refused(f"Currency pair not supported {gone}", number, gone), 0.0)
    requests, now_s = 0, 0.0
    while now_s < 3_600.0:
        now_s += 0.5
        for symbol in symbols:
            for channel in CHANNELS:
                if symbol != gone:
                    subscriptions.heard(channel, symbol, now_s, is_new=True)
        for request in subscriptions.resubscribe_overdue(now_s):
            assert (request["method"], request["params"]["symbol"]) == ("subscribe", [gone])
            requests += 1
            subscriptions.replied(refused(f"Currency pair not supported {gone}", request["req_id"], gone), now_s)
            assert subscriptions.state(request["params"]["channel"], gone) == "refused"
    assert 3 * 6 <= requests <= 3 * 20
    assert subscriptions.state("trade", symbols[8]) == "live"
    subscriptions.replied(ack("trade", gone), now_s)
    assert subscriptions.state("trade", gone) == "acked"


def test_the_best_state_of_two_links_is_exported_and_one_that_is_refused_ends_nothing() -> None:
    states = SubscriptionStates()
    links = [Subscriptions(Kraken(ExchangeSettings()), ("TWO/USD",), 8.0, states, Link(number)) for number in (1, 2)]
    for link in links:
        link.open(0.0)
    make_live(links[0], symbols=("TWO/USD",))
    links[1].replied(refused("Currency pair not supported TWO/USD"), 0.0)
    labels = {"channel": "trade", "symbol": "TWO/USD"}
    exported = [
        REGISTRY.get_sample_value("btc_subscription_state", labels | {"btc_subscription_state": state})
        for state in ("live", "refused")
    ]
    assert exported == [1.0, 0.0]
    assert links[1].state("trade", "TWO/USD") == "refused"


def test_already_subscribed_counts_as_an_acknowledgement() -> None:
    subscriptions = opened()
    subscriptions.replied(refused("Already subscribed", 2, BTC), 0.0)
    assert subscriptions.state("trade", BTC) == "acked"


def test_two_subscriptions_without_a_snapshot_demand_a_new_connection() -> None:
    subscriptions = opened()
    for channel in CHANNELS:
        subscriptions.replied(ack(channel), 0.1)
    now_s, demanded_s = 0.0, None
    while demanded_s is None:
        now_s += 0.5
        try:
            for _, channel, _ in asked(subscriptions.resubscribe_overdue(now_s)):
                subscriptions.replied(ack(str(channel)), now_s)
        except SubscriptionSilent:
            demanded_s = now_s
    assert demanded_s == 24.0, "three deadlines of 8 s"


def test_one_silent_subscription_costs_the_others_their_connection_only_every_ten_minutes() -> None:
    subscriptions = opened()
    demanded, now_s = [], 0.0
    while now_s < 1_500.0:
        now_s += 0.5
        for channel in ("ticker", "book"):
            subscriptions.heard(channel, BTC, now_s, is_new=True)
        try:
            subscriptions.resubscribe_overdue(now_s)
        except SubscriptionSilent:
            demanded.append(now_s)
            subscriptions.open(now_s)
    assert len(demanded) == 3
    assert demanded[0] == 24.0
    assert demanded[1] - demanded[0] >= 600.0


def test_many_overdue_subscriptions_are_requested_a_few_at_a_time() -> None:
    symbols = tuple(f"S{number}/USD" for number in range(64))
    subscriptions = opened(symbols)
    first = subscriptions.resubscribe_overdue(100.0)
    assert 0 < len(first) <= 12
    calls = 1
    while subscriptions.resubscribe_overdue(100.0):
        calls += 1
    assert calls * len(first) >= 2 * 64 * 3


def test_the_clock_offset_is_that_of_the_quickest_answer_and_starts_again_when_a_clock_is_set() -> None:
    clock = ExchangeClock("kraken")
    ms = 1_000_000
    clock.measure(0, 510 * ms, 510 * ms, 20 * ms)  # 500 ms ahead, 10 ms in each direction
    clock.measure(1_000 * ms, 1_590 * ms, 1_590 * ms, 1_100 * ms)  # slow in one direction
    assert clock.offset_ns == 500 * ms
    clock.measure(2_000 * ms, 510 * ms, 510 * ms, 2_020 * ms)
    assert clock.offset_ns == -1_500 * ms


def test_the_clock_offset_is_unknown_until_measured_and_impossible_answers_are_ignored() -> None:
    clock = ExchangeClock("kraken")
    assert clock.measured_offset_ns is None
    clock.measure(0, 10**18, 10**18 + 10**12, 20)  # the answer took longer than the ping was under way
    clock.measure(0, 10**18, 10**17, 20)
    assert clock.measured_offset_ns is None
    clock.measure(0, 15, 15, 20)
    assert clock.measured_offset_ns == 5
