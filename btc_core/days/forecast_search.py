"""Finds the forecast that was served at a time, and its evidence: in the tables, the log, and the archives of sealed days.

What does not belong here: judging the evidence (`forecast_check`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_S, column_ns, from_ns
from btc_core.days.day_replay import MARGIN_NS
from btc_core.days.fold_states import WARM_NS, from_offset, kept_state
from btc_core.days.forecast_evidence import (
    DayInclusion,
    Evidence,
    Inclusion,
    Proof,
    ProvenHour,
    hours_around,
)
from btc_core.days.forecast_hours import (
    HOUR_NS,
    LATE_DAYS,
    PLACE,
    horizons_of,
    kept_bytes,
    places_of,
    record_of,
)
from btc_core.days.forecast_inputs import AHEAD_NS, read_minutes, read_states, read_table
from btc_core.days.forecast_leaves import leaf_of, row_hashes
from btc_core.days.forecast_replay import EMITTED_NS
from btc_core.days.forecast_roots import HOUR, LATE_HOURS, ClosedPeriod, closed_periods
from btc_core.days.log_archive import blocks_in_log_order, read_manifest
from btc_core.days.merkle import HASH_BYTES, as_array, leaf_hash, proof_of
from btc_core.errors import InvalidInput, SchemaError, StoreError
from btc_core.exchanges.envelope_blocks import blocks_of_values
from btc_core.exchanges.recorded_blocks import read_ahead
from btc_core.names import EVENTS_TOPIC, STORED_HEADLINES_MIN
from btc_core.registry.served_models import get_bundle
from btc_core.stores.kafka import kept_since, offset_ranges, read_batches
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns, day_of, days_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.days.history import History
    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore

log = logging.getLogger(__name__)

SERVED_NS = 900 * NS_PER_S
"""How long a forecast counts as the one that was served. The API refuses older features long before that."""
TAIL_NS = 120 * NS_PER_S
"""How long after a time messages are read, because they are not quite in the order of their receipt."""
_SIGMAS = tuple(f"sigma_{h}m_bps" for h in STORED_HEADLINES_MIN)
_IS_SERVED = f"({' OR '.join(f'{name} IS NOT NULL' for name in _SIGMAS)})"
"""The condition that a row has numbers, of the present or of former horizons."""


def forecast_at(history: History, symbol: str, at_ns: int) -> tuple[pa.Table, pa.Table]:
    """The two rows of the forecast that was the newest at a time; raises `InvalidInput` if there was none."""
    volatilities = _newest_made(history, symbol, at_ns)
    if volatilities is None:
        msg = f"no forecast of {symbol} was in force at {from_ns(at_ns):%Y-%m-%dT%H:%M:%SZ}{_known_range(history, symbol)}"
        raise InvalidInput(msg)
    event_ns = int(column_ns(volatilities["ts_event"])[0])
    (row,) = places_of(volatilities)
    found = read_table(history, BID_PREDICTION, symbol, event_ns, event_ns + 1)
    same = [other == row for other in places_of(found)]
    bids = found.filter(pa.array(same, pa.bool_()))
    if not len(bids):
        msg = f"the forecast of the volatility at {event_ns} has no forecast of the bid beside it in {BID_PREDICTION.name}"
        raise StoreError(msg)
    return bids, volatilities


def _newest_made(history: History, symbol: str, at_ns: int) -> pa.Table | None:
    """The row of the volatility. A forecast without a number, as while the features warm up, is not served."""
    table = VOLATILITY_PREDICTION
    found = history.db.execute(
        f"SELECT cast(ts_event AS LONG) FROM {table.name} WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
        f"AND {within('ts_event', at_ns - LATE_DAYS * NS_PER_DAY, at_ns + AHEAD_NS)} "
        f"AND {within('made_at', at_ns - SERVED_NS, at_ns + 1)} AND {_IS_SERVED} "
        "ORDER BY made_at DESC, kafka_partition DESC, kafka_offset DESC, frame_item DESC LIMIT 1"
    )
    begin_ns, end_ns = (int(found[0][0]), int(found[0][0]) + 1) if found else (at_ns - SERVED_NS, at_ns + 1)
    rows = read_table(history, table, symbol, begin_ns, end_ns)
    made_ns = column_ns(rows["made_at"])
    is_served = np.any([np.asarray(pc.is_valid(rows[name])) for name in _SIGMAS], axis=0)
    rows = rows.filter(pa.array((made_ns <= at_ns) & (made_ns > at_ns - SERVED_NS) & is_served))
    order = [("made_at", "descending"), *((name, "descending") for name in PLACE)]
    return rows.sort_by(order).slice(0, 1) if len(rows) else None


def _known_range(history: History, symbol: str) -> str:
    found = history.db.execute(
        f"SELECT cast(min(made_at) AS LONG), cast(max(made_at) AS LONG) FROM {BID_PREDICTION.name} WHERE {of_symbol(symbol)}"  # noqa: S608 - names of the catalogue
    )
    if not found or found[0][0] is None:
        return "; no forecast of this market is stored"
    first, last = (f"{from_ns(int(ns)):%Y-%m-%dT%H:%M:%SZ}" for ns in found[0])
    return f"; those in QuestDB were made from {first} to {last}"


def evidence_of(  # noqa: PLR0913 - where it is, which forecast, and how far back
    settings: Settings,
    history: History,
    store: ObjectStore,
    symbol: str,
    forecast: tuple[pa.Table, pa.Table],
    *,
    all_frames: bool = False,
) -> Evidence:
    """The evidence of a forecast; what is not stored is missing in it.

    Its frames continue the state of the features that a closed hour names, if one is kept. With `all_frames` they are all
    that can matter. Raises `InvalidInput` if the frames are not stored any more, and `ServiceError`.
    """
    bid, volatility = forecast
    made_ns, event_ns, received_ns = (int(column_ns(bid[name])[0]) for name in ("made_at", "ts_event", "ts_recv"))
    states = read_states(history, symbol, event_ns, event_ns + 1)
    place = states.place(made_ns)
    state = states.rows.slice(place, 1) if place >= 0 else states.rows.slice(0, 0)
    bundles = {digest.hex(): get_bundle(store, digest.hex()) for digest in states.bundles(made_ns)}
    partition = int(bid["kafka_partition"][0].as_py())
    periods = _periods_around(history, symbol, forecast)
    found = None if all_frames else _start_of(store, periods, bid, settings.leader)
    if found is None:
        hour_ns, begin_ns, first, start = hours_around(received_ns, made_ns)[0], received_ns - WARM_NS, 0, b""
    else:
        hour_ns, first, start = found
        begin_ns = hour_ns + HOUR_NS - MARGIN_NS
    proof = _proof(store, symbol, forecast, periods, hour_ns)
    end_ns = hours_around(received_ns, made_ns)[1] + TAIL_NS
    source, blocks = blocks_between(settings, store, partition, (begin_ns, end_ns), received_ns, first=first)
    return Evidence(
        symbol=symbol,
        bid=bid,
        volatility=volatility,
        horizons_min=horizons_of(volatility),
        state=state,
        minutes=read_minutes(history, symbol, event_ns + AHEAD_NS, made_ns),
        bundles=bundles,
        proof=proof,
        stored_leaf=""
        if proof.is_closed(made_ns)
        else _stored_leaf(history, symbol, forecast, states.bundles(made_ns)),
        leader=settings.leader,
        simulated=settings.simulated,
        source=source,
        start=start,
        blocks=blocks,
    )


def _start_of(
    store: ObjectStore, periods: list[ClosedPeriod], bid: pa.Table, leader: str
) -> tuple[int, int, bytes] | None:
    """The newest kept state from which a replay gives all rows that it needs: the begin of its hour, its offset and itself.

    None if no state of the last hours is kept.
    """
    partition, offset = (int(bid[name][0].as_py()) for name in ("kafka_partition", "kafka_offset"))
    latest_ns = int(column_ns(bid["ts_recv"])[0]) - EMITTED_NS - TAIL_NS
    for hour in reversed([each for each in periods if each.period == HOUR]):
        if not latest_ns - 2 * HOUR_NS <= hour.begin_ns <= latest_ns - HOUR_NS:
            continue
        for state in hour.hour_header.states:
            if state.offset <= offset and state.continues(state.log, partition, leader):
                try:
                    body = kept_state(store, hour.begin_ns, state)
                except SchemaError as error:
                    log.warning("the frames are replayed without this state: %s", error)
                    continue
                if body is not None:
                    return hour.begin_ns, state.offset, body
    return None


def _stored_leaf(history: History, symbol: str, forecast: tuple[pa.Table, pa.Table], bundles: tuple[bytes, ...]) -> str:
    """The leaf of a forecast from its stored rows; empty if its feature row or its models are not stored."""
    bid, volatility = forecast
    event_ns, (place,) = int(column_ns(bid["ts_event"])[0]), places_of(bid)
    stored = read_table(history, SILVER_FEATURES, symbol, event_ns, event_ns + 1)
    row = stored.filter(pa.array([other == place for other in places_of(stored)], pa.bool_()))
    if len(row) != 1 or not bundles:
        return ""
    rows = ((BID_PREDICTION, bid), (VOLATILITY_PREDICTION, volatility), (SILVER_FEATURES, row))
    bid_hash, volatility_hash, feature_hash = (row_hashes(table, each)[0] for table, each in rows)
    return leaf_hash(leaf_of(bid_hash, volatility_hash, feature_hash, bundles)).hex()


def proof_of_forecast(history: History, store: ObjectStore, symbol: str, forecast: tuple[pa.Table, pa.Table]) -> Proof:
    """What connects a forecast with the roots of its day and of all hours of its frames."""
    made_ns, received_ns = (int(column_ns(forecast[0][name])[0]) for name in ("made_at", "ts_recv"))
    periods = _periods_around(history, symbol, forecast)
    return _proof(store, symbol, forecast, periods, hours_around(received_ns, made_ns)[0])


def _periods_around(history: History, symbol: str, forecast: tuple[pa.Table, pa.Table]) -> list[ClosedPeriod]:
    """The closed hours from that of the oldest frame of a forecast on, and those of its day and until it may be listed as late."""
    made_ns, received_ns = (int(column_ns(forecast[0][name])[0]) for name in ("made_at", "ts_recv"))
    day_begin_ns = day_ns(day_of(made_ns))
    begin_ns = min(hours_around(received_ns, made_ns)[0], day_begin_ns)
    return closed_periods(history, symbol, begin_ns, day_begin_ns + (24 + LATE_HOURS) * HOUR_NS)


def _proof(
    store: ObjectStore,
    symbol: str,
    forecast: tuple[pa.Table, pa.Table],
    periods: list[ClosedPeriod],
    begin_ns: int,
) -> Proof:
    """The proof with the hours that begin from a time on."""
    bid, volatility = forecast
    made_ns = int(column_ns(bid["made_at"])[0])
    hour_ns = made_ns // HOUR_NS * HOUR_NS
    day_begin_ns = day_ns(day_of(made_ns))
    hours = [each for each in periods if each.period == HOUR]
    around = [each for each in hours if begin_ns <= each.begin_ns <= hour_ns]
    older = [
        ProvenHour(each, _siblings(_leaves(each, kept_bytes(store, symbol, each.begin_ns)), 0))
        for each in around
        if each.begin_ns < hour_ns
    ]
    if len(older) == len(around):
        return Proof(hours=tuple(older))
    kept = kept_bytes(store, symbol, hour_ns)
    leaves = _leaves(around[-1], kept)
    proven = (*older, ProvenHour(around[-1], _siblings(leaves, 0)))
    record = record_of(row_hashes(BID_PREDICTION, bid)[0], row_hashes(VOLATILITY_PREDICTION, volatility)[0])
    same = np.flatnonzero((kept[:, HASH_BYTES:] == np.frombuffer(record, np.uint8)).all(axis=1))
    inclusion = None
    if len(same):
        index = int(same[0]) + 1
        inclusion = Inclusion(leaves[index].tobytes().hex(), index, _siblings(leaves, index))
    late_in = "" if inclusion else _late_in(hours, around[-1].name, str(places_of(bid)[0]))
    day = next((each for each in periods if each.period != HOUR and each.begin_ns == day_begin_ns), None)
    in_day = [each for each in hours if day_begin_ns <= each.begin_ns < day_begin_ns + NS_PER_DAY]
    return Proof(
        hours=proven,
        inclusion=inclusion,
        day=None if day is None else _day_inclusion(day, in_day, around[-1]),
        late_in=late_in,
    )


def _leaves(hour: ClosedPeriod, kept: np.ndarray) -> np.ndarray:
    """All leaf hashes of a closed hour, uint8 (leaves, 32), from the records of its forecasts."""
    return np.concatenate([as_array([leaf_hash(hour.header.encode())]), kept[:, :HASH_BYTES]])


def _siblings(leaves: list[bytes] | np.ndarray, index: int) -> tuple[str, ...]:
    return tuple(each.hex() for each in proof_of(leaves, index))


def _late_in(hours: list[ClosedPeriod], hour: str, place: str) -> str:
    """The hour in whose header a forecast is listed as late."""
    for each in hours:
        if any((late.hour, late.place) == (hour, place) for late in each.hour_header.late):
            return each.name
    return ""


def _day_inclusion(day: ClosedPeriod, hours: list[ClosedPeriod], hour: ClosedPeriod) -> DayInclusion | None:
    roots = {each.name: each.root for each in hours}
    named = day.day_header.hours
    if hour.name not in named or any(name not in roots for name in named):
        return None
    leaves = [leaf_hash(day.header.encode()), *(leaf_hash(bytes.fromhex(roots[name])) for name in named)]
    index = named.index(hour.name) + 1
    return DayInclusion(day, index, _siblings(leaves, index), _siblings(leaves, 0))


def blocks_between(  # noqa: PLR0913 - where they are, and which
    settings: Settings,
    store: ObjectStore,
    partition: int,
    times_ns: tuple[int, int],
    received_ns: int,
    *,
    first: int = 0,
) -> tuple[str, Callable[[], Iterator[Block]]]:
    """Where the messages around a receipt are, and a function that reads them from one time of receipt until before another.

    They begin at the offset `first`.

    Raises `InvalidInput` if neither the log nor an archive has those until `received_ns`, and `ServiceError`.
    """
    begin_ns, end_ns = times_ns
    days = days_between(day_of(begin_ns), day_of(end_ns))
    found = {day: read_manifest(store, day) for day in days}
    archives = [archive for archive in found.values() if archive is not None]
    unarchived = [day for day in days[: days.index(day_of(received_ns)) + 1] if found[day] is None]
    if archives and not any(_log_has(settings, day) for day in unarchived):
        return (
            f"the archive of {' and '.join(archive.day for archive in archives)}",
            lambda: (
                block.where(block.lines["received_ns"] < end_ns)
                for block in from_offset(blocks_in_log_order(store, archives, partition, begin_ns), first)
            ),
        )
    if not kept_since(settings.kafka, received_ns):
        day = day_of(received_ns)
        msg = (
            f"neither the log nor an archive has the frames of {day}, without which neither the forecast nor the order book of that "
            "time can be computed again"
        )
        raise InvalidInput(msg)
    return "the log", lambda: blocks_of_values(
        read_ahead(read_batches(settings.kafka, EVENTS_TOPIC, partition, times_ns, first)), partition
    )


def _log_has(settings: Settings, day: str) -> bool:
    """Whether the log has messages of a day."""
    begin_ns = day_ns(day)
    return any(
        each.begin < each.end for each in offset_ranges(settings.kafka, EVENTS_TOPIC, begin_ns, begin_ns + NS_PER_DAY)
    )
