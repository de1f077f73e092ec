"""The processes `api` and `alerts` of a native stack, and a real webhook: workers that do not run reach a person."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests import waiting
from tests.webhook import Webhook, contact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.runtime import Stack

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

wait_for = partial(waiting.wait_for, patience_s=240.0)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A contact that the processes of the next start have in their environment."""
    with contact() as url:
        monkeypatch.setitem(os.environ, "BTC_ALERT_URLS", url)
        monkeypatch.setitem(os.environ, "BTC_ALERT_WAIT_S", "0")
        yield


@pytest.mark.causes("ProcessDown")
@pytest.mark.usefixtures("webhook")
def test_workers_that_do_not_run_are_reported_with_the_section_of_the_runbook(own_stack: Stack) -> None:
    own_stack.up(only=("alerts",))
    wait_for(lambda: any("ProcessDown" in each["title"] for each in Webhook.received), "the message about ProcessDown")
    (message,) = [each for each in Webhook.received if "ProcessDown" in each["title"]]
    assert message["title"].startswith("SIMULATED btc-forecast on ")
    assert message["type"] == "failure"
    assert "ingest does not answer at http://127.0.0.1:" in message["message"]
    assert "What to do: docs/runbook.md#processdown" in message["message"]
    assert "ProcessDown fires (critical, pipeline)." in own_stack.layout.log("alerts").read_text()
