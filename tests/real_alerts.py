"""What the rules of the alerts find in the metrics of real processes, for tests that cause a fault on real servers.

```
looks = Looks()                      # before the fault
assert looks.find("DeadLetters", "bad_field")
```

A fault that is in tables or on the object store is found by what the API collects from them: `alerts_of_api(settings)`.

Such a test has the marker `causes` with the names of the alerts. What does not belong here: made-up metrics (`alert_cases`).
"""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

from btc_core.clock import SYSTEM_CLOCK
from btc_core.metrics import HTTP_REQUESTS
from btc_core.settings import LinksSettings
from serving.alert_rules import RULES, Facts, Judge
from serving.operations import OperationsWatch
from serving.stored_rows import QuestRows
from serving.worker_metrics import WorkerMetrics
from tests.serving_world import build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.settings import Settings
    from serving.operation_answers import AlertState

RULE_OF = {rule.name: rule for rule in RULES}


class Looks:
    """Reads metrics as the API does: those of processes by their addresses, else those of this process. The first look is at once.

    Tests that ran before have left their own metrics in this process, so that those of another one are read alone.
    """

    def __init__(self, addresses: Mapping[str, str] | None = None) -> None:
        self._reads_own = not addresses
        self._metrics = WorkerMetrics(dict(addresses or {}))
        HTTP_REQUESTS.labels("/healthz", "GET", 200).inc()  # without its own requests, the API judges no counter
        self.look()

    def look(self) -> None:
        """Read the metrics once more."""
        now_s = time.monotonic()
        if self._reads_own:
            self._metrics.read_own(now_s)
        self._metrics.read_workers(now_s)
        self._metrics.close()

    def find(self, name: str, text: str = "", *, later_s: float = 0.0) -> list[str]:
        """What an alert says now that contains the text, if it fires once that has lasted for the time of the alert.

        `later_s` lets this much time pass before the rule judges.
        """
        self.look()
        at_s = time.time() + later_s
        rule, judge, facts = RULE_OF[name], Judge(LinksSettings()), Facts(self._metrics, {}, {})
        with mock.patch("serving.alert_rules.time", SimpleNamespace(time=lambda: at_s)):
            judge(rule, facts, 0.0)
            state = judge(rule, facts, float(rule.lasting_s))
        return (
            [words for words in state.details if text in words and words != rule.note]
            if state.state == "firing"
            else []
        )


def alerts_of_api(settings: Settings) -> dict[str, AlertState]:
    """The alerts by name, as an API finds them that has just read the tables and the objects of these servers."""
    stored, fakes = QuestRows(settings.questdb, SYSTEM_CLOCK), build(exchange=settings.exchange).deps
    watch = OperationsWatch(dataclasses.replace(fakes, settings=settings, clock=SYSTEM_CLOCK, stored_rows=stored))
    with watch._db, stored._db:
        watch.collect()
        watch.collect()  # judges the metrics that the first look has set from tables and objects
    return {each.name: each for each in watch().alerts}
