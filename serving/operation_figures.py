"""Figures of `/v1/operations` that come from the metrics of the processes, and the verdict about each part.

What does not belong here: figures of tables (`operations`).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from btc_core import offsite, system_backup
from btc_core.clock import NS_PER_S
from serving.alert_rules import DRILL_MAX_AGE_S, MINUTE_S, stage_buckets, subscriptions
from serving.answers import iso
from serving.operation_answers import (
    AlertState,
    BackupName,
    BackupState,
    BackupWord,
    ChannelRate,
    DeadLetterCount,
    DiskState,
    Part,
    PartName,
    StageLatency,
    Subscription,
    Verdict,
    WorkerProcess,
)
from serving.readiness import market_states
from serving.worker_metrics import KEPT_S, quantile_s

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from serving.deps import Deps
    from serving.worker_metrics import WorkerMetrics

GB = 1e9
NOT_WATCHED = "not watched"
"""What is said about a part whose figures are not there."""


class Figures:
    """The figures of one collection."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics

    def processes(self) -> tuple[WorkerProcess, ...]:
        """The processes whose addresses are known, without a league that has no model to run."""
        return tuple(self._process(name) for name in self._metrics.processes)

    def _process(self, name: str) -> WorkerProcess:
        def values(metric: str) -> list[float]:
            return [each.value for each in self._metrics.now(metric) if each.process == name]

        loops, starts = values("btc_loop_timestamp_seconds"), values("process_start_time_seconds")
        problem = self._metrics.problems.get(name)
        return WorkerProcess(
            name=name,
            up=problem is None and bool(starts),
            loop_age_s=round(max(0.0, time.time() - min(loops)), 1) if loops else None,
            lag_messages=sum(lags) if (lags := values("btc_consumer_lag_messages")) else None,
            unwritten_age_s=max(values("btc_unwritten_age_seconds"), default=None),
            memory_bytes=max(values("process_resident_memory_bytes"), default=None),
            started_at=iso(round(starts[0] * NS_PER_S)) if starts else None,
            problem=problem,
        )

    def stages(self) -> tuple[StageLatency, ...]:
        """Latencies over the last minute."""

        def ms(buckets: dict[float, float], share: float) -> float | None:
            value = quantile_s(buckets, share)
            return None if value is None else round(1_000 * value, 1)

        return tuple(
            StageLatency(stage, ms(buckets, 0.5), ms(buckets, 0.99), int(buckets.get(math.inf, 0.0)))
            for stage, buckets in sorted(stage_buckets(self._metrics).items())
        )

    def subscriptions(self) -> tuple[Subscription, ...]:
        """The subscriptions to the exchange."""
        return tuple(Subscription(*each) for each in subscriptions(self._metrics))

    def channels(self) -> tuple[ChannelRate, ...]:
        """Frames per second of each channel."""
        rates: dict[str, float] = defaultdict(float)
        for each in self._metrics.growth("btc_frames_total", MINUTE_S + 5.0):
            span_s = self._metrics.span_s(each.process, MINUTE_S + 5.0)
            rates[each.labels["channel"]] += each.value / span_s if span_s else 0.0
        return tuple(ChannelRate(channel, round(rate, 2)) for channel, rate in sorted(rates.items()))

    def dead_letters(self) -> tuple[DeadLetterCount, ...]:
        """Messages that could not be used, by reason."""
        recent = {
            (each.process, each.labels["reason"]): each.value
            for each in self._metrics.growth("btc_dead_letters_total", KEPT_S)
        }
        return tuple(
            DeadLetterCount(each.process, reason, int(each.value), int(recent.get((each.process, reason), 0.0)))
            for each in self._metrics.now("btc_dead_letters_total")
            if (reason := each.labels["reason"])
        )

    def backups(self, settings: Settings, made: frozenset[BackupName] | None) -> tuple[BackupState, ...]:
        """The backups; `made` has those that were ever made, None before the object store was read."""
        has_place, is_read = bool(settings.backup.copy_to), made is not None
        has_failed = any(each.value > 0 for each in self._metrics.now("btc_restore_drill_failed"))
        drill_alert = "DrillFailed" if has_failed else "DrillOld"
        found: tuple[tuple[BackupName, str, float, str, bool], ...] = (
            ("databases", "btc_backup_timestamp_seconds", system_backup.MAX_AGE_S, "BackupOld", True),
            ("second_copy", "btc_offsite_copy_timestamp_seconds", offsite.MAX_AGE_S, "CopyOld", has_place),
            ("restore_drill", "btc_restore_drill_timestamp_seconds", DRILL_MAX_AGE_S, drill_alert, True),
        )
        backups = []
        for name, metric, old_after_s, alert, is_set_up in found:
            # Of what was never made, the figure is the first use of the object store.
            times = [each.value for each in self._metrics.now(metric)] if is_set_up and made and name in made else []
            state: BackupWord = "not_set_up" if not is_set_up else "never" if is_read else "unknown"
            if times:
                state = "old" if time.time() - max(times) > old_after_s else "fresh"
            if name == "restore_drill" and has_failed:
                state = "failed"
            at = iso(round(max(times) * NS_PER_S)) if times else None
            backups.append(BackupState(name, state, at, int(old_after_s), settings.links.runbook(alert)))
        return tuple(backups)

    def disk(self) -> DiskState | None:
        """The disk that bronze watches; None if it watches none."""
        free = self._metrics.now("btc_disk_free_bytes")
        if not free:
            return None
        left = [each.value for each in self._metrics.now("btc_disk_days_left") if math.isfinite(each.value)]
        steps = [each.value for each in self._metrics.now("btc_disk_saving_step")]
        return DiskState(
            path=free[0].labels["path"],
            free_bytes=free[0].value,
            days_left=min(left, default=None),
            saving_step=int(max(steps, default=0.0)),
        )


