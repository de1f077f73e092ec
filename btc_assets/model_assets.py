"""The assets of the models: each is trained and judged, promoted if its gate lets it, and checked as it is served.

A quantity has two assets, whose partitions are the markets. `volatility_model` registers a challenger for each market, and
`volatility_champion` moves the alias of those that passed their gate; the others keep their champions.
What does not belong here: how models are fitted and judged (`training`, `btc_core.models.gate`), and demotion (`skill`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import msgspec
import numpy as np

from btc_assets.asset_metadata import OWNERS, champion_asset, market_suffix, model_asset
from btc_assets.partitions import MARKETS, ONE_RUN, Result, for_each_market
from btc_assets.pictures import of_training
from btc_assets.resources import Database, Environment, Lake, Registry
from btc_assets.training_bars import minute_bars, older_bars
from btc_core.clock import SYSTEM_CLOCK, from_ns, now_ns
from btc_core.errors import BtcError, NotReady, SchemaError
from btc_core.features import catalogue
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.models.gate import Verdict
from btc_core.names import (
    BID,
    CHALLENGER,
    HEADLINE_MIN,
    HORIZONS_MIN,
    HORIZONS_TEXT,
    MINUTES,
    QUANTITIES,
    REFUSED,
    VOLATILITY,
    ModelKey,
    Quantity,
    VolatilityTarget,
)
from btc_core.stores.minute_bars import read_stored
from btc_core.version import git_commit

if TYPE_CHECKING:
    from btc_assets.training import TrainingResult
    from btc_core.days.training_rows import TrainingRows
    from btc_core.models.dataset import Frame, StreamRows, TickLabels
    from btc_core.models.pooling import Pool
    from btc_core.registry.bundles import Model

SEALED_BARS = dg.AssetDep("sealed_bars", partition_mapping=dg.AllPartitionMapping())
"""Training reads every day of its window, so it comes after all of them."""
CHECKED_BARS = 2_000
"""Recent bars whose features the checks forecast from: enough to cover the longest window (1440 min)."""
MAX_FLOOR_SHARE = 0.5
"""The floor is the second percentile of what came in training. If half of the forecasts are there, the inputs are not of the
market that the model was fitted on."""
MODEL_DESCRIPTIONS: dict[Quantity, str] = {
    VOLATILITY: f"Realized volatility of the next {HORIZONS_TEXT}: a recent HARX model, corrected by trees and a net that are "
    "fitted on years, or HARX alone if they are not better.",
    BID: f"The bid of the next {HORIZONS_TEXT}: trees whose forecasts are shrunk, or the random walk if they do not beat it.",
}
SERVES_DESCRIPTIONS: dict[Quantity, str] = {
    VOLATILITY: "The champion of each market loads, reproduces its golden batch, and forecasts finite, positive σ from "
    "recent bars, most of them above the floor.",
    BID: "The champion of each market loads, reproduces its golden batch, and forecasts finite returns from recent bars.",
}
CLIPS = ("floor_share", "clipped_share")
"""Scores that say how often a limit decided: HARX's floor, and the largest move that the trees of the bid learn from."""
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


def _model_metadata(model: "Model") -> dict[str, Any]:
    """What Dagster shows of a model."""
    from btc_core.models.input_gains import in_words  # noqa: PLC0415 - imports numba

    manifest = model.manifest
    metadata: dict[str, Any] = {
        "kind": model.kind,
        "feature_version": manifest.feature_version,
        "recipe": manifest.recipe,
        "targets": ", ".join(manifest.targets),
        "git_commit": manifest.code,
        "sealed_days": len(manifest.seals),
        "train_rows": manifest.train_rows,
        "inputs": in_words(manifest) or "no trees",
        "streamed_days": manifest.inputs.streamed_days,
        "scores": dg.MetadataValue.md(scores_table(manifest.scores)),
    }
    if manifest.train_rows:
        metadata["trained_from"] = from_ns(manifest.trained_from_ns).isoformat()
        metadata["trained_to"] = from_ns(manifest.trained_to_ns).isoformat()
    shown = {key: value for key, value in manifest.scores.items() if f"/{HEADLINE_MIN}m/" in key or key in CLIPS}
    return metadata | {key.replace("/", "_"): value for key, value in shown.items()}


