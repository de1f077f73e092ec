"""Named tokens: who may read, who may start admin actions, and what the audit log says about it."""

from __future__ import annotations

import base64
import errno
import io
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.api_settings import ApiSettings
from btc_core.errors import ConfigError
from btc_core.settings import load_settings
from serving import audit
from serving.auth import OPEN, RotatingTokens
from tests.serving_world import TOKEN, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from werkzeug.test import TestResponse

    from tests.serving_world import World

READ, SECOND_READ, ADMIN = "read-" + "r" * 20, "read-" + "s" * 20, "admin-" + "a" * 20


@pytest.fixture
def world() -> World:
    return build(read_tokens=f"grafana={READ}, alice={SECOND_READ}\n", admin_tokens=f"deploy={ADMIN}")


def get(world: World, path: str, token: str) -> TestResponse:
    return world.client.get(path, headers={"Authorization": f"Bearer {token}"})


def retrain(world: World, authorization: str) -> tuple[int, str | None]:
    response = world.client.post("/retrain", headers={"Authorization": authorization})
    return response.status_code, response.get_json().get("code")


def basic(token: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def test_reading_needs_a_token_of_either_kind_once_there_is_a_read_token(world: World) -> None:
    for path in (
        "/test",
        "/v1/features/order",
        "/live",
        "/ops",
        "/runbook",
        "/docs",
        "/openapi.json",
        "/static/live.js",
        "/",
        "/nothing",
    ):
        refused = world.client.get(path)
        assert (refused.status_code, refused.get_json(force=True)["code"]) == (401, "unauthorized"), path
        assert get(world, path, "r" * 20).status_code == 401
        for token in (READ, SECOND_READ, ADMIN, TOKEN):
            assert get(world, path, token).status_code != 401, path


def test_supervisors_and_prometheus_need_no_token(world: World) -> None:
    assert {"/healthz", "/readyz", "/metrics"} == OPEN
    assert [world.client.get(path).status_code for path in sorted(OPEN)] == [200, 200, 503]


def test_without_read_tokens_everybody_may_read() -> None:
    world = build(admin_tokens=f"deploy={ADMIN}")
    assert world.client.get("/test").status_code == 200
    assert get(world, "/test", "wrong").status_code == 200


def test_only_an_admin_token_starts_an_action(world: World) -> None:
    assert retrain(world, f"Bearer {TOKEN}") == (202, None)
    assert retrain(world, f"Bearer {ADMIN}") == (202, None)
    assert retrain(world, f"Bearer {READ}") == (403, "forbidden")
    assert retrain(world, "Bearer wrong") == (401, "unauthorized")


def test_a_browser_sends_the_token_as_a_password_and_can_only_read_with_it(world: World) -> None:
    asked = world.client.get("/live")
    assert asked.headers.getlist("WWW-Authenticate") == ['Bearer realm="btc"', 'Basic realm="btc", charset="UTF-8"']
    for token in (READ, ADMIN):
        assert world.client.get("/live", headers={"Authorization": basic(token)}).status_code == 200
    for bad in (basic("wrong"), basic(""), basic("x", READ), "Basic !", f"Basic {READ}", "Basic"):
        assert world.client.get("/live", headers={"Authorization": bad}).status_code == 401, bad
    # The browser would send it for a form of another site, too.
    assert retrain(world, basic(ADMIN)) == (401, "unauthorized")


def test_the_question_of_a_browser_before_a_request_needs_no_token() -> None:
    world = build(read_tokens=f"grafana={READ}", cors_origins=("https://charts.example",))
    headers = {"Origin": "https://charts.example", "Access-Control-Request-Method": "GET"}
    assert world.client.options("/test", headers=headers).status_code == 204
    assert world.client.get("/test", headers=headers).headers["Access-Control-Allow-Origin"] == "https://charts.example"


def test_the_document_says_which_operations_need_which_token(world: World) -> None:
    paths = get(world, "/openapi.json", READ).get_json()["paths"]
    assert paths["/v1/forecast"]["get"]["security"] == [{"read": []}, {"password": []}]
    assert "401" in paths["/v1/forecast"]["get"]["responses"]
    assert "security" not in paths["/healthz"]["get"]
    assert paths["/retrain"]["post"]["security"] == [{"admin": []}]
    assert {"401", "403"} <= set(paths["/retrain"]["post"]["responses"])
    unguarded = build().client.get("/openapi.json").get_json()["paths"]
    assert "security" not in unguarded["/v1/forecast"]["get"]
    assert unguarded["/retrain"] == paths["/retrain"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("READ_TOKENS", READ),
        ("READ_TOKENS", "grafana=too-short-15-ch"),
        ("ADMIN_TOKENS", f"deploy={ADMIN},no name={READ}"),
        ("ADMIN_TOKENS", f"deploy:{ADMIN}"),
    ],
)
def test_an_entry_that_is_no_named_token_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"BTC_API_{variable}", value)
    with pytest.raises(ConfigError, match=rf"BTC_API_{variable}: .*entry \d must be NAME=TOKEN") as refused:
        load_settings()
    for secret in (READ, ADMIN, "too-short-15-ch"):
        assert secret not in str(refused.value)


