"""What tests of containers share: docker-compose.yml as read, and the same processes as the native stack starts them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from btc_core.settings import Settings
from stack.component import Context
from stack.layout import Layout
from stack.ports import InternalPorts
from stack.servers import dagster, mlflow, programs
from tests.paths import ROOT

if TYPE_CHECKING:
    from stack.component import Component

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KNOWN_SETTINGS = {
    f"BTC_{section}_{field}".upper()
    for section, kind in Settings.model_fields.items()
    for field in kind.annotation.model_fields  # type: ignore[union-attr]
}
PLACE = {"--host", "--port", "--socket", "--workspace", "--working-directory", "--allowed-hosts"}
"""Options that say where, not what; they differ between a machine and a container."""


def native() -> dict[str, Component]:
    """Processes of the native stack by name."""
    layout = Layout(ROOT / "var" / "of-no-stack")
    context = Context(layout, Settings(), layout.internal_ports() if layout.exists else InternalPorts())
    found = (*programs.components(context), *dagster.components(context), mlflow.component(context))
    return {component.name: component for component in found}


def without_place(command: tuple[str, ...] | list[str]) -> list[str]:
    """Arguments of a command that say what it does."""
    kept, skip = [], False
    for part in command[1:]:
        if not skip and part not in PLACE:
            kept.append(part)
        skip = part in PLACE and not skip
    return kept


def version() -> str:
    """Of this project."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
