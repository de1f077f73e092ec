"""The league worker with real servers: one entry forecasts each close, one crashes, one sleeps, and nobody waits for these."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S, SYSTEM_CLOCK, now_ns
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.league import folder
from btc_core.league.bundles import TrainedEntry
from btc_core.league.process import EntryProcess
from btc_core.league.rows import INPUTS, made_up_dataset
from btc_core.league.standings import read_entries, read_outcomes, standings
from btc_core.league.states import read_states
from btc_core.market.events import QUOTE
from btc_core.market.messages import FeatureMessage
from btc_core.names import FEATURES_TOPIC
from btc_core.settings import LeagueSettings, UserSettings
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_forecast
from streaming import league
from streaming.forecast import SPEC, ForecastHandler
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.real_alerts import Looks
from tests.service.streaming.test_forecast import Holder
from tests.service.workers import Running, count, unique
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from btc_core.stores.redis_connection import Client

MINUTES = 9
CRASHING = "import os\ndef fit(dataset):\n    return 1\ndef predict(model, rows):\n    os._exit(5)\n"
SLEEPING = "import time\ndef fit(dataset):\n    return 1\ndef predict(model, rows):\n    time.sleep(60)\n"


class MarketClock:
    """A clock that the test sets to the time of the market; pauses are real."""

    at_ns = 0

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic_s(self) -> float:
        return SYSTEM_CLOCK.monotonic_s()


class Models:
    """Trained models of entries, as the registry would give them."""

    def __init__(self, models: dict[str, tuple[bytes, bytes]]) -> None:
        self._models = models

    def newest_version(self, entry: str, _symbol: str) -> str | None:
        return "7" if entry in self._models else None

    def load(self, entry: str, _symbol: str, version: str, _own_version: str) -> TrainedEntry:
        source, model = self._models[entry]
        return TrainedEntry(version, f"file-{entry}", source, model)


def row(symbol: str, ts_ns: int, offset: int, mid: float) -> FeatureMessage:
    named = dict.fromkeys(FEATURE_NAMES, -14.0) | {"bid": mid - 0.5, "ask": mid + 0.5, "mid": mid, "price": mid}
    values = np.array([named[name] for name in FEATURE_NAMES]).tobytes()
    return FeatureMessage(symbol, ts_ns, ts_ns, 0, offset, 0, QUOTE, FEATURE_VERSION, values)


def entries(path: Path) -> Models:
    """Three entries in a folder, with a trained model each, and one that nobody has trained."""
    good = folder.read_builtin("log_har")
    with EntryProcess(good, INPUTS, 1_000_000_000) as process:
        fitted = process.fit(made_up_dataset(), 60.0)
    nothing = pickle.dumps(1)
    sources = {"good": good.source, "crashing": CRASHING.encode(), "sleeping": SLEEPING.encode()}
    for name, source in (sources | {"untrained": good.source}).items():
        folder.store(path, folder.EntryFile(name, Path(f"{name}.py"), source))
    return Models({name: (source, fitted.model if name == "good" else nothing) for name, source in sources.items()})


@pytest.mark.causes("LeagueEntryFailing")
def test_one_entry_forecasts_while_others_crash_and_sleep(servers: Callable[..., Settings], tmp_path: Path) -> None:
    given, symbol = servers("questdb", "kafka", "valkey"), unique("LEAGUE")
    settings = given.model_copy(
        update={
            "user": UserSettings(dir=str(tmp_path)),
            "league": LeagueSettings(predict_s=0.5),
            "exchange": given.exchange.model_copy(update={"symbols": (symbol,)}),
        }
    )
    models, clock = entries(settings.user_models), MarketClock()
    start_ns = clock.at_ns = (now_ns() // NS_PER_MIN - 15) * NS_PER_MIN
    publisher = Publisher(settings.kafka, "test")
    worker, handler = league.build(settings, models, clock)
    forecaster = Worker(settings, SPEC, ForecastHandler(settings, Holder(symbol), clock))  # type: ignore[arg-type] # it has no thread
    rng, mid = np.random.default_rng(1), 60_000.0

    def forecasts(name: str) -> int:
        return count_of(db, symbol, name)

    with QuestDB(settings.questdb) as db, connect(settings.redis) as redis, Running(worker), Running(forecaster):
        wait_for(lambda: worker._committed and forecaster._committed, "partitions")
        wait_for(lambda: state_of(redis, "good") == "running", "the process of the good entry")
        for minute in range(MINUTES):
            for second in (1, 30, 58):
                mid += float(rng.normal(0.0, 15.0))
                ts_ns = start_ns + minute * NS_PER_MIN + second * NS_PER_S
                clock.at_ns = ts_ns
                publisher.publish(
                    FEATURES_TOPIC, symbol, encoded(row(symbol, ts_ns, minute * 100 + second, mid)), ts_ns
                )
                publisher.flush()
                if second == 1 and minute:
                    wait_for(lambda minute=minute: forecasts("good") == minute, f"the forecast of close {minute}")  # type: ignore[misc]
                wait_for(
                    lambda ts_ns=ts_ns: served_ns(redis, symbol) == ts_ns, f"the served forecast {minute}:{second}"
                )  # type: ignore[misc]
        wait_for(lambda: count(db, "gold_prediction_outcomes", symbol) >= 3, "outcomes of the served forecasts")
        found = {state.name: state for state in read_states(redis) or ()}
        assert Looks().find("LeagueEntryFailing", "crashing")
        outcomes = read_outcomes(db, symbol, start_ns, start_ns + 20 * NS_PER_MIN)
        stored = read_entries(db, symbol, start_ns, start_ns + 20 * NS_PER_MIN)
    handler.close()
    assert set(stored) == {"good"}
    assert stored["good"].version == "file-good"
    assert np.isfinite(stored["good"].bounds_bps).all()
    assert (stored["good"].minute_ns == start_ns + np.arange(1, MINUTES) * NS_PER_MIN).all()
    assert found["good"].state == "running"
    assert found["crashing"].state == "failing"
    assert "crashing.py: the process that ran predict exited with code 5" in found["crashing"].reason
    assert "sleeping.py: predict took longer than 0.5 s, and the process was killed" in found["sleeping"].reason
    assert found["untrained"].state == "waiting"
    assert "train_league" in found["untrained"].reason
    (mine,) = (each for each in standings(outcomes, stored, start_ns) if each.name == "good")
    assert mine.rows == len(outcomes.minute_ns) >= 3
    assert mine.qlike is not None
    assert mine.crps_bps is not None


def encoded(message: FeatureMessage) -> bytes:
    import msgspec

    return msgspec.msgpack.encode(message)


def state_of(redis: object, name: str) -> str:
    return {state.name: state.state for state in read_states(redis) or ()}.get(name, "")  # type: ignore[arg-type]


def served_ns(redis: Client, symbol: str) -> int:
    found = read_forecast(redis, symbol)
    return 0 if found is None else found.ts_event_ns


def count_of(db: QuestDB, symbol: str, name: str) -> int:
    found = db.execute(f"SELECT count() FROM gold_league_forecasts WHERE symbol = '{symbol}' AND entry = '{name}'")
    return int(found[0][0])
