"""The tables that a run prints: every kind of fault with what came of it, and the totals of each market.

What does not belong here: measuring (`chaos`, `outcomes`, `verdict`).
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table

from exchange_simulator.faults.catalogue import CATALOGUE
from tests.faults import component_faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.chaos import FaultReport
    from tests.faults.outcomes import Outcome
    from tests.faults.verdict import Verdict


def component_table(report: FaultReport) -> Table:
    """Faults of components, with the time from the end of each until the component worked again."""
    table = Table(title="Faults of components")
    for name, justify in (("fault", "left"), ("injected", "right"), ("skipped", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("recovery, median", justify="right")
    table.add_column("longest", justify="right")
    for label in component_faults.labels():
        took_s = report.recoveries_s.get(label, [])
        times = (f"{median(took_s):.1f} s", f"{max(took_s):.1f} s") if took_s else ("", "")
        table.add_row(label, str(report.injected.get(label, 0)), _skipped(report, label), *times)
    return table


def exchange_table(report: FaultReport, outcomes: Mapping[str, Outcome]) -> Table:
    """Faults of the exchange, with what the simulator changed and what became of it in the tables."""
    table = Table(title="Faults of the exchange")
    for name, justify in (("kind", "left"), ("injected", "right"), ("skipped", "right"), ("trades", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("what came of it")
    for kind in CATALOGUE:
        outcome = outcomes.get(kind)
        counts = (
            "; ".join(f"{name} {count}" for name, count in outcome.counts.most_common() if count) if outcome else ""
        )
        trades = str(outcome.trades) if outcome and outcome.trades else ""
        table.add_row(kind, str(report.injected.get(kind, 0)), _skipped(report, kind), trades, counts)
    return table


def totals(report: FaultReport, verdicts: Mapping[str, Verdict], outcomes: Mapping[str, Outcome]) -> Table:
    """The totals of the run, one column for each market."""
    table = Table(title="Totals")
    table.add_column("")
    for symbol in verdicts:
        table.add_column(symbol, justify="right")
    each = list(verdicts.values())
    rows = {
        "trades published": [verdict.trades_published for verdict in each],
        "  stored": [verdict.trades_kept for verdict in each],
        "  of them repaired / late / with an odd id": [
            f"{verdict.trades_repaired} / {verdict.trades_late} / {verdict.odd_ids}" for verdict in each
        ],
        "  lost": [verdict.trades_missing for verdict in each],
        "  doubled": [verdict.trades_twice + verdict.corrections_twice for verdict in each],
        "  stored and never published": [verdict.trades_unknown for verdict in each],
        "  right rows overwritten": [verdict.trades_overwritten for verdict in each],
        "corrections kept beside the first version": [verdict.corrections_kept for verdict in each],
        "gaps in the trade ids / open at the end": [f"{verdict.gaps_seen} / {verdict.gaps_open}" for verdict in each],
        "quotes sent / stored": [f"{verdict.quotes_sent} / {verdict.quotes_kept}" for verdict in each],
        "feature rows": [verdict.silver_rows for verdict in each],
        "  missing / extra against a replay of the log": [
            f"{verdict.silver_missing} / {verdict.silver_extra}" for verdict in each
        ],
        "  different in any bit": [verdict.silver_different for verdict in each],
        "forecasts missing": [verdict.forecasts_missing for verdict in each],
        "Redis holds the newest row": ["yes" if verdict.newest_in_redis_is_newest else "NO" for verdict in each],
        "verdict": ["[green]sound[/]" if verdict.sound else "[bold red]NOT SOUND[/]" for verdict in each],
    }
    for name, values in rows.items():
        table.add_row(name, *map(str, values))
    other = outcomes[""].counts if "" in outcomes else {}
    memory = ", ".join(f"{name} {used:.0f} MB" for name, used in report.memory_mb.items())
    table.caption = (
        f"{report.total} faults injected, {report.total_skipped} skipped, "
        f"{report.together} times several at once; servers stopped: {', '.join(report.outages) or 'none'}; "
        f"not reached in time: {', '.join(report.not_reached) or 'nothing'}; dead letters that hold no extra frame: {dict(other) or 'none'}; largest memory: {memory}"
    )
    return table


def _skipped(report: FaultReport, label: str) -> str:
    return "; ".join(f"{count}: {reason}" for reason, count in report.skipped.get(label, {}).items())
