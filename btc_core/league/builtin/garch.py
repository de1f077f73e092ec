"""GARCH(1,1) of one-minute returns (Bollerslev 1986), fitted by the library arch: `make add PACKAGES=arch`.

A row has no memory of a state, so the state is computed from the row: the last five returns one by one, and older ones
by the realized variances of longer and longer windows, weighted as GARCH weights them.
"""

import numpy as np
from arch import arch_model

RETURNS = ["return_lag_0", "return_lag_1", "return_lag_2", "return_lag_3", "return_lag_4"]
WINDOWS_MIN = [5, 15, 30, 60, 240, 1440]
SCALE = 1e4
"""The optimiser of arch wants returns near 1: it gets basis points."""
MAX_DAYS = 60


def fit(dataset):
    """Constant, α and β from the consecutive minutes of the newest days."""
    every_five = (dataset.origin_ns // 60_000_000_000) % 5 == 0
    recent = dataset.origin_ns > dataset.origin_ns[-1] - MAX_DAYS * 86_400_000_000_000
    returns = dataset[RETURNS][every_five & recent][:, ::-1].ravel() * SCALE
    returns = returns[np.isfinite(returns)]
    fitted = arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off")
    alpha, beta = float(fitted.params["alpha[1]"]), float(fitted.params["beta[1]"])
    if alpha + beta > 0.999:  # an integrated process has no mean to return to
        beta = 0.999 - alpha
    return {"mean": float(np.var(returns)), "alpha": alpha, "beta": beta}


def predict(model, rows):
    """σ over each horizon: the variance of the next minute, and its return to the mean."""
    mean, alpha, beta = model["mean"], model["alpha"], model["beta"]
    squares = np.square(np.nan_to_num(rows[RETURNS]) * SCALE)
    variance = mean * (1.0 - alpha - beta) / (1.0 - beta) + alpha * (squares @ np.power(beta, np.arange(5)))
    known = np.exp(rows[[f"log_rv_{window}m" for window in WINDOWS_MIN]]) * SCALE**2
    known = np.where(np.isnan(known), mean * np.array(WINDOWS_MIN), known)
    for place in range(1, len(WINDOWS_MIN)):
        begin, end = WINDOWS_MIN[place - 1], WINDOWS_MIN[place]
        each_minute = np.maximum(known[:, place] - known[:, place - 1], 0.0) / (end - begin)
        variance = variance + alpha * each_minute * np.power(beta, np.arange(begin, end)).sum()
    horizons = np.array(rows.horizons_min)
    ahead = mean + (variance - mean)[:, np.newaxis] * np.power(alpha + beta, np.arange(horizons[-1]))
    return np.sqrt(np.cumsum(ahead, axis=1))[:, horizons - 1]
