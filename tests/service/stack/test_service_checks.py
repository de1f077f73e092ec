"""`btc doctor --env-file` on real servers: nothing to say when all is right, else which server is wrong and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from btc_cli.app import app
from btc_core.settings import load_settings
from stack.service_checks import check_services

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

WRONG = "not this one"


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("kafka", "valkey", "questdb", "postgres", "store")


def test_servers_that_are_right_have_no_problem(settings: Settings) -> None:
    assert {found.subject: found.problem for found in check_services(settings) if found.problem} == {}


def test_the_command_names_what_is_wrong_and_shows_no_secret(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "managed.env"
    (tmp_path / "password").write_text(f"{WRONG}\n")
    store = settings.store
    lines = {
        "KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
        "KAFKA_SECURITY": settings.kafka.security,
        "KAFKA_MECHANISM": settings.kafka.mechanism,
        "KAFKA_USER": settings.kafka.user,
        "KAFKA_PASSWORD": settings.kafka.password.get_secret_value(),
        "QUESTDB_HTTP_URL": settings.questdb.http_url,
        "QUESTDB_USER": settings.questdb.user,
        "QUESTDB_PASSWORD_FILE": tmp_path / "password",
        "REDIS_URL": settings.redis.url,
        "REDIS_PASSWORD": WRONG,
        "POSTGRES_HOST": settings.postgres.host,
        "POSTGRES_PORT": settings.postgres.port,
        "POSTGRES_USER": settings.postgres.user,
        "POSTGRES_PASSWORD": WRONG,
        "STORE_ENDPOINT_URL": store.endpoint_url,
        "STORE_ACCESS_KEY": store.access_key,
        "STORE_SECRET_KEY": WRONG,
    }
    file.write_text("".join(f"BTC_{name}={value}\n" for name, value in lines.items()))
    assert load_settings(file).questdb.password.get_secret_value() == WRONG
    done = CliRunner().invoke(app, ["doctor", "--env-file", str(file)])
    assert done.exit_code == 1
    found = [line.strip() for line in done.output.splitlines()]
    assert found[0] == f"ok  Kafka at {settings.kafka.bootstrap}"
    for line, words in zip(
        found[1:],
        (
            "refuses the user 'btc' or the password (BTC_QUESTDB_USER, BTC_QUESTDB_PASSWORD)",
            "refuses the user 'default' or the password (BTC_REDIS_USER, BTC_REDIS_PASSWORD)",
            "refuses the access key 'btc' or its secret (BTC_STORE_ACCESS_KEY, BTC_STORE_SECRET_KEY)",
            "refuses the user 'btc' or the password (BTC_POSTGRES_USER, BTC_POSTGRES_PASSWORD)",
        ),
        strict=True,
    ):
        assert line.startswith("no  ")
        assert words in line
    assert WRONG not in done.output


def test_servers_that_are_away_and_tables_that_are_missing_are_named(settings: Settings) -> None:
    away = {
        "kafka": settings.kafka.model_copy(update={"bootstrap": "127.0.0.1:1"}),
        "questdb": settings.questdb.model_copy(update={"http_url": "http://127.0.0.1:1"}),
        "redis": settings.redis.model_copy(update={"url": "redis://127.0.0.1:1/0"}),
        "store": settings.store.model_copy(update={"endpoint_url": "http://127.0.0.1:1"}),
        "postgres": settings.postgres.model_copy(update={"port": 1}),
    }
    problems = [found.problem for found in check_services(settings.model_copy(update=away))]
    assert all("does not answer" in problem for problem in problems), problems
