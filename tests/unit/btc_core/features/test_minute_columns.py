"""Columns use closed bars only, forget what is older than their memory, and have the values that their names say."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, to_ns
from btc_core.features import minute_columns as module
from btc_core.features.minute_columns import COLUMNS, MEMORY_DAYS, NEEDED_MIN, TREE_COLUMNS, minute_columns
from btc_core.features.releases import KINDS, load_calendars, release_minutes
from btc_core.market.bars import BARS

BEGIN_NS = to_ns(datetime(2024, 1, 8, tzinfo=UTC))  # a Monday


def market(minutes: int, begin_ns: int = BEGIN_NS) -> np.ndarray:
    rng = np.random.default_rng(4)
    log_sigma = np.zeros(minutes)
    shocks = rng.normal(0.0, 0.2, minutes)
    for i in range(1, minutes):
        log_sigma[i] = 0.98 * log_sigma[i - 1] + shocks[i]
    moves = 5e-4 * np.exp(0.5 * log_sigma) * rng.normal(size=minutes)
    close = 40_000.0 * np.exp(moves.cumsum())
    bars = np.zeros(minutes, BARS)
    bars["ts_ns"] = begin_ns + np.arange(minutes) * NS_PER_MIN
    bars["close"], bars["open"] = close, np.concatenate([close[:1], close[:-1]])
    bars["high"] = np.maximum(bars["open"], close) * np.exp(np.abs(rng.normal(0.0, 1e-4, minutes)))
    bars["low"] = np.minimum(bars["open"], close) * np.exp(-np.abs(rng.normal(0.0, 1e-4, minutes)))
    bars["volume"] = np.exp(log_sigma + rng.normal(0.0, 0.3, minutes))
    return bars


@pytest.fixture(scope="module")
def bars() -> np.ndarray:
    return market((MEMORY_DAYS + 8) * 1440)


@pytest.fixture(scope="module")
def columns(bars: np.ndarray) -> np.ndarray:
    return minute_columns(bars)


def column(columns: np.ndarray, name: str) -> np.ndarray:
    return columns[:, COLUMNS.index(name)]


def test_the_names_are_distinct_and_trees_read_the_first_columns() -> None:
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert COLUMNS[: len(TREE_COLUMNS)] == TREE_COLUMNS


def test_every_column_is_known_after_a_week_and_none_before_half_a_day(columns: np.ndarray) -> None:
    assert np.isnan(columns[: NEEDED_MIN // 2 - 1]).all()
    assert np.isfinite(columns[8 * 1440 :]).all()


def test_changing_later_bars_changes_no_column(bars: np.ndarray, columns: np.ndarray) -> None:
    border = 30 * 1440 + 17
    other = bars.copy()
    for name in ("open", "high", "low", "close", "volume"):
        other[name][border:] *= 1.5
    found = minute_columns(other[: border + 1440])
    assert np.array_equal(found[:border], columns[:border], equal_nan=True)
    assert not np.array_equal(found[border], columns[border], equal_nan=True)


def test_the_last_days_give_the_columns_of_the_whole_history_to_the_last_bit(
    bars: np.ndarray, columns: np.ndarray
) -> None:
    recent = bars[-MEMORY_DAYS * 1440 - 600 :]
    assert np.array_equal(minute_columns(recent)[-600:], columns[-600:])


def test_a_history_in_pieces_gives_the_columns_of_one_piece(
    bars: np.ndarray, columns: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_DAYS", 50)
    chosen = bars["ts_ns"] // NS_PER_MIN % 5 == 0
    assert np.array_equal(minute_columns(bars, chosen), columns[chosen], equal_nan=True)


def test_windows_have_the_values_of_their_formulas(bars: np.ndarray, columns: np.ndarray) -> None:
    i = 20 * 1440 + 123
    span, body = np.log(bars["high"] / bars["low"]), np.log(bars["close"] / bars["open"])
    gk = 0.5 * span**2 - (2.0 * math.log(2.0) - 1.0) * body**2
    moves = np.diff(np.log(bars["close"]), prepend=np.nan)
    for name, value in {
        "log_gk_240m": math.log(gk[i - 239 : i + 1].sum()),
        "log_gk_10080m": math.log(gk[i - 10_079 : i + 1].sum()),
        "log_parkinson_lag_3": math.log(span[i - 3] ** 2 / (4.0 * math.log(2.0))),
        "log_span_1440m": 2.0 * math.log(math.log(bars["high"][i - 1439 : i + 1].max() / bars["low"][i - 1439 : i + 1].min())),
        "log_largest_range_60m": 2.0 * math.log(span[i - 59 : i + 1].max()),
        "return_lag_2": moves[i - 2],
        "return_1440m": math.log(bars["close"][i] / bars["close"][i - 1440]),
        "range_volatility_60m": np.log(span[i - 59 : i + 1]).std(),
        "volume_15m": math.log(bars["volume"][i - 14 : i + 1].mean() / bars["volume"][i - 1439 : i + 1].mean()),
    }.items():  # fmt: skip
        assert column(columns, name)[i] == pytest.approx(value, rel=2e-5), name


def test_the_profile_finds_the_hour_of_new_york_at_which_the_market_moves_in_winter_and_summer() -> None:
    bars = market(100 * 1440, to_ns(datetime(2024, 1, 10, tzinfo=UTC)))
    new_york = ZoneInfo("America/New_York")
    for day in range(100):
        opening = datetime.fromtimestamp(int(bars["ts_ns"][day * 1440 + 720]) // 10**9, new_york)
        opening = opening.replace(hour=9, minute=30)
        at = (int(opening.timestamp()) * 10**9 - int(bars["ts_ns"][0])) // NS_PER_MIN
        bars["high"][at : at + 5] *= 1.004
    columns = minute_columns(bars)
    for month, day, hour in ((2, 20, 14), (4, 10, 13)):  # 09:30 in New York in UTC
        close_ns = to_ns(datetime(2024, month, day, hour, 30, tzinfo=UTC))
        i = int((close_ns - int(bars["ts_ns"][0])) // NS_PER_MIN) - 1
        assert column(columns, "profile_15d")[i] > 2.0
        assert abs(column(columns, "profile_15d")[i - 60]) < 1.0


def test_missing_minutes_are_unknown_and_not_calm(bars: np.ndarray, columns: np.ndarray) -> None:
    keep = np.ones(len(bars), np.bool_)
    keep[20 * 1440 : 20 * 1440 + 20] = False
    found = minute_columns(bars[keep])
    after = 20 * 1440  # the first bar after the gap
    assert np.isnan(column(found, "log_parkinson_lag_1")[after])
    assert np.isnan(column(found, "log_gk_15m")[after])
    assert column(found, "log_gk_60m")[after] == pytest.approx(column(columns, "log_gk_60m")[after - 1], abs=1.0)
    rest = np.delete(found[after + 30 :], COLUMNS.index("return_1440m"), axis=1)
    assert np.isfinite(rest).all()


def test_a_release_is_seen_ahead_at_its_time_and_after_it() -> None:
    begin_ns = to_ns(datetime(2024, 1, 30, tzinfo=UTC))
    bars = market(3 * 1440, begin_ns)
    columns = minute_columns(bars)
    release = 1440 + 19 * 60  # FOMC at 14:00 in New York on 2024-01-31
    closes = release - 1  # the bar that closes at 14:00
    assert column(columns, "release_fomc")[closes] == 1.0
    assert column(columns, "release_cpi")[closes] == 0.0
    assert column(columns, "release_fomc")[closes - 5] == 0.0
    assert column(columns, "release_soon_10m")[closes - 5] == 1.0
    assert column(columns, "since_fomc_15m")[closes + 15] == pytest.approx(0.5)
    assert column(columns, "since_morning_15m")[closes + 15] == 0.0


def test_a_time_outside_the_calendars_has_no_releases() -> None:
    bars = market(2 * 1440, to_ns(datetime(2031, 3, 3, tzinfo=UTC)))
    columns = minute_columns(bars)
    for name in module.RELEASES:
        assert (column(columns[1000:], name) == 0.0).all()


def test_the_calendars_name_their_official_source_and_hold_their_dates_in_order() -> None:
    calendars = load_calendars()
    assert set(calendars) == set(KINDS)
    for calendar in calendars.values():
        assert calendar.source.split("https://www.")[1].startswith(("federalreserve.gov/", "bls.gov/"))
        assert len(calendar.minutes()) == len(calendar.dates) > 30
    minutes, kinds = release_minutes()
    assert (np.diff(minutes) > 0).all()
    moments = [datetime.fromtimestamp(minute * 60, ZoneInfo("America/New_York")) for minute in minutes.tolist()]
    assert {(moment.hour, moment.minute) for moment in moments} == {(8, 30), (14, 0)}
    assert all(moment.weekday() < 5 for moment in moments)
    assert len(minutes) == len(kinds)


def test_a_date_outside_the_period_of_its_calendar_is_refused() -> None:
    calendar = load_calendars()["fomc"]
    with pytest.raises(ValueError, match="must ascend and lie between"):
        msgspec.structs.replace(calendar, until=calendar.first).minutes()


def test_the_memory_covers_the_profiles() -> None:
    assert MEMORY_DAYS * NS_PER_DAY > (module.PROFILE_DAYS + 1) * NS_PER_DAY + 60 * NS_PER_MIN
