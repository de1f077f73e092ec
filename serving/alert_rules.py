"""The alerts that the API can judge from the metrics of the processes, each as one condition.

Prometheus evaluates the alerts of `deploy/grafana/alerts.py`. A native stack has no Prometheus, so this module repeats
their conditions for the page of operators and for messages; tests judge the same samples with both. What does not belong here:
sending alerts (`alerts`).
"""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Literal

from btc_core import offsite
from btc_core.metrics import MAX_ITERATION_S
from btc_core.models.gate import MIN_OUTCOMES
from btc_core.system_backup import MAX_AGE_S
from serving.operation_answers import AlertState
from serving.worker_metrics import KEPT_S, Series, quantile_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from btc_core.market.messages import ForecastRow
    from btc_core.settings import LinksSettings
    from serving.operation_answers import PartName
    from serving.stored_rows import Scores
    from serving.worker_metrics import WorkerMetrics

MINUTE_S = 60.0
SILENT_S = 15.0
"""No frame of an exchange comes in this time, and again in the next look's."""
MAX_FORECAST_AGE_S = 10.0
MAX_LAG = 1_000.0
MAX_OFFSET_S = 0.5
"""A machine that keeps its clock by NTP is a few milliseconds off."""
COVERAGE_SHARE_PCT = 80.0
DRILL_MAX_AGE_S = 15 * 86_400
"""Copies are restored as a test once a week."""
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


Found = dict[str, str]
"""What a condition found, in words, by what tells one finding from another: how long it lasts is counted for each."""


@dataclass(frozen=True)
class Rule:
    """One alert. `check` returns what it found, nothing if all is well, or None if its figures are not there."""

    name: str
    part: PartName
    lasting_s: int
    check: Callable[[Facts], Found | None]
    is_severe: bool = False
    """Whether forecasts or stored data suffer while it fires."""
    section: str = ""
    """Its section of the runbook, if that has not the name of the alert."""
    note: str = ""
    """A sentence that follows what was found."""


class Judge:
    """Says of each alert whether it fires, from what its rule finds and from how long it has found that."""

    def __init__(self, links: LinksSettings) -> None:
        self._links = links
        self._since_s: dict[str, dict[str, float]] = {}
        """By alert and by what its condition found: since when."""

    def __call__(self, rule: Rule, facts: Facts, now_s: float) -> AlertState:
        """The state of an alert at a monotonic time."""
        found = rule.check(facts)
        before = self._since_s.get(rule.name, {})
        since = self._since_s[rule.name] = {key: before.get(key, now_s) for key in found or ()}
        lasted = [words for key, words in (found or {}).items() if now_s - since[key] >= rule.lasting_s]
        state: Literal["firing", "pending", "ok", "unknown"] = "unknown" if found is None else "ok"
        if found:
            state = "firing" if lasted else "pending"
        details = lasted or list((found or {}).values())
        if details and rule.note:
            details.append(rule.note)
        runbook = self._links.runbook(rule.section or rule.name)
        return AlertState(rule.name, rule.part, rule.is_severe, state, rule.lasting_s, tuple(details), runbook)


def _words(template: str, series: Series, value: float) -> str:
    shown = f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return template.format_map({"process": series.process, "value": shown} | series.labels)


def _key(series: Series) -> str:
    return f"{series.process} {sorted(series.labels.items())}"


def _matches(series: Series, only: dict[str, str]) -> bool:
    """Whether labels match these expressions as a whole, as in a selector of Prometheus."""
    return all(re.fullmatch(pattern, series.labels.get(name, "")) for name, pattern in only.items())


def _summed(found: Iterable[Series], by: Iterable[str]) -> list[Series]:
    """The sums of the series that have the same labels `by`, whichever process exports them."""
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for each in found:
        sums[tuple(each.labels[name] for name in by)] += each.value
    return [Series("", dict(zip(by, labels, strict=True)), value) for labels, value in sums.items()]


