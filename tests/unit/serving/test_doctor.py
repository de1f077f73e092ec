"""`/v1/doctor`: findings without secrets, asked at most twice a minute and by one request at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from btc_core.errors import NotReady, ServiceError
from serving.doctor import KEPT_S, Doctor, secrets_of, without_secrets
from serving.routes.operations import DOCTOR
from tests.serving_world import FakeClock, World, build

if TYPE_CHECKING:
    from btc_core.settings import Settings

pytestmark = pytest.mark.unit

PASSWORD = "correct horse battery"


def settings_with_a_password(world: World) -> Settings:
    settings = world.deps.settings
    return settings.model_copy(
        update={"questdb": settings.questdb.model_copy(update={"password": SecretStr(PASSWORD)})}
    )


def test_the_answer_has_each_finding_in_words_and_no_secret() -> None:
    world = build()

    def refused() -> str:
        raise ServiceError(f"QuestDB refuses admin:{PASSWORD}")

    def broken() -> str:
        raise KeyError("a bug of a client")

    checks = {"questdb": refused, "views": lambda: "", "kafka": broken, "backup": lambda: "there is no backup"}
    world.app.extensions[DOCTOR] = Doctor(settings_with_a_password(world), world.clock, checks)
    body = world.client.get("/v1/doctor").get_json()
    assert not body["healthy"]
    assert body["simulated"] == world.deps.settings.simulated
    assert [(each["subject"], each["problem"]) for each in body["findings"]] == [
        ("questdb", "QuestDB refuses admin:***"),
        ("views", None),
        ("kafka", "KeyError: 'a bug of a client'"),
        ("backup", "there is no backup"),
    ]
    assert PASSWORD in secrets_of(settings_with_a_password(world))
    assert without_secrets("nothing to hide", set()) == "nothing to hide"


def test_the_servers_are_asked_at_most_every_half_minute() -> None:
    world, asked = build(), 0

    def count() -> str:
        nonlocal asked
        asked += 1
        return ""

    clock = FakeClock()
    doctor = Doctor(world.deps.settings, clock, {"questdb": count})
    first = doctor()
    assert first.healthy
    clock.now += int((KEPT_S - 1.0) * 1e9)
    assert doctor() is first
    clock.now += int(1e9)
    assert doctor() is not first
    assert asked == 2


def test_while_one_request_looks_others_get_the_last_answer_or_are_asked_to_wait() -> None:
    world, clock = build(), FakeClock()
    is_looking, may_end = threading.Event(), threading.Event()

    def slow() -> str:
        is_looking.set()
        assert may_end.wait(30.0)
        return ""

    doctor = Doctor(world.deps.settings, clock, {"questdb": slow})
    for known in (False, True):
        may_end.clear()
        is_looking.clear()
        looking = threading.Thread(target=doctor)
        looking.start()
        assert is_looking.wait(30.0)
        if known:
            assert doctor().healthy
        else:
            with pytest.raises(NotReady, match="for the first time"):
                doctor()
        may_end.set()
        looking.join()
        clock.now += int(KEPT_S * 1e9)


def test_every_server_and_store_of_the_settings_is_checked() -> None:
    subjects = set(Doctor(build().deps.settings, FakeClock())._checks)
    assert {"questdb", "kafka", "valkey", "postgres", "store", "mlflow", "views", "backup of the databases"} <= subjects
    assert {"data of kafka", "data of questdb", "data of store", "archives of the log", "release calendar"} <= subjects
