"""How good live forecasts have been against their baselines, how far features have drifted, and what follows from that.

`prediction_skill` and `feature_drift` write tables and check them. `demotions` makes a baseline inside a champion the
champion when the champion's forecasts have become bad, or worse than those of that baseline. What does not belong here: outcomes, which the forecast worker writes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec
import numpy as np

from btc_assets.asset_metadata import OWNERS, market_suffix, table_metadata
from btc_assets.resources import Database, Environment, Registry  # noqa: TC001 - Dagster reads the annotations
from btc_core.clock import NS_PER_S, column_ns, from_ns, now_ns
from btc_core.errors import NotReady, SchemaError
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models import gate
from btc_core.names import (
    BASELINES,
    BID,
    HEADLINE_MIN,
    LEVELS_PCT,
    MINUTES,
    QUANTITIES,
    TICKS,
    USER,
    VOLATILITY,
    ModelKey,
    Quantity,
    VolatilityTarget,
)
from btc_core.registry.keys import model_keys
from btc_core.tables.catalogue import FEATURE_DRIFT, PREDICTION_OUTCOMES, PREDICTION_SKILL
from btc_core.tables.sql import of_headline, of_symbol, of_target

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from btc_core.registry.bundles import Model
    from btc_core.stores.questdb import QuestDB

    Floats = npt.NDArray[np.float64]

HOUR_NS = 3_600 * NS_PER_S
PERIODS_H = (1, 6, 24, 168)
OUTCOMES_STALE_S = (2 * HEADLINE_MIN + 5) * 60
"""After one silent minute, the next outcome comes twice the headline horizon later. If the newest one is older, forecasts or their features have stopped, or are made too late to serve."""
DRIFT_HOURS = 168
"""A day is like one kind of weather; a week includes a weekend."""
DRIFT_MIN_ROWS = 120
"""Fewer minutes than this say nothing about a distribution."""
DRIFT_MAX_FEATURES = 5
"""How many of the thirty features may have drifted before the check fails; they tend to drift together."""

SKILL_CHECKS: dict[Quantity, str] = {quantity: f"{quantity}_is_good" for quantity in QUANTITIES}
"""The live check of each quantity's forecasts."""
BAD_MARKETS = "bad_markets"
"""The metadata of a live check that lists the markets whose forecasts are bad, separated by commas."""
_ARRIVAL_CHECK, _DRIFT_CHECK = "outcomes_arrive", "features_are_familiar"


class Skill(msgspec.Struct, frozen=True):
    """One row of `gold_prediction_skill`, without its time and market."""

    quantity: Quantity
    hours: int
    outcomes: int
    loss: float
    best_baseline: str
    baseline_loss: float
    ratio: float
    coverage_50: float
    coverage_80: float
    coverage_90: float
    coverage_99: float
    """NaN if no forecast had such an interval."""
    target: VolatilityTarget | None = None
    """What the volatility was; None for the bid."""


class MarketSkill(msgspec.Struct, frozen=True):
    """How good the forecasts of one market were."""

    symbol: str
    outcomes: int
    newest_ns: int
    rows: list[Skill]
    verdicts: dict[Quantity, gate.Verdict]


def losses_of(outcomes: pd.DataFrame, quantity: Quantity) -> tuple[Floats, dict[str, Floats]]:
    """Losses at the headline horizon of the served forecast, and of each baseline that has a loss for every outcome."""
    losses, scored = _all_losses(outcomes, quantity)
    return losses, {name: each for name, each in scored.items() if not np.isnan(each).any()}


def _all_losses(outcomes: pd.DataFrame, quantity: Quantity) -> tuple[Floats, dict[str, Floats]]:
    if quantity == BID:
        moved = outcomes[f"bid_return_{HEADLINE_MIN}m_bps"].to_numpy()
        losses = (moved - outcomes[f"bid_forecast_{HEADLINE_MIN}m_bps"].to_numpy()) ** 2
        scored = {"random_walk": moved**2, "ar": (moved - outcomes[f"bid_ar_{HEADLINE_MIN}m_bps"].to_numpy()) ** 2}
    else:
        losses = outcomes[f"qlike_model_{HEADLINE_MIN}m"].to_numpy()
        scored = {name: outcomes[f"qlike_{name}_{HEADLINE_MIN}m"].to_numpy() for name in BASELINES[VOLATILITY]}
    return losses, scored


