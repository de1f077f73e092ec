"""Forecasts that go wrong on real servers: they come late, stand at their floor, or have intervals that hold too little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core import metrics
from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.market.bars import BARS
from btc_core.market.messages import Envelope, FeatureMessage
from btc_core.models.fitting import harx_bundle
from btc_core.models.gate import MIN_OUTCOMES
from btc_core.names import HEADLINE_MIN, VOLATILITY, ModelKey
from btc_core.stores.questdb import QuestDB
from deploy.grafana.alerts import TABLE_ALERTS
from streaming.forecast import ForecastHandler
from tests.real_alerts import Looks, alerts_of_api
from tests.service.streaming.test_forecast import Holder, StoppedClock, feature_rows
from tests.service.streaming.test_latest_rows import frozen, latency_sum
from tests.service.workers import count, quote_frame, trade_frame, unique
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from btc_core.settings import Settings
    from stack.runtime import Stack
    from streaming.handler import Record

MINUTES = MIN_OUTCOMES + HEADLINE_MIN + 5
START_USD = 60_000.0
ATTEMPTS = 3
"""Failed writes to a frozen Redis. They take more than a second."""


def minutes_of(symbol: str, bids: Iterable[float]) -> Iterator[Envelope]:
    """Two quotes and a trade in each of the last minutes, all at the bid of the minute."""
    bids = list(bids)
    begin_ns = (now_ns() // NS_PER_MIN - len(bids)) * NS_PER_MIN
    for minute, bid in enumerate(bids):
        for place, second in enumerate((20, 57, 59)):
            ts_ns = begin_ns + minute * NS_PER_MIN + second * NS_PER_S
            is_trade = place == 1
            frame = trade_frame(symbol, ts_ns, bid, minute + 1) if is_trade else quote_frame(symbol, ts_ns, bid)
            yield Envelope(now_ns(), 1, 3 * minute + place, "trade" if is_trade else "ticker", "ws", frame)


def still() -> list[float]:
    return [START_USD] * MINUTES


def moving() -> list[float]:
    """A random walk of two bps a minute."""
    return np.round(START_USD + np.random.default_rng(1).normal(0.0, 12.0, MINUTES).cumsum(), 1).tolist()


@pytest.mark.causes("LatencyHigh")
def test_a_forecast_that_waits_for_a_frozen_redis_is_late(
    servers: Callable[..., Settings], stack_of_session: Stack
) -> None:
    settings, symbol = servers("questdb", "kafka", "valkey"), unique("LATE")
    handler = ForecastHandler(settings, Holder(symbol))  # type: ignore[arg-type] # it has no thread
    written, failed = latency_sum("forecast")[0], metrics.RETRIES.labels("forecast")._value
    *rows, last = feature_rows(minutes_of(symbol, moving()), 0)
    handler.handle(rows)
    wait_for(lambda: latency_sum("forecast")[0] > written, "the first forecast is in Redis")
    looks, before = Looks(), failed.get()
    with frozen(stack_of_session, "valkey"):
        handler.handle([received_now(last)])
        wait_for(lambda: failed.get() >= before + ATTEMPTS, "the forecast waits")
    wait_for(lambda: latency_sum("forecast")[0] > written + 1, "the forecast is in Redis")
    (words,) = looks.find("LatencyHigh")
    assert float(words.split()[-2]) > 1_000.0, words


def received_now(row: Record) -> Record:
    """The same feature row, of a frame that has just come."""
    message = msgspec.msgpack.decode(row.value, type=FeatureMessage)
    now = msgspec.structs.replace(message, ts_recv_ns=now_ns())
    return msgspec.structs.replace(row, value=msgspec.msgpack.encode(now))


def bars(minutes: int = 2_000) -> np.ndarray:
    """Minute bars of a market whose volatility changes slowly, so that HARX follows it."""
    rng, log_sigma = np.random.default_rng(12), np.zeros(minutes)
    shocks = rng.normal(0.0, 0.2, minutes)
    for place in range(1, minutes):
        log_sigma[place] = 0.995 * log_sigma[place - 1] + shocks[place]
    found = np.zeros(minutes, BARS)
    found["ts_ns"] = (now_ns() // NS_PER_MIN - minutes + np.arange(minutes)) * NS_PER_MIN
    close = found["close"] = START_USD * np.exp((2e-4 * np.exp(log_sigma) * rng.normal(size=minutes)).cumsum())
    begin = found["open"] = np.concatenate([close[:1], close[:-1]])
    found["high"], found["low"] = np.maximum(begin, close) * 1.00001, np.minimum(begin, close) * 0.99999
    found["volume"] = 0.25 * np.exp(rng.normal(0.0, 0.3, minutes))
    return found


@pytest.mark.causes("ForecastAtFloor")
def test_the_forecasts_of_a_market_that_stands_still_are_at_their_floor(servers: Callable[..., Settings]) -> None:
    settings, looks = servers("questdb", "kafka", "valkey"), Looks()
    markets = {unique("STILL"): still(), unique("MOVING"): moving()}
    holder, harx = Holder(*markets), harx_bundle(bars())
    holder.current.models.update({ModelKey(symbol, VOLATILITY): harx for symbol in markets})
    handler = ForecastHandler(settings, holder)  # type: ignore[arg-type] # it has no thread
    for partition, (symbol, bids) in enumerate(markets.items()):
        assert handler.handle(feature_rows(minutes_of(symbol, bids), partition)) == 3 * MINUTES * (partition + 1)
    (words,) = looks.find("ForecastAtFloor")
    assert words.endswith(f" % of the forecasts of {next(iter(markets))} are at their floor"), words


@pytest.mark.causes("CoverageBid", "CoverageVolatility")
def test_a_market_that_leaves_its_intervals_is_reported_by_the_api_and_by_grafana(
    servers: Callable[..., Settings],
) -> None:
    """A steady rise is outside of the bid's intervals and no more volatile than forecast; a swing ends where it began."""
    given, swing_usd = servers("questdb", "kafka", "valkey"), (0.0, 60.0, -60.0, 60.0, -60.0)
    markets = {
        (rising := unique("RISING")): [START_USD + 28.0 * minute for minute in range(MINUTES)],
        (swinging := unique("SWINGING")): [START_USD + swing_usd[minute % 5] for minute in range(MINUTES)],
        unique("CALM"): [START_USD + swing_usd[minute % 5] / 3.0 for minute in range(MINUTES)],
    }
    exchange = given.exchange.model_copy(update={"symbols": tuple(markets)})
    settings = given.model_copy(update={"exchange": exchange})
    handler = ForecastHandler(settings, Holder(*markets), StoppedClock())  # type: ignore[arg-type] # it has no thread
    for partition, (symbol, bids) in enumerate(markets.items()):
        handler.handle(feature_rows(minutes_of(symbol, bids), partition))
    handler.drain()()
    with QuestDB(settings.questdb) as db:
        for symbol in markets:
            wait_for(lambda: count(db, "gold_prediction_outcomes", symbol) >= MIN_OUTCOMES, "outcomes")  # noqa: B023 - called at once
        for alert in TABLE_ALERTS:
            assert db.execute(alert.sql)[0][0] < alert.below, alert.name
    found = {name: each.details for name, each in alerts_of_api(settings).items()}
    for name, symbol in (("CoverageBid", rising), ("CoverageVolatility", swinging)):
        (words,) = found[name]
        assert words.startswith(f"the 90 % intervals of {symbol} held "), words
