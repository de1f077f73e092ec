"""Lets a user's model serve: the gate's verdict on its live forecasts in the league, and the version that becomes champion.

A file is promoted by the gate of a change, when a person asks for it (`promote`). While it serves, each newer fit of the same file
takes its place if the gate of a refresh lets it (`renew`), and the newest challenger that passed its own gate becomes the stand-in.
What does not belong here: the scores (`standings`), moving aliases (`btc_core.registry.promotion`), and serving
(`btc_core.league.serving`).
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.errors import InvalidInput, NotReady, SchemaError
from btc_core.features.minute_columns import COLUMNS
from btc_core.league import bundles, serving
from btc_core.league.process import EntryFailed
from btc_core.league.standings import GATE_DAYS, change_verdict, read_entries, read_outcomes, refresh_verdict
from btc_core.models.bundle import VolatilityModel
from btc_core.models.gate import MAY_SERVE
from btc_core.models.manifest import UserEntry
from btc_core.models.user_model import MAX_BYTES, stand_in_of, with_user
from btc_core.names import CHALLENGER, MINUTES, VOLATILITY, ModelKey
from btc_core.registry import promotion
from btc_core.registry.bundles import load_champion, load_version
from btc_core.stores.questdb import QuestDB

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.league.bundles import TrainedEntry
    from btc_core.league.standings import EntryRows, Outcomes
    from btc_core.models.gate import Verdict
    from btc_core.registry.bundles import Registration
    from btc_core.settings import Settings

TRIED_ROWS = 20
"""Rows that a model forecasts, one by one, before it is promoted."""


class Renewal(msgspec.Struct, frozen=True):
    """What became of the newest fit of the model that serves in a market."""

    version: str
    """The version that serves now; empty if nothing moved."""
    reason: str


def promote(settings: Settings, entry: str, symbol: str) -> Registration:
    """Make the newest fit of an entry the champion of a market's volatility, if the gate lets it; returns the new version.

    Raises `InvalidInput` with the gate's figures if it does not, or with what else stands against it; and `StoreError`.
    """
    key = ModelKey(symbol, VOLATILITY)
    version = bundles.newest_version(settings, entry, symbol)
    if version is None:
        raise InvalidInput(f"{entry} has no trained model of {symbol}; `btc models add` adds and trains one")
    trained = _loaded(settings, entry, symbol, version)
    champion = _champion(settings, key)
    served = champion.manifest.user_entry
    if served is not None and (served.name, served.model_version) == (entry, version):
        raise InvalidInput(f"version {version} of {entry} is the champion of {symbol} already")
    outcomes, rows = _live(settings, entry, symbol)
    verdict = None if rows is None else change_verdict(rows.of_version(trained.file_version), outcomes)
    if verdict is None:
        msg = (
            f"{entry} is not promoted: no live forecast of its file {trained.file_version} for {symbol} has an outcome; the "
            "gate needs two weeks of them"
        )
        raise InvalidInput(msg)
    if not verdict.passed:
        raise InvalidInput(f"{entry} is not promoted: it does not pass the gate of {symbol}: {verdict.reason}")
    return _serve(settings, key, stand_in_of(champion), (entry, trained), verdict)


def renew(settings: Settings, symbol: str) -> Renewal:
    """Let the newest fit of the user's model that serves in a market take its place, if its gate lets it.

    Raises `StoreError`; whatever else stands against it is the reason in the answer.
    """
    try:
        return _renewed(settings, ModelKey(symbol, VOLATILITY))
    except (InvalidInput, SchemaError) as error:
        return Renewal("", str(error))


def _renewed(settings: Settings, key: ModelKey) -> Renewal:
    champion = _champion(settings, key)
    served = champion.manifest.user_entry
    if served is None:
        raise InvalidInput("no user's model serves")
    version = bundles.newest_version(settings, served.name, key.symbol)
    if version is None or version == served.model_version:
        raise InvalidInput(f"{served.name} has no newer fit")
    trained = _loaded(settings, served.name, key.symbol, version)
    if trained.file_version != served.file_version:
        msg = f"{served.name} has another file since it was promoted; `btc models promote {served.name}` asks the gate"
        raise InvalidInput(msg)
    outcomes, rows = _live(settings, served.name, key.symbol)
    if rows is None:
        raise InvalidInput(f"{served.name} has no live forecasts")
    verdict = refresh_verdict(rows.of_version(trained.file_version), outcomes)
    if not verdict.passed:
        raise InvalidInput(f"fit {version} of {served.name} does not pass: {verdict.reason}")
    stand_in = _passed_challenger(settings, key) or stand_in_of(champion)
    made = _serve(settings, key, stand_in, (served.name, trained), verdict)
    return Renewal(made.version, verdict.reason)


def _champion(settings: Settings, key: ModelKey) -> VolatilityModel:
    try:
        champion = load_champion(settings, key)
    except NotReady as error:
        msg = f"a user's model serves with the champion as its stand-in, and {key.symbol} has none: {error}"
        raise InvalidInput(msg) from error
    if not isinstance(champion, VolatilityModel) or champion.manifest.volatility_target != MINUTES:
        msg = f"the champion of {key.symbol} forecasts the volatility of ticks, and users' models that of minutes"
        raise InvalidInput(msg)
    return champion


def _passed_challenger(settings: Settings, key: ModelKey) -> VolatilityModel | None:
    """The challenger that a training registered and that passed its gate; None if there is none that can be used."""
    for each in promotion.versions(settings, key):
        if CHALLENGER in each.aliases and each.gate_result in MAY_SERVE:
            try:
                found = load_version(settings, key, each.version)
            except SchemaError:
                return None
            is_usable = isinstance(found, VolatilityModel) and found.manifest.volatility_target == MINUTES
            return found if is_usable and isinstance(found, VolatilityModel) else None
    return None


def _loaded(settings: Settings, entry: str, symbol: str, version: str) -> TrainedEntry:
    """The files of a fit that reads nothing but what the forecast worker has; raises `InvalidInput` for others."""
    if bundles.reads_own_features(settings, entry, symbol, version):
        names = sorted(path.stem for path in settings.user_features.glob("*.py"))
        msg = (
            f"fit {version} of {entry} was trained with features of your own ({', '.join(names) or 'removed since'}), which a model "
            "that serves does not get: no proof of a forecast has them. Remove them with `btc features remove`, and train again"
        )
        raise InvalidInput(msg)
    trained = bundles.load(settings, entry, symbol, version)
    if len(trained.model) > MAX_BYTES:
        msg = f"fit {version} of {entry} has {len(trained.model):,} bytes; a model that serves may have {MAX_BYTES:,}"
        raise InvalidInput(msg)
    return trained


def _live(settings: Settings, entry: str, symbol: str) -> tuple[Outcomes, EntryRows | None]:
    end_ns = now_ns()
    begin_ns = end_ns - GATE_DAYS * NS_PER_DAY
    with QuestDB(settings.questdb) as db:
        outcomes = read_outcomes(db, symbol, begin_ns, end_ns)
        return outcomes, read_entries(db, symbol, begin_ns, end_ns).get(entry)


def _serve(
    settings: Settings, key: ModelKey, stand_in: VolatilityModel, fit: tuple[str, TrainedEntry], verdict: Verdict
) -> Registration:
    """Try the model, register it with its stand-in, and make it champion."""
    name, trained = fit
    user = UserEntry(name, trained.file_version, trained.version, trained.data_from, trained.data_to)
    rows = _golden(stand_in)
    model = with_user(stand_in, user, trained.source, trained.model)
    _try(settings, model, rows)
    made = promotion.publish(settings, key, model, rows, verdict, alias=None)
    promotion.promote(settings, key, made.version, f"{name}, fit {trained.version}: {verdict.reason}")
    return made


def _golden(model: VolatilityModel) -> npt.NDArray[np.float64]:
    """The rows of a model's golden batch, (n, features and columns)."""
    assert model.files is not None  # noqa: S101 - it was loaded
    with np.load(io.BytesIO(model.files["golden.npz"]), allow_pickle=False) as arrays:
        return np.hstack([arrays["matrix"], arrays["columns"]], dtype=np.float64)