def test_one_token_with_two_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_API_READ_TOKENS", f"grafana={READ}")
    monkeypatch.setenv("BTC_API_ADMIN_TOKENS", f"deploy={READ}")
    with pytest.raises(ConfigError, match=r"one token twice, as deploy \(admin\) and grafana \(read\)") as refused:
        load_settings()
    assert READ not in str(refused.value)


def test_our_own_processes_read_with_the_first_read_token() -> None:
    settings = ApiSettings.model_validate({"token": TOKEN, "read_tokens": f"alerts={READ} grafana={SECOND_READ}"})
    assert settings.reader_token == READ
    assert ApiSettings.model_validate({"token": TOKEN}).reader_token == ""


# --- rotation ---


def test_a_token_changed_in_the_env_file_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    env_file = tmp_path / "stack.env"
    env_file.write_text("BTC_API_TOKEN=first\n")
    tokens = RotatingTokens(load_settings(env_file).api, env_file)

    def valid(*candidates: str) -> list[str]:
        return [token for token in candidates if tokens().holder(f"Bearer {token}", with_basic=False)]

    assert valid("first", "second", "third") == ["first"]
    draft = tmp_path / "new.env"
    draft.write_text("BTC_API_TOKEN=second\n")
    draft.replace(env_file)
    assert valid("first", "second", "third") == ["second"]
    env_file.write_text("BTC_API_TOKEN=third\nBTC_API_PORT=none\n")
    assert valid("first", "second", "third") == ["second"], "a broken file changes nothing"
    env_file.unlink()
    assert valid("first", "second", "third") == ["second"]


def test_a_file_that_is_seen_while_it_is_written_lets_nobody_read_without_a_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env_file = tmp_path / "stack.env"
    env_file.write_text(f"BTC_API_TOKEN=admin\nBTC_API_READ_TOKENS=reader={'r' * 20}\n")
    tokens = RotatingTokens(load_settings(env_file).api, env_file)
    assert tokens().guard_reads
    env_file.write_text("BTC_API_TOKEN=admin\n")  # a program that rewrites a file may truncate it first
    assert tokens().guard_reads
    assert tokens().holder(f"Bearer {'r' * 20}", with_basic=False) is not None
    assert "no read token is left" in caplog.text
    env_file.write_text(f"BTC_API_TOKEN=admin\nBTC_API_READ_TOKENS=reader={'n' * 20}\n")
    assert tokens().holder(f"Bearer {'n' * 20}", with_basic=False) is not None


@pytest.mark.parametrize("named_in", ["the environment", "the env file"])
def test_a_rotation_with_two_tokens_of_one_name_loses_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_in: str
) -> None:
    secret, env_file = tmp_path / "readers", tmp_path / "stack.env"
    env_file.write_text("")
    if named_in == "the environment":
        monkeypatch.setenv("BTC_API_READ_TOKENS_FILE", str(secret))
    else:
        env_file.write_text(f"BTC_API_READ_TOKENS_FILE={secret}\n")
    secret.write_text(f"grafana={READ}\n")
    tokens = RotatingTokens(load_settings(env_file).api, env_file)

    def names() -> list[str | None]:
        found = [tokens().holder(f"Bearer {token}", with_basic=False) for token in (READ, SECOND_READ)]
        return [each.name if each else None for each in found]

    assert names() == ["grafana", None]
    secret.write_text(f"grafana={READ}\ngrafana={SECOND_READ}\n")
    assert names() == ["grafana", "grafana"]
    secret.write_text(f"grafana={SECOND_READ}\n")
    assert names() == [None, "grafana"]


