"""`/v1/stream`: its events, its places, and its end, through Flask's test client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.event_stream import render_events
from tests.serving_world import World, build, feature_row, forecast_row


@pytest.fixture
def world() -> World:
    return build()


def events(data: bytes) -> list[tuple[str, Any]]:
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_events_have_the_bodies_of_the_endpoints(world: World) -> None:
    world.newest.forecast_row, world.newest.feature_row = forecast_row(0.25), feature_row(0.25)
    assert events(render_events(world.deps, "BTC/USD")) == [
        ("forecast", world.client.get("/v1/forecast").get_json()),
        ("features", world.client.get("/v1/features").get_json()),
        ("health", world.client.get("/readyz").get_json()),
    ]


def test_without_a_forecast_the_stream_says_why(world: World) -> None:
    (name, body), (health, _) = events(render_events(world.deps, "BTC/USD"))
    assert (name, body["code"], health) == ("problem", "not_ready", "health")


def test_a_stream_sends_the_requested_number_of_events_and_frees_its_place() -> None:
    world = build(max_streams=1, stream_interval_ms=20)
    world.newest.forecast_row, world.newest.feature_row = forecast_row(0.25), feature_row(0.25)
    world.broadcaster.start()
    try:
        for _ in range(2):  # the second finds the place free
            response = world.client.get("/v1/stream?events=2")
            assert response.content_type == "text/event-stream; charset=utf-8"
            assert [name for name, _ in events(response.data)] == ["forecast", "features", "health"] * 2
            response.close()
        first = world.client.get("/v1/stream", buffered=False)
        refused = world.client.get("/v1/stream")
        assert (refused.status_code, refused.get_json(force=True)["code"]) == (503, "too_many_streams")
        first.close()
        assert world.client.get("/v1/stream?events=1").status_code == 200
    finally:
        world.broadcaster.stop()


def test_stopping_ends_every_stream() -> None:
    world = build()
    world.broadcaster.start()
    response = world.client.get("/v1/stream", buffered=False)
    world.broadcaster.stop()
    assert b"retry: " in response.data  # reading to the end returns