def _bad(found: Sequence[Series], is_bad: Callable[[float], bool], template: str) -> Found | None:
    """The series with a bad value; None if there is no series."""
    return {_key(each): _words(template, each, each.value) for each in found if is_bad(each.value)} if found else None


def _above(metric: str, bound: float, template: str, **only: str) -> Callable[[Facts], Found | None]:
    """A gauge is above a bound, of the series whose labels match."""

    def check(facts: Facts) -> Found | None:
        found = [each for each in facts.metrics.now(metric) if _matches(each, only)]
        return _bad(found, lambda value: value > bound, template)

    return check


def _older(metric: str, bound_s: float, template: str, **only: str) -> Callable[[Facts], Found | None]:
    """A time in seconds since the epoch is longer ago than a bound."""

    def check(facts: Facts) -> Found | None:
        found, now_s = facts.metrics.now(metric), time.time()
        aged = [(each, now_s - each.value) for each in found if _matches(each, only)]
        return (
            {_key(each): _words(template, each, round(age)) for each, age in aged if age > bound_s} if found else None
        )

    return check


def _grew(metric: str, window_s: float, bound: float, template: str, **only: str) -> Callable[[Facts], Found | None]:
    """A counter grew by more than a bound within a window, summed by the labels that the template names."""
    by = [name for _, name, _, _ in Formatter().parse(template) if name and name != "value"]

    def check(facts: Facts) -> Found | None:
        if not facts.metrics.growth("btc_http_requests_total", window_s):
            return None  # there are no two readings yet
        grown = [each for each in facts.metrics.growth(metric, window_s) if _matches(each, only)]
        return {_key(each): _words(template, each, each.value) for each in _summed(grown, by) if each.value > bound}

    return check


def _recent(metric: str, window_s: float, template: str) -> Callable[[Facts], Found | None]:
    """A time in seconds since the epoch is not longer ago than a window."""

    def check(facts: Facts) -> Found:
        now_s = time.time()
        return {
            _key(each): _words(template, each, each.value)
            for each in facts.metrics.now(metric)
            if now_s - each.value < window_s
        }

    return check


def _stream_silent(facts: Facts) -> Found | None:
    starting = {each.labels["symbol"] for each in facts.metrics.now("btc_forecast_starting") if each.value}
    found = facts.metrics.now("btc_forecast_age_seconds")
    late = [each for each in found if each.value > MAX_FORECAST_AGE_S and each.labels["symbol"] not in starting]
    template = "the newest forecast of {symbol} is {value} s old"
    return {_key(each): _words(template, each, each.value) for each in late} if found else None


def _process_down(facts: Facts) -> Found | None:
    return facts.metrics.problems if facts.metrics.addresses else None


def _zero(metric: str, template: str) -> Callable[[Facts], Found | None]:
    """A gauge is 0."""

    def check(facts: Facts) -> Found | None:
        return _bad(facts.metrics.now(metric), lambda value: value == 0, template)

    return check


def _clock_off(facts: Facts) -> Found | None:
    found = facts.metrics.now("btc_clock_offset_seconds")
    return _bad(found, lambda value: abs(value) > MAX_OFFSET_S, "the clock of {exchange} is {value} s ahead of ours")


def _feed_silent(facts: Facts) -> Found | None:
    frames = _summed(facts.metrics.growth("btc_frames_total", SILENT_S), ["exchange"])
    return _bad(frames, lambda value: value == 0, "the exchange {exchange} sends nothing")