def skill_of(outcomes: pd.DataFrame, quantity: Quantity, hours: int) -> Skill:
    """The skill over some outcomes, of which there must be one at least."""
    losses, baselines = losses_of(outcomes, quantity)
    means = {name: float(each.mean()) for name, each in baselines.items()}
    best = min(means, key=lambda name: means[name])
    loss = float(losses.mean())
    coverage = {f"coverage_{level}": float(outcomes[f"{quantity}_inside_{level}"].mean()) for level in LEVELS_PCT}
    ratio = loss / means[best] if means[best] > 0.0 else math.nan
    newest = outcomes["volatility_target"].iloc[-1]  # missing where it was stored before there was a choice
    target = None if quantity == BID else newest if newest == TICKS else MINUTES
    return Skill(quantity, hours, len(outcomes), loss, best, means[best], ratio, target=target, **coverage)


def verdict_of(outcomes: pd.DataFrame, quantity: Quantity) -> gate.Verdict:
    """The live gate's verdict on the outcomes of a day; intervals are judged by those of the last hours."""
    losses, baselines = losses_of(outcomes, quantity)
    late = outcomes["ts_event"] > outcomes["ts_event"].max() - gate.DEMOTE_COVERAGE_HOURS * HOUR_NS
    return gate.live(losses, baselines, outcomes.loc[late, f"{quantity}_inside_90"].to_numpy().astype(bool))


def read_outcomes(db: QuestDB, symbol: str, hours: int) -> pd.DataFrame:
    """Outcomes of the last hours before the newest one, in time order, `ts_event` in ns; those of late forecasts are left out.

    So are those of models that forecast another variance than the newest: their losses are not comparable.
    """
    in_time = f"{of_symbol(symbol)} AND late = false AND {of_headline()}"
    newest = db.execute(
        f"SELECT cast(ts_event AS LONG), volatility_target FROM {PREDICTION_OUTCOMES.name} WHERE {in_time} "  # noqa: S608 - names of the catalogue
        "ORDER BY ts_event DESC LIMIT 1"
    )
    since = int(newest[0][0]) - hours * HOUR_NS if newest else 0
    in_time += f" AND {of_target(newest[0][1] or MINUTES)}" if newest else ""
    table = db.query(
        f"SELECT * FROM {PREDICTION_OUTCOMES.name} WHERE {in_time} "  # noqa: S608 - names of the catalogue
        f"AND ts_event > cast({since} AS TIMESTAMP_NS) ORDER BY ts_event"
    )
    frame: pd.DataFrame = table.to_pandas()
    return frame.assign(ts_event=column_ns(table["ts_event"]))


def _market_skill(db: QuestDB, symbol: str) -> MarketSkill | None:
    """The skill of one market's forecasts, written to the table; None if no forecast has an outcome yet."""
    import pandas as pd  # noqa: PLC0415 - 280 ms

    outcomes = read_outcomes(db, symbol, max(*PERIODS_H, gate.DEMOTE_HOURS))
    if outcomes.empty:
        return None
    newest_ns = int(outcomes["ts_event"].max())

    def last(hours: int) -> pd.DataFrame:
        return outcomes[outcomes["ts_event"] > newest_ns - hours * HOUR_NS]

    rows = [skill_of(last(hours), quantity, hours) for hours in PERIODS_H for quantity in QUANTITIES]
    frame = pd.DataFrame([msgspec.structs.asdict(row) for row in rows])
    frame.insert(0, "ts", pd.to_datetime(newest_ns))
    frame.insert(1, "symbol", symbol)
    for name in ("symbol", "quantity", "best_baseline", "target"):
        frame[name] = frame[name].astype("category")
    db.write(PREDICTION_SKILL.name, frame.astype({"hours": "int32"}), "ts")
    verdicts = {quantity: verdict_of(last(gate.DEMOTE_HOURS), quantity) for quantity in QUANTITIES}
    return MarketSkill(symbol, len(outcomes), newest_ns, rows, verdicts)


