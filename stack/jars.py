"""The jars of QuestDB and Kafka, exactly as locked, from the local Maven repository or Maven Central.

The lock files in `stack/locks` name versions and SHA-256 and no addresses. `python -m stack.jars` writes them again from
`WANTED`. What does not belong here: how the jars are run.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import StackError
from stack.files import one_process_at_a_time
from stack.java import MIN_JAVA

if TYPE_CHECKING:
    from jgo.env._lockfile import LockedDependency
    from jgo.maven import Artifact, MavenContext

LOCKS = Path(__file__).parent / "locks"

WANTED = {
    "questdb": ("org.questdb:questdb:9.3.4",),
    "kafka": ("org.apache.kafka:kafka_2.13:4.3.1", "org.slf4j:slf4j-simple:2.0.17"),
}
"""The artifacts to lock: each server, and for Kafka a logger that writes to stderr without a configuration file."""

PARALLEL_DOWNLOADS = 8
"""Kafka has 46 jars, most of them small: downloading them one after the other takes 9 s, eight in parallel 2 s."""


def jars(name: str) -> list[Path]:
    """Paths of the locked jars of `questdb` or `kafka`, downloaded if necessary and checked.

    Several processes of an account may call this at once: one of them downloads, and the others wait for it.
    Raises `StackError` naming the jar that cannot be downloaded or does not match its lock.
    """
    from jgo.env._lockfile import LockFile  # noqa: PLC0415 - it takes a tenth of the start of every command
    from jgo.maven import MavenContext  # noqa: PLC0415 - the same

    return locked_jars(MavenContext(), LockFile.load(LOCKS / f"{name}.lock.toml").dependencies)


def locked_jars(context: MavenContext, locked: list[LockedDependency]) -> list[Path]:
    """As `jars`, for the jars of a lock and the repositories of a context."""
    artifacts = [(_artifact(context, each), each) for each in locked]
    present = [artifact.cached_path for artifact, each in artifacts if _matches(artifact.cached_path, each)]
    if len(present) == len(locked):
        return [Path(path) for path in present if path]
    # Another process would take a jar that is half downloaded for a broken one.
    lock = Path(tempfile.gettempdir()) / f"btc-jars-{os.getuid()}.lock"
    with one_process_at_a_time(lock), ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        return list(pool.map(lambda pair: _jar(*pair), artifacts))


def _artifact(context: MavenContext, locked: LockedDependency) -> Artifact:
    component = context.project(locked.groupId, locked.artifactId).at_version(locked.version)
    return component.artifact(locked.classifier or "", locked.packaging)


def _matches(path: Path | None, locked: LockedDependency) -> bool:
    return path is not None and path.exists() and _sha256(path) == locked.sha256


def _jar(artifact: Artifact, locked: LockedDependency) -> Path:
    coordinate = f"{locked.groupId}:{locked.artifactId}:{locked.version}"
    found = ""
    for _ in range(2):  # an interrupted download leaves a broken file; it is deleted and downloaded once more
        try:
            path = Path(artifact.resolve())
        except (RuntimeError, OSError) as error:  # the errors of requests are OSErrors
            msg = (
                f"the download of {coordinate} from Maven Central failed ({error}): check the network, "
                "or put the jar into the local Maven repository (M2_REPO, else ~/.m2/repository), and try again"
            )
            raise StackError(msg) from error
        found = _sha256(path)
        if found == locked.sha256:
            return path
        path.unlink()
    msg = f"{coordinate} does not match its lock: its SHA-256 is {found}, the locked one {locked.sha256}"
    raise StackError(msg)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_locks() -> None:
    """Resolve `WANTED` and write the lock files."""
    from jgo.env._lockfile import LockFile  # noqa: PLC0415 - as in `jars`
    from jgo.maven import MavenContext  # noqa: PLC0415 - as in `jars`
    from jgo.parse import Coordinate  # noqa: PLC0415 - as in `jars`

    context = MavenContext()
    for name, coordinates in WANTED.items():
        wanted = [context.create_dependency(Coordinate.parse(text)) for text in coordinates]
        for dependency in wanted:
            dependency.scope = "compile"
        inputs, transitive = context.resolver.resolve(wanted)
        used = [*inputs, *(each for each in transitive if each.scope in {"compile", "runtime"})]
        LOCKS.mkdir(exist_ok=True)
        LockFile.from_resolved_dependencies(used, environment_name=name, min_java_version=MIN_JAVA).save(
            LOCKS / f"{name}.lock.toml"
        )


if __name__ == "__main__":
    write_locks()
