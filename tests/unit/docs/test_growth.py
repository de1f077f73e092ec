"""The benchmark of growth: megabytes a day from two readings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.growth import DAY_S, figures, folder_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_two_readings_give_the_size_and_the_growth_of_a_day() -> None:
    found = {each.name: (each.value, each.unit) for each in figures({"log": 1_000_000}, {"log": 3_000_000}, DAY_S / 4)}
    assert found == {"log": (3.0, "MB"), "growth of log": (8.0, "MB a day")}


def test_a_folder_is_the_sum_of_its_files_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"123")
    (tmp_path / "a" / "b" / "two").write_bytes(b"4567")
    assert folder_bytes(tmp_path) == 7
    assert folder_bytes(tmp_path / "nothing") == 0
