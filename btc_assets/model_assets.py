"""The assets of both models: trained and judged, promoted when the gate lets them, checked as they are served.

`volatility_model` and `bid_model` register a challenger; their check `gate` blocks `volatility_champion` and
`bid_champion`, which move the alias. What does not belong here: how models are fitted and judged (`training`, and
`btc_core.models.gate`), and demotion (`skill`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec

from btc_assets.asset_metadata import OWNERS
from btc_assets.pictures import of_training
from btc_assets.resources import Database, Environment, Registry  # noqa: TC001 - Dagster reads the annotations
from btc_assets.training_bars import minute_bars, older_bars
from btc_core.clock import SYSTEM_CLOCK, from_ns
from btc_core.errors import BtcError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.market.bars import read_stored
from btc_core.names import BID_MODEL, VOLATILITY_MODEL

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_assets.training import Trained
    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.models.dataset import Frame

SEALED_BARS = dg.AssetDep("sealed_bars", partition_mapping=dg.AllPartitionMapping())
"""Training reads every day of its window, so it comes after all of them."""
CHECKED_BARS = 2_000
"""Recent bars whose rows the checks forecast: enough to cover the longest window (1440 min)."""
_METRICS = ("qlike", "r2_log", "median_ape", "dm_t", "lambda", "mse_ratio", "direction", "direction_se")


def scores_table(scores: dict[str, float]) -> str:
    """Out-of-sample scores as Markdown, a row per model and horizon."""
    places = list(dict.fromkeys(key.rpartition("/")[0] for key in scores if "/" in key))
    used = [metric for metric in _METRICS if any(key.endswith(f"/{metric}") for key in scores)]
    lines = [f"| model / horizon | {' | '.join(used)} |", "|---" * (len(used) + 1) + "|"]
    for place in places:
        values = (scores.get(f"{place}/{metric}") for metric in used)
        cells = " | ".join("–" if value is None else f"{value:.4g}" for value in values)
        lines.append(f"| {place.replace('/', ' / ')} | {cells} |")
    return "\n".join(lines)


def _facts(model: BidModel | VolatilityModel) -> dict[str, Any]:
    """What the Dagster UI shows of a model."""
    manifest = model.manifest
    facts: dict[str, Any] = {
        "kind": model.kind,
        "feature_version": manifest.feature_version,
        "recipe": manifest.recipe,
        "git_commit": manifest.code,
        "sealed_days": len(manifest.seals),
        "train_rows": manifest.train_rows,
        "scores": dg.MetadataValue.md(scores_table(manifest.scores)),
    }
    if manifest.train_rows:
        facts["trained_from"] = from_ns(manifest.trained_from_ns).isoformat()
        facts["trained_to"] = from_ns(manifest.trained_to_ns).isoformat()
    return facts | {key.replace("/", "_"): value for key, value in manifest.scores.items() if "/5m/" in key}


def _bars(environment: Environment, database: Database, days: float) -> npt.NDArray[Any]:
    with database.connect() as db:
        return read_stored(db, environment.get().exchange.symbols[0], days)


def _train(name: str, environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult[None]:
    """Train, judge, register as challenger; the check `gate` says what came of it."""
    from btc_assets import training  # noqa: PLC0415 - slow to import
    from btc_core.days.seals import seals_of_bars  # noqa: PLC0415 - the same
    from btc_core.models.dataset import live_frame  # noqa: PLC0415 - the same

    started_s = SYSTEM_CLOCK.monotonic_s()
    bars = _bars(environment, database, environment.get().model.train_days)
    symbol = environment.get().exchange.symbols[0]

    def lived(since_ns: int) -> Frame:
        with database.connect() as db:
            return live_frame(db, symbol, since_ns)

    trained, rows = training.train(name, bars, registry.held(name), registry.in_shadow(name), lived)
    if trained.is_new and trained.model.manifest.train_rows:
        with database.connect() as db:
            seals = seals_of_bars(db, symbol, trained.model.manifest.trained_from_ns)
        trained.model.manifest = msgspec.structs.replace(trained.model.manifest, seals=seals)
    metadata: dict[str, Any] = {"gate": trained.verdict.reason} | _facts(trained.model)
    if trained.is_new:
        pictures = of_training(trained, rows)
        registered = registry.register(trained.model, rows, trained.verdict, training.params(name), pictures)
        metadata |= {"version": registered.version, "mlflow": dg.MetadataValue.url(registered.url)}
    metadata["train_s"] = round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)
    return dg.MaterializeResult(metadata=metadata, check_results=[_gate(trained)])


def _gate(trained: Trained) -> dg.AssetCheckResult:
    verdict = trained.verdict
    return dg.AssetCheckResult(
        check_name="gate",
        passed=verdict.passed,
        description=verdict.reason,
        metadata={"reason": verdict.reason, "beats_baselines": verdict.beats_baselines, **verdict.figures},
    )


def _gate_spec(asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        "gate", asset=asset, blocking=True, description="May this model serve? Not worse than the champion, at least."
    )


@dg.asset(
    deps=[minute_bars, older_bars, SEALED_BARS],
    check_specs=[_gate_spec("volatility_model")],
    kinds={"xgboost", "mlflow"},
    group_name="models",
    owners=OWNERS,
    code_version=FEATURE_VERSION,
)
def volatility_model(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Realized volatility of the next 1 to 5 minutes: trees of years with a recent HARX, or HARX where trees do not win."""
    return _train(VOLATILITY_MODEL, environment, database, registry)


