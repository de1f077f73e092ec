"""Every metric that a process of ours exports, and the endpoint that serves them on loopback.

Names follow Prometheus: seconds, `_total` for counters; every metric has a label, so a process exports only what it
counts. A histogram of a batch takes the batch's oldest message, so load never makes it look better than it is.
What does not belong here: dashboards and rules (`deploy/`), or the live figures a table holds.
"""

from __future__ import annotations

from prometheus_client import Counter, Enum, Gauge, Histogram, Summary, start_http_server

from btc_core.errors import ConfigError

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

SUBSCRIPTION_STATES = ("pending", "acked", "data", "live", "stale", "refused")

LOOP_AT = Gauge("btc_loop_timestamp_seconds", "When a worker's loop last turned.", ["worker"])
RETRIES = Counter("btc_retries", "Work done again because a service was away.", ["worker"])
DEAD_LETTERS = Counter("btc_dead_letters", "What could not be used, by reason.", ["worker", "reason"])

FRAMES = Counter("btc_frames", "Frames received from the exchange.", ["channel"])
CONNECTIONS = Counter("btc_connections", "Connections to the exchange opened, and how each ended.", ["event"])
SUBSCRIPTION = Enum(
    "btc_subscription_state", "State of each subscription.", ["channel", "symbol"], states=list(SUBSCRIPTION_STATES)
)
RESUBSCRIPTIONS = Counter("btc_resubscriptions", "Single subscriptions made anew.", ["channel", "symbol", "reason"])
CLOCK_OFFSET = Gauge("btc_clock_offset_seconds", "The exchange's clock minus ours, from pings.", ["exchange"])
ROUND_TRIP = Histogram("btc_round_trip_seconds", "Ping to pong.", ["exchange"], buckets=LATENCY_BUCKETS_S)
FEED_LATENCY = Histogram(
    "btc_feed_latency_seconds",
    "Exchange time to receipt, clock offset taken out; negative ones count as zero and in the next metric.",
    ["channel"],
    buckets=LATENCY_BUCKETS_S,
)
FEED_LATENCY_NEGATIVE = Counter(
    "btc_feed_latency_negative", "Frames that seem to be received before they were sent.", ["channel"]
)
CONFLATED = Counter(
    "btc_conflated", "Frames left out because newer ones came before Kafka took them.", ["channel", "symbol"]
)
BOOK_MISMATCHES = Counter("btc_book_mismatches", "Book checksums that did not match.", ["symbol"])

CONSUMED = Counter("btc_messages_consumed", "Messages taken from a topic.", ["worker", "topic"])
ACKED_MESSAGES = Counter("btc_messages_acked", "Messages that Kafka acknowledged.", ["worker", "topic"])
ACKED_ROWS = Counter("btc_rows_acked", "Rows that QuestDB acknowledged.", ["table"])
WRITE_TIME = Histogram("btc_write_seconds", "One acknowledged write of rows.", ["table"], buckets=LATENCY_BUCKETS_S)
LAG = Gauge("btc_consumer_lag_messages", "Messages in the log that are not yet taken.", ["worker", "partition"])
STAGE_LATENCY = Histogram(
    "btc_stage_latency_seconds",
    "Receipt of a frame to its result being readable in Redis (features, forecast) or its table (bronze).",
    ["stage"],
    buckets=LATENCY_BUCKETS_S,
)

OPEN_GAPS = Gauge("btc_gaps_open", "Gaps in the trade ids that are neither repaired nor confirmed absent.", ["symbol"])
MISSING_TRADES = Gauge("btc_trades_missing", "Trade ids missing in open gaps.", ["symbol"])
SETTLED_TRADES = Counter("btc_trades_settled", "Missing trade ids that were settled, and how.", ["symbol", "state"])
REPAIR_REQUESTS = Counter("btc_repair_requests", "REST requests of the repair worker.", ["outcome"])

OUTCOME_QLIKE = Summary(
    "btc_outcome_qlike", "QLIKE at five minutes of forecasts that are over, of the model and of each baseline.",
    ["symbol", "forecast"],
)  # fmt: skip
OUTCOMES = Counter(
    "btc_outcomes", "Forecasts that are over, inside or outside the interval of a level at five minutes.",
    ["symbol", "quantity", "level", "inside"],
)  # fmt: skip

HTTP_REQUESTS = Counter("btc_http_requests", "Requests answered by the API.", ["path", "method", "status"])
HTTP_TIME = Histogram(
    "btc_http_request_seconds", "From a read request to its answer, without streams.", ["path"],
    buckets=(0.0002, 0.0005, *LATENCY_BUCKETS_S),
)  # fmt: skip
HTTP_STREAMS = Gauge("btc_http_streams_open", "Open streams of server-sent events.", ["symbol"])
FORECAST_AGE = Gauge("btc_forecast_age_seconds", "Receipt of what the newest forecast knows until now.", ["symbol"])
MODEL_CREATED = Gauge("btc_model_created_timestamp_seconds", "When the model that serves was made.", ["model", "kind"])


def serve(host: str, port: int) -> None:
    """Serve the metrics of this process at `/metrics` from a thread; port 0 serves none. Raises `ConfigError`."""
    if port == 0:
        return
    try:
        start_http_server(port, host)
    except OSError as error:
        msg = f"the metrics cannot be served on {host}:{port} (BTC_METRICS_PORT): {error.strerror or error}"
        raise ConfigError(msg) from error
