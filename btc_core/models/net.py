"""A small neural network that corrects HARX, from inputs that are relative to HARX or have no level at all.

ln of the variance over the headline horizon is HARX's, plus the output of the net. Absolute logs and volumes made it 2.5 to 3.5 %
of HAR's QLIKE worse on 2023, because the level of volatility and volume of the fitted years is not that of later ones.

It is computed in compiled code, one row in about ten microseconds a seed. Batches are computed by the same code, so that a
row has the same forecast alone and in a batch. What does not belong here: how it is fitted (`net_fitting`).
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.compiled import njit
from btc_core.features.catalogue import (
    BIPOWER_WINDOWS_MIN,
    EWMA_HALF_LIVES_MIN,
    MODEL_FEATURES,
    PARKINSON_WINDOWS_MIN,
    RETURN_WINDOWS_MIN,
    RV_WINDOWS_MIN,
)
from btc_core.features.minute_columns import CLOCK, COLUMNS, LOG_VARIANCES, RELEASES, RETURNS, SHAPES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]
    Longs = npt.NDArray[np.int64]

RELATIVE: tuple[str, ...] = (
    *(f"log_rv_{w}m" for w in RV_WINDOWS_MIN),
    *(f"log_ewma_{h}m" for h in EWMA_HALF_LIVES_MIN),
    *(f"log_parkinson_{w}m" for w in PARKINSON_WINDOWS_MIN),
    *(f"log_bipower_{w}m" for w in BIPOWER_WINDOWS_MIN),
    *LOG_VARIANCES,
)
"""Logs of variances, from which ln of HARX's variance over the headline horizon is subtracted."""
SCALED: tuple[str, ...] = (*(f"return_{w}m_bps" for w in RETURN_WINDOWS_MIN), *RETURNS)
"""Returns, which are divided by HARX's σ over the headline horizon."""
RAW: tuple[str, ...] = ("downside_share_60m", *SHAPES, *RELEASES, *CLOCK)
"""Numbers without a level, which are taken as they are."""
INPUTS: tuple[str, ...] = (*RELATIVE, *SCALED, *RAW)
CLIP = 5.0
"""A standardised input counts with at most this."""
SLOPE = 0.01
"""The slope of the leaky rectifier below zero."""

SOURCES: tuple[str, ...] = (*MODEL_FEATURES, *COLUMNS)
"""Where the inputs come from: features, then minute columns."""
_PLACES = np.array([SOURCES.index(name) for name in INPUTS], np.int64)
_RELATIVE_END, _SCALED_END = len(RELATIVE), len(RELATIVE) + len(SCALED)
_FEATURES = len(MODEL_FEATURES)


