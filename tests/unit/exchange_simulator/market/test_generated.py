"""The generated market is reproducible and without gaps, and its volatility behaves like that of Bitcoin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_MIN
from btc_core.errors import InvalidInput
from exchange_simulator.market.generated import EPOCH_MIN, GeneratedMarket
from exchange_simulator.pairs import BTC_USD, PAIRS

pytestmark = pytest.mark.unit

MARKET = GeneratedMarket(BTC_USD, seed=3)
MINUTES = st.integers(EPOCH_MIN, EPOCH_MIN + 400 * 1_440)
WITHOUT_DEADLINE = settings(deadline=None, max_examples=40)
"""The first example compiles the kernels."""


@WITHOUT_DEADLINE
@given(MINUTES)
def test_a_minute_is_the_same_in_every_market_object_and_in_every_order(minute: int) -> None:
    other = GeneratedMarket(BTC_USD, seed=3)
    other.trades(minute + 1)
    assert other.trades(minute) == MARKET.trades(minute)
    assert other.quotes(minute) == MARKET.quotes(minute)


@WITHOUT_DEADLINE
@given(MINUTES)
def test_trade_ids_have_no_gap_within_or_between_minutes(minute: int) -> None:
    ids = [trade.trade_id for each in range(minute, minute + 3) for trade in MARKET.trades(each)]
    assert all(later == earlier + 1 for earlier, later in itertools.pairwise(ids))


def test_trade_ids_have_no_gap_at_midnight_and_start_at_one() -> None:
    assert MARKET.trades(EPOCH_MIN)[0].trade_id == 1
    midnight = EPOCH_MIN + 17 * 1_440
    ids = [trade.trade_id for minute in range(midnight - 5, midnight + 5) for trade in MARKET.trades(minute)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


@WITHOUT_DEADLINE
@given(MINUTES)
def test_a_minute_bar_is_the_aggregate_of_the_minutes_trades(minute: int) -> None:
    trades = MARKET.trades(minute)
    bars = MARKET.minute_bars(minute, minute + 1)
    prices = [trade.price for trade in trades] or [0]
    volume = sum(trade.qty for trade in trades)
    assert bars.start_min.tolist() == [minute]
    assert bars.columns.tolist() == [[prices[0], max(prices), min(prices), prices[-1], volume, len(trades)]]
    assert bars.value[0] == pytest.approx(sum(float(trade.price) * trade.qty for trade in trades))


@WITHOUT_DEADLINE
@given(MINUTES)
def test_quotes_are_never_crossed_and_trades_happen_at_or_beyond_them(minute: int) -> None:
    quotes = MARKET.quotes(minute)
    assert quotes[0].ts_ns == minute * NS_PER_MIN
    assert all(0 < quote.bid < quote.ask and quote.bid_qty > 0 and quote.ask_qty > 0 for quote in quotes)
    assert all(
        earlier.ts_ns <= later.ts_ns < (minute + 1) * NS_PER_MIN for earlier, later in itertools.pairwise(quotes)
    )
    for trade in MARKET.trades(minute):
        quote = MARKET.quote_at(trade.ts_ns)
        assert trade.price >= quote.ask if trade.buy else trade.price <= quote.bid
        assert trade.qty > 0
        assert trade.price > 0


def test_several_trades_share_one_time_as_on_the_exchange() -> None:
    trades = [trade for minute in range(EPOCH_MIN, EPOCH_MIN + 60) for trade in MARKET.trades(minute)]
    shared = sum(earlier.ts_ns == later.ts_ns for earlier, later in itertools.pairwise(trades))
    assert 0.15 < shared / len(trades) < 0.45


@pytest.mark.parametrize("symbol", sorted(PAIRS))
def test_every_listed_pair_trades_around_its_base_price(symbol: str) -> None:
    market = GeneratedMarket(PAIRS[symbol])
    quote = market.quote_at((EPOCH_MIN + 5_000) * NS_PER_MIN)
    base = market.base_ticks
    assert 0.6 * base < quote.bid < quote.ask < 1.6 * base


def test_seeds_and_symbols_give_different_markets() -> None:
    first = [GeneratedMarket(BTC_USD, seed=seed).trades(EPOCH_MIN + 9) for seed in (1, 2)]
    assert first[0] != first[1]
    assert GeneratedMarket(PAIRS["ETH/USD"]).trades(EPOCH_MIN + 9) != first[0]


def test_trades_before_the_epoch_are_refused_and_bars_before_it_are_left_out() -> None:
    with pytest.raises(InvalidInput, match="2024-01-01"):
        MARKET.trades(EPOCH_MIN - 1)
    assert MARKET.minute_bars(EPOCH_MIN - 10, EPOCH_MIN + 2).start_min.tolist() == [EPOCH_MIN, EPOCH_MIN + 1]
    assert len(MARKET.minute_bars(EPOCH_MIN - 10, EPOCH_MIN).start_min) == 0


def test_trades_since_and_last_trades_agree_with_the_minutes() -> None:
    now_ns = (EPOCH_MIN + 5_000) * NS_PER_MIN + 31_000_000_000
    last = MARKET.last_trades(120, now_ns)
    assert len(last) == 120
    assert last[-1].ts_ns <= now_ns
    since = MARKET.trades_since(last[0].ts_ns - 1, 10_000, now_ns)
    assert since[-120:] == last
    assert since[0].ts_ns == last[0].ts_ns


def _rv5_bps(seed: int, days: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    bars = GeneratedMarket(BTC_USD, seed=seed).minute_bars(EPOCH_MIN + 1_440, EPOCH_MIN + (1 + days) * 1_440)
    closes = bars.columns[bars.columns[:, 5] > 0, 3]
    returns = np.diff(np.log(closes.astype(float))) * 1e4
    return np.sqrt(np.square(returns[: len(returns) // 5 * 5]).reshape(-1, 5).sum(axis=1))  # type: ignore[no-any-return]


def test_the_median_five_minute_volatility_is_that_of_bitcoin() -> None:
    """The median is taken over several seeds, because the volatility of one seed wanders for months, as the market's does."""
    assert 7.0 < np.median([np.median(_rv5_bps(seed, 10)) for seed in range(1, 13)]) < 13.0


