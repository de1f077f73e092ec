"""Which exchange `btc up` follows: the live one, or the simulator when the live one cannot be reached.

What does not belong here: the simulator itself (`exchange_simulator`).
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from btc_core.exchanges.adapters import exchange_of

if TYPE_CHECKING:
    from btc_core.settings import ExchangeSettings

PATIENCE_S = 3.0
"""For each of the two addresses. An exchange answers within half a second from anywhere."""


def why_unreachable(exchange: ExchangeSettings) -> str:
    """Why the exchange cannot be reached; "" when it can."""
    return _rest(exchange.rest_url, exchange_of(exchange).time_path) or _socket(exchange.ws_url)


def _rest(url: str, path: str) -> str:
    try:
        httpx.get(url + path, timeout=PATIENCE_S).raise_for_status()
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
