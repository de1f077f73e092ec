"""The class caches of QuestDB and Kafka: made from a run, used by the next start, and not with another jar."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import StackError
from stack import java_caches
from stack.jars import jars
from stack.java import class_cache, java_command
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from stack.runtime import Stack

pytestmark = [pytest.mark.service, pytest.mark.timeout(1_800)]


def test_servers_start_from_the_caches_that_are_made_in_the_background(
    own_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert java_caches.missing() == ["questdb", "kafka"]
    log = tmp_path / "log"
    assert java_caches.make_in_background(log)
    wait_for(lambda: java_caches.missing() == [] or "Error" in log.read_text(), "both caches", 1_500.0)
    assert "Error" not in log.read_text()
    assert not java_caches.make_in_background(log)
    monkeypatch.setenv(
        "JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:AOTMode=on"
    )  # Java ends if it cannot use a cache
    own_stack.up(only=("questdb", "kafka"))
    for name in ("questdb", "kafka"):
        assert "-XX:AOTCache=" in " ".join(own_stack.components()[name].command)


def test_a_jar_that_was_replaced_has_no_cache_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jar = tmp_path / "a.jar"
    jar.write_bytes(b"one")
    path = class_cache([jar])
    assert path is not None
    path.parent.mkdir()
    path.touch()
    assert f"-XX:AOTCache={path}" in java_command(100, tmp_path, [jar])
    jar.write_bytes(b"another")
    assert not [each for each in java_command(100, tmp_path, [jar]) if "AOTCache" in each]


def test_a_server_that_does_not_start_leaves_no_cache_and_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Dno.such -XX:NoSuchOption=1")
    with pytest.raises(StackError, match="NoSuchOption"):
        java_caches.make("questdb")
    assert java_caches.missing() == ["questdb", "kafka"]
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], check=False, capture_output=True).stdout == b""  # noqa: S607 - a tool of every Linux
    assert jars("questdb")
