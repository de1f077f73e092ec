"""Reading logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.logs import mark_start, tail

if TYPE_CHECKING:
    from pathlib import Path


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 3) == []
    path.write_text("".join(f"{number}\n" for number in range(20_000)))
    assert tail(path, 2) == ["19998", "19999"]


def test_lines_of_an_earlier_process_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "kafka.log"
    assert tail(path, 3, since_start=True) == []
    mark_start(path)
    path.write_text("first process\n")
    assert tail(path, 3, since_start=True) == ["first process"]
    mark_start(path)
    assert tail(path, 3, since_start=True) == []
    with path.open("a") as log:
        log.write("second process\n")
    assert tail(path, 3, since_start=True) == ["second process"]
    assert tail(path, 3) == ["first process", "second process"]
    path.rename(tmp_path / "kafka.log.1")
    path.write_text("after the rotation\n")
    assert tail(path, 3, since_start=True) == ["after the rotation"]
