"""`/v1/operations`: the state of the whole system, for operators. It only reads.

What does not belong here: collecting it (`serving.operations`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, current_app

from serving.answers import respond
from serving.endpoints import documented
from serving.operation_answers import Operations

if TYPE_CHECKING:
    from serving.operations import OperationsWatch

blueprint = Blueprint("operations", __name__, url_prefix="/v1")

EXTENSION = "btc-operations"
"""The Flask extension that holds the watch."""


@blueprint.get("/operations")
@documented("state", Operations, is_fast=True)
def operations() -> Response:
    """Processes, lags, gaps, dead letters, days, disk, and the alerts that fire, as collected seconds ago."""
    watch = cast("OperationsWatch", current_app.extensions[EXTENSION])
    return respond(watch())
