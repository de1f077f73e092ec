"""Gradient-boosted trees of the log variance by LightGBM: `make add PACKAGES=lightgbm`.

The trees learn the log variance over the longest horizon; shorter horizons are shares of it, fitted on the same rows.
"""

import lightgbm
import numpy as np

PARAMETERS = {
    "objective": "regression", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 200, "feature_fraction": 0.5,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 10.0, "num_threads": 1, "seed": 1, "verbose": -1,
}  # fmt: skip
ROUNDS = 300


def fit(dataset):
    """Trees on all inputs; they are fitted on the older nine tenths, and their mean is corrected on the rest."""
    target = np.log(dataset.realized_variance)
    split = int(0.9 * len(dataset))
    rows = lightgbm.Dataset(dataset.matrix[:split], target[:split, -1], feature_name=list(dataset.names))
    trees = lightgbm.train(PARAMETERS, rows, ROUNDS)
    newest = np.asarray(trees.predict(dataset.matrix[split:]))
    ratio = dataset.realized_variance[split:] / np.exp(newest)[:, np.newaxis]
    return {"trees": trees, "log_ratio": np.log(ratio.mean(axis=0))}


def predict(model, rows):
    """σ over each horizon from the mean of the variance."""
    log_variance = np.asarray(model["trees"].predict(rows.matrix, num_threads=1))
    return 1e4 * np.exp(0.5 * (log_variance[:, np.newaxis] + model["log_ratio"]))
