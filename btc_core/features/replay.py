"""Batch is replay: recorded frames or minute bars through the same fold that the stream uses.

What does not belong here: formulas (`fold_rows`), or reading tables (`questdb_client`).
"""

from __future__ import annotations

import gzip
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import to_ns
from btc_core.errors import BadFrame, InvalidInput
from btc_core.exchanges.decoding import DECODERS, events_of
from btc_core.features.catalogue import FEATURE_NAMES, ROW
from btc_core.features.engine import FeatureEngine, Rows, run
from btc_core.features.fold import EMIT_BARS, fold
from btc_core.features.state import EVENT, EVENT_FIELDS, new_state, slot_of
from btc_core.market.events import BAR, EVENT_CHANNELS
from btc_core.market.frames import KRAKEN, OhlcFrame, Reply
from btc_core.market.messages import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK_BARS = 50_000
"""Bars whose rows are in memory at once, 50 MB."""
NS_DIGITS = 19
"""A receive time in ns has no more digits until the year 2262."""


class BadLine(msgspec.Struct, frozen=True):
    """A line of a recorded file that could not be used."""

    line: int
    reason: str
    message: str


class Replay(msgspec.Struct, frozen=True):
    """What a recorded file gave."""

    rows: list[Rows]
    frames: int
    bad: list[BadLine]


def bar_features(bars: np.ndarray) -> np.ndarray:
    """Feature rows of sorted minute bars (dtype `bars.BARS`): one record of `features.ROW` per bar, at its close."""
    return np.concatenate([np.empty(0, ROW), *bar_feature_blocks(bars)])


def bar_feature_blocks(bars: np.ndarray) -> Iterator[np.ndarray]:
    """The same rows in blocks: those of all minutes take five times what models are trained on."""
    if len(bars) and (np.diff(bars["ts_ns"]) <= 0).any():
        msg = "minute bars must be sorted by time without repeats"
        raise InvalidInput(msg)
    state = new_state()
    for begin in range(0, len(bars), BLOCK_BARS):
        block = bars[begin : begin + BLOCK_BARS]
        events = np.zeros(len(block), EVENT)
        events["ts_ns"], events["kind"] = block["ts_ns"], BAR
        for name in EVENT_FIELDS[BAR]:
            events[slot_of(BAR, name)] = block[name]
        rows = np.empty(len(block), ROW)
        fold(state, events, rows, EMIT_BARS)
        yield rows


def envelope_line(envelope: Envelope) -> bytes:
    """One line of a recorded file: `<receive time in ns> <frame>`."""
    return b"%d %b\n" % (envelope.ts_recv_ns, envelope.raw)


def read_lines(path: Path, exchange: str = KRAKEN) -> Iterator[tuple[int, Envelope | BadLine]]:
    """Each non-empty line of a recorded file of an exchange as an envelope, with its number from 1.

    A line is a raw frame, or a receive time in ns, a space and a raw frame. Without a receive time it is 0, and
    an event without an exchange time then is refused. Files may be gzipped; raises `InvalidInput` for a broken one.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.strip()
                if text:
                    yield number, _parse_line(number, text, exchange)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"{path} is not a whole gzip file: {error}"
        raise InvalidInput(msg) from error


def _parse_line(number: int, text: bytes, exchange: str) -> Envelope | BadLine:
    head, _, rest = text.partition(b" ")
    stamped = head.isdigit() and len(head) <= NS_DIGITS and rest.startswith(b"{")
    raw = rest if stamped else text
    try:
        frame = DECODERS[exchange](raw)
    except BadFrame as error:
        return BadLine(number, error.reason, str(error))
    channel = "" if isinstance(frame, Reply) else str(frame.__struct_config__.tag)
    recv_ns = int(head) if stamped else _own_time(frame)
    return Envelope(recv_ns, 0, number, channel, "file", raw, exchange=exchange)


def _own_time(frame: object) -> int:
    """The latest exchange time in a frame recorded without a receive time; 0 when it has none."""
    data = getattr(frame, "data", None)
    times = [getattr(entry, "timestamp", None) for entry in data] if isinstance(data, list) else []
    if isinstance(frame, OhlcFrame):  # recorded when it was closed
        times += [candle.interval_begin + timedelta(minutes=candle.interval) for candle in frame.data]
    return max((to_ns(moment) for moment in times if moment is not None), default=0)


def replay_file(path: Path, exchange: str = KRAKEN) -> Replay:
    """Run a recorded file of an exchange through the engine; bad lines and bad entries are reported with their line."""
    bad: list[BadLine] = []
    counted = 0

    def messages() -> Iterator[tuple[Envelope, int, int]]:
        nonlocal counted
        for number, line in read_lines(path, exchange):
            counted += 1
            if isinstance(line, BadLine):
                bad.append(line)
                continue
            if line.channel in EVENT_CHANNELS:
                bad.extend(_bad_entries(number, line))
                yield line, 0, number

    if not path.is_file():
        msg = f"{path} is not a file; give a recording with one frame a line (.jsonl or .jsonl.gz)"
        raise InvalidInput(msg)
    if exchange not in DECODERS:
        msg = f"there is no adapter for {exchange!r}; there are {', '.join(DECODERS)}"
        raise InvalidInput(msg)
    rows = run(FeatureEngine(), messages())
    return Replay(rows, counted, bad)


def _bad_entries(number: int, envelope: Envelope) -> list[BadLine]:
    return [BadLine(number, event.reason, str(event)) for event in events_of(envelope) if isinstance(event, BadFrame)]


def rows_table(batches: list[Rows]) -> pa.Table:
    """Feature rows as an Arrow table: identity columns, then every feature."""
    columns: dict[str, pa.Array] = {}
    ids = [(batch.symbol, row) for batch in batches for row in batch.ids]
    stamps = pa.timestamp("ns", tz="UTC")
    columns["ts_event"] = pa.array([row.ts_event_ns for _, row in ids], stamps)
    columns["ts_recv"] = pa.array([row.ts_recv_ns for _, row in ids], stamps)
    columns["symbol"] = pa.array([symbol for symbol, _ in ids], pa.string())
    for name in ("kind", "trade_id", "partition", "offset", "item"):
        columns[name] = pa.array([getattr(row, name) for _, row in ids], pa.int64())
    for name in ("trade_price", "trade_qty", "trade_side"):
        columns[name] = pa.array([getattr(row, name) for _, row in ids], pa.float64())
    values = np.concatenate([batch.values for batch in batches]) if batches else np.empty(0, ROW)
    for name in FEATURE_NAMES:
        columns[name] = pa.array(values[name])
    return pa.table(columns)
