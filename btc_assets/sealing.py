"""When a day is sealed: a sensor asks which days are complete and what they are, one run for each day and seal.

A run that fails is asked for again after a pause. What does not belong here: what sealing does (`sealed`).
"""

from __future__ import annotations

import dagster as dg
import msgspec
from dagster._core.storage.tags import PARTITION_NAME_TAG

from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_assets.sealed import SEAL_TAG, sealed_assets
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.names import SEAL_DAY_JOB
from btc_core.utc_day import day_ns, day_of

SENSOR_INTERVAL_S = 60
ATTEMPTS = 6
AGAIN_S = 300.0
"""After a failed run; after the second failure twice that, and so on: two and a half hours in all."""

seal_day = dg.define_asset_job(
    SEAL_DAY_JOB,
    selection=dg.AssetSelection.assets(*sealed_assets),
    description="Prove a complete day, repair what differs, keep its gold, copy it to the object store.",
    tags={"btc/kind": "sealing"},
)


def read_cursor(text: str | None) -> dict[str, str]:
    """Days and the seals last asked for; empty at first and after a change of its form."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, str])
    except msgspec.MsgspecError:
        return {}


def request(day: str, seal: str, failed: int = 0) -> dg.RunRequest:
    """The one run of a day and seal: Dagster starts no second one of the same key, whatever restarts meanwhile."""
    again = f"#{failed + 1}" if failed else ""
    return dg.RunRequest(run_key=f"{day}@{seal}{again}", partition_key=day, tags={SEAL_TAG: seal})


def failures(instance: dg.DagsterInstance, day: str, seal: str) -> tuple[int, float]:
    """How many runs of a day and seal have failed, if the newest has, and when that ended in s; (0, 0.0) otherwise."""
    wanted = dg.RunsFilter(job_name=seal_day.name, tags={SEAL_TAG: seal, PARTITION_NAME_TAG: day})
    runs = instance.get_run_records(wanted, limit=ATTEMPTS)
    if not runs or runs[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return 0, 0.0
    failed = sum(run.dagster_run.status is dg.DagsterRunStatus.FAILURE for run in runs)
    return failed, runs[0].end_time or 0.0


def why_not_again(failed: int, since_s: float) -> str:
    """Why a day whose run has failed so often, the last time `since_s` ago, is not asked for now; empty when it is."""
    if failed >= ATTEMPTS:
        return f"{failed} runs have failed, and their pages say why; once it is mended: btc backfill"
    pause_s = AGAIN_S * 2 ** (failed - 1) if failed else 0.0
    return f"run {failed} has failed; again in {pause_s - since_s:.0f} s" if since_s < pause_s else ""


@dg.sensor(job=seal_day, minimum_interval_seconds=SENSOR_INTERVAL_S, default_status=dg.DefaultSensorStatus.RUNNING)
def sealing_sensor(
    context: dg.SensorEvaluationContext, environment: Environment, database: Database
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run of each complete day whose seal is new: at its end, and again when late or repaired data came."""
    from btc_core.days.seals import seal_of, sealing_blocker  # noqa: PLC0415 - Kafka's client is slow to import

    chosen = environment.get()
    asked = read_cursor(context.cursor)
    now = now_ns()
    days = [day_of(now - back * NS_PER_DAY) for back in range(chosen.seal.lookback_days, 0, -1)]
    days = [day for day in days if day >= chosen.seal.first_day]
    requests, waiting = [], []
    try:
        with database.connect() as db:
            for day in days:
                seal = seal_of(db, day)
                if not any(seal.rows.values()):
                    continue
                failed, ended_s = failures(context.instance, day, seal.id)
                if asked.get(day) == seal.id and not failed:
                    continue
                why = sealing_blocker(chosen, db, day, now) or why_not_again(failed, now / NS_PER_S - ended_s)
                if why:
                    waiting.append(f"{day}: {why}")
                else:
                    requests.append(request(day, seal.id, failed))
                    asked[day] = seal.id
    except ServiceError as error:
        return dg.SkipReason(f"no day was looked at: {error}")
    if not requests:
        return dg.SkipReason("; ".join(waiting) or "no complete day has changed")
    oldest = day_ns(days[0])
    cursor = {day: seal for day, seal in asked.items() if day_ns(day) >= oldest}
    return dg.SensorResult(run_requests=requests, cursor=msgspec.json.encode(cursor).decode())