# --- the audit log ---


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The entries of the audit log, which is a file."""
    path = tmp_path / "audit.log"
    path.write_text("")
    path.chmod(0o644)
    audit.configure(ApiSettings(audit_log=str(path)))
    logger = logging.getLogger("serving.audit")
    logger.setLevel(logging.INFO)
    assert path.stat().st_mode & 0o777 == 0o600
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


def test_every_action_and_every_refused_token_is_written_with_the_name_of_the_token(
    audited: Callable[[], list[dict[str, Any]]],
) -> None:
    world = build(read_tokens=f"grafana={READ}", admin_tokens=f"deploy={ADMIN}", trusted_proxies=("127.0.0.1",))
    behind = {"X-Forwarded-For": "203.0.113.9"}
    assert world.client.post("/retrain", headers={"Authorization": f"Bearer {ADMIN}", **behind}).status_code == 202
    retrain(world, f"Bearer {TOKEN}")
    retrain(world, f"Bearer {READ}")
    world.client.post("/reload")
    get(world, "/v1/forecast?symbol=BTC/USD", "a-wrong-token-of-somebody")
    written = audited()
    assert [(e["token"], e["method"], e["path"], e["status"], e["client"]) for e in written] == [
        ("deploy", "POST", "/retrain", 202, "203.0.113.9"),
        ("default", "POST", "/retrain", 202, "127.0.0.1"),
        ("grafana", "POST", "/retrain", 403, "127.0.0.1"),
        (None, "POST", "/reload", 401, "127.0.0.1"),
        (None, "GET", "/v1/forecast", 401, "127.0.0.1"),
    ]
    assert written[0]["ts"].endswith("Z")
    assert written[0]["request_id"] != written[1]["request_id"]


def test_reading_is_not_audited_and_no_token_is_written(audited: Callable[[], list[dict[str, Any]]]) -> None:
    world = build(read_tokens=f"grafana={READ}")
    get(world, "/test", READ)
    world.client.get("/test")
    assert audited() == []
    get(world, "/test", "a-wrong-token-of-somebody")
    assert "a-wrong-token-of-somebody" not in json.dumps(audited())


def test_a_large_audit_log_is_rotated_and_stays_private(
    tmp_path: Path, audited: Callable[[], list[dict[str, Any]]]
) -> None:
    audit.configure(ApiSettings(audit_log=str(tmp_path / "audit.log"), audit_log_max_bytes=10_000))
    world = build()
    for _ in range(60):
        retrain(world, f"Bearer {TOKEN}")
    files = sorted(path.name for path in tmp_path.glob("audit.log*"))
    assert files[:2] == ["audit.log", "audit.log.1"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("audit.log*")} == {0o600}
    assert len(audited()) < 60


def test_an_audit_log_that_cannot_be_written_stops_the_start() -> None:
    with pytest.raises(
        ConfigError, match=r"BTC_API_AUDIT_LOG names /nowhere/audit\.log, which cannot be written: No such"
    ):
        audit.configure(ApiSettings(audit_log="/nowhere/audit.log"))


class FullDisk(io.StringIO):
    """A file that takes nothing."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.usefixtures("audited")
def test_an_entry_that_the_file_does_not_take_is_in_the_log_of_the_api(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (handler,) = [each for each in logging.getLogger("serving.audit").handlers if isinstance(each, audit.PrivateFile)]
    monkeypatch.setattr(handler, "stream", FullDisk())
    retrain(build(), f"Bearer {TOKEN}")
    assert "the audit log cannot be written ([Errno 28] No space left on device)" in caplog.text
    assert '"path":"/retrain"' in caplog.text
