"""`python -m benchmarks.mlflow_model FOLDER` writes what the benchmark of `mlflow models serve` serves: five boosters.

Each has 300 trees of depth 6 over the features of the models, which is about the size of the shipped boosters.
"""

from __future__ import annotations

import sys
from typing import Any

import mlflow.pyfunc
import numpy as np
import xgboost

from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.names import HORIZONS_MIN


class Boosters(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """One booster for each horizon, in one MLflow model."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        matrix = random.normal(size=(2_000, len(MODEL_FEATURES)))
        self._boosters = [
            xgboost.train(
                {"max_depth": 6, "nthread": 1},
                xgboost.DMatrix(matrix, label=random.normal(size=2_000)),
                num_boost_round=300,
            )
            for _ in HORIZONS_MIN
        ]

    def predict(self, context: Any, model_input: Any, params: Any = None) -> np.ndarray:  # noqa: ARG002 - MLflow's signature
        """Five columns from rows of features."""
        matrix = np.asarray(model_input, np.float32)
        return np.column_stack([booster.inplace_predict(matrix) for booster in self._boosters])


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Boosters())
