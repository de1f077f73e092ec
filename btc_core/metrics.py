"""Every metric that our processes export, and the endpoint that serves them and says whether the process works.

Names follow the conventions of Prometheus: seconds, `_total` for counters. Every metric has a label, so a process exports
only the metrics that it sets. A histogram of latency takes the oldest message of a batch: under load it shows the worst
case rather than the average.
What does not belong here: dashboards and rules (`deploy/`), or figures that a table holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Enum, Gauge, Histogram, Summary, make_wsgi_app, start_http_server

from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

HEALTH_PATH = "/healthz"
"""The path that health checks ask: of the native stack, in compose and on Kubernetes."""
MAX_ITERATION_S = 60.0
"""Longest time between two iterations of a healthy process's loop; the alert LoopStuck has the same limit."""

SUBSCRIPTION_STATES = ("pending", "acked", "data", "live", "stale", "refused")

LOOP_AT = Gauge("btc_loop_timestamp_seconds", "Time of the last iteration of a worker's loop.", ["worker"])
RETRIES = Counter("btc_retries", "Retries because a service did not answer.", ["worker"])
DEAD_LETTERS = Counter(
    "btc_dead_letters", "Messages and frames that could not be used, by reason.", ["worker", "reason"]
)

FRAMES = Counter("btc_frames", "Frames received from an exchange.", ["exchange", "channel"])
CONNECTIONS = Counter(
    "btc_connections",
    "Connections to an exchange that were opened, or ended with an error.",
    ["exchange", "event"],
)
LINK_FRAMES = Counter(
    "btc_link_frames",
    "With two connections, frames by the connection that brought them: first, as a copy, or too late; and messages that "
    "only one of them had (only).",
    ["exchange", "link", "outcome"],
)
SUBSCRIPTION = Enum(
    "btc_subscription_state",
    "State of each subscription to the exchange.",
    ["channel", "symbol"],
    states=list(SUBSCRIPTION_STATES),
)
RESUBSCRIPTIONS = Counter(
    "btc_resubscriptions", "Subscriptions that were made again, by reason.", ["channel", "symbol", "reason"]
)
CLOCK_OFFSET = Gauge(
    "btc_clock_offset_seconds",
    "The clock of an exchange minus ours, measured with pings or with the times in its frames.",
    ["exchange"],
)
ROUND_TRIP = Histogram(
    "btc_round_trip_seconds",
    "Round-trip time of a ping, without the time that the exchange took to answer.",
    ["exchange"],
    buckets=LATENCY_BUCKETS_S,
)
FEED_LATENCY = Histogram(
    "btc_feed_latency_seconds",
    "Time from the exchange's timestamp to receipt, corrected by the clock offset; negative times count as zero.",
    ["exchange", "channel"],
    buckets=LATENCY_BUCKETS_S,
)
FEED_LATENCY_NEGATIVE = Counter(
    "btc_feed_latency_negative", "Frames whose corrected latency was negative.", ["exchange", "channel"]
)
CONFLATED = Counter(
    "btc_conflated",
    "Superseded quotes and book frames left out while too many messages waited for Kafka.",
    ["channel", "symbol"],
)
BOOK_MISMATCHES = Counter("btc_book_mismatches", "Order books whose checksum did not match.", ["symbol"])
BOOK_UNVERIFIED = Gauge(
    "btc_book_unverified", "1 while an order book does not match its checksums however often it is renewed.", ["symbol"]
)
FOREIGN_FRAMES = Counter(
    "btc_frames_foreign", "Frames of a market that ingest did not ask for; they are not used.", ["exchange", "channel"]
)

CONSUMED = Counter("btc_messages_consumed", "Messages that a worker handled.", ["worker", "topic"])
ACKED_MESSAGES = Counter("btc_messages_acked", "Published messages that Kafka acknowledged.", ["worker", "topic"])
ACKED_ROWS = Counter("btc_rows_acked", "Written rows that QuestDB acknowledged.", ["table"])
WRITE_TIME = Histogram(
    "btc_write_seconds", "Duration of a write of rows, until it was acknowledged.", ["table"], buckets=LATENCY_BUCKETS_S
)
LAG = Gauge(
    "btc_consumer_lag_messages",
    "Messages of the topic that the worker has not committed yet: it commits them once their rows are written.",
    ["worker", "partition"],
)
UNWRITTEN_AGE = Gauge(
    "btc_unwritten_age_seconds",
    "Time since the worker took the oldest message whose rows are not written yet; 0 when all are written.",
    ["worker"],
)
REJOINS = Counter(
    "btc_consumer_rejoins",
    "New consumers that a worker made because the one it had failed or was replaced.",
    ["worker"],
)
LOG_BREAKS = Counter(
    "btc_log_breaks",
    "Partitions whose log did not fit the committed offset, by problem: other_log, shorter_log or expired.",
    ["worker", "problem"],
)
EXPIRED = Counter(
    "btc_messages_expired", "Messages that left the log before the worker handled them.", ["worker", "topic"]
)
CHECKPOINT_FAILURES = Counter("btc_checkpoint_failures", "Checkpoints that could not be written.", ["worker"])
STAGE_LATENCY = Histogram(
    "btc_stage_latency_seconds",
    "Time from the receipt of a frame until its result is readable in Redis (features, forecast) or its table (bronze).",
    ["stage"],
    buckets=LATENCY_BUCKETS_S,
)

