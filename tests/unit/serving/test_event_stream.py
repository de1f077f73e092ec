"""Event streams over real sockets: what one market or one client cannot do to the others."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from serving.event_stream import EventBroadcaster
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


class Render:
    """Makes an event of a market, unless the market is broken."""

    def __init__(self) -> None:
        self.broken = {"BROKEN/USD"}

    def __call__(self, symbol: str) -> bytes:
        if symbol in self.broken:
            raise ValueError("no such row")
        return f"data: {symbol}\n\n".encode()


@pytest.fixture
def render() -> Render:
    return Render()


@pytest.fixture
def announced() -> threading.Event:
    """Set when forecasts can be waited for; before that, waiting fails."""
    return threading.Event()


@pytest.fixture
def broadcaster(render: Render, announced: threading.Event) -> Iterator[EventBroadcaster]:
    def wait(timeout_s: float) -> bool:
        if not announced.is_set():
            raise RuntimeError("not connected")
        return threading.Event().wait(min(timeout_s, 0.02))

    found = EventBroadcaster(render, wait, interval_s=0.01)
    announced.set()
    found.start()
    yield found
    found.stop()


def stream(broadcaster: EventBroadcaster, symbol: str) -> socket.socket:
    """The client's end of a stream that the broadcaster sends."""
    client, server = socket.socketpair()
    client.settimeout(20)
    server.setblocking(False)
    broadcaster.take(symbol, None, broadcaster.open(symbol, 10), server, b"", is_chunked=False)
    return client


def read_until(client: socket.socket, wanted: bytes, times: int = 1) -> bytes:
    found = b""
    while found.count(wanted) < times:
        piece = client.recv(10_000)
        assert piece, f"the stream ended after {found!r}"
        found += piece
    return found


def test_a_market_whose_events_cannot_be_made_keeps_its_streams_and_costs_others_none(
    broadcaster: EventBroadcaster, render: Render
) -> None:
    broken, good = stream(broadcaster, "BROKEN/USD"), stream(broadcaster, "BTC/USD")
    with broken, good:
        assert b"data: BTC/USD" in read_until(good, b"id: ", times=3)
        assert read_until(broken, b": alive\n\n", times=2).replace(b": alive\n\n", b"") == b""
        render.broken.clear()
        assert b"data: BROKEN/USD" in read_until(broken, b"id: ")


def test_a_client_that_has_gone_is_counted_out_while_no_event_can_be_made(broadcaster: EventBroadcaster) -> None:
    client = stream(broadcaster, "BROKEN/USD")
    read_until(client, b": alive")
    assert broadcaster.stream_count == 1
    client.close()
    wait_for(lambda: broadcaster.stream_count == 0, "the stream is counted out")


def test_events_go_on_when_new_forecasts_cannot_be_waited_for(
    broadcaster: EventBroadcaster, announced: threading.Event
) -> None:
    with stream(broadcaster, "BTC/USD") as client:
        read_until(client, b"id: ")
        announced.clear()
        read_until(client, b"id: ", times=3)
