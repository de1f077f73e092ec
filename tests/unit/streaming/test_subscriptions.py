"""The states of the subscriptions of a connection, at times that the tests choose."""

from __future__ import annotations

import pytest

from btc_core.errors import SubscriptionRefused
from btc_core.exchanges.kraken import Kraken
from btc_core.market.frames import Ack, Reply
from btc_core.settings import ExchangeSettings
from streaming.exchange_clock import ExchangeClock
from streaming.subscriptions import DEADLINE_MAX_S, Subscriptions

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


def test_a_temporary_refusal_is_retried_later_and_a_permanent_one_is_raised() -> None:
    subscriptions = opened()
    subscriptions.replied(Reply(Error="Exceeded msg rate"), 0.0)  # an answer without a method belongs to no request
    subscriptions.replied(Reply(method="subscribe", success=False, error="EService:Unavailable", req_id=2), 0.0)
    assert subscriptions.state("trade", BTC) == "refused"
    assert subscriptions.state("ticker", BTC) == "pending"
    assert {channel for _, channel, _ in asked(subscriptions.resubscribe_overdue(2.0))} == {"trade"}
    with pytest.raises(SubscriptionRefused, match=r"not supported.*BTC_EXCHANGE_SYMBOLS"):
        subscriptions.replied(
            Reply(method="subscribe", success=False, error="Currency pair not supported NO/SUCH"), 0.0
        )


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
    clock = ExchangeClock()
    ms = 1_000_000
    clock.measure(0, 510 * ms, 510 * ms, 20 * ms)  # 500 ms ahead, 10 ms in each direction
    clock.measure(1_000 * ms, 1_590 * ms, 1_590 * ms, 1_100 * ms)  # slow in one direction
    assert clock.offset_ns == 500 * ms
    clock.measure(2_000 * ms, 510 * ms, 510 * ms, 2_020 * ms)
    assert clock.offset_ns == -1_500 * ms
