"""Forecasts as the API answers them: the forecast worker's row while it is current, else made here from the features.

Age is counted from the moment we received what the features were computed from: a replayed or simulated market
has event times of its own. What does not belong here: HTTP (`routes`) and reading bodies (`inputs`).
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from btc_core.clock import NS_PER_S
from btc_core.errors import NotReady
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, MODEL_FEATURES
from btc_core.names import BASELINE_KINDS, HORIZONS_MIN, Quantity
from serving.answers import Forecast, HorizonPoint, ModelInfo, Models, Prediction, Source, iso
from serving.problem_details import Problem

if TYPE_CHECKING:
    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.registry.champions import Champions
    from btc_core.stores.redis_rows import FeatureRow, ForecastRow
    from serving.deps import Deps
    from serving.legacy.bodies import Given

CURRENT_NS = NS_PER_S
"""A worker's forecast this much behind the newest features still counts as made from them: at 100 rows/s the API would
otherwise repeat work that is about to arrive. Beyond it the worker is down or late, and the API forecasts by itself."""
MINUTES_PER_YEAR = 525_600
BPS = 10_000.0

_MODEL_COLUMNS = np.array([FEATURE_NAMES.index(name) for name in MODEL_FEATURES])
_ANNUAL_PCT = tuple(100.0 / BPS * math.sqrt(MINUTES_PER_YEAR / horizon) for horizon in HORIZONS_MIN)


class Paths(msgspec.Struct, frozen=True):
    """Numbers of one forecast per horizon; `bid_bps` is None without a bid model."""

    bid: float | None
    bid_bps: list[float] | None
    sigma_bps: list[float]
    baseline_sigma_bps: list[float]
    bid_bounds_usd: list[list[float]] = []
    sigma_bounds_bps: list[list[float]] = []
    """Quantiles per horizon, as the worker gives them; none when the API forecasts by itself."""


class Provenance(msgspec.Struct, frozen=True):
    """Where the numbers of one forecast come from."""

    symbol: str
    source: Source
    models: Models
    made_at_ns: int
    feature_version: str
    simulated: bool
    ts_event_ns: int | None = None
    ts_recv_ns: int | None = None
    feature_age_s: float | None = None


class Made(msgspec.Struct, frozen=True):
    """One forecast before it is put into words; `bid_path_usd` when the worker has it already, to the last digit."""

    paths: Paths
    provenance: Provenance
    bid_path_usd: list[float] | None = None

    def bids_usd(self) -> list[float] | None:
        """The path of the bid in USD; None while the bid or its model is unknown."""
        if self.bid_path_usd is not None:
            return self.bid_path_usd
        if self.paths.bid is None or self.paths.bid_bps is None:
            return None
        return [self.paths.bid * math.exp(bps / BPS) if bps < BPS else math.nan for bps in self.paths.bid_bps]


def age_s(now_ns: int, ts_recv_ns: int) -> float:
    """Seconds since `ts_recv_ns`, rounded to the millisecond; 0 when another process's clock reads a little later."""
    return round(max(0, now_ns - ts_recv_ns) / NS_PER_S, 3)


def model_info(model: BidModel | VolatilityModel | None) -> ModelInfo:
    """What an answer says about a model."""
    return _info(model.kind, model.version) if model is not None else ModelInfo()


def models_of(champions: Champions) -> Models:
    """What an answer says about the loaded models."""
    return Models(bid=model_info(champions.bid), volatility=model_info(champions.volatility))


def row_models(row: ForecastRow) -> Models:
    """What an answer says about the models of a worker's row."""
    return Models(
        bid=_info(row.bid_model_kind, row.bid_model_version),
        volatility=_info(row.volatility_model_kind, row.volatility_model_version),
    )


def _info(kind: str, version: str) -> ModelInfo:
    return ModelInfo(kind=kind, version=version, is_baseline=kind in BASELINE_KINDS)


def live(deps: Deps, symbol: str, quantity: Quantity) -> Forecast:
    """The forecast from live features; 503 when there are none, they are too old, or no model can use them."""
    return _forecast(newest(deps, symbol, quantity), quantity)


