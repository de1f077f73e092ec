"""The processes `api` and `alerts` of a native stack, and a real webhook: workers that do not run reach a person."""

from __future__ import annotations

import json
import os
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests import waiting
from tests.http_server import listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.runtime import Stack

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

wait_for = partial(waiting.wait_for, patience_s=240.0)


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    received: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        Webhook.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A contact that the processes of the next start have in their environment."""
    with listening(Webhook) as url:
        monkeypatch.setitem(os.environ, "BTC_ALERT_URLS", url.replace("http://", "json://") + "/hook")
        monkeypatch.setitem(os.environ, "BTC_ALERT_WAIT_S", "0")
        yield


@pytest.mark.usefixtures("webhook")
def test_workers_that_do_not_run_are_told_with_the_section_of_the_runbook(own_stack: Stack) -> None:
    own_stack.up(only=("alerts",))
    wait_for(lambda: any("ProcessDown" in each["title"] for each in Webhook.received), "the message about ProcessDown")
    (message,) = [each for each in Webhook.received if "ProcessDown" in each["title"]]
    assert message["title"].startswith("SIMULATED btc-forecast on ")
    assert message["type"] == "failure"
    assert "ingest does not answer at http://127.0.0.1:" in message["message"]
    assert "What to do: docs/runbook.md#processdown" in message["message"]
    assert "ProcessDown fires (critical)." in own_stack.layout.log("alerts").read_text()
