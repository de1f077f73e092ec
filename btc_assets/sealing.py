"""When a day is sealed: a sensor finds the complete days and their seals, and requests one run for each day and seal.

A day whose rows still change, as during an import, waits. A run that failed is requested again after a pause. What does
not belong here: what sealing does (`sealed`).
"""

from __future__ import annotations

import dagster as dg
import msgspec
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG

from btc_assets.past_trades import bronze_history
from btc_assets.pruning import PARTITION_TAGS
from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_assets.sealed import SEAL_TAG, sealed_assets
from btc_assets.table_checks import check_tables
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.days.seals import seal_of, sealing_blocker
from btc_core.errors import ServiceError
from btc_core.names import SEAL_DAY_JOB
from btc_core.utc_day import day_of

SENSOR_INTERVAL_S = 60
MAX_ATTEMPTS = 6
RETRY_PAUSE_S = 300.0
"""After the first failed run; each further failure doubles it, which makes two and a half hours in all."""

seal_day = dg.define_asset_job(
    SEAL_DAY_JOB,
    selection=dg.AssetSelection.assets(*sealed_assets),
    description="Prove a complete day against the log and a replay, repair what differs, keep its gold, copy it to the "
    "object store, and archive its messages of the log there.",
    tags={"btc/kind": "sealing"},
)


class Cursor(msgspec.Struct):
    """What the sensor remembers between two ticks, by day."""

    requested: dict[str, str] = {}
    """The seal that was requested last."""
    seen: dict[str, str] = {}
    """The seal at the last tick. A day whose seal has changed since is being written."""


def read_cursor(text: str | None) -> Cursor:
    """The cursor of the last tick; empty at the first tick and after a release that changed the form."""
    try:
        return msgspec.json.decode(text or "{}", type=Cursor)
    except msgspec.MsgspecError:
        return Cursor()


def run_request(day: str, seal: str, failed: int = 0) -> dg.RunRequest:
    """A request for the run of a day and seal; Dagster starts only one run of a key, also after a restart."""
    attempt = f"#{failed + 1}" if failed else ""
    key = f"{day}@{seal}{attempt}"
    return dg.RunRequest(run_key=key, job_name=seal_day.name, partition_key=day, tags={SEAL_TAG: seal})


def days_being_fetched(instance: dg.DagsterInstance, days: list[str]) -> set[str]:
    """The days whose trades an unfinished run fetches, or will fetch."""
    found: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        if run.asset_selection and bronze_history.key in run.asset_selection:
            named = sorted(run.tags[tag] for tag in PARTITION_TAGS if tag in run.tags)  # a day, or the ends of a range
            found |= {day for day in days if named and named[0] <= day <= named[-1]}
    return found


def failed_runs(instance: dg.DagsterInstance, day: str, seal: str) -> tuple[int, float]:
    """How many runs of a day and seal failed and when the newest ended, s; (0, 0.0) unless the newest failed."""
    wanted = dg.RunsFilter(job_name=seal_day.name, tags={SEAL_TAG: seal, PARTITION_NAME_TAG: day})
    runs = instance.get_run_records(wanted, limit=MAX_ATTEMPTS)
    if not runs or runs[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return 0, 0.0
    failed = sum(run.dagster_run.status is dg.DagsterRunStatus.FAILURE for run in runs)
    return failed, runs[0].end_time or 0.0


def retry_blocker(failed: int, since_s: float) -> str:
    """Why a day is not requested now after `failed` runs, the last of which ended `since_s` ago; empty if it is."""
    if failed >= MAX_ATTEMPTS:
        return f"{failed} runs have failed, and their pages say why; after the repair run btc backfill"
    pause_s = RETRY_PAUSE_S * 2 ** (failed - 1) if failed else 0.0
    return f"run {failed} has failed; the next one starts in {pause_s - since_s:.0f} s" if since_s < pause_s else ""


@dg.sensor(
    jobs=[seal_day, check_tables],
    minimum_interval_seconds=SENSOR_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests a run for each complete day that has a new seal: when the day is over, and again when late or "
    "repaired data has changed it.",
)
def sealing_sensor(
    context: dg.SensorEvaluationContext, environment: Environment, database: Database
) -> dg.SensorResult | dg.SkipReason:
    """Request the runs of the days that are complete, do not change any more, and are not sealed as they are.

    The daily checks of the tables found no rows of a day that was fetched or imported afterwards, so that they are requested
    again for yesterday. They run after its sealing, because both have the tag of which only one run is started at a time.
    """
    chosen = environment.get()
    before = read_cursor(context.cursor)
    now = now_ns()
    days = [day_of(now - back * NS_PER_DAY) for back in range(chosen.seal.lookback_days, 0, -1)]
    days = [day for day in days if day >= chosen.seal.first_day]
    requests, waiting = [], []
    requested, seen = before.requested, {}
    fetched = days_being_fetched(context.instance, days)
    try:
        with database.connect() as db:
            for day in days:
                seal = seal_of(db, day)
                if not any(seal.rows.values()):
                    continue
                seen[day] = seal.id
                failed, ended_s = failed_runs(context.instance, day, seal.id)
                if requested.get(day) == seal.id and not failed:
                    continue
                blocker = "a run still fetches its trades" if day in fetched else ""
                blocker = blocker or sealing_blocker(chosen, db, day, now)
                blocker = blocker or retry_blocker(failed, now / NS_PER_S - ended_s)
                if before.seen.get(day) != seal.id:
                    blocker = (
                        blocker or "its rows may still be written; they are compared at the next look, in a minute"
                    )
                if blocker:
                    waiting.append(f"{day}: {blocker}")
                    continue
                requests.append(run_request(day, seal.id, failed))
                requested[day] = seal.id
                if day == days[-1] and seal.last_offset < 0:
                    requests.append(dg.RunRequest(run_key=f"checks {day}@{seal.id}", job_name=check_tables.name))
    except ServiceError as error:
        return dg.SkipReason(f"the days could not be checked: {error}")
    cursor = msgspec.json.encode(Cursor({day: requested[day] for day in days if day in requested}, seen)).decode()
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    reason = "; ".join(waiting) or "no complete day has changed since it was sealed"
    return dg.SensorResult(skip_reason=reason, cursor=cursor)
