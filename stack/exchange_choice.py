"""Which exchange `btc up` follows: the live one, or the simulator when the live one cannot be reached.

What does not belong here: the simulator itself (`stack/exchange`).
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

if TYPE_CHECKING:
    from btc_core.settings import ExchangeSettings

PATIENCE_S = 3.0
"""For each of the two addresses. Kraken answers within half a second from anywhere."""


def why_unreachable(exchange: ExchangeSettings) -> str:
    """Why the exchange cannot be reached; "" when it can."""
    return _rest(exchange.rest_url) or _socket(exchange.ws_url)


def _rest(url: str) -> str:
    try:
        httpx.get(f"{url}/0/public/Time", timeout=PATIENCE_S).raise_for_status()
    except (httpx.HTTPError, OSError) as error:
        return f"{url} does not answer ({error})"
    return ""


def _socket(url: str) -> str:
    address = urlsplit(url)
    encrypted = address.scheme == "wss"
    try:
        with socket.create_connection(
            (address.hostname or "", address.port or (443 if encrypted else 80)), PATIENCE_S
        ) as plain:
            if encrypted:
                ssl.create_default_context().wrap_socket(plain, server_hostname=address.hostname).close()
    except OSError as error:
        return f"{url} does not answer ({error})"
    return ""
