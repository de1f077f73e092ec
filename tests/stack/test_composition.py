"""The containers, started for real: every image is built, and the simulated composition serves forecasts and survives restarts.

It runs where a container engine answers, and takes about a quarter of an hour there. Where no image registry can be reached,
`deploy/stand_ins/build` makes the images of others from packages; Grafana is then left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from dotenv import dotenv_values

from stack.layout import Layout
from tests import waiting
from tests.containers import SERVICES
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(3000)

API = "http://127.0.0.1:5050"
REGISTRY_PROBE = SERVICES["store-owner"]["image"]
"""The smallest image of others: if it cannot be pulled, there is no registry."""
ONE_SHOT = {"prepare", "store-owner"}
LEFT_OUT = {"kafka-ui", "redis-ui"}
RESTARTED = [name for name in SERVICES if name not in ONE_SHOT | LEFT_OUT | {"grafana"}]

wait_for = partial(waiting.wait_for, patience_s=900.0)


def _docker(*arguments: str, timeout_s: float = 2000.0) -> subprocess.CompletedProcess[str]:
    command = ["docker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


def _compose_command() -> list[str] | None:
    """The program that reads compose files: the plugin of Docker, or the older program of its own."""
    if shutil.which("docker") and _docker("compose", "version").returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def _engine_answers() -> bool:
    return shutil.which("docker") is not None and _docker("info", timeout_s=20).returncode == 0


class Composition:
    """The simulated composition with an env file of its own."""

    def __init__(self, env_file: Path, *, with_grafana: bool) -> None:
        command = _compose_command()
        assert command is not None
        self._command = [*command, "--env-file", str(env_file)]
        self._environment = os.environ | {key: value or "" for key, value in dotenv_values(env_file).items()}
        self._scale = () if with_grafana else ("--scale", "grafana=0")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=2000,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def up(self) -> None:
        self.run("up", "-d", *self._scale)

    def down(self) -> None:
        self.run("down", "-v", "--remove-orphans")

    def container(self, service: str) -> str:
        return self.run("ps", "-q", service).strip()

    def state(self, service: str) -> dict[str, object]:
        found = _docker("inspect", "--format", "{{json .State}}", self.container(service))
        return dict(json.loads(found.stdout))

    def is_healthy(self, service: str) -> bool:
        health = self.state(service).get("Health")
        return isinstance(health, dict) and health["Status"] == "healthy"


def _build_images() -> bool:
    """Build our images, and those of others where they cannot be pulled; whether there is a registry."""
    has_registry = _docker("pull", "--quiet", REGISTRY_PROBE, timeout_s=120).returncode == 0
    if not has_registry:
        done = subprocess.run([ROOT / "deploy/stand_ins/build"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for target, image in {s["build"]["target"]: s["image"] for s in SERVICES.values() if "build" in s}.items():
        done = _docker("build", "--network=host", "--target", target, "--tag", image, ".")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return has_registry


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    if not _engine_answers():
        pytest.skip("no container engine answers here (`docker info`)")
    if _compose_command() is None:
        pytest.skip("there is neither `docker compose` nor `docker-compose`")
    has_registry = _build_images()
    folder = tmp_path_factory.mktemp("composition")
    Layout(folder / "stack").create("sim")
    simulated = (ROOT / "deploy" / "compose.sim.env").read_text()
    env_file = folder / "composition.env"
    env_file.write_text((folder / "stack" / "stack.env").read_text() + "\n" + simulated)
    made = Composition(env_file, with_grafana=has_registry)
    try:
        made.up()
        yield made
    finally:
        made.down()


def _forecast_age_s() -> float | None:
    """The age of the newest served forecast's row; None while there is none."""
    try:
        answer = httpx.get(f"{API}/v1/forecast", timeout=5.0)
    except httpx.HTTPError:
        return None
    return float(answer.json()["feature_age_s"]) if answer.status_code == httpx.codes.OK else None


def _is_fresh() -> bool:
    age_s = _forecast_age_s()
    return age_s is not None and age_s < 15.0


def test_the_composition_serves_forecasts_and_every_service_is_healthy(composition: Composition) -> None:
    wait_for(_is_fresh, "a forecast that is served by the API")
    for service in RESTARTED:
        wait_for(partial(composition.is_healthy, service), f"health of {service}")
        assert composition.state(service)["OOMKilled"] is False


def test_models_are_trained_by_themselves_and_lie_on_the_object_store(composition: Composition) -> None:
    def champions() -> bool:
        answer = httpx.get(f"{API}/v1/model", timeout=5.0)
        return answer.status_code == httpx.codes.OK and bool(answer.json())

    wait_for(champions, "champions of both models")
    objects = composition.run("exec", "-T", "store", "ls", "/data")
    assert re.search(r"\.dat\b|mlflow", objects), objects


@pytest.mark.parametrize("service", RESTARTED)
def test_forecasts_continue_after_a_restart_of_a_service(composition: Composition, service: str) -> None:
    composition.run("restart", service)
    wait_for(partial(composition.is_healthy, service), f"health of {service} after its restart")
    wait_for(_is_fresh, f"fresh forecasts after a restart of {service}")


def test_our_containers_run_without_root_and_cannot_write_to_their_image(composition: Composition) -> None:
    for service in ("ingest", "bronze", "features", "forecast", "repair", "api"):
        assert composition.run("exec", "-T", service, "id", "-u").strip() == "10001"
        found = _docker("inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", composition.container(service))
        assert found.stdout.strip() == "true"
