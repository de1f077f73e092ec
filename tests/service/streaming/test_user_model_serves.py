"""A user's model from the league to a served and verified forecast, on real servers: gate, process, stand-in, proof."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, SystemClock, now_ns
from btc_core.days.forecast_check import USER_MODEL, Check
from btc_core.days.forecast_file import opened_evidence, write_evidence
from btc_core.days.forecast_past import past_forecast
from btc_core.days.forecast_search import evidence_of, forecast_at
from btc_core.days.history import History
from btc_core.days.user_model_again import FLAG, UserModelRun
from btc_core.errors import InvalidInput
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS
from btc_core.league import bundles
from btc_core.league.folder import EntryFile
from btc_core.league.process import EntryProcess
from btc_core.league.promotion import promote, renew
from btc_core.league.rows import INPUTS, made_up_dataset
from btc_core.league.standings import BASELINES
from btc_core.models import pretrained
from btc_core.models.gate import Verdict
from btc_core.names import HEADLINE_MIN, USER, VOLATILITY, ModelKey
from btc_core.registry import promotion
from btc_core.registry.bundles import load_champion
from btc_core.registry.champions import BaselineSource, ModelHolder
from btc_core.settings import ModelSettings, UserSettings
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import MINUTE_BARS, PREDICTION_OUTCOMES, VOLATILITY_PREDICTION
from btc_core.tables.league_tables import LEAGUE_FORECASTS
from btc_core.utc_day import day_of
from streaming import features
from streaming.forecast import SPEC, ForecastHandler
from streaming.worker import Worker
from tests.real_alerts import Looks
from tests.service.made_up import made_up
from tests.service.workers import Running, count, market, publish
from tests.unit.btc_core.features.test_minute_columns import market as bars_of_market
from tests.unit.btc_core.league.test_standings import world
from tests.user_models import source
from tests.waiting import PATIENCE_S, wait_for

if TYPE_CHECKING:
    from btc_core.days.forecast_check import Step
    from btc_core.days.forecast_evidence import Evidence
    from btc_core.settings import Settings
    from stack.runtime import Stack

SECONDS, PART_S = 540, 20
"""The length of the market, and of each of the three parts at its end."""
ENVELOPES_A_SECOND, ROWS_A_SECOND = 12, 14
GOLDEN = np.zeros((0, len(MODEL_FEATURES) + len(COLUMNS)))
PASSED = Verdict(passed=True, reason="loss 0.9 of harx's")


def settings_of(stack: Stack, folder: Path) -> Settings:
    """The settings of a stack, with a budget that no machine exceeds, and folders of the test's own."""
    given = stack.settings
    league = given.league.model_copy(update={"serve_s": PATIENCE_S, "predict_s": PATIENCE_S})
    model = ModelSettings(cache_dir=folder / "cache", reload_s=0.5)
    return given.model_copy(update={"league": league, "model": model, "user": UserSettings(dir=str(folder / "user"))})


def train(settings: Settings, symbol: str, name: str) -> EntryFile:
    """Fit an entry in its process and register it, as the Dagster asset does."""
    entry = EntryFile(name, Path(f"{name}.py"), source() + f"# {name}\n".encode())
    dataset = dataclasses.replace(made_up_dataset(), symbol=symbol)
    with EntryProcess(entry, INPUTS, settings.league.memory_bytes) as process:
        bundles.register(settings, entry, dataset, process.fit(dataset, PATIENCE_S), {})
    return entry


