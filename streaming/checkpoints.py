"""Checkpoints: the state of a worker at a committed offset, on disk, so that a restart need not read a day of the log.

A checkpoint only saves time: it is used if it belongs to this log and this version and lies at or before the committed
offset; otherwise the worker warms up from the log. That a loaded state is correct is checked elsewhere: tests compare
restarts with runs that never stopped, and sealing a day compares what the stream wrote with a replay.
What does not belong here: what the state is (`Handler.save`).
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

DIGEST_BYTES = 32


class Checkpoint(msgspec.Struct, frozen=True):
    """The state of one partition after every message before `offset`."""

    cluster: str
    """Id of the Kafka cluster whose offsets these are."""
    version: str
    """Version of the code that made the state."""
    topic: str
    partition: int
    offset: int
    state: bytes


class Checkpoints:
    """The newest checkpoint of each partition of one group's topic."""

    def __init__(self, directory: Path, group: str, topic: str, version: str) -> None:
        self._directory = directory / group
        self._topic = topic
        self._version = version

    def write(self, cluster: str, partition: int, offset: int, state: bytes) -> None:
        """Replace the checkpoint of a partition; when the disk refuses it, the next start takes longer and nothing is lost."""
        body = msgspec.msgpack.encode(Checkpoint(cluster, self._version, self._topic, partition, offset, state))
        path = self._path(partition)
        new = path.with_suffix(".new")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            new.write_bytes(hashlib.sha256(body).digest() + body)
            new.replace(path)
        except OSError as error:
            log.warning("the checkpoint %s was not written: %s; a restart will read the log instead", path, error)

    def read(self, cluster: str, partition: int, first: int, last: int) -> Checkpoint | None:
        """The checkpoint of a partition; None unless it is intact, of this cluster, version and topic, and `first` ≤ offset ≤ `last`."""
        try:
            data = self._path(partition).read_bytes()
        except FileNotFoundError:
            return None
        digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            log.warning("the checkpoint %s is damaged and is ignored", self._path(partition))
            return None
        found = msgspec.msgpack.decode(body, type=Checkpoint)
        ours = (found.cluster, found.version, found.topic) == (cluster, self._version, self._topic)
        return found if ours and first <= found.offset <= last else None

    def _path(self, partition: int) -> Path:
        return self._directory / f"{self._topic}-{partition}"
