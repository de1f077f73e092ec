"""`python -m btc_assets DAY DAY ... --assets NAME ...`: materialize days in this process, without Dagster's daemon.

`btc backfill` starts it if no daemon is running. It prints a line `done DAY` after each day. An interrupted call can be
repeated, because sealing a day twice changes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from contextlib import ExitStack

import dagster as dg

from btc_core.errors import BtcError
from btc_core.names import INSIST_TAG


def main() -> int:
    """Returns the exit code: 0 if every day is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("days", nargs="+")
    parser.add_argument("--assets", nargs="+", required=True)
    parser.add_argument("--insist", action="store_true", help="write changes of a day that a proof refuses")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # Dagster warns of its own parameters that are in beta
    from btc_assets.definitions import defs  # noqa: PLC0415 - after the filter

    tags = {INSIST_TAG: "yes"} if chosen.insist else {}
    graph = defs.resolve_asset_graph()
    assets = [graph.get(dg.AssetKey(name)).assets_def for name in chosen.assets]
    with ExitStack() as stack:
        home = os.environ.get("DAGSTER_HOME")
        instance = dg.DagsterInstance.get() if home else stack.enter_context(dg.DagsterInstance.ephemeral())
        for day in chosen.days:
            try:
                result = dg.materialize(assets, partition_key=day, instance=instance, tags=tags, raise_on_error=False)
            except (BtcError, dg.DagsterError) as error:
                sys.stderr.write(f"{day}: {error}\n")
                return 1
            if not result.success:
                sys.stderr.write(f"{day}: {_failure(result)}\n")
                return 1
            sys.stdout.write(f"done {day}\n")
            sys.stdout.flush()
    return 0


def _failure(result: dg.ExecuteInProcessResult) -> str:
    """Why the run failed: what its checks say, or else the first step that failed and the message of its root cause."""
    checks = [check for check in result.get_asset_check_evaluations() if not check.passed and check.blocking]
    if checks:
        return "; ".join(
            f"{check.asset_key.to_user_string()}: {check.check_name} failed. {check.description or ''}".rstrip()
            for check in checks
        )
    failed = [event for event in result.all_events if event.is_step_failure]
    error = failed[0].step_failure_data.error if failed else None
    while error is not None and error.cause is not None:
        error = error.cause
    return f"{failed[0].step_key}: {error.message.strip()}" if error is not None else "a blocking check failed"


if __name__ == "__main__":
    sys.exit(main())
