"""The alerts that the API can judge from the metrics of the processes, each as one condition.

Prometheus evaluates the alerts of `deploy/grafana/panels.py`. A native stack has no Prometheus, so this module repeats
their conditions for the page of operators and for messages; a test compares names and durations. What does not belong here:
sending alerts (`alerts`).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from btc_core import offsite
from btc_core.models.gate import MIN_OUTCOMES
from btc_core.system_backup import MAX_AGE_S
from serving.worker_metrics import quantile_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from btc_core.market.messages import ForecastRow
    from serving.operation_answers import PartName
    from serving.stored_rows import Scores
    from serving.worker_metrics import Series, WorkerMetrics

MINUTE_S = 60.0
MAX_FORECAST_AGE_S = 10.0
COVERAGE_SHARE_PCT = 80.0
STORED_WINDOW_S = 300.0
STORED_AS = {"trade": "bronze_trades", "ticker": "bronze_ticks"}
"""The table that each frame of these channels must reach."""
MIN_CAME = 20.0
"""Fewer frames or trades may all be repetitions."""


@dataclass(frozen=True)
class Facts:
    """What conditions may look at."""

    metrics: WorkerMetrics
    coverage: dict[str, Scores]
    """Scores of the last `gate.DEMOTE_COVERAGE_HOURS` by symbol."""
    forecasts: Mapping[str, Sequence[ForecastRow]]
    """The forecasts of the last minutes by symbol, oldest first. A market whose newest forecast has expired has none."""


@dataclass(frozen=True)
class Rule:
    """One alert. `check` returns what it found, nothing if all is well, or None if its figures are not there."""

    name: str
    part: PartName
    lasting_s: int
    check: Callable[[Facts], list[str] | None]
    is_severe: bool = False
    """Whether forecasts or stored data suffer while it fires."""
    section: str = ""
    """Its section of the runbook, if that has not the name of the alert."""


def _words(template: str, series: Series, value: float) -> str:
    return template.format_map({"process": series.process, "value": f"{value:,.6g}"} | series.labels)


def _above(metric: str, bound: float, template: str, **only: str) -> Callable[[Facts], list[str] | None]:
    """A gauge is above a bound."""

    def check(facts: Facts) -> list[str] | None:
        found = [each for each in facts.metrics.now(metric) if only.items() <= each.labels.items()]
        return [_words(template, each, each.value) for each in found if each.value > bound] if found else None

    return check


def _older(metric: str, bound_s: float, template: str) -> Callable[[Facts], list[str] | None]:
    """A time in seconds since the epoch is longer ago than a bound."""

    def check(facts: Facts) -> list[str] | None:
        found, now_s = facts.metrics.now(metric), time.time()
        aged = [(each, now_s - each.value) for each in found]
        return [_words(template, each, round(age)) for each, age in aged if age > bound_s] if found else None

    return check


def _grew(
    metric: str, window_s: float, bound: float, template: str, **only: tuple[str, ...]
) -> Callable[[Facts], list[str] | None]:
    """A counter grew by more than a bound within a window."""

    def check(facts: Facts) -> list[str] | None:
        if not facts.metrics.growth("btc_http_requests_total", window_s):
            return None  # there are no two readings yet
        grown = [
            each
            for each in facts.metrics.growth(metric, window_s)
            if all(each.labels.get(name) in values for name, values in only.items())
        ]
        return [_words(template, each, each.value) for each in grown if each.value > bound]

    return check


def _recent(metric: str, window_s: float, template: str) -> Callable[[Facts], list[str] | None]:
    """A time in seconds since the epoch is not longer ago than a window."""

    def check(facts: Facts) -> list[str]:
        now_s = time.time()
        return [
            _words(template, each, each.value) for each in facts.metrics.now(metric) if now_s - each.value < window_s
        ]

    return check


def _stream_silent(facts: Facts) -> list[str] | None:
    starting = {each.labels["symbol"] for each in facts.metrics.now("btc_forecast_starting") if each.value}
    found = facts.metrics.now("btc_forecast_age_seconds")
    late = [each for each in found if each.value > MAX_FORECAST_AGE_S and each.labels["symbol"] not in starting]
    return (
        [_words("the newest forecast of {symbol} is {value} s old", each, each.value) for each in late]
        if found
        else None
    )


def _process_down(facts: Facts) -> list[str] | None:
    return list(facts.metrics.problems.values()) if facts.metrics.addresses else None


def _daemon_down(facts: Facts) -> list[str] | None:
    found = facts.metrics.now("btc_dagster_daemon_up")
    return (
        ["Dagster's daemon does not work, so no day is sealed" for each in found if not each.value] if found else None
    )


def _feed_silent(facts: Facts) -> list[str] | None:
    frames = facts.metrics.growth("btc_frames_total", 25.0)
    if not frames:
        return None
    return [] if sum(each.value for each in frames) > 0 else ["the exchange has sent nothing for 20 s"]


def _nothing_stored(facts: Facts) -> list[str] | None:
    frames, rows, trades = (
        facts.metrics.growth(metric, STORED_WINDOW_S)
        for metric in ("btc_frames_total", "btc_rows_acked_total", "btc_trades_total")
    )
    if not frames:
        return None
    came = {name: sum(each.value for each in frames if each.labels["channel"] == name) for name in STORED_AS}
    stored = {table: sum(each.value for each in rows if each.labels["table"] == table) for table in STORED_AS.values()}
    found = [
        f"{came[channel]:.0f} frames of the channel {channel} came, and {table} got no row"
        for channel, table in STORED_AS.items()
        if came[channel] > MIN_CAME and stored[table] == 0
    ]
    verdicts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for each in trades:
        verdicts[each.labels["symbol"]][each.labels["verdict"] == "duplicate"] += each.value
    return found + [
        f"all {duplicates:.0f} trades of {symbol} were taken for duplicates"
        for symbol, (others, duplicates) in verdicts.items()
        if duplicates > MIN_CAME and others == 0
    ]


def _disk_filling(facts: Facts) -> list[str] | None:
    found = [each for each in facts.metrics.now("btc_disk_days_left") if not math.isnan(each.value)]
    full = [each for each in found if each.value < 2.0]
    return (
        [f"the disk of {each.labels['path']} is full in {24.0 * each.value:.0f} h" for each in full] if found else None
    )


def _latency_high(facts: Facts) -> list[str] | None:
    buckets = stage_buckets(facts.metrics).get("forecast")
    p99 = quantile_s(buckets, 0.99) if buckets else None
    if p99 is None:
        return None
    return [f"99 % of the forecasts take up to {1_000 * p99:.0f} ms"] if p99 > 0.05 else []


def _subscription_down(facts: Facts) -> list[str] | None:
    states = subscriptions(facts.metrics)
    waiting = ("pending", "acked", "stale", "refused")
    return (
        [f"{channel} of {symbol} is {state}" for channel, symbol, state in states if state in waiting]
        if states
        else None
    )


def _at_floor(facts: Facts) -> list[str] | None:
    made: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for each in facts.metrics.growth("btc_forecasts_total", 3_600.0):
        made[each.labels["symbol"]][each.labels["at_floor"] == "yes"] += each.value
    found = {symbol: floor / (floor + above) for symbol, (above, floor) in made.items() if floor + above > 0}
    return [f"{100 * share:.0f} % of the forecasts of {symbol} are at their floor" for symbol, share in found.items()
            if share > 0.5] if found else None  # fmt: skip


def _coverage(name: str) -> Callable[[Facts], list[str] | None]:
    def check(facts: Facts) -> list[str] | None:
        shares = {
            symbol: 100.0 * share
            for symbol, scores in facts.coverage.items()
            if scores.count >= MIN_OUTCOMES and (share := scores.means[f"{name}_inside_90"]) is not None
        }
        low = [(symbol, share) for symbol, share in shares.items() if share < COVERAGE_SHARE_PCT]
        return [f"the 90 % intervals of {symbol} held {share:.0f} %" for symbol, share in low] if shares else None

    return check


def subscriptions(metrics: WorkerMetrics) -> list[tuple[str, str, str]]:
    """Channel, symbol and state of each subscription."""
    return sorted(
        (each.labels["channel"], each.labels["symbol"], each.labels["btc_subscription_state"])
        for each in metrics.now("btc_subscription_state")
        if each.value == 1.0
    )


def stage_buckets(metrics: WorkerMetrics) -> dict[str, dict[float, float]]:
    """The cumulative counts of latency over the last minute by stage and upper bound."""
    stages: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for each in metrics.growth("btc_stage_latency_seconds_bucket", MINUTE_S + 5.0):
        stages[each.labels["stage"]][float(each.labels["le"])] += each.value
    return stages


RULES = (
    Rule("StreamSilent", "forecasts", 0, _stream_silent, is_severe=True),
    Rule("FeedSilent", "feed", 10, _feed_silent, is_severe=True),
    Rule("ProcessDown", "pipeline", 15, _process_down, is_severe=True),
    Rule("LoopStuck", "pipeline", 0, _older("btc_loop_timestamp_seconds", 60, "the loop {worker} has not iterated for {value} s"), is_severe=True),
    Rule("GapOpen", "feed", 120, _above("btc_gaps_open", 0, "{value} gaps of {symbol} are open")),
    Rule("RepairRefused", "feed", 0, _above("btc_repair_gaps", 0, "{value} gaps of {symbol} cannot be repaired", state="refused")),
    Rule("RepairBehind", "feed", 60, _above("btc_repair_gaps", 0, "REST shows no trade after {value} gaps of {symbol}", state="behind")),
    Rule("NothingStored", "feed", 60, _nothing_stored, is_severe=True),
    Rule("TradeIdsOdd", "feed", 0, _grew("btc_odd_trades_total", 900, 0, "{value} trades of {symbol} have odd ids ({kind})")),
    Rule("TableSuspended", "storage", 0, _above("btc_questdb_suspended", 0, "{table} is suspended"), is_severe=True),
    Rule("WalBehind", "storage", 60, _above("btc_questdb_wal_lag_transactions", 300, "{value} transactions of {table} are not readable yet")),
    Rule("DiskLow", "storage", 0, _above("btc_disk_saving_step", 0, "the disk of {path} is nearly full (step {value})"), is_severe=True),
    Rule("DiskFilling", "storage", 900, _disk_filling),
    Rule("LatencyHigh", "pipeline", 300, _latency_high),
    Rule("LagGrowing", "pipeline", 60, _above("btc_consumer_lag_messages", 1_000, "{worker} has not written {value} messages")),
    Rule("RowsUnwritten", "pipeline", 0, _above("btc_unwritten_age_seconds", 30, "{worker} holds rows of {value} s ago"), is_severe=True),
    Rule("RetriesRepeated", "pipeline", 60, _grew("btc_retries_total", 65, 5, "{worker} made {value} retries in a minute")),
    Rule("ConsumerReplaced", "pipeline", 0, _grew("btc_consumer_rejoins_total", 600, 2, "{worker} joined its group {value} times in ten minutes")),
    Rule("LogBroken", "pipeline", 0, _above("btc_log_breaks_total", 0, "the log did not fit the offsets of {worker} ({problem})"), is_severe=True),
    Rule("CheckpointFailed", "pipeline", 0, _grew("btc_checkpoint_failures_total", 600, 2, "{worker} could not write {value} checkpoints")),
    Rule("ModelStale", "models", 300, _older("btc_model_created_timestamp_seconds", 172_800, "{model} of {symbol} is {value} s old")),
    Rule("MarketWithoutModel", "models", 7_200, _grew("btc_rows_without_model_total", 900, 0, "{symbol} has too few bars for a model")),
    Rule("ForecastAtFloor", "forecasts", 0, _at_floor),
    Rule("LeagueEntryFailing", "models", 900, _above("btc_league_entry_failing", 0, "the model {entry} of the league fails")),
    Rule("DeadLetters", "feed", 0, _grew("btc_dead_letters_total", 300, 0, "{value} dead letters of {worker}: {reason}")),
    Rule("BookMismatch", "feed", 0, _grew("btc_book_mismatches_total", 300, 0, "{value} order books of {symbol} did not match")),
    Rule("BookUnverified", "feed", 60, _above("btc_book_unverified", 0, "the order book of {symbol} does not match its checksums")),
    Rule("SubscriptionDown", "feed", 60, _subscription_down, is_severe=True),
    Rule("ConnectionRefused", "feed", 0, _grew("btc_connections_total", 300, 0, "the exchange refused {value} connections: {event}",
                                               event=tuple(f"http_{status}" for status in range(400, 600)))),
    Rule("ApiErrors", "forecasts", 60, _grew("btc_http_requests_total", 300, 0, "{value} answers of {path} were {status}", status=("500", "502"))),
    Rule("DayUnsealed", "storage", 300, _above("btc_days_lacking", 0, "{value} days of the past week are not sealed", what="seal"), is_severe=True),
    Rule("DayUncopied", "storage", 300, _above("btc_days_lacking", 0, "{value} sealed days of the past week have no copy", what="copy"), is_severe=True),
    Rule("SealOld", "storage", 300, _older("btc_sealed_until_timestamp_seconds", 172_800, "the newest sealed day ended {value} s ago")),
    Rule("BackupOld", "storage", 300, _older("btc_backup_timestamp_seconds", MAX_AGE_S, "the newest backup of the databases is {value} s old")),
    Rule("CopyOld", "storage", 300, _older("btc_offsite_copy_timestamp_seconds", offsite.MAX_AGE_S, "the newest copy at a second place is {value} s old")),
    Rule("DrillOld", "storage", 300, _older("btc_restore_drill_timestamp_seconds", 1_296_000, "copies were last restored as a test {value} s ago")),
    Rule("DrillFailed", "storage", 300, _above("btc_restore_drill_failed", 0, "{value} copies could not be restored"), is_severe=True),
    Rule("DaemonDown", "models", 300, _daemon_down, is_severe=True),
    Rule("ModelDemoted", "models", 0, _recent("btc_model_demoted_timestamp_seconds", 86_400, "{model} of {symbol} was demoted to its baseline")),
    Rule("CoverageBid", "forecasts", 0, _coverage("bid")),
    Rule("CoverageVolatility", "forecasts", 0, _coverage("volatility")),
)  # fmt: skip
"""All of them, in the order of the runbook."""
