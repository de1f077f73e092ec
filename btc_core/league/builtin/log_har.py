"""A log-linear HAR with quantiles: today's volatility from that of the last minutes, hour and day (Corsi 2009).

It needs numpy alone, and shows what a model of the league looks like.
"""

import numpy as np

WINDOWS = ["log_rv_5m", "log_rv_15m", "log_rv_60m", "log_rv_240m", "log_rv_1440m"]
LEVELS = [0.05, 0.10, 0.25, 0.75, 0.90, 0.95]


def fit(dataset):
    """Least squares of the log variance, and the quantiles of its residuals."""
    target = np.log(dataset.realized_variance)
    design = inputs(dataset)
    coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
    residuals = target - design @ coefficients
    return {
        "coefficients": coefficients,
        "mean": np.log(np.exp(residuals).mean(axis=0)),  # from the median of the variance to its mean
        "quantiles": np.quantile(residuals, LEVELS, axis=0).T,
    }


def predict(model, rows):
    """σ from the mean of the variance, and its quantiles."""
    log_variance = inputs(rows) @ model["coefficients"]
    sigma = 1e4 * np.exp(0.5 * (log_variance + model["mean"]))
    quantiles = 1e4 * np.exp(0.5 * (log_variance[:, :, np.newaxis] + model["quantiles"]))
    return sigma, quantiles


def inputs(rows):
    """The windows and a constant; a window that is not known yet is the next shorter one, scaled to its length."""
    logs = rows[WINDOWS]
    for place, ratio in enumerate([3, 4, 4, 6], start=1):
        logs[:, place] = np.where(np.isnan(logs[:, place]), logs[:, place - 1] + np.log(ratio), logs[:, place])
    return np.column_stack([np.ones(len(logs)), np.nan_to_num(logs, nan=-16.0)])
