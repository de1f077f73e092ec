"""The containers, started for real: every image is built, and the simulated composition serves forecasts, keeps a copy of a day,
refuses live settings, and survives a restart of each service. It starts from a compose file and an env file, without a checkout.

It runs where a container engine answers, and takes half an hour on two idle cores, most of it for building the images. Where no
image registry can be reached, `deploy/stand_ins/build` makes the images of others from packages; Grafana is then left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from btc_cli.backfill import SEALING_ASSETS
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days.lake import kept_days
from btc_core.stores.dagster import launch_backfill
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.utc_day import day_of
from tests.composition import (
    API,
    NAMED,
    Composition,
    build_images,
    compose_command,
    docker,
    require_engine,
    wait_for,
    wait_for_forecast,
)
from tests.containers import BASES, ONE_SHOT
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]

VERSION = "of-a-test"
RESTARTED = [name for name in NAMED if name not in ONE_SHOT | {"grafana"}]


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """The images of this checkout, by stage of the Dockerfile."""
    require_engine()
    return build_images(VERSION)


@pytest.fixture(scope="module")
def composition(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    """In a folder that has the compose file and an env file, as docs/how-to/containers.md says for a start without a checkout."""
    folder = tmp_path_factory.mktemp("composition")
    command = compose_command(folder)
    env_file = docker("run", "--rm", images["assets"], "python", "-m", "stack.first_env", "--exchange", "sim")
    assert env_file.returncode == 0, env_file.stderr
    (folder / ".env").write_text(env_file.stdout)
    made = Composition(command, folder, VERSION)
    try:
        made.up()
        yield made
    finally:
        made.down()


def size_of(image: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout)


def base_of(stage: str) -> str:
    """The image that a stage of the Dockerfile starts from; its size is not this project's, and that of a stand-in is another."""
    while stage in BASES:
        stage = BASES[stage]
    return stage


def test_no_image_adds_more_to_its_base_than_the_documentation_says(images: dict[str, str]) -> None:
    page = (ROOT / "docs" / "how-to" / "containers.md").read_text()
    stated_gb = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", page, re.MULTILINE))
    assert set(images) <= set(stated_gb)
    for name, image in images.items():
        size_gb = (size_of(image) - size_of(base_of(name))) / 1e9
        print(f"{name}: {size_gb:.2f} GB")
        assert size_gb <= float(stated_gb[name]), name


def test_the_composition_serves_forecasts_and_every_service_is_healthy(composition: Composition) -> None:
    wait_for_forecast("a forecast that is served by the API")
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
    wait_for_forecast(f"fresh forecasts after a restart of {service}")


def test_no_container_runs_as_root_or_can_write_to_its_image(composition: Composition) -> None:
    for service in RESTARTED:
        done = docker(
            "inspect", "--format", "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}", composition.container(service)
        )
        is_read_only, user = done.stdout.split()
        assert is_read_only == "true", service
        assert not user.startswith("0"), service
