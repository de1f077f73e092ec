"""The assets `volatility_model` and `bid_model`: trained on minute bars, judged, registered, checked.

What does not belong here: how they are fitted and judged (`training`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from btc_assets.catalogue import OWNERS
from btc_assets.history import minute_bars, older_bars
from btc_assets.resources import Database, Environment, Registry  # noqa: TC001 - Dagster reads the annotations
from btc_core.bars import read_stored
from btc_core.clock import SYSTEM_CLOCK, from_ns
from btc_core.errors import BtcError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from btc_core.bundle import BidModel, VolatilityModel
    from btc_core.registry import Registered

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


def publish(
    registry: Registry, model: BidModel | VolatilityModel, golden: npt.NDArray[np.float64], params: dict[str, str]
) -> tuple[Registered, dict[str, Any]]:
    """Save, register and promote a model; returns where it went and the metadata that says so."""
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        folder = Path(scratch) / "bundle"
        model.save(folder, golden)
        registered = registry.register(folder, params)
    manifest = model.manifest
    metadata: dict[str, Any] = {
        "kind": model.kind,
        "version": registered.version,
        "mlflow": dg.MetadataValue.url(registered.url),
        "feature_version": manifest.feature_version,
        "train_rows": manifest.train_rows,
        "scores": dg.MetadataValue.md(scores_table(manifest.scores)),
    }
    if manifest.train_rows:
        metadata["trained_from"] = from_ns(manifest.trained_from_ns).isoformat()
        metadata["trained_to"] = from_ns(manifest.trained_to_ns).isoformat()
    metadata |= {key.replace("/", "_"): value for key, value in manifest.scores.items() if "/5m/" in key}
    return registered, metadata


def _bars(environment: Environment, database: Database, days: float) -> npt.NDArray[Any]:
    with database.connect() as db:
        return read_stored(db, environment.get().exchange.symbols[0], days)


@dg.asset(deps=[minute_bars, older_bars, SEALED_BARS], kinds={"xgboost", "mlflow"}, group_name="models", owners=OWNERS)
def volatility_model(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult[None]:
    """Realized volatility of the next 1 to 5 minutes: trees on log-HARX, or HARX where trees do not beat it."""
    from btc_assets import training  # noqa: PLC0415 - slow to import
    from btc_core import bundle, features  # noqa: PLC0415
    from btc_core.replay import bar_features  # noqa: PLC0415

    bars = _bars(environment, database, environment.get().model.train_days)
    started_s = SYSTEM_CLOCK.monotonic_s()
    if len(bars) < training.MIN_BARS:
        model = bundle.harx_bundle(bars)
        golden = features.matrix(bar_features(bars))
    else:
        frame = training.make_frame(bars)
        model = training.train_volatility(frame)
        golden = frame.matrix
    params = {name: str(value) for name, value in training.VOLATILITY_PARAMS.items()}
    params["trees"] = str(training.VOLATILITY_TREES)
    _, metadata = publish(registry, model, bundle.golden_rows(golden), params)
    return dg.MaterializeResult(metadata={**metadata, "train_s": round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)})


@dg.asset(deps=[minute_bars, older_bars, SEALED_BARS], kinds={"xgboost", "mlflow"}, group_name="models", owners=OWNERS)
def bid_model(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult[None]:
    """The bid of the next 1 to 5 minutes: shrunk trees, or the random walk where they do not beat it."""
    import numpy as np  # noqa: PLC0415

    from btc_assets import training  # noqa: PLC0415 - slow to import
    from btc_core import bundle, features  # noqa: PLC0415

    bars = _bars(environment, database, environment.get().model.train_days)
    started_s = SYSTEM_CLOCK.monotonic_s()
    if len(bars) < training.MIN_BARS:
        model, golden = bundle.random_walk_model(), np.empty((0, len(features.MODEL_FEATURES)))
    else:
        frame = training.make_frame(bars)
        model, golden = training.train_bid(frame), frame.matrix
    params = {name: str(value) for name, value in training.BID_PARAMS.items()}
    params["trees"] = str(training.BID_TREES)
    _, metadata = publish(registry, model, bundle.golden_rows(golden), params)
    return dg.MaterializeResult(metadata={**metadata, "train_s": round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)})


def _checked(
    environment: Environment, database: Database, registry: Registry, name: str
) -> tuple[bool, dict[str, Any]]:
    """Load the champion with parity and forecast recent rows; passed, and the facts."""
    import numpy as np  # noqa: PLC0415

    from btc_core import bundle, features  # noqa: PLC0415 - slow to import
    from btc_core.replay import bar_features  # noqa: PLC0415

    try:
        model = registry.champion(name)
        volatility = registry.champion(bundle.VOLATILITY_MODEL) if name == bundle.BID_MODEL else model
    except BtcError as error:
        return False, {"reason": str(error)}
    bars = _bars(environment, database, CHECKED_BARS / 1440)
    matrix = features.matrix(bar_features(bars))
    matrix = matrix[~np.isnan(matrix[:, features.MODEL_FEATURES.index("log_rv_5m")])]
    sigma = volatility.predict(matrix) if isinstance(volatility, bundle.VolatilityModel) else np.empty((0, 5))
    values = model.predict(matrix, sigma) if isinstance(model, bundle.BidModel) else sigma
    passed = bool(len(values) and np.isfinite(values).all())
    if isinstance(model, bundle.VolatilityModel):
        passed = passed and bool((values > 0.0).all())
    facts: dict[str, Any] = {"rows": len(values), "version": model.version, "kind": model.kind}
    if len(values):
        facts |= {"median_5m_bps": float(np.median(values[:, -1])), "max_5m_bps": float(np.max(np.abs(values[:, -1])))}
    return passed, facts


@dg.asset_check(asset=volatility_model, description="The champion loads with parity; σ is finite and positive.")
def volatility_model_serves(environment: Environment, database: Database, registry: Registry) -> dg.AssetCheckResult:
    """Check the champion as a serving process would load it."""
    passed, facts = _checked(environment, database, registry, "volatility-model")
    return dg.AssetCheckResult(passed=passed, metadata=facts)


@dg.asset_check(
    asset=bid_model,
    additional_deps=[volatility_model],
    description="The champion loads with parity; its returns are finite.",
)
def bid_model_serves(environment: Environment, database: Database, registry: Registry) -> dg.AssetCheckResult:
    """Check the champion as a serving process would load it."""
    passed, facts = _checked(environment, database, registry, "bid-price-model")
    return dg.AssetCheckResult(passed=passed, metadata=facts)