def parts_of(deps: Deps, figures: Figures, alerts: tuple[AlertState, ...]) -> tuple[Part, ...]:
    """Each part with its verdict, and one line about it."""
    words: dict[PartName, str | None] = {
        "feed": _feed(figures),
        "pipeline": _pipeline(figures),
        "forecasts": _forecasts(deps),
        "storage": _storage(figures),
        "models": _models(deps),
    }
    problems: dict[PartName, tuple[str, ...]] = {"models": deps.models.reasons}
    return tuple(_part(name, alerts, summary, problems.get(name, ())) for name, summary in words.items())


def _part(name: PartName, alerts: tuple[AlertState, ...], summary: str | None, problems: tuple[str, ...]) -> Part:
    raised = [each for each in alerts if each.part == name and each.state in {"firing", "pending"}]
    verdict: Verdict = "good" if summary is not None else "unknown"
    if raised:
        is_bad = any(each.state == "firing" and each.is_severe for each in raised)
        verdict = "bad" if is_bad else "warn"
        worst = next((each for each in raised if each.is_severe), raised[0])
        summary = worst.details[0]
    elif problems:
        verdict, summary = "warn", problems[0]
    return Part(name, verdict, NOT_WATCHED if summary is None else summary)


def _feed(figures: Figures) -> str | None:
    channels, states = figures.channels(), figures.subscriptions()
    live = sum(each.state in {"live", "data"} for each in states)
    rate = sum(each.frames_per_s for each in channels)
    pace = f", {rate:.0f} frames/s" if rate else ""
    return f"{live} of {len(states)} subscriptions deliver{pace}" if states else None


def _pipeline(figures: Figures) -> str | None:
    processes = figures.processes()
    if not processes:
        return None
    p99 = {each.stage: each.p99_ms for each in figures.stages()}.get("forecast")
    slow = f", 99 % of forecasts within {p99:.0f} ms" if p99 is not None else ""
    return f"{sum(each.up for each in processes)} of {len(processes)} workers run{slow}"


def _forecasts(deps: Deps) -> str:
    states = market_states(deps)
    ready = [each for each in states if each.status == "ready"]
    if len(ready) == len(states):
        oldest_s = max(each.forecast_age_s or 0.0 for each in states)
        return f"{len(states)} of {len(states)} markets, at most {oldest_s:.1f} s old"
    waiting = next(each for each in states if each.status != "ready")
    if waiting.waits_for:
        return f"starting: waits for {waiting.waits_for[0]}"
    return next(iter(waiting.reasons), waiting.status.replace("_", " "))


def _storage(figures: Figures) -> str | None:
    disk = figures.disk()
    return f"{disk.free_bytes / GB:.0f} GB free" if disk is not None else None


def _models(deps: Deps) -> str:
    loaded = deps.models.current.models
    kinds = sorted({model.kind for model in loaded.values()})
    return (
        f"{len(loaded)} loaded: {', '.join(kind.replace('_', ' ') for kind in kinds)}" if loaded else "none is loaded"
    )
