"""Every component of a stack, in the order in which `btc status` shows them.

What does not belong here: how a component is started and checked (`stack/servers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.servers import dagster, kafka, mlflow, postgres, programs, questdb, seaweedfs, valkey

if TYPE_CHECKING:
    from stack.component import Component, Context


def all_components(context: Context) -> dict[str, Component]:
    """All components by name."""
    found = (
        questdb.component(context),
        kafka.component(context),
        valkey.component(context),
        postgres.component(context),
        seaweedfs.component(context),
        mlflow.component(context),
        *dagster.components(context),
        *programs.components(context),
    )
    return {component.name: component for component in found}