TRADES = Counter(
    "btc_trades",
    "Trades read from the log, by what their ids showed: next, opens_gap, fills_gap (late), duplicate, starts_epoch or "
    "corrects.",
    ["symbol", "verdict"],
)
ODD_TRADE_KINDS = ("epoch", "outlier", "correction")
ODD_TRADES = Counter(
    "btc_odd_trades",
    "Trades with an odd id: epoch (another numbering began), outlier (the next trade did not continue from it) or "
    "correction (the id came before with other values).",
    ["symbol", "kind"],
)
WAL_SUSPENDED = Gauge(
    "btc_questdb_suspended",
    "1 if QuestDB has suspended the table: it acknowledges rows and does not show them.",
    ["table"],
)
WAL_LAG = Gauge(
    "btc_questdb_wal_lag_transactions",
    "Transactions of a table that QuestDB acknowledged and has not applied.",
    ["table"],
)
WAL_RESUMES = Counter("btc_questdb_resumes", "Attempts to resume a table that QuestDB had suspended.", ["table"])

DISK_FREE = Gauge("btc_disk_free_bytes", "Free bytes of the disk that holds the servers' data.", ["path"])
DISK_DAYS_LEFT = Gauge(
    "btc_disk_days_left", "Days until that disk is full, at the rate of the last day; infinite while it does not fill.",
    ["path"],
)  # fmt: skip
DISK_SAVING = Gauge(
    "btc_disk_saving_step",
    "What is given up because the disk fills: 0 nothing, 1 order books, 2 also superseded quotes, 3 Kafka is stopped.",
    ["path"],
)
DISK_LEFT_OUT = Counter(
    "btc_disk_left_out", "Frames that ingest left out because the disk is nearly full.", ["channel", "symbol"]
)

OPEN_GAPS = Gauge("btc_gaps_open", "Gaps in the trade ids that are neither repaired nor confirmed absent.", ["symbol"])
MISSING_TRADES = Gauge("btc_trades_missing", "Trade ids missing in open gaps.", ["symbol"])
SETTLED_TRADES = Counter(
    "btc_trades_settled", "Missing trade ids that were settled: live, repaired or absent.", ["symbol", "state"]
)
REPAIR_REQUESTS = Counter(
    "btc_repair_requests",
    "REST requests of the repair worker: answered, failed, limited or refused.",
    ["exchange", "outcome"],
)
REPAIR_GAPS = Gauge(
    "btc_repair_gaps",
    "Open gaps of the repair worker: searching, behind (REST shows no trade after the gap yet) or refused.",
    ["symbol", "state"],
)

ROWS_WITHOUT_MODEL = Counter(
    "btc_rows_without_model",
    "Feature rows without a forecast, because their market has too few bars for a model.",
    ["symbol"],
)
FORECASTS = Counter(
    "btc_forecasts", "Forecasts made; at_floor says whether HARX's volatility was raised to its floor (yes or no).",
    ["symbol", "at_floor"],
)  # fmt: skip
OUTCOME_QLIKE = Summary(
    "btc_outcome_qlike", "QLIKE of forecasts over the longest horizon whose outcome is final, of the model and of each baseline.",
    ["symbol", "forecast"],
)  # fmt: skip
OUTCOMES = Counter(
    "btc_outcomes", "Final outcomes at the longest horizon, inside or outside the prediction interval of each level.",
    ["symbol", "quantity", "level", "inside"],
)  # fmt: skip