class Net(msgspec.Struct, frozen=True):
    """Fitted nets of several seeds, as plain arrays."""

    centre: Any
    scale: Any
    """(inputs,), float64; each input is standardised by these, and a missing one counts as its mean."""
    weights: tuple[Any, Any, Any]
    """The matrices of the three layers, each (seeds, inputs of the layer, outputs), float32."""
    biases: tuple[Any, Any, Any]
    """(seeds, outputs) of each layer, float32."""

    def corrections(self, matrix: Floats, columns: Singles, log_harx: Floats) -> Floats:
        """Mean of the seeds' outputs, (n,), which is added to `log_harx` (n,), ln of HARX's variance over the headline horizon.

        `matrix` is (n, MODEL_FEATURES) and `columns` (n, COLUMNS). A row without HARX gives NaN.
        """
        out = np.empty(len(matrix))
        rows = np.ascontiguousarray(matrix), np.ascontiguousarray(columns, np.float32)
        _forward(*rows, np.ascontiguousarray(log_harx), self.centre, self.scale, *self.weights, *self.biases, out)
        return out

    def to_bytes(self) -> bytes:
        """The net as an archive of plain arrays, every float to the last bit."""
        buffer = io.BytesIO()
        layers = {f"weights_{k}": each for k, each in enumerate(self.weights)}
        layers |= {f"biases_{k}": each for k, each in enumerate(self.biases)}
        np.savez(buffer, allow_pickle=False, centre=self.centre, scale=self.scale, **layers)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Net:
        """The inverse of `to_bytes`; raises `ValueError`, `KeyError` or an error of the archive on anything else."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {name: np.ascontiguousarray(arrays[name]) for name in arrays.files}
        weights = found["weights_0"], found["weights_1"], found["weights_2"]
        biases = found["biases_0"], found["biases_1"], found["biases_2"]
        net = cls(found["centre"], found["scale"], weights, biases)
        seeds, wide, narrow = len(weights[0]), weights[0].shape[-1], weights[1].shape[-1]
        sizes = ((len(INPUTS), wide), (wide, narrow), (narrow, 1))
        shapes = [each.shape for each in (net.centre, net.scale, *weights, *biases)]
        wanted = [(len(INPUTS),)] * 2 + [(seeds, *size) for size in sizes] + [(seeds, size[1]) for size in sizes]
        if shapes != wanted:
            msg = f"the arrays of the net have the shapes {shapes}, expected {wanted}"
            raise ValueError(msg)
        return net


def net_inputs(matrix: Floats, columns: Singles, log_harx: Floats) -> Singles:
    """`INPUTS` before they are standardised, (n, inputs), in the order that `Net` reads them."""
    out = np.empty((len(matrix), len(INPUTS)), np.float32)
    _fill_batch(np.ascontiguousarray(matrix), np.ascontiguousarray(columns), np.ascontiguousarray(log_harx), out)
    return out


@njit
def _fill(features: Floats, columns: Singles, level: float, out: Any) -> None:
    """The inputs of one row."""
    scale = math.exp(-0.5 * level)
    for k in range(len(_PLACES)):
        place = _PLACES[k]
        value = features[place] if place < _FEATURES else np.float64(columns[place - _FEATURES])
        if k < _RELATIVE_END:
            value -= level
        elif k < _SCALED_END:
            value *= scale * (1e-4 if place < _FEATURES else 1.0)
        out[k] = value


@njit
def _fill_batch(matrix: Floats, columns: Singles, level: Floats, out: Singles) -> None:
    for i in range(len(matrix)):
        _fill(matrix[i], columns[i], level[i], out[i])


@njit
def _layer(values: Singles, weights: Singles, bias: Singles, out: Singles) -> None:
    out[:] = bias
    for j in range(len(values)):
        value, row = values[j], weights[j]
        for k in range(len(out)):
            out[k] += value * row[k]


@njit
def _rectify(values: Singles) -> None:
    for k in range(len(values)):
        if values[k] < 0.0:
            values[k] *= np.float32(SLOPE)


@njit
def _forward(  # noqa: PLR0913, PLR0917 - numba functions take arrays, not objects
    matrix: Floats, columns: Singles, level: Floats, centre: Floats, scale: Floats,
    first: Singles, second: Singles, third: Singles, bias_1: Singles, bias_2: Singles, bias_3: Singles, out: Floats,
) -> None:  # fmt: skip
    raw = np.empty(len(centre))
    inputs = np.empty(len(centre), np.float32)
    wide, narrow, last = (
        np.empty(first.shape[2], np.float32),
        np.empty(second.shape[2], np.float32),
        np.empty(third.shape[2], np.float32),
    )
    for i in range(len(matrix)):
        out[i] = 0.0
        if math.isnan(level[i]):
            out[i] = math.nan
            continue
        _fill(matrix[i], columns[i], level[i], raw)
        for k in range(len(raw)):
            value = (raw[k] - centre[k]) / scale[k]
            inputs[k] = 0.0 if math.isnan(value) else min(max(value, -CLIP), CLIP)
        for seed in range(len(first)):
            _layer(inputs, first[seed], bias_1[seed], wide)
            _rectify(wide)
            _layer(wide, second[seed], bias_2[seed], narrow)
            _rectify(narrow)
            _layer(narrow, third[seed], bias_3[seed], last)
            out[i] += last[0] / len(first)
