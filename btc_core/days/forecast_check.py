"""Verifies one forecast step by step, from what was served back to the frames, and says in words what fits and what does not.

What does not belong here: finding the evidence (`forecast_search`, `forecast_file`), and computing a forecast again
(`forecast_replay`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import column_ns, from_ns
from btc_core.days.fold_states import BOOKS_NS
from btc_core.days.forecast_differences import OTHER_PROCESSOR, differences
from btc_core.days.forecast_hours import HOUR_NS, hour_text, other_horizons_text, places_of
from btc_core.days.forecast_leaves import leaf_of, row_hashes
from btc_core.days.forecast_replay import (
    FEW_BOOKS_NS,
    LogCheck,
    WantedRow,
    columns_at,
    forecast_again,
    replayed_rows,
)
from btc_core.days.merkle import leaf_hash, root_from_proof
from btc_core.days.user_model_again import FLAG, described, stored_sigma
from btc_core.errors import BtcError
from btc_core.exchanges.recorded_blocks import read_ahead
from btc_core.exchanges.tick_lines import with_ticks
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.horizons import minutes_text
from btc_core.names import HEADLINE_MIN, HORIZONS_MIN
from btc_core.registry.served_models import digest_of, model_of
from btc_core.tables import rows as table_rows
from btc_core.tables.arrow import values_of
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION
from btc_core.utc_day import day_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.days.forecast_evidence import DayInclusion, Evidence, Inclusion, Proof, ProvenHour
    from btc_core.days.forecast_replay import ReplayedRows
    from btc_core.days.forecast_roots import ClosedPeriod
    from btc_core.days.log_hours import LogRange
    from btc_core.days.user_model_again import UserModelRun
    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.market.messages import ForecastRow
    from btc_core.models.row_forecasts import Models


USER_MODEL = "user_model"
"""The name of the step of a user's model; it is open if its code was not run."""


class Step(msgspec.Struct, frozen=True):
    """One step of a verification."""

    name: str
    fits: bool
    text: str
    is_open: bool = False
    """Whether the step cannot be judged yet, which is no fault."""


