"""The body of `GET /v1/league`: the standings, and what the entries do now.

What does not belong here: computing scores (`btc_core.league.standings`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.league.standings import GATE_DAYS, standings
from serving.league_answers import GateOfEntry, League, LeagueRow

if TYPE_CHECKING:
    from btc_core.league.standings import Standing
    from btc_core.league.states import EntryState
    from serving.deps import Deps

Days = Literal[1, 7, 28]

COMPUTED_MIN = 5
"""How often scores are computed, which takes a second of processor time for eight models and 28 days."""
NO_ENTRIES = "no model is in the league; add one with `btc models add FILE`, or `btc models add --builtin log_har`"
NO_OUTCOMES = "no forecast of these days has an outcome yet; the first comes six minutes after a model was trained"


def live_league(deps: Deps, symbol: str, days: Days) -> League:
    """The league of the last days; scores are computed every `COMPUTED_MIN` minutes."""
    states = {each.name: each for each in deps.newest_rows.league_states() or ()}
    found = _standings(deps, symbol, days)
    rows = [_row(each, states) for each in found]
    rows += [_unscored(each) for name, each in states.items() if name not in {row.name for row in rows}]
    entries = sum(row.kind == "entry" for row in rows)
    reason = None if found else NO_OUTCOMES
    return League(symbol, days, rows, entries, reason if entries else NO_ENTRIES, deps.settings.simulated)


def _standings(deps: Deps, symbol: str, days: Days) -> list[Standing]:
    now_ns = deps.clock.now_ns()
    period = now_ns // (COMPUTED_MIN * NS_PER_MIN)
    known = deps.standings.get((symbol, days))
    if known is not None and known[0] == period:
        return known[1]
    end_ns = (period + 1) * COMPUTED_MIN * NS_PER_MIN  # the same for all who ask in this period
    outcomes, entries = deps.stored_rows.league(symbol, end_ns - GATE_DAYS * NS_PER_DAY, end_ns)
    found = standings(outcomes, entries, now_ns - days * NS_PER_DAY)
    deps.standings[symbol, days] = (period, found)
    return found


def _row(standing: Standing, states: dict[str, EntryState]) -> LeagueRow:
    state = states.get(standing.name) if standing.kind == "entry" else None
    gate = standing.gate
    return LeagueRow(
        rank=standing.rank,
        name=standing.name,
        kind=standing.kind,
        version=state.version if state is not None else standing.version,
        state=_state(standing, state),
        reason=(state.reason or None) if state is not None else None,
        rows=standing.rows,
        qlike=standing.qlike,
        ratio=standing.ratio,
        dm_t=standing.dm_t,
        crps_bps=standing.crps_bps,
        coverage_90_pct=None if standing.coverage_90 is None else 100.0 * standing.coverage_90,
        predict_p50_ms=_ms(standing.predict_p50_s),
        predict_p99_ms=_ms(standing.predict_p99_s),
        gate=None if gate is None else GateOfEntry(gate.would_pass, gate.reason),
    )


def _state(
    standing: Standing, state: EntryState | None
) -> Literal["serving", "baseline", "running", "failing", "waiting", "stopped"]:
    if standing.kind == "champion":
        return "serving"
    if standing.kind == "baseline":
        return "baseline"
    return "stopped" if state is None else state.state


def _unscored(state: EntryState) -> LeagueRow:
    """An entry without any forecast in these days."""
    return LeagueRow(
        None, state.name, "entry", state.version, state.state, state.reason or None, 0, None, None, None, None, None, None,
        None, None,
    )  # fmt: skip


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1_000.0 * seconds
