"""Checkpoints: the state of a worker at a committed offset, on disk, so that a restart need not read a day of the log.

A checkpoint only saves time: it is used if it belongs to this log and this version and lies at or before the committed
offset; otherwise the worker warms up from the log. That a loaded state is correct is checked elsewhere: tests compare
restarts with runs that never stopped, and sealing a day compares what the stream wrote with a replay.
What does not belong here: what the state is (`Handler.save`), or whether the log still holds the mark (`log_marks`).
"""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.errors import InvalidInput, SchemaError
from btc_core.files import atomic_write
from streaming.log_marks import LogMark

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
IGNORED = "the checkpoint %s is ignored, and the log is read instead: %s"
STALE_DRAFT_S = 600.0
"""Age from which the draft of another process is deleted; that process was killed while it wrote."""


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state of one partition after every message before `offset`."""

    group: str
    topic: str
    partition: int
    version: str
    """Version of the code that made the state."""
    offset: int
    mark: LogMark
    """Identifies the log, and the message before `offset`."""
    state: bytes


class Checkpoints:
    """The newest checkpoint of each partition of one group's topic."""

    def __init__(self, directory: Path, group: str, topic: str, version: str) -> None:
        self._directory = directory / group
        self._group = group
        self._topic = topic
        self._version = version

    def write(self, partition: int, offset: int, mark: LogMark, state: bytes) -> None:
        """Replace the checkpoint of a partition; when the disk refuses it, the next start takes longer and nothing is lost."""
        body = msgspec.msgpack.encode(
            Checkpoint(self._group, self._topic, partition, self._version, offset, mark, state)
        )
        path = self._path(partition)
        try:
            self._delete_stale_drafts(path)
            with atomic_write(path) as file:
                file.write(hashlib.sha256(body).digest() + body)
        except (InvalidInput, OSError) as error:
            metrics.CHECKPOINT_FAILURES.labels(self._group).inc()
            log.warning("the checkpoint %s was not written: %s; a restart will read the log instead", path, error)

    def read(self, partition: int, log_id: str, first: int, last: int) -> Checkpoint | None:
        """The checkpoint of a partition; None, with the reason in the log, when it cannot be used.

        It is used if it is intact, of this group, topic, partition, version and log, and `first` ≤ offset ≤ `last`.
        """
        path = self._path(partition)
        try:
            found = _decoded(path.read_bytes())
            self._check(found, partition, log_id)
        except FileNotFoundError:
            return None
        except (OSError, SchemaError) as error:
            log.warning(IGNORED, path, error)
            return None
        if first <= found.offset <= last:
            return found
        log.warning(IGNORED, path, f"its offset is {found.offset}, and one from {first} to {last} is needed")
        return None

    def _check(self, found: Checkpoint, partition: int, log_id: str) -> None:
        """Raise `SchemaError` when the checkpoint belongs to something else."""
        expected = {
            "group": (found.group, self._group),
            "topic": (found.topic, self._topic),
            "partition": (found.partition, partition),
            "version": (found.version, self._version),
            "log": (found.mark.log, log_id),
        }
        for name, (stored, ours) in expected.items():
            if stored != ours:
                msg = f"its {name} is {stored}, and {ours} is needed"
                raise SchemaError(msg)

    def _path(self, partition: int) -> Path:
        return self._directory / f"{self._topic}-{partition}"

    def _delete_stale_drafts(self, path: Path) -> None:
        for draft in self._directory.glob(f".{path.name}.*.draft"):
            if time.time() - draft.stat().st_mtime > STALE_DRAFT_S:
                draft.unlink(missing_ok=True)


def _decoded(data: bytes) -> Checkpoint:
    """The checkpoint in a file; raises `SchemaError`."""
    digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        msg = "it is damaged"
        raise SchemaError(msg)
    try:
        return msgspec.msgpack.decode(body, type=Checkpoint)
    except msgspec.MsgspecError as error:
        msg = f"it has another layout: {error}"
        raise SchemaError(msg) from error