class Check:
    """Verifies the evidence of a forecast. `steps` yields each step when it is done; the first that does not fit ends it."""

    def __init__(self, evidence: Evidence, run: UserModelRun | None = None) -> None:
        """`run` runs a user's model that made the forecast; without it, σ of such a model is taken as it is stored."""
        self._evidence = evidence
        self._run = run
        self._proof = evidence.proof
        self._bid, self._volatility = values_of(evidence.bid), values_of(evidence.volatility)
        self._made_ns, self._received_ns = (int(column_ns(evidence.bid[name])[0]) for name in ("made_at", "ts_recv"))
        self._place = places_of(evidence.bid)[0]

    def steps(self) -> Iterator[Step]:
        """Yield the steps in their order."""
        for step in self._all():
            yield step
            if not step.fits:
                return

    def _all(self) -> Iterator[Step]:
        yield self._record()
        yield from self._roots()
        yield from self._computed()

    def _record(self) -> Step:
        names = ("kafka_partition", "kafka_offset", "frame_item", "symbol", "feature_version")
        same = all(self._bid[name] == self._volatility[name] for name in names)
        same = same and self._bid["symbol"] == self._evidence.symbol
        if self._evidence.horizons_min != HORIZONS_MIN:
            return Step("record", False, other_horizons_text(self._evidence.horizons_min))
        bid, sigma = self._bid[f"bid_{HEADLINE_MIN}m_usd"], self._volatility[f"sigma_{HEADLINE_MIN}m_bps"]
        models = " and ".join(f"{row['model_kind']} {row['model_version']}" for row in (self._bid, self._volatility))
        text = (
            f"At {_time(self._made_ns)} the bid of {self._evidence.symbol} in {minutes_text(HEADLINE_MIN)} was "
            f"forecast as {bid:.2f} and its volatility as {sigma:.2f} bps, by {models}, from the frame at {self._place.partition}:{self._place.offset}."
        )
        return Step(
            "record", same, text if same else "The rows of the bid and of the volatility do not belong together."
        )

    def _roots(self) -> Iterator[Step]:
        proof = self._proof
        if not proof.is_closed(self._made_ns):
            hour = hour_text(self._made_ns // HOUR_NS * HOUR_NS)
            yield Step("root", True, f"The hour {hour} is not closed yet, so no root has this forecast.", is_open=True)
            if proof.hours:
                yield self._chain(proof.hours)
            return
        yield self._in_hour(proof, proof.hours[-1])
        yield self._chain(proof.hours)
        if proof.day is None:
            text = f"The day {day_of(self._made_ns)} is not closed yet."
            yield Step("day", True, text, is_open=True)
        else:
            yield _in_day(proof.day, proof.hours[-1].hour)

    def _in_hour(self, proof: Proof, proven: ProvenHour) -> Step:
        hour = proven.hour
        if proof.late_in:
            text = f"The forecast came too late for the root of {hour.name}; the header of {proof.late_in} lists it as late."
            return Step("root", False, text)
        found = None if proof.inclusion is None else _leads_to(hour, proof.inclusion)
        if proof.inclusion is None or not found:
            text = (
                f"The forecast is not in the root of {hour.name}, which was closed at {_time(hour.closed_at_ns)}: its row "
                "was changed or added after that."
            )
            return Step("root", False, text)
        text = (
            f"Its leaf {proof.inclusion.leaf[:16]}… is number {proof.inclusion.index} of {hour.leaves - 1} in the root "
            f"{hour.root[:16]}… of {hour.name}, which was closed at {_time(hour.closed_at_ns)}."
        )
        return Step("root", True, text)

    def _chain(self, hours: tuple[ProvenHour, ...]) -> Step:
        before = ""
        for each in hours:
            entry = leaf_hash(each.hour.header.encode())
            siblings = [bytes.fromhex(sibling) for sibling in each.header_siblings]
            root = root_from_proof(entry, 0, each.hour.leaves, siblings)
            if root is None or root.hex() != each.hour.root:
                return Step("chain", False, f"The header of {each.hour.name} is not the first leaf of its root.")
            header = each.hour.hour_header
            if (header.symbol, header.hour) != (self._evidence.symbol, each.hour.name):
                return Step("chain", False, f"The header of {each.hour.name} names {header.symbol} and {header.hour}.")
            if header.simulated != self._evidence.simulated:
                market = "a simulated" if header.simulated else "a real"
                return Step("chain", False, f"The header of {each.hour.name} says that {market} market was forecast.")
            if before and header.previous != before:
                return Step(
                    "chain", False, f"The header of {each.hour.name} does not name the root of the hour before it."
                )
            before = each.hour.root
        return Step(
            "chain", True, f"{_counted(len(hours), 'hour')} up to it form a chain: each root contains the one before."
        )

    def _computed(self) -> Iterator[Step]:
        if self._bid["feature_version"] != FEATURE_VERSION:
            text = (
                f"The forecast was made from feature set {self._bid['feature_version']}, and this program computes "
                f"{FEATURE_VERSION}; use the version of the program that made it."
            )
            yield Step("row", False, text)
            return
        start = self._evidence.start
        if start:
            step = self._start(start)
            yield step
            if not step.fits:
                return
        log = self._log_check()
        rows = self._replayed(self._read(log), log.end, FEW_BOOKS_NS)
        if not start and (rows is None or self._leaf_of(rows) not in self._expected_leaves()):
            log = self._log_check()  # what is folded is what was hashed
            rows = self._replayed(self._read(log), log.end, BOOKS_NS)
        yield self._frames(log)
        yield self._row(rows)
        if rows is None:
            return
        models, step = self._models()
        yield step
        if models is not None:
            yield self._leaf(rows)
            columns = columns_at(rows, self._evidence.minutes)
            sigma = stored_sigma(self._evidence.volatility, models[1])
            if np.isfinite(sigma).all():
                yield self._user_model(rows, columns, sigma, models)
            yield self._forecast(rows, columns, sigma, models)

    def _start(self, start: bytes) -> Step:
        """Whether the state that the frames continue is the one that a closed hour names."""
        named, hour = self._evidence.named_start, self._proof.hours[0].hour.name if self._proof.hours else "no hour"
        own = named is not None and named.continues(named.log, self._place.partition, self._evidence.leader)
        if named is None or not own or not named.is_that_of(start):
            text = f"The state of the features from which the frames are replayed is not the one that the header of {hour} names."
            return Step("start", False, text)
        text = (
            f"The replay starts from the state of the features at the end of the hour {hour}, whose header names its hash "
            f"{named.sha256[:16]}…."
        )
        return Step("start", True, text)

    def _log_check(self) -> LogCheck:
        named = self._evidence.named_start if self._evidence.start else None
        return LogCheck(self._log_ranges(), -1 if named is None else named.offset)

    def _read(self, log: LogCheck) -> Iterator[Block]:
        """The blocks behind the forecast, hashed and with their ticks, both in another thread."""
        return read_ahead(with_ticks(log.passing(self._evidence.blocks())))

    def _replayed(self, blocks: Iterator[Block], read_to: int, books_ns: int) -> ReplayedRows | None:
        evidence = self._evidence
        wanted = WantedRow(evidence.symbol, self._place, self._received_ns, evidence.leader)
        return replayed_rows(blocks, wanted, read_to, books_ns, evidence.start)

    def _expected_leaves(self) -> tuple[str, ...]:
        """The leaf that the replayed row must give; empty if none is known.

        A row that gives it is the right one. Another row is judged only after a replay of all order books that can matter.
        """
        inclusion = self._proof.inclusion
        expected = self._evidence.stored_leaf if inclusion is None else inclusion.leaf
        return (expected,) if expected else ()

    def _leaf_of(self, rows: ReplayedRows) -> str:
        """The leaf of the forecast with a replayed feature row; empty if its models are not known."""
        evidence = self._evidence
        if not len(evidence.state):
            return ""
        state = values_of(evidence.state)
        try:
            bundles = [bytes.fromhex(state[f"{name}_bundle"] or "") for name in ("bid", "volatility")]
        except ValueError:  # the step about the models says what does not fit
            return ""
        hashes = (row_hashes(BID_PREDICTION, evidence.bid), row_hashes(VOLATILITY_PREDICTION, evidence.volatility))
        silver = row_hashes(SILVER_FEATURES, rows.silver())[0]
        return leaf_hash(leaf_of(hashes[0][0], hashes[1][0], silver, bundles)).hex()

    def _log_ranges(self) -> list[LogRange]:
        ranges = [each for proven in self._proof.hours for each in proven.hour.hour_header.log]
        newest = next((each.log for each in reversed(ranges)), "")
        return [each for each in ranges if each.partition == self._place.partition and each.log == newest]

    def _frames(self, log: LogCheck) -> Step:
        compared = log.compared()
        wrong = [each for each, fits in compared if not fits]
        if wrong:
            text = f"The frames {wrong[0].first} to {wrong[0].end - 1} are not those that reached the log: their root differs."
            return Step("frames", False, text)
        source = self._evidence.source
        if not compared:
            return Step("frames", True, f"No closed hour names the frames, which come from {source}.", is_open=True)
        text = (
            f"{log.messages} frames from {source} have the roots that {_counted(len(compared), 'closed hour')} "
            f"{'names' if len(compared) == 1 else 'name'}."
        )
        return Step("frames", True, text)

    def _row(self, rows: ReplayedRows | None) -> Step:
        if rows is None:
            return Step("row", False, f"The frames give no feature row of {self._evidence.symbol} at {self._place}.")
        row = rows.ids[-1]
        text = f"A replay of the frames gives its feature row, of {_time(row.ts_event_ns)}, with bid {self._bid['bid']:.2f}."
        return Step("row", True, text)

    def _models(self) -> tuple[Models | None, Step]:
        if not len(self._evidence.state):
            text = "Which models made the forecast is not stored, so it cannot be computed again."
            return None, Step("models", False, text)
        state = values_of(self._evidence.state)
        loaded: list[Any] = []
        for name, row in (("bid", self._bid), ("volatility", self._volatility)):
            digest = state[f"{name}_bundle"] or ""
            files = self._evidence.bundles.get(digest)
            if files is None or digest_of(files) != digest:
                return None, Step(
                    "models", False, f"The model of the {name} is not the one with the hash {digest[:16]}…."
                )
            try:
                loaded.append(model_of(files, row["model_version"]))
            except BtcError as error:
                return None, Step("models", False, f"The model of the {name} cannot be used: {error}")
        digests = " and ".join(f"{state[f'{name}_bundle'][:16]}…" for name in ("bid", "volatility"))
        models = (loaded[0], loaded[1])
        return models, Step(
            "models", True, f"The models have the hashes {digests}, and reproduce their golden batches."
        )

    def _leaf(self, rows: ReplayedRows) -> Step:
        inclusion, leaf = self._proof.inclusion, self._leaf_of(rows)
        if inclusion is None:
            return Step("leaf", True, f"Its leaf will be {leaf[:16]}….", is_open=True)
        if leaf != inclusion.leaf:
            text = "Its rows, its feature row and its models do not give the leaf that is in the root."
            return Step("leaf", False, text)
        return Step(
            "leaf", True, "Its two rows, the replayed feature row and the models give the leaf that is in the root."
        )

    def _user_model(self, rows: ReplayedRows, columns: Any, sigma: Any, models: Models) -> Step:
        """σ of a user's model: computed again if somebody wants its code to run, and otherwise taken as it is stored."""
        model = models[1]
        if self._run is None:
            text = (
                f"Its volatility was forecast by {described(model)}, a user's model. Its code was not run, so this last step "
                "was not computed again: σ is taken as it is stored, and the next line computes everything else again from it. "
                f"{FLAG} runs the code in a process with limits and compares σ; use it only if you trust the operator's code."
            )
            return Step(USER_MODEL, True, text, is_open=True)
        event_ns = np.array([rows.ids[-1].ts_event_ns])
        try:
            again = self._run.sigma_bps(model, rows.values[-1:], columns, event_ns, sigma)
        except BtcError as error:
            return Step(USER_MODEL, False, f"The user's model cannot be run: {error}")
        gap = float(np.max(np.abs(again - sigma) / sigma))
        if gap > OTHER_PROCESSOR:
            text = f"Run again, {described(model)} gives a σ that differs by {gap:.3g} of itself from the stored one."
            return Step(USER_MODEL, False, text)
        equal = (
            "the stored σ to the last bit"
            if gap == 0.0
            else f"the stored σ up to {gap:.1g} of itself, as on another processor"
        )
        return Step(USER_MODEL, True, f"Run again in a process with limits, {described(model)} gives {equal}.")

    def _forecast(self, rows: ReplayedRows, columns: Any, sigma: Any, models: Models) -> Step:
        evidence = self._evidence
        try:
            made = forecast_again(rows, columns, evidence.state, models, self._made_ns, sigma)
        except BtcError as error:
            return Step("forecast", False, f"The forecast cannot be computed again: {error}")
        difference, column = self._largest_difference(made)
        if difference == 0.0:
            what = "with this σ, the rest of the forecast" if np.isfinite(sigma).all() else "the forecast"
            return Step("forecast", True, f"Computed again, {what} and its intervals are equal to the last bit.")
        if difference <= OTHER_PROCESSOR:
            text = (
                f"Computed again, it differs by {difference:.1g} of itself at most, as on another processor ({column})."
            )
            return Step("forecast", True, text)
        text = (
            f"Computed again, {column} differs by {difference:.3g} of itself. Either a number was changed, or the worker was "
            "killed in these seconds before it had stored what it read."
        )
        return Step("forecast", False, text)

    def _largest_difference(self, made: ForecastRow) -> tuple[float, str]:
        """The largest relative difference between the forecast and the one that was made again, and its column."""
        found = (
            differences(self._evidence.bid, table_rows.gold_bid_price_prediction([made])),
            differences(self._evidence.volatility, table_rows.gold_volatility_prediction([made])),
        )
        worst = max(found, key=lambda each: each.largest)
        return worst.largest, worst.column


def _leads_to(hour: ClosedPeriod, inclusion: Inclusion) -> bool:
    siblings = [bytes.fromhex(each) for each in inclusion.siblings]
    root = root_from_proof(bytes.fromhex(inclusion.leaf), inclusion.index, hour.leaves, siblings)
    return inclusion.index > 0 and root is not None and root.hex() == hour.root


def _in_day(proof: DayInclusion, hour: ClosedPeriod) -> Step:
    day = proof.day
    entry = leaf_hash(bytes.fromhex(hour.root))
    header = leaf_hash(day.header.encode())
    root = root_from_proof(entry, proof.index, day.leaves, [bytes.fromhex(each) for each in proof.siblings])
    from_header = root_from_proof(header, 0, day.leaves, [bytes.fromhex(each) for each in proof.header_siblings])
    names_hour = hour.name in day.day_header.hours and day.day_header.hours.index(hour.name) == proof.index - 1
    if root is None or from_header is None or {root.hex(), from_header.hex()} != {day.root} or not names_hour:
        return Step("day", False, f"The root of {hour.name} is not in the root of {day.name}.")
    text = f"The root of the hour is in the root {day.root[:16]}… of {day.name}, closed at {_time(day.closed_at_ns)}."
    return Step("day", True, text)


def _time(ts_ns: int) -> str:
    return f"{from_ns(ts_ns):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
