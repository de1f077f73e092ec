"""The process that tells people about alerts, with a real webhook server: grouped, repeated, resolved, and an API that is away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from btc_core.api_settings import ApiSettings
from btc_core.errors import ConfigError, ServiceError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.settings import AlertSettings, Settings
from btc_core.stores.contacts import contacts
from serving.alert_messages import Firing, Outbox
from serving.alerts import AWAY_S, RETRY_S, Alerts
from stack.layout import Layout
from tests.http_server import answering, listening
from tests.paths import ROOT
from tests.webhook import Webhook, contact

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

FEED = {"name": "FeedSilent", "part": "feed", "is_severe": True, "lasting_s": 10, "details": ["nothing for 20 s"]}
BOOK = {"name": "BookMismatch", "part": "feed", "is_severe": False, "lasting_s": 0, "details": ["2 did not match"]}
DEMOTED = {"name": "ModelDemoted", "part": "models", "is_severe": False, "lasting_s": 0, "details": ["har took over"]}
OWN = {"name": "DoNotTrade", "part": "forecasts", "is_severe": False, "lasting_s": 0, "details": ["poor: quote_old"]}


@pytest.fixture
def webhook() -> Iterator[str]:
    """The address of a webhook in the form of `BTC_ALERT_URLS`."""
    with contact() as url:
        yield url


class Api:
    """The answers of `/v1/operations`."""

    def __init__(self) -> None:
        self.status = 200
        self.alerts: dict[str, tuple[dict[str, Any], str]] = {}

    def says(self, **states: str) -> None:
        known = {"feed": FEED, "book": BOOK, "demoted": DEMOTED, "own": OWN}
        self.alerts = {name: (known[name], state) for name, state in states.items()}

    def answer(self, _path: str) -> tuple[int, bytes]:
        alerts = [
            found | {"state": state, "runbook": f"docs/runbook.md#{found['name'].lower()}"}
            for found, state in self.alerts.values()
        ]
        return self.status, json.dumps({"alerts": alerts, "simulated": True}).encode()


@pytest.fixture
def api() -> Iterator[tuple[Api, int]]:
    stand_in = Api()
    with answering(stand_in.answer) as url:
        yield stand_in, int(url.rpartition(":")[2])


@pytest.fixture
def alerts(api: tuple[Api, int], webhook: str) -> Alerts:
    settings = Settings(
        exchange=ExchangeSettings(mode="sim"),
        api=ApiSettings(port=api[1]),
        alert=AlertSettings(urls=SecretStr(webhook), wait_s=30, resolve_s=60, repeat_h=1),
    )
    return Alerts(settings, contacts(settings.alert))


def test_alerts_of_one_fault_arrive_in_one_message_with_the_section_of_the_runbook(
    alerts: Alerts, api: tuple[Api, int]
) -> None:
    api[0].says(feed="firing", book="pending")
    alerts.look(0.0)
    api[0].says(feed="firing", book="firing")
    alerts.look(10.0)
    assert Webhook.received == []
    alerts.look(30.0)
    alerts.look(40.0)
    (message,) = Webhook.received
    assert message["title"].startswith("SIMULATED btc-forecast on ")
    assert message["title"].endswith(": FeedSilent, BookMismatch")
    assert message["type"] == "failure"
    assert (
        "FeedSilent fires (critical, feed).\nnothing for 20 s\nWhat to do: docs/runbook.md#feedsilent"
        in message["message"]
    )
    assert "BookMismatch fires (warning, feed)." in message["message"]


def test_a_silent_feed_and_a_demoted_model_reach_the_contact_of_the_users_own_alerts(
    alerts: Alerts, api: tuple[Api, int]
) -> None:
    api[0].says(feed="firing", demoted="firing", own="firing")
    for now_s in (0.0, 30.0):
        alerts.look(now_s)
    (message,) = Webhook.received
    assert message["title"].endswith(": FeedSilent, ModelDemoted, DoNotTrade")
    for name, how in (
        ("FeedSilent", "critical, feed"),
        ("ModelDemoted", "warning, models"),
        ("DoNotTrade", "warning, forecasts"),
    ):
        assert f"{name} fires ({how})." in message["message"]


def test_an_alert_is_repeated_while_it_fires_and_resolved_once_it_has_stopped(
    alerts: Alerts, api: tuple[Api, int]
) -> None:
    api[0].says(book="firing")
    for now_s in (0.0, 30.0, 3_000.0, 3_640.0):
        alerts.look(now_s)
    assert [each["message"].split(" (")[0] for each in Webhook.received] == [
        "BookMismatch fires",
        "BookMismatch still fires",
    ]
    assert Webhook.received[0]["type"] == "warning"
    for now_s, state in ((3_650.0, "ok"), (3_690.0, "firing"), (3_700.0, "ok"), (3_750.0, "ok")):
        api[0].says(book=state)
        alerts.look(now_s)
    assert len(Webhook.received) == 2, "an alert that comes and goes is not resolved"
    alerts.look(3_760.0)
    assert Webhook.received[-1]["title"].endswith(": resolved: BookMismatch")
    assert Webhook.received[-1]["type"] == "success"


def test_an_alert_that_is_gone_before_its_message_is_due_is_not_sent(alerts: Alerts, api: tuple[Api, int]) -> None:
    for now_s, state in ((0.0, "firing"), (10.0, "ok"), (40.0, "ok"), (900.0, "ok")):
        api[0].says(book=state)
        alerts.look(now_s)
    assert Webhook.received == []


def test_an_api_that_is_away_is_an_alert_and_resolves_nothing(alerts: Alerts, api: tuple[Api, int]) -> None:
    api[0].says(feed="firing")
    for now_s in (0.0, 30.0):
        alerts.look(now_s)
    api[0].status = 503
    for now_s in (40.0, 40.0 + AWAY_S, 40.0 + AWAY_S + 30.0, 400.0):
        alerts.look(now_s)
    first, second = Webhook.received
    assert first["title"].endswith(": FeedSilent")
    assert second["title"].endswith(": ProcessDown")
    assert "The API does not answer" in second["message"]
    api[0].status = 200
    api[0].says(feed="unknown")
    for now_s in (410.0, 470.0):
        alerts.look(now_s)
    assert Webhook.received[-1]["title"].endswith(": resolved: ProcessDown"), "FeedSilent cannot be judged yet"


def test_a_message_that_was_not_taken_is_sent_again_until_it_is(alerts: Alerts, api: tuple[Api, int]) -> None:
    api[0].says(book="firing")
    alerts.look(0.0)
    Webhook.status = 500
    alerts.look(30.0)
    Webhook.status = 200
    alerts.look(40.0)
    assert Webhook.received == []
    alerts.look(30.0 + RETRY_S)
    assert len(Webhook.received) == 1


def test_it_reads_an_api_with_read_tokens_with_the_first_of_them() -> None:
    sent: list[str | None] = []

    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Guarded) as url:
        for tokens in (f"alerts={'a' * 20},grafana={'g' * 20}", ""):
            api = ApiSettings(port=int(url.rpartition(":")[2]), read_tokens=SecretStr(tokens))
            Alerts(Settings(api=api), []).look(0.0)
    assert sent == [f"Bearer {'a' * 20}", None]


def test_the_watchdog_is_fed_every_minute_while_the_api_answers(api: tuple[Api, int]) -> None:
    fed: list[str] = []

    def answer(path: str) -> tuple[int, bytes]:
        fed.append(path)
        return 200, b"OK"

    with answering(answer) as url:
        alert = AlertSettings(watchdog_url=SecretStr(f"{url}/ping/secret"))
        alerts = Alerts(Settings(api=ApiSettings(port=api[1]), alert=alert), [])
        for now_s in (0.0, 10.0, 50.0, 60.0):
            alerts.look(now_s)
        assert fed == ["/ping/secret"] * 2
        api[0].status = 503
        for now_s in (130.0, 200.0):
            alerts.look(now_s)
        assert len(fed) == 2, "an API that is away is not well"
        api[0].status = 200
        alerts.look(210.0)
        assert len(fed) == 3


def test_a_watchdog_that_does_not_answer_stops_no_alert_and_stays_secret(
    api: tuple[Api, int], webhook: str, caplog: pytest.LogCaptureFixture
) -> None:
    urls = {"urls": SecretStr(webhook), "watchdog_url": SecretStr("http://127.0.0.1:9/secret"), "wait_s": 0}
    settings = Settings(api=ApiSettings(port=api[1]), alert=AlertSettings.model_validate(urls))
    api[0].says(book="firing")
    Alerts(settings, contacts(settings.alert)).look(0.0)
    assert len(Webhook.received) == 1
    assert "BTC_ALERT_WATCHDOG_URL does not answer" in caplog.text
    assert "secret" not in caplog.text


def test_each_contact_is_told_for_itself() -> None:
    outbox = Outbox(AlertSettings(wait_s=0), "here")
    firing = {
        "DiskLow": Firing("DiskLow", "storage", is_severe=True, details=("full",), runbook="docs/runbook.md#disklow")
    }
    first = outbox.due(firing, 0.0)
    assert first is not None
    assert outbox.due(firing, 10.0) == first, "it was not delivered"
    outbox.delivered(first, 10.0)
    assert outbox.due(firing, 20.0) is None


def test_a_test_message_reaches_every_contact_and_a_failure_is_shown(
    webhook: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alert_test(urls: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("BTC_ALERT_URLS", urls)
        layout = Layout(tmp_path_factory.mktemp("stack"))
        layout.create("sim")
        monkeypatch.delenv("BTC_ALERT_URLS")
        command = [sys.executable, "-m", "btc_cli", "alert", "test", "--data-dir", str(layout.data_dir)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    none = alert_test("")
    assert (none.returncode, "there is no contact: set BTC_ALERT_URLS" in none.stdout) == (1, True)
    done = alert_test(f"{webhook}?token=secret, {webhook}/two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [each["title"].rpartition(": ")[2] for each in Webhook.received] == ["test", "test"]
    assert done.stdout.count("took the message") == 2
    assert "secret" not in done.stdout
    Webhook.status = 500
    failed = alert_test(webhook)
    assert (failed.returncode, failed.stdout.count("did not take the message")) == (1, 1)


def test_an_address_that_no_service_understands_is_refused() -> None:
    with pytest.raises(ConfigError, match="BTC_ALERT_URLS has an address that no service understands"):
        contacts(AlertSettings(urls=SecretStr("nosuch://somewhere")))
    assert contacts(AlertSettings()) == []
    (contact,) = contacts(AlertSettings(urls=SecretStr("json://127.0.0.1:9/hook")))
    with pytest.raises(ServiceError, match="did not take"):
        contact.send("title", "body", "info")


def test_the_process_of_the_alerts_loads_no_numerical_library_and_no_web_framework() -> None:
    unused = ["numpy", "numba", "scipy", "flask", "botocore"]
    code = f"import sys, serving.alerts; print([name for name in {unused} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
