"""What is given up while the disk fills, in which order, and how long the disk lasts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import ConfigError
from btc_core.settings import DiskSettings, load_settings
from btc_core.stores import disk
from btc_core.stores.disk import DiskTrend, Saving, disk_problem, saving

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = DiskSettings(books_below_bytes=2_000, quotes_below_bytes=1_000, kafka_stops_below_bytes=300)


def test_books_go_first_then_quotes_and_last_the_log() -> None:
    steps = [saving(free, SETTINGS) for free in (2_000, 1_999, 1_000, 999, 300, 299, 0)]
    assert steps == [Saving.NOTHING, Saving.BOOKS, Saving.BOOKS, Saving.QUOTES, Saving.QUOTES, Saving.LOG, Saving.LOG]


def test_a_disk_at_a_bound_does_not_switch_back_and_forth() -> None:
    step, taken = Saving.NOTHING, []
    for free in (2_010, 1_990, 2_010, 2_390, 2_400, 990, 1_100, 1_200, 2_399, 2_400):
        step = saving(free, SETTINGS, step)
        taken.append(step.value)
    assert taken == [0, 1, 1, 1, 0, 2, 2, 1, 1, 0]


def test_bounds_that_would_give_up_quotes_before_books_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_DISK_BOOKS_BELOW_BYTES", "5")
    with pytest.raises(ConfigError, match="must not increase in this order, and are 5, 1000000000 and 300000000"):
        load_settings()


def test_a_nearly_full_disk_is_named_with_what_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS.model_copy(update={"path": str(tmp_path)})
    monkeypatch.setattr(disk, "free_bytes", lambda _path: 999)
    assert disk_problem(settings) == (
        f"only 0.00 GB are free at {tmp_path}: order books are not recorded, and quotes only once a second"
    )
    monkeypatch.setattr(disk, "free_bytes", lambda _path: 2_000)
    assert not disk_problem(settings)
    assert not disk_problem(SETTINGS), "no disk is watched"


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"path": str(tmp_path / "gone")})
    assert disk_problem(settings) == f"the disk of {tmp_path}/gone cannot be read: No such file or directory"


def test_the_days_left_follow_the_rate_of_the_last_day() -> None:
    trend = DiskTrend()
    assert math.isnan(trend.days_left())
    for minute in range(60):
        trend.add(60.0 * minute, 10_000_000 - 1_000 * minute)
    assert trend.days_left() == pytest.approx((10_000_000 - 59_000) / 1_000 / 1_440)
    for minute in range(60, 60 + 2 * 24 * 60):  # nothing is written for two days
        trend.add(60.0 * minute, 10_000_000 - 59_000)
    assert trend.days_left() == math.inf


def test_ten_minutes_are_needed_for_a_rate() -> None:
    trend = DiskTrend()
    for second in range(599):
        trend.add(float(second), 1_000 - second)
    assert math.isnan(trend.days_left())
