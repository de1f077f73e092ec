"""What tests of containers share: the parsed docker-compose.yml, and the processes of the native stack to compare it with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from btc_core.settings import Settings, variables
from stack.component import Context
from stack.layout import Layout
from stack.ports import InternalPorts
from stack.servers import dagster, mlflow, programs
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stack.component import Component

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
"""Their images have the names that they have without BTC_IMAGES and BTC_VERSION."""
BASES = {
    name: image for image, name in re.findall(r"^FROM (\S+) AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
}
"""By stage of the Dockerfile the image or the stage that it starts from."""
ONE_SHOT = {"prepare", "store-owner", "first-training"}
"""The services that end by themselves."""
IN_MEMORY = "/tmp"  # noqa: S108 - a mount of containers
"""What every container may write, beside its volumes."""
KNOWN_SETTINGS = {name.upper() for name in variables()}
LOCATION_OPTIONS = {"--host", "--port", "--socket", "--workspace", "--working-directory", "--allowed-hosts"}
"""Options that say where a process listens or finds its files; a machine and a container differ in them."""


def interpolated(text: str, variables: Mapping[str, str | None]) -> str:
    """A text of docker-compose.yml with the variables in it replaced, as compose does it: by their values, else by their defaults."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match["name"]) or ""
        assert found or match["how"] == ":-", f"{match['name']} is required: {match['rest']}"
        return found or match["rest"]

    return re.sub(r"\$\{(?P<name>\w+)(?P<how>:[-?])(?P<rest>[^}]*)\}", value, text)


def targets(root: Path = ROOT) -> dict[str, str]:
    """By the image that a checkout builds, as its compose files name it: its stage of the Dockerfile."""
    files = [root / name for name in ("docker-compose.yml", "docker-compose.override.yml")]
    found = [yaml.safe_load(file.read_text())["services"] for file in files if file.is_file()]
    services: dict[str, dict[str, Any]] = {name: {} for each in found for name in each}
    for each in found:
        for name, service in each.items():
            services[name] |= service
    return {str(each["image"]): each["build"]["target"] for each in services.values() if "build" in each}


for _service in SERVICES.values():
    _service["image"] = interpolated(_service["image"], {})


def native_components() -> dict[str, Component]:
    """Components of the native stack by name."""
    layout = Layout(ROOT / "var" / "of-no-stack")
    context = Context(layout, Settings(), layout.internal_ports() if layout.exists else InternalPorts())
    found = (*programs.components(context), *dagster.components(context), mlflow.component(context))
    return {component.name: component for component in found}


def without_location(command: tuple[str, ...] | list[str]) -> list[str]:
    """The arguments of a command without those that say where."""
    kept, skip = [], False
    for part in command[1:]:
        if not skip and part not in LOCATION_OPTIONS:
            kept.append(part)
        skip = part in LOCATION_OPTIONS and not skip
    return kept


def version() -> str:
    """The version of this project."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
