"""The league's process in a stack: it exists once the user has a model, and joins a stack that runs already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.league.folder import read_builtin, remove, store
from btc_core.league.states import read_states
from btc_core.stores.redis_connection import connect
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from stack.runtime import Stack


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
