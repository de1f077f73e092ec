"""The admin actions, which need an admin token: `/reload` and `/retrain`.

What does not belong here: loading and training models. These views only start them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from flask import Blueprint, Response

from btc_core.errors import ServiceError
from btc_core.names import TRAIN_MODELS_JOB
from serving.answers import MarketModels, Reloaded, Retraining, respond
from serving.deps import deps
from serving.endpoints import documented
from serving.problem_details import Problem
from serving.served_forecast import models_of

blueprint = Blueprint("control", __name__)


@blueprint.post("/reload")
@documented("control", Reloaded, needs_admin=True, problems=(503,))
def reload() -> Response:
    """Load the newest champions from the registry now; 503 if there is no model to serve afterwards."""
    deps().models.reload(force=True)
    models = deps().models.current
    if not models.models:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "model_unavailable",
            f"no model can be loaded: {'; '.join(models.reasons)}; train one with POST /retrain",
            headers={"Retry-After": "10"},
        )
    markets = tuple(
        MarketModels(symbol, models_of(models.bid(symbol), models.volatility(symbol)))
        for symbol in deps().settings.exchange.symbols
    )
    return respond(Reloaded(models=markets[0].models, markets=markets, reasons=models.reasons))


@blueprint.post("/retrain")
@documented("control", Retraining, status=202, needs_admin=True, problems=(502,))
def retrain() -> Response:
    """Start the training job unless it is running; 202 with the run to watch, or 502 if Dagster refuses or does not answer."""
    try:
        run = deps().trainer.launch()
    except ServiceError as error:
        raise Problem(
            HTTPStatus.BAD_GATEWAY, "training_not_started", f"{error}; `btc status` shows whether Dagster runs"
        ) from error
    status: Literal["started", "already_running"] = "started" if run.is_new else "already_running"
    answer = Retraining(status=status, run_status=run.status, job=TRAIN_MODELS_JOB, run_id=run.run_id, url=run.url)
    return respond(answer, HTTPStatus.ACCEPTED)
