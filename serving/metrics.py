"""The API's metrics: each request counted and timed; ages and models looked up when Prometheus asks.

What does not belong here: the names (`btc_core.metrics`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from flask import request

from btc_core.clock import NS_PER_S
from btc_core.errors import BtcError
from btc_core.metrics import FORECAST_AGE, HTTP_REQUESTS, HTTP_TIME, MODEL_CREATED
from serving.forecasts import age_s

if TYPE_CHECKING:
    from serving.deps import Deps

NO_PATH = "none"
"""Label of requests to paths that do not exist: a label per path asked for would grow without end."""


def count(status: int, took_s: float) -> None:
    """Count the request that is being answered."""
    path = request.url_rule.rule if request.url_rule is not None else NO_PATH
    HTTP_REQUESTS.labels(path, request.method if path != NO_PATH else NO_PATH, status).inc()
    HTTP_TIME.labels(path).observe(took_s)


def measure(deps: Deps) -> None:
    """Bring the gauges up to date.

    The age of a forecast that is gone or cannot be read goes on from the last one seen, or from the first time it was
    asked for, so that whoever watches it hears of it; `/readyz` says why.
    """
    now_ns = deps.clock.now_ns()
    for symbol in deps.settings.exchange.symbols:
        with suppress(BtcError):
            row = deps.store.forecast(symbol)
            if row is not None:
                deps.known_ns[symbol] = row.ts_recv_ns
        FORECAST_AGE.labels(symbol).set(age_s(now_ns, deps.known_ns.setdefault(symbol, now_ns)))
    MODEL_CREATED.clear()
    current = deps.models.current
    for model in (current.bid, current.volatility):
        if model is not None:
            MODEL_CREATED.labels(model.manifest.name, model.kind).set(model.manifest.created_ns / NS_PER_S)
