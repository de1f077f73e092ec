"""How the net is fitted: plain numpy, one thread, the same numbers for the same seed and machine.

The loss is RV/F + ln F, which is QLIKE up to a constant of the label. Its gradient with respect to ln F is
1 − RV/F, in which RV/F counts with at most `max_ratio`, so that a jump is one row and not the whole fit.
While it is fitted, a net has more outputs, one for each variance of `later_variances`, with the loss of the first.
What does not belong here: what the fitted net computes (`net`), and the choice of its parameters (`recipe`).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from btc_core.features.minute_columns import RELEASES
from btc_core.models.net import CLIP, INPUTS, SLOPE, Net

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.recipe import NetRecipe

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]
    Layers = list[Singles]

BLOCK_ROWS, BLOCK_INPUTS = 50_000, 16
"""How much is standardised at once. The rows of a pool as float64 would take several times the memory of the rest."""


def fit_net(raw: Singles, log_harx: Floats, labels: Floats, later: Floats, recipe: NetRecipe) -> Net:
    """Fit one net for each seed on `net_inputs`.

    `labels` (n,) are positive variances, `log_harx` (n,) is ln of HARX's, and `later` (n, k) are `later_variances`.
    """
    centre, scale = standardisation(raw, recipe)
    inputs = np.empty_like(raw)
    for part in range(0, len(raw), BLOCK_ROWS):
        rows = slice(part, part + BLOCK_ROWS)
        inputs[rows] = np.clip(np.nan_to_num((raw[rows] - centre) / scale, nan=0.0), -CLIP, CLIP)
    ratios = _ratios(labels, later, np.exp(log_harx))
    fitted = [_fit_seed(inputs, ratios, recipe, seed) for seed in range(recipe.seeds)]
    layers = [np.stack(each) for each in zip(*fitted, strict=True)]
    last, last_bias = np.ascontiguousarray(layers[2][..., :1]), np.ascontiguousarray(layers[5][..., :1])
    return Net(centre, scale, (layers[0], layers[1], last), (layers[3], layers[4], last_bias))


def _ratios(labels: Floats, later: Floats, harx: Floats) -> Singles:
    """What the outputs are fitted to, (n, 1 + k): variances over HARX's, where those of `later` have a mean of 1.

    A variance that is not known counts as that mean.
    """
    ratios = np.empty((len(labels), 1 + later.shape[1]), np.float32)
    ratios[:, 0] = labels / harx
    for place, variance in enumerate(later.T, start=1):
        ratio = variance / harx
        known = ~np.isnan(ratio)
        ratios[:, place] = np.where(known, ratio / ratio[known].mean(), 1.0) if known.any() else 1.0
    return ratios


def standardisation(raw: Singles, recipe: NetRecipe) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each input where it is known. Those of releases are not centred and have a given scale."""
    centre, scale = np.empty(raw.shape[1]), np.empty(raw.shape[1])
    for part in range(0, raw.shape[1], BLOCK_INPUTS):
        inputs = slice(part, part + BLOCK_INPUTS)
        known = ~np.isnan(raw[:, inputs])
        count = np.maximum(known.sum(axis=0), 1)
        centre[inputs] = np.where(known, raw[:, inputs], 0.0).sum(axis=0, dtype=np.float64) / count
        squares = np.square(raw[:, inputs] - centre[inputs])
        scale[inputs] = np.sqrt(np.where(known, squares, 0.0).sum(axis=0) / count)
    rare = np.isin(INPUTS, RELEASES)
    centre[rare], scale[rare] = 0.0, recipe.release_scale
    scale[scale < 1e-9] = math.inf  # a constant input has no effect
    return centre, scale


def _fit_seed(inputs: Singles, ratio: Singles, recipe: NetRecipe, seed: int) -> Layers:
    """The weights, then the biases, of one net: the exponential mean of those that Adam went through."""
    rng = np.random.default_rng(seed)
    sizes = (inputs.shape[1], *recipe.hidden, ratio.shape[1])
    params = [
        (rng.normal(size=(above, below)) * math.sqrt(2.0 / above)).astype(np.float32)
        for above, below in pairwise(sizes)
    ]
    params[-1] *= np.float32(0.1)  # it starts near HARX
    depth = len(params)
    params += [np.zeros(size, np.float32) for size in sizes[1:]]
    first, second = [np.zeros_like(each) for each in params], [np.zeros_like(each) for each in params]
    means = [each.copy() for each in params]
    batches = max(len(inputs) // recipe.batch_rows, 1)
    steps, step = recipe.epochs * batches, 0
    for _epoch in range(recipe.epochs):
        order = rng.permutation(len(inputs))
        for batch in np.array_split(order, batches):
            step += 1
            rate = recipe.rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
            gradients = _gradients(params, depth, inputs[batch], ratio[batch], recipe.max_ratio)
            for place, gradient in enumerate(gradients):
                first[place] += np.float32(1.0 - recipe.beta_1) * (gradient - first[place])
                second[place] += np.float32(1.0 - recipe.beta_2) * (gradient * gradient - second[place])
                size = np.float32(rate * math.sqrt(1.0 - recipe.beta_2**step) / (1.0 - recipe.beta_1**step))
                params[place] -= size * first[place] / (np.sqrt(second[place]) + np.float32(recipe.epsilon))
                if place < depth:
                    params[place] *= np.float32(1.0 - rate * recipe.weight_decay)
                means[place] += np.float32(1.0 - recipe.mean_of_weights) * (params[place] - means[place])
    return means


def _gradients(params: Layers, depth: int, inputs: Singles, ratio: Singles, max_ratio: float) -> Layers:
    """Gradients of the mean loss of a batch, in the order of `params`: weights, then biases."""
    values, slopes = [inputs], []
    for layer in range(depth):
        sums = values[-1] @ params[layer] + params[depth + layer]
        if layer < depth - 1:
            slope = np.where(sums < 0.0, np.float32(SLOPE), np.float32(1.0))
            slopes.append(slope)
            sums = sums * slope
        values.append(sums)
    back = (1.0 - np.minimum(ratio * np.exp(-values[-1]), np.float32(max_ratio))) / np.float32(len(inputs))
    weights: Layers = []
    biases: Layers = []
    for layer in range(depth - 1, -1, -1):
        weights.append(np.asarray(values[layer].T @ back, np.float32))
        biases.append(np.asarray(back.sum(axis=0), np.float32))
        if layer:
            back = (back @ params[layer].T) * slopes[layer - 1]
    return weights[::-1] + biases[::-1]
