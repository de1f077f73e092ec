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
from dotenv import dotenv_values

from stack.layout import Layout
from tests import waiting
from tests.containers import COMPOSE, ONE_SHOT, SERVICES
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings

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


def compose_command(folder: Path, root: Path = ROOT) -> list[str]:
    """The program that reads the compose file of a checkout: the plugin of Docker, or the older program of its own.

    The older one does not know the name of a project in the file, so it gets a copy without it. Skips the test if no engine or
    no such program is there.
    """
    if shutil.which("docker") is None or not _succeeds("info", timeout_s=20):
        pytest.skip("no container engine answers here (`docker info`)")
    if _succeeds("compose", "version", timeout_s=60):
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        pytest.skip("there is neither `docker compose` nor `docker-compose`")
    lines = (root / "docker-compose.yml").read_text().splitlines()
    unnamed = folder / "docker-compose.yml"
    unnamed.write_text("\n".join(line for line in lines if line != f"name: {COMPOSE['name']}"))
    return ["docker-compose", "--file", str(unnamed), "--project-directory", str(root)]


@cache
def has_registry() -> bool:
    """Whether images of others can be pulled; where they cannot, they are built from packages."""
    if _succeeds("pull", "--quiet", REGISTRY_PROBE, timeout_s=120):
        return True
    done = subprocess.run([ROOT / "deploy/stand_ins/build"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return False


def build_images(root: Path = ROOT) -> list[str]:
    """Build the images of a checkout, and return their names."""
    has_registry()
    services = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]
    images = {each["build"]["target"]: str(each["image"]) for each in services.values() if "build" in each}
    for target, image in images.items():
        done = docker("build", "--network=host", "--target", target, "--tag", image, ".", root=root)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return list(images.values())


def new_env_file(folder: Path) -> tuple[Path, Settings]:
    """An env file of the simulated composition in a folder, and settings that reach its servers on their published ports."""
    layout = Layout(folder / "stack")
    layout.create("sim")
    env_file = folder / "composition.env"
    env_file.write_text(layout.env_file.read_text() + "\n" + (ROOT / "deploy" / "compose.sim.env").read_text())
    return env_file, layout.settings()


class Composition:
    """The simulated composition of a checkout, whose images are built."""

    def __init__(self, command: list[str], env_file: Path, settings: Settings, root: Path = ROOT) -> None:
        self.settings = settings
        """They reach its servers on their published ports."""
        self._command = [*command, "--env-file", str(env_file)]
        self._environment = os.environ | {key: value or "" for key, value in dotenv_values(env_file).items()}
        self.root = root

    def run(self, *arguments: str, **changed: str) -> str:
        done = self.attempt(*arguments, **changed)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def attempt(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command, environment = [*self._command, *arguments], self._environment | changed
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )

    def up(self) -> None:
        """Start every service whose image is there: Grafana is in no package."""
        services = yaml.safe_load((self.root / "docker-compose.yml").read_text())["services"]
        left_out = LEFT_OUT if has_registry() else LEFT_OUT | {"grafana"}
        done = self.attempt("up", "-d", *(name for name in services if name not in left_out))
        if done.returncode:
            said = self.attempt("logs", "--tail", "40", *ONE_SHOT).stdout
            pytest.fail(f"{done.stderr[-2000:]}\n{said}")

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
