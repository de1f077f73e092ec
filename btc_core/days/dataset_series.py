"""The series `dataset`: the inputs and labels of each origin, which are the rows that training would fit now.

Bars are those of `minute_bars`, and on sealed days the inputs are those that the stream computed (`training_rows`).

What does not belong here: features and labels themselves (`btc_core.models.dataset`), and splits of a data set into parts,
which a client makes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.days.closing_rows import closing_rows
from btc_core.days.tick_labels import read_tick_labels
from btc_core.days.training_rows import seals_of_rows
from btc_core.days.user_features import user_columns
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS, MEMORY_DAYS
from btc_core.features.user.files import version_of
from btc_core.features.user.values import NO_COLUMNS, UserColumns, UserFeatures
from btc_core.market.bars import FILE_COLUMNS, bars_of_table
from btc_core.models.dataset import TickLabels, make_frame, step_min
from btc_core.models.recipe import RECIPE
from btc_core.models.targets import BID_TARGETS, LABEL_SPAN_NS, RV_TARGETS, TICK_RV_TARGETS
from btc_core.stores.minute_bars import count_stored
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import MINUTE_BARS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from btc_core.days.history import History
    from btc_core.features.user.files import FeatureFile
    from btc_core.models.dataset import Frame

WINDOW_DAYS = 60
"""Days whose rows are made at once. Each window also reads the days before it that its columns remember."""
INPUTS = (*MODEL_FEATURES, *COLUMNS)
LABELS = (*RV_TARGETS, *BID_TARGETS, *TICK_RV_TARGETS)
_TICK_NAMES = frozenset(TICK_RV_TARGETS)
SCHEMA = pa.schema(
    [
        ("origin", pa.timestamp("ns", "UTC")),
        ("symbol", pa.string()),
        *((name, pa.float64()) for name in MODEL_FEATURES),
        *((name, pa.float32()) for name in COLUMNS),
        *((name, pa.float64()) for name in LABELS),
    ]
)


def schema_with(files: Sequence[FeatureFile]) -> pa.Schema:
    """The columns with those of the user's own features, which stand before the labels."""
    own = [pa.field(file.name, pa.float64()) for file in files]
    fields = list(SCHEMA)
    return pa.schema([*fields[: -len(LABELS)], *own, *fields[-len(LABELS) :]])


@lru_cache(maxsize=4)
def _compiled(files: tuple[FeatureFile, ...]) -> UserFeatures:
    """Compiling a feature takes a second, so the newest are kept."""
    return UserFeatures(files)


def rows_of(  # noqa: PLR0913, PLR0917 - the reader of a series, and the user's features
    history: History,
    symbol: str,
    begin_ns: int,
    end_ns: int,
    names: Sequence[str],
    files: Sequence[FeatureFile] = (),
) -> Iterator[pa.Table]:
    """The rows with an origin from `begin_ns` until before `end_ns` whose labels of bars are complete, in the order of time.

    The labels of ticks are null where no ticks are known. `files` are the user's features, of which those in `names` are read.
    """
    features = _compiled(tuple(file for file in files if file.name in names))
    every_min = step_min(count_stored(history.db, symbol))
    recipe = msgspec.structs.replace(RECIPE.dataset, origin_step_min=every_min, every_minute_up_to_bars=0, min_bars=1)
    columns = tuple(field.name for field in arrow_schema(MINUTE_BARS) if field.name in {"ts", *FILE_COLUMNS, "trades"})
    for first_ns in range(begin_ns, end_ns, WINDOW_DAYS * NS_PER_DAY):
        last_ns = min(first_ns + WINDOW_DAYS * NS_PER_DAY, end_ns)
        warm_ns = (first_ns // NS_PER_DAY - MEMORY_DAYS - 1) * NS_PER_DAY
        tables = list(history.chunks(MINUTE_BARS, symbol, warm_ns, last_ns + LABEL_SPAN_NS, columns))
        if sum(map(len, tables)):
            bars = bars_of_table(pa.concat_tables(tables))
            place = (history.db, history.store(), symbol, first_ns)
            stream = closing_rows(*place, every_min, last_ns)
            ticks = TickLabels.none() if _TICK_NAMES.isdisjoint(names) else read_tick_labels(*place, last_ns)
            frame = make_frame(bars, recipe, stream).between(first_ns - 1, last_ns - 1)
            own = user_columns(history, symbol, bars, frame.origin_ns, features) if features.names else NO_COLUMNS
            yield _table(frame, ticks, own, symbol, names)


def metadata(
    history: History, symbol: str, begin_ns: int, end_ns: int, files: Sequence[FeatureFile] = ()
) -> dict[str, str]:
    """What the rows rest on: the seals of their days as `day@seal`, the versions of the features, and the embargo."""
    return {
        "seals": ",".join(seals_of_rows(history.db, history.store(), symbol, begin_ns, end_ns)),
        "feature_version": FEATURE_VERSION,
        "user_version": version_of(files),
        "inputs": ",".join((*INPUTS, *(file.name for file in files))),
        "labels": ",".join(LABELS),
        "embargo_min": str(RECIPE.dataset.embargo_ns // NS_PER_MIN),
    }


def _table(frame: Frame, ticks: TickLabels, own: UserColumns, symbol: str, names: Sequence[str]) -> pa.Table:
    count = len(frame.origin_ns)
    values: dict[str, np.ndarray] = {
        **dict(zip(MODEL_FEATURES, frame.matrix.T, strict=True)),
        **dict(zip(COLUMNS, frame.columns.T, strict=True)),
        **dict(zip(own.names, own.at(frame.origin_ns).T, strict=True)),
        **dict(zip(RV_TARGETS, frame.realized.T, strict=True)),
        **dict(zip(BID_TARGETS, frame.bid_bps.T, strict=True)),
        **dict(zip(TICK_RV_TARGETS, ticks.at(frame.origin_ns).T, strict=True)),
    }
    columns = []
    for name in names:
        match name:
            case "origin":
                columns.append(pa.array(frame.origin_ns, pa.timestamp("ns")))
            case "symbol":
                columns.append(pa.array([symbol] * count, pa.string()))
            case _:
                columns.append(pa.array(np.ascontiguousarray(values[name]), from_pandas=True))
    return pa.table(columns, names=list(names))