@dg.asset(
    name=PREDICTION_SKILL.name,
    deps=[PREDICTION_OUTCOMES.name],
    check_specs=[
        *(
            dg.AssetCheckSpec(
                name,
                asset=PREDICTION_SKILL.name,
                description=f"The {quantity} forecasts of the last {gate.DEMOTE_HOURS} h are not much worse than the best "
                f"baseline, and their 90 % intervals of the last {gate.DEMOTE_COVERAGE_HOURS} h held most outcomes.",
            )
            for quantity, name in SKILL_CHECKS.items()
        ),
        dg.AssetCheckSpec(
            _ARRIVAL_CHECK,
            asset=PREDICTION_SKILL.name,
            description=f"The newest outcome of a forecast that was made in time is less than {OUTCOMES_STALE_S // 60} minutes old.",
        ),
    ],
    kinds={"questdb", "gold"},
    group_name="forecasts",
    owners=OWNERS,
    description=PREDICTION_SKILL.meaning,
    metadata=table_metadata(PREDICTION_SKILL),
)
def prediction_skill(environment: Environment, database: Database) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster accepts only the name without brackets
    """Write the skill of the last hour, six hours, day and week, for each market that is followed."""
    with database.connect() as db:
        found = [_market_skill(db, symbol) for symbol in environment.get().exchange.symbols]
    markets = [market for market in found if market is not None]
    if not markets:
        reason = "no forecast has an outcome yet"
        names = (*SKILL_CHECKS.values(), _ARRIVAL_CHECK)
        checks = [dg.AssetCheckResult(check_name=name, passed=True, description=reason) for name in names]
        return dg.MaterializeResult(metadata={"outcomes": 0}, check_results=checks)
    newest_ns = min(market.newest_ns for market in markets)
    age_s = (now_ns() - newest_ns) / NS_PER_S
    metadata: dict[str, Any] = {
        "outcomes": sum(market.outcomes for market in markets),
        "newest": from_ns(newest_ns).isoformat(),
        "age_s": age_s,
    }
    for market in markets:
        suffix = market_suffix(market.symbol)
        metadata |= {
            f"{row.quantity}_{row.hours}h_ratio{suffix}": row.ratio for row in market.rows if math.isfinite(row.ratio)
        }
        metadata |= {f"{row.quantity}_{row.hours}h_coverage_90{suffix}": row.coverage_90 for row in market.rows}
    arrival = dg.AssetCheckResult(
        check_name=_ARRIVAL_CHECK,
        passed=age_s < OUTCOMES_STALE_S,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"age_s": age_s},
    )
    return dg.MaterializeResult(
        metadata=metadata, check_results=[*(_skill_result(quantity, markets) for quantity in QUANTITIES), arrival]
    )


def _skill_result(quantity: Quantity, markets: list[MarketSkill]) -> dg.AssetCheckResult:
    """Passed if the forecasts of every market are good; the reasons of the markets that are not come first."""
    verdicts = {market.symbol: market.verdicts[quantity] for market in markets}
    bad = [symbol for symbol, verdict in verdicts.items() if not verdict.passed]
    shown = [*bad, *(symbol for symbol in verdicts if symbol not in bad)]
    facts: dict[str, Any] = {
        f"{name}{market_suffix(symbol)}": value
        for symbol, verdict in verdicts.items()
        for name, value in verdict.figures.items()
        if math.isfinite(value)
    }
    return dg.AssetCheckResult(
        check_name=SKILL_CHECKS[quantity],
        passed=not bad,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(f"{symbol}: {verdicts[symbol].reason}" for symbol in shown),
        metadata=facts | {BAD_MARKETS: ", ".join(bad)},
    )


