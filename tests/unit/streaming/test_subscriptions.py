"""The state of every subscription of a connection, played with a clock of our own."""

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
    desk = Subscriptions(Kraken(ExchangeSettings()), symbols, deadline_s)
    desk.open(0.0)
    return desk


def live(desk: Subscriptions, now_s: float = 0.0, symbols: tuple[str, ...] = (BTC,)) -> None:
    for channel in CHANNELS:
        for symbol in symbols:
            desk.replied(ack(channel, symbol), now_s)
            desk.heard(channel, symbol, now_s, news=True)


def asked(requests: list[dict[str, object]]) -> list[tuple[object, object, object]]:
    return [(each["method"], each["params"]["channel"], tuple(each["params"]["symbol"])) for each in requests]  # type: ignore[index]


def test_a_subscription_goes_from_pending_over_acked_to_live_and_data_may_come_first() -> None:
    desk = opened()
    assert desk.state("trade", BTC) == "pending"
    desk.replied(ack("trade"), 1.0)
    assert desk.state("trade", BTC) == "acked"
    desk.heard("trade", BTC, 2.0, news=True)
    assert desk.state("trade", BTC) == "live"
    desk.heard("ticker", BTC, 2.0, news=True)
    assert desk.state("ticker", BTC) == "data"
    desk.replied(ack("ticker"), 3.0)
    assert desk.state("ticker", BTC) == "live"


def test_only_the_silent_one_is_made_anew() -> None:
    desk = opened((BTC, ETH))
    live(desk, 0.0, (BTC, ETH))
    for channel in CHANNELS:
        for symbol in (BTC, ETH):
            if (channel, symbol) != ("trade", ETH):
                desk.heard(channel, symbol, 7.0, news=True)
    assert desk.due(7.9) == []
    again = asked(desk.due(8.0))
    assert again == [("unsubscribe", "trade", (ETH,)), ("subscribe", "trade", (ETH,))]
    assert desk.state("trade", ETH) == "stale"
    assert desk.due(8.5) == [], "what was asked again has its deadline again"


def test_a_quiet_market_is_asked_ever_more_rarely_and_news_end_that() -> None:
    desk = opened()
    live(desk)
    gaps, last_s, now_s = [], 0.0, 0.0
    while len(gaps) < 6:
        now_s += 0.5
        for channel in ("ticker", "book"):
            desk.heard(channel, BTC, now_s, news=True)
        if desk.due(now_s):
            gaps.append(now_s - last_s)
            last_s = now_s
            desk.replied(ack("trade"), now_s)
            desk.heard("trade", BTC, now_s, news=False)
    assert gaps == [8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert gaps[-1] == DEADLINE_MAX_S
    desk.heard("trade", BTC, now_s, news=True)
    assert [channel for _, channel, _ in asked(desk.due(now_s + 8.0)) if channel == "trade"] == ["trade", "trade"]


def test_an_acknowledged_subscription_without_any_data_is_found() -> None:
    desk = opened()
    for channel in CHANNELS:
        desk.replied(ack(channel), 0.1)
    desk.heard("ticker", BTC, 0.2, news=True)
    desk.heard("book", BTC, 0.2, news=True)
    assert {channel for _, channel, _ in asked(desk.due(8.1))} == {"trade"}


def test_a_refusal_that_may_pass_is_asked_again_later_and_one_that_will_not_is_raised() -> None:
    desk = opened()
    desk.replied(Reply(Error="Exceeded msg rate"), 0.0)  # what comes without a method belongs to no request
    desk.replied(Reply(method="subscribe", success=False, error="EService:Unavailable", req_id=2), 0.0)
    assert desk.state("trade", BTC) == "refused"
    assert desk.state("ticker", BTC) == "pending"
    assert {channel for _, channel, _ in asked(desk.due(2.0))} == {"trade"}
    with pytest.raises(SubscriptionRefused, match=r"not supported.*BTC_EXCHANGE_SYMBOLS"):
        desk.replied(Reply(method="subscribe", success=False, error="Currency pair not supported NO/SUCH"), 0.0)


def test_many_overdue_ones_are_asked_a_few_at_a_time() -> None:
    symbols = tuple(f"S{number}/USD" for number in range(64))
    desk = opened(symbols)
    first = desk.due(100.0)
    assert 0 < len(first) <= 12
    turns = 1
    while desk.due(100.0):
        turns += 1
    assert turns * len(first) >= 2 * 64 * 3


def test_the_clock_offset_is_that_of_the_quickest_answer_and_forgets_when_a_clock_is_set() -> None:
    clock = ExchangeClock()
    ms = 1_000_000
    clock.ponged(0, 510 * ms, 510 * ms, 20 * ms)  # 500 ms ahead, evenly 10 ms each way
    clock.ponged(1_000 * ms, 1_590 * ms, 1_590 * ms, 1_100 * ms)  # slow on the way there
    assert clock.offset_ns == 500 * ms
    clock.ponged(2_000 * ms, 510 * ms, 510 * ms, 2_020 * ms)
    assert clock.offset_ns == -1_500 * ms
