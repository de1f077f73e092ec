"""Which inputs a fitted model uses, and how much each gained: the share of the trees' total gain, and the effect on the net.

What does not belong here: why a single forecast is what it is (`explain`), and how the trees are grown (`trainers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.features.catalogue import BAR_FEATURES, MODEL_FEATURES
from btc_core.models.bundle import VolatilityModel
from btc_core.models.harx import INPUT_COLUMNS
from btc_core.models.input_use import InputUse
from btc_core.models.net import INPUTS, SOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from btc_core.models.bundle import BidModel
    from btc_core.models.dataset import Frame
    from btc_core.models.manifest import Manifest

    Floats = npt.NDArray[np.float64]

NET_ROWS = 200
"""Rows on which the effects on the net are measured: 118 inputs take about two seconds."""
DIGITS = 5
"""Shares are rounded to this many digits: a manifest stays small, and smaller shares say nothing."""
SHOWN = 5
STREAM_INPUTS = frozenset(MODEL_FEATURES) - frozenset(BAR_FEATURES)
"""The inputs that only a stream has, and no minute bar."""


def with_inputs(manifest: Manifest, model: VolatilityModel | BidModel, frame: Frame) -> Manifest:
    """The manifest with what the model's inputs gained; `frame` is the one that it was fitted on."""
    offered = len(model.tree_input_names) if model.boosters else 0
    net = net_effects(model, frame) if isinstance(model, VolatilityModel) else {}
    return msgspec.structs.replace(manifest, inputs=InputUse(frame.streamed_days, offered, gain_shares(model), net))


def gain_shares(model: VolatilityModel | BidModel) -> dict[str, float]:
    """Share of each used input in the total gain of the trees, largest first; empty without trees."""
    names = model.tree_input_names
    gains = np.zeros(len(names))
    for booster in model.boosters:
        by_column: dict[str, Any] = booster.get_score(importance_type="total_gain")
        for key, gain in by_column.items():  # the keys are f0, f1, …
            gains[int(key[1:])] += float(gain)
    return _ranked(dict(zip(names, gains.tolist(), strict=True)))


def net_effects(model: VolatilityModel, frame: Frame) -> dict[str, float]:
    """For each input of the net, how much its correction of HARX changes if the input is missing, as a share of all.

    A missing input counts as its mean. The rows are spread over the frame. Empty without a net.
    """
    if model.net is None:
        return {}
    known = np.flatnonzero(model.corrects(frame.columns))
    rows = known[np.linspace(0, len(known) - 1, min(NET_ROWS, len(known))).astype(int)]
    matrix, columns = np.ascontiguousarray(frame.matrix[rows]), np.ascontiguousarray(frame.columns[rows])
    log_harx = np.ascontiguousarray(model.harx.log_variance(matrix[:, INPUT_COLUMNS])[:, -1])
    whole = model.net.corrections(matrix, columns, log_harx)
    effects = {}
    for name in INPUTS:
        place = SOURCES.index(name)
        table, column = (matrix, place) if place < matrix.shape[1] else (columns, place - matrix.shape[1])
        kept = table[:, column].copy()
        table[:, column] = np.nan
        effects[name] = float(np.nanmean(np.abs(model.net.corrections(matrix, columns, log_harx) - whole)))
        table[:, column] = kept
    return _ranked(effects)


def stream_gain(gains: Mapping[str, float]) -> float:
    """The share of the gain that comes from inputs that only a stream has."""
    return sum(share for name, share in gains.items() if name in STREAM_INPUTS)


def in_words(manifest: Manifest) -> str:
    """What the trees use, in one line; empty for a model without trees."""
    used = manifest.inputs
    if not used.gains:
        return ""
    largest = ", ".join(f"{name} {share:.0%}" for name, share in list(used.gains.items())[:SHOWN])
    return (
        f"its trees use {len(used.gains)} of {used.offered} inputs; largest shares of the gain: {largest}; inputs that only "
        f"the stream has: {stream_gain(used.gains):.1%}, learned from {used.streamed_days} sealed days"
    )


def _ranked(values: dict[str, float]) -> dict[str, float]:
    total = sum(values.values())
    ranked = sorted(values.items(), key=lambda pair: -pair[1])
    return {name: round(value / total, DIGITS) for name, value in ranked if value > 0.0} if total > 0.0 else {}
