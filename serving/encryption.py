"""Encrypted connections of the server: their sockets, and a certificate that is read again when it is renewed.

Waitress encrypts nothing, but it works with every socket that sends and receives without blocking. What does not belong here: whether
a certificate can serve (`btc_core.stores.api_connection`), and proxies (`proxies`).
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import ConfigError
from btc_core.stores.api_connection import server_context

if TYPE_CHECKING:
    from btc_core.api_settings import ApiSettings

RECORD_BYTES = 16_384
"""Most bytes that TLS encrypts at once."""
NOT_ENCRYPTED = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port is encrypted: ask for https:// instead of http://\n"
)

_logger = logging.getLogger("serving")


class Incomplete(Exception):
    """What has arrived is a part of a handshake or of a record. Waitress would take an `OSError` for the end of the connection."""


class EncryptedSocket:
    """What Waitress and the event streams use of a socket. It does not block.

    OpenSSL allows one thread at a time, but Waitress reads in one thread while another one sends.
    """

    def __init__(self, encrypted: ssl.SSLSocket) -> None:
        self._socket = encrypted
        self._lock = threading.Lock()
        self.fileno = encrypted.fileno
        self.setblocking = encrypted.setblocking
        self.getsockopt = encrypted.getsockopt
        self.setsockopt = encrypted.setsockopt

    def recv(self, size: int) -> bytes:
        """What has arrived, with the rest of its record, of which no poll would tell; raises `Incomplete` if that is nothing yet."""
        with self._lock:
            try:
                data = self._socket.recv(size)
                while self._socket.pending():
                    data += self._socket.recv(self._socket.pending())
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise Incomplete from None
            except ssl.SSLError as error:
                if error.reason == "HTTP_REQUEST":
                    with suppress(OSError):
                        socket.socket.recv(self._socket, size)  # else closing would take back the answer
                        socket.socket.send(self._socket, NOT_ENCRYPTED)
                raise _broken(error) from None
            return data

    def send(self, data: bytes) -> int:
        """Send what the socket takes now; raises `BlockingIOError` if that is nothing."""
        sent = 0
        with self._lock:
            try:
                while sent < len(data):
                    sent += self._socket.send(data[sent : sent + RECORD_BYTES])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not sent:
                    raise BlockingIOError(errno.EWOULDBLOCK, "the socket takes nothing now") from None
            except ssl.SSLError as error:
                raise _broken(error) from None
        return sent

    def close(self) -> None:
        """Say that nothing was cut off, and close."""
        with self._lock:
            with suppress(OSError, ValueError):
                self._socket.unwrap()
            self._socket.close()


def _broken(error: ssl.SSLError) -> ConnectionResetError:
    """A failed encryption as what it means for a connection. The numbers of OpenSSL's errors are no system errors."""
    return ConnectionResetError(errno.ECONNRESET, str(error))


class Encryption:
    """Encrypts accepted connections with the certificate of the settings. Raises `ConfigError` if that cannot serve."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._seen = self._changed()
        self._context = server_context(settings)

    def encrypted(self, accepted: socket.socket) -> EncryptedSocket:
        """The connection, whose handshake takes place while it is read."""
        accepted.setblocking(False)
        return EncryptedSocket(self._context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False))

    def renew(self) -> None:
        """Use the files for new connections if they have changed; what cannot serve is logged, and the former certificate stays."""
        changed = self._changed()
        if changed == self._seen:
            return
        self._seen = changed
        try:
            self._context = server_context(self._settings)
            _logger.info("the certificate %s was read again", self._settings.cert_file)
        except ConfigError as error:
            _logger.error("the former certificate stays in use: %s", error)  # noqa: TRY400 - the message says everything

    def _changed(self) -> list[tuple[int, int] | None]:
        """Which files there are, and when each was changed."""
        found: list[tuple[int, int] | None] = []
        for path in (self._settings.cert_file, self._settings.key_file):
            try:
                status = Path(path).stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_ino, status.st_mtime_ns))
        return found
