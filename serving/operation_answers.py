"""The body of `GET /v1/operations`.

What does not belong here: the other bodies (`answers`), and how the state comes about (`operations`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from serving.utc_time import UtcTime

Verdict = Literal["good", "warn", "bad", "unknown"]
PartName = Literal["feed", "pipeline", "forecasts", "storage", "models"]


class Part(msgspec.Struct, frozen=True):
    """One part of the system with a verdict: `bad` or `warn` while an alert of it is firing or about to."""

    name: PartName
    """Name of the part."""
    verdict: Verdict
    """`unknown` if its figures are not there."""
    summary: str
    """One line about it: the worst finding, or how it is."""


class WorkerProcess(msgspec.Struct, frozen=True):
    """A process whose metrics are read. The figures are null while it does not answer."""

    name: str
    """Name of the process."""
    up: bool
    """Whether it answers."""
    loop_age_s: float | None
    """Time since the last iteration of its main loop."""
    lag_messages: float | None
    """Messages whose rows are not written yet."""
    unwritten_age_s: float | None
    """Time since it took the oldest message whose rows are not written."""
    memory_bytes: float | None
    """Memory that it occupies."""
    started_at: UtcTime | None
    """When it was started."""
    problem: str | None
    """Why it does not answer."""


class ServerState(msgspec.Struct, frozen=True):
    """A server that the system runs on, as the API sees it, which asks every 15 seconds."""

    name: str
    """Name of the server."""
    up: bool | None
    """Null while it has not answered the API yet, in the first minutes of the API."""
    problem: str | None
    """Why it cannot be used."""
    runbook: str
    """Address of the section about servers, or its place in the repository if `BTC_LINKS_RUNBOOK_URL` is empty."""


class StageLatency(msgspec.Struct, frozen=True):
    """Time from the receipt of a frame to a readable result, over the last minute."""

    stage: str
    """What the result is of, such as `forecast`."""
    p50_ms: float | None
    """Median; null without a result."""
    p99_ms: float | None
    """Time that 99 of 100 results stay below; null without a result."""
    results: int
    """Number of results."""


class Subscription(msgspec.Struct, frozen=True):
    """The state of a subscription to the exchange."""

    channel: str
    """Channel of the exchange."""
    symbol: str
    """Market, such as BTC/USD."""
    state: str
    """`live` or `data` while it delivers; otherwise what it waits for or why it does not."""


class ChannelRate(msgspec.Struct, frozen=True):
    """Frames of a channel over the last minute."""

    channel: str
    """Channel of the exchange."""
    frames_per_s: float
    """Frames per second of all markets."""


class DeadLetterCount(msgspec.Struct, frozen=True):
    """Messages that a process could not use since it started."""

    process: str
    """Name of the process."""
    reason: str
    """Code of the reason."""
    count: int
    """Those since its start."""
    recent: int
    """Those of the last fifteen minutes."""


class TableState(msgspec.Struct, frozen=True):
    """The write-ahead log of a table."""

    table: str
    """Name of the table."""
    suspended: bool
    """Whether QuestDB has stopped to apply its writes."""
    lag_transactions: int
    """Acknowledged and not readable yet."""


class GapMark(msgspec.Struct, frozen=True):
    """A gap in the trade ids and what became of it."""

    ts_event: UtcTime
    """Exchange time of the trade that showed the gap."""
    symbol: str
    """Market, such as BTC/USD."""
    first_id: int
    """First missing trade id."""
    last_id: int
    """Last missing trade id."""
    missing: int
    """Number of ids that are still missing."""
    state: str
    """`open` until the trades are repaired or proven to be absent."""


class DayState(msgspec.Struct, frozen=True):
    """A past UTC day: whether it is sealed, and which copies the object store has."""

    day: str
    """The day, YYYY-MM-DD."""
    minutes: int
    """Rows of `gold_1min`; 0 if nothing was received on that day."""
    sealed_minutes: int
    """Rows of `gold_1min_sealed`; 0 if the day is not sealed."""
    copied: bool | None
    """Whether `silver_features` of the day has a copy; null if the object store does not answer."""
    archived: bool | None
    """Whether the messages of the day are archived; null if the object store does not answer."""


BackupName = Literal["databases", "second_copy", "restore_drill"]
BackupWord = Literal["fresh", "old", "failed", "never", "not_set_up", "unknown"]


class BackupState(msgspec.Struct, frozen=True):
    """When the databases were saved, the copy at a second place was made, or copies were restored as a test."""

    name: BackupName
    """`databases`: the backup of the databases of Dagster and MLflow, the settings and the user's models."""
    state: BackupWord
    """`old`: longer ago than `old_after_s`, for which an alert fires. `failed`: the last test could not restore a copy.
    `not_set_up`: `BTC_BACKUP_COPY_TO` names no second place. `unknown`: the object store has not answered yet."""
    at: UtcTime | None
    """When it was last done; null if that is not known, or never happened."""
    old_after_s: int
    """Age from which it is old."""
    runbook: str
    """Address of the section of its alert, or its place in the repository, as in `alerts`."""


