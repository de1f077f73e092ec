"""The standings of the league: the scores of champion, baselines and entries at the same closes.

All scores are of the realized volatility over the headline horizon, at closes whose outcome is final and whose served forecast was
made in time. Champion and baselines are scored at all of them. An entry is scored at those of its own forecasts, and
compared with the champion there, so an entry that missed an hour gains or loses nothing by it. The rank follows from that
comparison.
What does not belong here: how forecasts and outcomes come about (`streaming`), and answers of the API (`serving`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.errors import SchemaError
from btc_core.models import gate, intervals, scores
from btc_core.models.targets import APART_NS, LABEL_SPAN_NS
from btc_core.names import HEADLINE_MIN, MINUTES, SCORED_QUANTILE_NAMES, SCORED_QUANTILES, VOLATILITY, VolatilityTarget
from btc_core.tables.catalogue import PREDICTION_OUTCOMES
from btc_core.tables.league_tables import LEAGUE_FORECASTS
from btc_core.tables.sql import of_headline, of_symbol, of_target, within

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_core.stores.questdb import QuestDB

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

CHAMPION = "champion"
BASELINES = ("harx", "har", "ewma", "naive")
"""The baselines of the volatility; `naive` is the random walk: the last five minutes again."""
GATE_DAYS = 28
"""The gate judges the forecasts of this many days."""
MIN_RANKED_ROWS = gate.MIN_OUTCOMES
"""Fewer rows give no rank: an hour of them with a headline horizon of five minutes."""
_KNOWN_AFTER_NS = LABEL_SPAN_NS + NS_PER_MIN
"""The age, at a close, of the newest outcome that its served interval can depend on: the last forecast before a close is made
before the outcome of one horizon earlier is final."""
_REALIZED, _SIGMA = f"realized_{HEADLINE_MIN}m_bps", f"sigma_{HEADLINE_MIN}m_bps"
_BOUND_COLUMNS = [f"sigma_{HEADLINE_MIN}m_q{percent}_bps" for percent in SCORED_QUANTILE_NAMES]

Kind = Literal["champion", "baseline", "entry"]


class Outcomes(msgspec.Struct, frozen=True):
    """Final outcomes of a market in the order of time, with the losses of what served and of the baselines."""

    minute_ns: Longs
    realized_bps: Floats
    sigma_bps: Floats
    """The served forecast."""
    losses: dict[str, Floats]
    """QLIKE by name of the champion and of each baseline; NaN where unknown."""
    inside_90: npt.NDArray[np.bool_]
    """Whether the served 90 % interval held the outcome."""
    quantiles: Floats
    """(n, 6): the quantiles of the served intervals, as they are after each outcome."""

    @classmethod
    def none(cls) -> Outcomes:
        """No outcome."""
        empty = np.empty(0)
        losses = dict.fromkeys((CHAMPION, *BASELINES), empty)
        return cls(
            np.empty(0, np.int64), empty, empty, losses, np.empty(0, np.bool_), np.empty((0, len(SCORED_QUANTILES)))
        )

    def since(self, minute_ns: int) -> Outcomes:
        """The outcomes from a minute on."""
        kept = self.minute_ns >= minute_ns
        return Outcomes(
            self.minute_ns[kept],
            self.realized_bps[kept],
            self.sigma_bps[kept],
            {name: each[kept] for name, each in self.losses.items()},
            self.inside_90[kept],
            self.quantiles[kept],
        )


class EntryRows(msgspec.Struct, frozen=True):
    """The forecasts of one entry in the order of time."""

    minute_ns: Longs
    sigma_bps: Floats
    bounds_bps: Floats
    """(n, 6); NaN for an entry without quantiles."""
    predict_s: Floats
    version: str
    """The newest version of its file."""
    versions: npt.NDArray[np.object_]
    """(n,): the version of the file behind each forecast."""

    def of_version(self, version: str) -> EntryRows:
        """The forecasts of one version of the file."""
        kept = self.versions == version
        return EntryRows(
            self.minute_ns[kept],
            self.sigma_bps[kept],
            self.bounds_bps[kept],
            self.predict_s[kept],
            version,
            self.versions[kept],
        )


class GateAnswer(msgspec.Struct, frozen=True):
    """What the gate of a change says about the newest file of an entry, from its last `GATE_DAYS` days."""

    would_pass: bool
    reason: str


class Standing(msgspec.Struct, frozen=True):
    """One row of the league; None where a score does not exist."""

    name: str
    kind: Kind
    version: str
    rows: int
    qlike: float | None
    ratio: float | None
    """QLIKE over that of the champion at the same closes."""
    dm_t: float | None
    crps_bps: float | None
    coverage_90: float | None
    predict_p50_s: float | None
    predict_p99_s: float | None
    rank: int | None = None
    gate: GateAnswer | None = None


def read_outcomes(db: QuestDB, symbol: str, from_ns: int, to_ns: int, target: VolatilityTarget = MINUTES) -> Outcomes:
    """Outcomes of a period whose served forecast was in time, for one target of the volatility; raises `ServiceError`."""
    losses = {CHAMPION: f"qlike_model_{HEADLINE_MIN}m"} | {name: f"qlike_{name}_{HEADLINE_MIN}m" for name in BASELINES}
    columns = [_REALIZED, _SIGMA, "volatility_inside_90", "volatility_quantiles", *losses.values()]
    table = db.query(
        f"SELECT ts_event, {', '.join(columns)} FROM {PREDICTION_OUTCOMES.name} "  # noqa: S608 - names of the catalogue, times and a quoted symbol
        f"WHERE {of_symbol(symbol)} AND {within('ts_event', from_ns, to_ns)} AND late = false AND {of_target(target)} "
        f"AND {of_headline()} ORDER BY ts_event"
    )
    longest = [_longest(text) for text in table["volatility_quantiles"].to_pylist()]
    quantiles = [intervals.with_tails(each)[0, intervals.SCORED] for each in longest]
    return Outcomes(
        column_ns(table["ts_event"]),
        table[_REALIZED].to_numpy(),
        table[_SIGMA].to_numpy(),
        {name: table[column].to_numpy() for name, column in losses.items()},
        table["volatility_inside_90"].to_numpy().astype(bool),
        np.array(quantiles, np.float64).reshape(-1, len(SCORED_QUANTILES)),
    )


def _longest(text: str) -> list[list[float | None]]:
    """The quantiles of the longest horizon from their JSON text; raises `SchemaError` for another text."""
    try:
        return msgspec.json.decode(text, type=list[list[float | None]])[-1:]
    except msgspec.MsgspecError as error:
        msg = f"{PREDICTION_OUTCOMES.name} has a row whose volatility_quantiles are {text[:60]!r}: {error}"
        raise SchemaError(msg) from error


def read_entries(db: QuestDB, symbol: str, from_ns: int, to_ns: int) -> dict[str, EntryRows]:
    """The forecasts of a period by entry; raises `ServiceError`."""
    columns = ["entry", "version", "predict_s", _SIGMA, *_BOUND_COLUMNS]
    table = db.query(
        f"SELECT ts_event, {', '.join(columns)} FROM {LEAGUE_FORECASTS.name} "  # noqa: S608 - names of the catalogue, times and a quoted symbol
        f"WHERE {of_symbol(symbol)} AND {within('ts_event', from_ns, to_ns)} AND {_SIGMA} IS NOT NULL ORDER BY ts_event"
    )
    names = np.array(table["entry"].to_pylist(), object)
    return {name: _entry_rows(table, np.flatnonzero(names == name)) for name in sorted(set(names.tolist()))}


def _entry_rows(table: pa.Table, places: Longs) -> EntryRows:
    own = table.take(places)
    bounds = np.column_stack([own[name].cast("float64").to_numpy() for name in _BOUND_COLUMNS])
    return EntryRows(
        column_ns(own["ts_event"]),
        own[_SIGMA].to_numpy(),
        bounds,
        own["predict_s"].to_numpy(),
        str(own["version"][-1]),
        np.array(own["version"].to_pylist(), object),
    )


def standings(outcomes: Outcomes, entries: dict[str, EntryRows], since_ns: int) -> list[Standing]:
    """The league since a time, best first; the gate judges all outcomes that are given."""
    recent = outcomes.since(since_ns)
    bounds = _served_bounds(outcomes)[outcomes.minute_ns >= since_ns]
    rows = [_champion(recent, bounds)] if len(recent.minute_ns) else []
    rows += [each for each in (_baseline(recent, name) for name in BASELINES) if each.rows]
    rows += [_entry(name, each, recent, _gate(each, outcomes)) for name, each in entries.items()]
    return _ranked(rows)


def _served_bounds(outcomes: Outcomes) -> Floats:
    """The bounds of the served intervals, (n, 6), from the quantiles that were in force; NaN before the first are known."""
    known = np.searchsorted(outcomes.minute_ns, outcomes.minute_ns - _KNOWN_AFTER_NS, side="right") - 1
    quantiles = np.where((known >= 0)[:, np.newaxis], outcomes.quantiles[np.maximum(known, 0)], np.nan)
    return intervals.volatility_bounds_bps(quantiles, outcomes.sigma_bps)


def _champion(outcomes: Outcomes, bounds: Floats) -> Standing:
    losses = outcomes.losses[CHAMPION]
    crps = scores.crps_of_quantiles(outcomes.realized_bps, bounds, SCORED_QUANTILES)
    return Standing(
        CHAMPION, "champion", "", len(losses), _mean(losses), 1.0, None, _mean(crps[np.isfinite(crps)]),
        _mean(outcomes.inside_90), None, None,
    )  # fmt: skip


def _baseline(outcomes: Outcomes, name: str) -> Standing:
    known = np.isfinite(outcomes.losses[name]) & np.isfinite(outcomes.losses[CHAMPION])
    losses, champion = outcomes.losses[name][known], outcomes.losses[CHAMPION][known]
    return Standing(
        name, "baseline", "", len(losses), _mean(losses), _ratio(losses, champion),
        scores.finite_or_none(scores.diebold_mariano_t(losses, champion)), None, None, None, None,
    )  # fmt: skip


def _entry(name: str, rows: EntryRows, outcomes: Outcomes, gate_answer: GateAnswer | None) -> Standing:
    own, theirs = _joined(rows, outcomes)
    losses, champion = _losses(rows, outcomes, own, theirs), outcomes.losses[CHAMPION][theirs]
    realized, bounds = outcomes.realized_bps[theirs], rows.bounds_bps[own]
    has_bounds = np.isfinite(bounds).all(axis=1)
    crps = scores.crps_of_quantiles(realized, bounds, SCORED_QUANTILES)[has_bounds]
    inside = (realized >= bounds[:, 0]) & (realized <= bounds[:, -1])
    recent = rows.predict_s[rows.minute_ns >= outcomes.minute_ns[0]] if len(outcomes.minute_ns) else rows.predict_s
    p50, p99 = np.quantile(recent, [0.5, 0.99]).tolist() if len(recent) else (None, None)
    return Standing(
        name, "entry", rows.version, len(losses), _mean(losses), _ratio(losses, champion),
        scores.finite_or_none(scores.diebold_mariano_t(losses, champion)), _mean(crps), _mean(inside[has_bounds]), p50, p99,
        gate=gate_answer,
    )  # fmt: skip


def _gate(rows: EntryRows, outcomes: Outcomes) -> GateAnswer | None:
    verdict = change_verdict(rows.of_version(rows.version), outcomes)
    return None if verdict is None else GateAnswer(verdict.passed, verdict.reason)


def change_verdict(rows: EntryRows, outcomes: Outcomes) -> gate.Verdict | None:
    """The verdict of the gate of a change on forecasts of one file; None if none has an outcome.

    The coverage is that of the intervals with which the entry would serve. These are tracked from its own outcomes that do
    not overlap, as those of every served model are, whatever quantiles it gives itself.
    """
    own, theirs = _joined(rows, outcomes)
    if not len(own):
        return None
    losses, champion = _losses(rows, outcomes, own, theirs), outcomes.losses[CHAMPION][theirs]
    minutes = rows.minute_ns[own]
    apart = minutes % APART_NS == 0
    score = 2.0 * np.log(outcomes.realized_bps[theirs] / rows.sigma_bps[own])[apart]
    return gate.change(losses, champion, minutes // NS_PER_DAY, VOLATILITY, _tracked_coverage(score))


def refresh_verdict(rows: EntryRows, outcomes: Outcomes) -> gate.Verdict:
    """The verdict of the gate of a refresh on the live forecasts of a user's model that is trained again each night.

    The champion is an older fit of the same file. The entry passes if it is better than every baseline, and not worse than it.
    """
    own, theirs = _joined(rows, outcomes)
    scored = np.array([outcomes.losses[name][theirs] for name in BASELINES])
    known = np.isfinite(scored).all(axis=0)
    if known.sum() < MIN_RANKED_ROWS:
        return gate.Verdict(passed=False, reason=f"{known.sum()} outcomes, {MIN_RANKED_ROWS} are needed")
    losses = _losses(rows, outcomes, own, theirs)[known]
    baselines = {name: scored[at][known] for at, name in enumerate(BASELINES)}
    verdict = gate.refresh(losses, outcomes.losses[CHAMPION][theirs][known], baselines)
    return msgspec.structs.replace(verdict, passed=verdict.passed and verdict.beats_baselines)


def _tracked_coverage(score: Floats) -> float:
    """The share of scores inside the 90 % interval that was in force at each."""
    quantiles, inside = np.array([intervals.NORMAL]), 0
    low, high = intervals.BOUNDS[90]
    for each in score.tolist():
        inside += quantiles[0, low] <= each <= quantiles[0, high]
        quantiles = intervals.update(quantiles, np.array([each]))
    return float(inside / len(score)) if len(score) else math.nan


def _joined(rows: EntryRows, outcomes: Outcomes) -> tuple[Longs, Longs]:
    """The closes that both have: their places in `rows` and in `outcomes`."""
    _, own, theirs = np.intersect1d(rows.minute_ns, outcomes.minute_ns, return_indices=True)
    known = np.isfinite(outcomes.losses[CHAMPION][theirs])
    return own[known], theirs[known]


def _losses(rows: EntryRows, outcomes: Outcomes, own: Longs, theirs: Longs) -> Floats:
    return scores.qlike_losses(np.square(outcomes.realized_bps[theirs]), np.square(rows.sigma_bps[own]))


def _ranked(rows: list[Standing]) -> list[Standing]:
    """By the ratio to the champion; rows without one, or with less than an hour, come last and have no rank."""
    ranked = [row for row in rows if row.ratio is not None and row.rows >= MIN_RANKED_ROWS]
    ranked.sort(key=lambda row: row.ratio or math.inf)
    others = [row for row in rows if row not in ranked]
    return [msgspec.structs.replace(row, rank=place) for place, row in enumerate(ranked, start=1)] + others


def _ratio(losses: Floats, champion: Floats) -> float | None:
    return (
        scores.finite_or_none(float(losses.mean() / champion.mean())) if len(losses) and champion.mean() > 0.0 else None
    )


def _mean(values: Floats | npt.NDArray[np.bool_]) -> float | None:
    return scores.finite_or_none(float(values.mean())) if len(values) else None
