"""Secrets as files: what deploy/compose.secrets.yml changes, and what our programs then read."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from btc_core.settings import load_settings, secret_variables
from stack.layout import Layout
from tests.certificates import Authority
from tests.containers import SERVICES, interpolated
from tests.paths import ROOT

SECRETS = yaml.safe_load((ROOT / "deploy" / "compose.secrets.yml").read_text())
FOLDER = "/run/secrets/"
OF_NO_SETTING = {"BTC_GRAFANA_PASSWORD"}
"""A secret of a server that none of our programs asks for."""

OF_A_PERSON = {
    "BTC_KAFKA_PASSWORD": "log-word",
    "BTC_KAFKA_KEY_PASSWORD": "key-word",
    "BTC_QUESTDB_TOKEN": "token-word",
    "BTC_REDIS_SENTINEL_PASSWORD": "sentinel-word",
    "BTC_OFFSITE_SECRET_KEY": "offsite-word",
    "BTC_API_ADMIN_TOKENS": f"deploy={'a' * 20}",
    "BTC_API_READ_TOKENS": f"alerts={'r' * 20}",
}
"""Secrets that `btc init` does not write: a person adds those of managed services, and further tokens of the API."""
WITH_THEM = {
    "BTC_KAFKA_SECURITY": "sasl_ssl",
    "BTC_KAFKA_USER": "btc",
    "BTC_REDIS_SENTINELS": "sentinel.example:26379",
    "COMPOSE_REDIS_URL": "redis://master/0",
    "BTC_OFFSITE_ACCESS_KEY": "offsite-key",
}
"""Settings without which these secrets would be refused."""


@pytest.fixture
def stack_env(tmp_path: Path) -> Path:
    Layout(tmp_path).create("live")
    file = tmp_path / "stack.env"
    client = Authority(tmp_path).certificate("client")
    settings = WITH_THEM | {"BTC_KAFKA_CERT_FILE": str(client.cert), "BTC_KAFKA_KEY_FILE": str(client.key)}
    with file.open("a") as lines:
        lines.writelines(f"{name}={value}\n" for name, value in (OF_A_PERSON | settings).items())
    file.write_text(
        re.sub(r"^(BTC_ALERT_\w+)=.*", r"\1=json://contact.example/secret", file.read_text(), flags=re.MULTILINE)
    )
    subprocess.run([ROOT / "deploy" / "secret-files", file], check=True)
    return file


def _environment(name: str, variables: dict[str, str | None], *, files: Path | None) -> dict[str, str]:
    """What a container gets; with `files` by compose.secrets.yml, whose files are in this folder."""
    given = dict(SERVICES[name].get("environment") or {})
    if files is not None:
        given |= SECRETS["services"].get(name, {}).get("environment", {})
    shown = {key: interpolated(str(value), variables) for key, value in given.items()}
    return {key: value.replace(FOLDER, f"{files}/") for key, value in shown.items()}


def test_the_files_hold_the_secrets_and_the_env_file_for_compose_none(stack_env: Path) -> None:
    secret, shown = dotenv_values(stack_env), dotenv_values(stack_env.with_name("compose.env"))
    folder = stack_env.with_name("secrets")
    assert {file.name for file in folder.iterdir()} == set(SECRETS["secrets"])
    assert set(secret) >= set(SECRETS["secrets"])
    assert {name.lower() for name in set(SECRETS["secrets"]) - OF_NO_SETTING} == set(secret_variables())
    for name, value in secret.items():
        if name in SECRETS["secrets"]:
            assert (folder / name).read_text() == value
            assert shown[name] != value
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o444  # each container has a user of its own
        else:
            assert shown[name] == value
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(stack_env.with_name("compose.env").stat().st_mode) == 0o600
    assert "deploy/compose.secrets.yml" in (shown["COMPOSE_FILE"] or "").split(":")
    assert all((ROOT / file).is_file() for file in (shown["COMPOSE_FILE"] or "").split(":"))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("BTC_API_TOKEN=first\nBTC_API_TOKEN=second", "second"),
        ("export BTC_API_TOKEN=exported", "exported"),
        ("BTC_API_TOKEN=word  # of the deployment", "word"),
        ("BTC_API_TOKEN='a # b'  # quoted", "a # b"),
        ('BTC_API_TOKEN="a=b"', "a=b"),
        ("BTC_API_TOKEN=", ""),
    ],
)
def test_a_secret_that_a_person_has_written_is_read_as_by_our_programs(
    tmp_path: Path, lines: str, expected: str
) -> None:
    Layout(tmp_path).create("live")
    file = tmp_path / "stack.env"
    file.write_text(f"{file.read_text()}{lines}\n")
    subprocess.run([ROOT / "deploy" / "secret-files", file], check=True)
    assert (tmp_path / "secrets" / "BTC_API_TOKEN").read_text() == expected == dotenv_values(file)["BTC_API_TOKEN"]
    assert "exported" not in (tmp_path / "compose.env").read_text()


def test_a_secret_that_nobody_has_set_is_an_empty_file_and_as_if_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Layout(tmp_path).create("live")
    subprocess.run([ROOT / "deploy" / "secret-files", tmp_path / "stack.env"], check=True)
    files = tmp_path / "secrets"
    assert {name for name in OF_A_PERSON if (files / name).read_text() == ""} == set(OF_A_PERSON)
    for key, value in _environment("api", dotenv_values(tmp_path / "compose.env"), files=files).items():
        monkeypatch.setenv(key, value)
    found = load_settings()
    assert not found.kafka.authenticated
    assert found.api.admin_tokens.get_secret_value() == found.questdb.token.get_secret_value() == ""


@pytest.mark.parametrize("name", list(SERVICES))
def test_no_container_has_a_secret_in_a_variable_and_each_has_the_files_that_it_names(
    name: str, stack_env: Path
) -> None:
    secret = {dotenv_values(stack_env)[each] or "" for each in SECRETS["secrets"]}
    shown = dotenv_values(stack_env.with_name("compose.env"))
    changed: dict[str, Any] = SECRETS["services"].get(name, {})
    given = _environment(name, shown, files=Path(FOLDER))
    assert not secret & set(given.values())
    assert not any("not-the-secret" in value for value in given.values())
    read = {value.removeprefix(FOLDER) for value in given.values() if value.startswith(FOLDER)}
    command = f"{changed.get('entrypoint', '')} {SERVICES[name].get('command', '')}"
    read |= set(re.findall(rf"cat {FOLDER}(\w+)", command))
    assert read == set(changed.get("secrets", ()))
    assert read <= set(SECRETS["secrets"])
    assert all(each["file"] == f"./var/compose/secrets/{key}" for key, each in SECRETS["secrets"].items())


@pytest.mark.parametrize(
    "name", [name for name in SERVICES if "BTC_API_PORT" in SERVICES[name].get("environment", {})] + ["features"]
)
def test_a_program_of_ours_has_the_same_settings_with_files(
    name: str, stack_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = dotenv_values(stack_env)
    for key, value in _environment(name, variables, files=None).items():
        monkeypatch.setenv(key, value)
    plain = load_settings()
    shown = dotenv_values(stack_env.with_name("compose.env"))
    for key, value in _environment(name, shown, files=stack_env.with_name("secrets")).items():
        monkeypatch.setenv(key, value)
    assert load_settings() == plain


@pytest.mark.parametrize("name", ["dagster-code", "dagster-web", "prepare", "mlflow"])
def test_a_program_that_reads_only_variables_gets_them_from_the_files(name: str, stack_env: Path) -> None:
    folder = stack_env.with_name("secrets")
    assert SECRETS["services"][name]["entrypoint"] == ["with-secrets"]
    given = _environment(name, dotenv_values(stack_env.with_name("compose.env")), files=folder)
    started = {"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(folder)}
    command = [ROOT / "deploy" / "with-secrets", "env", "-0"]
    done = subprocess.run(command, env=given | started, capture_output=True, text=True, check=True)
    seen = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    expected = _environment(name, dotenv_values(stack_env), files=None)
    assert {key: seen[key] for key in expected} == expected
    assert not any(value.startswith(str(folder)) for key, value in seen.items() if key.endswith("_FILE"))
