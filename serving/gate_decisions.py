"""What the gate decided about the loaded models and which versions it refused, from the registry.

What does not belong here: deciding (`btc_core.models.gate`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from btc_core.errors import BtcError
from btc_core.registry.bundles import mlflow_of
from btc_core.registry.promotion import TAKEN_OVER_TAG
from btc_core.registry.shadows import RefusedVersion, refused_version
from serving.answers import iso
from serving.model_answers import GateDecision, RefusedModel

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
                decision = GateDecision(tags.get("gate_result") == "passed", reason, tags.get(TAKEN_OVER_TAG))
                self._known[known] = decision if reason else None
        return self._known.get(known)

    def known(self, key: ModelKey, version: str) -> GateDecision | None:
        """The decision if it has been read already; the registry is not asked."""
        return self._known.get((key.name, version))


class RefusedModels:
    """The versions that the gate has refused, each looked up once in `RETRY_S`, because its score in shadow changes."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._known: dict[str, tuple[float, RefusedModel | None]] = {}
        self._failed_at_s = -RETRY_S
        self._asking = threading.Lock()

    def __call__(self, key: ModelKey) -> RefusedModel | None:
        """The refused version of a model; None if there is none, and while the registry has never answered.

        One request asks the registry, and the others meanwhile get what was known before.
        """
        if self._asking.acquire(blocking=False):
            try:
                self._refresh(key)
            finally:
                self._asking.release()
        return self._known.get(key.name, (0.0, None))[1]

    def _refresh(self, key: ModelKey) -> None:
        at_s = self._known.get(key.name, (-RETRY_S, None))[0]
        if self._clock.monotonic_s() - max(at_s, self._failed_at_s) < RETRY_S:
            return
        try:
            found = refused_version(self._settings, key)
        except BtcError:
            self._failed_at_s = self._clock.monotonic_s()
            return
        self._known[key.name] = (self._clock.monotonic_s(), None if found is None else _refused_model(found))


def _refused_model(found: RefusedVersion) -> RefusedModel:
    score = found.score
    if score is None:
        return RefusedModel(found.version, found.kind, found.reason, None, None, 0, None, None)
    return RefusedModel(
        found.version,
        found.kind,
        found.reason,
        score.ratio,
        score.bound,
        score.rows,
        iso(score.from_ns),
        iso(score.to_ns),
    )