@dg.asset(
    deps=[prediction_skill],
    kinds={"mlflow"},
    group_name="forecasts",
    owners=OWNERS,
    description="Champions whose forecasts were bad or worse than those of a baseline, each replaced by the best baseline that "
    "is part of it.",
)
def demotions(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult[None]:
    """Judge each champion by the outcomes of the last week."""
    symbols = environment.get().exchange.symbols
    with database.connect() as db:
        weeks = {symbol: read_outcomes(db, symbol, gate.REPLACE_HOURS) for symbol in symbols}
        decisions = {key.name: _demote_if_bad(db, registry, key, weeks[key.symbol]) for key in model_keys(symbols)}
    return dg.MaterializeResult(metadata=decisions)


def _demote_if_bad(db: QuestDB, registry: Registry, key: ModelKey, outcomes: pd.DataFrame) -> str:
    """Judge one champion by the outcomes of a week, demote it if it is bad, and return the decision in words."""
    try:
        champion = registry.champion(key)
    except (NotReady, SchemaError) as error:  # another market is judged all the same
        return str(error)
    verdict = champion_verdict(outcomes, champion, key.quantity)
    if verdict.passed:
        return f"version {champion.version} ({champion.kind}) stays: {verdict.reason}"
    best = next(kind for kind in champion.servable_baselines if kind == verdict.best)
    rows = _recent_rows(db, key.symbol, MODEL_FEATURES, gate.DEMOTE_HOURS)
    baseline = registry.demote(key, champion, best, rows, verdict.reason)
    return f"version {champion.version} ({champion.kind}) was replaced by {best}, version {baseline.version}: {verdict.reason}"


def champion_verdict(outcomes: pd.DataFrame, champion: Model, quantity: Quantity) -> gate.Verdict:
    """Whether a champion stays, judged by the outcomes of a week, of which there may be none.

    A champion of any kind is replaced by a baseline that is better beyond all doubt since a champion of its kind began to
    serve. Trees and users' models are replaced at once if the last day of their version was bad.
    """
    if outcomes.empty:
        return gate.Verdict(passed=True, reason="no forecast has an outcome yet")
    losses, baselines = servable_losses(outcomes, champion, quantity)
    known = np.isfinite(losses) & np.isfinite(np.array(list(baselines.values()))).all(axis=0)
    known &= np.arange(len(outcomes)) >= _first_of_kind(outcomes, champion, quantity)
    others = {name: each[known] for name, each in baselines.items() if name != champion.kind}
    verdict = gate.outdone(losses[known], others)
    if not verdict.passed or champion.kind not in {"xgboost", USER}:
        return verdict
    day = known & (outcomes["ts_event"] > outcomes["ts_event"].max() - gate.DEMOTE_HOURS * HOUR_NS).to_numpy()
    day &= (outcomes[f"{quantity}_model_version"] == champion.version).to_numpy()
    late = day & (outcomes["ts_event"] > outcomes["ts_event"].max() - gate.DEMOTE_COVERAGE_HOURS * HOUR_NS).to_numpy()
    inside = outcomes.loc[late, f"{quantity}_inside_90"].to_numpy().astype(bool)
    daily = gate.live(losses[day], {name: each[day] for name, each in baselines.items()}, inside)
    return verdict if daily.passed and len(losses[known]) >= gate.REPLACE_MIN_OUTCOMES else daily


def servable_losses(outcomes: pd.DataFrame, champion: Model, quantity: Quantity) -> tuple[Floats, dict[str, Floats]]:
    """Losses of the served forecasts, and of each baseline that the champion contains; NaN where there was none."""
    losses, scored = _all_losses(outcomes, quantity)
    return losses, {name: scored[name] for name in champion.servable_baselines}


def _first_of_kind(outcomes: pd.DataFrame, champion: Model, quantity: Quantity) -> int:
    """The place of the first outcome since which only versions of the champion's kind have forecast.

    A version of trees forecasts single rows as HARX, where it has too few columns. Of a version of a user's model, the stand-in
    forecasts single rows, and all of them count: that is how it serves. Newer fits of such a model are of its kind.
    """
    kinds, versions = (outcomes[f"{quantity}_model_{what}"].astype(str) for what in ("kind", "version"))
    of_user = versions.isin(set(versions[kinds == USER]) | ({champion.version} if champion.kind == USER else set()))
    of_trees = versions.isin(set(versions[kinds == "xgboost"])) & ~of_user
    own = (kinds == champion.kind) & ~of_trees & ~of_user
    if champion.kind == "xgboost":
        own = of_trees | (versions == champion.version)
    elif champion.kind == USER:
        own = of_user
    others = np.flatnonzero(~own.to_numpy())
    return int(others[-1]) + 1 if len(others) else 0


@dg.asset(
    name=FEATURE_DRIFT.name,
    deps=["silver_features"],
    check_specs=[
        dg.AssetCheckSpec(
            _DRIFT_CHECK,
            asset=FEATURE_DRIFT.name,
            description=f"At most {DRIFT_MAX_FEATURES} features of the last week are distributed differently than in the "
            "champion's training.",
        )
    ],
    kinds={"questdb", "gold"},
    group_name="forecasts",
    owners=OWNERS,
    description=FEATURE_DRIFT.meaning,
    metadata=table_metadata(FEATURE_DRIFT),
)
def feature_drift(environment: Environment, database: Database, registry: Registry) -> dg.MaterializeResult:  # type: ignore[type-arg] # Dagster accepts only the name without brackets
    """Write the PSI of each feature: its distribution in the last week against that in the training of the champion."""
    facts: dict[str, Any] = {}
    far_features: list[int] = []
    unknown: list[str] = []
    with database.connect() as db:
        for symbol in environment.get().exchange.symbols:
            drifts = _market_drift(db, registry, symbol)
            if isinstance(drifts, str):
                unknown.append(drifts)
                continue
            far_features.append(int(drifts["features_far"]))
            facts |= {f"{name}{market_suffix(symbol)}": value for name, value in drifts.items()}
    if not far_features:
        reason = "; ".join(unknown)
        check = dg.AssetCheckResult(check_name=_DRIFT_CHECK, passed=True, description=reason)
        return dg.MaterializeResult(metadata={"reason": reason}, check_results=[check])
    if unknown:
        facts["unknown"] = "; ".join(unknown)
    check = dg.AssetCheckResult(
        check_name=_DRIFT_CHECK,
        passed=max(far_features) <= DRIFT_MAX_FEATURES,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=facts,
    )
    return dg.MaterializeResult(metadata=facts, check_results=[check])


def _market_drift(db: QuestDB, registry: Registry, symbol: str) -> dict[str, Any] | str:
    """Write the drift of one market's features and return facts about it, or why it is unknown."""
    import pandas as pd  # noqa: PLC0415 - 280 ms

    from btc_core.models import drift  # noqa: PLC0415 - imports scipy, 100 ms

    try:
        trained = registry.champion(ModelKey(symbol, VOLATILITY)).manifest.distributions
    except (NotReady, SchemaError) as error:
        return str(error)
    rows = _recent_rows(db, symbol, tuple(trained), DRIFT_HOURS)
    if len(rows) < DRIFT_MIN_ROWS:
        return f"{len(rows)} minutes of features of {symbol}, {DRIFT_MIN_ROWS} are needed"
    found = [(name, *drift.psi(histogram, rows[:, column])) for column, (name, histogram) in enumerate(trained.items())]
    frame = pd.DataFrame(found, columns=["feature", "psi", "psi_by_chance"])
    frame = frame.assign(ts=pd.to_datetime(now_ns()), symbol=symbol, rows=len(rows))
    db.write(FEATURE_DRIFT.name, frame.astype({"symbol": "category", "feature": "category"}), "ts")
    far = frame[(frame["psi"] > drift.LARGE) & (frame["psi"] > frame["psi_by_chance"])].sort_values("psi")
    return {
        "rows": len(rows),
        "features_far": len(far),
        "farthest": ", ".join(far["feature"].tail(5)),
        "psi_largest": float(frame["psi"].max()),
    }


def _recent_rows(db: QuestDB, symbol: str, names: tuple[str, ...], hours: int) -> Floats:
    """One feature row for each minute of the last hours before the newest, (n, names)."""
    from btc_core.stores.live_rows import features_at_minute_ends  # noqa: PLC0415 - imports numba

    newest = db.execute(f"SELECT cast(max(ts_event) AS LONG) FROM silver_features WHERE {of_symbol(symbol)}")  # noqa: S608 - names of the catalogue
    if not names or not newest or newest[0][0] is None:
        return np.empty((0, len(names)))
    return features_at_minute_ends(db, symbol, names, int(newest[0][0]) - hours * HOUR_NS)[1]
