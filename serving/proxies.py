"""Proxies before the API: whose `X-Forwarded-…` headers are believed.

Werkzeug reads the headers; this module decides whether it may. What does not belong here: TLS (`encryption`).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

from btc_core.api_settings import BASE_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

ADDRESSES_KEPT = 1_024
"""Addresses whose verdict is kept."""
_PREFIX = "HTTP_X_FORWARDED_PREFIX"


class TrustedProxies:
    """An application that learns from proxies of these addresses and networks who asks, and under which address.

    The last value of each header counts, which is the one that the proxy itself has added. What anybody else sends, and the header
    `Forwarded`, is removed.
    """

    def __init__(self, app: WSGIApplication, trusted: Iterable[str]) -> None:
        self._app = app
        self._believing = ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1)
        self._networks = tuple(ipaddress.ip_network(each) for each in trusted)
        self._is_trusted = lru_cache(ADDRESSES_KEPT)(self._is_in_a_network)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if self._networks and self._is_trusted(environ.get("REMOTE_ADDR", "")):
            prefix = environ.pop(_PREFIX, "").rstrip("/")
            if BASE_PATH.fullmatch(prefix):  # else a link could lead to another host
                environ[_PREFIX] = prefix
            return self._believing(environ, start_response)
        for name in [name for name in environ if name.startswith(("HTTP_X_FORWARDED_", "HTTP_FORWARDED"))]:
            del environ[name]
        return self._app(environ, start_response)

    def _is_in_a_network(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:  # a socket without an address
            return False
        return any(found in network for network in self._networks)
