"""The standings: who is scored where, and against whom."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.league.standings import (
    BASELINES,
    CHAMPION,
    EntryRows,
    Outcomes,
    change_verdict,
    refresh_verdict,
    standings,
)
from btc_core.models import intervals, scores
from btc_core.names import SCORED_QUANTILES

DAYS = 20
START_NS = 1_790_000_000 * 1_000_000_000 // NS_PER_DAY * NS_PER_DAY


def qlike(realized: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return scores.qlike_losses(np.square(realized), np.square(sigma))


def world(seed: int = 3, days: int = DAYS) -> tuple[Outcomes, np.ndarray]:
    """Outcomes of a market whose true σ is known."""
    rng = np.random.default_rng(seed)
    count = days * 1440
    minutes = START_NS + np.arange(count) * NS_PER_MIN
    true = np.exp(2.0 + 0.3 * np.sin(np.arange(count) / 500.0))
    realized = true * np.exp(0.4 * rng.normal(size=count) - 0.08)
    served = true * np.exp(0.2 * rng.normal(size=count))
    losses = {CHAMPION: qlike(realized, served)} | {name: qlike(realized, 1.5 * served) for name in BASELINES}
    quantiles = np.tile([-1.5, -1.1, -0.6, 0.4, 0.9, 1.2], (count, 1))
    bounds = intervals.volatility_bounds_bps(quantiles, served)
    inside = (realized >= bounds[:, 0]) & (realized <= bounds[:, -1])
    return Outcomes(minutes, realized, served, losses, inside, quantiles), true


def entry_of(
    outcomes: Outcomes, sigma: np.ndarray, part: slice = slice(None), bounds: np.ndarray | None = None
) -> EntryRows:
    given = np.full((len(sigma), len(SCORED_QUANTILES)), np.nan) if bounds is None else bounds
    return EntryRows(
        outcomes.minute_ns[part],
        sigma[part],
        given[part],
        np.full(len(sigma[part]), 0.002),
        "abc",
        np.full(len(sigma[part]), "abc", object),
    )


def test_a_better_entry_leads_and_would_pass_and_a_worse_one_does_not() -> None:
    outcomes, true = world()
    bounds = true[:, np.newaxis] * np.exp(0.4 * np.array([-1.645, -1.2816, -0.6745, 0.6745, 1.2816, 1.645]) - 0.08)
    rows = standings(
        outcomes,
        {"good": entry_of(outcomes, true, bounds=bounds), "bad": entry_of(outcomes, 2.0 * true)},
        START_NS,
    )
    by_name = {row.name: row for row in rows}
    assert [row.name for row in rows][:2] == ["good", CHAMPION]
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    good, bad = by_name["good"], by_name["bad"]
    assert good.qlike == pytest.approx(qlike(outcomes.realized_bps, true).mean())
    assert good.ratio is not None
    assert good.ratio < 1.0
    assert good.dm_t == pytest.approx(
        scores.diebold_mariano_t(qlike(outcomes.realized_bps, true), outcomes.losses[CHAMPION])
    )
    assert good.coverage_90 == pytest.approx(0.9, abs=0.02)
    assert good.crps_bps == pytest.approx(
        scores.crps_of_quantiles(outcomes.realized_bps, bounds, SCORED_QUANTILES).mean()
    )
    assert good.gate is not None
    assert bad.gate is not None
    assert good.gate.would_pass, good.gate.reason
    assert not bad.gate.would_pass
    assert "loss ratio" in bad.gate.reason
    assert (bad.crps_bps, bad.coverage_90) == (None, None)
    assert by_name[CHAMPION].ratio == 1.0
    assert by_name[CHAMPION].gate is None


def test_the_gate_judges_the_newest_file_alone() -> None:
    outcomes, true = world()
    rows = entry_of(outcomes, true)
    versions = rows.versions.copy()
    versions[-3 * 1440 :] = "new"
    changed = msgspec.structs.replace(rows, version="new", versions=versions)
    (row,) = (row for row in standings(outcomes, {"changed": changed}, START_NS) if row.kind == "entry")
    assert row.gate is not None
    assert not row.gate.would_pass
    assert "3 days in shadow, 14 are needed" in row.gate.reason
    verdict = change_verdict(changed.of_version("abc"), outcomes)
    assert verdict is not None
    assert verdict.passed, verdict.reason
    assert change_verdict(changed.of_version("other"), outcomes) is None


def test_a_newer_fit_must_beat_every_baseline_and_not_be_worse_than_the_one_that_serves() -> None:
    outcomes, true = world()
    better = refresh_verdict(entry_of(outcomes, true), outcomes)
    assert better.passed, better.reason
    assert "of the champion's" in better.reason
    assert refresh_verdict(entry_of(outcomes, outcomes.sigma_bps), outcomes).passed, "it is as good as the champion"
    assert not refresh_verdict(entry_of(outcomes, 1.3 * outcomes.sigma_bps), outcomes).passed
    worse = refresh_verdict(entry_of(outcomes, 2.0 * true), outcomes)
    assert not worse.passed
    assert "must be below 1" in worse.reason
    few = refresh_verdict(entry_of(outcomes, true, slice(30)), outcomes)
    assert (few.passed, few.reason) == (False, "30 outcomes, 60 are needed")


def test_an_entry_is_compared_with_the_champion_where_it_forecast() -> None:
    outcomes, _ = world(days=2)
    sigma = outcomes.sigma_bps.copy()
    rows = standings(outcomes, {"copy": entry_of(outcomes, sigma, slice(100, 900))}, START_NS)
    (copy,) = (row for row in rows if row.name == "copy")
    assert copy.rows == 800
    assert copy.ratio == pytest.approx(1.0)
    assert copy.dm_t is None  # equal losses


def test_only_the_last_days_are_scored_and_the_gate_sees_all() -> None:
    outcomes, true = world(days=5)
    since_ns = START_NS + 4 * NS_PER_DAY
    (mine,) = (row for row in standings(outcomes, {"mine": entry_of(outcomes, true)}, since_ns) if row.name == "mine")
    assert mine.rows == 1440
    assert mine.gate is not None
    assert "5 days in shadow, 14 are needed" in mine.gate.reason


def test_less_than_an_hour_has_no_rank_and_no_outcome_has_no_row_of_the_champion() -> None:
    outcomes, true = world(days=1)
    rows = standings(outcomes, {"new": entry_of(outcomes, true, slice(30))}, START_NS)
    assert rows[-1].name == "new"
    assert rows[-1].rank is None
    nothing = outcomes.since(START_NS + 2 * NS_PER_DAY)
    (only,) = standings(nothing, {"new": entry_of(outcomes, true, slice(30))}, START_NS)
    assert (only.name, only.rows, only.qlike, only.gate) == ("new", 0, None, None)


def test_the_served_interval_of_a_close_uses_the_quantiles_that_were_known_before_it() -> None:
    outcomes, _ = world(days=1)
    changed = outcomes.quantiles.copy()
    changed[700:] *= (
        1.5  # after the outcome of minute 700, which is final at 705 and in force from the forecast of 706 on
    )
    moved = Outcomes(
        outcomes.minute_ns, outcomes.realized_bps, outcomes.sigma_bps, outcomes.losses, outcomes.inside_90, changed
    )
    until_705, from_706 = moved.since(0), outcomes.since(0)
    before = standings(_cut(until_705, 706), {}, START_NS)[0].crps_bps
    assert before == standings(_cut(from_706, 706), {}, START_NS)[0].crps_bps
    assert (
        standings(_cut(until_705, 707), {}, START_NS)[0].crps_bps
        != standings(_cut(from_706, 707), {}, START_NS)[0].crps_bps
    )


def _cut(outcomes: Outcomes, count: int) -> Outcomes:
    part = slice(count)
    losses = {name: each[part] for name, each in outcomes.losses.items()}
    return Outcomes(
        outcomes.minute_ns[part], outcomes.realized_bps[part], outcomes.sigma_bps[part], losses, outcomes.inside_90[part],
        outcomes.quantiles[part],
    )  # fmt: skip
