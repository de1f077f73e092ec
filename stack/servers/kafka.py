"""Kafka: the log, one node in KRaft mode.

It binds loopback only and has neither encryption nor passwords: every account on this machine can reach it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient

from stack.component import Component, Context
from stack.jars import jars
from stack.java import java, java_command
from stack.ports import HOST
from stack.prepare import topics
from stack.setup_command import run_setup

if TYPE_CHECKING:
    from pathlib import Path

HEAP_MB = 384
"""Kafka serves from the page cache; the heap holds requests in flight, 180 MB under our load."""
NODE_ID = 1
CLUSTER_ID = "YnRjLWZvcmVjYXN0LTAwMQ"
"""Any 16 bytes in base64; with one node it distinguishes nothing."""


def component(context: Context) -> Component:
    """Kafka as one supervised process."""
    settings = context.settings
    port = int(settings.kafka.bootstrap.rpartition(":")[2])
    controller_port = context.ports.kafka_controller
    home = context.server_dir("kafka")
    classpath = os.pathsep.join(str(jar) for jar in jars("kafka"))
    properties = home / "server.properties"

    def before_start() -> None:
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        properties.write_text(_properties(home, port, controller_port, settings.kafka.partitions))
        if not (home / "data" / "meta.properties").exists():
            _format(classpath, properties)

    def check() -> None:
        quiet: dict[str, str | int | float | bool] = {"bootstrap.servers": settings.kafka.bootstrap, "log_level": 0}
        AdminClient(quiet).list_topics(timeout=3)

    return Component(
        name="kafka",
        title="Kafka, the log",
        command=(
            *java_command(HEAP_MB, home / "tmp"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            *("-cp", classpath),
            "kafka.Kafka",
            str(properties),
        ),
        ports=(port, controller_port),
        url=settings.kafka.bootstrap,
        check=check,
        before_start=before_start,
        when_healthy=lambda: topics(settings),
        stop_wait_s=20,
    )


def _properties(home: Path, port: int, controller_port: int, partitions: int) -> str:
    values = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": home / "data",
        # Only `ensure_topics` creates topics; a misspelled name must not.
        "auto.create.topics.enable": "false",
        "num.partitions": partitions,
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
        # One buffer per cleaner thread, on the heap; the default of 128 MB is a third of our heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # Retention deletes whole segments, so smaller segments follow the retention time more closely.
        "log.segment.bytes": 128 * 1024 * 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _format(classpath: str, properties: Path) -> None:
    """Create the data directory once, as `kafka-storage.sh format` does."""
    path, _version = java()
    tool = (str(path), "-XX:TieredStopAtLevel=1", "-cp", classpath, "kafka.tools.StorageTool")
    run_setup([*tool, "format", "-t", CLUSTER_ID, "-c", str(properties)], "kafka: formatting its data directory failed")
