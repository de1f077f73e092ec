"""deploy/kubernetes, checked without a cluster: rendered, against Kubernetes' schemas, and against docker-compose.yml.

What custom resources and charts take is not known here; README.md there says what was rendered and compared by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path

import pytest
import yaml

from btc_core.names import TOPICS
from btc_core.service_settings import KafkaSettings
from btc_core.settings import load_settings
from stack.layout import Layout
from stack.servers import programs
from tests.certificates import Authority
from tests.containers import BASES, KNOWN_SETTINGS, SERVICES, interpolated, version, without_location
from tests.kubernetes import (
    FOLDER,
    JOBS,
    PEERS,
    SETTINGS,
    WORKLOADS,
    allowed,
    container,
    environment,
    kafka,
    listens,
    pod,
    rendered,
    runs,
    secrets,
    selects,
    values,
    workload,
)
from tests.paths import ROOT

EVERY_WORKLOAD = pytest.mark.parametrize("name", WORKLOADS)
SERVERS = {"kafka-kafka-bootstrap": "kafka", "dagster-web": "dagster-web"}
"""Names of services here that are others in compose."""
SEVERAL = ("bronze", "features", "forecast")
"""The workers that there may be several of."""
MANAGED = dict(re.findall(r"^#([A-Z]\w+)=(.*)$", (FOLDER / "settings.env").read_text(), re.MULTILINE))
"""The settings of managed services, which a person uncomments."""
MANAGED_SECRETS = {"BTC_KAFKA_USER": "client", "BTC_KAFKA_PASSWORD": "word", "BTC_KAFKA_KEY_PASSWORD": "key-word",
                   "BTC_REDIS_USER": "client", "BTC_REDIS_SENTINEL_PASSWORD": "word", "BTC_QUESTDB_TOKEN": "token",
                   "BTC_API_ADMIN_TOKENS": f"deploy={'a' * 20}", "BTC_API_READ_TOKENS": f"alerts={'r' * 20}"}  # fmt: skip
"""Lines that a person adds to the env file for managed services, and for further tokens of the API."""
TLS_FOLDER = "/etc/btc/tls"

RELEASE = "1.35"
"""The version of Kubernetes whose schemas are used."""

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the manifests")


def test_every_manifest_is_valid_by_the_schemas_of_kubernetes() -> None:
    import kubernetes_validate

    assert len(WORKLOADS) == len({name for kind, name in rendered() if runs(kind)})
    assert all(workload(name) for name in WORKLOADS)
    for manifest in rendered().values():
        assert manifest["metadata"]["namespace"] == "btc"
        kubernetes_validate.validate(manifest, RELEASE, strict=True)
    charts_and_operators = {FOLDER / "kafka.yaml", FOLDER / "managed-network.yaml", *(FOLDER / "values").iterdir()}
    for file in set(FOLDER.rglob("*.yaml")) - charts_and_operators:
        listed = yaml.safe_load((file.parent / "kustomization.yaml").read_text())
        used = {*listed["resources"], *(each["path"] for each in listed.get("patches", ())), "kustomization.yaml"}
        assert file.name in used, file


@EVERY_WORKLOAD
def test_a_container_is_the_one_of_compose(name: str) -> None:
    service, here = SERVICES[name], container(name)
    assert here["image"] == service["image"]
    assert here["image"].endswith(f":{version()}")
    assert [re.sub(r"\$\((\w+)\)", lambda found: SETTINGS[found[1]] or "", word) for word in here["args"]] == [
        interpolated(word, {}) for word in service["command"]
    ]
    assert "command" not in here
    assert here["resources"]["limits"]["memory"] == service["mem_limit"].replace("m", "Mi").replace("g", "Gi")
    assert here["resources"]["requests"].keys() == {"cpu", "memory"}
    given = service["environment"]
    for key, value in environment(name).items():
        if key in given and "://" not in value + given[key] and "$" not in value + given[key] and ":" not in value:
            assert value == given[key], key


@EVERY_WORKLOAD
def test_a_pod_is_nobody_can_write_where_compose_can_and_has_no_token_of_the_cluster(name: str) -> None:
    spec, here = pod(name)["spec"], container(name)
    user = spec["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == SERVICES[name]["user"]
    assert user["runAsNonRoot"]
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert here["securityContext"]["allowPrivilegeEscalation"] is False
    assert here["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert here["securityContext"].get("readOnlyRootFilesystem", False) == SERVICES[name].get("read_only", False)
    assert spec["automountServiceAccountToken"] is False
    mounts = {each["mountPath"] for each in here.get("volumeMounts", ())}
    for volume in SERVICES[name].get("volumes", ()):
        assert volume.split(":")[1] in mounts
    assert set(SERVICES[name].get("tmpfs", ())) <= mounts


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name not in JOBS])
def test_a_probe_asks_what_the_health_check_of_compose_asks(name: str) -> None:
    here = container(name)
    (port,) = here["ports"]
    program, _host, asked_port, path = SERVICES[name]["healthcheck"]["test"][1:]
    assert program == "answers"
    assert port["containerPort"] == int(asked_port)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert here[probe]["httpGet"] == {"path": path, "port": port["name"]}
    (service,) = (each["spec"] for (kind, it), each in rendered().items() if (kind, it) == ("Service", name))
    assert service["ports"][0]["port"] == port["containerPort"]
    assert service["selector"].items() <= pod(name)["metadata"]["labels"].items()


@EVERY_WORKLOAD
def test_variables_are_settings_and_secrets_are_what_init_writes(name: str) -> None:
    file = _made_secrets()
    for variable, (secret, key) in secrets(name).items():
        assert key in file[secret], (variable, secret, key)
        if variable.startswith("BTC_"):
            assert variable == key
    for variable, (secret, key) in secrets(name, optional=True).items():
        assert (variable, secret) == (key, "btc")
        assert key in _made_secrets(*MANAGED_SECRETS.items())["btc"]
    given = {variable for variable in (*environment(name), *secrets(name)) if variable.startswith("BTC_")}
    assert given <= KNOWN_SETTINGS
    only_here = {"BTC_EXCHANGE_SYMBOLS", "BTC_KAFKA_PARTITIONS", "BTC_METRICS_HOST"}
    assert given - only_here <= SERVICES["dagster-code"]["environment"].keys() | SERVICES[name]["environment"].keys()


def test_addresses_name_services_and_the_ports_they_listen_on() -> None:
    text = "\n".join(f"{key}={value}" for key, value in SETTINGS.items())
    text += str([container(name)["env"] for name in WORKLOADS]) + str(values("grafana")["env"])
    text = text.replace(
        "$(BTC_POSTGRES_HOST):$(BTC_POSTGRES_PORT)", f"{SETTINGS['BTC_POSTGRES_HOST']}:{SETTINGS['BTC_POSTGRES_PORT']}"
    )
    found = re.findall(r"(?:://|@|=)([a-z][a-z-]+):(\d+)", text)
    assert {host for host, _ in found} >= {"kafka-kafka-bootstrap", "questdb", "redis", "mlflow", "postgres"}
    for host, port in found:
        assert int(port) in listens()[host], host


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "mlflow"])
def test_every_process_accepts_the_settings_of_managed_services(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Authority(tmp_path).certificate("client")
    files = {"crt": pair.cert, "key": pair.key, "pem": tmp_path / "ca.pem"}
    given = environment(name) | MANAGED | {"BTC_REDIS_URL": "rediss://redis", "BTC_QUESTDB_HTTP_URL": "https://questdb"}
    given |= {"BTC_STORE_ENDPOINT_URL": "https://store"} | dict.fromkeys(secrets(name), "word")
    given |= {variable: MANAGED_SECRETS[variable] for variable in secrets(name, optional=True)}
    for variable, value in given.items():
        inside = value.startswith(TLS_FOLDER)
        monkeypatch.setenv(variable, str(files[value.rpartition(".")[2]]) if inside else value)
    settings = load_settings()
    assert (settings.kafka.mechanism, settings.kafka.user) == ("OAUTHBEARER", "client")
    assert (settings.kafka.replication, settings.kafka.min_insync) == (3, 2)
    if "BTC_REDIS_PASSWORD" in given:
        assert settings.redis.user == "client"
    if "BTC_QUESTDB_PASSWORD" in given:
        assert settings.questdb.token.get_secret_value() == "token"


@EVERY_WORKLOAD
def test_every_pod_has_the_certificates_of_managed_services(name: str) -> None:
    (volume,) = (each for each in pod(name)["spec"]["volumes"] if each["name"] == "tls")
    assert volume["secret"] == {"secretName": "tls", "optional": True}
    (mount,) = (each for each in container(name)["volumeMounts"] if each["name"] == "tls")
    assert mount == {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}


def test_mlflow_and_dagster_get_the_encryption_of_managed_services_in_their_own_variables() -> None:
    own = {name for name in MANAGED if not name.startswith("BTC_")}
    assert own == {"AWS_CA_BUNDLE", "MLFLOW_S3_UPLOAD_EXTRA_ARGS", "PGSSLMODE", "PGSSLROOTCERT"}
    found = {each["name"]: each.get("valueFrom", {}).get("configMapKeyRef", {}) for each in container("mlflow")["env"]}
    for name in own:
        assert found[name] == {"name": "btc", "key": name, "optional": True}
    assert MANAGED["PGSSLMODE"] == MANAGED["BTC_POSTGRES_SSLMODE"]
    assert MANAGED["PGSSLROOTCERT"] == MANAGED["BTC_POSTGRES_CA_FILE"]
    assert MANAGED["AWS_CA_BUNDLE"] == MANAGED["BTC_STORE_CA_FILE"]
    chart = values("dagster")
    (code,) = chart["dagster-user-deployments"]["deployments"]
    named_tokens = {"BTC_API_ADMIN_TOKENS", "BTC_API_READ_TOKENS"}  # for people and other programs
    assert set(MANAGED_SECRETS) - named_tokens <= {each["name"] for each in code["env"]}
    for part in (chart["dagsterWebserver"], chart["dagsterDaemon"], code):
        assert {"name": "btc"} in part["envConfigMaps"]
        assert {"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True} in part["volumeMounts"]
        assert {"name": "tls", "secret": {"secretName": "tls", "optional": True}} in part["volumes"]


def test_the_policy_for_managed_services_is_valid_and_says_where_it_is_added() -> None:
    import kubernetes_validate

    (policy,) = yaml.safe_load_all((FOLDER / "managed-network.yaml").read_text())
    kubernetes_validate.validate(policy, RELEASE, strict=True)
    assert "managed-network.yaml" in (FOLDER / "README.md").read_text()


@cache
def _made_secrets(*more: tuple[str, str]) -> dict[str, set[str]]:
    """Keys by secret that inputs.sh makes of the env file of `btc init` with `more` lines; asks no cluster."""
    with tempfile.TemporaryDirectory() as folder:
        env_file = Path(folder) / "stack" / "stack.env"
        Layout(env_file.parent).create("live")
        with env_file.open("a") as file:
            file.writelines(f"{key}={value}\n" for key, value in more)
        command = [FOLDER / "inputs.sh", env_file, "--dry-run=client", "--output=yaml"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "KUBECONFIG": ""}
        )
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(re.sub(r"^apiVersion:", "---\napiVersion:", done.stdout, flags=re.MULTILINE)))
    return {each["metadata"]["name"]: set(each["data"]) for each in objects if each}


def test_charts_find_the_secrets_and_files_they_name() -> None:
    made = _made_secrets()
    users = {f"QDB_{kind}_{part}" for kind in ("HTTP", "PG", "PG_READONLY") for part in ("USER", "PASSWORD")}
    assert users | {"QDB_PG_READONLY_USER_ENABLED"} == made["questdb"]
    assert "default" in made[values("redis")["auth"]["usersExistingSecret"]]
    assert {"admin-user", "admin-password"} == made[values("grafana")["admin"]["existingSecret"]]
    assert "postgresql-password" in made[values("dagster")["global"]["postgresqlSecretName"]]
    settings = values("postgres")["settings"]
    assert {settings[each]["secretKey"] for each in ("superuser", "superuserPassword")} <= made[
        settings["existingSecret"]
    ]
    for chart in ("grafana", "prometheus"):
        chosen = values(chart)
        for mount in (chosen.get("server") or chosen)["extraConfigmapMounts"]:
            assert made[mount["configMap"]], mount
    named = re.findall(r"secretKeyRef: \{ name: (\S+), key: ([^\s,]+) \}", _all_values())
    assert named
    assert all(key in made[secret] for secret, key in named)


def _all_values() -> str:
    return "\n".join(file.read_text() for file in sorted((FOLDER / "values").glob("*.yaml")))


def test_servers_are_of_the_versions_of_compose() -> None:
    servers = {"prometheus": BASES["prometheus"], "grafana": BASES["grafana"]}
    for chart in ("questdb", "redis", "prometheus", "grafana"):
        image = values(chart).get("image") or values(chart)["server"]["image"]
        assert servers.get(chart, SERVICES[chart]["image"]).endswith(f":{image['tag']}"), chart
    assert SERVICES["postgres"]["image"] == f"postgres:{values('postgres')['image']['tag']}-alpine"
    assert SERVICES["kafka"]["image"].endswith(f":{kafka()[1]['spec']['kafka']['version']}")
    readme = (FOLDER / "README.md").read_text()
    for file in sorted((FOLDER / "values").glob("*.yaml")):
        chart, number = re.findall(r"^# Chart (\S+) (\d\S+)", file.read_text())[0]
        assert re.search(
            rf"helm install {file.stem} \S*{chart}\b.* --version {re.escape(number)} .*{file.name}", readme
        )


def test_the_topics_have_the_partitions_of_the_settings_and_fit_on_the_disk() -> None:
    partitions = int(SETTINGS["BTC_KAFKA_PARTITIONS"] or 0)
    topics = {each["metadata"]["name"]: each["spec"] for each in kafka() if each["kind"] == "KafkaTopic"}
    assert topics.keys() == set(TOPICS)
    for spec in topics.values():
        assert spec["partitions"] == partitions
        assert spec["config"]["retention.ms"] == KafkaSettings().retention_hours * 3_600_000
    of_a_broker = sum(
        spec["partitions"] * (spec["config"]["retention.bytes"] + spec["config"]["segment.bytes"])
        for spec in topics.values()
    )
    (disk,) = kafka()[0]["spec"]["storage"]["volumes"]
    assert of_a_broker < 0.85 * int(disk["size"].removesuffix("Gi")) * 2**30


def test_applying_the_manifests_again_keeps_the_number_of_processes_that_a_person_chose() -> None:
    assert not any("replicas" in workload(name)["spec"] for name in SEVERAL)


@pytest.mark.parametrize("name", programs.WORKERS)
def test_a_worker_is_the_member_of_its_group_that_its_pod_counts(name: str) -> None:
    spec = rendered()["StatefulSet", name]["spec"]
    (instance,) = (each for each in container(name)["env"] if each["name"] == "BTC_STREAM_INSTANCE")
    assert instance["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}
    assert spec["ordinals"] == {"start": 1}, "BTC_STREAM_INSTANCE counts from 1"
    (claim,) = spec["volumeClaimTemplates"]
    (mount,) = (
        each["mountPath"] for each in container(name)["volumeMounts"] if each["name"] == claim["metadata"]["name"]
    )
    assert (SETTINGS["BTC_STREAM_STATE_DIR"] or "").startswith(f"{mount}/")


def test_what_there_may_be_several_of_leaves_one_at_a_time() -> None:
    budgets = [each["spec"] for (kind, _), each in rendered().items() if kind == "PodDisruptionBudget"]
    guarded = {name for name in WORKLOADS for b in budgets if selects(b["selector"], pod(name)["metadata"]["labels"])}
    assert guarded == {*SEVERAL, "api"}


NEEDS = {
    "ingest": {"kafka-kafka-bootstrap"}, "repair": {"kafka-kafka-bootstrap"},
    "bronze": {"kafka-kafka-bootstrap", "questdb"}, "features": {"kafka-kafka-bootstrap", "questdb", "redis"},
    "forecast": {"kafka-kafka-bootstrap", "questdb", "redis", "mlflow"},
    "league": {"kafka-kafka-bootstrap", "questdb", "redis", "mlflow"},
    "api": {"questdb", "redis", "mlflow", "dagster-web", "dagster-code", "kafka-kafka-bootstrap", "postgres", *programs.WORKERS, "league", "alerts"},
    "mlflow": {"postgres"},
    "prepare": {"kafka-kafka-bootstrap", "questdb", "postgres"}, "first-training": {"mlflow", "dagster-web"}, "alerts": {"api"},
}  # fmt: skip
"""Services that each talks to; `after` of the native components and what their settings name. The API reads metrics and asks servers."""


@EVERY_WORKLOAD
def test_a_pod_reaches_what_it_needs_and_nothing_else_of_the_namespace(name: str) -> None:
    labels = pod(name)["metadata"]["labels"]
    peers = PEERS | {each: pod(each)["metadata"]["labels"] for each in WORKLOADS if each not in JOBS}
    reached = set()
    for service, theirs in peers.items():
        ports = listens()[service]
        out = allowed("Egress", labels, theirs) & ports
        into = allowed("Ingress", theirs, labels) & ports
        if service == "kafka-kafka-bootstrap":  # Strimzi makes the policy of the brokers
            (listener,) = kafka()[1]["spec"]["kafka"]["listeners"]
            chosen = [each["podSelector"] for each in listener["networkPolicyPeers"] if "podSelector" in each]
            into = {listener["port"]} if any(selects(each, labels) for each in chosen) else set()
        if out:
            assert out <= into, f"{name} may reach out to {service} that does not let it in"
            reached.add(service)
    assert reached == NEEDS[name]


def test_prometheus_reaches_every_process_that_it_scrapes() -> None:
    (job,) = values("prometheus")["serverFiles"]["prometheus.yml"]["scrape_configs"]
    rules = job["relabel_configs"]
    kept, dropped = (next(each["regex"] for each in rules if each.get("action") == word) for word in ("keep", "drop"))
    scraped = [
        (name, port["containerPort"])
        for name in WORKLOADS
        for port in container(name).get("ports", ())
        if re.fullmatch(kept, f"btc-forecast;{port['name']}") and not re.fullmatch(dropped, name)
    ]
    assert {name for name, _ in scraped} == {*programs.WORKERS, "league", "api", "alerts"}
    for name, number in scraped:
        labels = pod(name)["metadata"]["labels"]
        assert number in allowed("Ingress", labels, {"app.kubernetes.io/name": "prometheus"}), name


def test_the_api_judges_the_alerts_of_every_worker_as_in_compose() -> None:
    given = environment("api")
    for variable in ("BTC_METRICS_PEERS", "BTC_METRICS_SERVERS"):
        assert given[variable] == SERVICES["api"]["environment"][variable]
    peers = dict(each.split("=") for each in given["BTC_METRICS_PEERS"].split(","))
    assert peers.keys() == {*programs.WORKERS, "league", "alerts"}
    for name in peers:
        service = rendered()["Service", name]["spec"]
        assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True), "one address for each pod"


def test_names_are_resolved_by_the_cluster_and_by_the_cache_of_a_node() -> None:
    spec = rendered()["NetworkPolicy", "ours-reach-nothing-else"]["spec"]
    assert all(selects(spec["podSelector"], pod(name)["metadata"]["labels"]) for name in WORKLOADS)
    dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    system = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    assert {"to": [system], "ports": dns} in spec["egress"]
    assert {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": dns} in spec["egress"]  # NodeLocal DNSCache


def test_the_api_sees_the_models_that_a_league_must_run() -> None:
    folder = f"{environment('api')['BTC_USER_DIR']}/models"
    mounts = {each["mountPath"]: each["name"] for each in container("api")["volumeMounts"]}
    sources = {each["name"]: each.get("configMap") for each in pod("api")["spec"]["volumes"]}
    assert sources[mounts[folder]] == {"name": "league-models", "optional": True}
    assert f"./var/compose/user/models:{folder}:ro" in SERVICES["api"]["volumes"]


def test_everything_is_denied_that_no_policy_allows() -> None:
    denies = [each["spec"] for (kind, _), each in rendered().items() if kind == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress"]} in denies
    for name in WORKLOADS:
        labels = pod(name)["metadata"]["labels"]
        assert any("Egress" in spec["policyTypes"] and selects(spec["podSelector"], labels) for spec in denies)


def test_dagster_in_the_cluster_is_dagster_in_compose() -> None:
    chart = values("dagster")
    (code,) = chart["dagster-user-deployments"]["deployments"]
    given = ["dagster", "api", "grpc", *code["dagsterApiGrpcArgs"]]
    assert without_location(["", *given]) == without_location(SERVICES["dagster-code"]["command"])[1:]
    assert f"{code['image']['repository']}:{code['image']['tag']}" == SERVICES["dagster-code"]["image"]
    workspace = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())["load_from"][0]["grpc_server"]
    (server,) = chart["dagsterWebserver"]["workspace"]["servers"]
    assert server == {"host": code["name"], "port": code["port"], "name": workspace["location_name"]}
    variables = {each["name"] for each in code["env"]}
    in_compose = {key: str(value) for key, value in SERVICES["dagster-code"]["environment"].items()}
    # One with the default of the code is a line that a person may add to settings.env, which the code server gets whole.
    optional = {key for key, value in in_compose.items() if value.startswith(f"${{{key}:-") and key not in variables}
    assert "BTC_QUESTDB_TTL_GOLD_DAYS" in optional
    assert {"name": "btc"} in code["envConfigMaps"]
    assert in_compose.keys() - SETTINGS.keys() - MANAGED.keys() - variables - optional == {
        "BTC_STREAM_INSTANCE", "BTC_POSTGRES_USER", "BTC_POSTGRES_PASSWORD",  # the chart gives the latter its own way
    }  # fmt: skip
    same = yaml.safe_load((ROOT / "stack" / "servers" / "dagster.yaml").read_text())
    queue = chart["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["tagConcurrencyLimits"] == same["concurrency"]["runs"]["tag_concurrency_limits"]
    assert queue["dequeueIntervalSeconds"] == same["run_queue"]["dequeue_interval_seconds"]
    logs = yaml.safe_load((ROOT / "deploy" / "dagster.containers.yaml").read_text())["compute_logs"]
    told = chart["computeLogManager"]
    assert told["type"] == logs["class"]
    assert {_snake(key): value for key, value in told["config"]["s3ComputeLogManager"].items()} == logs["config"]
    assert f"# Chart dagster {installed('dagster')} " in (FOLDER / "values" / "dagster.yaml").read_text()


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def test_alerts_of_the_user_are_a_config_map_that_also_sets_their_variable(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    (tmp_path / "alerts.toml").write_text('[[alert]]\nname = "Mine"\nquality = "poor"\n')
    (command,) = re.findall(r"^(kubectl create configmap .*alert-rules.*)$", page, re.MULTILINE)
    words = [*command.replace("/home/me", str(tmp_path)).split(), "--dry-run=client", "--output=yaml"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "KUBECONFIG": ""})
    assert done.returncode == 0, done.stderr
    data = yaml.safe_load(done.stdout)["data"]
    folder, _, file = data["BTC_ALERT_RULES"].rpartition("/")
    assert file in data
    assert f"COMPOSE_ALERT_RULES={folder}/{file}" in page
    (variable,) = (each for each in container("api")["env"] if each["name"] == "BTC_ALERT_RULES")
    assert variable["valueFrom"] == {
        "configMapKeyRef": {"name": "alert-rules", "key": "BTC_ALERT_RULES", "optional": True}
    }
    (volume,) = (each for each in pod("api")["spec"]["volumes"] if each["name"] == "alert-rules")
    assert volume["configMap"] == {"name": "alert-rules", "optional": True}
    assert {"name": "alert-rules", "mountPath": folder, "readOnly": True} in container("api")["volumeMounts"]
