"""A failed run is reported to the contacts once, however often its job is retried."""

from __future__ import annotations

import warnings

import pytest
from pydantic import SecretStr

from btc_core.settings import AlertSettings, Settings
from tests.webhook import Webhook, contact

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets.failures import failure_sensor
    from btc_assets.resources import Environment

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]


@dg.op
def breaks() -> None:
    msg = "the disk is full"
    raise OSError(msg)


@dg.job(executor_def=dg.in_process_executor)
def sealing() -> None:
    breaks()


@dg.job(executor_def=dg.in_process_executor)
def training() -> None:
    breaks()


def _fail(job: dg.JobDefinition, instance: dg.DagsterInstance) -> None:
    """Run a job that fails, and evaluate the sensor as the daemon does."""
    done = job.execute_in_process(instance=instance, raise_on_error=False, tags={"dagster/partition": "2026-07-01"})
    context = dg.build_run_status_sensor_context(
        sensor_name="failure_sensor",
        dagster_instance=instance,
        dagster_run=done.dagster_run,
        dagster_event=next(event for event in done.all_events if event.event_type_value == "PIPELINE_FAILURE"),
    ).for_run_failure()
    failure_sensor(context, environment=Environment())


def test_the_first_failure_of_a_job_is_sent_and_its_retries_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with contact() as url, dg.DagsterInstance.ephemeral() as instance:
        alert = AlertSettings(urls=SecretStr(url))
        monkeypatch.setattr("btc_assets.resources.settings", lambda: Settings(alert=alert))
        _fail(sealing, instance)
        _fail(sealing, instance)
        _fail(training, instance)
    titles = [message["title"].rpartition(": ")[2] for message in Webhook.received]
    assert titles == ["sealing failed", "training failed"]
    assert "of sealing 2026-07-01 failed" in Webhook.received[0]["message"]
    assert "docs/runbook.md#a-run-fails-in-dagster" in Webhook.received[0]["message"]
    assert "/runs/" in Webhook.received[0]["message"]


def test_a_contact_that_does_not_answer_fails_no_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    alert = AlertSettings(urls=SecretStr("json://127.0.0.1:9/hook"))
    monkeypatch.setattr("btc_assets.resources.settings", lambda: Settings(alert=alert))
    with dg.DagsterInstance.ephemeral() as instance:
        _fail(sealing, instance)
