"""Every component of a stack, in the order in which `btc status` shows them.

What does not belong here: how a component is started and checked (`stack/servers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.given_servers import given_component
from stack.server_addresses import given_servers
from stack.servers import dagster, kafka, mlflow, postgres, programs, questdb, seaweedfs, valkey

if TYPE_CHECKING:
    from stack.component import Component, Context


def all_components(context: Context) -> dict[str, Component]:
    """All components by name; an external server takes the place of the stack's own."""
    servers = {
        "questdb": questdb.component,
        "kafka": kafka.component,
        "valkey": valkey.component,
        "postgres": postgres.component,
        "store": seaweedfs.component,
    }
    settings = context.settings
    given = given_servers(settings)
    found = (
        *(given_component(settings, name) if name in given else own(context) for name, own in servers.items()),
        mlflow.component(context),
        *dagster.components(context),
        *programs.components(context),
    )
    return {component.name: component for component in found}
