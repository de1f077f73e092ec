"""What the gate decided about the loaded models, from the registry.

What does not belong here: deciding (`btc_core.models.gate`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from btc_core.errors import BtcError
from btc_core.registry.bundles import mlflow_of
from serving.answers import GateDecision

if TYPE_CHECKING:
    from btc_core.clock import Clock
    from btc_core.names import ModelKey
    from btc_core.settings import Settings

RETRY_S = 60.0
"""How long a registry that did not answer is not asked again, so that a page that asks every few seconds does not wait."""


class GateDecisions:
    """The decisions, each read once: that of a version never changes."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._known: dict[tuple[str, str], GateDecision | None] = {}
        self._failed_at_s = -RETRY_S
        self._asking = threading.Lock()

    def __call__(self, key: ModelKey, version: str) -> GateDecision | None:
        """The decision about a version of a model; None if the registry has none or does not answer."""
        if not version.isdigit():  # a baseline that this process fitted itself is in no registry
            return None
        known = (key.name, version)
        with self._asking:
            if known not in self._known and self._clock.monotonic_s() - self._failed_at_s >= RETRY_S:
                try:
                    tags = mlflow_of(self._settings).version(key.name, version).tags
                except BtcError:
                    self._failed_at_s = self._clock.monotonic_s()
                    return None
                reason = tags.get("gate_reason", "")
                decision = GateDecision(passed=tags.get("gate_result") == "passed", reason=reason)
                self._known[known] = decision if reason else None
        return self._known.get(known)