def _nothing_stored(facts: Facts) -> Found | None:
    frames, rows, trades = (
        facts.metrics.growth(metric, STORED_WINDOW_S)
        for metric in ("btc_frames_total", "btc_rows_acked_total", "btc_trades_total")
    )
    if not frames and not trades:
        return None
    came = {name: sum(each.value for each in frames if each.labels["channel"] == name) for name in STORED_AS}
    stored = {table: sum(each.value for each in rows if each.labels["table"] == table) for table in STORED_AS.values()}
    found = {
        table: f"{came[channel]:.0f} frames of the channel {channel} came, and {table} got no row"
        for channel, table in STORED_AS.items()
        if came[channel] > MIN_CAME and stored[table] == 0
    }
    verdicts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for each in trades:
        verdicts[each.labels["symbol"]][each.labels["verdict"] == "duplicate"] += each.value
    return found | {
        symbol: f"all {duplicates:.0f} trades of {symbol} were taken for duplicates"
        for symbol, (others, duplicates) in verdicts.items()
        if duplicates > MIN_CAME and others == 0
    }


def _disk_filling(facts: Facts) -> Found | None:
    found = [each for each in facts.metrics.now("btc_disk_days_left") if not math.isnan(each.value)]
    full = [each for each in found if each.value < 2.0]
    return (
        {_key(each): f"the disk of {each.labels['path']} is full in {24.0 * each.value:.0f} h" for each in full}
        if found
        else None
    )


def _latency_high(facts: Facts) -> Found | None:
    buckets = stage_buckets(facts.metrics).get("forecast")
    p99 = quantile_s(buckets, 0.99) if buckets else None
    if p99 is None:
        return None
    return {"forecast": f"99 % of the forecasts take up to {1_000 * p99:.0f} ms"} if p99 > 0.05 else {}


def _lag_growing(facts: Facts) -> Found | None:
    lags = _summed(facts.metrics.lowest("btc_consumer_lag_messages", MINUTE_S), ["worker"])
    return _bad(lags, lambda value: value > MAX_LAG, "{worker} has not written {value} messages")


def _subscription_down(facts: Facts) -> Found | None:
    states = subscriptions(facts.metrics)
    waiting = ("pending", "acked", "stale", "refused")
    return (
        {
            f"{channel} {symbol}": f"{channel} of {symbol} is {state}"
            for channel, symbol, state in states
            if state in waiting
        }
        if states
        else None
    )


def _mostly(metric: str, template: str, **only: str) -> Callable[[Facts], Found | None]:
    """More than half of what a counter counted for a market lately has matching labels."""

    def check(facts: Facts) -> Found | None:
        counted: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for each in facts.metrics.growth(metric, KEPT_S):
            counted[each.labels["symbol"]][_matches(each, only)] += each.value
        shares = {symbol: bad / (bad + good) for symbol, (good, bad) in counted.items() if bad + good > 0}
        return {symbol: template.format(symbol=symbol, value=f"{100 * share:.0f} %") for symbol, share in shares.items()
                if share > 0.5} if shares else None  # fmt: skip

    return check


