"""The servers on Kubernetes are those of the native stack and of compose: settings, memory, and what they may write."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest

from stack.servers import kafka as native_kafka
from stack.servers import postgres, questdb, valkey
from tests.containers import IN_MEMORY, SERVICES
from tests.kubernetes import kafka, values

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the manifests")

RELEASE = "1.35"
"""The version of Kubernetes whose schemas are used."""
COPIES = {"default.replication.factor": 3, "min.insync.replicas": 2}
"""Kafka has three brokers here, and its own topics have as many copies as ours."""


def test_the_servers_have_the_settings_of_the_native_stack() -> None:
    assert values("questdb")["questdb"]["env"] == questdb.server_settings("page-cache")
    lines = [line.partition(" ") for line in values("redis")["valkeyConfig"].splitlines()]
    assert {name: value for name, _, value in lines} == valkey.SERVER_SETTINGS
    tuning = [word for name, value in postgres.TUNING.items() for word in ("-c", f"{name}={value}")]
    assert values("postgres")["args"] == tuning
    native = native_kafka.broker_settings("page-cache")
    copies = {
        name: COPIES["min.insync.replicas" if "min.i" in name else "default.replication.factor"]
        for name in native
        if name.endswith(("replication.factor", "min.isr", "min.insync.replicas"))
    }
    assert kafka()[1]["spec"]["kafka"]["config"] == native | copies
    assert kafka()[0]["spec"]["jvmOptions"] == {"-Xms": "64m", "-Xmx": f"{native_kafka.HEAP_MB}m"}


def _memory() -> Iterator[tuple[str, dict[str, Any]]]:
    """By service of compose the resources that a chart gives it here."""
    for name in ("questdb", "redis", "postgres", "grafana"):
        yield name, values(name)["resources"]
    yield "prometheus", values("prometheus")["server"]["resources"]
    yield "kafka", kafka()[0]["spec"]["resources"]
    dagster = values("dagster")
    yield "dagster-web", dagster["dagsterWebserver"]["resources"]
    yield "dagster-daemon", dagster["dagsterDaemon"]["resources"]
    yield "dagster-code", dagster["dagster-user-deployments"]["deployments"][0]["resources"]


def test_the_servers_have_the_memory_of_compose() -> None:
    for name, resources in _memory():
        assert resources["limits"] == {"memory": SERVICES[name]["mem_limit"].replace("m", "Mi").replace("g", "Gi")}, (
            name
        )
        assert resources["requests"].keys() == {"cpu", "memory"}, name


def test_what_the_values_give_to_pods_is_valid_by_the_schemas_of_kubernetes() -> None:
    dagster = values("dagster")
    (code,) = dagster["dagster-user-deployments"]["deployments"]
    database = values("questdb")
    database |= {"volumeMounts": database["extraVolumeMounts"], "volumes": database["extraVolumes"]}
    postgres_values, redis, grafana = values("postgres"), values("redis"), values("grafana")
    prometheus = values("prometheus")["server"]
    prometheus |= {"securityContext": prometheus["containerSecurityContext"]}
    parts = (
        dagster["dagsterWebserver"],
        dagster["dagsterDaemon"],
        code,
        database,
        postgres_values,
        prometheus,
        grafana,
        redis,
    )
    of_a_container = ("securityContext", "resources", "volumeMounts", "livenessProbe", "args")
    for part in parts:
        container = {"name": "server", "image": "of/a:test"} | {key: part[key] for key in of_a_container if key in part}
        if isinstance(part.get("env"), list):
            container["env"] = part["env"]
        spec = {"containers": [container], "volumes": part.get("volumes", [])}
        if "podSecurityContext" in part:
            spec["securityContext"] = part["podSecurityContext"]
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server"}, "spec": spec}
        kubernetes_validate.validate(manifest, RELEASE, strict=True)


def test_no_container_whose_chart_leaves_it_open_can_write_to_its_image() -> None:
    """The charts of Valkey, PostgreSQL and Grafana close it themselves."""
    chart = values("dagster")
    (code,) = chart["dagster-user-deployments"]["deployments"]
    runs = chart["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]["containerConfig"]
    database = values("questdb")
    database |= {"volumeMounts": database["extraVolumeMounts"], "volumes": database["extraVolumes"]}
    for part in (chart["dagsterWebserver"], chart["dagsterDaemon"], code, database):
        assert {"name": "tmp", "mountPath": IN_MEMORY} in part["volumeMounts"]
        assert {"name": "tmp", "emptyDir": {}} in part["volumes"]
    closed = (chart["dagsterWebserver"], chart["dagsterDaemon"], code, database, runs)
    for context in (
        *(part["securityContext"] for part in closed),
        values("prometheus")["server"]["containerSecurityContext"],
    ):
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    assert database["podSecurityContext"] == user | {"fsGroup": 10001}
    for part in (chart["dagsterWebserver"], chart["dagsterDaemon"], code):
        assert part["podSecurityContext"] == user
