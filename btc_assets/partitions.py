"""The days of sealed assets, the markets of models, and how one run works through several of them.

What does not belong here: what is done for a day or a market.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from btc_core.errors import BtcError
from btc_core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Result: TypeAlias = dg.MaterializeResult[None]
else:
    Result = dg.MaterializeResult
"""What an asset with checks returns. Dagster accepts only the name without brackets."""

DAYS = dg.DailyPartitionsDefinition(start_date=settings().seal.first_day, timezone="UTC")
"""UTC days that are over."""
ONE_RUN = dg.BackfillPolicy.single_run()
"""A range of days is one run, because starting a run takes longer than sealing a quiet day. `btc backfill --processes`
works on days in parallel."""
MARKETS = dg.StaticPartitionsDefinition(list(settings().exchange.symbols))
"""The markets that are followed, each of which has models of its own. A run takes several, because the pooled fit is theirs
together."""
ROW_COUNT = "dagster/partition_row_count"
TABLE_ROWS = 10
"""Rows of a table in the metadata of an event."""


def for_each_day(
    context: dg.AssetExecutionContext, asset: str, work: Callable[[str], Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Do `work` for every day of the run, oldest first, and attach its result to the materialization of that day."""
    days = sorted(context.partition_keys)
    results = []
    for number, day in enumerate(days, start=1):
        metadata = work(day)
        context.add_asset_metadata(metadata, asset_key=asset, partition_key=day)
        context.log.info("%s: %s is done (%d of %d days)", asset, day, number, len(days))
        results.append(metadata)
    return results


def for_each_market(
    context: dg.AssetExecutionContext, asset: str, work: Callable[[str], Mapping[str, Any]]
) -> dict[str, str]:
    """Do `work` for every market of the run and attach its result to the materialization of that market.

    A market that fails does not stop the others: its materialization has the error, which is also returned by market.
    Raises the error if all markets fail.
    """
    failures: dict[str, str] = {}
    symbols = list(context.partition_keys)
    for symbol in symbols:
        try:
            metadata = work(symbol)
        except BtcError as error:
            if len(failures) == len(symbols) - 1:
                raise
            context.log.exception("%s: %s failed", asset, symbol)
            failures[symbol] = str(error)
            metadata = {"error": str(error)}
        context.add_asset_metadata(metadata, asset_key=asset, partition_key=symbol)
    return failures


def markdown(rows: list[dict[str, Any]], limit: int = TABLE_ROWS) -> dg.MarkdownMetadataValue:
    """The first `limit` rows as a Markdown table."""
    if not rows:
        return dg.MetadataValue.md("none")
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows[:limit]]
    return dg.MetadataValue.md("\n".join(lines))
