"""The API with a certificate of its own: the real process, asked by real TLS clients and by every part of this system that asks it."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from btc_client import Client
from btc_core.api_settings import ApiSettings
from btc_core.errors import ServiceError
from btc_core.stores.api_connection import api_client
from serving.alerts import Alerts
from stack.health_checks import http_check
from tests.certificates import Authority
from tests.paths import ROOT
from tests.serving_process import Api, environment, free_port, running, write_features, write_forecast
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from tests.certificates import Certificate

pytestmark = pytest.mark.service

SLOW_READ_BYTES = 1_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encrypted")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def served(authority: Authority) -> Certificate:
    return authority.certificate("served", "forecasts.example")


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("valkey")


@pytest.fixture(scope="module")
def api(settings: Settings, folder: Path, authority: Authority, served: Certificate) -> Iterator[Api]:
    variables = {"BTC_API_CERT_FILE": str(served.cert), "BTC_API_KEY_FILE": str(served.key)}
    with running(settings, folder, authority.file, **variables) as started:
        yield started


def api_settings(api: Api, certificate: Certificate) -> ApiSettings:
    """The settings as the processes beside the API have them."""
    return ApiSettings(port=api.port, cert_file=str(certificate.cert), key_file=str(certificate.key))


def serial_number(api: Api, authority: Authority) -> str:
    """That of the certificate which the API shows now."""
    context = ssl.create_default_context(cafile=authority.file)
    with (
        socket.create_connection(("127.0.0.1", api.port)) as plain,
        context.wrap_socket(plain, server_hostname="forecasts.example") as client,
    ):
        shown = client.getpeercert()
    assert shown
    return str(shown["serialNumber"])


def test_a_client_that_trusts_the_authority_reads_forecasts_and_their_stream(
    api: Api, settings: Settings, authority: Authority
) -> None:
    write_features(settings)
    row = write_forecast(settings)
    with Client(api.url, ca_file=str(authority.file)) as client:
        assert [each.bid_usd for each in client.latest().horizons] == row.bid_path_usd
        events = client.events()
        for _ in range(3):
            assert next(events).name in {"forecast", "features", "health"}
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"{api.url}/healthz")


def test_large_answers_and_requests_arrive_whole_from_several_threads(api: Api) -> None:
    expected = api.client.get("/openapi.json").content
    assert len(expected) > 100_000

    def ask(number: int) -> bytes:
        if number % 4 == 0:
            refused = api.client.post("/predict_bid", content=b"x" * 900_000)
            assert refused.status_code == 400, refused.text
        with api.client.stream("GET", "/openapi.json", headers={"Accept-Encoding": "identity"}) as answer:
            return b"".join(answer.iter_bytes(SLOW_READ_BYTES))

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(64))) == {expected}


def test_every_part_that_asks_the_api_accepts_its_certificate_and_no_other_of_the_authority(
    api: Api, settings: Settings, authority: Authority, served: Certificate
) -> None:
    ours = api_settings(api, served)
    http_check(f"{ours.url}/healthz", "the API", client=lambda: api_client(ours))()
    alerts = Alerts(settings.model_copy(update={"api": ours}), [])
    assert "ProcessDown" not in alerts._ask(0.0)
    assert not alerts._is_away
    other = api_settings(api, authority.certificate("forecasts", "forecasts.example"))
    with pytest.raises(ServiceError, match="certificate verify failed"):
        http_check(f"{other.url}/healthz", "the API", client=lambda: api_client(other))()


def test_the_health_check_of_the_container_asks_an_encrypted_api(api: Api, served: Certificate) -> None:
    variables = {"BTC_API_CERT_FILE": str(served.cert), "BTC_API_PORT": str(api.port)}
    variables |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def status(port: int, path: str) -> int:
        command = [str(ROOT / "deploy" / "answers"), "127.0.0.1", str(port), path]
        return subprocess.run(command, check=False, timeout=30, env=variables | {"BTC_API_PORT": str(port)}).returncode

    assert status(api.port, "/healthz") == 0
    assert status(api.port, "/no-such-path") == 1
    assert status(free_port(), "/healthz") == 1


def test_a_client_that_does_not_encrypt_is_told_so(api: Api) -> None:
    answer = httpx.get(f"http://127.0.0.1:{api.port}/healthz")
    assert (answer.status_code, answer.text) == (
        400,
        "This port is encrypted: ask for https:// instead of http://\n",
    )


def test_a_renewed_certificate_is_used_without_a_restart_and_one_that_cannot_serve_is_not(
    api: Api, authority: Authority, served: Certificate
) -> None:
    first = serial_number(api, authority)
    renewed = authority.certificate("renewed", "forecasts.example")
    shutil.copy(renewed.key, served.key)
    wait_for(lambda: "the former certificate stays in use" in api.log.read_text(), "the key without its certificate")
    assert serial_number(api, authority) == first
    shutil.copy(renewed.cert, served.cert)
    wait_for(lambda: serial_number(api, authority) != first, "the renewed certificate")
    assert api_client(api_settings(api, served)).get(f"{api.url}/healthz").status_code == 200


def test_the_process_does_not_start_with_an_expired_certificate_and_says_why(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    old = authority.certificate("old", "forecasts.example", days_left=-0.5)
    variables = {"BTC_API_CERT_FILE": str(old.cert), "BTC_API_KEY_FILE": str(old.key)}
    ended = subprocess.run(
        [sys.executable, "-m", "serving"],
        env=environment(settings, free_port(), tmp_path, **variables),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 2
    assert f"clients refuse the certificate {old.cert} (BTC_API_CERT_FILE): certificate has expired" in ended.stderr
