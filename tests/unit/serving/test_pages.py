"""The pages, through Flask's test client with fakes for everything outside of the API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from btc_core.exchange_settings import ExchangeSettings
from tests.serving_world import build

if TYPE_CHECKING:
    from tests.serving_world import World


@pytest.fixture
def world() -> World:
    return build()


@pytest.mark.parametrize("path", ["/live", "/ops", "/docs"])
def test_a_page_loads_only_its_own_files(world: World, path: str) -> None:
    response = world.client.get(path)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', response.text)
    own = [name for name in loaded if name.startswith("/static/")]
    assert own
    for name in own:
        assert world.client.get(name).status_code == 200, name
    for tag in re.findall(r"<(?:script|link|img)[^>]*>", response.text):
        assert "http" not in tag.replace("http://www.w3.org/2000/svg", ""), tag
    assert " style=" not in response.text
    assert not re.search(r"<script>|<style>", response.text)


def test_a_browser_keeps_a_file_of_a_page_until_it_changes(world: World) -> None:
    first = world.client.get("/static/live.js")
    assert world.client.get("/static/live.js", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    missing = world.client.get("/static/..%2Fapp.py")
    assert (missing.status_code, missing.get_json(force=True)["code"]) == (404, "not_found")


def test_the_root_leads_to_the_live_page_and_the_icon_is_where_browsers_look(world: World) -> None:
    root = world.client.get("/")
    assert (root.status_code, root.headers["Location"]) == (302, "/live")
    icon = world.client.get("/favicon.ico")
    assert (icon.status_code, icon.content_type) == (200, "image/svg+xml; charset=utf-8")


def test_no_file_of_a_page_has_more_than_500_lines(world: World) -> None:
    for folder in ("/live", "/ops"):
        for name in re.findall(r'"(/static/[^"]+)"', world.client.get(folder).text):
            if "lightweight-charts" not in name:
                assert world.client.get(name).text.count("\n") < 500, name


def test_a_module_imports_only_files_that_are_served(world: World) -> None:
    checked, waiting = set(), ["live.js", "ops.js"]
    while waiting:
        name = waiting.pop()
        text = world.client.get(f"/static/{name}")
        assert text.status_code == 200, name
        checked.add(name)
        waiting += set(re.findall(r'from "\./([^"]+)"', text.text)) - checked
    assert {"price_chart.js", "skill.js", "connection.js"} <= checked


def test_a_browser_asks_for_every_module_of_the_live_page_at_once(world: World) -> None:
    needed, waiting = set(), ["live.js"]
    while waiting:
        found = set(re.findall(r'from "\./([^"]+)"', world.client.get(f"/static/{waiting.pop()}").text)) - needed
        needed |= found
        waiting += found
    preloaded = re.findall(r'rel="modulepreload" href="/static/([^"]+)"', world.client.get("/live").text)
    assert sorted(preloaded) == sorted(needed)


@pytest.mark.parametrize("path", ["/live", "/ops"])
def test_a_page_says_simulated_before_its_first_number_arrives(path: str) -> None:
    badge = re.compile(r'<span id="simulated" class="badge"( hidden)?>')
    for mode, hidden in (("live", " hidden"), ("sim", None)):
        found = badge.search(build(exchange=ExchangeSettings(mode=mode)).client.get(path).text)
        assert found is not None
        assert found[1] == hidden
