"""The user's files in a stack that runs: the first model starts the league, and a new feature restarts the features worker."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from btc_cli.app import app
from btc_core.features.user.folder import features_in
from btc_core.league.folder import read_builtin, remove, store
from btc_core.league.states import read_states
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_connection import connect
from tests.service.workers import market, publish, unique
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from stack.runtime import Stack

FEATURE = """
NAME = "mine"
UNIT = "USD"
MEANING = "the newest close"
MINUTES = 1


def feature(minutes):
    return minutes.close[-1]
"""


def test_the_first_model_starts_the_process_in_a_running_stack_and_the_last_one_ends_it(
    own_stack: Stack, own_servers: Callable[..., Settings]
) -> None:
    settings = own_servers("kafka", "questdb", "valkey")
    assert "league" not in own_stack.components()
    assert settings.user_models == own_stack.layout.data_dir / "user" / "models"
    store(settings.user_models, read_builtin("log_har"))
    own_stack.start_component("league")
    (status,) = own_stack.status(("league",))
    assert status.pid
    with connect(settings.redis) as redis:
        wait_for(lambda: read_states(redis), "the states of the entries")
        (state,) = read_states(redis) or ()
    assert (state.name, state.state) == ("log_har", "waiting")
    assert "does not answer" in state.reason or "starting" in state.reason  # there is no MLflow in this stack
    own_stack.start_component("league")  # one that runs is left alone
    assert own_stack.status(("league",))[0].pid == status.pid
    rss_mb = int(Path(f"/proc/{status.pid}/statm").read_text().split()[1]) * 4_096 / 1e6
    print(f"the process of a league with one untrained model takes {rss_mb:.0f} MB")
    own_stack.stop_component("league")
    remove(settings.user_models, "log_har")
    own_stack.up(only=("valkey",))
    assert "league" not in own_stack.components()


def test_a_new_feature_restarts_the_features_worker_which_then_computes_it(
    own_stack: Stack, own_servers: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = own_servers("kafka", "questdb", "valkey")
    own_stack.start_component("features")
    (before,) = own_stack.status(("features",))
    path = tmp_path / "mine.py"
    path.write_text(FEATURE)
    done = CliRunner().invoke(app, ["features", "add", str(path), "--data-dir", str(own_stack.layout.data_dir)])
    assert done.exit_code == 0, done.output
    assert "restarting features;" in done.output
    (after,) = own_stack.status(("features",))
    assert after.pid != before.pid
    assert after.state == "healthy"
    (feature,) = features_in(settings.user_features)
    symbol = unique("MINE")
    publish(settings, symbol, list(market(symbol, 130, seed=1)))
    stored = f"SELECT DISTINCT feature, feature_version FROM silver_user_features WHERE symbol = '{symbol}'"
    with QuestDB(settings.questdb) as db:
        wait_for(lambda: db.execute(stored) == [["mine", feature.version]], "values of the feature")


def test_files_of_a_system_in_containers_start_a_training_and_name_the_command_of_compose(
    own_stack: Stack, own_servers: Callable[..., Settings], tmp_path: Path
) -> None:
    own_servers("valkey")
    folder, path = tmp_path / "compose", tmp_path / "mine.py"
    folder.mkdir()
    shutil.copy(
        own_stack.layout.env_file, folder
    )  # servers of its passwords run, and no supervisor runs in this folder
    path.write_text(FEATURE)
    compose = f"docker compose --env-file {folder / 'stack.env'}"

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--data-dir", str(folder)])
        assert done.exit_code == 0, done.output
        return done.output

    model = said("models", "add", "--builtin", "log_har")
    assert f"`{compose} --profile league up -d`" in model
    assert "the league is not trained yet: " in model, "Dagster was asked, and this stack has none"
    feature = said("features", "add", str(path))
    assert f"`{compose} restart features`" in feature
    assert "the league is not trained yet: " in feature
    own_stack.down()
    assert "the stack is down; `btc up` starts the league" in said("models", "add", "--builtin", "log_har")
