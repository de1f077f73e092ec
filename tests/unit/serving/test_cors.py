"""Which pages of other origins may read the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import ConfigError
from btc_core.settings import load_settings
from tests.serving_world import TOKEN, build

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from tests.serving_world import World

CHARTS, OTHER = "https://charts.example", "https://other.example"


def question(world: World, path: str, origin: str, method: str = "GET") -> TestResponse:
    """What a browser asks before a request with a token."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }
    return world.client.options(path, headers=headers)


def allowed(response: TestResponse) -> str | None:
    return response.headers.get("Access-Control-Allow-Origin")


def test_a_page_of_a_named_origin_may_read_and_start_actions() -> None:
    world = build(cors_origins=(CHARTS,))
    asked = question(world, "/retrain", CHARTS, "POST")
    assert (asked.status_code, allowed(asked), asked.data) == (204, CHARTS, b"")
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
    done = world.client.post("/retrain", headers={"Origin": CHARTS, "Authorization": f"Bearer {TOKEN}"})
    assert (done.status_code, allowed(done)) == (202, CHARTS)
    read = world.client.get("/test", headers={"Origin": CHARTS})
    assert (allowed(read), read.headers["Vary"]) == (CHARTS, "Origin")
    assert allowed(world.client.get("/v1/forecast", headers={"Origin": CHARTS})) == CHARTS, "errors can be read, too"


@pytest.mark.parametrize("origin", [OTHER, "https://charts.example.other.example", "http://charts.example", "null"])
def test_a_page_of_another_origin_may_not(origin: str) -> None:
    world = build(cors_origins=(CHARTS,))
    assert allowed(question(world, "/test", origin)) is None
    assert allowed(world.client.get("/test", headers={"Origin": origin})) is None


def test_a_star_lets_every_page_read_and_none_start_an_action() -> None:
    world = build(cors_origins=("*",))
    assert allowed(question(world, "/predict_bid", OTHER)) == "*"
    assert allowed(world.client.get("/test", headers={"Origin": OTHER})) == "*"
    assert allowed(question(world, "/retrain", OTHER, "POST")) is None
    named_as_well = build(cors_origins=("*", CHARTS))
    assert allowed(question(named_as_well, "/retrain", CHARTS, "POST")) == CHARTS


def test_no_answer_allows_the_stored_credentials_of_a_browser() -> None:
    world = build(cors_origins=("*", CHARTS))
    for response in (question(world, "/test", CHARTS), world.client.get("/test", headers={"Origin": CHARTS})):
        assert "Access-Control-Allow-Credentials" not in response.headers


def test_without_origins_a_question_is_answered_as_before() -> None:
    world = build()
    asked = question(world, "/test", CHARTS)
    assert (asked.status_code, "GET" in asked.headers["Allow"]) == (200, True)
    assert not [name for name, _ in asked.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("bad", ["https://charts.example/", "charts.example", "HTTPS://CHARTS.EXAMPLE", "null"])
def test_what_no_browser_sends_as_an_origin_is_refused(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("BTC_API_CORS_ORIGINS", f"{CHARTS},http://localhost:8080,http://[::1]:80,*,{bad}")
    with pytest.raises(ConfigError, match=f"BTC_API_CORS_ORIGINS: .*{bad}"):
        load_settings()
