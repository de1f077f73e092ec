"""The jars of QuestDB and Kafka, exactly as locked, from the local Maven repository or Maven Central.

The lock files in `stack/locks` name versions and SHA-256 and no addresses. `python -m stack.jars` writes them anew from
`WANTED`. What does not belong here: how the jars are run.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import StackError

if TYPE_CHECKING:
    from jgo.env._lockfile import LockedDependency
    from jgo.maven import MavenContext

LOCKS = Path(__file__).parent / "locks"

WANTED = {
    "questdb": ("org.questdb:questdb:9.3.4",),
    "kafka": ("org.apache.kafka:kafka_2.13:4.3.1", "org.slf4j:slf4j-simple:2.0.17"),
}
"""What is locked: the server, and for Kafka a logger that writes to stderr without a configuration file."""

DOWNLOADS_AT_ONCE = 8
"""Kafka has 46 jars, most of them small: one after the other takes 9 s, eight at once 2 s."""


def jars(name: str) -> list[Path]:
    """Paths of the locked jars of `questdb` or `kafka`, downloaded as needed and checked.

    Raises `StackError` naming the jar that cannot be had.
    """
    from jgo.env._lockfile import LockFile  # noqa: PLC0415 - slow, and not needed by `btc --help`
    from jgo.maven import MavenContext  # noqa: PLC0415

    locked = LockFile.load(LOCKS / f"{name}.lock.toml").dependencies
    context = MavenContext()
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        return list(pool.map(lambda dependency: _jar(context, dependency), locked))


def _jar(context: MavenContext, locked: LockedDependency) -> Path:
    coordinate = f"{locked.groupId}:{locked.artifactId}:{locked.version}"
    component = context.project(locked.groupId, locked.artifactId).at_version(locked.version)
    artifact = component.artifact(locked.classifier or "", locked.packaging)
    found = ""
    for _ in range(2):  # an interrupted download leaves a file behind that is thrown away once
        try:
            path = Path(artifact.resolve())
        except (RuntimeError, OSError) as error:  # requests' errors are OSErrors
            msg = (
                f"the download of {coordinate} from Maven Central failed ({error}): check the network, "
                "or put the jar into the local Maven repository (M2_REPO, else ~/.m2/repository), and try again"
            )
            raise StackError(msg) from error
        found = _sha256(path)
        if found == locked.sha256:
            return path
        path.unlink()
    msg = f"{coordinate} is not what the lock file names: SHA-256 {found}, locked {locked.sha256}"
    raise StackError(msg)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock() -> None:
    """Resolve `WANTED` and write the lock files."""
    from jgo.env._lockfile import LockFile  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415
    from jgo.parse import Coordinate  # noqa: PLC0415

    context = MavenContext()
    for name, coordinates in WANTED.items():
        wanted = [context.create_dependency(Coordinate.parse(text)) for text in coordinates]
        for dependency in wanted:
            dependency.scope = "compile"
        inputs, transitive = context.resolver.resolve(wanted)
        used = [*inputs, *(each for each in transitive if each.scope in {"compile", "runtime"})]
        LOCKS.mkdir(exist_ok=True)
        LockFile.from_resolved_dependencies(used, environment_name=name, min_java_version=17).save(
            LOCKS / f"{name}.lock.toml"
        )


if __name__ == "__main__":
    lock()
