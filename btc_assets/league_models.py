"""The models of the league: each of the user's files is fitted daily, for each market, on the rows of our own models.

A fit runs in a process of its own with limits of time and memory (`btc_core.league.process`), so a bad file fails alone. Where such
a model is the champion, `league_champion` lets its newest fit take its place, if the gate lets it. A person promotes the first one.
What does not belong here: forecasts of the league (`streaming.league`), and the models of the package (`model_assets`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from btc_assets.asset_metadata import OWNERS, market_suffix
from btc_assets.model_assets import SEALED_BARS, Servers, market_history, scores_table
from btc_assets.partitions import MARKETS, ONE_RUN, Result, for_each_market
from btc_assets.resources import Database, Environment, Lake, Registry
from btc_assets.timetable import schedule
from btc_assets.training_bars import minute_bars, older_bars
from btc_core.errors import ServiceError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.league.folder import EntryFile, entries_in
from btc_core.names import TRAIN_LEAGUE_JOB
from btc_core.settings import Settings
from btc_core.stores.dagster import market_tags

if TYPE_CHECKING:
    from btc_core.features.user.values import UserColumns
    from btc_core.models.dataset import Frame

ASSET = "league_models"
CHAMPION_ASSET = "league_champion"
_CHECK = "entries_fit"
NO_ENTRIES = "the user has no models; `btc models add` adds one"


def train_entry(
    settings: Settings, entry: EntryFile, symbol: str, frame: "Frame", own: "UserColumns"
) -> dict[str, Any]:
    """Score a fit without the newest days on these, fit on all days, register the model; returns what Dagster shows.

    `own` are the user's own features at the origins of the frame.
    Raises `EntryFailed` if the user's code fails, `StoreError` if MLflow does.
    """
    from btc_assets.training import hold_out  # noqa: PLC0415 - imports numba
    from btc_assets.training_scores import volatility_scores  # noqa: PLC0415 - imports numba
    from btc_core.league import bundles  # noqa: PLC0415 - imports numba
    from btc_core.league.process import EntryProcess  # noqa: PLC0415 - a run that has no entry needs no child process
    from btc_core.league.rows import dataset_of, floor_of, rows_of  # noqa: PLC0415 - imports numba
    from btc_core.models.fitting import harx_sigma  # noqa: PLC0415 - imports numba
    from btc_core.models.recipe import RECIPE  # noqa: PLC0415 - imports numba

    limits = settings.league
    before, block = hold_out(frame)
    dataset = dataset_of(frame, symbol, own)
    with EntryProcess(entry, dataset.names, limits.fit_memory_bytes) as process:
        process.use(symbol, process.fit(dataset_of(before, symbol, own), limits.fit_s).model)
        sigma = process.predict(symbol, rows_of(block, own), limits.fit_s).sigma_bps
        fitted = process.fit(dataset, limits.fit_s)
    labels = np.maximum(block.realized, floor_of(before))
    harx = harx_sigma(before.last_days(RECIPE.harx.window_days), block)
    scores = volatility_scores(labels, {"harx": harx, entry.name: sigma}) | {"test_rows": float(len(sigma))}
    version, url = bundles.register(settings, entry, dataset, fitted, scores, own.version)
    return {
        "file_version": entry.version,
        "version": version,
        "mlflow": dg.MetadataValue.url(url),
        "fit_s": round(fitted.took_s, 2),
        "train_rows": len(dataset),
        "scores": dg.MetadataValue.md(scores_table(scores)),
    }


@dg.asset(
    name=ASSET,
    partitions_def=MARKETS,
    backfill_policy=ONE_RUN,
    deps=[minute_bars, older_bars, SEALED_BARS],
    check_specs=[
        dg.AssetCheckSpec(
            _CHECK,
            asset=ASSET,
            description="Every model of the league was fitted in every market and is in the registry.",
        )
    ],
    kinds={"python", "mlflow"},
    group_name="models",
    owners=OWNERS,
    code_version=FEATURE_VERSION,
    description="The user's own models, fitted on the same rows as the models that serve. They forecast in the league.",
)
def league_models(
    context: dg.AssetExecutionContext,
    environment: Environment,
    database: Database,
    lake: Lake,
    registry: Registry,
) -> Result:
    """Fit each of the user's models in each market; one that fails stops no other."""
    settings = environment.get()
    entries = entries_in(settings.user_models)[: settings.league.max_entries]
    problems: list[str] = []

    def train_market(symbol: str) -> Mapping[str, Any]:
        if not entries:
            return {"entries": 0}
        servers = Servers(environment, database, lake, registry)
        history = market_history(symbol, settings.model.train_days, servers, settings.model.volatility_target)
        frame = history.frame()
        own = _own_columns(settings, servers, symbol, history.bars, frame)
        metadata: dict[str, Any] = {"entries": len(entries)}
        for entry in entries:
            metadata |= _trained(context, settings, entry, symbol, frame, own, problems)
        return metadata

    failures = for_each_market(context, ASSET, train_market)
    problems += [f"{symbol}: {reason}" for symbol, reason in failures.items()]
    check = dg.AssetCheckResult(
        check_name=_CHECK,
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(problems) or (f"{len(entries)} models" if entries else NO_ENTRIES),
    )
    return dg.MaterializeResult(check_results=[check])