def _usable(load: "Callable[[ModelKey], Model]", key: ModelKey) -> "Model | None":
    """A registered model, or None if there is none or this process cannot use it: then it need not be compared with."""
    try:
        return load(key)
    except (NotReady, SchemaError):
        return None


class Servers(NamedTuple):
    """What a training reads from and writes to."""

    environment: Environment
    database: Database
    lake: Lake
    registry: Registry


class Trained(msgspec.Struct, frozen=True):
    """What a training gave: the gate's verdict, and what Dagster shows."""

    verdict: Verdict
    metadata: dict[str, Any]


_pools: "dict[tuple[str, VolatilityTarget], Pool | None]" = {}
"""The pools of the newest run, by its id and what its labels are: both quantities are fitted on one if these are equal."""


def _target_of(quantity: Quantity, servers: Servers) -> VolatilityTarget:
    """Which variances the rows of a quantity have. The bid is forecast in units of that of minutes, which every day has."""
    return servers.environment.get().model.volatility_target if quantity == VOLATILITY else MINUTES


def _pool(run_id: str, servers: Servers, target: VolatilityTarget) -> "Pool | None":
    """The rows of all markets, made once for the quantities of a run that have the same labels."""
    if (run_id, target) not in _pools:
        for key in [key for key in _pools if key[0] != run_id]:
            del _pools[key]
        _pools[run_id, target] = _new_pool(servers, target)
    return _pools[run_id, target]


def _new_pool(servers: Servers, target: VolatilityTarget) -> "Pool | None":
    from btc_assets import training  # noqa: PLC0415 - imports numba

    chosen = servers.environment.get()

    def history_of(symbol: str) -> "tuple[Any, StreamRows, TickLabels | None]":
        rows = market_history(symbol, chosen.model.train_days, servers, target)
        return rows.bars, rows.stream, rows.ticks

    return training.make_pool(chosen.exchange.symbols, history_of)


def market_history(symbol: str, days: int, servers: Servers, target: VolatilityTarget) -> "TrainingRows":
    """The newest bars of a market, and what its stream computed of them on sealed days."""
    from btc_core.days.training_rows import read_training_rows  # noqa: PLC0415 - imports numba

    with servers.database.connect() as db, servers.lake.connect() as store:
        return read_training_rows(db, store, symbol, days, target)


def _train(key: ModelKey, servers: Servers, pool: "Pool | None") -> Trained:
    """Train and judge a model, and register what came of it (`_register`)."""
    from btc_assets import training  # noqa: PLC0415 - imports numba
    from btc_core.days.training_rows import seals_of_rows  # noqa: PLC0415 - imports numba
    from btc_core.models.bundle import VolatilityModel  # noqa: PLC0415 - imports numba
    from btc_core.models.user_model import stand_in_of  # noqa: PLC0415 - imports numba
    from btc_core.stores.live_rows import live_frame  # noqa: PLC0415 - imports numba

    started_s = SYSTEM_CLOCK.monotonic_s()
    database, registry = servers.database, servers.registry
    target = _target_of(key.quantity, servers)
    history = market_history(key.symbol, servers.environment.get().model.train_days, servers, target)

    def live_rows_since(ts_ns: int) -> "Frame":
        with database.connect() as db:
            return live_frame(db, key.symbol, ts_ns, target if key.quantity == VOLATILITY else None)

    champion, challenger = _usable(registry.champion, key), _usable(registry.challenger, key)
    if isinstance(champion, VolatilityModel):
        champion = stand_in_of(champion)  # live forecasts judge a user's model, and no code of the user runs here
    result, rows = training.train(
        key.quantity, history.bars, champion, challenger, live_rows_since, pool, history.stream, history.ticks
    )
    if result.is_new and result.model.manifest.train_rows:
        with database.connect() as db, servers.lake.connect() as store:
            seals = seals_of_rows(db, store, key.symbol, result.model.manifest.trained_from_ns)
        for model in (result.model, result.refused):
            if model is not None:
                model.manifest = msgspec.structs.replace(model.manifest, seals=seals, code=git_commit())
    verdict = result.verdict
    metadata: dict[str, Any] = {"gate": verdict.reason} | _model_metadata(result.model)
    if result.is_new:
        verdict, registered = _register(key, result, rows, registry, champion)
        metadata |= registered | {"gate": verdict.reason}
    metadata["train_s"] = round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)
    return Trained(verdict, metadata)


