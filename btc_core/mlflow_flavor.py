"""A bundle as MLflow's own tools see it: signature, input example, and `mlflow.pyfunc.load_model`.

Nothing of ours loads models this way: the generic path takes milliseconds where a forecast takes microseconds.
What does not belong here: talking to MLflow (`registry`).
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.models.bundle import BidModel, Manifest, VolatilityModel, load_bundle
from btc_core.names import HORIZONS_MIN

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    Floats = npt.NDArray[np.float64]

SIGMAS = tuple(f"sigma_{h}m_bps" for h in HORIZONS_MIN)
"""Outputs of the volatility model, and inputs of the bid model beside the features."""
RETURNS = tuple(f"bid_{h}m_bps" for h in HORIZONS_MIN)
EXAMPLE_SIGMA_BPS = 10.0


class Served:
    """What MLflow calls with a data frame."""

    def __init__(self, model: VolatilityModel | BidModel) -> None:
        self._model = model

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """σ, or returns of the bid, per row and horizon; there are no `params`."""
        import pandas as pd  # noqa: PLC0415 - slow to import, and only MLflow's tools need it

        del params
        matrix = frame[list(self._model.manifest.features)].to_numpy(np.float64)
        if isinstance(self._model, VolatilityModel):
            return pd.DataFrame(self._model.predict(matrix), columns=list(SIGMAS))
        moves = self._model.predict(matrix, frame[list(SIGMAS)].to_numpy(np.float64))
        return pd.DataFrame(moves, columns=list(RETURNS))


def _load_pyfunc(path: str) -> Served:
    """What MLflow looks for by this name in the module that `MLmodel` names."""
    return Served(load_bundle(Path(path)))


def describe(folder: Path, manifest: Manifest, row: Floats) -> None:
    """Write `MLmodel` and an input example (one row of features) into the bundle's folder."""
    volatility = not manifest.shrinkage
    inputs = [*manifest.features, *(() if volatility else SIGMAS)]
    values = [*row.tolist(), *(() if volatility else [EXAMPLE_SIGMA_BPS] * len(SIGMAS))]
    example = {"columns": inputs, "data": [[value if np.isfinite(value) else None for value in values]]}
    (folder / "input_example.json").write_bytes(msgspec.json.encode(example))
    about = {
        "flavors": {"python_function": {"loader_module": __name__, "python_version": platform.python_version()}},
        "signature": {
            "inputs": _columns(inputs),
            "outputs": _columns(SIGMAS if volatility else RETURNS),
            "params": None,
        },
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "type": "dataframe",
        },
        "metadata": {"feature_version": manifest.feature_version, "unit": manifest.unit, "recipe": manifest.recipe},
    }
    (folder / "MLmodel").write_bytes(msgspec.json.format(msgspec.json.encode(about)))  # JSON is YAML


def _columns(names: list[str] | tuple[str, ...]) -> str:
    return msgspec.json.encode([{"name": name, "type": "double", "required": False} for name in names]).decode()