LEAGUE_PREDICT_TIME = Histogram(
    "btc_league_predict_seconds",
    "Time that a model of the league took for one forecast.",
    ["entry"],
    buckets=LATENCY_BUCKETS_S,
)
LEAGUE_ENTRIES = Gauge(
    "btc_league_entries", "The user's own models in the folder that the API sees, which the league must run."
)
LEAGUE_FAILING = Gauge(
    "btc_league_entry_failing", "1 while a model of the league fails, 0 while it forecasts.", ["entry"]
)
LEAGUE_FAILURES = Counter("btc_league_failures", "Failures of a model of the league.", ["entry"])
USER_FEATURE_FAILURES = Counter(
    "btc_user_feature_failures",
    "Minute closes at which a feature of the user raised an error or returned an infinity, so that its value is NaN.",
    ["feature"],
)
USER_MODEL_ROWS = Counter(
    "btc_user_model_rows",
    "Rows of a market in which a user's model is the champion, by what forecast them: `user`, or its stand-in because the model "
    "was `slow`, `failing`, or `starting`.",
    ["symbol", "by"],
)
LEAGUE_SKIPPED = Counter(
    "btc_league_closes_skipped",
    "Minute closes at which the league made no forecast, because the worker was late or the model still at an earlier one.",
    ["entry"],
)

HTTP_REQUESTS = Counter("btc_http_requests", "Requests answered by the API.", ["path", "method", "status"])
HTTP_TIME = Histogram(
    "btc_http_request_seconds", "Time from a complete request to its answer, without streams.", ["path"],
    buckets=(0.0002, 0.0005, *LATENCY_BUCKETS_S),
)  # fmt: skip
HTTP_STREAMS = Gauge("btc_http_streams_open", "Open streams of server-sent events.", ["symbol"])
FORECAST_AGE = Gauge("btc_forecast_age_seconds", "Age of the newest data behind the newest forecast.", ["symbol"])
FORECAST_STARTING = Gauge(
    "btc_forecast_starting",
    "1 in the first minutes in which the API looks for forecasts of a market and has seen none from after its first look.",
    ["symbol"],
)
MODEL_CREATED = Gauge(
    "btc_model_created_timestamp_seconds", "When the serving model was built.", ["symbol", "model", "kind"]
)

DAYS_LACKING = Gauge(
    "btc_days_lacking",
    "Days of the past week that ended more than twelve hours ago and are not sealed (seal), or sealed and not copied (copy).",
    ["what"],
)
SEALED_UNTIL = Gauge("btc_sealed_until_timestamp_seconds", "End of the newest sealed day.", ["table"])
BACKUP_AT = Gauge(
    "btc_backup_timestamp_seconds",
    "When the newest backup of the databases was made; without any, when the object store was first used.",
    ["backup"],
)
COPY_AT = Gauge(
    "btc_offsite_copy_timestamp_seconds",
    "When the newest copy at a second place was made, if one is scheduled; without any, when the object store was first used.",
    ["place"],
)
DRILL_AT = Gauge(
    "btc_restore_drill_timestamp_seconds",
    "When copies were last restored as a test; without any test, when the object store was first used.",
    ["copies"],
)
DRILL_FAILED = Gauge("btc_restore_drill_failed", "Copies that the last test could not restore.", ["copies"])
DAEMON_UP = Gauge("btc_dagster_daemon_up", "1 if Dagster answers and its daemon is healthy.", ["daemon"])
SERVER_UP = Gauge(
    "btc_server_up",
    "1 if a server answers the API, and 0 if it does not. A server that has not answered since the API's start has no value in "
    "the first minutes.",
    ["server"],
)
DEMOTED_AT = Gauge(
    "btc_model_demoted_timestamp_seconds",
    "When the serving model took the place of one that was demoted.",
    ["symbol", "model"],
)


def stuck_loop(now_s: float) -> str:
    """Why this process does not work at `now_s`, in seconds since the epoch; empty if each of its loops iterates."""
    loops = [(sample.value, sample.labels["worker"]) for family in LOOP_AT.collect() for sample in family.samples]
    if not loops:
        return "no loop has completed an iteration yet"
    last_s, name = min(loops)
    if (idle_s := now_s - last_s) > MAX_ITERATION_S:
        return f"the loop {name} has done nothing for {idle_s:.0f} s"
    return ""


def serve(host: str, port: int) -> None:
    """Serve the metrics of this process at `/metrics` and its health at `/healthz`, from a thread; port 0 serves neither.

    `/healthz` answers 200, or 503 with the reason as plain text once a loop has not iterated for `MAX_ITERATION_S`.
    Raises `ConfigError` when the port cannot be used.
    """
    if port == 0:
        return
    try:
        server, _thread = start_http_server(port, host)
    except OSError as error:
        msg = f"the metrics cannot be served on {host}:{port} (BTC_METRICS_PORT): {error.strerror or error}"
        raise ConfigError(msg) from error
    metrics_app = make_wsgi_app()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != HEALTH_PATH:
            return metrics_app(environ, start_response)  # type: ignore[no-any-return] # the library has no types here
        problem = stuck_loop(now_ns() / NS_PER_S)
        start_response(
            "503 Service Unavailable" if problem else "200 OK", [("Content-Type", "text/plain; charset=utf-8")]
        )
        return [(problem or "ok").encode()]

    server.set_app(app)