def _register(
    key: ModelKey, result: "TrainingResult", rows: Any, registry: Registry, champion: "Model | None"
) -> tuple[Verdict, dict[str, Any]]:
    """Register what a training made, and the trees that it refused as a version in shadow; returns the verdict and metadata.

    A model that is the same random walk as the champion is not registered.
    """
    from btc_assets import training  # noqa: PLC0415 - imports numba

    verdict, params, metadata = result.verdict, training.params(key.quantity), dict[str, Any]()
    if result.refused is None:
        registry.release(key, REFUSED)
    else:
        refusal = msgspec.structs.replace(verdict, passed=False)
        pictures = of_training(msgspec.structs.replace(result, model=result.refused), rows)
        in_shadow = registry.register(
            key, result.refused, rows, refusal, params=params, pictures=pictures, alias=REFUSED
        )
        verdict = msgspec.structs.replace(
            verdict, reason=f"{verdict.reason}; version {in_shadow.version} keeps them, in shadow"
        )
        metadata["refused_version"] = in_shadow.version
    kept = training.same_walk(champion, result.model, now_ns())
    if kept and champion is not None:
        registry.release(key, CHALLENGER)
        verdict = msgspec.structs.replace(verdict, reason=f"{verdict.reason}; {kept}")
        return verdict, metadata | {"kept_version": champion.version}
    made = registry.register(key, result.model, rows, verdict, params=params, pictures=of_training(result, rows))
    return verdict, metadata | {"version": made.version, "mlflow": dg.MetadataValue.url(made.url)}


def _gate_result(verdicts: Mapping[str, Verdict], failures: Mapping[str, str]) -> dg.AssetCheckResult:
    """Passed if the models of all markets may serve; one that may not stops no other, because each gate is stored."""
    refused = [symbol for symbol, verdict in verdicts.items() if not verdict.passed]
    metadata: dict[str, Any] = {"refused": ", ".join([*refused, *failures])}
    lines = [f"{symbol}: {reason}" for symbol, reason in failures.items()]
    for symbol in [*refused, *(symbol for symbol in verdicts if symbol not in refused)]:
        verdict, suffix = verdicts[symbol], market_suffix(symbol)
        lines.append(f"{symbol}: {verdict.reason}")
        metadata |= {f"reason{suffix}": verdict.reason, f"beats_baselines{suffix}": verdict.beats_baselines}
        metadata |= {f"{name}{suffix}": value for name, value in verdict.figures.items() if math.isfinite(value)}
    return dg.AssetCheckResult(
        check_name="gate",
        passed=not refused and not failures,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(lines),
        metadata=metadata,
    )


def _model_asset(quantity: Quantity, markets: dg.PartitionsDefinition[str] = MARKETS) -> dg.AssetsDefinition:
    gate = dg.AssetCheckSpec(
        "gate",
        asset=model_asset(quantity),
        description="The models of all markets may serve: each is not worse than its champion, or has proven in shadow to "
        "be better. A market whose model may not serve keeps its champion.",
    )

    @dg.asset(
        name=model_asset(quantity),
        partitions_def=markets,
        backfill_policy=ONE_RUN,
        deps=[minute_bars, older_bars, SEALED_BARS],
        check_specs=[gate],
        kinds={"xgboost", "mlflow"},
        group_name="models",
        owners=OWNERS,
        code_version=FEATURE_VERSION,
        description=MODEL_DESCRIPTIONS[quantity],
    )
    def trained_model(
        context: dg.AssetExecutionContext,
        environment: Environment,
        database: Database,
        lake: Lake,
        registry: Registry,
    ) -> Result:
        servers = Servers(environment, database, lake, registry)
        pool = _pool(context.run.run_id, servers, _target_of(quantity, servers))
        verdicts: dict[str, Verdict] = {}

        def train_market(symbol: str) -> Mapping[str, Any]:
            trained = _train(ModelKey(symbol, quantity), servers, pool)
            verdicts[symbol] = trained.verdict
            return trained.metadata

        failures = for_each_market(context, model_asset(quantity), train_market)
        return dg.MaterializeResult(check_results=[_gate_result(verdicts, failures)])

    return trained_model


