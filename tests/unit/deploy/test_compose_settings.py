"""Which settings docker-compose.yml gives to the processes that read them, and that it changes none without a reason."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from btc_core.settings import Settings, load_settings
from tests.containers import KNOWN_SETTINGS, SERVICES, interpolated
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

DISK_WATCHERS = ("ingest", "bronze")
"""The workers that read `DiskSettings`: one records less, the other exports the metrics of the alerts."""
READERS = {
    "BTC_QUESTDB_TTL_": ("prepare", "dagster-code", "api"),
    "BTC_BACKUP_": ("dagster-code",),
    "BTC_BACKUP_LOG_DAYS": ("dagster-code", "api"),
    "BTC_DAGSTER_KEEP_DAYS": ("dagster-code",),
    "BTC_DAGSTER_EVENT_DAYS": ("dagster-code",),
    "BTC_MLFLOW_KEEP_DAYS": ("dagster-code",),
    "BTC_KAFKA_RETENTION_": ("prepare", "dagster-code", "api"),
    "BTC_SEAL_": ("dagster-code", "dagster-daemon", "api"),
    "BTC_ALERT_REPEAT_H": ("alerts", "dagster-code"),
    "BTC_ALERT_RULES": ("api",),
    "BTC_ALERT_URLS": ("alerts", "dagster-code"),
    "BTC_ALERT_": ("alerts",),
    "BTC_LEAGUE_": ("league", "forecast", "dagster-code"),
    "BTC_DISK_": DISK_WATCHERS,
}
"""By the beginning of a variable of retention, alerts and limits: the services that read it. The longest beginning counts."""
TUNED_IN_CODE = "a person tunes it in the code or on a test bench only: add it to `x-settings` to try it"
NOT_PASSED = {
    "BTC_EXCHANGE_NAME": "COMPOSE_EXCHANGE_MARKETS names the exchanges",
    "BTC_EXCHANGE_SYMBOLS": "COMPOSE_EXCHANGE_MARKETS names the markets",
    "BTC_QUESTDB_READER_USER": "the variables of the server and of Grafana name the user; no process of ours reads it there",
    "BTC_QUESTDB_READER_PASSWORD": "the variables of the server and of Grafana have it; no process of ours reads it there",
    "BTC_MODEL_TRAINER": "Dask is in no image",
    "BTC_MODEL_DASK_ADDRESS": "Dask is in no image",
    "BTC_STORE_PROFILE": "a container has no profiles of AWS, and needs keys",
    "BTC_OFFSITE_PROFILE": "a container has no profiles of AWS, and needs keys",
    "BTC_OFFSITE_LAKE_BUCKET": "BTC_BACKUP_COPY_TO names the bucket of the copies",
    "BTC_OFFSITE_MLFLOW_BUCKET": "BTC_BACKUP_COPY_TO names the bucket of the copies",
    "BTC_API_AUDIT_LOG_MAX_BYTES": "the entries are in the log of the container",
    "BTC_API_MAX_BODY_BYTES": TUNED_IN_CODE,
    "BTC_API_STREAM_INTERVAL_MS": TUNED_IN_CODE,
    "BTC_API_THREADS": TUNED_IN_CODE,
    "BTC_KAFKA_COMPRESSION": TUNED_IN_CODE,
    "BTC_REDIS_TTL_S": TUNED_IN_CODE,
    "BTC_STREAM_BATCH_ROWS": TUNED_IN_CODE,
    "BTC_STREAM_BATCH_WAIT_MS": TUNED_IN_CODE,
    "BTC_STREAM_CONFLATE_ABOVE_MESSAGES": TUNED_IN_CODE,
    "BTC_STREAM_DATA_DEADLINE_S": TUNED_IN_CODE,
    "BTC_STREAM_MAX_FRAME_BYTES": TUNED_IN_CODE,
    "BTC_STREAM_SUBSCRIPTION_DEADLINE_S": TUNED_IN_CODE,
    "BTC_STREAM_TABLE_FLUSH_MS": TUNED_IN_CODE,
}
"""The settings that no service of the composition gets, and why."""
OTHER_DEFAULTS = {"BTC_DISK_PATH": "the path of a volume in the container; natively it is the data directory"}
"""The settings whose default in the composition is not that of the code, and why."""


def _environment(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in (SERVICES[service].get("environment") or {}).items()}


def _given() -> dict[str, set[str]]:
    """By setting, the services that get it."""
    return {name: {each for each in SERVICES if name in _environment(each)} for name in KNOWN_SETTINGS}


def _readers(name: str) -> tuple[str, ...]:
    beginnings = [beginning for beginning in READERS if name.startswith(beginning)]
    return READERS[max(beginnings, key=len)] if beginnings else ()


def _loaded(values: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in KNOWN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_every_setting_reaches_a_container_or_has_a_reason() -> None:
    given = _given()
    assert {name for name, services in given.items() if not services} == set(NOT_PASSED)
    for name in KNOWN_SETTINGS - set(NOT_PASSED):
        assert set(_readers(name)) <= given[name], name
        for service in _readers(name):
            passed = _environment(service)[name]
            assert re.match(rf"\$\{{(BTC|COMPOSE)_{name.removeprefix('BTC_')}:", passed), (service, passed)


def test_every_setting_of_retention_and_alerts_in_the_pages_reaches_what_reads_it() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    named = {name for page in pages for name in re.findall(r"BTC_[A-Z_]*[A-Z]", page.read_text())} & KNOWN_SETTINGS
    limits = {name for name in named if _readers(name)}
    assert {"BTC_QUESTDB_TTL_BRONZE_DAYS", "BTC_BACKUP_KEEP_DAYS", "BTC_ALERT_WAIT_S", "BTC_MLFLOW_KEEP_DAYS"} <= limits
    assert not limits & set(NOT_PASSED)


def test_without_a_line_in_the_env_file_a_setting_has_the_default_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with_default = re.compile(r"\$\{(?P<name>BTC_\w+):-(?P<default>[^}]*)\}")
    found: dict[str, str] = {}
    for service in SERVICES:
        for name, value in _environment(service).items():
            match = with_default.fullmatch(value)
            if name in KNOWN_SETTINGS and match is not None and match["name"] == name:
                assert found.setdefault(name, match["default"]) == match["default"], name
    assert {"BTC_QUESTDB_TTL_GOLD_DAYS", "BTC_ALERT_RESOLVE_S", "BTC_KAFKA_MECHANISM"} <= found.keys()
    kept = {name: value for name, value in found.items() if name not in OTHER_DEFAULTS}
    assert _loaded(kept, monkeypatch) == _loaded({}, monkeypatch)


def test_the_workers_that_watch_the_disk_watch_that_of_a_volume_that_they_mount() -> None:
    for name in DISK_WATCHERS:
        path = interpolated(_environment(name)["BTC_DISK_PATH"], {})
        mounts = {inside: outside for outside, inside, *_ in (each.split(":") for each in SERVICES[name]["volumes"])}
        volume = mounts[path]
        assert PurePosixPath(volume).parts == (volume,), "a folder of the host need not be on the disk of the volumes"
        assert f"mkdir -p /app {path}" in (ROOT / "Dockerfile").read_text()
        assert interpolated(_environment(name)["BTC_DISK_PATH"], {"BTC_DISK_PATH": "/other"}) == "/other"
    assert _given()["BTC_DISK_PATH"] == set(DISK_WATCHERS)
