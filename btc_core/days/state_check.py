"""Compares the states that the hours of a day name with the frames of the day.

Each hour's state is made again: of the state of the hour before it, and of the frames between the two, which the archive of the day
has. What does not belong here: making states (`log_hours`), and feature rows (`archive_replay`).
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_DAY
from btc_core.days.day_replay import MARGIN_NS
from btc_core.days.fold_states import FoldState, folded, from_offset, kept_state
from btc_core.days.forecast_check import Step
from btc_core.days.forecast_hours import HOUR_NS
from btc_core.days.forecast_roots import HOUR, ClosedPeriod, closed_periods
from btc_core.days.log_archive import blocks_in_log_order, read_manifest
from btc_core.errors import SchemaError
from btc_core.exchanges.recorded_blocks import read_ahead
from btc_core.features.engine import FeatureEngine
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.days.history import History
    from btc_core.days.log_archive import LogArchive
    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.stores.s3 import ObjectStore


def check_states(history: History, store: ObjectStore, symbol: str, day: str) -> Step:
    """Compare the states that the hours of an archived day name with what the frames give; raises `ServiceError`.

    The first state of the day is made of the last one of the day before. A state that follows none, as the first one of a new version of
    the features, is taken as it is.
    """
    begin_ns = day_ns(day)
    archives = _archives(store, begin_ns)
    periods = closed_periods(history, symbol, begin_ns - NS_PER_DAY, begin_ns + NS_PER_DAY)
    compared, wrong = 0, []
    for chain in _chains([each for each in periods if each.period == HOUR]):
        in_day = [(hour, state) for hour, state in chain if hour.begin_ns >= begin_ns]
        before = [each for each in chain if each[0].begin_ns < begin_ns][-1:] or in_day[:1]
        wanted = [each for each in in_day if each != before[0]] if before else []
        known = [each for each in wanted if each[1].offset <= _end(archives, each[1])]
        engine = FeatureEngine(before[0][1].leader) if before else FeatureEngine()
        try:
            start = kept_state(store, before[0][0].begin_ns, before[0][1]) if known else None
            if start is None:
                continue
            engine.load(start)
        except SchemaError as error:
            return Step("states", False, f"A state of the features cannot be read: {error}.")
        partition, first = before[0][1].partition, before[0][1].offset
        blocks = blocks_in_log_order(store, archives, partition, begin_ns - HOUR_NS - MARGIN_NS)
        ends = [state.offset for _, state in known]
        for (hour, state), part in zip(known, _split(read_ahead(from_offset(blocks, first)), ends), strict=True):
            for _ in folded(engine, part):
                pass
            compared += 1
            if not state.is_that_of(engine.save(partition)):
                wrong.append(hour.name)
                break
    if wrong:
        return Step(
            "states", False, f"The frames do not give the state of the features that {' and '.join(wrong)} names."
        )
    if not compared:
        return Step(
            "states", True, "No hour of the day names a state of the features that can be compared.", is_open=True
        )
    return Step(
        "states", True, f"The frames give the {compared} states of the features that the hours of the day name."
    )


def _archives(store: ObjectStore, begin_ns: int) -> list[LogArchive]:
    """The archives of the day before, of the day and of the one after it: around midnight, their messages alternate."""
    days = (day_of(begin_ns + shift * NS_PER_DAY) for shift in (-1, 0, 1))
    found = (read_manifest(store, each) for each in days)
    return [archive for archive in found if archive is not None]


def _end(archives: list[LogArchive], state: FoldState) -> int:
    """The offset up to which the archives have all messages of a partition. The last day may lack some that are in the next one."""
    own = [each for archive in archives if archive.log_id == state.log for each in archive.partitions]
    last = max((each.last_offset for each in own if each.partition == state.partition), default=-1)
    return last + 1


def _chains(hours: list[ClosedPeriod]) -> Iterator[list[tuple[ClosedPeriod, FoldState]]]:
    """The states of each partition that continue each other, oldest first."""
    by_partition = defaultdict(list)
    for hour in hours:
        for state in hour.hour_header.states:
            by_partition[state.partition].append((hour, state))
    for states in by_partition.values():
        chain = states[:1]
        for (_, before), (hour, state) in pairwise(states):
            begins = [each.first for each in hour.hour_header.log if each.partition == state.partition]
            if begins != [before.offset] or not state.continues(before.log, before.partition, before.leader):
                yield chain
                chain = []
            chain.append((hour, state))
        yield chain


def _split(blocks: Iterator[Block], ends: list[int]) -> Iterator[list[Block]]:
    """The messages before each of some offsets and behind the one before it; `ends` are in their order."""
    waiting: Block | None = None
    for end in ends:
        part: list[Block] = []
        while waiting is not None or (waiting := next(blocks, None)) is not None:
            offsets = waiting.lines["offset"]
            part.append(waiting.where(offsets < end))
            rest = offsets >= end
            waiting = waiting.where(rest) if rest.any() else None
            if waiting is not None:
                break
        yield part
