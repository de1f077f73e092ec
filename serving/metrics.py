"""The metrics of the API: requests as they are answered; ages and models when Prometheus asks.

What does not belong here: the names of metrics (`btc_core.metrics`).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from flask import request

from btc_core.clock import NS_PER_S
from btc_core.errors import BtcError
from btc_core.league.folder import entries_in
from btc_core.metrics import FORECAST_AGE, FORECAST_STARTING, HTTP_REQUESTS, HTTP_TIME, LEAGUE_ENTRIES, MODEL_CREATED
from serving.served_forecast import age_s

if TYPE_CHECKING:
    from serving.deps import Deps

EXCLUSIVE = threading.Lock()
"""Held while the gauges are set and then read: they are cleared first, and two threads read them."""
START_S = 300.0
"""How long after the first look a market may be without a new forecast: on a busy machine, the forecast worker takes a minute or
more to start, compile and load its models."""
NO_PATH = "none"
"""Label of requests for paths that do not exist. A label for each of them would let clients grow the metrics at will."""


def count_request(status: int, took_s: float) -> None:
    """Count the request that is being answered."""
    path = request.url_rule.rule if request.url_rule is not None else NO_PATH
    HTTP_REQUESTS.labels(path, request.method if path != NO_PATH else NO_PATH, status).inc()
    HTTP_TIME.labels(path).observe(took_s)


def update_gauges(deps: Deps) -> None:
    """Set the ages of forecasts, the times at which models were made, and how many models the league has. The caller holds `EXCLUSIVE`.

    A market that has too few bars for a model has no age. The age of a forecast that has expired or cannot be read continues from the last one that was seen, or from the first
    time it was missing, so that an alert on the age fires. `/readyz` has the reason.
    """
    now_ns = deps.clock.now_ns()
    models = deps.models.current
    for symbol in deps.settings.exchange.symbols:
        if symbol not in deps.newest_forecast_ns and models.waits_for_bars(symbol):
            continue
        awaited_ns = deps.forecast_awaited_ns.setdefault(symbol, now_ns)
        with suppress(BtcError):
            row = deps.newest_rows.forecast(symbol)
            if row is not None:
                deps.newest_forecast_ns[symbol] = row.ts_recv_ns
        newest_ns = deps.newest_forecast_ns.setdefault(symbol, now_ns)
        FORECAST_AGE.labels(symbol).set(age_s(now_ns, newest_ns))
        is_starting = newest_ns <= awaited_ns and now_ns - awaited_ns < START_S * NS_PER_S
        FORECAST_STARTING.labels(symbol).set(is_starting)
    LEAGUE_ENTRIES.set(len(entries_in(deps.settings.user_models)))
    MODEL_CREATED.clear()
    for key, model in models.models.items():
        MODEL_CREATED.labels(key.symbol, model.manifest.name, model.kind).set(model.manifest.created_ns / NS_PER_S)
