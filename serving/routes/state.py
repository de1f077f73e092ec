"""The paths for supervisors: `/healthz`, `/readyz` and `/metrics`.

What does not belong here: forecasts.
"""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from serving.answers import Alive, Readiness, respond
from serving.deps import deps
from serving.endpoints import documented
from serving.metrics import EXCLUSIVE, update_gauges
from serving.readiness import readiness

blueprint = Blueprint("state", __name__)


@blueprint.get("/healthz")
@documented("state", Alive, is_fast=True)
def healthz() -> Response:
    """Whether the process runs. The answer depends on no other process."""
    return respond(Alive())


@blueprint.get("/readyz")
@documented("state", Readiness, also=(503,))
def readyz() -> Response:
    """Whether forecasts are served: 200 if they are, 503 with the reasons if they are not."""
    state = readiness(deps())
    return respond(state, HTTPStatus.OK if state.status == "ready" else HTTPStatus.SERVICE_UNAVAILABLE)


@blueprint.get("/metrics")
def metrics() -> Response:
    """The metrics of this process for Prometheus."""
    with EXCLUSIVE:
        update_gauges(deps())
        text = generate_latest()
    return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)
