"""The containers, started for real: every image is built, and the simulated composition serves forecasts, keeps a copy of a day,
refuses live settings, and survives a restart of each service.

It runs where a container engine answers, and takes half an hour on two idle cores, most of it for building the images. Where no
image registry can be reached, `deploy/stand_ins/build` makes the images of others from packages; Grafana is then left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from dotenv import dotenv_values

from btc_cli.backfill import SEALING_ASSETS
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days.lake import kept_days
from btc_core.stores.dagster import launch_backfill
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.utc_day import day_of
from stack.layout import Layout
from tests import waiting
from tests.containers import COMPOSE, ONE_SHOT, SERVICES
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.settings import Settings

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]

API = "http://127.0.0.1:5050"
REGISTRY_PROBE = SERVICES["store-owner"]["image"]
"""The smallest image of others: if it cannot be pulled, there is no registry."""
LEFT_OUT = {"kafka-ui", "redis-ui"}
NAMED = [name for name in SERVICES if name not in LEFT_OUT]
RESTARTED = [name for name in NAMED if name not in ONE_SHOT | {"grafana"}]
FRESH_S = 15.0
BUILD_S = 3_600.0
"""An image takes a minute or two on an idle machine."""
COMMAND_S = 1_800.0

wait_for = partial(waiting.wait_for, patience_s=1_200.0)


def _docker(*arguments: str, timeout_s: float = BUILD_S) -> subprocess.CompletedProcess[str]:
    command = ["docker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


def _succeeds(*arguments: str, timeout_s: float) -> bool:
    """Whether a command of Docker ends well in time."""
    try:
        return _docker(*arguments, timeout_s=timeout_s).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _compose_command(folder: Path) -> list[str] | None:
    """The program that reads compose files: the plugin of Docker, or the older program of its own.

    The older one does not know the name of a project in the file, so it gets a copy without it.
    """
    if _succeeds("compose", "version", timeout_s=60):
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        return None
    lines = (ROOT / "docker-compose.yml").read_text().splitlines()
    unnamed = folder / "docker-compose.yml"
    unnamed.write_text("\n".join(line for line in lines if line != f"name: {COMPOSE['name']}"))
    return ["docker-compose", "--file", str(unnamed), "--project-directory", str(ROOT)]


class Composition:
    """The simulated composition with an env file of its own; `settings` reach its servers on their published ports."""

    def __init__(self, command: list[str], env_file: Path, settings: Settings, services: list[str]) -> None:
        self._command = [*command, "--env-file", str(env_file)]
        self._environment = os.environ | {key: value or "" for key, value in dotenv_values(env_file).items()}
        self._services = services
        self.settings = settings

    def run(self, *arguments: str, **changed: str) -> str:
        done = self.attempt(*arguments, **changed)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def attempt(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command, environment = [*self._command, *arguments], self._environment | changed
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )

    def up(self) -> None:
        self.run("up", "-d", *self._services)

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

    def wait_healthy(self, service: str) -> None:
        try:
            wait_for(partial(self.is_healthy, service), f"health of {service}")
        except AssertionError as error:
            log = self.attempt("logs", "--tail", "40", service).stdout
            msg = f"{error}; its log ends with\n{log}"
            raise AssertionError(msg) from error


def _build_images() -> bool:
    """Build our images, and those of others where they cannot be pulled; whether there is a registry."""
    has_registry = _succeeds("pull", "--quiet", REGISTRY_PROBE, timeout_s=120)
    if not has_registry:
        done = subprocess.run([ROOT / "deploy/stand_ins/build"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for target, image in {s["build"]["target"]: s["image"] for s in SERVICES.values() if "build" in s}.items():
        done = _docker("build", "--network=host", "--target", target, "--tag", image, ".")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return has_registry


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    if shutil.which("docker") is None or not _succeeds("info", timeout_s=20):
        pytest.skip("no container engine answers here (`docker info`)")
    folder = tmp_path_factory.mktemp("composition")
    command = _compose_command(folder)
    if command is None:
        pytest.skip("there is neither `docker compose` nor `docker-compose`")
    has_registry = _build_images()
    layout = Layout(folder / "stack")
    layout.create("sim")
    env_file = folder / "composition.env"
    env_file.write_text(layout.env_file.read_text() + "\n" + (ROOT / "deploy" / "compose.sim.env").read_text())
    services = [name for name in NAMED if has_registry or name != "grafana"]
    made = Composition(command, env_file, layout.settings(), services)
    try:
        made.up()
        yield made
    finally:
        made.down()


def _forecast_made_s() -> float:
    """When the data behind the served forecast was received, in seconds since the epoch; 0 while there is none."""
    try:
        answer = httpx.get(f"{API}/v1/forecast", timeout=10.0)
    except httpx.HTTPError:
        return 0.0
    return time.time() - answer.json()["feature_age_s"] if answer.status_code == httpx.codes.OK else 0.0


def _wait_for_forecast(what: str) -> None:
    """Wait for a served forecast from data that was received after this moment, and not long ago."""
    since_s = time.time()
    wait_for(lambda: _forecast_made_s() > max(since_s, time.time() - FRESH_S), what)


def test_the_composition_serves_forecasts_and_every_service_is_healthy(composition: Composition) -> None:
    _wait_for_forecast("a forecast that is served by the API")
    for service in RESTARTED:
        composition.wait_healthy(service)
        assert composition.state(service)["OOMKilled"] is False


def test_the_first_start_trains_champions_without_waiting_for_the_night(composition: Composition) -> None:
    def versions() -> list[str | None]:
        models = httpx.get(f"{API}/readyz", timeout=10.0).json()["models"]
        return [models[quantity]["version"] for quantity in ("bid", "volatility")]

    wait_for(lambda: all((version or "").isdigit() for version in versions()), "registered champions of both models")
    for service in ONE_SHOT:
        wait_for(lambda service=service: composition.state(service)["Status"] == "exited", f"the end of {service}")
        assert composition.state(service)["ExitCode"] == 0, composition.run("logs", "--tail", "40", service)


def test_the_copy_of_a_day_lies_on_the_object_store(composition: Composition) -> None:
    yesterday = day_of(now_ns() - NS_PER_DAY)
    launch_backfill(composition.settings, SEALING_ASSETS, [yesterday], {})
    with ObjectStore(composition.settings.store) as store:
        wait_for(lambda: yesterday in kept_days(store, MINUTE_BARS.name), f"a verified copy of {yesterday}")


def test_live_settings_are_refused_by_the_data_of_the_simulator(composition: Composition) -> None:
    live = {"COMPOSE_EXCHANGE_MODE": "live", "COMPOSE_EXCHANGE_WS_URL": "wss://ws.kraken.com/v2"}
    for service in ("prepare", "features"):
        done = composition.attempt("run", "--rm", "--no-deps", "-T", service, **live)
        assert done.returncode == 1
        assert (
            "holds the data of 'sim-kraken', and the settings are those of 'live-kraken'" in done.stdout + done.stderr
        )


@pytest.mark.parametrize("service", RESTARTED)
def test_forecasts_continue_after_a_restart_of_a_service(composition: Composition, service: str) -> None:
    composition.run("restart", service)
    composition.wait_healthy(service)
    _wait_for_forecast(f"fresh forecasts after a restart of {service}")


def test_our_containers_run_without_root_and_cannot_write_to_their_image(composition: Composition) -> None:
    for service in ("ingest", "bronze", "features", "forecast", "repair", "api", "alerts"):
        assert composition.run("exec", "-T", service, "id", "-u").strip() == "10001"
        found = _docker("inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", composition.container(service))
        assert found.stdout.strip() == "true"
