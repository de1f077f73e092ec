"""The process of a user's model that serves: what it forecasts, and what happens when it is slow, fails, or breaks its contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core import metrics
from btc_core.clock import SYSTEM_CLOCK
from btc_core.league import serving
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.settings import LeagueSettings
from streaming import user_models
from streaming.user_models import MAX_ROWS, ServedUserModel
from tests.unit.btc_core.models.test_row_forecasts import MODELS, inputs
from tests.user_models import FACTOR, served
from tests.waiting import PATIENCE_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.models.bundle import VolatilityModel

SYMBOL = "BTC/USD"
PATIENT = LeagueSettings(serve_s=PATIENCE_S, predict_s=PATIENCE_S, memory_bytes=400_000_000)
"""Limits under which a request is answered however slow the machine is."""
_, VALUES, COLUMNS = inputs(40)
MATRIX = VALUES[:, MODEL_COLUMNS]
EVENT_NS = np.arange(40)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ServedUserModel]]:
    monkeypatch.setattr(user_models, "IDLE_S", 0.02)
    monkeypatch.setattr(user_models, "PAUSE_FIRST_S", 0.05)
    running: list[ServedUserModel] = []

    def started(model: VolatilityModel, limits: LeagueSettings = PATIENT) -> ServedUserModel:
        running.append(ServedUserModel(SYMBOL, model, limits, Path(), SYSTEM_CLOCK))
        wait_for(lambda: running[-1].state == "running", "the process of the model")
        return running[-1]

    yield started
    for each in running:
        each.stop()


def ask(model: ServedUserModel, rows: slice = slice(None)) -> np.ndarray:
    return model.sigma_bps(MATRIX[rows], COLUMNS[rows], EVENT_NS[rows])


def counted(word: str) -> float:
    return float(metrics.USER_MODEL_ROWS.labels(SYMBOL, word)._value.get())


def test_each_row_is_forecast_alone_and_the_bits_do_not_depend_on_its_batch(
    start: Callable[..., ServedUserModel],
) -> None:
    model, before = start(served(MODELS[1])), counted("user")
    together = ask(model)
    assert np.isfinite(together).all()
    assert together[:, -1] == pytest.approx(FACTOR * np.exp(0.5 * rows_of("log_rv_5m")) * 1e4)
    for place in (0, 17, 39):
        assert np.array_equal(ask(model, slice(place, place + 1))[0], together[place])
    assert counted("user") - before == 43


def rows_of(name: str) -> np.ndarray:
    rows = serving.rows_of(served(MODELS[1]), MATRIX, COLUMNS, EVENT_NS)
    return rows[name]


def test_a_budget_that_is_over_leaves_the_older_rows_to_the_stand_in() -> None:
    model = served(MODELS[1])
    with serving.started(model, PATIENT) as process:
        rows = serving.rows_of(model, MATRIX, COLUMNS, EVENT_NS)
        sigma = process.predict_alone(serving.SYMBOL, rows, 0.0, PATIENCE_S)
    assert np.isfinite(sigma).all(axis=1).tolist() == [False] * 39 + [True]


def test_a_catching_up_worker_asks_for_its_newest_rows(start: Callable[..., ServedUserModel]) -> None:
    model = start(served(MODELS[1]))
    many = np.tile(MATRIX, (20, 1)), np.tile(COLUMNS, (20, 1)), np.arange(800)
    sigma = model.sigma_bps(*many)
    assert np.flatnonzero(np.isfinite(sigma).all(axis=1)).tolist() == list(range(800 - MAX_ROWS, 800))


def test_a_slow_model_costs_nobody_a_forecast_and_is_asked_again(
    start: Callable[..., ServedUserModel], tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    slow = f"""
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.01)
    return np.full((len(rows), 5), 7.0)
"""
    model = start(served(MODELS[1], slow), PATIENT.model_copy(update={"serve_s": 0.02}))
    before, process = counted("slow"), model.pid
    assert np.isnan(ask(model)).all()
    assert np.isnan(ask(model)).all(), "it is still at the rows before"
    assert counted("slow") - before == 80
    gate.touch()
    wait_for(lambda: bool(np.isfinite(ask(model)[-1]).all()), "the forecast of the newest row")
    assert (model.state, model.pid) == ("running", process)


@pytest.mark.parametrize(
    ("predict", "reason"),
    [
        ("os._exit(5)", "the process that ran predict exited with code 5"),
        ("return np.full((len(rows), 4), 1.0)", "predict returned the shape (1, 4)"),
        ("return np.full((len(rows), 5), np.nan)", "predict returned nan"),
        ("return np.ones(400_000_000)", "It may have reached its memory limit"),
        ("raise KeyError('x')", "mine.py, line 7: KeyError"),
    ],
)
def test_a_model_that_fails_leaves_its_rows_to_the_stand_in_and_comes_back(
    start: Callable[..., ServedUserModel], predict: str, reason: str
) -> None:
    body = f"""
    if rows.origin_ns[0] == 13:
        {predict}
    return np.full((len(rows), 5), 7.0)
"""
    model = start(served(MODELS[1], body))
    process = model.pid
    assert (ask(model, slice(5)) == 7.0).all()
    assert np.isnan(ask(model, slice(13, 14))).all()
    wait_for(lambda: reason in model.reason, f"the reason {reason}")
    wait_for(lambda: bool((ask(model, slice(1)) == 7.0).all()), "the model to come back")
    assert model.reason == ""
    assert model.pid not in {None, process}


def test_a_model_that_does_not_answer_at_all_is_killed(start: Callable[..., ServedUserModel]) -> None:
    limits = PATIENT.model_copy(update={"predict_s": 0.3})
    model = start(served(MODELS[1], "\n    time.sleep(600)\n"), limits)
    assert np.isnan(ask(model)).all()
    wait_for(lambda: "predict took longer than 0.3 s" in model.reason, "the reason")


def test_a_model_whose_pickle_cannot_be_loaded_never_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_models, "IDLE_S", 0.02)
    broken = served(MODELS[1])
    broken.user_files["model.pkl"] = b"no pickle"
    model = ServedUserModel(SYMBOL, broken, PATIENT, Path(), SYSTEM_CLOCK)
    wait_for(lambda: model.state == "failing", "the failure")
    assert np.isnan(ask(model)).all()
    assert "UnpicklingError" in model.reason
    model.stop()
