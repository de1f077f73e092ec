"""Three brokers on this machine, each of them a controller too, for tests of replication."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import ServiceError
from btc_core.service_settings import KafkaSettings
from btc_core.stores.kafka_connection import admin_client
from stack.servers import kafka as kafka_server
from tests.serving_process import free_port
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
NODES = (1, 2, 3)
REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # A broker that was killed has lost its partitions after this time, and not after the default of 9 s.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
}


def rack_of(node: int) -> str:
    """Each broker is in a rack of its own."""
    return f"rack-{node}"


class Cluster:
    """The brokers of one cluster, whose files are in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {node: free_port() for node in NODES}
        self._controller_ports = {node: free_port() for node in NODES}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.kafka = KafkaSettings(
            bootstrap=",".join(f"{HOST}:{port}" for port in self._ports.values()),
            partitions=2, replication=3, min_insync=2,
        )  # fmt: skip

    def start(self) -> None:
        """Start all brokers at the same time, and return when each of them is a member of the cluster."""
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(self._start, NODES))
        wait_for(lambda: self._has_registered() == set(NODES), f"three brokers; their logs are in {self._folder}")

    def kill(self, node: int) -> None:
        """End a broker as a loss of power does: it does not hand over its partitions."""
        process = self._running.pop(node)
        process.kill()
        process.wait(30)

    def stop(self) -> None:
        """End all brokers."""
        for node in tuple(self._running):
            self.kill(node)

    def _start(self, node: int) -> None:
        home = self._folder / str(node)
        (home / "tmp").mkdir(parents=True)
        properties = home / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._values(node, home).items()))
        java = kafka_server.java_with_kafka(home)
        kafka_server.format_storage(java, properties)
        # Without the optimizing compiler, a broker that runs for seconds takes less of the processor.
        command = [*java, "-XX:TieredStopAtLevel=1", "kafka.Kafka", str(properties)]
        with (home / "log").open("wb") as log:
            self._running[node] = subprocess.Popen(command, stdout=log, stderr=log)

    def _values(self, node: int, home: Path) -> dict[str, str]:
        """The configuration of the native broker, with two more nodes."""
        text = kafka_server._properties(
            home, self._ports[node], self._controller_ports[node], KafkaSettings(), "page-cache"
        )
        voters = ",".join(f"{each}@{HOST}:{port}" for each, port in self._controller_ports.items())
        values = dict(line.split("=", 1) for line in text.splitlines())
        own = {"node.id": str(node), "broker.rack": rack_of(node), "controller.quorum.voters": voters}
        return values | REPLICATED | own

    def _has_registered(self) -> set[int]:
        assert all(process.poll() is None for process in self._running.values()), "a broker has exited"
        try:
            with admin_client(self.kafka, log_level=0) as admin:
                return set(admin.list_topics(timeout=5).brokers)
        except ServiceError:
            return set()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Three brokers for the length of a block."""
    folder = Path(tempfile.mkdtemp(prefix="btc-test-"))
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
