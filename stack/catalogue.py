"""Every component of a stack, in the order in which `btc status` shows them.

What does not belong here: what any of them is. Adding one is adding a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.servers import dagster, kafka, mlflow, ours, postgres, questdb, valkey, weed

if TYPE_CHECKING:
    from stack.component import Component, Context


def components(context: Context) -> dict[str, Component]:
    """All components by name."""
    found = (
        questdb.component(context),
        kafka.component(context),
        valkey.component(context),
        postgres.component(context),
        weed.component(context),
        mlflow.component(context),
        *dagster.components(context),
        *ours.components(context),
    )
    return {component.name: component for component in found}
