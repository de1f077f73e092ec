"""The part of a user's model in past forecasts: σ as it is stored, or computed again in a process of its own.

A verification takes the stored σ of such forecasts and computes everything else again from it, because nobody should have to run
the operator's code. Whoever trusts that code can have it run (`UserModelRun`), with the limits of the league.
What does not belong here: comparing forecasts (`forecast_check`, `day_forecasts`), and the process (`btc_core.league.serving`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from btc_core.league import serving
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.models.user_model import no_sigma
from btc_core.names import HORIZONS_MIN, USER

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.league.process import EntryProcess
    from btc_core.models.bundle import VolatilityModel
    from btc_core.settings import LeagueSettings

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

FLAG = "--run-user-model"
"""The option of `btc verify` that runs the code of the operator."""


def stored_sigma(volatilities: pa.Table, model: VolatilityModel) -> Floats:
    """σ in bps of rows of `gold_volatility_prediction`, (n, horizons), that the user's model in a bundle made.

    It is NaN in all others, and in all rows if the bundle has none: a row alone cannot say that no code can compute it.
    """
    if model.manifest.user_entry is None:
        return no_sigma(len(volatilities))
    of_user = np.array([kind == USER for kind in volatilities["model_kind"].to_pylist()], bool)
    columns = [volatilities[f"sigma_{h}m_bps"].cast(pa.float64()).to_numpy(zero_copy_only=False) for h in HORIZONS_MIN]
    sigma = np.column_stack(columns)
    return np.where(of_user[:, np.newaxis], sigma, np.nan)


def described(model: VolatilityModel) -> str:
    """Which user's model a bundle has, for people."""
    entry = model.manifest.user_entry
    return "" if entry is None else f"{entry.name} (file {entry.file_version}, fit {entry.model_version})"


class UserModelRun:
    """Runs users' models to compute their σ again. Use it in a `with`; its processes end with it."""

    def __init__(self, limits: LeagueSettings) -> None:
        self._limits = limits
        self._processes: dict[int, tuple[VolatilityModel, EntryProcess]] = {}
        """By identity of the model, which is kept so that no other object gets its identity."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _model, process in self._processes.values():
            process.close()
        self._processes = {}

    def sigma_bps(
        self, model: VolatilityModel, values: Floats, columns: Any, event_ns: Longs, stored: Floats
    ) -> Floats:
        """σ again of the rows whose `stored` σ (n, horizons) is a number; NaN in the others.

        `values` are (n, all features), `columns` (n, COLUMNS), and `event_ns` (n,). Raises `EntryFailed`.
        """
        sigma = no_sigma(len(stored))
        for place in np.flatnonzero(np.isfinite(stored).all(axis=1)).tolist():
            part = slice(place, place + 1)
            rows = serving.rows_of(model, values[part][:, MODEL_COLUMNS], columns[part], event_ns[part])
            process = self._process_of(model)
            sigma[part] = process.predict_alone(serving.SYMBOL, rows, self._limits.predict_s, self._limits.predict_s)
        return sigma

    def _process_of(self, model: VolatilityModel) -> EntryProcess:
        if id(model) not in self._processes:
            self._processes[id(model)] = model, serving.started(model, self._limits)
        return self._processes[id(model)][1]
