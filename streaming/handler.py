"""What a worker does with messages: the interface between the loop (`worker`) and each worker's own work.

What does not belong here: consuming, retrying and committing (`worker`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from btc_core.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable


UNUSABLE_STATE = (
    SchemaError,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
)
"""What decoding bytes can raise that are no state of this handler."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of the log and its place in the topic."""

    partition: int
    offset: int
    value: bytes
    ts_ms: int = 0
    """Kafka's timestamp, ms since the epoch."""


class Handler(Protocol):
    """The work of one worker. Its methods run in the thread of the loop; only the work that `drain` returns does not."""

    def reset(self) -> None:
        """Forget all state and all rows: partitions were assigned, and each is warmed up again."""
        ...

    def warm(self, messages: list[Record]) -> None:
        """Rebuild state from messages that were handled before; must not write anywhere."""
        ...

    def save(self, partition: int, /) -> bytes:
        """The state of one partition after everything handled so far."""
        ...

    def load(self, state: bytes, /) -> None:
        """Restore the state of one partition from what `save` returned.

        Raises one of `UNUSABLE_STATE` when the bytes are no such state.
        """
        ...

    def handle(self, messages: list[Record]) -> int:
        """Publish the results of a batch and keep its rows for `drain`.

        Returns how many rows, or other entries to write, are kept by now; that number bounds the memory of the worker.
        May be called again with the same batch after it raised `ServiceError`.
        """
        ...

    def drain(self) -> Callable[[], None]:
        """Hand over the kept rows as a function that writes them and returns once every table and topic acknowledged.

        The function runs in another thread, one at a time, and may be called again after it raised `ServiceError`.
        """
        ...


class StatelessHandler:
    """Base of a handler that remembers nothing between batches: nothing to warm up, save or load."""

    def warm(self, messages: list[Record], /) -> None:
        """Do nothing."""

    def save(self, _partition: int, /) -> bytes:
        """An empty state."""
        return b""

    def load(self, state: bytes, /) -> None:
        """Do nothing."""


class WorkerSpec(msgspec.Struct, frozen=True):
    """What a worker reads, and what its state depends on."""

    group: str
    """The consumer group."""
    topic: str
    warm_up_s: float = 0.0
    """How far before the committed offset, by receive time, the state is rebuilt from; 0 for a handler without state."""
    state_version: str = ""
    """Version of the state in checkpoints; a checkpoint of another version is ignored."""
    eager: bool = True
    """Whether messages are fetched at once; False where nobody waits for the results, which costs the broker less."""
    from_end: bool = False
    """Whether a new group starts at the end of the log, because old messages are of no use to it."""
