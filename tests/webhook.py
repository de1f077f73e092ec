"""A contact of `BTC_ALERT_URLS` that keeps what it is sent: a webhook on a real socket."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar

from tests.http_server import listening

if TYPE_CHECKING:
    from collections.abc import Iterator


class Webhook(BaseHTTPRequestHandler):
    """Answers with `status`, and keeps the message if that is 200."""

    received: ClassVar[list[dict[str, Any]]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if Webhook.status == 200:
            Webhook.received.append(body)
        self.send_response(Webhook.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def contact() -> Iterator[str]:
    """The address of a webhook that has received nothing yet, in the form of `BTC_ALERT_URLS`."""
    Webhook.received, Webhook.status = [], 200
    with listening(Webhook) as url:
        yield url.replace("http://", "json://") + "/hook"