def newest(deps: Deps, symbol: str, quantity: Quantity) -> Made:
    """The numbers of `live`; `quantity` says which models are needed."""
    now_ns = deps.clock.now_ns()
    row = deps.store.forecast(symbol)
    if row is not None and is_current(row, now_ns):
        return from_worker(deps, row, now_ns)  # nothing can be more than CURRENT_NS newer: one read is enough
    features = deps.store.features(symbol)
    behind = features is not None and (row is None or features.ts_recv_ns - row.ts_recv_ns > CURRENT_NS)
    if features is not None and behind:
        _refuse_stale(deps, now_ns, features.ts_recv_ns, symbol)
        champions = deps.models.current
        usable = champions.volatility is not None and (champions.bid is not None or quantity == "volatility")
        if usable or row is None or is_stale(deps, now_ns, row.ts_recv_ns):
            return _from_features(deps, features, now_ns, quantity)
    if row is None:
        raise NotReady(f"there are no features of {symbol} in Redis yet; `btc status` shows whether the workers run")
    return from_worker(deps, row, now_ns)


def from_given(deps: Deps, given: Given, symbol: str, quantity: Quantity) -> list[Forecast]:
    """Forecasts from the features of a request, one a row."""
    champions = deps.models.current
    provenance = Provenance(
        symbol=symbol,
        source="request",
        models=models_of(champions),
        made_at_ns=deps.clock.now_ns(),
        feature_version=FEATURE_VERSION,
        simulated=deps.settings.simulated,
    )
    computed = _compute(champions, given.matrix, given.bids_usd, quantity)
    for index, paths in enumerate(computed):
        if not _is_finite(paths):
            where = f"rows[{index}]" if given.is_batch else "features"
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "no_finite_forecast",
                f"{where} give no finite forecast with these models; give at least the log_rv_ features, in their units",
            )
    return [_forecast(Made(paths, provenance), quantity) for paths in computed]


def is_current(row: ForecastRow, now_ns: int) -> bool:
    """Whether no features can be so much newer that the API would forecast by itself."""
    return now_ns - row.ts_recv_ns <= CURRENT_NS


def is_stale(deps: Deps, now_ns: int, ts_recv_ns: int) -> bool:
    """Whether what was received then is too old to be served now."""
    return now_ns - ts_recv_ns > deps.settings.api.max_feature_age_s * NS_PER_S


def _refuse_stale(deps: Deps, now_ns: int, ts_recv_ns: int, symbol: str) -> None:
    if not is_stale(deps, now_ns, ts_recv_ns):
        return
    age = age_s(now_ns, ts_recv_ns)
    limit = deps.settings.api.max_feature_age_s
    raise Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "stale_features",
        f"the newest features of {symbol} are {age:.1f} s old, at most {limit:g} s are served; "
        "`btc status` shows whether the feed and the workers run",
        headers={"Retry-After": "1"},
        more={"feature_age_s": age, "max_feature_age_s": limit},
    )


def from_worker(deps: Deps, row: ForecastRow, now_ns: int, *, however_old: bool = False) -> Made:
    """A worker's row; refused when it is stale unless `however_old`, and while the features warm up."""
    if not however_old:
        _refuse_stale(deps, now_ns, row.ts_recv_ns, row.symbol)
    paths = Paths(
        bid=row.bid,
        bid_bps=[BPS * math.log(usd / row.bid) if usd > 0 and row.bid > 0 else math.nan for usd in row.bid_path_usd],
        sigma_bps=row.sigma_path_bps,
        baseline_sigma_bps=row.baseline_sigma_path_bps,
        bid_bounds_usd=row.bid_bounds_usd,
        sigma_bounds_bps=row.sigma_bounds_bps,
    )
    provenance = Provenance(
        symbol=row.symbol,
        source="worker",
        models=row_models(row),
        made_at_ns=row.made_at_ns,
        ts_event_ns=row.ts_event_ns,
        ts_recv_ns=row.ts_recv_ns,
        feature_age_s=age_s(now_ns, row.ts_recv_ns),
        feature_version=row.feature_version,
        simulated=deps.settings.simulated,
    )
    return Made(_warm(paths), provenance, row.bid_path_usd)


