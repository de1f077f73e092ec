"""The TCP ports of a stack: their default numbers, other numbers, and which are free on this machine.

What does not belong here: which component binds a port (`stack/servers`), and where ports are kept (`stack/layout.py`).
"""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from btc_core.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"

DEFAULT_PORTS: Mapping[str, int] = {
    "questdb_http": 9000,
    "questdb_pg": 8812,
    "kafka": 9092,
    "redis": 6379,
    "store": 9010,
    "mlflow": 5000,
    "dagster": 3001,
    "api": 5050,
    "postgres": 5432,
    "exchange": 8765,
    "ingest_metrics": 9101,
    "bronze_metrics": 9102,
    "features_metrics": 9103,
    "forecast_metrics": 9104,
    "repair_metrics": 9105,
    "features_2_metrics": 9106,
    # Only the servers themselves use the following.
    "kafka_controller": 9093,
    "store_grpc": 9011,
    "store_master": 9012,
    "store_master_grpc": 9013,
    "store_volume": 9014,
    "store_volume_grpc": 9015,
    "store_filer": 9016,
    "store_filer_grpc": 9017,
    # The league, last, so that the other ports of `--ports-from N` are those of older versions.
    "league_metrics": 9107,
}
"""Every port of a stack and its default. `--ports-from N` gives N, N+1, ... in this order."""

LOWEST_PORT = 1_024
"""Lower ports need root."""
HIGHEST_PORT = 65_535


class InternalPorts(BaseModel):
    """Ports that no setting of the workers names; they are kept in `BTC_STACK_PORTS` of `stack.env`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exchange: int = DEFAULT_PORTS["exchange"]
    ingest_metrics: int = DEFAULT_PORTS["ingest_metrics"]
    bronze_metrics: int = DEFAULT_PORTS["bronze_metrics"]
    features_metrics: int = DEFAULT_PORTS["features_metrics"]
    forecast_metrics: int = DEFAULT_PORTS["forecast_metrics"]
    repair_metrics: int = DEFAULT_PORTS["repair_metrics"]
    features_2_metrics: int = DEFAULT_PORTS["features_2_metrics"]
    league_metrics: int = DEFAULT_PORTS["league_metrics"]
    kafka_controller: int = DEFAULT_PORTS["kafka_controller"]
    store_grpc: int = DEFAULT_PORTS["store_grpc"]
    store_master: int = DEFAULT_PORTS["store_master"]
    store_master_grpc: int = DEFAULT_PORTS["store_master_grpc"]
    store_volume: int = DEFAULT_PORTS["store_volume"]
    store_volume_grpc: int = DEFAULT_PORTS["store_volume_grpc"]
    store_filer: int = DEFAULT_PORTS["store_filer"]
    store_filer_grpc: int = DEFAULT_PORTS["store_filer_grpc"]


def ports_from(first: int) -> dict[str, int]:
    """Consecutive ports for every server, from `first` on.

    >>> ports_from(20_000)["kafka"]
    20002
    """
    if not LOWEST_PORT <= first <= HIGHEST_PORT - len(DEFAULT_PORTS):
        msg = f"--ports-from must be between {LOWEST_PORT} and {HIGHEST_PORT - len(DEFAULT_PORTS)}, not {first}"
        raise StackError(msg)
    return {name: first + offset for offset, name in enumerate(DEFAULT_PORTS)}


def port_of(url: str) -> int:
    """The port in a URL; raises `StackError` when there is none.

    >>> port_of("http://127.0.0.1:9000")
    9000
    """
    port = urlsplit(url).port
    if port is None:
        msg = f"{url} has no port; the native stack needs one, as in http://127.0.0.1:9000"
        raise StackError(msg)
    return port


def free_ports() -> dict[str, int]:
    """Consecutive ports for a whole stack that are free now: for tests, and for a second stack beside the first."""
    for _ in range(100):
        # Below the range from which Linux takes the ports of outgoing connections.
        ports = ports_from(random.randrange(10_000, 32_000))  # noqa: S311 - a port is no secret
        if all(is_free(port) for port in ports.values()):
            return ports
    msg = f"no {len(ports)} consecutive free ports were found between 10000 and 32000"
    raise StackError(msg)


def is_free(port: int) -> bool:
    """Whether a server could bind this port on loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this option too; without it the port of a connection that was just closed is refused.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
