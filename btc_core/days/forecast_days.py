"""Verifies the forecasts of a whole day: the chain of its roots, the stored forecasts, and the feature rows behind them.

What does not belong here: one forecast with all its steps (`forecast_check`), making roots (`forecast_roots`), and computing
the forecasts of a day again (`day_forecasts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from btc_core.clock import NS_PER_DAY
from btc_core.days.day_forecasts import SHOWN, DayForecasts, StoredForecasts
from btc_core.days.forecast_check import Step
from btc_core.days.forecast_hours import HOUR_NS, KeptLeaf, kept_leaves, leaves_of, read_hour
from btc_core.days.forecast_leaves import leaf_of, row_hashes
from btc_core.days.forecast_roots import HOUR, LATE_HOURS, ClosedPeriod, closed_periods
from btc_core.days.merkle import leaf_hash, root_of
from btc_core.errors import StoreError
from btc_core.features.engine import columns_of
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.days.forecast_hours import Forecasts
    from btc_core.days.history import History
    from btc_core.days.user_model_again import UserModelRun
    from btc_core.features.engine import Rows
    from btc_core.stores.s3 import ObjectStore


class DayCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The forecasts of a market on a day, compared with its roots."""

    hours: int
    """Closed hours."""
    forecasts: int
    """Forecasts in their roots."""
    stored: int
    """Forecasts that are stored and are in their root as they are."""
    changed: int
    """Stored forecasts that are neither in their root nor listed as late."""
    late: int
    """Stored forecasts that are listed as late."""
    problems: tuple[str, ...]
    """What does not fit, in words; empty if everything does."""
    root: str = ""
    """The root of the day; empty while it is open."""

    @property
    def missing(self) -> int:
        """Forecasts in the roots that are no longer stored as they were."""
        return self.forecasts - self.stored


def check_day(history: History, store: ObjectStore, symbol: str, day: str) -> DayCheck:
    """Compare the stored forecasts of a day with its roots, and the roots with each other. Raises `ServiceError`."""
    begin_ns = day_ns(day)
    periods = closed_periods(history, symbol, begin_ns - NS_PER_DAY, begin_ns + NS_PER_DAY + LATE_HOURS * HOUR_NS)
    all_hours = [each for each in periods if each.period == HOUR]
    hours = [each for each in all_hours if begin_ns <= each.begin_ns < begin_ns + NS_PER_DAY]
    listed = {(late.hour, late.place) for each in all_hours for late in each.hour_header.late}
    before = next((each.root for each in reversed(all_hours) if each.begin_ns < begin_ns), None)
    problems: list[str] = []
    stored = changed = late = 0
    for hour in hours:
        try:
            leaves = kept_leaves(store, symbol, hour.begin_ns)
        except StoreError as error:
            problems.append(str(error))
            leaves = []
        problems += _broken(hour, leaves, before)
        before = hour.root
        records = {each.record for each in leaves}
        rows = read_hour(history, symbol, hour.begin_ns)
        strange = [
            place for place, leaf in zip(rows.places, leaves_of(rows), strict=True) if leaf.record not in records
        ]
        too_late = [place for place in strange if (hour.name, place) in listed]
        stored += len(rows.places) - len(strange)
        late += len(too_late)
        changed += len(strange) - len(too_late)
        if len(strange) > len(too_late):
            shown = ", ".join(sorted(set(strange) - set(too_late))[:SHOWN])
            problems.append(f"{len(strange) - len(too_late)} forecasts of {hour.name} are not in its root ({shown})")
    forecasts = sum(hour.leaves - 1 for hour in hours)
    if stored < forecasts:
        problems.append(f"{forecasts - stored} forecasts that are in the roots are not stored as they were")
    days = [each for each in periods if each.period != HOUR and each.begin_ns == begin_ns]
    problems += [problem for each in days for problem in _broken_day(each, hours)]
    return DayCheck(
        hours=len(hours),
        forecasts=forecasts,
        stored=stored,
        changed=changed,
        late=late,
        problems=tuple(problems),
        root=days[0].root if days else "",
    )


