"""The days of sealed assets, and how one run works through several of them.

What does not belong here: what is done for a day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from btc_core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Result: TypeAlias = dg.MaterializeResult[None]
else:
    Result = dg.MaterializeResult
"""What an asset with checks returns; Dagster knows it only by its plain name."""

DAYS = dg.DailyPartitionsDefinition(start_date=settings().seal.first_day, timezone="UTC")
"""UTC days, the present one not among them."""
ONE_RUN = dg.BackfillPolicy.single_run()
"""A range of days is one run: starting a run costs more than sealing a quiet day."""
DAYS_PER_RUN = settings().seal.days_per_run
RUNS = dg.BackfillPolicy.multi_run(DAYS_PER_RUN) if DAYS_PER_RUN else ONE_RUN
"""Of days that may be sealed at the same time."""
ROW_COUNT = "dagster/partition_row_count"
TABLE_ROWS = 10


def for_each_day(
    context: dg.AssetExecutionContext, asset: str, work: Callable[[str], Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Do `work` for every day of the run, oldest first, and put what it returns on that day's materialization."""
    days = sorted(context.partition_keys)
    done = []
    for number, day in enumerate(days, start=1):
        facts = work(day)
        context.add_asset_metadata(facts, asset_key=asset, partition_key=day)
        context.log.info("%s: %s (%d of %d days)", asset, day, number, len(days))
        done.append(facts)
    return done


def markdown(rows: list[dict[str, Any]]) -> dg.MarkdownMetadataValue:
    """Rows as a table to look at."""
    if not rows:
        return dg.MetadataValue.md("none")
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows[:TABLE_ROWS]]
    return dg.MetadataValue.md("\n".join(lines))
