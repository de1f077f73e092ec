"""Kafka: the log, one node in KRaft mode.

It binds loopback only and does not encrypt. The settings of a new stack have a password (`Layout.give_new_broker_a_password`), and
neither its port nor that of its controller accepts a client without it. Without one in the settings, as in stacks that are older,
every account on this machine can read and write the log.
"""

from __future__ import annotations

import os
import re
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING

from btc_core.errors import ServiceError, StackError
from btc_core.stores.disk import GB, free_bytes
from btc_core.stores.kafka_connection import admin_client
from stack.component import Component, Context
from stack.disk_guard import ROOM
from stack.files import write_secret
from stack.jars import jars
from stack.java import java_command
from stack.kafka_retention import retention_bytes
from stack.ports import HOST
from stack.prepare import topics
from stack.setup_command import run_setup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from btc_core.service_settings import KafkaSettings
    from btc_core.settings import DiskSettings
    from stack.layout import Durability

HEAP_MB = 384
"""Kafka serves from the page cache; the heap holds requests in flight, 180 MB under our load."""
TIMEOUT_S = 3.0
STOP_WAIT_S = 20
"""How long it may take to end in order, here and in a container."""
SIMPLE_PASSWORD = re.compile(r"[A-Za-z0-9_-]+")
NO_SECRETS: Mapping[str, str] = MappingProxyType({})
NODE_ID = 1
CLUSTER_ID = "YnRjLWZvcmVjYXN0LTAwMQ"
"""Any 16 bytes in base64; with one node it distinguishes nothing."""


def component(context: Context) -> Component:
    """Kafka as one supervised process."""
    settings = context.settings
    port = int(settings.kafka.bootstrap.rpartition(":")[2])
    controller_port = context.ports.kafka_controller
    home = context.server_dir("kafka")
    java = java_with_kafka(home)
    properties = home / "server.properties"

    def before_start() -> None:
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        second = context.second_secrets
        text = _properties(home, port, controller_port, settings.kafka, context.durability, second_secrets=second)
        write_secret(properties, text)
        if not (home / "data" / "meta.properties").exists():
            format_storage(java, properties)

    def check() -> None:
        try:
            with admin_client(settings.kafka, log_level=0) as client:
                client.list_topics(timeout=TIMEOUT_S)
        except ServiceError as error:
            raise ServiceError(_held_back(settings.disk) or str(error)) from error

    return Component(
        name="kafka",
        title="Kafka, the log",
        command=(
            *(sys.executable, "-m", "stack.disk_guard"),
            *("--path", str(home), "--stop-below", str(settings.disk.kafka_stops_below_bytes), "--"),
            *java,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "kafka.Kafka",
            str(properties),
        ),
        ports=(port, controller_port),
        url=settings.kafka.bootstrap,
        check=check,
        work_check=lambda: _check_partitions(home / "data"),
        before_start=before_start,
        when_healthy=lambda: topics(settings, retention_bytes(settings, home / "data")),
        stop_wait_s=STOP_WAIT_S,
        retry_s=10,  # with a full disk or a damaged log it ends after up to eight seconds
    )


def _held_back(disk: DiskSettings) -> str:
    """Why the disk guard does not let Kafka run; "" when it does."""
    free, bound = free_bytes(disk.path), disk.kafka_stops_below_bytes * ROOM
    if free >= bound:
        return ""
    return (
        f"Kafka is held back because only {free / GB:.2f} GB are free at {disk.path}: it starts by itself once "
        f"{bound / GB:.2f} GB are free"
    )


def _check_partitions(data: Path) -> None:
    """Raise `ServiceError` when Kafka has set partitions aside, because it no longer knows their topics."""
    stray = sorted(path.name.partition(".")[0] for path in data.glob("*-stray"))
    if stray:
        msg = (
            f"Kafka has set aside {len(stray)} partitions whose topics it has lost: their messages are no longer in the "
            f"log. They lie in {data}/*-stray. Sealed days and tables are not affected; the days since are sealed from "
            "what is left"
        )
        raise ServiceError(msg)


