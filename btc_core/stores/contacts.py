"""The contacts of `BTC_ALERT_URLS` and sending them a message: webhooks, ntfy, Slack, Telegram, e-mail and the other services of Apprise.

What does not belong here: which messages are sent, and when (`serving.alerts`, `btc_assets.failures`).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Literal

import apprise

from btc_core.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from btc_core.settings import AlertSettings, Settings

Urgency = Literal["failure", "warning", "success", "info"]
"""The kinds of messages that Apprise knows; services show them as colours or icons."""


class Contact:
    """One address that messages are sent to."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self.name: str = service.url(privacy=True).partition("?")[0]
        """The address without its secrets."""

    def send(self, title: str, body: str, urgency: Urgency) -> None:
        """Send one message; raises `ServiceError` if the service did not take it."""
        if not self._service.notify(body=body, title=title, notify_type=apprise.NotifyType(urgency)):
            msg = f"{self.name} did not take the message; the lines above say why"
            raise ServiceError(msg)


def contacts(settings: AlertSettings) -> list[Contact]:
    """The contacts of the settings; raises `ConfigError` for an address that no service understands."""
    services = apprise.Apprise()
    if not services.add(settings.urls.get_secret_value()) and settings.urls.get_secret_value().strip():
        msg = (
            "BTC_ALERT_URLS has an address that no service understands; separate addresses by commas or spaces, such as "
            "ntfy://topic or json://host/path (https://appriseit.com/services lists them all)"
        )
        raise ConfigError(msg)
    return [Contact(service) for service in services]


def sender_of(settings: Settings) -> str:
    """Who sends the messages."""
    return f"{'SIMULATED btc-forecast' if settings.simulated else 'btc-forecast'} on {socket.gethostname()}"
