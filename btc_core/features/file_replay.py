"""The replay of a file of recorded frames: the feature rows that they give, and the rows as an Arrow table.

The rows come from the `FeatureEngine` that the stream uses, so they equal the streamed rows to the last bit.
What does not belong here: the lines of the file (`exchanges.recorded_lines`), the replay of a stored or archived day
(`days.day_replay`, `days.archive_replay`), or features of minute bars (`bar_features`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.errors import BadFrame, InvalidInput
from btc_core.exchanges.decoding import DECODERS, events_of
from btc_core.exchanges.recorded_lines import BadLine, read_lines
from btc_core.features.catalogue import FEATURE_NAMES, ROW
from btc_core.features.engine import FeatureEngine, Rows, run
from btc_core.market.events import EVENT_CHANNELS
from btc_core.market.frames import KRAKEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.features.user.values import UserFeatures
    from btc_core.market.messages import Envelope

REPLAYED_CHANNELS = EVENT_CHANNELS | {"absent", "book"}
"""The channels of messages that the engine uses."""


class FileReplay(msgspec.Struct, frozen=True):
    """The feature rows of a recorded file, its number of lines, and the refused ones."""

    rows: list[Rows]
    frames: int
    bad: list[BadLine]


def replay_file(
    path: Path, exchange: str = KRAKEN, leader: str = "", features: UserFeatures | None = None
) -> FileReplay:
    """Compute the feature rows of a recorded file; lines and entries that were refused are returned with their number.

    `leader` is the market that the others follow, as `BTC_LEADER`; its messages must be in the file. `features` are the user's.

    Raises `InvalidInput` if the file does not exist or is damaged, or if the exchange is unknown.
    """
    bad: list[BadLine] = []
    lines = 0

    def messages() -> Iterator[tuple[Envelope, int, int]]:
        nonlocal lines
        for number, line in read_lines(path, exchange):
            lines += 1
            if isinstance(line, BadLine):
                bad.append(line)
                continue
            if line.envelope.channel in REPLAYED_CHANNELS:
                bad.extend(_bad_entries(number, line.envelope))
                yield line.envelope, line.partition, line.offset

    if not path.is_file():
        msg = f"{path} is not a file; name a recording with one frame per line (.jsonl or .jsonl.gz)"
        raise InvalidInput(msg)
    if exchange not in DECODERS:
        msg = f"the exchange {exchange!r} is unknown; choose one of {', '.join(DECODERS)}"
        raise InvalidInput(msg)
    rows = run(FeatureEngine(leader, features), messages())
    return FileReplay(rows, lines, bad)


def _bad_entries(number: int, envelope: Envelope) -> list[BadLine]:
    try:
        events = list(events_of(envelope))
    except BadFrame as error:
        return [BadLine(number, error.reason, str(error))]
    return [BadLine(number, event.reason, str(event)) for event in events if isinstance(event, BadFrame)]


def rows_table(batches: list[Rows], features: UserFeatures | None = None) -> pa.Table:
    """Convert feature rows to an Arrow table: the columns that identify the event, then every feature, then the user's.

    The user's features are those at the newest closed minute before each row.
    """
    columns: dict[str, pa.Array] = {}
    ids = [(batch.symbol, row) for batch in batches for row in batch.ids]
    timestamp = pa.timestamp("ns", tz="UTC")
    columns["ts_event"] = pa.array([row.ts_event_ns for _, row in ids], timestamp)
    columns["ts_recv"] = pa.array([row.ts_recv_ns for _, row in ids], timestamp)
    columns["symbol"] = pa.array([symbol for symbol, _ in ids], pa.string())
    for name in ("kind", "trade_id", "partition", "offset", "item"):
        columns[name] = pa.array([getattr(row, name) for _, row in ids], pa.int64())
    for name in ("trade_price", "trade_qty", "trade_side"):
        columns[name] = pa.array([getattr(row, name) for _, row in ids], pa.float64())
    values = np.concatenate([batch.values for batch in batches]) if batches else np.empty(0, ROW)
    for name in FEATURE_NAMES:
        columns[name] = pa.array(values[name])
    if features is not None:
        of_user = [batch.user.values for batch in batches if batch.user is not None]
        matrix = np.concatenate([np.empty((0, len(features.names))), *of_user])
        columns |= {name: pa.array(matrix[:, place]) for place, name in enumerate(features.names)}
    return pa.table(columns)
