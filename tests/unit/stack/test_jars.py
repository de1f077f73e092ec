"""The jars of QuestDB and Kafka are downloaded once, by one process at a time, and checked against their lock."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from jgo.env._lockfile import LockedDependency
from jgo.maven import MavenContext

from btc_core.errors import StackError
from stack.jars import locked_jars
from tests.http_server import answering

if TYPE_CHECKING:
    from pathlib import Path

JAR = b"a jar" * 1_000
DOWNLOAD = """
import sys
from pathlib import Path
from jgo.env._lockfile import LockedDependency
from jgo.maven import MavenContext
from stack.jars import locked_jars

repository, url, sha256 = sys.argv[1:]
context = MavenContext(repo_cache=Path(repository), remote_repos={"here": url})
print(*locked_jars(context, [LockedDependency("org.example", "thing", "1.0", sha256=sha256)]))
"""


def download(repository: Path, url: str) -> subprocess.Popen[str]:
    """A process that downloads the jar into a local repository, and prints its path."""
    arguments = [sys.executable, "-c", DOWNLOAD, str(repository), url, hashlib.sha256(JAR).hexdigest()]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_start_at_once_download_a_jar_once(tmp_path: Path) -> None:
    asked: list[str] = []
    second = threading.Event()

    def answer(path: str) -> tuple[int, bytes]:
        if not path.endswith(".jar"):
            return 404, b""
        asked.append(path)
        if len(asked) > 1:
            second.set()
        second.wait(2.0)  # long enough for the other process to ask, too, if it does
        return 200, JAR

    with answering(answer) as url:
        processes = [download(tmp_path, url) for _ in range(2)]
        results = [process.communicate(timeout=60) for process in processes]

    path = tmp_path / "org/example/thing/1.0/thing-1.0.jar"
    assert [(out.strip(), error) for out, error in results] == [(str(path), "")] * 2
    assert path.read_bytes() == JAR
    assert asked == ["/org/example/thing/1.0/thing-1.0.jar"]


def test_a_jar_that_was_half_downloaded_is_downloaded_again(tmp_path: Path) -> None:
    path = tmp_path / "org/example/thing/1.0/thing-1.0.jar"
    path.parent.mkdir(parents=True)
    path.write_bytes(JAR[:100])

    with answering(lambda asked: (200, JAR) if asked.endswith(".jar") else (404, b"")) as url:
        out, error = download(tmp_path, url).communicate(timeout=60)

    assert (out.strip(), error) == (str(path), "")
    assert path.read_bytes() == JAR


def test_a_jar_that_is_not_the_locked_one_is_refused(tmp_path: Path) -> None:
    with answering(lambda asked: (200, b"another jar") if asked.endswith(".jar") else (404, b"")) as url:
        context = MavenContext(repo_cache=tmp_path, remote_repos={"here": url})
        locked = LockedDependency("org.example", "thing", "1.0", sha256=hashlib.sha256(JAR).hexdigest())
        with pytest.raises(StackError, match=r"org\.example:thing:1\.0 does not match its lock"):
            locked_jars(context, [locked])