def _champion_asset(quantity: Quantity, markets: dg.PartitionsDefinition[str] = MARKETS) -> dg.AssetsDefinition:
    @dg.asset(
        name=champion_asset(quantity),
        partitions_def=markets,
        backfill_policy=ONE_RUN,
        deps=[model_asset(quantity)],
        kinds={"mlflow"},
        group_name="models",
        owners=OWNERS,
        description=f"The {quantity} model that serves. A challenger that passed its gate replaces it within seconds.",
    )
    def champion(context: dg.AssetExecutionContext, registry: Registry) -> None:
        def promote_in(symbol: str) -> Mapping[str, Any]:
            promotion = registry.promote_challenger(ModelKey(symbol, quantity))
            if promotion is None:
                return {"moved": False, "reason": "there is no challenger that passed its gate; the champion stays"}
            if promotion.held:
                return {"moved": False, "version": promotion.version, "reason": promotion.held}
            return {"moved": True, "version": promotion.version, "reason": promotion.reason}

        for_each_market(context, champion_asset(quantity), promote_in)

    return champion


def serves(database: Database, registry: Registry, key: ModelKey) -> tuple[bool, dict[str, Any]]:
    """Whether the champion loads and forecasts recent rows as it should, and the facts."""
    from btc_core.features.bar_features import bar_features  # noqa: PLC0415 - imports numba
    from btc_core.features.minute_columns import minute_columns  # noqa: PLC0415 - imports numba
    from btc_core.models.bundle import BidModel, VolatilityModel  # noqa: PLC0415 - imports numba
    from btc_core.models.harx import INPUT_COLUMNS  # noqa: PLC0415 - imports numba

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
    sigma = (
        volatility.predict(matrix, columns)
        if isinstance(volatility, VolatilityModel)
        else np.empty((0, len(HORIZONS_MIN)))
    )
    values = model.predict(matrix, sigma) if isinstance(model, BidModel) else sigma
    passed = bool(len(values) and np.isfinite(values).all())
    facts: dict[str, Any] = {"rows": len(values), "version": model.version, "kind": model.kind}
    if isinstance(model, VolatilityModel):
        floor_share = float(np.mean(model.harx.is_at_floor(matrix[:, INPUT_COLUMNS]))) if len(values) else 0.0
        passed = passed and bool((values > 0.0).all()) and floor_share < MAX_FLOOR_SHARE
        facts["floor_share"] = floor_share
    if len(values):
        facts |= {
            f"median_{HEADLINE_MIN}m_bps": float(np.median(values[:, -1])),
            f"max_{HEADLINE_MIN}m_bps": float(np.max(np.abs(values[:, -1]))),
        }
    return passed, facts


def _serves_check(quantity: Quantity) -> dg.AssetChecksDefinition:
    needs_volatility = quantity == BID  # whose forecasts are multiples of σ

    @dg.asset_check(
        name=f"{champion_asset(quantity)}_serves",
        asset=champion_asset(quantity),
        additional_deps=[champion_asset(VOLATILITY)] if needs_volatility else None,
        description=SERVES_DESCRIPTIONS[quantity],
    )
    def check(environment: Environment, database: Database, registry: Registry) -> dg.AssetCheckResult:
        found = {
            symbol: serves(database, registry, ModelKey(symbol, quantity))
            for symbol in environment.get().exchange.symbols
        }
        facts = {
            f"{name}{market_suffix(symbol)}": value for symbol, (_, of) in found.items() for name, value in of.items()
        }
        failed = [symbol for symbol, (passed, _) in found.items() if not passed]
        return dg.AssetCheckResult(passed=not failed, metadata=facts | {"failed": ", ".join(failed)})

    return check


MODEL_ASSETS = tuple(_model_asset(quantity) for quantity in QUANTITIES)
CHAMPION_ASSETS = tuple(_champion_asset(quantity) for quantity in QUANTITIES)
SERVES_CHECKS = tuple(_serves_check(quantity) for quantity in QUANTITIES)
