"""How clients of QuestDB connect and prove who they are, and what a refusal means in plain words.

What does not belong here: statements and rows (`questdb`).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx

from btc_core.stores.tls_errors import tls_failure

if TYPE_CHECKING:
    from btc_core.service_settings import QuestdbSettings

_PORTS = {"http": 80, "https": 443}
"""Ports for an address that names none."""


def http_client(settings: QuestdbSettings, timeout_s: float) -> httpx.Client:
    """A client of the HTTP endpoint."""
    token, password = settings.token.get_secret_value(), settings.password.get_secret_value()
    return httpx.Client(
        base_url=settings.http_url,
        auth=(settings.user, password) if password and not token else None,
        headers={"Authorization": f"Bearer {token}"} if token else None,
        # The context takes 20 ms to make, and an address without TLS needs none.
        verify=ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.http_url.startswith("https")
        else False,
        timeout=timeout_s,
    )


def sender_conf(settings: QuestdbSettings) -> str:
    """The configuration of a sender of rows, in the form of QuestDB's client library. It holds secrets."""
    address = httpx.URL(settings.http_url)
    values = {
        "addr": f"{address.host}:{address.port or _PORTS[address.scheme]}",
        "auto_flush": "off",
        "retry_timeout": "0",
    }
    token, password = settings.token.get_secret_value(), settings.password.get_secret_value()
    if token:
        values["token"] = token
    elif password:
        values |= {"username": settings.user, "password": password}
    if address.scheme == "https":
        values |= {"tls_roots": settings.ca_file} if settings.ca_file else {"tls_ca": "os_roots"}
    return f"{address.scheme}::" + "".join(f"{key}={value.replace(';', ';;')};" for key, value in values.items())


def explain_silence(settings: QuestdbSettings, error: httpx.HTTPError) -> str:
    """Why there is no answer, for people."""
    where = f"QuestDB at {settings.http_url}"
    if "SSL" in str(error):
        return tls_failure(where, settings.ca_file, "BTC_QUESTDB_CA_FILE", error)
    return f"{where} does not answer: {error!r}"


def explain_refusal(settings: QuestdbSettings, status: int) -> str:
    """What a refusal means for the settings, for people; "" for one that has other reasons."""
    where = f"QuestDB at {settings.http_url}"
    by_token = bool(settings.token.get_secret_value())
    if status == httpx.codes.UNAUTHORIZED:
        wrong = (
            "the token (BTC_QUESTDB_TOKEN)"
            if by_token
            else (f"the user {settings.user!r} or the password (BTC_QUESTDB_USER, BTC_QUESTDB_PASSWORD)")
        )
        return f"{where} refuses {wrong}"
    if status == httpx.codes.FORBIDDEN:
        who = "the token" if by_token else f"the user {settings.user!r}"
        return f"{where} gives {who} no right to this"
    return ""