def test_volatility_clusters_so_that_a_har_forecast_beats_the_last_value_and_the_mean() -> None:
    variance = np.maximum(_rv5_bps(2, 60) ** 2, 1.0)
    sums = np.concatenate(([0.0], np.cumsum(variance)))
    day = 288
    lags = [((sums[k:] - sums[:-k]) / k)[day - k : -1] for k in (1, 12, day)]
    design = np.column_stack([np.ones(len(lags[0])), *(np.log(lag) for lag in lags)])
    target = variance[day:]
    half = len(target) // 2
    weights, *_ = np.linalg.lstsq(design[:half], np.log(target[:half]), rcond=None)
    har = np.exp(design @ weights)
    har *= target[:half].mean() / har[:half].mean()

    def qlike(forecast: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        ratio = target[half:] / forecast[half:]
        return float(np.mean(ratio - np.log(ratio) - 1))

    assert qlike(har) < 0.8 * qlike(lags[0])
    assert qlike(har) < 0.8 * qlike(np.full(len(target), target[:half].mean()))


def test_a_rate_multiplies_trades_and_quotes() -> None:
    slow, fast = GeneratedMarket(BTC_USD, rate=1.0), GeneratedMarket(BTC_USD, rate=20.0)
    minutes = range(EPOCH_MIN + 100, EPOCH_MIN + 160)
    trades = [sum(len(market.trades(minute)) for minute in minutes) for market in (slow, fast)]
    quotes = [sum(len(market.quotes(minute)) for minute in minutes) for market in (slow, fast)]
    assert 15 < trades[1] / trades[0] < 25
    assert 12 < quotes[1] / quotes[0] < 25
