"""The API behind nginx and Caddy, with the configurations of docs/how-to/behind-a-proxy.md and the real process.

Both proxies encrypt and serve the API under `/btc`. The test's client has the address 127.0.0.2, so that it differs from the proxy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import expect

from docs.generate.pictures import CHROMIUM, NO_CHROMIUM
from tests.browser_pages import FIRST_NUMBERS_MS, PATIENCE_MS
from tests.certificates import Authority
from tests.paths import ROOT
from tests.serving_process import TOKEN, Api, free_port, running, write_champions, write_features, write_forecast
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from btc_core.settings import Settings
    from tests.certificates import Certificate

pytestmark = pytest.mark.service

PAGE = (ROOT / "docs/how-to/behind-a-proxy.md").read_text()
READ_TOKEN = "read-token-of-tests"
CLIENT = "127.0.0.2"
READS = {"Authorization": f"Bearer {READ_TOKEN}"}
NGINX_AROUND = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {server}
}}
"""
CADDY_AROUND = """
{{
  admin off
  auto_https disable_redirects
}}
{site}
"""


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("valkey")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxied")


@pytest.fixture(scope="module")
def api(settings: Settings, folder: Path) -> Iterator[Api]:
    write_champions(settings, folder / "models")
    write_forecast(settings)
    write_features(settings)
    with running(
        settings,
        folder,
        BTC_API_BASE_PATH="/btc",
        BTC_API_TRUSTED_PROXIES="127.0.0.1",
        BTC_API_READ_TOKENS=f"tests={READ_TOKEN}",
        BTC_API_AUDIT_LOG=str(folder / "audit.log"),
        BTC_API_MAX_FEATURE_AGE_S="3600",
    ) as started:
        yield started


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, api: Api, folder: Path, authority: Authority) -> Iterator[str]:
    """The address of a proxy before the API."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed (Debian: apt-get install {request.param})")
    port, certificate = free_port(), authority.certificate(request.param, "localhost")
    make = {"nginx": nginx_configuration, "caddy": caddy_configuration}[request.param]
    command = make(folder, port, api.port, certificate)
    with started(command, folder, f"https://localhost:{port}", authority) as address:
        yield address


def nginx_configuration(folder: Path, port: int, api_port: int, certificate: Certificate) -> list[str]:
    server = documented("nginx", {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/ssl/forecasts.example.pem": str(certificate.cert),
        "/etc/ssl/forecasts.example.key": str(certificate.key),
        "127.0.0.1:5050": f"127.0.0.1:{api_port}",
    })  # fmt: skip
    path = folder / "nginx.conf"
    path.write_text(NGINX_AROUND.format(folder=folder, server=server))
    return ["nginx", "-p", str(folder), "-c", str(path), "-e", "stderr"]


def caddy_configuration(folder: Path, port: int, api_port: int, certificate: Certificate) -> list[str]:
    site = documented("caddyfile", {
        "forecasts.example {": f"localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate.cert} {certificate.key}",
        "127.0.0.1:5050": f"127.0.0.1:{api_port}",
    })  # fmt: skip
    path = folder / "Caddyfile"
    path.write_text(CADDY_AROUND.format(site=site))
    return ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]


def documented(language: str, replaced: dict[str, str]) -> str:
    """The example of the page, with the addresses and files of this test."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for old, new in replaced.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return str(text)


@contextmanager
def started(command: list[str], folder: Path, address: str, authority: Authority) -> Iterator[str]:
    log = folder / f"{command[0]}.log"
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stderr=sink, stdout=sink, env=env)
    try:
        with client_of(address, authority) as client:
            wait_for(lambda: process.poll() is not None or answers(client), f"{command[0]} answers")
        assert process.poll() is None, log.read_text()
        yield address
    finally:
        process.terminate()
        process.wait(20)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/btc/healthz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def client_of(address: str, authority: Authority, **options: Any) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(authority.file))
    transport = httpx.HTTPTransport(verify=context, local_address=CLIENT)
    return httpx.Client(base_url=address, transport=transport, timeout=15, **options)


