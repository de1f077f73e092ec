"""The body of `GET /v1/operations`.

What does not belong here: the other bodies (`answers`), and how the state comes about (`operations`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["good", "warn", "bad", "unknown"]
PartName = Literal["feed", "pipeline", "forecasts", "storage", "models"]


class Part(msgspec.Struct, frozen=True):
    """One part of the system with a verdict: `bad` or `warn` while an alert of it is firing or about to."""

    name: PartName
    verdict: Verdict
    summary: str


class WorkerProcess(msgspec.Struct, frozen=True):
    """A process whose metrics are read. The figures are null while it does not answer."""

    name: str
    up: bool
    loop_age_s: float | None
    """Time since the last iteration of its main loop."""
    lag_messages: float | None
    """Messages whose rows are not written yet."""
    unwritten_age_s: float | None
    """Time since it took the oldest message whose rows are not written."""
    memory_bytes: float | None
    started_at: str | None
    problem: str | None
    """Why it does not answer."""


class StageLatency(msgspec.Struct, frozen=True):
    """Time from the receipt of a frame to a readable result, over the last minute."""

    stage: str
    p50_ms: float | None
    p99_ms: float | None
    results: int


class Subscription(msgspec.Struct, frozen=True):
    """The state of a subscription to the exchange."""

    channel: str
    symbol: str
    state: str


class ChannelRate(msgspec.Struct, frozen=True):
    """Frames of a channel over the last minute."""

    channel: str
    frames_per_s: float


class DeadLetterCount(msgspec.Struct, frozen=True):
    """Messages that a process could not use since it started."""

    process: str
    reason: str
    count: int
    recent: int
    """Those of the last fifteen minutes."""


class TableState(msgspec.Struct, frozen=True):
    """The write-ahead log of a table."""

    table: str
    suspended: bool
    lag_transactions: int
    """Acknowledged and not readable yet."""


class GapMark(msgspec.Struct, frozen=True):
    """A gap in the trade ids and what became of it."""

    ts_event: str
    symbol: str
    first_id: int
    last_id: int
    missing: int
    state: str


class DayState(msgspec.Struct, frozen=True):
    """A past UTC day: whether it is sealed, and which copies the object store has."""

    day: str
    minutes: int
    """Rows of `gold_1min`; 0 if nothing was received on that day."""
    sealed_minutes: int
    """Rows of `gold_1min_sealed`; 0 if the day is not sealed."""
    copied: bool | None
    """Whether `silver_features` of the day has a copy; null if the object store does not answer."""
    archived: bool | None
    """Whether the messages of the day are archived; null if the object store does not answer."""


class DiskState(msgspec.Struct, frozen=True):
    """The disk that holds the servers' data."""

    path: str
    free_bytes: float
    days_left: float | None
    """Days until it is full at the rate of the last day; null while it does not fill, or nobody knows."""
    saving_step: int
    """What is given up: 0 nothing, 1 order books, 2 also superseded quotes, 3 Kafka is stopped."""


class AlertState(msgspec.Struct, frozen=True):
    """An alert of the runbook, judged from what this process can see."""

    name: str
    part: PartName
    is_severe: bool
    """Whether forecasts or stored data suffer while it fires."""
    state: Literal["firing", "pending", "ok", "unknown"]
    """`pending`: its condition holds, but not for `lasting_s` yet. `unknown`: its figures are not there."""
    lasting_s: int
    details: tuple[str, ...]
    """What its condition found; empty unless firing or pending."""
    runbook: str
    """Address of its section, or its place in the repository if `BTC_LINKS_RUNBOOK_URL` is empty."""


class Operations(msgspec.Struct, frozen=True):
    """The state of the whole system as the API sees it, for operators. It is collected every ten seconds."""

    collected_at: str | None
    """Null before the first collection."""
    parts: tuple[Part, ...]
    alerts: tuple[AlertState, ...]
    processes: tuple[WorkerProcess, ...]
    processes_reason: str | None
    """Why no process is listed; null if some are."""
    stages: tuple[StageLatency, ...]
    subscriptions: tuple[Subscription, ...]
    channels: tuple[ChannelRate, ...]
    dead_letters: tuple[DeadLetterCount, ...]
    tables: tuple[TableState, ...]
    gaps: tuple[GapMark, ...]
    days: tuple[DayState, ...]
    disk: DiskState | None
    problems: tuple[str, ...]
    """What could not be collected."""
    simulated: bool
