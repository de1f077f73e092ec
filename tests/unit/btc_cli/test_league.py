"""`btc models add`, `remove` and `promote`, and every command of the how-to and of the tutorial about a model of one's own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from typer.testing import CliRunner

from btc_cli.app import app
from btc_core.errors import InvalidInput, StackError, StoreError
from btc_core.league import process
from btc_core.league.check import check
from btc_core.league.folder import builtin_names, entries_in, read_entry
from btc_core.league.rows import INPUTS
from btc_core.registry import promotion
from btc_core.settings import LeagueSettings, Settings
from stack.layout import Layout
from stack.ports import free_ports
from stack.runtime import Stack
from tests.paths import ROOT

if TYPE_CHECKING:
    from click.testing import Result

PAGE = (ROOT / "docs" / "how-to" / "your-own-model.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("btc models")]
PROMOTIONS = [command for command in COMMANDS if command.startswith("btc models promote")]
CURLS = re.findall(r'^curl -s "http://127\.0\.0\.1:5050(\S+)"', PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of a stack that is down, with the example of the page in the current directory."""
    data_dir = tmp_path / "var" / "compose"
    Layout(data_dir).create("sim", free_ports())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_DATA_DIR", str(data_dir))
    monkeypatch.setattr(promotion, "versions", lambda *_: [])
    (tmp_path / "my_model.py").write_text(EXAMPLES[0])
    return data_dir / "user" / "models"


def btc(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_every_command_of_the_page_does_what_it_says(folder: Path) -> None:
    for command in (each for each in COMMANDS if each not in PROMOTIONS):
        done = btc(*shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.output)
    assert [entry.name for entry in entries_in(folder)] == ["linear_quantiles", "log_har", "my_model"]
    listed = btc("models").output
    assert "League" in listed
    assert f"my_model {entries_in(folder)[2].version}" in listed
    removal = re.findall(r"run `btc (models remove my_model)`", PAGE)
    assert "was removed" in btc(*shlex.split(removal[0])).output
    assert [entry.name for entry in entries_in(folder)] == ["linear_quantiles", "log_har"]


@pytest.mark.usefixtures("folder")
def test_a_promotion_of_the_page_asks_the_registry_and_names_a_market_that_is_followed() -> None:
    plain, other = PROMOTIONS
    with pytest.raises(StoreError, match=r"MLflow at .* does not answer"):
        btc(*shlex.split(plain)[1:])
    with pytest.raises(InvalidInput, match="ETH/USD is not followed; this system follows BTC/USD"):
        btc(*shlex.split(other)[1:])


def test_the_examples_of_a_library_and_of_weights_beside_the_file_pass_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_S", 280.0)  # a library is imported at a low priority, beside other tests
    _first, trees, weights = EXAMPLES
    (tmp_path / "my_trees.py").write_text(trees)
    assert not check(read_entry(tmp_path / "my_trees.py"), LeagueSettings()).has_quantiles
    (tmp_path / "my_net_1.onnx").write_bytes(b"7.0")
    predict = "\n\ndef predict(model, rows):\n    return np.full((len(rows), len(rows.horizons_min)), float(model))\n"
    (tmp_path / "my_net.py").write_text("import numpy as np\n" + weights + predict)
    found = check(read_entry(tmp_path / "my_net.py"), LeagueSettings())
    assert found.model_bytes < 100, "the bytes of the weights are the model"


def test_the_model_of_the_tutorial_enters_the_league_by_its_commands(folder: Path, tmp_path: Path) -> None:
    _read, model, _league = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
    (tmp_path / "my_mixture.py").write_text(model)
    commands = [line for line in TUTORIAL.splitlines() if line.startswith("btc models")]
    assert commands == ["btc models add my_mixture.py", "btc models"]
    for command in commands:
        assert btc(*shlex.split(command)[1:]).exit_code == 0, command
    assert [entry.name for entry in entries_in(folder)] == ["my_mixture"]
    assert "`btc models remove my_mixture`" in TUTORIAL
    assert "was removed" in btc("models", "remove", "my_mixture").output


def test_every_request_of_the_page_is_answered() -> None:
    from tests.serving_world import build

    assert CURLS
    for path in CURLS:
        assert build().client.get(path).status_code == 200


def test_the_page_names_the_inputs_the_limits_and_the_built_in_models() -> None:
    assert f"All {len(INPUTS)} inputs" in PAGE
    assert re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE) == sorted(
        builtin_names(), key=PAGE.index
    )
    limits = LeagueSettings()
    assert (limits.predict_s, limits.fit_s, limits.max_entries) == (2.0, 30 * 60, 8)
    assert (limits.memory_bytes, limits.fit_memory_bytes) == (10**9, 4 * 10**9)


def test_a_refused_file_leaves_the_folder_as_it_was(folder: Path, tmp_path: Path) -> None:
    btc("models", "add", "my_model.py")
    before = entries_in(folder)
    (tmp_path / "my_model.py").write_text(
        "def fit(dataset):\n    return 1 / 0\n\ndef predict(model, rows):\n    return 1\n"
    )
    with pytest.raises(
        InvalidInput, match=r"my_model\.py, line 2: ZeroDivisionError: division by zero; the model was not added"
    ):
        btc("models", "add", "my_model.py")
    assert entries_in(folder) == before
    assert [path.name for path in folder.iterdir()] == ["my_model.py"]


def test_a_process_that_does_not_start_leaves_the_model_stored_and_the_error_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_component(_stack: Stack, name: str) -> NoReturn:
        raise StackError(f"{name} exited while it started")

    monkeypatch.setattr(Stack, "running", property(lambda _: True))
    monkeypatch.setattr(Stack, "start_component", start_component)
    with pytest.raises(StackError) as failed:
        btc("models", "add", "my_model.py")
    (entry,) = entries_in(folder)
    said = str(failed.value)
    assert said.startswith(
        f"my_model {entry.version} is in the league ({folder / 'my_model.py'}), but its process did not"
    )
    assert "league exited while it started" in said
    assert "run `btc up`" in said


def test_one_of_file_and_built_in_model_is_needed_and_the_league_has_room_for_so_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="name one file"):
        btc("models", "add")
    with pytest.raises(InvalidInput, match="name one file"):
        btc("models", "add", "my_model.py", "--builtin", "log_har")
    btc("models", "add", "my_model.py")
    monkeypatch.setenv("BTC_LEAGUE_MAX_ENTRIES", "1")
    with pytest.raises(InvalidInput, match="the league has 1 models, and room for 1: remove one"):
        btc("models", "add", "--builtin", "log_har")
    btc("models", "add", "my_model.py")  # replaces itself
    with pytest.raises(InvalidInput, match="there is no model yours"):
        btc("models", "remove", "yours")
    assert len(entries_in(folder)) == 1


def test_the_folder_lies_beside_the_state_of_the_workers_unless_it_is_named(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.user_models == Path("var/user/models")
    named = settings.model_copy(update={"user": settings.user.model_copy(update={"dir": str(tmp_path)})})
    assert named.user_models == tmp_path / "models"
