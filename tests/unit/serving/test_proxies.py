"""The API behind a proxy: its base path, and whose `X-Forwarded-…` headers are believed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from btc_core.api_settings import ApiSettings
from btc_core.errors import ConfigError
from btc_core.settings import load_settings
from tests.serving_world import build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.test import TestResponse

    from tests.serving_world import World

SENT = {
    "X-Forwarded-For": "203.0.113.9, 198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "forecasts.example",
    "X-Forwarded-Prefix": "/btc",
}


def ask(world: World, path: str, address: str = "127.0.0.1", headers: Mapping[str, str] = SENT) -> TestResponse:
    return world.client.get(path, headers=headers, environ_base={"REMOTE_ADDR": address})


@pytest.mark.parametrize("page", ["/live", "/ops", "/docs"])
def test_every_link_of_a_page_stays_under_the_path_of_the_proxy(page: str) -> None:
    address = f"https://forecasts.example/btc{page}"
    text = build().client.get(page).text
    links = [urljoin(address, link) for link in re.findall(r'(?:src|href)="([^"]+)"', text)]
    assert len(links) >= 3
    for link in links:
        assert link.startswith(("https://forecasts.example/btc/", "https://www.tradingview.com/")), link


def test_the_start_page_and_the_document_have_the_path_of_the_proxy() -> None:
    world = build(trusted_proxies=("127.0.0.1",))
    assert ask(world, "/").headers["Location"] == "/btc/live"
    assert ask(world, "/openapi.json").get_json()["servers"] == [{"url": "/btc"}]
    assert "curl -s https://forecasts.example/btc/v1/forecast" in ask(world, "/docs").text
    assert ask(world, "/openapi.json", headers={}).get_json()["servers"] == [{"url": "/"}]


@pytest.mark.parametrize(
    ("trusted", "counts"), [("127.0.0.1", True), ("10.0.0.0/8,127.0.0.0/8", True), ("", False), ("10.1.2.3", False)]
)
def test_only_a_trusted_proxy_says_who_asks_and_where(trusted: str, *, counts: bool) -> None:
    settings = ApiSettings.model_validate({"trusted_proxies": trusted})
    world = build(rate_limit_per_s=1, trusted_proxies=settings.trusted_proxies)
    assert ask(world, "/").headers["Location"] == ("/btc/live" if counts else "/live")
    # The limit is for each client: the next request of the same proxy is for another one.
    other = SENT | {"X-Forwarded-For": "203.0.113.9, 198.51.100.8"}
    assert ask(world, "/test", headers=other).status_code == (200 if counts else 429)
    assert ask(world, "/test", headers=other).status_code == 429


def test_a_prefix_that_would_lead_elsewhere_does_not_count() -> None:
    world = build(trusted_proxies=("127.0.0.1",))
    for prefix, location in {
        "//elsewhere.example": "/live", "https://elsewhere.example": "/live", "/btc/": "/btc/live", "/": "/live"
    }.items():  # fmt: skip
        assert ask(world, "/", headers={"X-Forwarded-Prefix": prefix}).headers["Location"] == location


def test_a_setting_that_cannot_be_meant_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_API_BASE_PATH", "/btc/forecasts/")
    monkeypatch.setenv("BTC_API_TRUSTED_PROXIES", "127.0.0.1, fd00::/8")
    read = load_settings().api
    assert (read.base_path, read.trusted_proxies) == ("/btc/forecasts", ("127.0.0.1", "fd00::/8"))
    for variable, bad in (("BASE_PATH", "btc"), ("BASE_PATH", "//x"), ("TRUSTED_PROXIES", "proxy.example"), ("TRUSTED_PROXIES", "10.0.0.1/8")):  # fmt: skip
        monkeypatch.setenv(f"BTC_API_{variable}", bad)
        with pytest.raises(ConfigError, match=f"BTC_API_{variable}: .*{re.escape(bad)}"):
            load_settings()
        monkeypatch.delenv(f"BTC_API_{variable}")


@pytest.mark.parametrize("path", ["/v1", "/live", "/static", "/v1/data"])
def test_a_base_path_that_hides_a_path_of_the_api_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=f"BTC_API_BASE_PATH is {path}, where the API has"):
        build(base_path=path)
    assert build(base_path="/v").client.get("/healthz").status_code == 200
