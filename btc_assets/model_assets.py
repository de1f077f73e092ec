"""The assets of the models: each is trained and judged, promoted if its gate lets it, and checked as it is served.

A model has two assets. `volatility_model` registers a challenger, and its check `gate` blocks `volatility_champion`, which
moves the alias. What does not belong here: how models are fitted and judged (`training`, `btc_core.models.gate`), and
demotion (`skill`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec
import numpy as np

from btc_assets.asset_metadata import MODEL_KEYS, OWNERS, champion_asset, model_asset
from btc_assets.pictures import of_training
from btc_assets.resources import Database, Environment, Registry  # noqa: TC001 - Dagster reads the annotations
from btc_assets.training_bars import minute_bars, older_bars
from btc_core.clock import SYSTEM_CLOCK, from_ns
from btc_core.days.seals import seals_of_bars
from btc_core.errors import BtcError, NotReady, SchemaError
from btc_core.features import catalogue
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.names import BID, VOLATILITY, ModelKey, Quantity
from btc_core.stores.minute_bars import read_stored
from btc_core.version import git_commit

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_assets.training import TrainingResult
    from btc_core.models.dataset import Frame
    from btc_core.registry.bundles import Model

SEALED_BARS = dg.AssetDep("sealed_bars", partition_mapping=dg.AllPartitionMapping())
"""Training reads every day of its window, so it comes after all of them."""
CHECKED_BARS = 2_000
"""Recent bars whose features the checks forecast from: enough to cover the longest window (1440 min)."""
MODEL_DESCRIPTIONS: dict[Quantity, str] = {
    VOLATILITY: "Realized volatility of the next 1 to 5 minutes: trees fitted on years and corrected by a recent HARX model, "
    "or HARX alone if the trees are not better.",
    BID: "The bid of the next 1 to 5 minutes: trees whose forecasts are shrunk, or the random walk if they do not beat it.",
}
SERVES_DESCRIPTIONS: dict[Quantity, str] = {
    VOLATILITY: "The champion loads, reproduces its golden batch, and forecasts finite, positive σ from recent bars.",
    BID: "The champion loads, reproduces its golden batch, and forecasts finite returns from recent bars.",
}
_METRICS = ("qlike", "r2_log", "median_ape", "dm_t", "lambda", "mse_ratio", "direction", "direction_se")


def scores_table(scores: dict[str, float]) -> str:
    """Out-of-sample scores as Markdown, one row for each model and horizon."""
    places = list(dict.fromkeys(key.rpartition("/")[0] for key in scores if "/" in key))
    used = [metric for metric in _METRICS if any(key.endswith(f"/{metric}") for key in scores)]
    lines = [f"| model / horizon | {' | '.join(used)} |", "|---" * (len(used) + 1) + "|"]
    for place in places:
        values = (scores.get(f"{place}/{metric}") for metric in used)
        cells = " | ".join("–" if value is None else f"{value:.4g}" for value in values)
        lines.append(f"| {place.replace('/', ' / ')} | {cells} |")
    return "\n".join(lines)


def _model_metadata(model: Model) -> dict[str, Any]:
    """What Dagster shows of a model."""
    manifest = model.manifest
    metadata: dict[str, Any] = {
        "kind": model.kind,
        "feature_version": manifest.feature_version,
        "recipe": manifest.recipe,
        "git_commit": manifest.code,
        "sealed_days": len(manifest.seals),
        "train_rows": manifest.train_rows,
        "scores": dg.MetadataValue.md(scores_table(manifest.scores)),
    }
    if manifest.train_rows:
        metadata["trained_from"] = from_ns(manifest.trained_from_ns).isoformat()
        metadata["trained_to"] = from_ns(manifest.trained_to_ns).isoformat()
    return metadata | {key.replace("/", "_"): value for key, value in manifest.scores.items() if "/5m/" in key}


def _usable(load: Callable[[ModelKey], Model], key: ModelKey) -> Model | None:
    """A registered model, or None if there is none or this process cannot use it: then it need not be compared with."""
    try:
        return load(key)
    except (NotReady, SchemaError):
        return None


def _train(
    key: ModelKey, environment: Environment, database: Database, registry: Registry
) -> dg.MaterializeResult[None]:
    """Train and judge a model and register it as the challenger."""
    from btc_assets import training  # noqa: PLC0415 - imports numba
    from btc_core.stores.live_rows import live_frame  # noqa: PLC0415 - imports numba

    started_s = SYSTEM_CLOCK.monotonic_s()
    with database.connect() as db:
        bars = read_stored(db, key.symbol, environment.get().model.train_days)

    def live_rows_since(ts_ns: int) -> Frame:
        with database.connect() as db:
            return live_frame(db, key.symbol, ts_ns)

    champion, challenger = _usable(registry.champion, key), _usable(registry.challenger, key)
    result, rows = training.train(key.quantity, bars, champion, challenger, live_rows_since)
    if result.is_new and result.model.manifest.train_rows:
        with database.connect() as db:
            seals = seals_of_bars(db, key.symbol, result.model.manifest.trained_from_ns)
        result.model.manifest = msgspec.structs.replace(result.model.manifest, seals=seals, code=git_commit())
    metadata: dict[str, Any] = {"gate": result.verdict.reason} | _model_metadata(result.model)
    if result.is_new:
        params, pictures = training.params(key.quantity), of_training(result, rows)
        registration = registry.register(key, result.model, rows, result.verdict, params=params, pictures=pictures)
        metadata |= {"version": registration.version, "mlflow": dg.MetadataValue.url(registration.url)}
    metadata["train_s"] = round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)
    return dg.MaterializeResult(metadata=metadata, check_results=[_gate_result(result)])


def _gate_result(result: TrainingResult) -> dg.AssetCheckResult:
    verdict = result.verdict
    return dg.AssetCheckResult(
        check_name="gate",
        passed=verdict.passed,
        description=verdict.reason,
        metadata={"reason": verdict.reason, "beats_baselines": verdict.beats_baselines, **verdict.figures},
    )


def _model_asset(key: ModelKey) -> dg.AssetsDefinition:
    gate = dg.AssetCheckSpec(
        "gate",
        asset=model_asset(key),
        blocking=True,
        description="The model may serve: it is not worse than the champion, or has proven in shadow to be better.",
    )

    @dg.asset(
        name=model_asset(key),
        deps=[minute_bars, older_bars, SEALED_BARS],
        check_specs=[gate],
        kinds={"xgboost", "mlflow"},
        group_name="models",
        owners=OWNERS,
        code_version=FEATURE_VERSION,
        description=MODEL_DESCRIPTIONS[key.quantity],
    )
    def trained_model(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster accepts only the name without brackets
        return _train(key, environment, database, registry)

    return trained_model


def _champion_asset(key: ModelKey) -> dg.AssetsDefinition:
    @dg.asset(
        name=champion_asset(key),
        deps=[model_asset(key)],
        kinds={"mlflow"},
        group_name="models",
        owners=OWNERS,
        description=f"The {key.quantity} model that serves. A challenger that passed its gate replaces it within seconds.",
    )
    def champion(registry: Registry) -> dg.MaterializeResult[None]:
        promotion = registry.promote_challenger(key)
        if promotion is None:
            reason = "there is no challenger that passed its gate; the champion stays"
            return dg.MaterializeResult(metadata={"moved": False, "reason": reason})
        metadata: dict[str, Any] = {"moved": True, "version": promotion.version, "reason": promotion.reason}
        return dg.MaterializeResult(metadata=metadata)

    return champion


def serves(database: Database, registry: Registry, key: ModelKey) -> tuple[bool, dict[str, Any]]:
    """Whether the champion loads and forecasts recent rows as it should, and the facts."""
    from btc_core.features.bar_features import bar_features  # noqa: PLC0415 - imports numba
    from btc_core.features.minute_columns import minute_columns  # noqa: PLC0415 - imports numba
    from btc_core.models.bundle import BidModel, VolatilityModel  # noqa: PLC0415 - imports numba

    try:
        model = registry.champion(key)
        volatility = model if key.quantity == VOLATILITY else registry.champion(ModelKey(key.symbol, VOLATILITY))
    except BtcError as error:
        return False, {"reason": str(error)}
    with database.connect() as db:
        bars = read_stored(db, key.symbol, CHECKED_BARS / 1440)
    matrix, columns = catalogue.model_matrix(bar_features(bars)), minute_columns(bars)
    known = ~np.isnan(matrix[:, catalogue.MODEL_FEATURES.index("log_rv_5m")])
    matrix, columns = matrix[known], columns[known]
    sigma = volatility.predict(matrix, columns) if isinstance(volatility, VolatilityModel) else np.empty((0, 5))
    values = model.predict(matrix, sigma) if isinstance(model, BidModel) else sigma
    passed = bool(len(values) and np.isfinite(values).all())
    if isinstance(model, VolatilityModel):
        passed = passed and bool((values > 0.0).all())
    facts: dict[str, Any] = {"rows": len(values), "version": model.version, "kind": model.kind}
    if len(values):
        facts |= {"median_5m_bps": float(np.median(values[:, -1])), "max_5m_bps": float(np.max(np.abs(values[:, -1])))}
    return passed, facts


def _serves_check(key: ModelKey) -> dg.AssetChecksDefinition:
    needs_volatility = key.quantity == BID  # whose forecasts are multiples of σ

    @dg.asset_check(
        name=f"{champion_asset(key)}_serves",
        asset=champion_asset(key),
        additional_deps=[champion_asset(ModelKey(key.symbol, VOLATILITY))] if needs_volatility else None,
        description=SERVES_DESCRIPTIONS[key.quantity],
    )
    def check(database: Database, registry: Registry) -> dg.AssetCheckResult:
        passed, facts = serves(database, registry, key)
        return dg.AssetCheckResult(passed=passed, metadata=facts)

    return check


MODEL_ASSETS = tuple(_model_asset(key) for key in MODEL_KEYS)
CHAMPION_ASSETS = tuple(_champion_asset(key) for key in MODEL_KEYS)
SERVES_CHECKS = tuple(_serves_check(key) for key in MODEL_KEYS)
