"""What a user's file must be to join the league, and the error for one that is not."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from btc_core.errors import InvalidInput
from btc_core.league import builtin, process
from btc_core.league.check import check
from btc_core.league.contract import Rows, checked
from btc_core.league.folder import EntryFile, builtin_names, entries_in, read_builtin, read_entry, remove, store
from btc_core.league.process import EntryFailed, EntryProcess
from btc_core.league.rows import INPUTS, made_up_dataset
from btc_core.names import HORIZONS_MIN
from btc_core.settings import LeagueSettings
from tests.waiting import PATIENCE_S

LIMITS = LeagueSettings(predict_s=2.0, fit_s=30.0, memory_bytes=400_000_000, fit_memory_bytes=400_000_000)
GOOD = """
import numpy as np

class Mean:
    def __init__(self, sigma):
        self.sigma = sigma

def fit(dataset):
    return Mean(dataset.sigma_bps.mean(axis=0))

def predict(model, rows):
    print("a line for the log")
    return np.tile(model.sigma, (len(rows), 1))
"""


def entry(tmp_path: Path, text: str, name: str = "mine") -> EntryFile:
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    return read_entry(path)


def with_predict(body: str, fit: str = "return 1.0") -> str:
    return f"import os, sys, time\nimport numpy as np\n\ndef fit(dataset):\n    {fit}\n\ndef predict(model, rows):\n    {body}\n"


def test_a_good_file_passes_although_it_prints_and_returns_a_class_of_its_own(tmp_path: Path) -> None:
    found = check(entry(tmp_path, GOOD), LIMITS)
    assert 0.0 < found.predict_s < 2.0
    assert not found.has_quantiles


LOGNORMAL = np.exp(np.log(8.0) + 0.4 * np.array([-1.6449, -1.2816, -0.6745, 0.6745, 1.2816, 1.6449]))
"""Quantiles of a lognormal volatility with a median of 8 bps."""


def test_a_model_may_give_quantiles_alone_and_its_sigma_is_the_root_of_the_mean_variance(tmp_path: Path) -> None:
    quantiles = np.tile(LOGNORMAL, (4, len(HORIZONS_MIN), 1))
    derived = checked(quantiles, 4)
    assert derived.is_sigma_derived
    np.testing.assert_allclose(derived.sigma_bps, 8.0 * np.exp(0.4**2), rtol=1e-4)
    np.testing.assert_array_equal(derived.quantiles_bps, quantiles)
    assert checked((None, quantiles), 4).is_sigma_derived
    given = checked((np.ones((4, len(HORIZONS_MIN))), quantiles), 4)
    assert (given.sigma_bps == 1.0).all()
    assert not given.is_sigma_derived
    sigma_alone = checked((np.ones((4, len(HORIZONS_MIN))), None), 4)
    assert sigma_alone.quantiles_bps is None
    text = with_predict(f"return np.tile({LOGNORMAL.tolist()}, (len(rows), {len(HORIZONS_MIN)}, 1))")
    found = check(entry(tmp_path, text), LIMITS)
    assert found.has_quantiles
    assert found.is_sigma_derived


@pytest.mark.parametrize(
    ("forecast", "words"),
    [
        (np.ones((4, len(HORIZONS_MIN), 5)), "for the quantiles of 4 rows"),
        ((None, np.ones((4, 6))), "for the quantiles of 4 rows"),
        ((np.ones((4, 1)), LOGNORMAL), "for the quantiles of 4 rows"),
        ((1.0, 2.0, 3.0), "a tuple of 3; return σ, or quantiles, or the tuple"),
        (None, "predict returned None; return σ, or quantiles"),
        ((None, None), "predict returned None"),
        (-np.ones((4, len(HORIZONS_MIN), 6)), "must return finite values above 0"),
    ],
)
def test_a_forecast_of_another_form_is_refused_with_what_is_needed(forecast: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        checked(forecast, 4)


LIBRARIES = {"garch": "arch", "lightgbm_log": "lightgbm"}
"""What built-in models need beside numpy; they are checked where it is installed."""
BUILTIN = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in LIBRARIES and find_spec(LIBRARIES[name]) is None,
            reason=f"{LIBRARIES.get(name)} is not installed, which the built-in model {name} needs",
        ),
    )
    for name in builtin_names()
]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for the import of a large library at a low priority, beside other tests."""
    monkeypatch.setattr(process, "START_S", 280.0)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_model_passes_and_those_of_numpy_alone_give_quantiles(name: str) -> None:
    assert check(read_builtin(name), LeagueSettings()).has_quantiles == (name not in LIBRARIES)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in_model_beats_the_mean_on_rows_that_it_was_not_fitted_on(name: str) -> None:
    dataset = made_up_dataset()
    half = len(dataset) // 2
    mean = np.square(dataset.realized_variance[:half].mean(axis=0))
    past = type(dataset)(INPUTS, dataset.matrix[:half], dataset.origin_ns[:half], dataset.realized_variance[:half], "X")
    new = Rows(INPUTS, dataset.matrix[half + 10 :], dataset.origin_ns[half + 10 :])
    realized = dataset.realized_variance[half + 10 :, -1]
    limits = LeagueSettings()
    with EntryProcess(read_builtin(name), INPUTS, limits.memory_bytes) as child:
        child.use("X", child.fit(past, limits.fit_s).model)
        sigma = child.predict("X", new, limits.fit_s).sigma_bps[:, -1]
    ratio, flat = realized / np.square(sigma / 1e4), realized / np.sqrt(mean[-1])
    assert (ratio - np.log(ratio) - 1.0).mean() < 0.8 * (flat - np.log(flat) - 1.0).mean()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def fit(dataset)\n    return 1", "mine.py, line 1"),
        ("import a_library_that_nobody_has", "mine.py, line 1: the module a_library_that_nobody_has is not installed"),
        ("def predict(model, rows):\n    return 1", "has no function fit; add `def fit(dataset):`"),
        ("def fit(dataset):\n    return 1", "has no function predict; add `def predict(model, rows):`"),
        (with_predict("return 1.0", "return dataset['log_rv_7m']"), "no input 'log_rv_7m'; similar names: log_rv_1m"),
        (with_predict("return 1.0", "raise ValueError('too few')"), "line 5: ValueError: too few"),
        (with_predict("return 1.0", "return lambda: 1"), "which pickle cannot store"),
        (with_predict("return np.ones(len(rows))"), "returned the shape (200,) for the σ"),
        (with_predict("return 'high'"), "must return numbers"),
        (with_predict("return np.full((len(rows), 5), np.nan)"), "returned nan for the σ of row 0"),
        (with_predict("return np.zeros((len(rows), 5))"), "must return finite values above 0"),
        (with_predict("s = np.ones((len(rows), 5)); return s, s"), "for the quantiles of 200 rows"),
        (with_predict("s = np.ones((len(rows), 5)); return s, np.tile(np.arange(6.0, 0.0, -1.0), (len(rows), 5, 1))"),
         "quantiles that do not ascend"),
        (with_predict("x = np.nan_to_num(rows['log_rv_5m']); return np.tile(2.0 + abs(x - x.mean())[:, None], (1, 5))"), "another forecast alone"),
        (with_predict("sys.exit(3)"), "SystemExit"),
        (with_predict("os._exit(3)"), "exited with code 3"),
        (with_predict("os.kill(os.getpid(), 9)"), "was ended by SIGKILL"),
        (with_predict("return np.ones((len(rows), 5)) * np.ones(200_000_000).mean()"), "MemoryError"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_place_and_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check(entry(tmp_path, text), LIMITS)
    assert words in str(refused.value)
    assert str(refused.value).endswith("the model was not added")


def test_a_slow_fit_and_a_slow_forecast_are_refused(tmp_path: Path) -> None:
    slow = entry(tmp_path, with_predict("time.sleep(0.3); return np.ones((len(rows), 5))"))
    with pytest.raises(InvalidInput, match=r"predict takes \d+\.\d+ s for one row, and may take 0\.1 s") as refused:
        check(slow, LIMITS.model_copy(update={"predict_s": 0.1}))
    assert float(str(refused.value).partition(" takes ")[2].split()[0]) >= 0.3
    endless = entry(tmp_path, with_predict("return 1.0", "time.sleep(60)"))
    with pytest.raises(InvalidInput, match=r"fit took longer than 0\.5 s"):
        check(endless, LIMITS.model_copy(update={"fit_s": 0.5}))


def test_a_late_forecast_kills_the_process_at_once(tmp_path: Path) -> None:
    child = EntryProcess(entry(tmp_path, with_predict("time.sleep(600)")), INPUTS, LIMITS.memory_bytes)
    dataset = made_up_dataset()
    child.use("X", child.fit(dataset, PATIENCE_S).model)
    began_s = time.monotonic()
    with pytest.raises(EntryFailed, match=r"predict took longer than 0\.2 s, and the process was killed"):
        child.predict("X", Rows(INPUTS, dataset.matrix[:1], dataset.origin_ns[:1]), 0.2)
    assert time.monotonic() - began_s < 60.0
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_the_process_sees_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_QUESTDB_PASSWORD", "secret")
    text = with_predict("return 1.0", "raise ValueError([name for name in os.environ if name.startswith('BTC')])")
    with pytest.raises(InvalidInput, match=r"ValueError: \['BTC_HORIZONS_MIN'\]"):
        check(entry(tmp_path, text), LIMITS)


def test_names_and_files_that_cannot_be_entries_are_refused(tmp_path: Path) -> None:
    (tmp_path / "harx.py").write_text(GOOD)
    with pytest.raises(InvalidInput, match="harx is the name of the champion or of a baseline"):
        read_entry(tmp_path / "harx.py")
    with pytest.raises(InvalidInput, match="'My-Model' cannot be the name of a model"):
        read_entry(tmp_path / "My-Model.py")
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_entry(tmp_path / "missing.py")
    with pytest.raises(InvalidInput, match="there is no built-in model 'best'; there are garch"):
        read_builtin("best")
    assert read_entry(tmp_path / "harx.py", "mine").name == "mine"


def test_the_folder_is_the_list_of_entries(tmp_path: Path) -> None:
    folder = tmp_path / "user" / "models"
    assert entries_in(folder) == []
    mine = entry(tmp_path, GOOD)
    store(folder, mine)
    (folder / "Not-a-name.py").write_text(GOOD)
    assert [(each.name, each.version) for each in entries_in(folder)] == [("mine", mine.version)]
    with pytest.raises(InvalidInput, match="there is no model yours in"):
        remove(folder, "yours")
    remove(folder, "mine")
    assert entries_in(folder) == []


def test_every_built_in_model_has_a_name_that_an_entry_may_have() -> None:
    for name in builtin_names():
        assert read_builtin(name).source
        assert read_entry(Path(builtin.__file__).parent / f"{name}.py").name == name
