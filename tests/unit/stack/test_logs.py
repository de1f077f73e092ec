"""Reading logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.logs import tail

if TYPE_CHECKING:
    from pathlib import Path


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 3) == []
    path.write_text("".join(f"{number}\n" for number in range(20_000)))
    assert tail(path, 2) == ["19998", "19999"]
