"""Volatility models whose forecasts a user's model makes, with the compiled champion that it replaced as its stand-in.

Such a bundle is the stand-in's, with the file and the pickle of the user's model beside it, and `user` in its manifest. Nothing
here runs the user's code or loads its pickle: `VolatilityModel` forecasts as the stand-in, and whoever has σ of the user's model
gives it to `row_forecasts`. What does not belong here: the process of the model (`btc_core.league.serving`), and the gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import now_ns
from btc_core.features.minute_columns import COLUMNS
from btc_core.models.bundle import ENTRY_FILE, ENTRY_MODEL
from btc_core.models.manifest import build_id
from btc_core.names import HORIZONS_MIN, USER

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.bundle import VolatilityModel
    from btc_core.models.manifest import UserEntry

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

MAX_BYTES = 50_000_000
"""Largest pickle that serves: each process that loads champions holds its bytes, and each fit that served is kept for ever."""


def with_user(stand_in: VolatilityModel, entry: UserEntry, source: bytes, pickled: bytes) -> VolatilityModel:
    """A user's model with a compiled model as its stand-in; `source` is its file, and `pickled` its fit."""
    created_ns = now_ns()
    manifest = msgspec.structs.replace(
        stand_in.manifest, user=entry, version=build_id(USER, created_ns), created_ns=created_ns
    )
    model = stand_in.with_manifest(manifest)
    model.user_files = {ENTRY_FILE: source, ENTRY_MODEL: pickled}
    return model


def stand_in_of(model: VolatilityModel) -> VolatilityModel:
    """The compiled model in a bundle with a user's model, with the version of that bundle; any other model is itself."""
    if model.manifest.user_entry is None:
        return model
    stand_in = model.with_manifest(msgspec.structs.replace(model.manifest, user=msgspec.UNSET))
    stand_in.user_files = {}
    return stand_in


def user_inputs(matrix: Floats, columns: Singles) -> Floats:
    """What a user's model reads of rows, (n, inputs): the features of the models, then the columns of closed minutes."""
    return np.hstack([matrix, columns], dtype=np.float64)


def no_sigma(rows: int) -> Floats:
    """σ of rows that no user's model has forecast, (n, horizons): NaN."""
    return np.full((rows, len(HORIZONS_MIN)), np.nan)


def input_names(model: VolatilityModel) -> tuple[str, ...]:
    """The names of the columns of `user_inputs`."""
    return (*model.manifest.features, *COLUMNS)