@dg.asset(
    deps=[minute_bars, older_bars, SEALED_BARS],
    check_specs=[_gate_spec("bid_model")],
    kinds={"xgboost", "mlflow"},
    group_name="models",
    owners=OWNERS,
    code_version=FEATURE_VERSION,
)
def bid_model(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The bid of the next 1 to 5 minutes: shrunk trees, or the random walk where they do not beat it."""
    return _train(BID_MODEL, environment, database, registry)


def _promote(name: str, registry: Registry) -> dg.MaterializeResult[None]:
    promoted = registry.promote_challenger(name)
    if promoted is None:
        return dg.MaterializeResult(metadata={"moved": False, "reason": "there is no challenger; the champion stays"})
    return dg.MaterializeResult(metadata={"moved": True, "version": promoted.version, "reason": promoted.reason})


@dg.asset(deps=[volatility_model], kinds={"mlflow"}, group_name="models", owners=OWNERS)
def volatility_champion(registry: Registry) -> dg.MaterializeResult[None]:
    """The volatility model that serves: the challenger that passed the gate takes over within seconds."""
    return _promote(VOLATILITY_MODEL, registry)


@dg.asset(deps=[bid_model], kinds={"mlflow"}, group_name="models", owners=OWNERS)
def bid_champion(registry: Registry) -> dg.MaterializeResult[None]:
    """The bid model that serves: the challenger that passed the gate takes over within seconds."""
    return _promote(BID_MODEL, registry)


def _checked(
    environment: Environment, database: Database, registry: Registry, name: str
) -> tuple[bool, dict[str, Any]]:
    """Load the champion with parity and forecast recent rows; passed, and the facts."""
    import numpy as np  # noqa: PLC0415

    from btc_core.features import catalogue  # noqa: PLC0415 - slow to import
    from btc_core.features.replay import bar_features  # noqa: PLC0415
    from btc_core.models import bundle  # noqa: PLC0415 - slow to import

    try:
        model = registry.champion(name)
        volatility = registry.champion(VOLATILITY_MODEL) if name == BID_MODEL else model
    except BtcError as error:
        return False, {"reason": str(error)}
    bars = _bars(environment, database, CHECKED_BARS / 1440)
    matrix = catalogue.matrix(bar_features(bars))
    matrix = matrix[~np.isnan(matrix[:, catalogue.MODEL_FEATURES.index("log_rv_5m")])]
    sigma = volatility.predict(matrix) if isinstance(volatility, bundle.VolatilityModel) else np.empty((0, 5))
    values = model.predict(matrix, sigma) if isinstance(model, bundle.BidModel) else sigma
    passed = bool(len(values) and np.isfinite(values).all())
    if isinstance(model, bundle.VolatilityModel):
        passed = passed and bool((values > 0.0).all())
    facts: dict[str, Any] = {"rows": len(values), "version": model.version, "kind": model.kind}
    if len(values):
        facts |= {"median_5m_bps": float(np.median(values[:, -1])), "max_5m_bps": float(np.max(np.abs(values[:, -1])))}
    return passed, facts


@dg.asset_check(asset=volatility_champion, description="The champion loads with parity; σ is finite and positive.")
def volatility_champion_serves(environment: Environment, database: Database, registry: Registry) -> dg.AssetCheckResult:
    """Check the champion as a serving process would load it."""
    passed, facts = _checked(environment, database, registry, VOLATILITY_MODEL)
    return dg.AssetCheckResult(passed=passed, metadata=facts)


@dg.asset_check(
    asset=bid_champion,
    additional_deps=[volatility_champion],
    description="The champion loads with parity; its returns are finite.",
)
def bid_champion_serves(environment: Environment, database: Database, registry: Registry) -> dg.AssetCheckResult:
    """Check the champion as a serving process would load it."""
    passed, facts = _checked(environment, database, registry, BID_MODEL)
    return dg.AssetCheckResult(passed=passed, metadata=facts)
