"""One entry of the league: which file it runs when markets have models of different files, and how it fails."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core import metrics
from btc_core.clock import NS_PER_S, SYSTEM_CLOCK
from btc_core.errors import SchemaError, StoreError
from btc_core.league.bundles import TrainedEntry
from btc_core.league.contract import Rows
from btc_core.league.folder import EntryFile
from btc_core.league.rows import INPUTS
from btc_core.names import LATE_FORECAST_S
from btc_core.settings import LeagueSettings
from streaming import league_entries
from streaming.league_entries import Close, EntryRunner, Inputs, Made
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = "import numpy as np\ndef fit(dataset):\n    return 1\ndef predict(model, rows):\n    return np.full((len(rows), 5), {sigma})\n"


class Models:
    """The newest model of each market, by the σ that its file forecasts."""

    def __init__(self, **sigmas: float) -> None:
        self.sigmas = sigmas
        self.answers = True
        self.looks = 0
        """How often the newest model of a market was asked for."""
        self.unusable: set[float] = set()
        """Models that were trained on other inputs."""

    def newest_version(self, _entry: str, symbol: str) -> str | None:
        self.looks += 1
        if not self.answers:
            raise StoreError("MLflow does not answer")
        return str(self.sigmas[symbol]) if symbol in self.sigmas else None

    def load(self, _entry: str, symbol: str, version: str, _own_version: str) -> TrainedEntry:
        if self.sigmas[symbol] in self.unusable:
            raise SchemaError(f"version {version} was trained on inputs of another version")
        source = SOURCE.format(sigma=self.sigmas[symbol]).encode()
        return TrainedEntry(version, f"file {version}", source, pickle.dumps(1))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryRunner]]:
    monkeypatch.setattr(league_entries, "RELOAD_S", 0.2)
    monkeypatch.setattr(league_entries, "IDLE_S", 0.05)
    runners: list[EntryRunner] = []
    yield runners
    for runner in runners:
        runner.stop()


def start(started: list[EntryRunner], models: Models, *symbols: str) -> EntryRunner:
    entry = EntryFile("mine", Path("mine.py"), b"# the newest file, which is not trained yet")
    runner = EntryRunner(entry, symbols, LeagueSettings(), models, SYSTEM_CLOCK, Inputs())
    started.append(runner)
    runner.start()
    return runner


def wait_for_looks(models: Models, number: int) -> None:
    """Wait until an entry has looked so many times for models, after this call."""
    seen = models.looks
    wait_for(lambda: models.looks > seen + number, "further looks for models")  # the last one may still be under way


def skipped() -> float:
    """How many closes the entry has left without a forecast."""
    return metrics.LEAGUE_SKIPPED.labels("mine")._value.get()


def ask(runner: EntryRunner, symbol: str, age_s: float = 0.0) -> None:
    minute_ns = SYSTEM_CLOCK.now_ns() - int(age_s * NS_PER_S)
    runner.offer(Close(symbol, minute_ns, Rows(INPUTS, np.zeros((1, len(INPUTS))), np.array([minute_ns]))))


def forecasts(runner: EntryRunner, count: int) -> list[Made]:
    found: list[Made] = []
    wait_for(lambda: found.extend(runner.take()) or len(found) >= count, "the forecasts")
    return found


def test_a_market_with_a_model_of_an_older_file_waits_and_the_process_is_not_restarted_again_and_again(
    started: list[EntryRunner],
) -> None:
    models = Models(A=1.0, B=1.0)
    runner = start(started, models, "A", "B")
    wait_for(lambda: set(runner._loaded) == {"A", "B"}, "both models")
    models.sigmas = {"A": 2.0, "B": 1.0}  # A was trained with a new file, B not yet
    wait_for(lambda: runner._loaded == {"A": "2.0"}, "the new file")
    assert runner._process is not None
    pid = runner._process.pid
    wait_for_looks(models, 10)
    assert (runner._process.pid, runner._loaded) == (pid, {"A": "2.0"})
    ask(runner, "A")
    (made,) = forecasts(runner, 1)
    assert (made.forecast.sigma_bps == 2.0).all()
    assert (made.version, made.model_version) == ("file 2.0", "2.0")
    models.sigmas = {"A": 2.0, "B": 2.0}
    wait_for(lambda: runner._loaded == {"A": "2.0", "B": "2.0"}, "the model of the other market")
    assert runner._process.pid == pid


def test_a_late_forecast_is_not_kept_and_a_registry_that_does_not_answer_changes_nothing(
    started: list[EntryRunner],
) -> None:
    models = Models(A=1.0)
    runner = start(started, models, "A")
    wait_for(lambda: runner.state.state == "running", "the model")
    models.answers = False
    wait_for_looks(models, 2)
    before = skipped()
    ask(runner, "A", LATE_FORECAST_S + 1.0)
    wait_for(lambda: skipped() > before, "the late forecast")
    ask(runner, "A")
    (made,) = forecasts(runner, 1)
    assert made.made_at_ns - made.close.minute_ns < NS_PER_S * LATE_FORECAST_S
    assert runner.state.state == "running"


def test_an_entry_says_why_it_does_not_use_its_newest_model_until_it_does(started: list[EntryRunner]) -> None:
    models = Models(A=1.0, B=1.0)
    runner = start(started, models, "A", "B")
    wait_for(lambda: set(runner._loaded) == {"A", "B"}, "both models")
    models.unusable = {2.0}
    models.sigmas = {"A": 2.0, "B": 1.0}
    refusal = "the newest model of A is not used: version 2.0 was trained on inputs of another version"
    wait_for(lambda: runner.state.reason == refusal, "the reason")
    ask(runner, "A")
    (made,) = forecasts(runner, 1)
    assert (made.model_version, runner.state.state) == ("1.0", "running")
    assert runner.state.reason == refusal, "a forecast of the older model does not hide it"
    models.unusable = set()
    wait_for(lambda: runner._loaded == {"A": "2.0"}, "the newest model")
    wait_for(lambda: runner.state.reason == "", "the end of the reason")


def test_an_entry_without_a_model_waits_and_makes_nothing(started: list[EntryRunner]) -> None:
    runner = start(started, Models(), "A")
    wait_for(lambda: "no trained model of A" in runner.state.reason, "the reason")
    before = skipped()
    ask(runner, "A")
    wait_for(lambda: skipped() > before, "the close is left out")
    assert runner.take() == []
    assert runner.state.state == "waiting"
