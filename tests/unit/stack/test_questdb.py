"""What is prepared before QuestDB starts, and when it acknowledges a write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stack.runtime import Stack
from stack.servers.questdb import _prepare

if TYPE_CHECKING:
    from pathlib import Path

    from stack.layout import Durability, Layout


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0"])
def test_an_empty_version_file_left_by_a_loss_of_power_does_not_keep_questdb_from_starting(
    tmp_path: Path, content: bytes
) -> None:
    version = tmp_path / "public" / "version.txt"
    version.parent.mkdir()
    version.write_bytes(content)
    _prepare(tmp_path)
    assert not version.exists(), "QuestDB unpacks its console again"


def test_a_good_version_file_stays(tmp_path: Path) -> None:
    version = tmp_path / "public" / "version.txt"
    version.parent.mkdir()
    version.write_bytes(b"1795880667000")
    _prepare(tmp_path)
    _prepare(tmp_path)
    assert version.read_bytes() == b"1795880667000"
    assert (tmp_path / "tmp").is_dir()


@pytest.mark.parametrize(("mode", "commit_mode"), [("page-cache", "nosync"), ("fsync", "sync")])
def test_the_commit_mode_follows_the_durability_of_the_stack(
    layout: Layout, mode: Durability, commit_mode: str
) -> None:
    layout.set_durability(mode)
    questdb = Stack(layout.data_dir).components()["questdb"]
    assert questdb.env["QDB_CAIRO_COMMIT_MODE"] == commit_mode
