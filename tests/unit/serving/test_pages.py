"""The pages, through Flask's test client with fakes for everything outside of the API."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

import pytest

from btc_core.exchange_settings import ExchangeSettings
from serving.alert_rules import RULES
from serving.page_files import ADDRESS, FILES, modules_of
from tests.serving_world import build, forecast_row

if TYPE_CHECKING:
    from tests.serving_world import World


@pytest.fixture
def world() -> World:
    return build()


@pytest.mark.parametrize("path", ["/live", "/ops", "/docs", "/runbook"])
def test_a_page_loads_only_its_own_files(world: World, path: str) -> None:
    response = world.client.get(path)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy
    loaded = re.findall(r'(?:src|href|data-library)="([^"#]+)"', response.text)
    own = [name for name in loaded if name.startswith("static/")]
    assert own
    for name in own:
        file = world.client.get(f"/{name}")
        assert (file.status_code, file.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable"), name
    for tag in re.findall(r"<(?:script|link|img)[^>]*>", response.text):
        assert "http" not in tag.replace("http://www.w3.org/2000/svg", ""), tag
    assert " style=" not in response.text
    inline = [text for _, text in re.findall(r"<(script|style)>(.*?)</", response.text, re.DOTALL)]
    assert inline
    for text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy, text[:80]


def test_a_browser_keeps_a_file_for_good_under_its_version_and_asks_under_any_other(world: World) -> None:
    other = world.client.get("/static/000000000000/live.js")
    assert (other.status_code, other.headers["Cache-Control"]) == (200, "no-cache")
    headers = {"If-None-Match": other.headers["ETag"]}
    assert world.client.get("/static/000000000000/live.js", headers=headers).status_code == 304
    missing = world.client.get(f"/{ADDRESS}/..%2Fapp.py")
    assert (missing.status_code, missing.get_json(force=True)["code"]) == (404, "not_found")


def test_the_first_picture_of_the_live_page_has_the_newest_forecast(world: World) -> None:
    empty = world.client.get("/live").text
    assert 'id="bid">–<' in empty
    assert '<p id="reasons">The system starts and waits for ' in empty
    world.newest.forecast_row = forecast_row()
    page = world.client.get("/live").text
    for words in ('id="bid">60,000.0<', 'data-symbol="BTC/USD"', 'id="sigma">6.0 bps<', "60,000.0 BTC/USD</title>",
                  'id="sigma_why">Forecast by XGBoost, version 7; HARX, its baseline, says 6.5 bps.<'):  # fmt: skip
        assert words in page
    assert len(re.findall(r'<th scope="row" data-heading="Ahead">', page)) == 5


def test_a_page_of_a_market_that_is_not_followed_names_no_market_and_shows_no_numbers(world: World) -> None:
    world.newest.forecast_row = forecast_row()
    page = world.client.get("/live?symbol=<b>").text
    assert "data-symbol" not in page
    assert "<b>" not in page.split("<main>")[0]
    assert '<div id="content" hidden>' in page


def test_the_runbook_has_a_heading_for_each_alert_of_the_api_and_no_link_that_leads_nowhere(world: World) -> None:
    page = world.client.get("/runbook").text
    headings = set(re.findall(r'<h[12] id="([^"]+)">', page))
    for rule in RULES:
        assert world.deps.settings.links.runbook(rule.section or rule.name).partition("#")[2] in headings, rule.name
    links = set(re.findall(r'<a [^>]*href="([^"]+)"', page)) - {"live", "ops", "docs"}
    assert {link[1:] for link in links if link.startswith("#")} <= headings
    assert [link for link in links if not re.match("#|http://127.0.0.1:", link)] == []
    assert "Troubleshooting (<code>docs/troubleshooting.md</code>)" in page


def test_the_root_leads_to_the_live_page_and_the_icon_is_where_browsers_look(world: World) -> None:
    root = world.client.get("/")
    assert (root.status_code, root.headers["Location"]) == (302, "/live")
    icon = world.client.get("/favicon.ico")
    assert (icon.status_code, icon.content_type) == (200, "image/svg+xml; charset=utf-8")


def test_no_file_of_a_page_has_more_than_500_lines() -> None:
    for name, content in FILES.items():
        if "lightweight-charts" not in name:
            assert content.count(b"\n") < 500, name


def test_a_module_imports_only_files_that_are_served(world: World) -> None:
    checked, waiting = set(), ["live.js", "ops.js"]
    while waiting:
        name = waiting.pop()
        text = world.client.get(f"/{ADDRESS}/{name}")
        assert text.status_code == 200, name
        checked.add(name)
        waiting += set(re.findall(r'(?:from |import\()"\./([^"]+)"', text.text)) - checked
    assert {"price_chart.js", "skill.js", "connection.js"} <= checked


def test_a_browser_asks_for_every_module_of_the_first_picture_at_once_and_for_no_chart(world: World) -> None:
    preloaded = re.findall(rf'rel="modulepreload" href="{ADDRESS}/([^"]+)"', world.client.get("/live").text)
    assert set(preloaded) == set(modules_of("live.js")) >= {"figures.js", "connection.js", "format.js"}
    assert not {"price_chart.js", "time_chart.js"} & set(preloaded)


@pytest.mark.parametrize("path", ["/live", "/ops"])
def test_a_page_says_simulated_before_its_first_number_arrives(path: str) -> None:
    badge = re.compile(r'<span id="simulated" class="badge"( hidden)?>')
    for mode, hidden in (("live", " hidden"), ("sim", None)):
        found = badge.search(build(exchange=ExchangeSettings(mode=mode)).client.get(path).text)
        assert found is not None
        assert found[1] == hidden
