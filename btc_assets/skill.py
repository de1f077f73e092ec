"""Live truth: how good forecasts have been against their baselines, how far features have drifted, and what follows.

`prediction_skill` and `feature_drift` write tables and check them; `demotions` hands a champion's title to the baseline
inside it when it has stopped being good. What does not belong here: outcomes (the forecast worker writes them).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec

from btc_assets.asset_metadata import OWNERS, table_metadata
from btc_assets.resources import Database, Environment, Registry  # noqa: TC001 - Dagster reads the annotations
from btc_core.clock import NS_PER_S, column_ns, from_ns, now_ns
from btc_core.names import BID_MODEL, LEVELS_PCT, VOLATILITY_MODEL
from btc_core.tables.catalogue import FEATURE_DRIFT, PREDICTION_OUTCOMES, PREDICTION_SKILL
from btc_core.tables.form import of_symbol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from btc_core.models.gate import Verdict
    from btc_core.stores.questdb import QuestDB

    Floats = npt.NDArray[np.float64]

HOUR_NS = 3_600 * NS_PER_S
PERIODS_H = (1, 6, 24, 168)
OUTCOMES_STALE_S = 900
"""Newest outcome older than this: forecasts or their features have stopped."""
DRIFT_HOURS = 168
"""A day is one kind of weather; a week has seen a weekend too."""
DRIFT_ROWS = 120
"""Fewer minutes than this say nothing about a distribution."""
DRIFTED_AT_MOST = 5
"""Features that may be beyond both bounds before the check fails: they are thirty, and move together."""

_BASELINES = ("harx", "har", "ewma", "naive")
_QUANTITIES = {"volatility": VOLATILITY_MODEL, "bid": BID_MODEL}
SKILL_CHECKS = {quantity: f"{quantity}_is_good" for quantity in _QUANTITIES}
"""The live check of each forecast."""


class Skill(msgspec.Struct, frozen=True):
    """One row of `gold_prediction_skill`."""

    quantity: str
    hours: int
    outcomes: int
    loss: float
    best_baseline: str
    baseline_loss: float
    ratio: float
    coverage_50: float
    coverage_80: float
    coverage_90: float


def losses_of(outcomes: pd.DataFrame, quantity: str) -> tuple[Floats, dict[str, Floats]]:
    """Losses at five minutes of the served forecast and of each baseline that was scored."""
    import numpy as np  # noqa: PLC0415 - not needed to load the graph

    if quantity == "bid":
        moved = outcomes["bid_return_5m_bps"].to_numpy()
        losses = (moved - outcomes["bid_forecast_5m_bps"].to_numpy()) ** 2
        scored = {"random_walk": moved**2, "ar": (moved - outcomes["bid_ar_5m_bps"].to_numpy()) ** 2}
    else:
        losses = outcomes["qlike_model_5m"].to_numpy()
        scored = {name: outcomes[f"qlike_{name}_5m"].to_numpy() for name in _BASELINES}
    return losses, {name: each for name, each in scored.items() if not np.isnan(each).any()}


def skill_of(outcomes: pd.DataFrame, quantity: str, hours: int) -> Skill:
    """Skill over outcomes, which must not be empty."""
    losses, baselines = losses_of(outcomes, quantity)
    means = {name: float(each.mean()) for name, each in baselines.items()}
    best = min(means, key=lambda name: means[name])
    loss = float(losses.mean())
    inside = [float(outcomes[f"{quantity}_inside_{level}"].mean()) for level in LEVELS_PCT]
    ratio = loss / means[best] if means[best] > 0.0 else math.nan
    return Skill(quantity, hours, len(outcomes), loss, best, means[best], ratio, *inside)


def verdict_of(outcomes: pd.DataFrame, quantity: str) -> Verdict:
    """The live gate over the last 24 h of outcomes, their coverage over the last 6."""
    from btc_core.models import gate  # noqa: PLC0415 - numpy is slow to import

    losses, baselines = losses_of(outcomes, quantity)
    late = outcomes["ts_event"] > outcomes["ts_event"].max() - gate.DEMOTE_COVERAGE_HOURS * HOUR_NS
    return gate.live(losses, baselines, outcomes.loc[late, f"{quantity}_inside_90"].to_numpy().astype(bool))


def read_outcomes(db: QuestDB, symbol: str, hours: int) -> pd.DataFrame:
    """Outcomes of the last hours before the newest one, in time order, `ts_event` in ns."""
    newest = db.execute(f"SELECT cast(max(ts_event) AS LONG) FROM {PREDICTION_OUTCOMES.name} WHERE {of_symbol(symbol)}")  # noqa: S608
    since = int(newest[0][0]) - hours * HOUR_NS if newest and newest[0][0] is not None else 0
    table = db.query(
        f"SELECT * FROM {PREDICTION_OUTCOMES.name} WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
        f"AND ts_event > cast({since} AS TIMESTAMP_NS) ORDER BY ts_event"
    )
    frame: pd.DataFrame = table.to_pandas()
    return frame.assign(ts_event=column_ns(table["ts_event"]))


def _check_spec(name: str, asset: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=asset, description=description)


@dg.asset(
    name=PREDICTION_SKILL.name,
    deps=[PREDICTION_OUTCOMES.name],
    check_specs=[
        _check_spec(name, PREDICTION_SKILL.name, f"24 h loss and 6 h coverage of the {quantity} forecast.")
        for quantity, name in SKILL_CHECKS.items()
    ]
    + [_check_spec("outcomes_arrive", PREDICTION_SKILL.name, "The newest outcome is not stale.")],
    kinds={"questdb", "gold"},
    group_name="gold",
    owners=OWNERS,
    description=PREDICTION_SKILL.meaning,
    metadata=table_metadata(PREDICTION_SKILL),
)
def prediction_skill(environment: Environment, database: Database) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Write the skill of the last hour, six hours, day and week."""
    import pandas as pd  # noqa: PLC0415 - slow to import, not needed to load the graph

    symbol = environment.get().exchange.symbols[0]
    with database.connect() as db:
        outcomes = read_outcomes(db, symbol, max(PERIODS_H))
        if outcomes.empty:
            why = "no forecast has an outcome yet"
            checks = [dg.AssetCheckResult(check_name=name, passed=True, description=why) for name in _check_names()]
            return dg.MaterializeResult(metadata={"outcomes": 0}, check_results=checks)
        newest_ns = int(outcomes["ts_event"].max())
        rows = [
            skill_of(outcomes[outcomes["ts_event"] > newest_ns - hours * HOUR_NS], quantity, hours)
            for hours in PERIODS_H
            for quantity in _QUANTITIES
        ]
        frame = pd.DataFrame([msgspec.structs.asdict(row) for row in rows])
        frame.insert(0, "ts", pd.to_datetime(newest_ns))
        frame.insert(1, "symbol", symbol)
        for name in ("symbol", "quantity", "best_baseline"):
            frame[name] = frame[name].astype("category")
        db.write(PREDICTION_SKILL.name, frame.astype({"hours": "int32"}), "ts")
    day = outcomes[outcomes["ts_event"] > newest_ns - 24 * HOUR_NS]
    checks = [_is_good(quantity, verdict_of(day, quantity)) for quantity in _QUANTITIES]
    age_s = (now_ns() - newest_ns) / NS_PER_S
    metadata: dict[str, Any] = {"outcomes": len(outcomes), "newest": from_ns(newest_ns).isoformat(), "age_s": age_s}
    metadata |= {f"{row.quantity}_{row.hours}h_ratio": row.ratio for row in rows if math.isfinite(row.ratio)}
    metadata |= {f"{row.quantity}_{row.hours}h_coverage_90": row.coverage_90 for row in rows}
    arrived = dg.AssetCheckResult(
        check_name="outcomes_arrive", passed=age_s < OUTCOMES_STALE_S, severity=dg.AssetCheckSeverity.WARN,
        metadata={"age_s": age_s},
    )  # fmt: skip
    return dg.MaterializeResult(metadata=metadata, check_results=[*checks, arrived])


