"""A pod gets the keys of every store that its program uses, and reaches it: what the source says against the manifests."""

from __future__ import annotations

import ast
import shutil
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes import PEERS, WORKLOADS, allowed, container, listens, pod, rendered, secrets, selects
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {
    "kafka": set(), "mlflow": set(), "dagster": set(),
    "questdb": {"BTC_QUESTDB_USER", "BTC_QUESTDB_PASSWORD"},
    "redis": {"BTC_REDIS_PASSWORD"},
    "store": {"BTC_STORE_ACCESS_KEY", "BTC_STORE_SECRET_KEY"},
    "postgres": {"BTC_POSTGRES_USER", "BTC_POSTGRES_PASSWORD"},
}  # fmt: skip
"""By the section of the settings: the secrets without which its server refuses a process."""
SERVICES = {"kafka": "kafka-kafka-bootstrap", "dagster": "dagster-web"}
"""Services that have other names than the sections."""
STORE_PORT = 9010
ONLY_ASKS = {("api", "postgres")}
"""Servers that a process only asks whether they answer."""
NOT_HERE = {
    ("first-training", "questdb"): "only a simulated system fetches its past day",
    ("first-training", "store"): "MLflow keeps its artifacts behind its server here",
}

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the manifests")


def _module(name: str) -> Path | None:
    """The source of a module of ours; None if the name is that of a function or a class."""
    path = ROOT / name.replace(".", "/")
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in found if each.is_file()), None)


@cache
def _read(name: str, package: str) -> tuple[set[str], set[str]]:
    """The modules of the package that a module imports, and the sections of the settings that it uses."""
    file = _module(name)
    imported: set[str] = set()
    used: set[str] = set()
    left: list[ast.AST] = [ast.parse(file.read_text())] if file else []
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            names = (node.module, *(f"{node.module}.{each.name}" for each in node.names))
            imported |= {each for each in names if _module(each)}
        if isinstance(node, ast.Attribute) and node.attr in KEYS:
            base = node.value
            owner = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
            used |= {node.attr} if owner in {"settings", "_settings", "configured"} else set()
        left += ast.iter_child_nodes(node)
    return imported, used


def _sections(module: str) -> set[str]:
    """The sections of the settings that a program uses, in the modules of its own package."""
    seen: set[str] = set()
    used: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            imported, found = _read(name, module.split(".", maxsplit=1)[0])
            left += imported
            used |= found
    return used


def _program(name: str) -> str:
    _python, _m, module, *rest = container(name)["args"]
    if module == "streaming":
        return f"streaming.{rest[0]}"
    return "serving.__main__" if module == "serving" else module


def _reaches(name: str, section: str) -> bool:
    labels = pod(name)["metadata"]["labels"]
    if section == "store":  # it is anywhere, so policies name only its ports
        rules = [
            (each["spec"], rule)
            for (kind, _), each in rendered().items()
            if kind == "NetworkPolicy"
            for rule in each["spec"].get("egress", ())
        ]
        return any(
            "to" not in rule and {"port": STORE_PORT} in rule["ports"] and selects(spec["podSelector"], labels)
            for spec, rule in rules
        )
    service = SERVICES.get(section, section)
    peers = PEERS | {"mlflow": pod("mlflow")["metadata"]["labels"]}
    return bool(allowed("Egress", labels, peers[service]) & listens()[service])


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "mlflow"])  # which has no settings of ours
def test_a_pod_has_the_keys_of_what_its_program_uses_and_reaches_it(name: str) -> None:
    used = {each for each in _sections(_program(name)) if (name, each) not in NOT_HERE}
    for section in used:
        if (name, section) not in ONLY_ASKS:
            assert KEYS[section] <= secrets(name).keys(), f"{name} uses {section} without its keys"
        assert _reaches(name, section), f"no policy lets {name} reach {section}"


def test_what_a_program_uses_is_found_in_its_source() -> None:
    assert _sections("streaming.repair") == {"kafka"}
    assert _sections("streaming.forecast") == {"kafka", "questdb", "redis", "store"}
    assert _sections("serving.alerts") == set()
    assert _sections("serving.__main__") >= {"questdb", "redis", "store", "kafka", "mlflow"}
