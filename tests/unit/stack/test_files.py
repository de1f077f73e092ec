"""Files that are written whole or not at all, and secrets that only their owner can read."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import InvalidInput
from btc_core.files import atomic_write
from stack.files import write_secret

if TYPE_CHECKING:
    from pathlib import Path


def test_a_secret_file_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_secret(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "frames.txt"
    with atomic_write(out) as file:
        file.write(b"first")
    with pytest.raises(ZeroDivisionError), atomic_write(out) as file:
        file.write(b"half of the" * (1 // 0))
    assert out.read_bytes() == b"first"
    assert list(out.parent.iterdir()) == [out]
    with pytest.raises(InvalidInput, match="cannot be written"), atomic_write(out / "below") as file:
        pass
