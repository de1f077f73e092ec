"""The output of runs in containers is kept on the object store, where a machine without the run's disk can read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest
import yaml

from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.settings import Settings

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CONTAINER_CONFIG = ROOT / "deploy" / "dagster.containers.yaml"


@dg.op
def print_line() -> None:
    print("the output of a run")


@dg.job(executor_def=dg.in_process_executor)
def printing_job() -> None:
    print_line()


def test_the_output_of_a_run_can_be_read_on_another_machine(
    servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = servers("store")
    monkeypatch.setenv("BTC_STORE_ENDPOINT_URL", settings.store.endpoint_url)
    monkeypatch.setenv("BTC_STORE_LAKE_BUCKET", settings.store.lake_bucket)
    monkeypatch.setenv("BTC_STORE_REGION", settings.store.region)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.store.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.store.secret_key.get_secret_value())
    added = yaml.safe_load(CONTAINER_CONFIG.read_text())
    assert added["compute_logs"]["config"]["bucket"] == {"env": "BTC_STORE_LAKE_BUCKET"}

    def on_disk(name: str) -> dict[str, object]:
        config = added["compute_logs"]["config"] | {"local_dir": str(tmp_path / name)}
        return {"compute_logs": added["compute_logs"] | {"config": config}}

    with dg.instance_for_test(overrides=on_disk("disk-of-the-run")) as instance:
        run = printing_job.execute_in_process(instance=instance)
    (captured,) = [event for event in run.all_events if event.event_type_value == "LOGS_CAPTURED"]
    key = [run.run_id, "compute_logs", str(captured.logs_captured_data.file_key)]
    with dg.instance_for_test(overrides=on_disk("disk-of-the-webserver")) as instance:
        output = instance.compute_log_manager.get_log_data(key).stdout
    assert output == b"the output of a run\n"
