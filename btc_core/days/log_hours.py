"""What reached the log in an hour: the root over the messages of each partition, and the state of the features after them.

What does not belong here: the hour's forecasts and its header (`forecast_roots`), and the bytes of a state (`fold_states`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from btc_core.days.fold_states import (
    BOOKS_NS,
    WARM_NS,
    FoldState,
    folded,
    keep_state,
    kept_state,
    state_of,
)
from btc_core.days.forecast_hours import HOUR_NS
from btc_core.days.merkle import GrowingRoot, leaf_hashes
from btc_core.errors import SchemaError
from btc_core.exchanges.envelope_blocks import blocks_of_values
from btc_core.exchanges.recorded_blocks import read_ahead
from btc_core.features.engine import FeatureEngine
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import OffsetRange, kept_since, log_id, offset_ranges, read_offsets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore


log = logging.getLogger(__name__)


class LogRange(msgspec.Struct, frozen=True):
    """Messages of one partition of `market.events`, and the root over their lines (`recorded_lines.envelope_line`)."""

    log: str
    """The identity of the log."""
    partition: int
    first: int
    end: int
    """The first offset after the range."""
    root: str


class LogHour(msgspec.Struct, frozen=True):
    """What reached the log in an hour, or since the last closed one."""

    begin_ns: int
    ranges: tuple[LogRange, ...] = ()
    """Empty if the log had dropped messages of the hour already."""
    states: tuple[FoldState, ...] = ()
    """The states after these messages, which the object store keeps."""


class LogHours:
    """Reads the hours of the log that all markets share, each once."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self._kafka = settings.kafka
        self._leader = settings.leader
        self._store = store
        self._read: dict[int, LogHour] = {}
        self._warm_up: dict[int, dict[int, int]] = {}
        """By hour: the first offset of the warm-up window of each partition; none if the log no longer has the whole window."""

    def of_hour(self, begin_ns: int, before: LogHour | None) -> LogHour:
        """The messages that reached the log since the last closed hour, or in this hour if none was closed before.

        The states of the hour are kept on the object store. Raises `ServiceError`.
        """
        if begin_ns not in self._read:
            self._read[begin_ns] = self._hour(begin_ns, before or LogHour(0))
        return self._read[begin_ns]

    def _hour(self, begin_ns: int, before: LogHour) -> LogHour:
        if not kept_since(self._kafka, begin_ns - HOUR_NS):
            return LogHour(begin_ns)
        identity = log_id(self._kafka, EVENTS_TOPIC)
        ends = {each.partition: each.end for each in before.ranges if each.log == identity}
        ranges, states = [], []
        for chosen in offset_ranges(self._kafka, EVENTS_TOPIC, begin_ns, begin_ns + HOUR_NS):
            first = ends.get(chosen.partition, chosen.begin)
            hour = OffsetRange(chosen.partition, first, max(first, chosen.end))
            engine = self._engine(identity, hour, begin_ns, before)
            growing = GrowingRoot()
            blocks = self._blocks(hour)
            for block in blocks if engine is None else folded(engine, blocks):
                growing.extend(leaf_hashes(block.data(), block.lines["begin"], block.lines["end"]))
            ranges.append(LogRange(identity, hour.partition, hour.begin, hour.end, growing.root().hex()))
            if engine is not None:
                state, body = state_of(engine, identity, hour.partition, hour.end, self._leader)
                keep_state(self._store, begin_ns, state, body)
                states.append(state)
        return LogHour(begin_ns, tuple(ranges), tuple(states))

    def _engine(self, identity: str, hour: OffsetRange, begin_ns: int, before: LogHour) -> FeatureEngine | None:
        """An engine that has folded what came before the hour; None if the log no longer has all that it must have folded."""
        for state in before.states:
            if state.offset == hour.begin and state.continues(identity, hour.partition, self._leader):
                engine = self._continued(before.begin_ns, state)
                if engine is not None:
                    return engine
        engine = FeatureEngine(self._leader)
        if begin_ns not in self._warm_up:
            self._warm_up[begin_ns] = self._window_before(begin_ns)
        first = self._warm_up[begin_ns].get(hour.partition)
        if first is None:
            return None
        warm_up = OffsetRange(hour.partition, min(first, hour.begin), hour.begin)
        for _ in folded(engine, self._blocks(warm_up), begin_ns - BOOKS_NS):
            pass
        return engine

    def _continued(self, begin_ns: int, state: FoldState) -> FeatureEngine | None:
        """An engine with the state at the end of an hour; None if it is not kept, or is damaged, which the log says."""
        try:
            body = kept_state(self._store, begin_ns, state)
            if body is None:
                return None
            engine = FeatureEngine(self._leader)
            engine.load(body)
        except SchemaError as error:
            log.warning("the state of the features is computed from the log again: %s", error)
            return None
        return engine

    def _window_before(self, begin_ns: int) -> dict[int, int]:
        if not kept_since(self._kafka, begin_ns - WARM_NS):
            return {}
        earlier = offset_ranges(self._kafka, EVENTS_TOPIC, begin_ns - WARM_NS, begin_ns)
        return {each.partition: each.begin for each in earlier}

    def _blocks(self, chosen: OffsetRange) -> Iterator[Block]:
        if chosen.begin == chosen.end:
            return iter(())
        return blocks_of_values(read_ahead(read_offsets(self._kafka, EVENTS_TOPIC, chosen)), chosen.partition)