class DiskState(msgspec.Struct, frozen=True):
    """The disk that holds the servers' data."""

    path: str
    """A directory on the disk."""
    free_bytes: float
    """Free space."""
    days_left: float | None
    """Days until it is full at the rate of the last day; null while it does not fill, or nobody knows."""
    saving_step: int
    """What is given up: 0 nothing, 1 order books, 2 also superseded quotes, 3 Kafka is stopped."""


class AlertState(msgspec.Struct, frozen=True):
    """An alert of the runbook, judged from what this process can see."""

    name: str
    """Name of the alert."""
    part: PartName
    """The part of the system that it is about."""
    is_severe: bool
    """Whether forecasts or stored data suffer while it fires."""
    state: Literal["firing", "pending", "ok", "unknown"]
    """`pending`: its condition holds, but not for `lasting_s` yet. `unknown`: its figures are not there."""
    lasting_s: int
    """How long its condition must hold before it fires."""
    details: tuple[str, ...]
    """What its condition found; empty unless firing or pending."""
    runbook: str
    """Address of its section, or its place in the repository if `BTC_LINKS_RUNBOOK_URL` is empty. The API shows that file at
    `/runbook`, with the same anchors."""


class Operations(msgspec.Struct, frozen=True):
    """The state of the whole system as the API sees it, for operators. It is collected every ten seconds."""

    collected_at: UtcTime | None
    """Null before the first collection."""
    parts: tuple[Part, ...]
    """Each part of the system with a verdict; empty before the first collection."""
    alerts: tuple[AlertState, ...]
    """Every alert, in the order of the runbook, then those of the user."""
    processes: tuple[WorkerProcess, ...]
    """The workers whose metrics are read."""
    processes_reason: str | None
    """Why no process is listed; null if some are."""
    servers: tuple[ServerState, ...]
    """The servers that the API watches."""
    stages: tuple[StageLatency, ...]
    """Latencies over the last minute."""
    subscriptions: tuple[Subscription, ...]
    """The subscriptions to the exchange."""
    channels: tuple[ChannelRate, ...]
    """The rate of each channel of the exchange."""
    dead_letters: tuple[DeadLetterCount, ...]
    """Messages that could not be used, by process and reason."""
    tables: tuple[TableState, ...]
    """Tables with a write-ahead log, those with a problem first."""
    gaps: tuple[GapMark, ...]
    """Gaps in the trade ids of the last seven days, newest first."""
    days: tuple[DayState, ...]
    """The last seven days, newest first."""
    backups: tuple[BackupState, ...]
    """The backup of the databases, the copy at a second place, and the last restore drill."""
    disk: DiskState | None
    """The disk that is watched; null if none is."""
    problems: tuple[str, ...]
    """What could not be collected."""
    simulated: bool
    """True if the market is made up by the simulator."""


class Finding(msgspec.Struct, frozen=True):
    """One check of the system."""

    subject: str
    """What was checked: a server, or something that is stored."""
    problem: str | None
    """What is wrong and what to do; null if nothing is."""


class Diagnosis(msgspec.Struct, frozen=True):
    """What the checks found. `btc doctor` on the machine also looks at its disk, its memory and the processes."""

    healthy: bool
    """Whether no check found anything."""
    findings: tuple[Finding, ...]
    """Every check, with what it found."""
    checked_at: UtcTime
    """When the servers were asked."""
    took_s: float
    """How long the checks took."""
    kept_s: float
    """How long this answer is given again before the servers are asked again."""
    simulated: bool
    """True if the market is made up by the simulator."""
