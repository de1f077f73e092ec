"""What changes something, behind the token: `/reload`, `/retrain`.

What does not belong here: training and loading; these views only start them.
"""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response

from btc_core.errors import ServiceError
from btc_core.names import TRAIN_MODELS_JOB
from serving.answers import Reloaded, Retraining, respond
from serving.auth import needs_token
from serving.deps import deps
from serving.endpoints import promises
from serving.forecasts import models_of
from serving.problem_details import Problem

blueprint = Blueprint("control", __name__)


@blueprint.post("/reload")
@promises("control", Reloaded, guarded=True, problems=(503,))
@needs_token
def reload() -> Response:
    """Load the champions of the registry now; 503 when there is nothing to serve afterwards."""
    champions = deps().models.reload(force=True)
    if champions.bid is None and champions.volatility is None:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "model_unavailable",
            f"no model can be loaded: {'; '.join(champions.reasons)}; train one with POST /retrain",
            headers={"Retry-After": "10"},
        )
    return respond(Reloaded(models=models_of(champions), reasons=champions.reasons))


@blueprint.post("/retrain")
@promises("control", Retraining, status=202, guarded=True, problems=(502,))
@needs_token
def retrain() -> Response:
    """Start the training job; 202 with the run to watch, 502 when Dagster refuses or is away."""
    try:
        run = deps().trainer.launch()
    except ServiceError as error:
        raise Problem(
            HTTPStatus.BAD_GATEWAY, "training_not_started", f"{error}; `btc status` shows whether Dagster runs"
        ) from error
    return respond(
        Retraining(status="started", job=TRAIN_MODELS_JOB, run_id=run.run_id, url=run.url), HTTPStatus.ACCEPTED
    )
