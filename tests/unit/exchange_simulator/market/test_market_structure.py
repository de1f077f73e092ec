"""The generated market has the structure of real ones, in what a model can use and in what it cannot.

The bounds are wide: they hold for the real bars of `benchmarks.market_statistics` and exclude a market without the property.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.features.releases import release_minutes
from exchange_simulator.market import generated, volatility
from exchange_simulator.market.characters import character
from exchange_simulator.market.generated import EPOCH_MIN, GeneratedMarket
from exchange_simulator.market.seasons import IS_RELEASE, RELEASE, SEASON, day_calendar
from exchange_simulator.pairs import BTC_USD, PAIRS
from exchange_simulator.units import MIN_PER_DAY

pytestmark = pytest.mark.unit

SEED = 2
DAYS = 56
EPOCH_DAY = EPOCH_MIN // MIN_PER_DAY
FIVE_A_DAY = MIN_PER_DAY // 5


@functools.cache
def closes_and_volumes(symbol: str = "BTC/USD", seed: int = SEED, days: int = DAYS) -> tuple[np.ndarray, np.ndarray]:
    """Log closes and volumes of whole weeks from 2024-01-08, a Monday, on."""
    first = EPOCH_MIN + 7 * MIN_PER_DAY
    bars = GeneratedMarket(PAIRS[symbol], seed=seed).minute_bars(first, first + days * MIN_PER_DAY)
    close, known = bars.columns[:, 3].astype(float), bars.columns[:, 5] > 0
    last = np.maximum.accumulate(np.where(known, np.arange(len(close)), 0))
    return np.log(close[last]), bars.columns[:, 4].astype(float)


def sums(values: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(values[: len(values) // width * width].reshape(-1, width).sum(axis=1))


def log_rv(symbol: str = "BTC/USD") -> np.ndarray:
    """Logs of five-minute realized variances."""
    moves = np.diff(closes_and_volumes(symbol)[0], prepend=np.nan)
    moves[0] = 0.0
    return np.log(np.maximum(sums(np.square(moves), 5), 1e-10))


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.corrcoef(left, right)[0, 1])


def test_volatility_remembers_minutes_more_than_days_and_weeks_still() -> None:
    logs = log_rv()
    memory = [correlation(logs[lag:], logs[:-lag]) for lag in (1, 12, 72, FIVE_A_DAY, 7 * FIVE_A_DAY)]
    assert 0.55 < memory[0] < 0.8
    assert memory[0] > memory[1] > memory[2] > 0.15
    assert memory[3] > 0.15
    assert memory[4] > 0.05


def test_returns_have_fat_tails_and_no_memory() -> None:
    moves = np.diff(closes_and_volumes()[0])
    for width, least in ((1, 8.0), (5, 6.0)):
        summed = sums(moves, width)
        assert np.mean((summed - summed.mean()) ** 4) / np.var(summed) ** 2 > least
    scaled = np.clip(moves / moves.std(), -4.0, 4.0)
    assert abs(correlation(scaled[1:], scaled[:-1])) < 0.03


def test_falling_prices_raise_volatility() -> None:
    """The shocks of one minute come with all others, so the effect is measured on the walk itself, without their noise."""
    market, after, before = GeneratedMarket(BTC_USD, seed=SEED), [], []
    for day in range(400):
        walk = market._day(day)[0]
        moves = np.diff(walk[1:, volatility.FACTOR_PRICE]) / walk[1:-1, volatility.FACTOR_SIGMA]
        season = day_calendar(EPOCH_DAY + day)[:, SEASON]
        vol = np.log(walk[1:-1, volatility.FACTOR_SIGMA]) - season
        after.append(np.diff(vol))
        before.append(np.clip(moves[:-1], -4.0, 4.0))
    falling = -correlation(np.concatenate(before), np.concatenate(after))
    assert 0.005 < falling < 0.2


def test_volume_follows_volatility_and_says_something_about_the_next_minutes() -> None:
    logs, volume = log_rv(), np.log(sums(closes_and_volumes()[1], 5) + 1.0)
    means = [np.convolve(logs, np.ones(width) / width)[FIVE_A_DAY : len(logs)] for width in (1, 3, 12, FIVE_A_DAY)]
    known = np.column_stack([np.ones(len(means[0])), *means])[:-1]
    volume, following = volume[FIVE_A_DAY:], logs[FIVE_A_DAY + 1 :]
    assert correlation(volume[:-1], known[:, 1]) > 0.4
    rest = [each - known @ np.linalg.lstsq(known, each, rcond=None)[0] for each in (volume[:-1], following)]
    assert 0.05 < correlation(rest[0], rest[1]) < 0.35


def test_a_model_that_knows_the_clock_beats_one_that_knows_only_the_past() -> None:
    logs = log_rv()
    means = [np.convolve(logs, np.ones(width) / width)[FIVE_A_DAY : len(logs)] for width in (1, 12, FIVE_A_DAY)]
    past, following = np.column_stack([np.ones(len(means[0])), *means])[:-1], logs[FIVE_A_DAY + 1 :]
    at = np.arange(FIVE_A_DAY + 1, len(logs))
    hour, slot, is_weekend = at // 12 % 24, at % 12, at // FIVE_A_DAY % 7 >= 5
    clock = np.hstack(
        [hour[:, None] == np.arange(1, 24), slot[:, None] == np.arange(1, 12), is_weekend[:, None]]
    ).astype(float)
    half = len(following) // 2
    errors = []
    for design in (past, np.hstack([past, clock])):
        weights, *_ = np.linalg.lstsq(design[:half], following[:half], rcond=None)
        errors.append(float(np.mean((following[half:] - design[half:] @ weights) ** 2)))
    assert errors[1] < 0.99 * errors[0]


def test_volatility_jumps_at_the_releases_that_the_features_know_and_then_decays() -> None:
    market = GeneratedMarket(BTC_USD, seed=SEED)
    minutes, _ = release_minutes()
    releases = [minute for minute in minutes.tolist() if minute > EPOCH_MIN + MIN_PER_DAY]
    assert len(releases) > 50
    change = {
        offset: np.mean([market.log_vol(minute + offset) - market.log_vol(minute - 30) for minute in releases])
        for offset in (0, 10, 300)
    }
    assert change[0] > 0.8
    assert change[0] > change[10] > 0.3
    assert change[10] > change[300] + 0.1


def test_the_calendar_marks_exactly_the_releases_of_the_features_and_nothing_after_them() -> None:
    minutes, _ = release_minutes()
    for minute in minutes.tolist():
        assert day_calendar(minute // MIN_PER_DAY)[minute % MIN_PER_DAY, IS_RELEASE] == 1.0
    marked = sum(
        int(day_calendar(day)[:, IS_RELEASE].sum()) for day in range(18_993, int(minutes[-1]) // MIN_PER_DAY + 1)
    )
    assert marked == len(set(minutes.tolist()))
    assert not day_calendar(int(minutes[-1]) // MIN_PER_DAY + 2)[:, RELEASE].any()


def test_the_opening_of_the_stock_market_follows_the_clock_of_new_york() -> None:
    def minute_of(year_month_day: str) -> int:
        day = int(np.datetime64(year_month_day, "D").astype(np.int64))
        rises = np.diff(day_calendar(day)[12 * 60 : 17 * 60, SEASON])
        return 12 * 60 + int(np.argmax(rises)) + 1

    assert minute_of("2024-01-16") == 14 * 60 + 30
    assert minute_of("2024-07-16") == 13 * 60 + 30
    saturday = day_calendar(int(np.datetime64("2024-07-20", "D").astype(np.int64)))[:, SEASON]
    tuesday = day_calendar(int(np.datetime64("2024-07-16", "D").astype(np.int64)))[:, SEASON]
    assert saturday.mean() < tuesday.mean() - 0.2


def test_a_minute_does_not_depend_on_later_ones() -> None:
    day, changed_from = 30, 700
    market = GeneratedMarket(BTC_USD, seed=SEED)
    state, _ = market._midnights.at(day)
    walks = []
    for is_changed in (False, True):
        calendar = day_calendar(EPOCH_DAY + day)
        if is_changed:
            calendar[changed_from:] += 1.0
        walk, counts = np.empty((MIN_PER_DAY + 2, volatility.WALK_COLUMNS)), np.zeros(MIN_PER_DAY, np.int64)
        volatility.walk_minutes(
            generated.factor_seed(SEED), market.seed, day * MIN_PER_DAY, 1.0, calendar,
            np.array(character("BTC/USD")), state.copy(), walk, counts,
        )  # fmt: skip
        walks.append((walk, counts))
    (first, first_counts), (second, second_counts) = walks
    assert np.array_equal(first[: changed_from + 1], second[: changed_from + 1])
    assert np.array_equal(first_counts[:changed_from], second_counts[:changed_from])
    assert not np.array_equal(first[changed_from + 1], second[changed_from + 1])


def test_a_restarted_market_continues_with_the_same_prices_and_ids() -> None:
    minute = EPOCH_MIN + 200 * MIN_PER_DAY - 1
    before = [GeneratedMarket(PAIRS["SOL/USD"], seed=4).trades(minute + k) for k in range(2)]
    generated._midnights.cache_clear()
    assert [GeneratedMarket(PAIRS["SOL/USD"], seed=4).trades(minute + k) for k in range(2)] == before


@pytest.mark.parametrize(("symbol", "least", "most"), [("ETH/USD", 0.65, 0.92), ("NEAR/USD", 0.4, 0.8)])
def test_symbols_of_one_seed_move_together(symbol: str, least: float, most: float) -> None:
    btc, other = np.diff(closes_and_volumes()[0]), np.diff(closes_and_volumes(symbol)[0])
    assert least < correlation(np.clip(btc, -0.005, 0.005), np.clip(other, -0.01, 0.01)) < most
    assert 1.1 < other.std() / btc.std() < 3.0
    assert 0.4 < correlation(log_rv(), log_rv(symbol)) < 0.9


def mids(market: GeneratedMarket, first_min: int, minutes: int) -> np.ndarray:
    """Log mids at every second."""
    times, values = [], []
    for minute in range(first_min, first_min + minutes):
        for quote in market.quotes(minute):
            times.append(quote.ts_ns)
            values.append(0.5 * (quote.bid + quote.ask))
    seconds = first_min * NS_PER_MIN + np.arange(minutes * 60) * NS_PER_S
    return np.log(np.array(values)[np.searchsorted(np.array(times), seconds, side="right") - 1])


def test_bitcoin_leads_the_others_by_some_seconds() -> None:
    first = EPOCH_MIN + 20_000
    lag_s = round(character("LTC/USD").lag_s)
    btc, other = (np.diff(mids(GeneratedMarket(PAIRS[s], seed=SEED), first, 120)) for s in ("BTC/USD", "LTC/USD"))
    leads = correlation(btc[: -2 * lag_s], other[lag_s:-lag_s])
    follows = correlation(other[: -2 * lag_s], btc[lag_s:-lag_s])
    assert leads > 0.15
    assert leads > follows + 0.1


def test_buyers_come_with_rising_prices_and_do_not_foretell_the_next_minute() -> None:
    market, first, minutes = GeneratedMarket(BTC_USD, seed=SEED), EPOCH_MIN + 30_000, 2_400
    balance = np.array(
        [
            np.sum([trade.qty * (1 if trade.buy else -1) for trade in market.trades(m)])
            for m in range(first, first + minutes)
        ],
        float,
    )
    volume = market.minute_bars(first, first + minutes).columns[:, 4]
    imbalance = balance / np.maximum(volume, 1)
    starts = np.log([market.quotes(minute)[0].bid for minute in range(first, first + minutes + 1)])
    moves = np.diff(starts) / np.std(np.diff(starts))
    assert 0.15 < correlation(imbalance, np.clip(moves, -4, 4)) < 0.7
    assert abs(correlation(imbalance[:-1], np.clip(moves[1:], -4, 4))) < 0.08
    assert 0.005 < correlation(imbalance[1:], imbalance[:-1]) < 0.4


def test_the_larger_side_of_a_quote_says_a_little_about_the_next_move_of_the_mid() -> None:
    market, tilts, moves = GeneratedMarket(BTC_USD, seed=SEED), [], []
    for minute in range(EPOCH_MIN + 9_000, EPOCH_MIN + 9_120):
        quotes = np.array([quote[1:] for quote in market.quotes(minute)], float)
        mid = quotes[:, 0] + quotes[:, 2]
        changes = np.flatnonzero(np.diff(mid))
        tilts.append(((quotes[:, 1] - quotes[:, 3]) / (quotes[:, 1] + quotes[:, 3]))[changes])
        moves.append(np.sign(np.diff(mid)[changes]))
    assert 0.05 < correlation(np.concatenate(tilts), np.concatenate(moves)) < 0.3


def test_in_wild_minutes_the_spread_is_wider_and_the_sizes_are_smaller() -> None:
    market = GeneratedMarket(BTC_USD, seed=SEED)
    minutes = sorted(range(EPOCH_MIN + 9_000, EPOCH_MIN + 19_000, 10), key=market.log_vol)
    calm, wild = (
        np.array([quote[1:] for minute in part for quote in market.quotes(minute)], float)
        for part in (minutes[:60], minutes[-60:])
    )
    assert np.mean(wild[:, 2] - wild[:, 0]) > 1.3 * np.mean(calm[:, 2] - calm[:, 0])
    assert np.mean(wild[:, 1] + wild[:, 3]) < 0.8 * np.mean(calm[:, 1] + calm[:, 3])
