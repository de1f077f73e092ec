"""The body of `GET /v1/model`: what the loaded models were made from, and their scores.

What does not belong here: live scores (`live_skill`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from btc_core.names import BASELINE_KINDS
from serving.answers import LoadedModels, ModelCard, iso
from serving.symbols import default_symbol

if TYPE_CHECKING:
    from btc_core.registry.bundles import Model
    from serving.deps import Deps


def loaded_models(deps: Deps) -> LoadedModels:
    """The models of the default market."""
    models, symbol = deps.models.current, default_symbol(deps.settings)
    return LoadedModels(
        bid=_card(models.bid(symbol)),
        volatility=_card(models.volatility(symbol)),
        reasons=deps.models.reasons,
        simulated=deps.settings.simulated,
    )


def _card(model: Model | None) -> ModelCard | None:
    if model is None:
        return None
    manifest = model.manifest
    return ModelCard(
        name=manifest.name,
        kind=manifest.kind,
        version=manifest.version,
        is_baseline=manifest.kind in BASELINE_KINDS,
        created_at=iso(manifest.created_ns),
        trained_from=iso(manifest.trained_from_ns) if manifest.trained_from_ns else None,
        trained_to=iso(manifest.trained_to_ns) if manifest.trained_to_ns else None,
        train_rows=manifest.train_rows,
        features=len(manifest.features),
        feature_version=manifest.feature_version,
        targets=manifest.targets,
        unit=manifest.unit,
        shrinkage=manifest.shrinkage,
        scores={name: score if math.isfinite(score) else None for name, score in manifest.scores.items()},
    )
