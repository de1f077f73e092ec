"""The state of the features at the end of a closed hour, from which a verification replays frames.

The state is that of all markets of a partition (`FeatureEngine.save`). It is made of the state of the hour before and the frames
since then, so anyone who has these frames can make it again. The header of the hour names its hash, and
`fold_states/DAY/HH-PARTITION-DIGEST.zst` on the object store keeps it. Without states, each verification would have to replay a
whole day of frames, because the longest window has 24 hours.
What does not belong here: when an hour is closed (`forecast_roots`), and comparing states with frames (`state_check`).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from btc_core.clock import NS_PER_S, from_ns
from btc_core.days.day_replay import MARGIN_NS
from btc_core.days.log_archive import STATES_FOLDER
from btc_core.errors import SchemaError
from btc_core.exchanges.tick_lines import with_ticks
from btc_core.features.depth import BOOK_MEMORY_S
from btc_core.features.engine import STATE_VERSION
from btc_core.features.state import WARM_UP_S
from btc_core.utc_day import day_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.features.engine import FeatureEngine
    from btc_core.stores.s3 import ObjectStore

WARM_NS = WARM_UP_S * NS_PER_S + MARGIN_NS
"""How long before a feature row the frames behind it begin, by receipt."""
BOOKS_NS = BOOK_MEMORY_S * NS_PER_S + MARGIN_NS
"""How long before a feature row the frames of order books can matter, by receipt."""
_NAME_DIGITS = 16
_CODEC = "zstd"


class FoldState(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a state, as in the header of an hour."""

    log: str
    """The identity of the log."""
    partition: int
    offset: int
    """The first offset whose message the state does not contain."""
    version: str
    """`STATE_VERSION` of the program that made it."""
    leader: str
    """The market that the others follow."""
    size_bytes: int
    sha256: str

    def is_that_of(self, body: bytes) -> bool:
        """Whether a state has this description's hash."""
        return sha256(body).hexdigest() == self.sha256

    def continues(self, log: str, partition: int, leader: str) -> bool:
        """Whether this program can go on from the state in a partition of a log."""
        own = (self.log, self.partition, self.leader, self.version)
        return own == (log, partition, leader, STATE_VERSION)


def folded(engine: FeatureEngine, blocks: Iterable[Block], books_from_ns: int = 0) -> Iterator[Block]:
    """Yield blocks after their messages have been folded; frames of order books received before a time are left out."""
    for block in with_ticks(blocks):
        engine.warm_up(block, ~block.lines["is_book"] | (block.lines["received_ns"] >= books_from_ns))
        yield block


def state_of(engine: FeatureEngine, log: str, partition: int, offset: int, leader: str) -> tuple[FoldState, bytes]:
    """The state of an engine that has folded the messages of a partition before an offset."""
    body = engine.save(partition)
    described = FoldState(
        log=log,
        partition=partition,
        offset=offset,
        version=STATE_VERSION,
        leader=leader,
        size_bytes=len(body),
        sha256=sha256(body).hexdigest(),
    )
    return described, body


def state_key(begin_ns: int, state: FoldState) -> str:
    """The key of a state by the begin of its hour."""
    hour = f"{day_of(begin_ns)}/{from_ns(begin_ns):%H}"
    return f"{STATES_FOLDER}/{hour}-{state.partition}-{state.sha256[:_NAME_DIGITS]}.{_CODEC}"


def keep_state(store: ObjectStore, begin_ns: int, state: FoldState, body: bytes) -> None:
    """Store the state at the end of an hour; raises `StoreError`."""
    store.put(state_key(begin_ns, state), pa.compress(body, _CODEC, asbytes=True))


def kept_state(store: ObjectStore, begin_ns: int, state: FoldState) -> bytes | None:
    """The state at the end of an hour; None if it is no longer kept. Raises `StoreError`, and `SchemaError` if it is damaged."""
    key = state_key(begin_ns, state)
    packed = store.get(key)
    if packed is None:
        return None
    try:
        body: bytes = pa.decompress(packed, state.size_bytes, _CODEC, asbytes=True)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{store.uri(key)} is damaged: {error}") from error
    if not state.is_that_of(body):
        raise SchemaError(f"{store.uri(key)} is damaged: its hash is not the one in the header of its hour")
    return body


def from_offset(blocks: Iterable[Block], offset: int) -> Iterator[Block]:
    """The blocks without the messages before an offset."""
    for block in blocks:
        kept: np.ndarray = block.lines["offset"] >= offset
        if kept.any():
            yield block.where(kept)
