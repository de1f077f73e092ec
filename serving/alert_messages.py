"""The messages about alerts, and when they are sent: alerts that fire are grouped, repeated while they last, and called resolved.

What does not belong here: whether an alert fires (`alert_rules`), and sending (`btc_core.stores.contacts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.stores.contacts import Urgency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.settings import AlertSettings

S_PER_H = 3_600.0


class Firing(msgspec.Struct, frozen=True):
    """An alert that fires."""

    name: str
    part: str
    """The part of the system that it is about."""
    is_severe: bool
    details: tuple[str, ...]
    runbook: str
    """Address of its section of the runbook."""


class Message(msgspec.Struct, frozen=True):
    """One message, and the alerts that it is about."""

    title: str
    body: str
    urgency: Urgency
    firing: tuple[str, ...]
    resolved: tuple[str, ...]


class Outbox:
    """What one contact has been told. A message counts only once it has been delivered, so a failed one is made again."""

    def __init__(self, settings: AlertSettings, sender: str) -> None:
        self._settings = settings
        self._sender = sender
        self._told_s: dict[str, float] = {}
        """When the contact was last told that an alert fires."""
        self._new_s: dict[str, float] = {}
        """Since when an alert fires of which the contact knows nothing yet."""
        self._stopped_s: dict[str, float] = {}
        """Since when an alert of which the contact knows has stopped."""

    def due(self, firing: Mapping[str, Firing], now_s: float) -> Message | None:
        """The message that is due now, None if there is none."""
        new = [name for name in firing if name not in self._told_s]
        stopped = [name for name in self._told_s if name not in firing]
        self._new_s = {name: self._new_s.get(name, now_s) for name in new}
        self._stopped_s = {name: self._stopped_s.get(name, now_s) for name in stopped}
        repeat_s = self._settings.repeat_h * S_PER_H
        repeated = [name for name in firing if now_s - self._told_s.get(name, now_s) >= repeat_s]
        resolved = [name for name, since_s in self._stopped_s.items() if now_s - since_s >= self._settings.resolve_s]
        has_waited = any(now_s - since_s >= self._settings.wait_s for since_s in self._new_s.values())
        if not (has_waited or repeated or resolved):
            return None
        return self._message([firing[name] for name in (*new, *repeated)], set(repeated), resolved)

    def delivered(self, message: Message, now_s: float) -> None:
        """Note that the contact has the message."""
        self._told_s |= dict.fromkeys(message.firing, now_s)
        for name in message.resolved:
            del self._told_s[name]

    def _message(self, firing: list[Firing], repeated: set[str], resolved: list[str]) -> Message:
        names = [alert.name for alert in firing]
        parts = ([", ".join(names)] if names else []) + ([f"resolved: {', '.join(resolved)}"] if resolved else [])
        ordered = sorted(firing, key=lambda alert: not alert.is_severe)
        paragraphs = [_paragraph(alert, is_repeated=alert.name in repeated) for alert in ordered]
        paragraphs += [f"{name} is resolved." for name in resolved]
        is_severe = any(alert.is_severe for alert in firing)
        urgency: Urgency = "failure" if is_severe else "warning" if firing else "success"
        title = f"{self._sender}: {'; '.join(parts)}"
        return Message(title, "\n\n".join(paragraphs), urgency, tuple(names), tuple(resolved))


def _paragraph(alert: Firing, *, is_repeated: bool) -> str:
    state = "still fires" if is_repeated else "fires"
    severity = "critical" if alert.is_severe else "warning"
    return "\n".join(
        [f"{alert.name} {state} ({severity}, {alert.part}).", *alert.details, f"What to do: {alert.runbook}"]
    )
