"""`/v1/operations` and `/v1/doctor`: the state of the whole system, for operators. They only read.

What does not belong here: collecting it (`serving.operations`, `serving.doctor`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, current_app

from serving.answers import respond
from serving.endpoints import documented
from serving.operation_answers import Diagnosis, Operations

if TYPE_CHECKING:
    from serving.doctor import Doctor
    from serving.operations import OperationsWatch

blueprint = Blueprint("operations", __name__, url_prefix="/v1")

EXTENSION = "btc-operations"
"""The Flask extension that holds the watch."""
DOCTOR = "btc-doctor"
"""The Flask extension that holds the doctor."""


@blueprint.get("/operations")
@documented("state", Operations, is_fast=True)
def operations() -> Response:
    """Processes, lags, gaps, dead letters, days, disk, and the alerts that fire, as collected seconds ago."""
    watch = cast("OperationsWatch", current_app.extensions[EXTENSION])
    return respond(watch())


@blueprint.get("/doctor")
@documented("state", Diagnosis, problems=(503,))
def doctor() -> Response:
    """Whether every server answers, whose data it holds, and what is wrong with what is stored; asked at most twice a minute."""
    examine = cast("Doctor", current_app.extensions[DOCTOR])
    return respond(examine())
