"""Chooses the forecast to serve: the newest row of the forecast worker if it is current, otherwise one made here.

The age of a forecast counts from when we received the market data behind it, because the event times of a replayed or
simulated market are its own. What does not belong here: HTTP (`routes`), and the shape of a forecast (`served_forecast`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import NotReady
from btc_core.features.minute_columns import COLUMNS
from btc_core.models.bundle import served_kinds
from btc_core.models.level import sigma_factor
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.registry.champions import NOT_LOADED
from serving.problem_details import Problem
from serving.served_forecast import (
    MarketForecast,
    Origin,
    age_s,
    bid_from_model,
    from_worker_row,
    model_info,
    volatility_from_model,
)
from serving.worker_quantiles import with_intervals_of

if TYPE_CHECKING:
    from btc_core.market.messages import ForecastRow
    from btc_core.names import Quantity
    from btc_core.registry.champions import Champions
    from btc_core.stores.redis_rows import ColumnsRow, FeatureRow
    from serving.deps import Deps

CURRENT_NS = NS_PER_S
"""A forecast of the worker may be this much older than the newest features. At 100 rows a second a smaller value would
make the API repeat work whose result is about to arrive; a worker that is later than this is down or overloaded."""

COLUMNS_MAX_AGE_NS = NS_PER_MIN
"""Minute columns that differ by more than this in time from the features do not describe the same market."""


def newest_forecast(
    deps: Deps, symbol: str, quantity: Quantity, *, baseline_when_stale: bool = False
) -> MarketForecast:
    """The newest forecast of a market; `quantity` says which models it cannot do without.

    Raises a 503 if there are no features, they are too old, they are still warming up, or there is no model.
    `baseline_when_stale` asks for the flagged baseline of the last row instead of the refusal of old features.
    """
    now_ns = deps.clock.now_ns()
    row = deps.newest_rows.forecast(symbol)
    if row is not None and is_current(deps, row, now_ns):
        return worker_forecast(row, now_ns)  # no features can be newer by more than CURRENT_NS: one read is enough
    features = deps.newest_rows.features(symbol)
    if baseline_when_stale and row is not None and _are_all_stale(deps, now_ns, row, features):
        return worker_forecast(row, now_ns).as_stale_baseline()
    if features is not None and (row is None or features.ts_recv_ns - row.ts_recv_ns > CURRENT_NS):
        _refuse_stale(deps, now_ns, features.ts_recv_ns, symbol)
        models = deps.models.current
        if row is None or is_stale(deps, now_ns, row.ts_recv_ns) or models.can_forecast(symbol, quantity):
            made = _from_features(models, features, columns_of(deps, features), now_ns, quantity)
            return with_intervals_of(made, row)
    if row is None:
        raise no_features(symbol)
    _refuse_stale(deps, now_ns, row.ts_recv_ns, row.symbol)
    return worker_forecast(row, now_ns)


def forecast_rows(  # noqa: PLR0913, PLR0917 - the models, what they read, and whose rows these are
    models: Champions,
    symbol: str,
    quantity: Quantity,
    matrix: npt.NDArray[np.float64],
    origins: list[Origin],
    columns: ColumnsRow | None = None,
) -> list[MarketForecast]:
    """One forecast for each row of `matrix`, which has the shape (rows, MODEL_FEATURES), and of `origins`.

    Without the minute columns of the market the volatility is that of HARX, which the answer says.

    Raises a 503 if a model is missing; the bid model is needed only for the bid. The numbers may be infinite or NaN.
    """
    volatility_model, bid_model = models.volatility(symbol), models.bid(symbol)
    if volatility_model is None or not models.can_forecast(symbol, quantity):
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "model_unavailable",
            _why_no_model(models, symbol),
            headers={"Retry-After": "10"},
        )
    known = np.full((len(matrix), len(COLUMNS)), np.nan, np.float32)
    if columns is not None:
        known[:] = columns.columns
    kinds = served_kinds(volatility_model, known)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the features of a request may be absurd
        sigma_bps = np.asarray(volatility_model.predict(matrix, known), dtype=np.float64)
        if columns is not None and kinds[0] == "xgboost":
            sigma_bps = sigma_bps * sigma_factor(columns.level)
        baseline_bps = np.asarray(volatility_model.baseline(matrix), dtype=np.float64)
        returns_bps = np.asarray(bid_model.predict(matrix, sigma_bps)) if bid_model is not None else None
    forecasts = []
    for at, origin in enumerate(origins):
        bid = None
        if bid_model is not None and returns_bps is not None:
            bid = bid_from_model(symbol, origin, bid_model, returns_bps[at].tolist())
        volatility = volatility_from_model(
            symbol,
            origin,
            model_info(kinds[at], volatility_model.version),
            sigma_bps[at].tolist(),
            baseline_bps[at].tolist(),
        )
        forecasts.append(MarketForecast(bid, volatility))
    return forecasts


def _why_no_model(models: Champions, symbol: str) -> str:
    """Why a market has no model, and what helps: nothing but patience while they are loaded."""
    reasons = models.reasons_of(symbol)
    if NOT_LOADED in reasons:
        return f"the models of {symbol} are being loaded; ask again in some seconds"
    return (
        f"no model of {symbol} can be served: {'; '.join(reasons) or 'none is loaded'}; "
        "train one with POST /retrain, or `btc status` shows whether MLflow runs"
    )


def worker_forecast(row: ForecastRow, now_ns: int) -> MarketForecast:
    """The forecast of the worker, however old; raises a 503 while the features behind it were warming up."""
    return _refuse_unfinished(from_worker_row(row, now_ns))


def is_current(deps: Deps, row: ForecastRow, now_ns: int) -> bool:
    """Whether a row can be served without asking for newer features."""
    return now_ns - row.ts_recv_ns <= CURRENT_NS and not is_stale(deps, now_ns, row.ts_recv_ns)


def is_stale(deps: Deps, now_ns: int, ts_recv_ns: int) -> bool:
    """Whether data received at `ts_recv_ns` is too old to be served at `now_ns`."""
    return now_ns - ts_recv_ns > deps.settings.api.max_feature_age_s * NS_PER_S


def no_features(symbol: str) -> NotReady:
    """The error for a market that has no features yet."""
    return NotReady(f"there are no features of {symbol} in Redis yet; `btc status` shows whether the workers run")


def _are_all_stale(deps: Deps, now_ns: int, row: ForecastRow, features: FeatureRow | None) -> bool:
    return is_stale(deps, now_ns, row.ts_recv_ns) and (features is None or is_stale(deps, now_ns, features.ts_recv_ns))


def _refuse_stale(deps: Deps, now_ns: int, ts_recv_ns: int, symbol: str) -> None:
    if not is_stale(deps, now_ns, ts_recv_ns):
        return
    age = age_s(now_ns, ts_recv_ns)
    limit = deps.settings.api.max_feature_age_s
    raise Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "stale_features",
        f"the newest features of {symbol} are {age:.1f} s old, at most {limit:g} s is allowed; "
        "`btc status` shows whether the feed and the workers run",
        headers={"Retry-After": "1"},
        more={"feature_age_s": age, "max_feature_age_s": limit},
    )


def columns_of(deps: Deps, row: FeatureRow) -> ColumnsRow | None:
    """The minute columns of a market, if they are recent enough for its features."""
    columns = deps.newest_rows.columns(row.symbol)
    return columns if columns is not None and abs(row.ts_event_ns - columns.ts_event_ns) <= COLUMNS_MAX_AGE_NS else None


def _from_features(
    models: Champions, row: FeatureRow, columns: ColumnsRow | None, now_ns: int, quantity: Quantity
) -> MarketForecast:
    """A forecast made here from the newest features."""
    matrix = np.asarray(row.values, dtype=np.float64)[MODEL_COLUMNS].reshape(1, -1)
    origin = Origin(
        source="api",
        made_at_ns=now_ns,
        feature_version=row.feature_version,
        bid_usd=row.bid,
        ts_event_ns=row.ts_event_ns,
        ts_recv_ns=row.ts_recv_ns,
        feature_age_s=age_s(now_ns, row.ts_recv_ns),
    )
    (forecast,) = forecast_rows(models, row.symbol, quantity, matrix, [origin], columns)
    return _refuse_unfinished(forecast)


def _refuse_unfinished(forecast: MarketForecast) -> MarketForecast:
    """Refuse a forecast from features whose windows do not reach back far enough yet."""
    if not forecast.is_finite:
        raise NotReady("the features are still warming up and give no finite forecast yet; ask again in a minute")
    return forecast