def _coverage(name: str) -> Callable[[Facts], Found | None]:
    def check(facts: Facts) -> Found | None:
        shares = {
            symbol: 100.0 * share
            for symbol, scores in facts.coverage.items()
            if scores.count >= MIN_OUTCOMES and (share := scores.means[f"{name}_inside_90"]) is not None
        }
        low = {symbol: share for symbol, share in shares.items() if share < COVERAGE_SHARE_PCT}
        return (
            {symbol: f"the 90 % intervals of {symbol} held {share:.0f} %" for symbol, share in low.items()}
            if shares
            else None
        )

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
    Rule("ServerDown", "pipeline", 60, _zero("btc_server_up", "the server {server} does not answer"), is_severe=True),
    Rule("LoopStuck", "pipeline", 0, _older("btc_loop_timestamp_seconds", MAX_ITERATION_S, "the loop {worker} has not iterated for {value} s"), is_severe=True),
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
    Rule("LagGrowing", "pipeline", 60, _lag_growing),
    Rule("RowsUnwritten", "pipeline", 0, _above("btc_unwritten_age_seconds", 30, "{worker} holds rows of {value} s ago", worker="(?!repair$).*"), is_severe=True),
    Rule("RetriesRepeated", "pipeline", 60, _grew("btc_retries_total", 65, 5, "{worker} made {value} retries in a minute")),
    Rule("ConsumerReplaced", "pipeline", 0, _grew("btc_consumer_rejoins_total", 600, 2, "{worker} joined its group {value} times in ten minutes")),
    Rule("LogBroken", "pipeline", 0, _above("btc_log_breaks_total", 0, "the log did not fit the offsets of {worker} ({problem})"), is_severe=True),
    Rule("CheckpointFailed", "pipeline", 0, _grew("btc_checkpoint_failures_total", 600, 2, "{worker} could not write {value} checkpoints")),
    Rule("ModelStale", "models", 300, _older("btc_model_created_timestamp_seconds", 172_800, "{model} of {symbol} is {value} s old", kind="(?!random_walk$).*")),
    Rule("MarketWithoutModel", "models", 7_200, _grew("btc_rows_without_model_total", 900, 0, "{symbol} has too few bars for a model")),
    Rule("ForecastAtFloor", "forecasts", 2_700, _mostly("btc_forecasts_total", "{value} of the forecasts of {symbol} are at their floor", at_floor="yes")),
    Rule("LeagueEntryFailing", "models", 900, _above("btc_league_entry_failing", 0, "the model {entry} of the league fails")),
    Rule("StandInServes", "models", 600, _mostly("btc_user_model_rows_total", "a stand-in made {value} of the forecasts of {symbol}", by="(?!user$).*")),
    Rule("DeadLetters", "feed", 0, _grew("btc_dead_letters_total", 300, 0, "{value} dead letters of {worker}: {reason}")),
    Rule("BookMismatch", "feed", 0, _grew("btc_book_mismatches_total", 300, 0, "{value} order books of {symbol} did not match")),
    Rule("BookUnverified", "feed", 60, _above("btc_book_unverified", 0, "the order book of {symbol} does not match its checksums")),
    Rule("SubscriptionDown", "feed", 60, _subscription_down, is_severe=True),
    Rule("ConnectionRefused", "feed", 0, _grew("btc_connections_total", 300, 0, "the exchange {exchange} refused {value} connections: {event}",
                                               event="http_.*")),
    Rule("ClockOff", "feed", 300, _clock_off),
    Rule("ApiErrors", "forecasts", 60, _grew("btc_http_requests_total", 300, 0, "{value} answers of {path} were {status}", status="500|502")),
    Rule("DayUnsealed", "storage", 300, _above("btc_days_lacking", 0, "{value} days of the past week are not sealed", what="seal"), is_severe=True),
    Rule("DayUncopied", "storage", 300, _above("btc_days_lacking", 0, "{value} sealed days of the past week have no copy", what="copy"), is_severe=True),
    Rule("SealOld", "storage", 300, _older("btc_sealed_until_timestamp_seconds", 172_800, "the newest sealed day ended {value} s ago")),
    Rule("BackupOld", "storage", 300, _older("btc_backup_timestamp_seconds", MAX_AGE_S, "the newest backup of the databases is {value} s old")),
    Rule("CopyOld", "storage", 300, _older("btc_offsite_copy_timestamp_seconds", offsite.MAX_AGE_S, "the newest copy at a second place is {value} s old")),
    Rule("DrillOld", "storage", 300, _older("btc_restore_drill_timestamp_seconds", DRILL_MAX_AGE_S, "copies were last restored as a test {value} s ago")),
    Rule("DrillFailed", "storage", 300, _above("btc_restore_drill_failed", 0, "{value} copies could not be restored"), is_severe=True),
    Rule("DaemonDown", "models", 300, _zero("btc_dagster_daemon_up", "Dagster's daemon does not work, so no day is sealed"), is_severe=True),
    Rule("ModelDemoted", "models", 0, _recent("btc_model_demoted_timestamp_seconds", 86_400, "{model} of {symbol} was demoted: a baseline took over")),
    Rule("CoverageBid", "forecasts", 300, _coverage("bid")),
    Rule("CoverageVolatility", "forecasts", 300, _coverage("volatility")),
)  # fmt: skip
"""All of them, in the order of the runbook."""