def _try(settings: Settings, model: VolatilityModel, rows: npt.NDArray[np.float64]) -> None:
    """Forecast rows one by one as in the forecast worker; raises `InvalidInput` if the model fails or is too slow for it."""
    limits, features = settings.league, rows.shape[1] - len(COLUMNS)
    matrix, columns = rows[:TRIED_ROWS, :features], rows[:TRIED_ROWS, features:].astype(np.float32)
    took_s = []
    try:
        with serving.started(model, limits, settings.user_models) as process:
            for place in range(len(matrix)):
                part = slice(place, place + 1)
                asked = serving.rows_of(model, matrix[part], columns[part], np.array([now_ns()]))
                began_s = time.perf_counter()
                process.predict_alone(serving.SYMBOL, asked, limits.serve_s, limits.predict_s)
                took_s.append(time.perf_counter() - began_s)
    except EntryFailed as error:
        raise InvalidInput(f"it fails where it would serve: {error}") from error
    middle_s = float(np.median(took_s))
    if middle_s > limits.serve_s:
        msg = (
            f"one forecast takes {1e3 * middle_s:.1f} ms, and a model that serves may take {1e3 * limits.serve_s:g} ms; make it "
            "faster, or raise BTC_LEAGUE_SERVE_S, for which every served forecast of the market then waits"
        )
        raise InvalidInput(msg)