def play_league(db: QuestDB, symbol: str, sigma_of: dict[EntryFile, float]) -> None:
    """Twenty days in which each entry forecast the true volatility times its factor, and the champion something worse."""
    outcomes, true = world()
    kept = slice(None, None, 5)
    minutes = outcomes.minute_ns[kept]
    shift_ns = (now_ns() - NS_PER_DAY - int(minutes[-1])) // (5 * NS_PER_MIN) * 5 * NS_PER_MIN
    times = minutes + shift_ns
    day, rows = day_of(int(times[0])), len(times)
    h = HEADLINE_MIN
    quantiles = [msgspec.json.encode([[-1.5, -1.1, -0.6, 0.4, 0.9, 1.2]] * 5).decode()] * rows
    losses = {f"qlike_{name}_{h}m": outcomes.losses[name][kept] for name in BASELINES}
    given: dict[str, Any] = {
        "ts_event": times, "symbol": [symbol] * rows, "late": [False] * rows, "volatility_target": ["minutes"] * rows,
        "volatility_quantiles": quantiles, "bid_quantiles": quantiles, f"realized_{h}m_bps": outcomes.realized_bps[kept],
        f"sigma_{h}m_bps": outcomes.sigma_bps[kept], f"qlike_model_{h}m": outcomes.losses["champion"][kept],
        "volatility_inside_90": outcomes.inside_90[kept], **losses,
    }  # fmt: skip
    write_rows(db, PREDICTION_OUTCOMES, made_up(PREDICTION_OUTCOMES, day, rows, **given))
    for entry, factor in sigma_of.items():
        own = {
            "ts_event": times, "symbol": [symbol] * rows, "entry": [entry.name] * rows, "version": [entry.version] * rows,
            f"sigma_{h}m_bps": factor * true[kept],
        }  # fmt: skip
        write_rows(db, LEAGUE_FORECASTS, made_up(LEAGUE_FORECASTS, day, rows, **own))


def kinds(db: QuestDB, symbol: str, *, last: int) -> list[str]:
    """What forecast the last rows that have numbers."""
    found = db.execute(
        f"SELECT model_kind FROM {VOLATILITY_PREDICTION.name} WHERE symbol = '{symbol}' AND sigma_{HEADLINE_MIN}m_bps IS NOT NULL "
        f"ORDER BY ts_event DESC LIMIT {last}"
    )
    return [row[0] for row in found]


class HeldClock(SystemClock):
    """The clocks of this machine, of which the monotonic one can be held, so that no process is started again meanwhile."""

    def __init__(self) -> None:
        self.held_s: float | None = None

    def monotonic_s(self) -> float:
        return super().monotonic_s() if self.held_s is None else self.held_s


