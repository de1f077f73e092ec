"""The body of `GET /v1/model`: what the loaded models were made from, and their scores.

What does not belong here: live scores (`live_skill`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from btc_core.models.input_gains import stream_gain
from btc_core.names import BASELINE_KINDS, BID, VOLATILITY, ModelKey
from serving.answers import iso
from serving.model_answers import LoadedModels, ModelCard
from serving.served_reasons import version_reason

if TYPE_CHECKING:
    from btc_core.registry.bundles import Model
    from serving.deps import Deps


def loaded_models(deps: Deps, symbol: str) -> LoadedModels:
    """The models of a market."""
    models = deps.models.current
    return LoadedModels(
        symbol=symbol,
        bid=_card(deps, models.bid(symbol), ModelKey(symbol, BID)),
        volatility=_card(deps, models.volatility(symbol), ModelKey(symbol, VOLATILITY)),
        reasons=deps.models.reasons_of(symbol),
        simulated=deps.settings.simulated,
    )


def _card(deps: Deps, model: Model | None, key: ModelKey) -> ModelCard | None:
    if model is None:
        return None
    manifest = model.manifest
    gate = deps.gate_decision(key, manifest.version)
    return ModelCard(
        name=manifest.name,
        registered_name=key.name,
        kind=manifest.kind,
        version=manifest.version,
        is_baseline=manifest.kind in BASELINE_KINDS,
        created_at=iso(manifest.created_ns),
        trained_from=iso(manifest.trained_from_ns) if manifest.trained_from_ns else None,
        trained_to=iso(manifest.trained_to_ns) if manifest.trained_to_ns else None,
        train_rows=manifest.train_rows,
        features=len(manifest.features),
        streamed_days=manifest.inputs.streamed_days,
        inputs_offered=manifest.inputs.offered,
        inputs_used=len(manifest.inputs.gains),
        gains=manifest.inputs.gains,
        stream_gain=stream_gain(manifest.inputs.gains),
        net_effects=manifest.inputs.net_effects,
        feature_version=manifest.feature_version,
        targets=manifest.targets,
        unit=manifest.unit,
        shrinkage=manifest.shrinkage,
        pool=manifest.pool,
        pretrained=manifest.pretrained,
        choice=manifest.choice,
        scores={name: score if math.isfinite(score) else None for name, score in manifest.scores.items()},
        members={}
        if manifest.kind in BASELINE_KINDS
        else {name: each.share for name, each in manifest.members.items()},
        gate=gate,
        serves_because=version_reason(key.quantity, manifest.kind, manifest.version, gate, manifest.scores),
        refused=deps.refused_model(key) if manifest.kind in BASELINE_KINDS else None,
    )