def _check_names() -> list[str]:
    return [*SKILL_CHECKS.values(), "outcomes_arrive"]


def _is_good(quantity: str, verdict: Verdict) -> dg.AssetCheckResult:
    facts = {name: value for name, value in verdict.figures.items() if math.isfinite(value)}
    return dg.AssetCheckResult(
        check_name=SKILL_CHECKS[quantity], passed=verdict.passed, severity=dg.AssetCheckSeverity.WARN,
        description=verdict.reason, metadata=facts,
    )  # fmt: skip


@dg.asset(deps=[prediction_skill], kinds={"mlflow"}, group_name="models", owners=OWNERS)
def demotions(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult[None]:
    """Hand the title to the baseline inside the champion, when the champion's last day was bad."""
    from btc_core.errors import NotReady  # noqa: PLC0415 - with it
    from btc_core.features.catalogue import MODEL_FEATURES  # noqa: PLC0415 - the same
    from btc_core.models.bundle import golden_rows  # noqa: PLC0415 - slow to import

    symbol = environment.get().exchange.symbols[0]
    metadata: dict[str, Any] = {}
    with database.connect() as db:
        day = read_outcomes(db, symbol, 24)
        rows = _recent_rows(db, symbol, MODEL_FEATURES)
    for quantity, name in _QUANTITIES.items():
        try:
            champion = registry.champion(name)
        except NotReady as error:
            metadata[name] = str(error)
            continue
        mine = day[(day[f"{quantity}_model_version"] == champion.version)] if len(day) else day
        if champion.kind != "xgboost" or mine.empty:
            metadata[name] = f"version {champion.version} ({champion.kind}) stays"
            continue
        verdict = verdict_of(mine, quantity)
        metadata[name] = f"version {champion.version}: {verdict.reason}"
        if not verdict.passed:
            served = registry.demote(champion, golden_rows(rows), verdict.reason)
            metadata[name] = f"version {champion.version} demoted to {served.version}: {verdict.reason}"
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    name=FEATURE_DRIFT.name,
    deps=["silver_features"],
    check_specs=[_check_spec("features_are_familiar", FEATURE_DRIFT.name, "Few features are far from their training.")],
    kinds={"questdb", "gold"},
    group_name="gold",
    owners=OWNERS,
    description=FEATURE_DRIFT.meaning,
    metadata=table_metadata(FEATURE_DRIFT),
)
def feature_drift(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """PSI of each feature that the champion keeps the distribution of: the last week against its training window."""
    import pandas as pd  # noqa: PLC0415 - slow to import, not needed to load the graph

    from btc_core.errors import NotReady  # noqa: PLC0415 - the same
    from btc_core.models import drift  # noqa: PLC0415 - the same

    def unknown(why: str) -> dg.MaterializeResult[None]:
        check = dg.AssetCheckResult(check_name="features_are_familiar", passed=True, description=why)
        return dg.MaterializeResult(metadata={"reason": why}, check_results=[check])

    symbol = environment.get().exchange.symbols[0]
    try:
        trained = registry.champion(VOLATILITY_MODEL).manifest.distributions
    except NotReady as error:
        return unknown(str(error))
    with database.connect() as db:
        rows = _recent_rows(db, symbol, tuple(trained), hours=DRIFT_HOURS)
        if len(rows) < DRIFT_ROWS:
            return unknown(f"{len(rows)} minutes of features, {DRIFT_ROWS} are needed")
        found = [(name, *drift.psi(edges, rows[:, column])) for column, (name, edges) in enumerate(trained.items())]
        frame = pd.DataFrame(found, columns=["feature", "psi", "psi_by_chance"])
        frame = frame.assign(ts=pd.to_datetime(now_ns()), symbol=symbol, rows=len(rows))
        db.write(FEATURE_DRIFT.name, frame.astype({"symbol": "category", "feature": "category"}), "ts")
    far = frame[(frame["psi"] > drift.LARGE) & (frame["psi"] > frame["psi_by_chance"])].sort_values("psi")
    facts: dict[str, Any] = {"rows": len(rows), "features_far": len(far), "farthest": ", ".join(far["feature"].tail(5))}
    check = dg.AssetCheckResult(
        check_name="features_are_familiar", passed=len(far) <= DRIFTED_AT_MOST, severity=dg.AssetCheckSeverity.WARN,
        metadata=facts,
    )  # fmt: skip
    return dg.MaterializeResult(metadata=facts | {"psi_largest": float(frame["psi"].max())}, check_results=[check])


def _recent_rows(db: QuestDB, symbol: str, names: tuple[str, ...], hours: int = 24) -> Floats:
    """One feature row a minute of the last hours before the newest, (n, names)."""
    import numpy as np  # noqa: PLC0415 - slow to import, not needed to load the graph

    from btc_core.models.dataset import closed_minutes  # noqa: PLC0415 - the same

    newest = db.execute(f"SELECT cast(max(ts_event) AS LONG) FROM silver_features WHERE {of_symbol(symbol)}")  # noqa: S608
    if not names or not newest or newest[0][0] is None:
        return np.empty((0, len(names)))
    return closed_minutes(db, symbol, names, int(newest[0][0]) - hours * HOUR_NS)[1]