@pytest.mark.causes("StandInServes")
@pytest.mark.timeout(1_800)
def test_an_entry_that_passes_the_gate_serves_and_its_stand_in_takes_over_while_it_is_down(
    own_stack: Stack, tmp_path: Path
) -> None:
    own_stack.up(only=("questdb", "kafka", "valkey", "store", "mlflow"))
    settings = settings_of(own_stack, tmp_path)
    symbol = settings.exchange.symbols[0]
    key = ModelKey(symbol, VOLATILITY)
    ensure_topics(settings)
    begin_ns = (now_ns() // NS_PER_MIN - SECONDS // 60 - 3) * NS_PER_MIN
    bars = bars_of_market(2 * 1440, begin_ns - 2 * NS_PER_DAY)
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        write_rows(db, MINUTE_BARS, table_rows.minute_bars(bars, symbol, "history"))
        first = pretrained.model_of_bars(pretrained.shipped(), bars)
        stand_in = promotion.publish(settings, key, first, GOLDEN, PASSED, alias=None)
        promotion.promote(settings, key, stand_in.version, "the first model")
        good, bad = train(settings, symbol, "good"), train(settings, symbol, "bad")
        with pytest.raises(InvalidInput, match="no live forecast of its file"):
            promote(settings, "good", symbol)
        play_league(db, symbol, {good: 1.0, bad: 2.0})
        with pytest.raises(InvalidInput, match=r"bad is not promoted: it does not pass the gate .*loss ratio"):
            promote(settings, "bad", symbol)
        made = promote(settings, "good", symbol)
        assert renew(settings, symbol).reason == "good has no newer fit"
        serve(settings, db, symbol, made.version)
        history = History(db, lambda: store)
        check_proof(settings, history, store, symbol, tmp_path / "forecast.zip")
        challenger = promotion.publish(settings, key, first.as_baseline(), GOLDEN, PASSED)
        waiting = promotion.promote_challenger(settings, key)
        assert waiting is not None
        assert "becomes its stand-in with its next fit" in waiting.held
        train(settings, symbol, "good")
        newer = renew(settings, symbol)
        assert newer.version, newer.reason
        assert newer.version not in {made.version, challenger.version}
        champion = load_champion(settings, key)
        assert (champion.kind, champion.manifest.kind, champion.version) == (USER, "harx", newer.version)
        assert promotion.rollback(settings, key, "a test") == made.version
    versions = {each.version: each for each in promotion.versions(settings, key)}
    assert versions[made.version].aliases == ("champion",)
    assert (versions[made.version].kind, versions[made.version].gate_result) == (USER, "passed")


def serve(settings: Settings, db: QuestDB, symbol: str, version: str) -> None:
    """Forecast a market with the promoted model; its process is killed on the way."""
    sent = list(market(symbol, SECONDS, 11))
    ends = [SECONDS - PART_S * left for left in (3, 2, 1, 0)]
    parts = [
        sent[ENVELOPES_A_SECOND * (end - PART_S if at else 0) : ENVELOPES_A_SECOND * end] for at, end in enumerate(ends)
    ]
    holder = ModelHolder(BaselineSource(settings), settings.model.reload_s)
    holder.start()
    wait_for(lambda: holder.current.can_start, "the models")
    champion = holder.current.volatility(symbol)
    assert champion is not None
    assert (champion.kind, champion.version) == (USER, version)
    clock = HeldClock()
    handler = ForecastHandler(settings, holder, clock)

    def forecast(part: int) -> None:
        publish(settings, symbol, parts[part])
        rows = ROWS_A_SECOND * ends[part]
        wait_for(
            lambda: count(db, VOLATILITY_PREDICTION.name, symbol) == rows, f"the forecast of every row of part {part}"
        )

    def running() -> bool:
        served = handler.user_models.served(symbol)
        return served is not None and served.state == "running"

    with Running(features.build(settings)), Running(Worker(settings, SPEC, handler)):
        forecast(0)
        wait_for(running, "the process of the model")
        forecast(1)
        assert set(kinds(db, symbol, last=ROWS_A_SECOND)) == {USER}
        served = handler.user_models.served(symbol)
        assert served is not None
        assert served.pid is not None
        assert not Looks().find("StandInServes")
        looks, clock.held_s = Looks(), clock.monotonic_s()
        os.kill(served.pid, signal.SIGKILL)
        forecast(2)
        assert set(kinds(db, symbol, last=ROWS_A_SECOND)) == {"xgboost"}
        (words,) = looks.find("StandInServes", symbol)
        assert words.startswith("a stand-in made "), words
        clock.held_s = None
        wait_for(running, "the process to come back")
        forecast(3)
        assert set(kinds(db, symbol, last=ROWS_A_SECOND)) == {USER}
    handler.user_models.stop()
    holder.stop()
    found = db.execute(f"SELECT DISTINCT model_version FROM {VOLATILITY_PREDICTION.name} WHERE symbol = '{symbol}'")
    assert found == [[version]]


def check_proof(settings: Settings, history: History, store: ObjectStore, symbol: str, file: Path) -> None:
    """Verify the newest forecast, which the user's model made, with and without its code, here and as a stranger."""
    at_ns = now_ns()
    forecast = forecast_at(history, symbol, at_ns)
    evidence = evidence_of(settings, history, store, symbol, forecast)
    check_steps(evidence, settings)
    write_evidence(file, evidence)
    with opened_evidence(file) as written:
        check_steps(written, settings)
    past = past_forecast(history, store, symbol, at_ns)
    assert past.equals_stored
    assert past.user_model.startswith("good (file ")


def check_steps(evidence: Evidence, settings: Settings) -> None:
    steps = list(Check(evidence).steps())
    assert all(step.fits for step in steps), [step.text for step in steps]
    found: dict[str, Step] = {step.name: step for step in steps}
    assert found[USER_MODEL].is_open
    assert "Its code was not run" in found[USER_MODEL].text
    assert FLAG in found[USER_MODEL].text
    assert found["forecast"].text == (
        "Computed again, with this σ, the rest of the forecast and its intervals are equal to the last bit."
    )
    with UserModelRun(settings.league) as run:
        steps = list(Check(evidence, run).steps())
    assert all(step.fits for step in steps), [step.text for step in steps]
    (again,) = (step for step in steps if step.name == USER_MODEL)
    assert again.text.endswith("gives the stored σ to the last bit.")
