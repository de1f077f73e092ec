"""Kafka: the log, one node in KRaft mode.

It binds loopback only and has neither encryption nor passwords: whoever has an account on this machine can reach it.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from btc_core.errors import StackError
from stack.component import Component, Context
from stack.jars import jars
from stack.java import flags, java
from stack.ports import HOST

if TYPE_CHECKING:
    from pathlib import Path

HEAP_MB = 384
"""Kafka serves from the page cache; the heap holds requests in flight. 180 MB are used under our load."""
NODE_ID = 1
CLUSTER_ID = "YnRjLWZvcmVjYXN0LTAwMQ"
"""Any 16 bytes in base64; one node, so it tells nothing apart."""


def component(context: Context) -> Component:
    """Kafka as one supervised process."""
    settings = context.settings
    port = int(settings.kafka.bootstrap.rpartition(":")[2])
    controller_port = context.ports.kafka_controller
    path, version = java()
    home = context.dir("kafka")
    classpath = os.pathsep.join(str(jar) for jar in jars("kafka"))
    properties = home / "server.properties"

    def before() -> None:
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        properties.write_text(_properties(home, port, controller_port, settings.kafka.partitions))
        if not (home / "data" / "meta.properties").exists():
            _format(path, classpath, properties)

    def check() -> None:
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415 - slow import

        quiet: dict[str, str | int | float | bool] = {"bootstrap.servers": settings.kafka.bootstrap, "log_level": 0}
        AdminClient(quiet).list_topics(timeout=3)

    def prepared() -> None:
        from stack.prepare import topics  # noqa: PLC0415

        topics(settings)

    return Component(
        name="kafka",
        title="Kafka, the log",
        command=(
            str(path),
            "-Xms64m",
            f"-Xmx{HEAP_MB}m",
            *flags(version),
            f"-Djava.io.tmpdir={home / 'tmp'}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-cp",
            classpath,
            "kafka.Kafka",
            str(properties),
        ),
        ports=(port, controller_port),
        url=settings.kafka.bootstrap,
        check=check,
        before=before,
        prepared=prepared,
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
        # A topic exists because `ensure_topics` made it, never because somebody misspelled a name.
        "auto.create.topics.enable": "false",
        "num.partitions": partitions,
        # One node: nothing can be replicated, and waiting for more members of a group only delays each start.
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # The defaults of 50 partitions are for thousands of groups; each is a directory to open at the start.
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.num.partitions": 4,
        # Threads: two cores, three clients. The defaults are 3, 8 and 10.
        "num.network.threads": 2,
        "num.io.threads": 2,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        # On the heap, one buffer per cleaner thread; the default of 128 MB is a third of our heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # Retention deletes whole segments: smaller ones follow the setting more closely.
        "log.segment.bytes": 128 * 1024 * 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _format(java_path: Path, classpath: str, properties: Path) -> None:
    """Make the data directory once, as `kafka-storage.sh format` does."""
    done = subprocess.run(
        [
            java_path,
            "-XX:TieredStopAtLevel=1",
            "-cp",
            classpath,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            CLUSTER_ID,
            "-c",
            properties,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        msg = f"kafka: formatting its data directory failed:\n{(done.stdout + done.stderr)[-2_000:]}"
        raise StackError(msg)
