"""The command `python -m benchmarks.market_statistics`: statistics of the generated market beside those of a real one.

It prints a Markdown table. The real column comes from minute bars of BTC/USDT, which are no part of the repository; without
them the command says so and prints only the generated columns.

What does not belong here: how the market is generated (`exchange_simulator.market`), or what a model gains on it
(`generated_skill`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_MIN, column_ns
from btc_core.features.new_york import new_york_behind_s
from btc_core.features.releases import release_minutes
from btc_core.market.bars import BARS
from exchange_simulator.market.generated import EPOCH_MIN, GeneratedMarket
from exchange_simulator.pairs import PAIRS
from exchange_simulator.units import LOTS_PER_UNIT

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = npt.NDArray[np.float64]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_FILES = ("btcusdt_1m_2022_2023.parquet", "btcusdt_1m_2024_2025h1.parquet")
DAYS = 540
"""Days of the generated market: 2024-01-01 to 2025-06-23, the period in which the calendar of releases is complete."""
DAY_MIN, WEEK_MIN, YEAR_MIN = 1440, 10_080, 525_960
RV_FLOOR = 1e-10
"""The smallest variance whose logarithm is taken, (0.1 bps)²."""
ACF_LAGS_MIN = {"5 minutes": 5, "1 hour": 60, "6 hours": 360, "1 day": 1440, "1 week": 10_080}
HOURS = (0, 4, 8, 13, 14, 16, 20)
RELEASE_OFFSETS_MIN = {"5 min before": -5, "first 5 min": 0, "5 to 10 min after": 5, "30 to 35 min after": 30}


class Minutes(NamedTuple):
    """Consecutive minutes; a minute without trades has the close of the minute before and no volume."""

    first_min: int
    close: Floats
    high: Floats
    low: Floats
    volume: Floats


def generated_bars(symbol: str, seed: int, days: int, first_day: int = 0) -> npt.NDArray[Any]:
    """Bars (dtype `BARS`) of the generated market from a day after its epoch on."""
    pair = PAIRS[symbol]
    begin = EPOCH_MIN + first_day * DAY_MIN
    made = GeneratedMarket(pair, seed=seed).minute_bars(begin, begin + days * DAY_MIN)
    bars = np.zeros(len(made.start_min), BARS)
    bars["ts_ns"] = made.start_min * NS_PER_MIN
    for column, name in enumerate(("open", "high", "low", "close")):
        bars[name] = made.columns[:, column] / pair.ticks_per_unit
    bars["volume"], bars["trades"] = made.columns[:, 4] / LOTS_PER_UNIT, made.columns[:, 5]
    return bars[made.columns[:, 5] > 0]


def real_bars(folder: Path = DATA) -> npt.NDArray[Any] | None:
    """Minute bars of BTC/USDT from 2022 to June 2025, or None where the files do not exist."""
    files = [folder / name for name in REAL_FILES]
    if not all(file.is_file() for file in files):
        return None
    table = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("ts")
    bars = np.zeros(len(table), BARS)
    bars["ts_ns"] = column_ns(table["ts"])
    for column in ("open", "high", "low", "close", "volume"):
        bars[column] = table[column].to_numpy()
    return bars


def minutes_of(bars: npt.NDArray[Any]) -> Minutes:
    """The bars on a grid without holes."""
    places = bars["ts_ns"] // NS_PER_MIN
    count = int(places[-1] - places[0]) + 1
    last = np.searchsorted(places, places[0] + np.arange(count), side="right") - 1
    is_bar = places[last] == places[0] + np.arange(count)
    close = bars["close"][last]
    return Minutes(
        int(places[0]),
        close,
        np.where(is_bar, bars["high"][last], close),
        np.where(is_bar, bars["low"][last], close),
        np.where(is_bar, bars["volume"][last], 0.0),
    )


def _sums(values: Floats, width: int) -> Floats:
    """Sums of consecutive blocks."""
    return np.asarray(values[: len(values) // width * width].reshape(-1, width).sum(axis=1))


def _correlation(left: Floats, right: Floats) -> float:
    return float(np.corrcoef(left, right)[0, 1])


def _kurtosis(values: Floats) -> float:
    return float(np.mean((values - values.mean()) ** 4) / np.var(values) ** 2)


def new_york_hours(minutes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The hour of day in New York of minutes since 1970."""
    hours, places = np.unique(minutes // 60, return_inverse=True)
    local = np.array([(hour * 3600 - new_york_behind_s(int(hour) * 3600)) // 3600 % 24 for hour in hours.tolist()])
    return np.asarray(local[places], np.int64)


def returns_table(minutes: Minutes) -> dict[str, float]:
    """Size, tails and dependence of returns."""
    moves = np.diff(np.log(minutes.close))
    rv = _sums(moves**2, 5)
    table = {"annualised volatility, %": 100 * float(np.sqrt(np.mean(moves**2) * YEAR_MIN))}
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999):
        table[f"5-minute volatility, {quantile:g} quantile, bps"] = float(np.sqrt(np.quantile(rv, quantile)) * 1e4)
    table["kurtosis of 1-minute returns"] = _kurtosis(moves)
    table["kurtosis of 5-minute returns"] = _kurtosis(_sums(moves, 5))
    table["kurtosis of daily returns"] = _kurtosis(_sums(moves, DAY_MIN))
    table["0.999 quantile of |1-minute return| over its day's σ"] = _tail(moves)
    for lag in (1, 2):
        table[f"autocorrelation of 1-minute returns, lag {lag}"] = _correlation(moves[lag:], moves[:-lag])
    table["autocorrelation of signs of 1-minute returns"] = _correlation(np.sign(moves[1:]), np.sign(moves[:-1]))
    table["1-day variance over the sum of 1-minute variances"] = float(
        np.var(_sums(moves, DAY_MIN)) / np.mean(_sums(moves**2, DAY_MIN))
    )
    return table


def _tail(moves: Floats) -> float:
    whole = moves[: len(moves) // DAY_MIN * DAY_MIN].reshape(-1, DAY_MIN)
    return float(np.quantile(np.abs(whole / whole.std(axis=1, keepdims=True)), 0.999))


def memory_table(minutes: Minutes) -> dict[str, float]:
    """How long volatility lasts, and what raises it."""
    moves = np.diff(np.log(minutes.close))
    log_rv = np.log(np.maximum(_sums(moves**2, 5), RV_FLOOR))
    table = {
        f"autocorrelation of log 5-minute RV, {name}": _correlation(log_rv[lag // 5 :], log_rv[: -(lag // 5)])
        for name, lag in ACF_LAGS_MIN.items()
    }
    daily = np.log(_sums(moves**2, DAY_MIN))
    for days in (1, 7, 30):
        table[f"autocorrelation of log daily RV, {days} d"] = _correlation(daily[days:], daily[:-days])
    table["standard deviation of log 5-minute RV"] = float(log_rv.std())
    table["standard deviation of log daily RV"] = float(daily.std())
    hourly, hourly_log = _sums(moves, 60), np.log(np.maximum(_sums(moves**2, 60), RV_FLOOR))
    scaled = hourly[:-1] / np.sqrt(np.exp(hourly_log[:-1]))
    table["leverage: correlation of 1-hour return / σ with the next hour's change of log RV"] = _correlation(
        scaled, hourly_log[1:] - hourly_log[:-1]
    )
    five = _sums(moves, 5)
    table["leverage: correlation of 5-minute return with the next 5 minutes' RV"] = _correlation(
        np.clip(five[:-1] / five.std(), -5, 5), np.minimum(np.exp(log_rv[1:]) / np.mean(np.exp(log_rv)), 20)
    )
    return table


def season_table(minutes: Minutes) -> dict[str, float]:
    """Variance by the clock, as a ratio to the mean of all minutes, each relative to the week around it."""
    moves = np.diff(np.log(minutes.close))
    at = minutes.first_min + 1 + np.arange(len(moves))
    kernel = np.ones(WEEK_MIN) / WEEK_MIN
    week = np.convolve(np.pad(moves**2, WEEK_MIN // 2, mode="reflect"), kernel, mode="valid")[: len(moves)]
    relative = np.minimum(moves**2 / np.maximum(week, RV_FLOOR), 50.0)
    relative /= relative.mean()
    table = {}
    for hour in HOURS:
        table[f"variance at {hour:02d} h UTC"] = float(relative[at // 60 % 24 == hour].mean())
    local = new_york_hours(at)
    for hour in (3, 8, 9, 10, 14, 16, 20):
        table[f"variance at {hour:02d} h New York"] = float(relative[local == hour].mean())
    weekday = (at // DAY_MIN + 3) % 7
    for day, name in ((0, "Monday"), (3, "Thursday"), (5, "Saturday"), (6, "Sunday")):
        table[f"variance on {name}"] = float(relative[weekday == day].mean())
    for minute in (0, 1, 5, 15, 16, 30, 31, 45, 59):
        table[f"variance in minute {minute} of the hour"] = float(relative[at % 60 == minute].mean())
    releases, _ = release_minutes()
    usual = {minute: relative[(at % DAY_MIN) == minute].mean() for minute in range(DAY_MIN)}
    for name, offset in RELEASE_OFFSETS_MIN.items():
        # the return of the minute that begins with the release belongs to the place of its close
        wanted = np.isin(at, (releases[:, None] + offset + np.arange(5)).ravel())
        if wanted.any():
            expected = np.mean([usual[minute] for minute in (at[wanted] % DAY_MIN).tolist()])
            table[f"variance around US releases, {name}"] = float(relative[wanted].mean() / expected)
    return table


def volume_table(minutes: Minutes) -> dict[str, float]:
    """How volume follows volatility and precedes it."""
    moves = np.diff(np.log(minutes.close))
    log_rv = np.log(np.maximum(_sums(moves**2, 5), RV_FLOOR))
    volume = np.log(np.maximum(_sums(minutes.volume[1:], 5), 1e-9))
    # Both relative to their last day, because the level of volume moves with the fashion of the market.
    surprise, calm = _minus_day(volume), _minus_day(log_rv)
    ranges = np.log(np.maximum(_sums(np.log(minutes.high / minutes.low)[1:] ** 2, 5), RV_FLOOR))
    past = np.column_stack([ranges[288:-1], calm[:-1], _moving(log_rv, 12)[288:-1], _moving(log_rv, 288)[288:-1]])
    return {
        "share of minutes without volume": float(np.mean(minutes.volume == 0.0)),
        "share of 1-minute returns of zero": float(np.mean(moves == 0.0)),
        "standard deviation of log 5-minute volume, against its day": float(surprise.std()),
        "correlation of log 5-minute volume and log RV, both against their day": _correlation(surprise, calm),
        "autocorrelation of log 5-minute volume, 5 minutes": _correlation(surprise[1:], surprise[:-1]),
        "partial correlation of log volume with the next log RV, given RV and range": _partial(
            surprise[:-1], calm[1:], past
        ),
        "log RV over log range variance, correlation": _correlation(log_rv, ranges),
    }


def _moving(values: Floats, width: int) -> Floats:
    """The mean of the values up to and including each place; shorter windows at the begin."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    return np.asarray((sums[ends] - sums[begins]) / (ends - begins))


def _minus_day(values: Floats) -> Floats:
    """Five-minute values minus the mean of the day before them, without the first day."""
    return np.asarray(values[288:] - _moving(values, 288)[287:-1])


def _partial(left: Floats, right: Floats, given: Floats) -> float:
    design = np.column_stack([np.ones(len(left)), given])
    rest = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in (left, right)]
    return _correlation(rest[0], rest[1])


def quote_table(symbol: str, seed: int, hours: int) -> dict[str, float]:
    """Spread, and what the size imbalance of a quote says about the next move of the mid; only the generated market has it."""
    market = GeneratedMarket(PAIRS[symbol], seed=seed)
    spreads, tilts, moves, volatility = [], [], [], []
    for minute in range(EPOCH_MIN + 9_000, EPOCH_MIN + 9_000 + hours * 60 * 7, 7):
        quotes = np.array([quote[1:] for quote in market.quotes(minute)], np.float64)
        bid, bid_qty, ask, ask_qty = quotes.T
        spreads.append(float(np.mean((ask - bid) / bid) * 1e4))
        volatility.append(market.log_vol(minute))
        mid = 0.5 * (bid + ask)
        changes = np.flatnonzero(np.diff(mid))
        tilts.append(((bid_qty - ask_qty) / (bid_qty + ask_qty))[changes])
        moves.append(np.sign(np.diff(mid)[changes]))
    return {
        "spread, bps": float(np.mean(spreads)),
        "correlation of the log spread and log volatility": _correlation(np.log(spreads), np.array(volatility)),
        "correlation of size imbalance and the next mid move": _correlation(
            np.concatenate(tilts), np.concatenate(moves)
        ),
    }


def statistics_of(bars: npt.NDArray[Any]) -> dict[str, float]:
    """All statistics of minute bars, in the order of the table."""
    minutes = minutes_of(bars)
    return returns_table(minutes) | memory_table(minutes) | season_table(minutes) | volume_table(minutes)


def render(columns: dict[str, dict[str, float]]) -> str:
    """The Markdown table; a statistic that a column does not have is a dash."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = ["| statistic | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name in names:
        cells = [f"{column[name]:.3g}" if name in column else "–" for column in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.market_statistics", description=__doc__)
    parser.add_argument("--days", type=int, default=DAYS, help="days of the generated market, from 2024-01-01")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="seeds of the generated market")
    parser.add_argument("--symbol", default="BTC/USD", choices=sorted(PAIRS))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real minute bars")
    chosen = parser.parse_args(sys.argv[1:] if argv is None else argv)
    columns = {}
    real = real_bars(chosen.data)
    if real is None:
        print(f"The real column is left out: {chosen.data} does not hold {' and '.join(REAL_FILES)}.\n")
    else:
        columns["real BTC/USDT"] = statistics_of(real)
    for seed in chosen.seeds:
        bars = generated_bars(chosen.symbol, seed, chosen.days)
        columns[f"generated, seed {seed}"] = statistics_of(bars) | quote_table(chosen.symbol, seed, 20)
    print(render(columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
