"""The forecasts of a day computed again, from the feature rows that a replay of its frames gives, in the order of the log.

The rows that the stream computed made the forecasts, and a seal may have replaced stored ones since. The minutes continue
from row to row as in the stream, and begin again from the stored ones where the worker read some again.
What does not belong here: one forecast with all its steps (`forecast_check`), and the roots of a day (`forecast_days`).
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_MIN, column_ns
from btc_core.days.forecast_check import Step
from btc_core.days.forecast_differences import NOT_COMPUTED_AGAIN, differences
from btc_core.days.forecast_hours import HOUR_NS, Place, read_forecasts, read_places
from btc_core.days.forecast_inputs import AHEAD_NS, bars_of, read_minutes, read_states
from btc_core.days.forecast_leaves import UNKNOWN
from btc_core.days.user_model_again import FLAG, stored_sigma
from btc_core.errors import BtcError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.features.live_minutes import LiveMinutes
from btc_core.features.minute_columns import COLUMNS
from btc_core.league.process import EntryFailed
from btc_core.market.events import TRADE
from btc_core.models.row_forecasts import forecasts_of
from btc_core.names import HORIZONS_MIN, STORED_HORIZONS_MIN
from btc_core.registry.served_models import models_of
from btc_core.tables import rows as table_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from btc_core.days.forecast_hours import Forecasts
    from btc_core.days.history import History
    from btc_core.days.user_model_again import UserModelRun
    from btc_core.features.engine import FoldedEvent, Rows
    from btc_core.models.bundle import VolatilityModel
    from btc_core.models.row_forecasts import Models, TrackedState
    from btc_core.stores.s3 import ObjectStore

    Longs = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]
    Found = tuple[Longs, Forecasts]
    """The indices of rows, and their stored forecasts in the same order."""

LEAD_NS = 5 * NS_PER_MIN
"""How long before a day its replay gives rows: the minute columns of its first minute depend on the trades before midnight."""
SHOWN = 5
"""Places that a text lists."""
LEFT_OUT = NOT_COMPUTED_AGAIN | {"made_at"}
"""Forecasts of many times are computed at once, so they do not have the time at which each was made."""
_HOURS_HELD = 3
"""Hours whose stored forecasts are held: the present one, the one before, and one whose forecasts came late."""
_NO_TIME = -1


class StoredForecasts:
    """The stored forecasts of the closed hours of a day, by the place of their row in the log; hours are read when needed."""

    def __init__(self, history: History, symbol: str, hours_ns: list[int]) -> None:
        def read(hour_ns: int) -> tuple[Forecasts, dict[Place, int]]:
            found = read_forecasts(history, symbol, hour_ns)
            return found, {place: at for at, place in enumerate(found.places)}

        self._read = lru_cache(_HOURS_HELD)(read)
        self._waiting = {place: hour_ns for hour_ns in hours_ns for place in read_places(history, symbol, hour_ns)}
        self.wanted = len(self._waiting)

    @property
    def compared(self) -> int:
        """Forecasts whose row a replay has given."""
        return self.wanted - len(self._waiting)

    def take(self, ids: list[FoldedEvent]) -> Iterator[Found]:
        """The forecasts of these rows, for each hour in which some were made. A forecast is given once."""
        of_hour: dict[int, list[int]] = {}
        places = [Place(row.partition, row.offset, row.item) for row in ids]
        for at, place in enumerate(places):
            hour_ns = self._waiting.pop(place, None)
            if hour_ns is not None:
                of_hour.setdefault(hour_ns, []).append(at)
        for hour_ns, chosen in of_hour.items():
            stored, index = self._read(hour_ns)
            kept = [at for at in chosen if places[at] in index]  # without the row of its volatility a forecast is none
            yield np.array(kept, np.int64), stored.take([index[places[at]] for at in kept])


class Minutes:
    """The minute columns of the rows of a day, as the forecast worker had them."""

    def __init__(self, rows: pa.Table) -> None:
        """`rows` are those of `gold_forecast_minutes` on which the forecasts of the day depend."""
        self._rows = rows
        self._taken_ns = column_ns(rows["taken_at"])
        minutes_ns = column_ns(rows["ts"])
        order = np.lexsort((minutes_ns, self._taken_ns))
        newest = np.maximum.accumulate(minutes_ns[order]) if len(order) else minutes_ns
        again = np.flatnonzero(minutes_ns[order][1:] <= newest[:-1]) + 1
        self._begins_ns = np.unique(self._taken_ns[order][again])
        """When the worker read or closed minutes again that it knew, as after a restart."""
        self._live: LiveMinutes | None = None
        self._begun = _NO_TIME
        self._clocks_ns = np.empty(0, np.int64)
        self._values: Any = None
        self._is_trade = np.empty(0, bool)
        """The rows of the last two minutes, from which columns begin again."""

    def columns(self, ids: list[FoldedEvent], values: Any, made_ns: Longs) -> Any:
        """The columns of rows, float32 (n, COLUMNS); `made_ns` (n,) is when the forecast of each was made, −1 without one."""
        known = len(self._clocks_ns)
        clocks_ns = np.array([row.ts_event_ns for row in ids])
        clocks_ns = np.maximum.accumulate(np.concatenate([self._clocks_ns, clocks_ns]))
        values = np.ascontiguousarray(values if self._values is None else np.concatenate([self._values, values]))
        is_trade = np.concatenate([self._is_trade, [row.kind == TRADE for row in ids]]).astype(bool)
        begun = np.searchsorted(self._begins_ns, made_ns, side="right")
        begun[made_ns == _NO_TIME] = _NO_TIME
        begun = np.maximum.accumulate(np.concatenate([[self._begun], begun]))[1:]
        cuts = [0, *(np.flatnonzero(np.diff(begun)) + 1).tolist(), len(begun)]
        parts: list[Any] = []
        for first, end in pairwise(cuts):
            if begun[first] == _NO_TIME:  # nothing was forecast yet
                parts.append(np.full((end - first, len(COLUMNS)), np.nan, np.float32))
                continue
            begin, rows_before = known + first, 0
            if self._live is None or begun[first] != self._begun:
                clock_ns = clocks_ns[begin] // NS_PER_MIN * NS_PER_MIN - NS_PER_MIN
                rows_before = begin - int(np.searchsorted(clocks_ns[:begin], clock_ns))
                start_ns = int(clocks_ns[begin - rows_before])
                self._live = LiveMinutes(bars_of(self._taken_until(int(made_ns[first]))), start_ns)
                self._begun = int(begun[first])
            span = slice(begin - rows_before, known + end)
            found = self._live.columns(clocks_ns[span].tolist(), values[span], is_trade[span].tolist())
            self._live.take_closed()
            parts.append(found[rows_before:])
        self._keep(clocks_ns, values, is_trade)
        return np.concatenate(parts)

    def _taken_until(self, made_ns: int) -> pa.Table:
        return self._rows.filter(pa.array(self._taken_ns <= made_ns))

    def _keep(self, clocks_ns: Longs, values: Any, is_trade: Bools) -> None:
        first = int(np.searchsorted(clocks_ns, clocks_ns[-1] // NS_PER_MIN * NS_PER_MIN - 2 * NS_PER_MIN))
        self._clocks_ns, self._is_trade = clocks_ns[first:], is_trade[first:]
        self._values = values[first:].copy()


class DayForecasts:
    """Computes the forecasts of the rows of a replay again, and compares them with the stored ones."""

    def __init__(
        self, history: History, store: ObjectStore, symbol: str, hours_ns: list[int], run: UserModelRun | None = None
    ) -> None:
        """`hours_ns` are the begins of the closed hours of the day, ascending and at least one.

        `run` runs users' models; without it, the σ of such a model is taken as it is stored.
        """
        self._run = run
        self.of_user = 0
        """Forecasts whose σ a user's model made."""
        begin_ns, end_ns = hours_ns[0] - HOUR_NS, hours_ns[-1] + HOUR_NS
        self._store = store
        self._states = read_states(history, symbol, begin_ns, end_ns + AHEAD_NS)
        self._minutes = Minutes(read_minutes(history, symbol, end_ns + AHEAD_NS, end_ns))
        self._models: dict[tuple[tuple[bytes, ...], tuple[str, ...]], Models | str] = {}
        """By the hashes of the bundles and the versions that forecasts name: the models, or why they cannot be used."""
        self.equal = self.nearly = self.different = 0
        """Forecasts that are equal to the last bit, that differ as on another processor, and that differ by more."""
        self._largest, self._column = 0.0, ""
        self._places: list[str] = []
        self._unknown: Counter[str] = Counter()
        """Forecasts that could not be computed although everything should be there, by the reason."""
        self._of_others: Counter[str] = Counter()
        """Forecasts that this program cannot compute, by the reason."""

    def bundles_of(self, made: Forecasts) -> list[tuple[bytes, ...]]:
        """The hashes of the bundles that made forecasts, as they are in their leaves."""
        places = self._states.places(column_ns(made.bids["made_at"])).tolist()
        return [self._states.bundles_at(place) or (UNKNOWN, UNKNOWN) for place in places]

    def take(self, batch: Rows, found: list[Found]) -> None:
        """Add the rows of one batch, in the order of the log; `found` are the indices of rows and their stored forecasts."""
        values = batch.matrix()
        made_ns = np.full(len(batch.ids), _NO_TIME)
        for chosen, stored in found:
            made_ns[chosen] = column_ns(stored.bids["made_at"])
        columns = self._minutes.columns(batch.ids, values, made_ns)
        for chosen, stored in found:
            for place, part in self._by_state(made_ns[chosen], stored):
                rows = chosen[part]
                self._compare([batch.ids[at] for at in rows], values[rows], columns[rows], stored.take(part), place)

    def _by_state(self, made_ns: Longs, stored: Forecasts) -> Iterator[tuple[int, Longs]]:
        """The place of each state, and which of the forecasts that this program can compute read it."""
        is_ours = np.asarray(pc.equal(stored.bids["feature_version"], FEATURE_VERSION))
        has_horizons = _has_present_horizons(stored.volatilities)
        self._of_others["were made from another feature set"] += int((~is_ours).sum())
        self._of_others["have other horizons"] += int((is_ours & ~has_horizons).sum())
        places = self._states.places(made_ns)
        usable = is_ours & has_horizons
        for place in np.unique(places[usable]).tolist():
            yield place, np.flatnonzero(usable & (places == place))

    def _compare(self, ids: list[FoldedEvent], values: Any, columns: Any, stored: Forecasts, place: int) -> None:
        versions = tuple(each["model_version"][0].as_py() for each in (stored.bids, stored.volatilities))
        models: Models | str = "the models and the state in force are not stored"
        if place >= 0:
            models = self._models_of(self._states.bundles_at(place), versions)
        if isinstance(models, str):
            self._unknown[models] += len(ids)
            return
        state: TrackedState = self._states.state(place)
        try:
            sigma = self._user_sigma(ids, values, columns, stored, models[1])
        except EntryFailed as error:
            self._unknown[f"the user's model fails: {error}"] += len(ids)
            return
        made = forecasts_of(ids, FEATURE_VERSION, values, columns, models, state, 0, sigma)
        if len(made) < len(ids):
            self._unknown["their feature row has no bid"] += len(ids) - len(made)
            stored = stored.take(np.array(sorted(made), np.int64))
        if not made:
            return
        again = [made[at] for at in sorted(made)]
        tables = (
            (stored.bids, table_rows.gold_bid_price_prediction(again)),
            (stored.volatilities, table_rows.gold_volatility_prediction(again)),
        )
        found = [differences(*pair, LEFT_OUT) for pair in tables]
        wrong = found[0].rows | found[1].rows
        worst = max(found, key=lambda each: each.largest)
        if worst.largest > self._largest:
            self._largest, self._column = worst.largest, worst.column
        self.different += int(wrong.sum())
        if worst.largest:
            self.nearly += len(again) - int(wrong.sum())
        else:
            self.equal += len(again)
        for at in np.flatnonzero(wrong)[: SHOWN - len(self._places)].tolist():
            self._places.append(str(Place(again[at].partition, again[at].offset, again[at].item)))

    def _user_sigma(
        self, ids: list[FoldedEvent], values: Any, columns: Any, stored: Forecasts, model: VolatilityModel
    ) -> Any:
        """σ of the rows that a user's model forecast, (n, horizons), stored or computed again."""
        sigma = stored_sigma(stored.volatilities, model)
        own = int(np.isfinite(sigma).all(axis=1).sum())
        self.of_user += own
        if not own or self._run is None:
            return sigma
        return self._run.sigma_bps(model, values, columns, np.array([row.ts_event_ns for row in ids]), sigma)

    def _models_of(self, digests: tuple[bytes, ...], versions: tuple[str, ...]) -> Models | str:
        if not digests:
            return "the state in force names no models"
        if (digests, versions) not in self._models:
            self._models[digests, versions] = self._loaded(digests, versions)
        return self._models[digests, versions]

    def _loaded(self, digests: tuple[bytes, ...], versions: tuple[str, ...]) -> Models | str:
        try:
            return models_of(self._store, digests, versions)
        except BtcError as error:
            return f"a model cannot be used: {error}"

    def step(self) -> Step:
        """What was computed and what it gave, in words."""
        computed = self.equal + self.nearly + self.different
        others = "".join(f" {count} {reason}; this program cannot compute them." for reason, count in self._reasons())
        if self.different:
            text = (
                f"{self.different} of {computed} forecasts that were computed again differ from the stored ones, {self._column} by "
                f"up to {self._largest:.3g} of itself ({', '.join(self._places)}). Either numbers were changed, or the worker was "
                "killed in these seconds before it had stored what it read."
            )
            return Step("forecasts", False, text + others)
        if self._unknown:
            reasons = "; ".join(f"{count} because {reason}" for reason, count in self._unknown.items())
            return Step("forecasts", False, f"Some forecasts cannot be computed again: {reasons}.{others}")
        text = f"{computed} forecasts, computed again from these rows by the models that made them, are equal to the last bit."
        if self.nearly:
            text = (
                f"{computed} forecasts were computed again from these rows by the models that made them. They are equal, or differ "
                f"by {self._largest:.1g} of themselves at most, as on another processor ({self._column})."
            )
        if self.of_user:
            of_user = f" The σ of {self.of_user} comes from a user's model, "
            text += of_user + (
                f"whose code was not run: it is taken as it is stored ({FLAG} runs it)."
                if self._run is None
                else "which was run again in a process with limits."
            )
        return Step("forecasts", True, text + others, is_open=not computed)

    def _reasons(self) -> list[tuple[str, int]]:
        return [(reason, count) for reason, count in self._of_others.items() if count]


def _has_present_horizons(volatilities: pa.Table) -> Bools:
    """Which forecasts have the horizons of this process: numbers for all of them, or none at all as while features warm up."""

    def valid(horizons: list[int]) -> Any:
        names = [f"sigma_{h}m_bps" for h in horizons]
        return np.array([np.asarray(pc.is_valid(volatilities[name])) for name in names]).reshape(
            len(names), len(volatilities)
        )

    present, former = valid(list(HORIZONS_MIN)), valid([h for h in STORED_HORIZONS_MIN if h not in HORIZONS_MIN])
    found: Bools = present.all(axis=0) | ~(present.any(axis=0) | former.any(axis=0))
    return found
