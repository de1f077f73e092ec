"""The body of `GET /v1/model`: what the loaded models were made from, and their scores.

What does not belong here: live scores (`live_skill`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from btc_core.models.input_gains import stream_gain
from btc_core.names import BASELINE_KINDS, BID, VOLATILITY, ModelKey
from serving.answers import iso
from serving.model_answers import LoadedModels, ModelCard, UserModelCard
from serving.served_reasons import user_reason, version_reason

if TYPE_CHECKING:
    from btc_core.models.manifest import Manifest
    from btc_core.registry.bundles import Model
    from serving.deps import Deps
    from serving.model_answers import GateDecision


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
        kind=manifest.served_kind,
        version=manifest.version,
        is_baseline=manifest.served_kind in BASELINE_KINDS,
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
        serves_because=_reason(deps, manifest, key, gate),
        refused=deps.refused_model(key) if manifest.served_kind in BASELINE_KINDS else None,
        user_model=_user_model(manifest),
    )


def _reason(deps: Deps, manifest: Manifest, key: ModelKey, gate: GateDecision | None) -> str:
    entry = manifest.user_entry
    if entry is None:
        return version_reason(key.quantity, manifest.kind, manifest.version, gate, manifest.scores)
    newest = deps.newest_rows.forecast(key.symbol)
    is_own = newest is not None and newest.volatility_model_version == manifest.version
    kind = newest.volatility_model_kind if newest is not None and is_own else ""
    return user_reason(entry.name, manifest.version, kind, gate)


def _user_model(manifest: Manifest) -> UserModelCard | None:
    entry = manifest.user_entry
    if entry is None:
        return None
    return UserModelCard(
        entry.name,
        entry.file_version,
        entry.model_version,
        manifest.kind,
        entry.data_from or None,
        entry.data_to or None,
    )