def _from_features(deps: Deps, row: FeatureRow, now_ns: int, quantity: Quantity) -> Made:
    champions = deps.models.current
    matrix = np.asarray(row.values, dtype=np.float64)[_MODEL_COLUMNS].reshape(1, -1)
    provenance = Provenance(
        symbol=row.symbol,
        source="api",
        models=models_of(champions),
        made_at_ns=now_ns,
        ts_event_ns=row.ts_event_ns,
        ts_recv_ns=row.ts_recv_ns,
        feature_age_s=age_s(now_ns, row.ts_recv_ns),
        feature_version=row.feature_version,
        simulated=deps.settings.simulated,
    )
    return Made(_warm(_compute(champions, matrix, [row.bid], quantity)[0]), provenance)


def _warm(paths: Paths) -> Paths:
    """Refuse what was computed before the windows were covered."""
    if not _is_finite(paths):
        raise NotReady("the features are still warming up and give no finite forecast yet; ask again in a minute")
    return paths


def _is_finite(paths: Paths) -> bool:
    return all(map(math.isfinite, paths.sigma_bps)) and all(map(math.isfinite, paths.bid_bps or ()))


def _compute(
    champions: Champions, matrix: npt.NDArray[np.float64], bids: list[float | None], quantity: Quantity
) -> list[Paths]:
    """Run the models over (rows, MODEL_FEATURES); the bid model is needed only when the bid was asked for."""
    if champions.volatility is None or (champions.bid is None and quantity == "bid"):
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "model_unavailable",
            f"no model can be served: {'; '.join(champions.reasons) or 'none is loaded'}; "
            "train one with POST /retrain, or `btc status` shows whether MLflow runs",
            headers={"Retry-After": "10"},
        )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # given features may be absurd; see _is_finite
        sigma = np.asarray(champions.volatility.predict(matrix), dtype=np.float64)
        baseline = np.asarray(champions.volatility.baseline(matrix), dtype=np.float64)
        moves = np.asarray(champions.bid.predict(matrix, sigma)) if champions.bid is not None else None
    return [
        Paths(
            bid=bid,
            bid_bps=moves[index].tolist() if moves is not None else None,
            sigma_bps=sigma[index].tolist(),
            baseline_sigma_bps=baseline[index].tolist(),
        )
        for index, bid in enumerate(bids)
    ]


def annual_pct(sigma_bps: float, index: int) -> float:
    """σ over the horizon at `index` of `HORIZONS_MIN` as percent a year."""
    return sigma_bps * _ANNUAL_PCT[index]


def _forecast(made: Made, quantity: Quantity) -> Forecast:
    """Put one answer together."""
    paths, provenance, bid_path_usd = made.paths, made.provenance, made.bids_usd()
    points = tuple(
        HorizonPoint(
            horizon_min=horizon,
            bid_usd=bid_path_usd[index] if bid_path_usd is not None else None,
            bid_bps=paths.bid_bps[index] if paths.bid_bps is not None else None,
            baseline_bid_usd=paths.bid,
            sigma_bps=paths.sigma_bps[index],
            sigma_annualized_pct=annual_pct(paths.sigma_bps[index], index),
            baseline_sigma_bps=paths.baseline_sigma_bps[index],
        )
        for index, horizon in enumerate(HORIZONS_MIN)
    )
    values: tuple[float | None, ...]
    if quantity == "volatility":
        values = tuple(point.sigma_bps for point in points)
    else:
        values = tuple(point.bid_usd if paths.bid is not None else point.bid_bps for point in points)
    return Forecast(
        symbol=provenance.symbol,
        prediction=Prediction(
            quantity=quantity,
            unit="USD" if quantity == "bid" and paths.bid is not None else "bps",
            horizons_min=HORIZONS_MIN,
            values=values,
        ),
        bid=paths.bid,
        path=points,
        made_at=iso(provenance.made_at_ns),
        ts_event=iso(provenance.ts_event_ns) if provenance.ts_event_ns is not None else None,
        ts_recv=iso(provenance.ts_recv_ns) if provenance.ts_recv_ns is not None else None,
        feature_age_s=provenance.feature_age_s,
        models=provenance.models,
        feature_version=provenance.feature_version,
        source=provenance.source,
        simulated=provenance.simulated,
    )
