"""The pages, through Flask's test client with fakes for everything outside of the API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.serving_world import build

if TYPE_CHECKING:
    from tests.serving_world import World


@pytest.fixture
def world() -> World:
    return build()


@pytest.mark.parametrize("path", ["/live", "/docs"])
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
