"""What runs print in containers: kept on the object store, and read where the run's own disk is not."""

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

ADDED = ROOT / "deploy" / "dagster.containers.yaml"


@dg.op
def speak() -> None:
    print("the words of a run")


@dg.job(executor_def=dg.in_process_executor)
def speaking() -> None:
    speak()


def test_another_disk_shows_what_a_run_printed(
    servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = servers("store")
    monkeypatch.setenv("BTC_STORE_ENDPOINT_URL", settings.store.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.store.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.store.secret_key.get_secret_value())
    added = yaml.safe_load(ADDED.read_text())
    assert added["compute_logs"]["config"]["bucket"] == settings.store.lake_bucket

    def on_a_disk(name: str) -> dict[str, object]:
        config = added["compute_logs"]["config"] | {"local_dir": str(tmp_path / name)}
        return {"compute_logs": added["compute_logs"] | {"config": config}}

    with dg.instance_for_test(overrides=on_a_disk("of-the-run")) as instance:
        run = speaking.execute_in_process(instance=instance)
    (captured,) = [event for event in run.all_events if event.event_type_value == "LOGS_CAPTURED"]
    key = [run.run_id, "compute_logs", str(captured.logs_captured_data.file_key)]
    with dg.instance_for_test(overrides=on_a_disk("of-the-webserver")) as instance:
        said = instance.compute_log_manager.get_log_data(key).stdout
    assert said == b"the words of a run\n"
