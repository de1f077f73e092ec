"""Health checks: what one costs while a stack starts."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from btc_core.stores.shared_http import shared_client
from stack.health_checks import http_check, problem_of

pytestmark = pytest.mark.unit


class Healthy(BaseHTTPRequestHandler):
    """Answers 200 with nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_a_check_reads_no_certificates_so_that_it_leaves_the_cores_to_the_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared_client()
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: pytest.fail("a check reads the certificates"))
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert problem_of(http_check(f"http://127.0.0.1:{server.server_port}/", "the server")) == ""
        finally:
            server.shutdown()
            thread.join()