@pytest.fixture
def client(proxy: str, authority: Authority) -> Iterator[httpx.Client]:
    with client_of(proxy, authority, headers=READS) as client:
        yield client


def audited(folder: Path) -> dict[str, Any]:
    """The last entry of the audit log."""
    return dict(json.loads((folder / "audit.log").read_text().splitlines()[-1]))


def test_pages_documents_and_answers_are_under_the_path(client: httpx.Client) -> None:
    start = client.get("/btc/", follow_redirects=True)
    assert (start.status_code, start.url.path) == (200, "/btc/live")
    assert client.get("/btc", follow_redirects=True).url.path == "/btc/live"
    for page in ("/btc/live", "/btc/ops", "/btc/docs"):
        text = client.get(page).text
        for link in re.findall(r'(?:src|href)="([^":#]+)"', text):
            assert client.get(urljoin(page, link)).status_code in {200, 404, 503}, link
            assert urljoin(page, link).startswith("/btc/"), link
    assert client.get("/btc/openapi.json").json()["servers"] == [{"url": "/btc"}]
    assert f"curl -s {client.base_url.join('/btc/v1/forecast')}" in client.get("/btc/docs").text
    assert client.get("/btc/v1/forecast").json()["symbol"] == "BTC/USD"
    assert client.get("/btc/metrics").status_code == 404, "Prometheus asks the API itself"
    for path in ("/v1/forecast", "/btcx/v1/forecast"):
        assert "symbol" not in client.get(path).text, "the proxy passes on nothing beside the path"


def test_events_arrive_while_the_stream_is_open(client: httpx.Client) -> None:
    with client.stream("GET", "/btc/v1/stream") as response:
        assert next(line for line in response.iter_lines() if line.startswith("event:")) == "event: forecast"


def test_the_audit_log_has_the_client_and_not_the_proxy_whatever_the_client_says(
    client: httpx.Client, api: Api, folder: Path
) -> None:
    lies = {
        "X-Forwarded-For": "203.0.113.1",
        "X-Forwarded-Prefix": "/elsewhere",
        "X-Forwarded-Host": "elsewhere.example",
    }
    assert client.post("/btc/retrain", headers=lies).status_code == 403
    entry = audited(folder)
    assert {name: entry[name] for name in ("token", "client", "method", "path", "status")} == {
        "token": "tests", "client": CLIENT, "method": "POST", "path": "/retrain", "status": 403
    }  # fmt: skip
    assert client.post("/btc/retrain", headers=lies | {"Authorization": f"Bearer {TOKEN}"}).status_code == 502
    assert (audited(folder)["token"], audited(folder)["client"]) == ("default", CLIENT)
    assert client.get("/btc/", headers=lies).headers["Location"] == "/btc/live"
    assert "elsewhere" not in client.get("/btc/docs", headers=lies).text
    direct = httpx.HTTPTransport(local_address=CLIENT)
    with httpx.Client(base_url=f"http://127.0.0.1:{api.port}", transport=direct, headers=lies) as beside:
        assert beside.post("/retrain", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert (audited(folder)["client"], audited(folder)["status"]) == (CLIENT, 401)
        assert beside.get("/docs", headers=READS).text.count("elsewhere") == 0
    log = (folder / "audit.log").read_text() + api.log.read_text()
    assert READ_TOKEN not in log
    assert TOKEN not in log


def test_without_a_token_only_health_is_shown(proxy: str, authority: Authority) -> None:
    with client_of(proxy, authority) as client:
        assert client.get("/btc/healthz").status_code == 200
        refused = client.get("/btc/v1/forecast")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_a_browser_with_the_token_as_password_shows_live_numbers(proxy: str, browser: Browser) -> None:
    context = browser.new_context(
        ignore_https_errors=True, http_credentials={"username": "somebody", "password": READ_TOKEN}
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{proxy}/btc/live")
    expect(page.locator("#bid")).to_have_text("60,000.0", timeout=FIRST_NUMBERS_MS)
    page.get_by_role("link", name="Operations", exact=True).click()
    expect(page.locator("#process_table")).to_be_visible()
    assert page.url == f"{proxy}/btc/ops"
    context.close()
