"""A TLS endpoint before a server that does not encrypt, as a load balancer of a managed service is."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.certificates import Authority

CHUNK_BYTES = 65_536


class TlsProxy:
    """Accepts encrypted connections on `port`, and passes them on to a port on loopback, for the length of a block."""

    def __init__(
        self, authority: Authority, target_port: int, *, asks_for_certificate: bool = False, postgres: bool = False
    ) -> None:
        server = authority.certificate("proxy", "localhost", "*.localhost")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(server.cert, server.key)
        if asks_for_certificate:
            self._context.load_verify_locations(authority.file)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._target_port = target_port
        self._postgres = postgres
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = bytearray()
        """Everything that clients have sent, decrypted."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        if self._postgres:  # a client of PostgreSQL first asks in plain text whether it may encrypt
            accepted.recv(8)
            accepted.sendall(b"S")
        with (
            suppress(OSError),
            accepted,
            self._context.wrap_socket(accepted, server_side=True) as client,
            socket.create_connection(("127.0.0.1", self._target_port)) as server,
        ):
            threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()
            self._pass_on(client, server, self.received)

    def _pass_on(self, source: socket.socket, target: socket.socket, record: bytearray | None = None) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if record is not None:
                    record += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
