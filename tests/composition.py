"""The composition, started for real by the tests: its images, its commands, and the state of its containers.

What does not belong here: what docker-compose.yml says without an engine (`containers`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from functools import cache, partial
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

from btc_core.settings import load_settings
from stack.limits import open_files
from tests import waiting
from tests.containers import COMPOSE, ONE_SHOT, SERVICES, interpolated, targets
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

API = "http://127.0.0.1:5050"
REGISTRY_PROBE = SERVICES["store-owner"]["image"]
"""The smallest image of others: if it cannot be pulled, there is no registry."""
LEFT_OUT = {"kafka-ui", "redis-ui"}
NAMED = [name for name in SERVICES if name not in LEFT_OUT]
"""The services of this version that a composition has without a profile for tools."""
FRESH_S = 15.0
BUILD_S = 3_600.0
"""An image takes a minute or two on an idle machine."""
COMMAND_S = 1_800.0

wait_for = partial(waiting.wait_for, patience_s=1_200.0)


def docker(*arguments: str, root: Path = ROOT, timeout_s: float = BUILD_S) -> subprocess.CompletedProcess[str]:
    """Run a command of Docker in a checkout."""
    command = ["docker", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=timeout_s, check=False)


def _succeeds(*arguments: str, timeout_s: float) -> bool:
    """Whether a command of Docker ends well in time."""
    try:
        return docker(*arguments, timeout_s=timeout_s).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def require_engine() -> None:
    """Skip the test if no container engine is there."""
    if shutil.which("docker") is None or not _succeeds("info", timeout_s=20):
        pytest.skip("no container engine answers here (`docker info`)")


def compose_command(folder: Path, root: Path = ROOT) -> list[str]:
    """The program that reads the compose file of a checkout, with `folder` as the folder of the project.

    It is the plugin of Docker, or the older program of its own. The folder gets a copy of the file, without the name of the
    project for the older program, which does not know it there. Skips the test if no engine or no such program is there.
    """
    require_engine()
    text = (root / "docker-compose.yml").read_text()
    command = ["docker", "compose"]
    if not _succeeds("compose", "version", timeout_s=60):
        if shutil.which("docker-compose") is None:
            pytest.skip("there is neither `docker compose` nor `docker-compose`")
        command = ["docker-compose"]
        text = "".join(line for line in text.splitlines(keepends=True) if line.rstrip() != f"name: {COMPOSE['name']}")
    (folder / "docker-compose.yml").write_text(text)
    return command


@cache
def has_registry() -> bool:
    """Whether images of others can be pulled; where they cannot, they are built from packages."""
    if _succeeds("pull", "--quiet", REGISTRY_PROBE, timeout_s=120):
        return True
    done = subprocess.run([ROOT / "deploy/stand_ins/build"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return False


def build_images(version: str, root: Path = ROOT) -> dict[str, str]:
    """Build the images of a checkout under a version, and return the name of each by its stage of the Dockerfile.

    A checkout that is older than BTC_VERSION names them as it always did. Grafana is in no package, so its image is built only
    where there is a registry.
    """
    has_registry()
    built = {}
    for image, target in targets(root).items():
        if target == "grafana" and not has_registry():
            continue
        built[target] = interpolated(image, {"BTC_VERSION": version})
        done = docker("build", "--network=host", "--target", target, "--tag", built[target], ".", root=root)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return built


class Composition:
    """The simulated composition in a folder with the compose file and an `.env`, whose images are built."""

    def __init__(self, command: list[str], folder: Path, version: str) -> None:
        self.settings = load_settings(folder / ".env")
        """They reach its servers on their published ports."""
        self._command = command
        self._environment = os.environ | {"BTC_VERSION": version, "COMPOSE_OPEN_FILES": str(open_files())}
        self.folder = folder

    def run(self, *arguments: str, **changed: str) -> str:
        done = self.attempt(*arguments, **changed)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def attempt(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command, environment = [*self._command, *arguments], self._environment | changed
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )

    def up(self) -> None:
        """Start every service whose image is there: Grafana is in no package."""
        services = yaml.safe_load((self.folder / "docker-compose.yml").read_text())["services"]
        left_out = LEFT_OUT if has_registry() else LEFT_OUT | {"grafana"}
        done = self.attempt("up", "-d", *(name for name in services if name not in left_out))
        if done.returncode:
            said = self.attempt("logs", "--tail", "40", *ONE_SHOT).stdout
            pytest.fail(f"{done.stderr[-2000:]}\n{said}")

    def use_secret_files(self) -> Path:
        """Take the secrets out of the env file as docs/how-to/containers.md says; returns the env file that keeps them.

        Calling it again hands over what this file has by then.
        """
        kept = self.folder / "var" / "compose" / "stack.env"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / ".env", kept)
            (self.folder / "deploy").mkdir()
            shutil.copy(ROOT / "deploy" / "compose.secrets.yml", self.folder / "deploy")
            shutil.copy(ROOT / "docker-compose.override.yml", self.folder)
        subprocess.run([ROOT / "deploy" / "secret-files", kept], check=True)
        shutil.move(kept.with_name("compose.env"), self.folder / ".env")
        return kept

    def down(self, *, keep_data: bool = False) -> None:
        self.run("down", "--remove-orphans", *([] if keep_data else ["-v"]))

    def container(self, service: str) -> str:
        return self.run("ps", "-q", service).strip()

    def state(self, service: str) -> dict[str, object]:
        found = docker("inspect", "--format", "{{json .State}}", self.container(service))
        return dict(json.loads(found.stdout))

    def is_healthy(self, service: str) -> bool:
        health = self.state(service).get("Health")
        return isinstance(health, dict) and health["Status"] == "healthy"

    def wait_healthy(self, service: str) -> None:
        try:
            wait_for(partial(self.is_healthy, service), f"health of {service}")
        except AssertionError as error:
            log = self.attempt("logs", "--tail", "40", service).stdout
            msg = f"{error}; its log ends with\n{log}"
            raise AssertionError(msg) from error


def _forecast_made_s() -> float:
    """When the data behind the served forecast was received, in seconds since the epoch; 0 while there is none."""
    try:
        answer = httpx.get(f"{API}/v1/forecast", timeout=10.0)
    except httpx.HTTPError:
        return 0.0
    return time.time() - answer.json()["feature_age_s"] if answer.status_code == httpx.codes.OK else 0.0


def wait_for_forecast(what: str) -> None:
    """Wait for a served forecast from data that was received after this moment, and not long ago."""
    since_s = time.time()
    wait_for(lambda: _forecast_made_s() > max(since_s, time.time() - FRESH_S), what)
