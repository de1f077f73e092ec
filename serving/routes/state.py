"""Whether it works: `/healthz`, `/readyz`, `/metrics`, `/test`, `/test_post`.

What does not belong here: forecasts.
"""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from btc_core.features.catalogue import FEATURE_VERSION
from serving.answers import Alive, Echo, Readiness, Test, respond
from serving.deps import deps
from serving.endpoints import promises
from serving.forecasts import models_of
from serving.legacy.bodies import decode
from serving.metrics import measure
from serving.readiness import readiness

blueprint = Blueprint("state", __name__)


@blueprint.get("/healthz")
@promises("state", Alive)
def healthz() -> Response:
    """The process is alive; asks nobody else."""
    return respond(Alive())


@blueprint.get("/readyz")
@promises("state", Readiness, also=(503,))
def readyz() -> Response:
    """Whether forecasts are served: 200 when ready, 503 with the reasons when not yet."""
    state = readiness(deps())
    return respond(state, HTTPStatus.OK if state.status == "ready" else HTTPStatus.SERVICE_UNAVAILABLE)


@blueprint.get("/metrics")
def metrics() -> Response:
    """What Prometheus scrapes."""
    measure(deps())
    return Response(generate_latest(), content_type=CONTENT_TYPE_PLAIN_0_0_4)


@blueprint.get("/test")
@promises("state", Test)
def test() -> Response:
    """The API works, and these are the models it has loaded."""
    return respond(
        Test(
            message="The API works.",
            feature_version=FEATURE_VERSION,
            models=models_of(deps().models.current),
            simulated=deps().settings.simulated,
        )
    )


@blueprint.post("/test_post")
@promises("state", Echo, body="AnyJson")
def test_post() -> Response:
    """Send back the JSON that came; its size is bounded as every body's is."""
    return respond(Echo(message="The API read this.", received=decode(request.get_data())))
