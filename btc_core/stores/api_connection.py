"""How the API is reached: its certificate, whether that can serve, and the client with which processes of this system ask it.

These processes ask by an address such as 127.0.0.1, which no public certificate names. They therefore accept the certificate in the
file of the settings, and no other. What does not belong here: sockets (`serving.encryption`).
"""

from __future__ import annotations

import functools
import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from btc_core.errors import ConfigError
from btc_core.service_settings import require_pair
from btc_core.stores.shared_http import ONE_ANSWER, shared_client

if TYPE_CHECKING:
    from btc_core.api_settings import ApiSettings

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
FLIGHTS = 3
"""How often each side of a handshake has something to say, at most."""


def server_context(settings: ApiSettings) -> ssl.SSLContext:
    """The context of a server with the certificate of the settings; raises `ConfigError` if it cannot serve."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        require_pair("API", settings.cert_file, settings.key_file)
        context.load_cert_chain(settings.cert_file, settings.key_file, "")
        _shake_hands(context, _context_for(Path(settings.cert_file).read_text(encoding="ascii")))
    except ssl.SSLCertVerificationError as error:
        msg = f"clients refuse the certificate {settings.cert_file} (BTC_API_CERT_FILE): {error.verify_message}"
        raise ConfigError(msg) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    return context


def api_client(settings: ApiSettings) -> httpx.Client:
    """The client for requests to `settings.url`. Raises `httpx.ConnectError` if the file of the certificate cannot be read."""
    if not settings.cert_file:
        return shared_client()
    try:
        return _client_for(Path(settings.cert_file).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        msg = f"BTC_API_CERT_FILE names {settings.cert_file}, which cannot be used: {error}"
        raise httpx.ConnectError(msg) from error


@functools.lru_cache(maxsize=1)
def _client_for(pem: str) -> httpx.Client:
    return httpx.Client(limits=ONE_ANSWER, verify=_context_for(pem))


def _context_for(pem: str) -> ssl.SSLContext:
    """The context of a client that accepts the first certificate of a file, and no other that its authority has signed."""
    found = CERTIFICATE.search(pem)
    context = ssl.create_default_context(cadata=found.group() if found else "")
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Connect both without a socket; raises what the client would raise."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for side in sides * FLIGHTS:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