def check_rows(  # noqa: PLR0913, PLR0917 - where the day is, its frames, and what may be run
    history: History,
    store: ObjectStore,
    symbol: str,
    day: str,
    replayed: Iterable[Rows],
    run: UserModelRun | None = None,
) -> tuple[Step, ...]:
    """Compare the feature rows that a replay of the frames gives with those in the leaves of a day.

    Then compare the forecasts of these rows, which are computed again, with the stored ones. The replay begins
    `day_forecasts.LEAD_NS` before the day. Without a closed hour there is nothing to compare. `run` runs models of
    the user; without it, their σ is taken as it is stored.
    """
    begin_ns = day_ns(day)
    periods = closed_periods(history, symbol, begin_ns, begin_ns + NS_PER_DAY)
    hours_ns = [each.begin_ns for each in periods if each.period == HOUR]
    if not hours_ns:
        return ()
    leaves = {each.leaf for hour_ns in hours_ns for each in kept_leaves(store, symbol, hour_ns)}
    stored = StoredForecasts(history, symbol, hours_ns)
    forecasts = DayForecasts(history, store, symbol, hours_ns, run)
    wrong: list[str] = []
    for batch in replayed:
        if batch.symbol != symbol:
            continue
        found = list(stored.take(batch.ids))
        silver = table_rows.silver_features(columns_of(batch.ids), batch.matrix())
        for chosen, made in found:
            rows = row_hashes(SILVER_FEATURES, silver.take(pa.array(chosen)))
            of_rows = zip(*_hashes(made), rows, forecasts.bundles_of(made), strict=True)
            wrong += [
                str(place)
                for place, (bid, volatility, row, bundles) in zip(made.places, of_rows, strict=True)
                if leaf_hash(leaf_of(bid, volatility, row, bundles)) not in leaves
            ]
        forecasts.take(batch, found)
    return (_rows_step(stored, wrong), forecasts.step())


def _hashes(made: Forecasts) -> tuple[list[bytes], list[bytes]]:
    return row_hashes(BID_PREDICTION, made.bids), row_hashes(VOLATILITY_PREDICTION, made.volatilities)


def _rows_step(stored: StoredForecasts, wrong: list[str]) -> Step:
    if wrong:
        shown = ", ".join(wrong[:SHOWN])
        text = f"{len(wrong)} of {stored.compared} forecasts have another feature row than a replay ({shown})."
        return Step("rows", False, text)
    text = f"{stored.compared} forecasts were made from the very feature rows that a replay of the frames gives."
    missing = stored.wanted - stored.compared
    if missing:
        text += (
            f" {missing} were made from rows of frames that were received on another day: neither their rows nor they are computed "
            "again."
        )
    return Step("rows", True, text)


def _broken(hour: ClosedPeriod, leaves: list[KeptLeaf], before: str | None) -> list[str]:
    """What is wrong with the root of an hour; `before` is the root of the hour that was closed before, if that is known."""
    problems = []
    root = root_of([leaf_hash(hour.header.encode()), *(each.leaf for each in leaves)]).hex()
    if root != hour.root:
        problems.append(f"the leaves of {hour.name} do not give its root")
    header = hour.hour_header
    if before is not None and header.previous != before:
        problems.append(f"the header of {hour.name} does not name the root of the hour before it")
    if (header.symbol, header.hour, header.forecasts) != (hour.symbol, hour.name, hour.leaves - 1):
        problems.append(f"the header of {hour.name} is that of {header.hour} of {header.symbol}")
    return problems


def _broken_day(day: ClosedPeriod, hours: list[ClosedPeriod]) -> list[str]:
    names = tuple(each.name for each in hours)
    leaves = [leaf_hash(day.header.encode()), *(leaf_hash(bytes.fromhex(each.root)) for each in hours)]
    if day.day_header.hours != names or root_of(leaves).hex() != day.root:
        return [f"the roots of the hours do not give the root of {day.name}"]
    return []
