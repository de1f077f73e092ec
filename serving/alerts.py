"""`python -m serving.alerts`: tells people about the alerts that the API judges, until a signal ends it.

It is a process of its own, because the API cannot report its own failure. The process asks `/v1/operations`, logs every
message, and sends it to the contacts of `BTC_ALERT_URLS`. With `--test` it sends them one message and ends, and with `--check`
it reads the user's file of alerts and ends. What does not belong here: the conditions of alerts (`alert_rules`).
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol

import httpx
import msgspec

from btc_core import metrics
from btc_core.errors import BtcError, ServiceError
from btc_core.repeated_lines import write_once
from btc_core.settings import load_settings
from btc_core.stores.api_connection import api_client
from btc_core.stores.contacts import contacts, sender_of
from btc_core.stores.shared_http import shared_client
from serving.alert_messages import Firing, Outbox
from serving.operation_answers import AlertState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.settings import AlertSettings, Settings
    from btc_core.stores.contacts import Urgency

PERIOD_S = 10.0
"""The API judges the alerts at the same interval."""
TIMEOUT_S = 5.0
AWAY_S = 30.0
"""How long the API may not answer before `ProcessDown` fires. A restart takes less."""
RETRY_S = 60.0
"""Time until a contact that did not take a message is tried again."""
WATCHDOG_S = 60.0
"""Time between two requests of the watchdog's address."""
API_DOWN = "ProcessDown"
"""The alert for an API that is away; its section of the runbook says what to do."""

_logger = logging.getLogger("alerts")


class Judged(msgspec.Struct, frozen=True):
    """The part of `serving.operation_answers.Operations` that is used here."""

    alerts: tuple[AlertState, ...]


class Recipient(Protocol):
    """A contact, or the log."""

    name: str

    def send(self, title: str, body: str, urgency: Urgency) -> None:
        """Take a message; raises `ServiceError` if it was not delivered."""
        ...


class Log:
    """The log of this process, which gets every message."""

    name = "log"

    def send(self, title: str, body: str, urgency: Urgency) -> None:
        """Write the message to the log."""
        level = logging.INFO if urgency in {"success", "info"} else logging.WARNING
        _logger.log(level, "%s\n%s", title, body)


class Watchdog:
    """Requests an address on another machine while the API answers, so that its owner notices when the requests stop."""

    def __init__(self, settings: AlertSettings) -> None:
        self._url = settings.watchdog_url.get_secret_value()
        self._requested_s = float("-inf")

    def look(self, now_s: float, *, api_answers: bool) -> None:
        """Request the address if a minute has passed and the API answers; a failure is only logged."""
        if not self._url or not api_answers or now_s - self._requested_s < WATCHDOG_S:
            return
        self._requested_s = now_s
        try:
            shared_client().get(self._url, timeout=TIMEOUT_S).raise_for_status()
        except httpx.HTTPError as error:
            # The text of the error has the address, which is a secret.
            _logger.warning("the address of BTC_ALERT_WATCHDOG_URL does not answer (%s)", type(error).__name__)


