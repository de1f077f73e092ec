"""A client of Dagster's GraphQL API: it starts runs and backfills and reads their status.

What does not belong here: what the runs do (`btc_assets`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from btc_core.errors import ServiceError
from btc_core.names import CODE_LOCATION
from btc_core.stores.shared_http import shared_client

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from btc_core.settings import Settings

REPOSITORY = "__repository__"
TIMEOUT_S = 30.0

_LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {selector: $selector, executionMetadata: {tags: $tags}}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PipelineNotFoundError { message }
    ... on UnauthorizedError { message }
  }
}
"""
_STATUS = """
query Status($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } ... on RunNotFoundError { message } } }
"""

_UNFINISHED = """
query Unfinished($job: String!) {
  runsOrError(filter: {pipelineName: $job, statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}, limit: 1) {
    __typename ... on Runs { results { runId status } }
  }
}
"""

_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
  }
}
"""
_BACKFILL_STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PythonError { message }
    ... on PartitionBackfill {
      status
      assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
        numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed } } }
    }
  }
}
"""
_DAEMON = """{ instance { daemonHealth { daemonStatus(daemonType: "BACKFILL") { healthy } } } }"""


class BackfillStatus(msgspec.Struct, frozen=True):
    """The progress of a backfill, in partitions of assets."""

    status: str
    """REQUESTED, COMPLETED_SUCCESS, COMPLETED_FAILED, CANCELED, or an intermediate status."""
    targeted: int
    done: int
    failed: int


def daemon_runs(settings: Settings, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether Dagster answers in time and its backfill daemon is healthy."""
    try:
        health = _ask(settings, _DAEMON, {}, timeout_s)["instance"]["daemonHealth"]["daemonStatus"]
    except ServiceError:
        return False
    return bool(health["healthy"])


def launch_backfill(settings: Settings, assets: Sequence[str], days: Sequence[str], tags: Mapping[str, str]) -> str:
    """Ask the daemon to materialize days of assets and return the backfill's id; raises `ServiceError`."""
    params = {
        "assetSelection": [{"path": [name]} for name in assets],
        "partitionNames": list(days),
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    result = _ask(settings, _BACKFILL, {"params": params})["launchPartitionBackfill"]
    if result["__typename"] != "LaunchBackfillSuccess":
        msg = f"Dagster did not start the backfill: {result.get('message', result['__typename'])}"
        raise ServiceError(msg)
    return str(result["backfillId"])


def backfill_status(settings: Settings, backfill_id: str) -> BackfillStatus:
    """The progress of a backfill; raises `ServiceError`."""
    result = _ask(settings, _BACKFILL_STATUS, {"id": backfill_id})["partitionBackfillOrError"]
    if result["__typename"] != "PartitionBackfill":
        msg = f"Dagster knows no backfill {backfill_id}: {result.get('message', result['__typename'])}"
        raise ServiceError(msg)
    counts = (result["assetBackfillData"] or {"assetBackfillStatuses": []})["assetBackfillStatuses"]
    names = ("numPartitionsTargeted", "numPartitionsMaterialized", "numPartitionsFailed")
    targeted, done, failed = (sum(int(entry[name]) for entry in counts) for name in names)
    return BackfillStatus(str(result["status"]), targeted, done, failed)


def market_tags(symbols: Sequence[str]) -> dict[str, str]:
    """The tags of a run for all of these markets, which are the first to the last partition of its assets."""
    return {"dagster/asset_partition_range_start": symbols[0], "dagster/asset_partition_range_end": symbols[-1]}


def launch_job(settings: Settings, job: str, tags: Mapping[str, str]) -> str:
    """Start a job of the code location and return its run id; raises `ServiceError` with Dagster's message."""
    selector = {"repositoryLocationName": CODE_LOCATION, "repositoryName": REPOSITORY, "jobName": job}
    listed = [{"key": key, "value": value} for key, value in tags.items()]
    result = _ask(settings, _LAUNCH, {"selector": selector, "tags": listed})["launchRun"]
    if result["__typename"] != "LaunchRunSuccess":
        words = result.get("message") or [error["message"] for error in result.get("errors", [])]
        msg = f"Dagster did not start the job {job}: {words or result['__typename']}"
        raise ServiceError(msg)
    return str(result["run"]["runId"])


def run_status(settings: Settings, run_id: str) -> str:
    """The status of a run: QUEUED, STARTING, STARTED, SUCCESS, FAILURE, CANCELED, or an intermediate status."""
    result = _ask(settings, _STATUS, {"id": run_id})["runOrError"]
    if result["__typename"] != "Run":
        msg = f"Dagster knows no run {run_id}: {result.get('message', result['__typename'])}"
        raise ServiceError(msg)
    return str(result["status"])


def unfinished_run(settings: Settings, job: str) -> str:
    """The id of a run of a job that waits or is running, "" if there is none; raises `ServiceError`."""
    result = _ask(settings, _UNFINISHED, {"job": job})["runsOrError"]
    if result["__typename"] != "Runs":
        msg = f"Dagster does not list the runs of {job}: {result.get('message', result['__typename'])}"
        raise ServiceError(msg)
    return str(result["results"][0]["runId"]) if result["results"] else ""


def run_url(settings: Settings, run_id: str) -> str:
    """The page of a run in Dagster's UI."""
    return f"{settings.dagster.url}/runs/{run_id}"


def _ask(settings: Settings, query: str, variables: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    url = f"{settings.dagster.url}/graphql"
    try:
        response = shared_client().post(url, json={"query": query, "variables": variables}, timeout=timeout_s)
        answer = response.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        msg = f"Dagster at {settings.dagster.url} does not answer: {error!r}"
        raise ServiceError(msg) from error
    if "errors" in answer:
        msg = f"Dagster refused: {[error['message'] for error in answer['errors']]}"
        raise ServiceError(msg)
    if not isinstance(answer.get("data"), dict):
        msg = f"{url} did not answer with GraphQL; check that Dagster runs at this address"
        raise ServiceError(msg)
    return answer["data"]  # type: ignore[no-any-return]
