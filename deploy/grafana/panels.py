"""What the dashboards show: every panel with its queries and unit, and the alerts. `generate.py` makes Grafana's files.

What does not belong here: how a panel looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from btc_core.names import HORIZONS_MIN, LEVELS_PCT, QUANTITIES

SQL_RANGE = "$__timeFilter(ts_event) AND symbol = '$symbol' SAMPLE BY $__interval"


@dataclass(frozen=True)
class Panel:
    """One panel; SQL goes to QuestDB and names its columns, PromQL goes to Prometheus and has a legend each."""

    title: str
    unit: str
    meaning: str
    sql: tuple[str, ...] = ()
    promql: dict[str, str] = field(default_factory=dict)
    kind: Literal["lines", "bars", "number", "table"] = "lines"
    width: int = 12
    dashed: tuple[str, ...] = ()
    filled: tuple[tuple[str, str], ...] = ()
    """Pairs of columns: the first is filled down to the second."""


MARKET = (
    Panel(
        "Bid and ask", "currencyUSD", "Top of the book.",
        (f"SELECT ts_event AS time, last(bid) AS bid, last(ask) AS ask FROM silver_features WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Bid and its means", "currencyUSD", "Means of the last 5 and 14 bids.",
        (f"SELECT ts_event AS time, last(bid) AS bid, last(ma_5) AS ma_5, last(ma_14) AS ma_14, last(ema_5) AS ema_5 "
         f"FROM silver_features WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Spread", "bps", "Ask minus bid over mid: mean and widest.",
        (f"SELECT ts_event AS time, avg(spread_bps) AS mean_bps, max(spread_bps) AS widest_bps FROM silver_features "
         f"WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Order flow", "none", "Order-flow imbalance over 30 s and 5 min, in mean depths of the top of the book.",
        (f"SELECT ts_event AS time, last(ofi_30s) AS ofi_30s, last(ofi_300s) AS ofi_300s FROM silver_features "
         f"WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Who takes", "none", "(bought − sold) / traded by the taker's side, and the top of the book's imbalance.",
        (f"SELECT ts_event AS time, last(trade_sign_imbalance_60s) AS taker_balance_60s, last(top_imbalance) AS top_imbalance "
         f"FROM silver_features WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Traded a minute", "BTC", "Volume of each minute.",
        ("SELECT ts AS time, volume FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
        kind="bars",
    ),
    Panel(
        "Realized volatility of each minute", "bps", "Root of the summed squared 5-second log-mid returns.",
        ("SELECT ts AS time, realized_volatility_bps FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
    ),
    Panel(
        "Trades and quotes a minute", "short", "Events of each minute.",
        ("SELECT ts AS time, trades, quotes FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
    ),
)  # fmt: skip

_LAST_BIDS = ", ".join(
    f"last({name}) AS {name}"
    for name in ("bid_5m_usd", "bid_5m_q05_usd", "bid_5m_q25_usd", "bid_5m_q75_usd", "bid_5m_q95_usd")
)
_BIDS = f"SELECT ts_event, {_LAST_BIDS} FROM gold_bid_price_prediction WHERE {SQL_RANGE}"
_SQUARE = "(bid_return_5m_bps - {0}) * (bid_return_5m_bps - {0})"
_OUTCOMES = "FROM gold_prediction_outcomes WHERE $__timeFilter(ts_event) AND symbol = '$symbol' SAMPLE BY 30m"
_EVERY_5M = "$__timeFilter(ts_event) AND symbol = '$symbol' SAMPLE BY 5m"
_ORIGINS = (
    "SELECT ts_event AS ts, first(sigma_5m_bps) AS sigma, first(baseline_sigma_5m_bps) AS harx "
    f"FROM gold_volatility_prediction WHERE {_EVERY_5M}"
)

FORECASTS = (
    Panel(
        "Bid, and what was forecast for now", "currencyUSD",
        "The forecast of 5 minutes ago at the time it was for, with its 50 and 90 % intervals, beside the bid that came.",
        (
            f"SELECT ts_event AS time, last(bid) AS bid FROM gold_bid_price_prediction WHERE {SQL_RANGE}",
            f"SELECT dateadd('m', 5, ts_event) AS time, bid_5m_usd AS forecast, bid_5m_q05_usd AS low_90, "
            f"bid_5m_q25_usd AS low_50, bid_5m_q75_usd AS high_50, bid_5m_q95_usd AS high_90 FROM ({_BIDS})",
        ),
        width=24, dashed=("forecast",), filled=(("high_90", "low_90"), ("high_50", "low_50")),
    ),
    Panel(
        "Forecast change of the bid", "bps", "Per horizon; 0 is the random walk.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"10000 * ln(last(bid_{h}m_usd) / last(bid)) AS in_{h}m" for h in HORIZONS_MIN)
         + f" FROM gold_bid_price_prediction WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Volatility over 5 minutes", "bps", "Forecast at the start of each 5 minutes, HARX, and what was realized in them.",
        (f"SELECT o.ts AS time, o.sigma AS forecast, o.harx AS harx, g.realized_volatility_bps AS realized "
         f"FROM ({_ORIGINS}) o JOIN gold_5min g ON o.ts = g.ts WHERE g.symbol = '$symbol'",),
        dashed=("harx",),
    ),
    Panel(
        "Volatility path", "bps", "σ over the next 1 to 5 minutes.",
        ("SELECT ts_event AS time, " + ", ".join(f"last(sigma_{h}m_bps) AS over_{h}m" for h in HORIZONS_MIN)
         + f" FROM gold_volatility_prediction WHERE {SQL_RANGE}",),
    ),
    Panel(
        "QLIKE of 5 minutes, model and HARX", "none",
        "RV/F − ln(RV/F) − 1 of each 5 minutes on the 5-second grid; lower is better, 0 perfect.",
        (f"SELECT o.ts AS time, "
         f"g.realized_variance / (o.sigma * o.sigma * 1e-8) - ln(g.realized_variance / (o.sigma * o.sigma * 1e-8)) - 1 AS model, "
         f"g.realized_variance / (o.harx * o.harx * 1e-8) - ln(g.realized_variance / (o.harx * o.harx * 1e-8)) - 1 AS harx "
         f"FROM ({_ORIGINS}) o JOIN gold_5min g ON o.ts = g.ts WHERE g.symbol = '$symbol' AND g.realized_variance > 0",),
    ),
    Panel(
        "Skill of the volatility", "none", "Mean QLIKE of half an hour over that of each baseline: below 1 is skill.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"avg(qlike_model_5m) / avg(qlike_{name}_5m) AS over_{name}" for name in ("harx", "har", "ewma", "naive"))
         + f" {_OUTCOMES}",),
    ),
    Panel(
        "Skill of the bid", "none",
        "Mean squared error of half an hour over that of the random walk and of the autoregression: below 1 is skill.",
        (f"SELECT ts_event AS time, avg({_SQUARE.format('bid_forecast_5m_bps')}) "
         f"/ avg(bid_return_5m_bps * bid_return_5m_bps) AS over_random_walk, "
         f"avg({_SQUARE.format('bid_forecast_5m_bps')}) / avg({_SQUARE.format('bid_ar_5m_bps')}) AS over_ar {_OUTCOMES}",),
    ),
    Panel(
        "Coverage", "percentunit", "Share of outcomes inside the 50, 80 and 90 % intervals of the bid and the volatility.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"avg(CASE WHEN {name}_inside_{level} THEN 1.0 ELSE 0.0 END) AS {name}_{level}"
                     for name in QUANTITIES for level in LEVELS_PCT)
         + f" {_OUTCOMES}",),
    ),
    Panel(
        "What serves", "none", "Models behind the forecasts of this range, newest last.",
        ("SELECT model_kind AS volatility_model, model_version AS version, count() AS forecasts, max(made_at) AS last_made "
         "FROM gold_volatility_prediction WHERE $__timeFilter(ts_event) AND symbol = '$symbol' ORDER BY last_made",),
        kind="table",
    ),
    Panel(
        "Forecast age", "s", "Receipt of what the newest forecast knows until now; over 10 s nothing is served.",
        promql={"{{symbol}}": "btc_forecast_age_seconds"}, kind="number", width=6,
    ),
    Panel(
        "Model age", "h", "Since the serving model was made.",
        promql={"{{model}} ({{kind}})": "(time() - btc_model_created_timestamp_seconds) / 3600"}, kind="number", width=6,
    ),
)  # fmt: skip


def _p(quantile: float, metric: str, by: str) -> str:
    return f"histogram_quantile({quantile}, sum by (le, {by}) (rate({metric}_bucket[1m])))"


PIPELINE = (
    Panel(
        "Receipt to readable result", "s", "Per stage: features and forecast in Redis, bronze in its table.",
        promql={"{{stage}} p50": _p(0.5, "btc_stage_latency_seconds", "stage"),
                "{{stage}} p99": "btc:stage_latency_seconds:p99"},
    ),
    Panel(
        "Exchange to receipt", "s", "By channel, the clock offset taken out.",
        promql={"{{channel}} p50": _p(0.5, "btc_feed_latency_seconds", "channel"),
                "{{channel}} p99": _p(0.99, "btc_feed_latency_seconds", "channel"),
                "clock offset": "btc_clock_offset_seconds"},
    ),
    Panel(
        "Exchange to forecast, from the tables", "ms", "made_at minus the exchange's time: mean and longest.",
        (f"SELECT ts_event AS time, avg(made_at::long - ts_event::long) / 1e6 AS mean_ms, "
         f"max(made_at::long - ts_event::long) / 1e6 AS longest_ms FROM gold_bid_price_prediction WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Lag", "short", "Messages in the log that a worker has not taken yet.",
        promql={"{{worker}}": "sum by (worker) (btc_consumer_lag_messages)"},
    ),
    Panel(
        "Frames a second", "cps", "From the exchange, by channel.",
        promql={"{{channel}}": "sum by (channel) (rate(btc_frames_total[1m]))"},
    ),
    Panel(
        "Rows a second", "cps", "Acknowledged by QuestDB, by table.",
        promql={"{{table}}": "sum by (table) (rate(btc_rows_acked_total[1m]))"},
    ),
    Panel(
        "Gaps", "short", "Gaps in the trade ids that are open, and the ids missing in them.",
        promql={"open gaps": "sum(btc_gaps_open)", "missing trades": "sum(btc_trades_missing)"},
    ),
    Panel(
        "Refused, conflated, tried again", "cps", "Dead letters by reason, quotes left out under overload, retries.",
        promql={"dead letter {{reason}}": "sum by (reason) (rate(btc_dead_letters_total[5m]))",
                "conflated {{channel}}": "sum by (channel) (rate(btc_conflated_total[5m]))",
                "retry {{worker}}": "sum by (worker) (rate(btc_retries_total[5m]))"},
    ),
    Panel(
        "Write time p99", "s", "One acknowledged write of rows, by table.",
        promql={"{{table}}": _p(0.99, "btc_write_seconds", "table")},
    ),
    Panel(
        "Loop age", "s", "Since a worker's loop last turned.",
        promql={"{{worker}}": "time() - btc_loop_timestamp_seconds"},
    ),
    Panel(
        "API requests", "reqps", "By route and status.",
        promql={"{{path}} {{status}}": "sum by (path, status) (rate(btc_http_requests_total[1m]))"},
    ),
    Panel(
        "API latency p99", "s", "From a read request to its answer.",
        promql={"{{path}}": _p(0.99, "btc_http_request_seconds", "path"), "streams open": "sum(btc_http_streams_open)"},
    ),
    Panel(
        "Gap marks", "none", "Gaps of this range and what became of them.",
        ("SELECT ts_event AS time, first_id, last_id, state FROM gap_marks "
         "WHERE $__timeFilter(ts_event) AND symbol = '$symbol' ORDER BY ts_event DESC LIMIT 50",),
        kind="table",
    ),
    Panel(
        "Seal age", "h", "Since the end of the newest day that was sealed and proven; over 24 h a midnight was missed.",
        ("SELECT now() AS time, (now()::long - (max(ts)::long / 1000 + 60000000)) / 3.6e9 AS hours FROM gold_1min_sealed",),
        kind="number", width=6,
    ),
    Panel(
        "Live loss against baselines", "none", "QLIKE at five minutes of the model over that of each baseline, six hours; below 1 is better.",
        promql={"against {{forecast}}": (
            'sum by (symbol) (btc:outcome_qlike:mean6h{forecast="model"}) / on (symbol) group_right '
            'btc:outcome_qlike:mean6h{forecast!="model"}'
        )},
    ),
    Panel("Processes up", "short", "Scraped in the last round.", promql={"{{process}}": "up"}, kind="number"),
)  # fmt: skip


@dataclass(frozen=True)
class Alert:
    """Fires when the expression has a result for so long."""

    name: str
    expr: str
    lasting: str
    summary: str


@dataclass(frozen=True)
class TableAlert:
    """Fires when the number that the SQL gives is below a bound; only Grafana can ask a table."""

    name: str
    sql: str
    below: float
    summary: str


RECORDED = {
    "btc:stage_latency_seconds:p99": _p(0.99, "btc_stage_latency_seconds", "stage"),
    "btc:frames:rate1m": "sum(rate(btc_frames_total[1m]))",
    "btc:outcome_qlike:mean6h": (
        "sum by (symbol, forecast) (increase(btc_outcome_qlike_sum[6h])) "
        "/ sum by (symbol, forecast) (increase(btc_outcome_qlike_count[6h]))"
    ),
    "btc:outcomes_inside:share6h": (
        'sum by (symbol, quantity, level) (increase(btc_outcomes_total{inside="yes"}[6h])) '
        "/ sum by (symbol, quantity, level) (increase(btc_outcomes_total[6h]))"
    ),
    "btc:http_requests:rate1m": "sum by (path, status) (rate(btc_http_requests_total[1m]))",
}

ALERTS = (
    Alert("StreamSilent", "btc_forecast_age_seconds > 10", "0s",
          "No new forecast of {{ $labels.symbol }} for {{ $value }} s: is the feed up, do the workers run?"),
    Alert("FeedSilent", "sum(increase(btc_frames_total[15s])) == 0", "10s",
          "The exchange has sent nothing for 15 s; ingest connects again by itself, `btc logs ingest` says how it goes."),
    Alert("ProcessDown", "up == 0", "15s", "{{ $labels.process }} does not answer; `btc status` shows why."),
    Alert("LoopStuck", "time() - btc_loop_timestamp_seconds > 60", "0s",
          "The loop of {{ $labels.worker }} has not turned for {{ $value }} s; restart it."),
    Alert("GapOpen", "btc_gaps_open > 0", "2m",
          "{{ $value }} gaps in the trade ids of {{ $labels.symbol }} are not repaired; `btc logs repair`."),
    Alert("LatencyHigh", 'btc:stage_latency_seconds:p99{stage="forecast"} > 0.05', "5m",
          "One forecast in a hundred takes more than {{ $value }} s from receipt to readable."),
    Alert("LagGrowing", "sum by (worker) (btc_consumer_lag_messages) > 1000", "2m",
          "{{ $labels.worker }} is {{ $value }} messages behind."),
    Alert("ModelStale", "time() - btc_model_created_timestamp_seconds > 172800", "5m",
          "{{ $labels.model }} is more than two days old; does the training job run?"),
    Alert("DeadLetters", "sum by (reason) (increase(btc_dead_letters_total[5m])) > 0", "0s",
          "{{ $value }} dead letters ({{ $labels.reason }}); `btc deadletters` lists them."),
    Alert("BookMismatch", "sum(increase(btc_book_mismatches_total[5m])) > 0", "0s",
          "Book checksums do not match; the book is subscribed anew by itself, more than one a day is a bug."),
    Alert("ApiErrors", 'sum(rate(btc_http_requests_total{status=~"500|502"}[5m])) > 0', "1m",
          "The API answers 5xx; its log has the reasons by request id."),
)  # fmt: skip

TABLE_ALERTS = tuple(
    TableAlert(
        f"Coverage{name.title()}",
        f"SELECT avg(CASE WHEN {name}_inside_90 THEN 1.0 ELSE 0.0 END) AS coverage FROM gold_prediction_outcomes "
        "WHERE ts_event > dateadd('h', -6, now())",
        0.8,
        f"The 90 % intervals of the {name} held in less than 80 % of six hours; the champion is about to be demoted.",
    )
    for name in QUANTITIES
)
