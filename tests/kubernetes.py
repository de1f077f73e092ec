"""deploy/kubernetes as tests see it: rendered manifests, the values of the charts, and what the network policies allow.

What does not belong here: tests.
"""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml
from dotenv import dotenv_values

from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "deploy" / "kubernetes"
WORKLOADS = (
    "ingest",
    "bronze",
    "features",
    "forecast",
    "repair",
    "league",
    "api",
    "alerts",
    "mlflow",
    "prepare",
    "first-training",
)
JOBS = {"prepare", "first-training"}
"""They end by themselves, so they have no probes and no services."""
SETTINGS = dotenv_values(FOLDER / "settings.env")
Manifest = dict[str, Any]


@cache
def rendered(folder: Path = FOLDER) -> dict[tuple[str, str], Manifest]:
    """What `kubectl apply -k` would send, by kind and name."""
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.safe_load_all(done.stdout) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


@cache
def kafka() -> list[Manifest]:
    return list(yaml.safe_load_all((FOLDER / "kafka.yaml").read_text()))


def values(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "values" / f"{chart}.yaml").read_text())
    return found


def workload(name: str) -> Manifest:
    """A workload; the name of a job also has the tag of its image."""
    (found,) = (each for (kind, it), each in rendered().items() if runs(kind) and it.startswith(name))
    return found


def pod(name: str) -> Manifest:
    """The pod template of a workload."""
    found: Manifest = workload(name)["spec"]["template"]
    return found


def container(name: str) -> Manifest:
    (found,) = pod(name)["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def runs(kind: str) -> bool:
    return kind in {"StatefulSet", "Deployment", "Job"}


def environment(name: str) -> dict[str, str]:
    """Values of a container that are no secrets; its own win over those of settings.env, as in Kubernetes."""
    shared = SETTINGS if container(name).get("envFrom") else {}
    own = {each["name"]: each["value"] for each in container(name)["env"] if "value" in each}
    return {key: value or "" for key, value in (shared | own).items()}


def secrets(name: str, *, optional: bool = False) -> dict[str, tuple[str, str]]:
    """Variable: secret and its key; either those that every pod needs or those that only managed services have."""
    named = {each["name"]: each.get("valueFrom", {}).get("secretKeyRef") for each in container(name)["env"]}
    return {
        variable: (found["name"], found["key"])
        for variable, found in named.items()
        if found and found.get("optional", False) == optional
    }


PEERS = {"questdb": {"app.kubernetes.io/name": "questdb"}, "redis": {"app.kubernetes.io/name": "valkey"},
         "postgres": {"app.kubernetes.io/name": "postgres"}, "dagster-web": {"app.kubernetes.io/name": "dagster"},
         "dagster-code": {"app.kubernetes.io/name": "dagster-user-deployments"},
         "kafka-kafka-bootstrap": {"strimzi.io/cluster": "kafka", "strimzi.io/kind": "Kafka"}}  # fmt: skip
"""Labels that the charts give to the pods behind a service."""


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ()))


@cache
def listens() -> dict[str, set[int]]:
    """Ports by service, ours and the charts'."""
    ours_here = {name: {p["port"] for p in s["spec"]["ports"]} for (k, name), s in rendered().items() if k == "Service"}
    web = values("dagster")["dagsterWebserver"]
    (code,) = values("dagster")["dagster-user-deployments"]["deployments"]
    return ours_here | {
        "kafka-kafka-bootstrap": {each["port"] for each in kafka()[1]["spec"]["kafka"]["listeners"]},
        "questdb": {9000, 8812},
        values("redis")["fullnameOverride"]: {6379},
        values("postgres")["fullnameOverride"]: {5432},
        f"dagster-{web['nameOverride']}": {web["service"]["port"]},
        code["name"]: {code["port"]},
        values("prometheus")["server"]["fullnameOverride"]: {values("prometheus")["server"]["service"]["servicePort"]},
        "store": {9010},
    }


def allowed(direction: str, own: dict[str, str], theirs: dict[str, str]) -> set[int]:
    """Ports between pods of the namespace that policies of `own` allow with `theirs`."""
    found: set[int] = set()
    side, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    for (kind, _), manifest in rendered().items():
        spec = manifest["spec"] if kind == "NetworkPolicy" else {}
        if direction not in spec.get("policyTypes", ()) or not selects(spec["podSelector"], own):
            continue
        for rule in spec.get(side, ()):
            chosen = [
                each for each in rule.get(peers, ()) if "podSelector" in each or each.get("namespaceSelector") == {}
            ]
            if any(selects(each.get("podSelector", {}), theirs) for each in chosen):
                found |= {number for port in rule["ports"] for number in _numbers(port, own)}
    return found


def _numbers(port: Manifest, own: dict[str, str]) -> set[int]:
    """The numbers of a port of a policy: a range, or what the pods that the policy is about call so."""
    if isinstance(port["port"], int):
        return set(range(port["port"], port.get("endPort", port["port"]) + 1))
    pods = [container(name) for name in WORKLOADS if pod(name)["metadata"]["labels"] == own]
    return {each["containerPort"] for here in pods for each in here["ports"] if each["name"] == port["port"]}