def _own_columns(settings: Settings, servers: Servers, symbol: str, bars: Any, frame: "Frame") -> "UserColumns":
    """The user's own features at the origins of a frame."""
    from btc_core.days.history import History  # noqa: PLC0415 - imports pyarrow
    from btc_core.days.user_features import user_columns  # noqa: PLC0415 - imports numba
    from btc_core.features.user.values import NO_COLUMNS, UserFeatures  # noqa: PLC0415 - imports numba

    features = UserFeatures.in_folder(settings.user_features)
    if features is None:
        return NO_COLUMNS
    with servers.database.connect() as db, servers.lake.connect() as store:
        return user_columns(History(db, lambda: store), symbol, bars, frame.origin_ns, features)


def _trained(  # noqa: PLR0913, PLR0917 - one fit, and where its problems go
    context: dg.AssetExecutionContext,
    settings: Settings,
    entry: EntryFile,
    symbol: str,
    frame: "Frame",
    own: "UserColumns",
    problems: list[str],
) -> dict[str, Any]:
    from btc_core.league.process import EntryFailed  # noqa: PLC0415 - as in `train_entry`

    try:
        found = train_entry(settings, entry, symbol, frame, own)
    except (EntryFailed, ServiceError) as error:
        context.log.exception("%s of %s was not trained", entry.name, symbol)
        problems.append(f"{entry.name}{market_suffix(symbol)}: {error}")
        found = {"error": str(error)}
    return {f"{entry.name}_{name}": value for name, value in found.items()}


@dg.asset(
    name=CHAMPION_ASSET,
    partitions_def=MARKETS,
    backfill_policy=ONE_RUN,
    deps=[league_models],
    kinds={"mlflow"},
    group_name="models",
    owners=OWNERS,
    description="The user's model that serves a market, if one does. Its newest fit takes over if the live forecasts of its file over the "
    "last 28 days, which older fits made, pass the gate of a refresh: the upper 95 % bound of their loss ratio must be below 1 to the "
    "best baseline, and below 1.02 to the champion.",
)
def league_champion(context: dg.AssetExecutionContext, registry: Registry) -> None:
    """Ask the gate of a refresh in each market in which a user's model serves."""

    def renew_in(symbol: str) -> Mapping[str, Any]:
        found = registry.renew_user_model(symbol)
        return {"moved": bool(found.version), "version": found.version, "reason": found.reason}

    for_each_market(context, CHAMPION_ASSET, renew_in)


train_league = dg.define_asset_job(
    TRAIN_LEAGUE_JOB,
    selection=dg.AssetSelection.assets(league_models, league_champion),
    description="Fit the user's own models, which forecast in the league, and renew the one that serves.",
    tags={"btc/kind": "training"},
)


@schedule(
    job=train_league,
    cron_schedule="40 0 * * *",
    description="Fits the models of the league once a day, after those that serve.",
)
def daily_league(environment: Environment) -> dg.RunRequest | dg.SkipReason:
    """Request one run for all markets if the user has models."""
    settings = environment.get()
    if not entries_in(settings.user_models):
        return dg.SkipReason(NO_ENTRIES)
    return dg.RunRequest(tags=market_tags(settings.exchange.symbols))
