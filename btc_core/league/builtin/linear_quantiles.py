"""Linear quantile regressions of the log variance, one for each level and horizon (Koenker and Bassett 1978).

Unlike those of `log_har`, its intervals may widen with the inputs. It needs numpy alone.
"""

import numpy as np

INPUTS = [
    "log_rv_5m", "log_rv_15m", "log_rv_60m", "log_rv_240m", "log_rv_1440m", "log_parkinson_5m", "log_parkinson_30m",
    "log_volume_5m", "log_volume_60m", "minute_of_day_sin", "minute_of_day_cos",
]  # fmt: skip
LEVELS = np.array([0.05, 0.10, 0.25, 0.75, 0.90, 0.95])
MAX_ROWS = 40_000
"""The newest rows that are fitted on."""
STEPS = 30


def fit(dataset):
    """Quantile regressions on the newest rows, and a regression of the variance on the middle of their quantiles."""
    newest = slice(-MAX_ROWS, None)
    raw = dataset[INPUTS][newest]
    target = np.log(dataset.realized_variance[newest])
    middle = np.nan_to_num(np.nanmedian(raw, axis=0))
    scale = np.nan_to_num(np.nanstd(raw, axis=0)) + 1e-9
    design = designed(raw, middle, scale)
    quantiles = np.stack(
        [[regression(design, target[:, at], level) for level in LEVELS] for at in range(target.shape[1])]
    )  # (5, 6, inputs)
    model = {"middle": middle, "scale": scale, "quantiles": quantiles}
    center = np.einsum("ni,hqi->nhq", design, quantiles).mean(axis=2)
    return model | {"mean": np.log(np.exp(target - center).mean(axis=0))}


def predict(model, rows):
    """σ from the middle of the quantiles, raised to the mean of the variance, and the quantiles in ascending order."""
    design = designed(rows[INPUTS], model["middle"], model["scale"])
    logs = np.einsum("ni,hqi->nhq", design, model["quantiles"])
    sigma = 1e4 * np.exp(0.5 * (logs.mean(axis=2) + model["mean"]))
    return sigma, np.sort(1e4 * np.exp(0.5 * logs), axis=2)


def designed(raw, middle, scale):
    """Standardised inputs and a constant; a missing value counts as the middle, and a far one as five deviations."""
    centred = np.where(np.isnan(raw), middle, raw)
    return np.column_stack([np.ones(len(raw)), np.clip((centred - middle) / scale, -5.0, 5.0)])


def regression(design, target, level):
    """A quantile regression by iterated weighted least squares: Hunter and Lange (2000)."""
    weights = np.ones(len(target))
    coefficients = np.zeros(design.shape[1])
    for _ in range(STEPS):
        weighted = design * weights[:, np.newaxis]
        side = weighted.T @ target + (level - 0.5) * 2.0 * design.sum(axis=0)
        coefficients = np.linalg.solve(weighted.T @ design + 1e-6 * np.eye(design.shape[1]), side)
        weights = 1.0 / (1e-3 + np.abs(target - design @ coefficients))
    return coefficients
