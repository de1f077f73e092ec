"""The forecasts of feature rows: the models, the online level and the intervals put together, row by row.

The forecast worker and the verification of a past forecast use this one function, so both compute the same bits. A forecast
does not depend on the other rows of its batch. What does not belong here: where the level and the quantiles come from
(`streaming.outcomes`), and what becomes of a forecast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from btc_core.features.catalogue import FEATURE_NAMES, MODEL_FEATURES
from btc_core.horizons import are_default
from btc_core.market.messages import ForecastRow
from btc_core.models.bundle import BidModel, VolatilityModel, bid_path, served_kinds
from btc_core.models.intervals import bid_bounds_bps, volatility_bounds_bps
from btc_core.models.level import sigma_factor
from btc_core.names import HORIZONS_MIN, USER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from btc_core.market.messages import FeatureId

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

Models: TypeAlias = tuple[BidModel, VolatilityModel]
"""The models of the bid and of the volatility of one market."""
MODEL_COLUMNS = np.array([FEATURE_NAMES.index(name) for name in MODEL_FEATURES])
"""Where the inputs of the models are in a feature row."""
BID_COLUMN = FEATURE_NAMES.index("bid")
_HORIZONS: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET if are_default(HORIZONS_MIN) else HORIZONS_MIN


class TrackedState(msgspec.Struct, frozen=True):
    """What the outcomes of earlier forecasts say when a forecast is made."""

    level: float
    """The online level of the volatility (`level`)."""
    bid_quantiles: Any
    """The quantiles of the bid's intervals, float64 (5, 8), NaN where they are not known."""
    volatility_quantiles: Any
    """The quantiles of the volatility's intervals, float64 (5, 8), NaN where they are not known."""

    def is_that_of(self, other: TrackedState | None) -> bool:
        """Whether both have the level and the very arrays, which are replaced whenever an outcome changes them."""
        return (
            other is not None
            and self.level == other.level
            and self.bid_quantiles is other.bid_quantiles
            and self.volatility_quantiles is other.volatility_quantiles
        )


def forecasts_of(  # noqa: PLR0913, PLR0917 - everything that a forecast depends on
    rows: Sequence[FeatureId],
    feature_version: str,
    values: Floats,
    columns: Singles,
    models: Models,
    state: TrackedState,
    made_at_ns: int,
    user_sigma_bps: Floats | None = None,
) -> dict[int, ForecastRow]:
    """The forecast of each row with a bid, by its place in `rows`.

    `values` (n, all features) and `columns` (n, COLUMNS) are those of the rows. `user_sigma_bps` (n, horizons) is what the model
    of the user forecasts, NaN in rows that its stand-in forecasts; all of them if it is None.
    """
    places = np.flatnonzero(np.isfinite(values[:, BID_COLUMN])).tolist()
    if not places:
        return {}
    matrix = np.ascontiguousarray(values[places][:, MODEL_COLUMNS])
    bid = values[places, BID_COLUMN]
    bid_model, volatility = models
    known = columns[places]
    sigma, baseline = volatility.predict_both(matrix, known)
    kinds = served_kinds(volatility, known)
    factor = sigma_factor(state.level)
    sigma *= np.array([[factor if kind == "xgboost" else 1.0] for kind in kinds])
    if user_sigma_bps is not None:
        own = user_sigma_bps[places]
        given = np.flatnonzero((np.isfinite(own) & np.isfinite(sigma)).all(axis=1))
        sigma[given] = own[given]
        for place in given.tolist():
            kinds[place] = USER
    returns = bid_model.predict(matrix, sigma)
    path = bid_path(bid[:, np.newaxis], returns)
    bid_bounds = bid_path(bid[:, np.newaxis, np.newaxis], bid_bounds_bps(state.bid_quantiles, returns, sigma))
    sigma_bounds = volatility_bounds_bps(state.volatility_quantiles, sigma)
    return {
        place: ForecastRow(
            (row := rows[place]).symbol,
            row.ts_event_ns,
            row.ts_recv_ns,
            row.partition,
            row.offset,
            row.item,
            made_at_ns,
            float(bid[index]),
            path[index].tolist(),
            sigma[index].tolist(),
            baseline[index].tolist(),
            bid_model.version,
            bid_model.kind,
            volatility.version,
            kinds[index],
            feature_version,
            bid_bounds[index].tolist(),
            sigma_bounds[index].tolist(),
            horizons_min=_HORIZONS,
        )
        for index, place in enumerate(places)
    }
