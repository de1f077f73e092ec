"""Larger answers are compressed for clients that accept it, and no other answer is."""

from __future__ import annotations

import gzip

import pytest

from serving.page_files import ADDRESS
from tests.serving_world import World, build

pytestmark = pytest.mark.unit

GZIP = {"Accept-Encoding": "gzip, deflate"}


@pytest.fixture
def world() -> World:
    return build()


@pytest.mark.parametrize("path", [f"/{ADDRESS}/lightweight-charts.js", "/live", "/openapi.json"])
def test_a_large_answer_is_compressed_for_a_client_that_accepts_it(world: World, path: str) -> None:
    plain, compressed = world.client.get(path), world.client.get(path, headers=GZIP)
    assert "Content-Encoding" not in plain.headers
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed.data) == plain.data
    assert len(compressed.data) < 0.5 * len(plain.data)
    assert int(compressed.headers["Content-Length"]) == len(compressed.data)
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert "Accept-Encoding" in compressed.headers["Vary"]


def test_a_small_answer_is_never_compressed(world: World) -> None:
    assert "Content-Encoding" not in world.client.get("/healthz", headers=GZIP).headers


def test_a_client_that_refuses_gzip_gets_plain_bytes(world: World) -> None:
    answer = world.client.get("/live", headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "Content-Encoding" not in answer.headers


def test_a_browser_keeps_a_compressed_file_until_it_changes(world: World) -> None:
    first = world.client.get(f"/{ADDRESS}/live.js", headers=GZIP)
    assert first.headers["Content-Encoding"] == "gzip"
    again = world.client.get(f"/{ADDRESS}/live.js", headers={**GZIP, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