def _properties(  # noqa: PLR0913 - every part of the configuration is an argument
    home: Path,
    port: int,
    controller_port: int,
    kafka: KafkaSettings,
    durability: Durability,
    *,
    second_secrets: Mapping[str, str] = NO_SECRETS,
) -> str:
    protocol = "SASL_PLAINTEXT" if kafka.authenticated else "PLAINTEXT"
    values = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "listeners": f"{protocol}://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"{protocol}://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:{protocol}",
        "inter.broker.listener.name": protocol,
        "log.dirs": home / "data",
        "num.partitions": kafka.partitions,
        **_authentication(kafka, second_secrets),
        **broker_settings(durability),
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _authentication(kafka: KafkaSettings, second_secrets: Mapping[str, str]) -> dict[str, str]:
    """The users and passwords of the broker and of its controller; raises `StackError` for what it does not offer."""
    if kafka.security == "plaintext":
        return {}
    if (kafka.security, kafka.mechanism) != ("sasl_plaintext", "PLAIN"):
        msg = (
            "the broker of the native stack has no TLS, no SCRAM and no OAUTHBEARER: set BTC_KAFKA_SECURITY to plaintext, or to "
            "sasl_plaintext with BTC_KAFKA_MECHANISM=PLAIN. An external broker on this machine is named by localhost in "
            "BTC_KAFKA_BOOTSTRAP, and not by 127.0.0.1"
        )
        raise StackError(msg)
    password = kafka.password.get_secret_value()
    if not kafka.user.isalnum() or not SIMPLE_PASSWORD.fullmatch(password):
        msg = (
            "BTC_KAFKA_USER may have letters and digits only, and BTC_KAFKA_PASSWORD also - and _, because the broker's "
            "configuration does not quote other characters"
        )
        raise StackError(msg)
    users = {kafka.user: password}
    if "BTC_KAFKA_PASSWORD" in second_secrets:
        users.setdefault(second_secrets["BTC_KAFKA_USER"], second_secrets["BTC_KAFKA_PASSWORD"])
    known = " ".join(f'user_{user}="{each}"' for user, each in users.items())
    login = (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required username="{kafka.user}" '
        f'password="{password}" {known};'
    )
    return {
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": login,
        "listener.name.controller.plain.sasl.jaas.config": login,
    }


def broker_settings(durability: Durability) -> dict[str, str | int]:
    """The settings that a broker has everywhere, in a container too. docker-compose.yml is tested against them."""
    values: dict[str, str | int] = {
        # Only `ensure_topics` creates topics; a misspelled name must not.
        "auto.create.topics.enable": "false",
        # One node cannot replicate, and waiting for more members of a consumer group only delays each start.
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # The default of 50 partitions is for thousands of groups; each partition is a directory to open at the start.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.num.partitions": 4,
        # Enough threads for two cores and a few clients. The defaults of the first three are 3, 8 and 10.
        "num.network.threads": 2,
        "num.io.threads": 2,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        # One buffer per cleaner thread, on the heap; 4 MB hold 170,000 keys, and the default of 128 MB is a third of our heap.
        "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
        # An idle controller writes empty records to show other controllers that it is alive. This stack has only one, and the
        # default is two records a second.
        "metadata.max.idle.interval.ms": 10_000,
        # Topics have a limit in bytes (`ensure_topics`); with the default of five minutes they may exceed it by gigabytes.
        "log.retention.check.interval.ms": 30_000,
    }
    if durability == "fsync":
        values["log.flush.interval.messages"] = 1  # an append returns after its fsync, and only then is it acknowledged
    return values


def java_with_kafka(home: Path) -> tuple[str, ...]:
    """The start of a command that runs a class of Kafka, whose files are in `home`."""
    libraries = jars("kafka")
    return (*java_command(HEAP_MB, home / "tmp", libraries), "-cp", os.pathsep.join(map(str, libraries)))


def format_storage(java: tuple[str, ...], properties: Path) -> None:
    """Create the data directory once, as `kafka-storage.sh format` does."""
    tool = (*java, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool")
    run_setup([*tool, "format", "-t", CLUSTER_ID, "-c", str(properties)], "kafka: formatting its data directory failed")
