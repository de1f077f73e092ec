"""What the models of a market are trained on: its minute bars, what its stream computed at their closes, and the seals.

Training, `btc evaluate --stored` and the series `dataset` read it here, so that a data set is what training sees.
What does not belong here: features and labels (`btc_core.models.dataset`), and which row of a minute counts
(`closing_rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.days.closing_rows import ALWAYS_NS, closing_rows, copied_days, days_in_database
from btc_core.days.lake import read_manifest
from btc_core.days.seals import days_of_bars, seal_of
from btc_core.days.tick_labels import read_tick_labels
from btc_core.models.dataset import StreamRows, TickLabels, make_frame, step_min
from btc_core.names import MINUTES, TICKS, VolatilityTarget
from btc_core.stores.minute_bars import read_stored
from btc_core.tables.catalogue import SILVER_FEATURES

if TYPE_CHECKING:
    from btc_core.models.dataset import Frame
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore


class TrainingRows(msgspec.Struct, frozen=True):
    """The history of a market, for `make_frame`."""

    bars: Any
    """Minute bars, dtype `bars.BARS`, sorted."""
    stream: StreamRows
    """The rows of the stream at the closes of sealed days that a frame of these bars has as origins."""
    ticks: TickLabels | None = None
    """The variances of ticks, if the volatility of ticks is the target; None if it is that of minutes."""

    def frame(self) -> Frame:
        """The rows that models are fitted on; raises `NotReady` when there are too few."""
        return make_frame(self.bars, stream=self.stream, ticks=self.ticks)


def read_training_rows(
    db: QuestDB, store: ObjectStore | None, symbol: str, days: float, target: VolatilityTarget = MINUTES
) -> TrainingRows:
    """The newest `days` of a market. Without a `store`, days that have left QuestDB have the features of bars alone."""
    bars = read_stored(db, symbol, days)
    since_ns = int(bars["ts_ns"][0]) if len(bars) else ALWAYS_NS
    ticks = read_tick_labels(db, store, symbol, since_ns) if target == TICKS else None
    if not len(bars):
        return TrainingRows(bars, StreamRows.none(), ticks)
    stream = closing_rows(db, store, symbol, since_ns, step_min(len(bars), ticks=ticks))
    return TrainingRows(bars, stream, ticks)


def seals_of_rows(
    db: QuestDB, store: ObjectStore | None, symbol: str, since_ns: int, until_ns: int = ALWAYS_NS
) -> tuple[str, ...]:
    """`day@seal` of each sealed day whose bars or feature rows are among the training rows of a time.

    The seal of a day whose quotes and trades have left QuestDB is the one that its copy names.
    """
    with_bars = days_of_bars(db, symbol, since_ns, until_ns)
    in_database = days_in_database(db, symbol, since_ns, until_ns)
    in_database |= days_of_bars(db, symbol, since_ns, until_ns, "sealed")
    found = {day: seal.id for day in in_database if any((seal := seal_of(db, day)).rows.values())}
    copied = copied_days(store, since_ns, until_ns, set(found)) if store is not None else []
    for day in copied:
        assert store is not None  # noqa: S101 - there are no copies without a store, and mypy does not see it
        manifest = read_manifest(store, SILVER_FEATURES.name, day)
        if day in with_bars and manifest is not None and manifest.seal:
            found[day] = manifest.seal
    return tuple(f"{day}@{found[day]}" for day in sorted(found))
