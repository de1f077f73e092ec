"""The features of minute bars, computed by the same fold that the stream uses.

What does not belong here: formulas (`formulas`), or reading bars (`market.bars`, `stores.minute_bars`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.errors import InvalidInput
from btc_core.features.catalogue import ROW
from btc_core.features.fold import EMIT_BARS, fold
from btc_core.features.state import EVENT, EVENT_FIELDS, new_state, slot_of
from btc_core.market.events import BAR

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BARS = 50_000
"""The number of bars whose rows are in memory at once (50 MB)."""


def bar_features(bars: np.ndarray) -> np.ndarray:
    """Compute one row (dtype `catalogue.ROW`) for each bar (dtype `bars.BARS`) at its close.

    Raises `InvalidInput` unless the bars are sorted by time without duplicates.
    """
    return np.concatenate([np.empty(0, ROW), *bar_feature_chunks(bars)])


def bar_feature_chunks(bars: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of `bar_features` in chunks; all rows at once take five times the memory of a training set."""
    if len(bars) and (np.diff(bars["ts_ns"]) <= 0).any():
        msg = "minute bars must be sorted by time without duplicates"
        raise InvalidInput(msg)
    state = new_state()
    for begin in range(0, len(bars), CHUNK_BARS):
        chunk = bars[begin : begin + CHUNK_BARS]
        events = np.zeros(len(chunk), EVENT)
        events["ts_ns"], events["kind"] = chunk["ts_ns"], BAR
        for name in EVENT_FIELDS[BAR]:
            events[slot_of(BAR, name)] = chunk[name]
        rows = np.empty(len(chunk), ROW)
        fold(state, events, rows, EMIT_BARS)
        yield rows