class Alerts:
    """Which alerts fire, and what each recipient has been told about them."""

    def __init__(self, settings: Settings, recipients: Iterable[Recipient]) -> None:
        self._url = f"{settings.api.url}/v1/operations"
        self._api = settings.api
        token = settings.api.reader_token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._links = settings.links
        self._outboxes = [(recipient, Outbox(settings.alert, sender_of(settings))) for recipient in recipients]
        self._watchdog = Watchdog(settings.alert)
        self._retry_s: dict[str, float] = {}
        self._judged: dict[str, Firing] = {}
        """The alerts that fire according to the last answer of the API."""
        self._answered_s: float | None = None
        self._is_away = True

    def look(self, now_s: float) -> None:
        """Ask the API once, and send every message that is due; `now_s` is a monotonic time."""
        firing = self._ask(now_s)
        self._watchdog.look(now_s, api_answers=not self._is_away)
        for recipient, outbox in self._outboxes:
            message = outbox.due(firing, now_s)
            if message is None or now_s < self._retry_s.get(recipient.name, now_s):
                continue
            metrics.LOOP_AT.labels("alerts").set_to_current_time()  # each contact may take its whole timeout
            try:
                recipient.send(message.title, message.body, message.urgency)
            except ServiceError as error:
                self._retry_s[recipient.name] = now_s + RETRY_S
                _logger.warning("not sent: %s. The next attempt is in %g s", error, RETRY_S)
            else:
                outbox.delivered(message, now_s)

    def _ask(self, now_s: float) -> dict[str, Firing]:
        """The alerts that fire. An alert that fired still counts while its state is unknown."""
        try:
            answer = api_client(self._api).get(self._url, headers=self._headers, timeout=TIMEOUT_S).raise_for_status()
            states = msgspec.json.decode(answer.content, type=Judged).alerts
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            self._is_away = True
            return self._judged | self._away(error, now_s)
        self._answered_s = now_s
        self._is_away = False
        unknown = {each.name for each in states if each.state == "unknown"}
        kept = {name: alert for name, alert in self._judged.items() if name in unknown}
        fires = [each for each in states if each.state == "firing"]
        self._judged = kept | {
            each.name: Firing(each.name, each.part, each.is_severe, each.details, each.runbook) for each in fires
        }
        return self._judged

    def _away(self, error: Exception, now_s: float) -> dict[str, Firing]:
        """The alert for an API that has not answered for too long."""
        if self._answered_s is None:
            self._answered_s = now_s
        if now_s - self._answered_s < AWAY_S:
            return {}
        details = (f"The API does not answer at {self._url} ({type(error).__name__}), so nothing else is judged.",)
        return {
            API_DOWN: Firing(
                API_DOWN, "pipeline", is_severe=True, details=details, runbook=self._links.runbook(API_DOWN)
            )
        }


def send_test(settings: Settings, known: Iterable[Recipient]) -> int:
    """Send a test message to each contact and print which took it; returns 1 if one did not, or there is none."""
    taken = []
    for contact in known:
        try:
            contact.send(f"{sender_of(settings)}: test", "The alerts of this system arrive here.", "info")
            taken.append(True)
            _logger.info("%s took the message", contact.name)
        except ServiceError as error:
            taken.append(False)
            _logger.warning("%s", error)
    if not taken:
        _logger.warning("there is no contact: set BTC_ALERT_URLS, such as ntfy://TOPIC, and start this process again")
    return 0 if taken and all(taken) else 1


def check_rules(settings: Settings) -> int:
    """Print the alerts of the user's file; returns 0, and raises `ConfigError` if the file is wrong."""
    from serving.user_alerts import user_rules  # noqa: PLC0415 - imports numba, which the process that waits does without

    rules = user_rules(settings.alert.rules, settings.exchange.symbols)
    for rule in rules:
        _logger.info("%s, %s, after %d s", rule.name, "critical" if rule.is_severe else "warning", rule.lasting_s)
    _logger.info("%d alerts in %s", len(rules), settings.alert.rules or "no file, because BTC_ALERT_RULES is empty")
    return 0


def main() -> int:
    """Tell people about alerts until a signal ends the process; returns 1 if the settings are wrong or a test failed."""
    parser = argparse.ArgumentParser(prog="python -m serving.alerts", description=__doc__)
    parser.add_argument("--test", action="store_true", help="send a test message to each contact, and end")
    parser.add_argument("--check", action="store_true", help="read the file of BTC_ALERT_RULES, and end")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    write_once()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = load_settings()
        known = contacts(settings.alert)
        if arguments.check:
            return check_rules(settings)
        if arguments.test:
            return send_test(settings, known)
        metrics.serve(settings.metrics.host, settings.metrics.port)
    except BtcError as error:
        _logger.critical("stopped: %s", error)
        return 1
    _logger.info("contacts: %s", ", ".join(each.name for each in known) or "none (BTC_ALERT_URLS is empty)")
    alerts = Alerts(settings, [Log(), *known])
    pause = threading.Event()
    while True:
        metrics.LOOP_AT.labels("alerts").set_to_current_time()
        alerts.look(time.monotonic())
        pause.wait(PERIOD_S)


if __name__ == "__main__":
    sys.exit(main())
