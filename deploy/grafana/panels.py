"""Define every dashboard panel with its queries and unit, and every alert; `generate.py` writes Grafana's files from them.

The look of a panel does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from btc_core.horizons import minutes_text
from btc_core.models.gate import DEMOTE_COVERAGE_HOURS
from btc_core.names import HEADLINE_MIN, HEADLINE_TEXT, HORIZONS_MIN, HORIZONS_TEXT, LEVELS_PCT, QUANTITIES
from btc_core.tables.sql import of_headline

SQL_RANGE = "$__timeFilter(ts_event) AND symbol = '$symbol' SAMPLE BY $__interval"


@dataclass(frozen=True)
class Panel:
    """One panel. SQL queries go to QuestDB, and their columns name the series; PromQL queries go to Prometheus, each with a legend."""

    title: str
    unit: str
    meaning: str
    sql: tuple[str, ...] = ()
    promql: dict[str, str] = field(default_factory=dict)
    kind: Literal["lines", "bars", "number", "table"] = "lines"
    width: int = 12
    dashed: tuple[str, ...] = ()
    filled: tuple[tuple[str, str], ...] = ()
    """Pairs of columns; the area between the first and the second is filled."""


MARKET = (
    Panel(
        "Bid and ask", "currencyUSD", "Best bid and best ask.",
        (f"SELECT ts_event AS time, last(bid) AS bid, last(ask) AS ask FROM silver_features WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Bid and moving averages", "currencyUSD", "Bid, with the means of the last 5 and 14 bids and an exponential mean.",
        (f"SELECT ts_event AS time, last(bid) AS bid, last(ma_5) AS ma_5, last(ma_14) AS ma_14, last(ema_5) AS ema_5 "
         f"FROM silver_features WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Spread", "bps", "Ask minus bid, divided by mid: mean and maximum.",
        (f"SELECT ts_event AS time, avg(spread_bps) AS mean_bps, max(spread_bps) AS widest_bps FROM silver_features "
         f"WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Order flow", "none", "Order-flow imbalance over 30 s and 5 min, in units of the mean depth at the best bid and ask.",
        (f"SELECT ts_event AS time, last(ofi_30s) AS ofi_30s, last(ofi_300s) AS ofi_300s FROM silver_features "
         f"WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Trade and order-book imbalance", "none",
        "(bought − sold) / traded by the taker's side over 60 s, and the imbalance of the quantities at the best bid and ask.",
        (f"SELECT ts_event AS time, last(trade_sign_imbalance_60s) AS taker_balance_60s, last(top_imbalance) AS top_imbalance "
         f"FROM silver_features WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Volume per minute", "short", "Traded quantity of each minute, in the base asset of the market.",
        ("SELECT ts AS time, volume FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
        kind="bars",
    ),
    Panel(
        "Realized volatility of each minute", "bps", "Square root of the sum of squared 5-second log-mid returns.",
        ("SELECT ts AS time, realized_volatility_bps FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
    ),
    Panel(
        "Trades and quotes per minute", "short", "Number of trades and quotes in each minute.",
        ("SELECT ts AS time, trades, quotes FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
    ),
)  # fmt: skip

_H = HEADLINE_MIN
_IN_WORDS = minutes_text(_H)
_BID = f"bid_{_H}m"
_LAST_BIDS = ", ".join(
    f"last({name}) AS {name}"
    for name in (f"{_BID}_usd", *(f"{_BID}_q{percent}_usd" for percent in ("05", "25", "75", "95")))
)
_BIDS = f"SELECT ts_event, {_LAST_BIDS} FROM gold_bid_price_prediction WHERE {SQL_RANGE}"
_RETURN = f"bid_return_{_H}m_bps"
_SQUARE = f"({_RETURN} - {{0}}) * ({_RETURN} - {{0}})"
_OUTCOMES = (
    "FROM gold_prediction_outcomes WHERE $__timeFilter(ts_event) AND symbol = '$symbol' AND late = false "
    f"AND {of_headline()} SAMPLE BY 30m"
)
_LEAGUE = (
    f"SELECT entry, o.realized_{_H}m_bps * o.realized_{_H}m_bps / (sigma * sigma) AS ratio, o.qlike_model_{_H}m AS champion "
    f"FROM (SELECT ts_event AS ts, entry, sigma_{_H}m_bps AS sigma, symbol AS market FROM gold_league_forecasts "
    "WHERE $__timeFilter(ts_event) AND symbol = '$symbol') l "
    f"JOIN gold_prediction_outcomes o ON l.ts = o.ts_event AND l.market = o.symbol WHERE o.late = false AND o.{of_headline()}"
)
_EVERY = f"$__timeFilter(ts_event) AND symbol = '$symbol' SAMPLE BY {_H}m"
_ORIGINS = (
    f"SELECT ts_event AS ts, first(sigma_{_H}m_bps) AS sigma, first(baseline_sigma_{_H}m_bps) AS harx "
    f"FROM gold_volatility_prediction WHERE {_EVERY}"
)
_OF_OUTCOMES = (
    "FROM gold_prediction_outcomes WHERE $__timeFilter(ts_event) AND symbol = '$symbol' AND late = false "
    f"AND {of_headline()}"
)
if _H == 5:  # the bars of five minutes have a variance of 5-second returns
    _FORECAST_AND_REALIZED = (
        "SELECT o.ts AS time, o.sigma AS forecast, o.harx AS harx, g.realized_volatility_bps AS realized "
        f"FROM ({_ORIGINS}) o JOIN gold_5min g ON o.ts = g.ts WHERE g.symbol = '$symbol'"
    )
    _QLIKE = (
        "SELECT o.ts AS time, "
        "g.realized_variance / (o.sigma * o.sigma * 1e-8) - ln(g.realized_variance / (o.sigma * o.sigma * 1e-8)) - 1 AS model, "
        "g.realized_variance / (o.harx * o.harx * 1e-8) - ln(g.realized_variance / (o.harx * o.harx * 1e-8)) - 1 AS harx "
        f"FROM ({_ORIGINS}) o JOIN gold_5min g ON o.ts = g.ts WHERE g.symbol = '$symbol' AND g.realized_variance > 0"
    )
else:
    _FORECAST_AND_REALIZED = (
        f"SELECT ts_event AS time, sigma_{_H}m_bps AS forecast, realized_{_H}m_bps AS realized {_OF_OUTCOMES}"
    )
    _QLIKE = f"SELECT ts_event AS time, qlike_model_{_H}m AS model, qlike_harx_{_H}m AS harx {_OF_OUTCOMES}"

FORECASTS = (
    Panel(
        f"Bid and its forecast of {_IN_WORDS} ago", "currencyUSD",
        f"The bid, and the forecast that was made {_IN_WORDS} earlier, with its 50 and 90 % intervals.",
        (
            f"SELECT ts_event AS time, last(bid) AS bid FROM gold_bid_price_prediction WHERE {SQL_RANGE}",
            f"SELECT dateadd('m', {_H}, ts_event) AS time, {_BID}_usd AS forecast, {_BID}_q05_usd AS low_90, "
            f"{_BID}_q25_usd AS low_50, {_BID}_q75_usd AS high_50, {_BID}_q95_usd AS high_90 FROM ({_BIDS})",
        ),
        width=24, dashed=("forecast",), filled=(("high_90", "low_90"), ("high_50", "low_50")),
    ),
    Panel(
        "Forecast change of the bid", "bps", "Forecast change for each horizon; 0 is the forecast of the random walk.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"10000 * ln(last(bid_{h}m_usd) / last(bid)) AS in_{h}m" for h in HORIZONS_MIN)
         + f" FROM gold_bid_price_prediction WHERE {SQL_RANGE}",),
    ),
    Panel(
        f"Volatility over {_IN_WORDS}", "bps",
        f"Forecast at the start of each {_H}-minute interval, the forecast of HARX, and the realized volatility of the interval.",
        (_FORECAST_AND_REALIZED,),
        dashed=("harx",),
    ),
    Panel(
        "Volatility by horizon", "bps", f"Forecast volatility over the next {HORIZONS_TEXT}.",
        ("SELECT ts_event AS time, " + ", ".join(f"last(sigma_{h}m_bps) AS over_{h}m" for h in HORIZONS_MIN)
         + f" FROM gold_volatility_prediction WHERE {SQL_RANGE}",),
    ),
    Panel(
        f"QLIKE over {_IN_WORDS}, model and HARX", "none",
        f"RV/F − ln(RV/F) − 1 of each {_H}-minute interval{', with RV from 5-second returns' if _H == 5 else ''}. Lower is better; 0 is perfect.",
        (_QLIKE,),
    ),
    Panel(
        "Volatility: loss relative to the baselines", "none",
        "Mean QLIKE of each half hour, divided by that of each baseline. Below 1, the model is better.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"avg(qlike_model_{_H}m) / avg(qlike_{name}_{_H}m) AS over_{name}" for name in ("harx", "har", "ewma", "naive"))
         + f" {_OUTCOMES}",),
    ),
    Panel(
        "Bid: loss relative to the baselines", "none",
        "Mean squared error of each half hour, divided by that of the random walk and of the autoregression. Below 1, the model is better.",
        (f"SELECT ts_event AS time, avg({_SQUARE.format(f'bid_forecast_{_H}m_bps')}) "
         f"/ avg({_RETURN} * {_RETURN}) AS over_random_walk, "
         f"avg({_SQUARE.format(f'bid_forecast_{_H}m_bps')}) / avg({_SQUARE.format(f'bid_ar_{_H}m_bps')}) AS over_ar {_OUTCOMES}",),
    ),
    Panel(
        "Coverage", "percentunit", "Share of outcomes inside the 50, 80 and 90 % intervals of bid and volatility.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"avg(CASE WHEN {name}_inside_{level} THEN 1.0 ELSE 0.0 END) AS {name}_{level}"
                     for name in QUANTITIES for level in LEVELS_PCT)
         + f" {_OUTCOMES}",),
    ),
    Panel(
        "Serving models", "none", "Volatility models that made the forecasts of the selected time range, the newest last.",
        ("SELECT model_kind AS volatility_model, model_version AS version, count() AS forecasts, max(made_at) AS last_made "
         "FROM gold_volatility_prediction WHERE $__timeFilter(ts_event) AND symbol = '$symbol' ORDER BY last_made",),
        kind="table",
    ),
    Panel(
        "League of the user's models", "none",
        f"Loss (QLIKE) of each model over {_IN_WORDS}, and that of the champion at the same closes. A ratio below 1 is better. None of them serves.",
        (f"SELECT entry, count() AS forecasts, avg(ratio - ln(ratio) - 1) AS qlike, avg(champion) AS champion_qlike, "
         f"avg(ratio - ln(ratio) - 1) / avg(champion) AS ratio_to_champion FROM ({_LEAGUE}) ORDER BY ratio_to_champion",),
        kind="table",
    ),
    Panel(
        "Forecast age", "s", "Age of the newest frame that the newest forecast is based on. Above 10 s the API refuses to serve it.",
        promql={"{{symbol}}": 'btc_forecast_age_seconds{symbol="$symbol"}'}, kind="number", width=6,
    ),
    Panel(
        "Forecasts at the floor", "percentunit",
        f"Share of the forecasts of {HEADLINE_TEXT} in which HARX was raised to its floor, the second percentile of what came in training.",
        promql={"{{symbol}}": 'sum by (symbol) (rate(btc_forecasts_total{symbol="$symbol",at_floor="yes"}[5m])) '
                              '/ sum by (symbol) (rate(btc_forecasts_total{symbol="$symbol"}[5m]))'},
    ),
    Panel(
        "Model age", "h", "Time since the serving model was trained.",
        promql={"{{model}} ({{kind}})": '(time() - btc_model_created_timestamp_seconds{symbol="$symbol"}) / 3600'}, kind="number", width=6,
    ),
)  # fmt: skip


def _p(quantile: float, metric: str, by: str) -> str:
    return f"histogram_quantile({quantile}, sum by (le, {by}) (rate({metric}_bucket[1m])))"


PIPELINE = (
    Panel(
        "Receipt to readable result", "s", "Time until features and forecasts are readable in Redis, and bronze rows in their table.",
        promql={"{{stage}} p50": _p(0.5, "btc_stage_latency_seconds", "stage"),
                "{{stage}} p99": "btc:stage_latency_seconds:p99"},
    ),
    Panel(
        "Exchange to receipt", "s", "Time from an exchange to the receipt, by channel, corrected by the clock offset.",
        promql={"{{exchange}} {{channel}} p50": _p(0.5, "btc_feed_latency_seconds", "exchange, channel"),
                "{{exchange}} {{channel}} p99": _p(0.99, "btc_feed_latency_seconds", "exchange, channel"),
                "{{exchange}} clock offset": "btc_clock_offset_seconds"},
    ),
    Panel(
        "Exchange to forecast, from the tables", "ms", "`made_at` minus the time of the exchange: mean and maximum.",
        (f"SELECT ts_event AS time, avg(made_at::long - ts_event::long) / 1e6 AS mean_ms, "
         f"max(made_at::long - ts_event::long) / 1e6 AS longest_ms FROM gold_bid_price_prediction WHERE {SQL_RANGE}",),
    ),
    Panel(
        "Consumer lag", "short", "Messages whose rows a worker has not written yet.",
        promql={"{{worker}}": "sum by (worker) (btc_consumer_lag_messages)"},
    ),
    Panel(
        "Age of unwritten rows", "s", "Time since a worker took the oldest message whose rows are not written yet.",
        promql={"{{worker}}": "btc_unwritten_age_seconds"},
    ),
    Panel(
        "Frames per second", "cps", "Frames received from the exchanges, by channel.",
        promql={"{{exchange}} {{channel}}": "sum by (exchange, channel) (rate(btc_frames_total[1m]))"},
    ),
    Panel(
        "Rows per second", "cps", "Rows acknowledged by QuestDB, by table.",
        promql={"{{table}}": "sum by (table) (rate(btc_rows_acked_total[1m]))"},
    ),
    Panel(
        "Open gaps", "short", "Open gaps in the trade ids, the number of missing ids in them, and the gaps of the repair worker by state.",
        promql={"open gaps": "sum(btc_gaps_open)", "missing trades": "sum(btc_trades_missing)",
                "repair {{state}}": "sum by (state) (btc_repair_gaps)"},
    ),
    Panel(
        "Trades that are not the next", "cps",
        "Trades by what their ids showed: late (fills_gap), repeated, corrected, or the beginning of another numbering.",
        promql={"{{symbol}} {{verdict}}": 'sum by (symbol, verdict) (rate(btc_trades_total{verdict!="next"}[5m]))',
                "{{symbol}} {{kind}}": "sum by (symbol, kind) (rate(btc_odd_trades_total[5m]))"},
    ),
    Panel(
        "Dead letters, conflation, retries", "cps",
        "Dead letters by reason, frames that were left out under overload, and retries.",
        promql={"dead letter {{reason}}": "sum by (reason) (rate(btc_dead_letters_total[5m]))",
                "conflated {{channel}}": "sum by (channel) (rate(btc_conflated_total[5m]))",
                "retry {{worker}}": "sum by (worker) (rate(btc_retries_total[5m]))"},
    ),
    Panel(
        "Write time p99", "s", "Duration of one acknowledged write, by table.",
        promql={"{{table}}": _p(0.99, "btc_write_seconds", "table")},
    ),
    Panel(
        "Rows not applied", "short", "Transactions of each table that QuestDB has acknowledged and does not show yet.",
        promql={"{{table}}": "btc_questdb_wal_lag_transactions"},
    ),
    Panel(
        "Frames left out for the disk", "cps", "Frames that ingest leaves out while the disk is nearly full.",
        promql={"{{channel}}": "sum by (channel) (rate(btc_disk_left_out_total[5m]))"},
    ),
    Panel(
        "Free disk", "bytes", "Free bytes of the disk that holds the servers' data.",
        promql={"{{path}}": "btc_disk_free_bytes"}, kind="number", width=6,
    ),
    Panel(
        "Disk lasts", "d", "Time until the disk is full at the rate of the last day.",
        promql={"{{path}}": "btc_disk_days_left"}, kind="number", width=6,
    ),
    Panel(
        "Loop age", "s", "Time since the last iteration of a worker's main loop.",
        promql={"{{worker}}": "time() - btc_loop_timestamp_seconds"},
    ),
    Panel(
        "API requests", "reqps", "Requests by route and status.",
        promql={"{{path}} {{status}}": "sum by (path, status) (rate(btc_http_requests_total[1m]))"},
    ),
    Panel(
        "API latency p99", "s", "Time from reading a request to its response.",
        promql={"{{path}}": _p(0.99, "btc_http_request_seconds", "path"), "streams open": "sum(btc_http_streams_open)"},
    ),
    Panel(
        "Gap marks", "none", "Gaps of the selected time range and their state.",
        ("SELECT ts_event AS time, first_id, last_id, state FROM gap_marks "
         "WHERE $__timeFilter(ts_event) AND symbol = '$symbol' ORDER BY ts_event DESC LIMIT 50",),
        kind="table",
    ),
    Panel(
        "Seal age", "h", "Time since the end of the newest sealed day. Above 24 h, a day was not sealed.",
        ("SELECT now() AS time, (now()::long - (max(ts)::long / 1000 + 60000000)) / 3.6e9 AS hours FROM gold_1min_sealed",),
        kind="number", width=6,
    ),
    Panel(
        "Live loss relative to the baselines", "none",
        f"QLIKE of the model at {HEADLINE_TEXT}, divided by that of each baseline, over six hours. Below 1, the model is better.",
        promql={"against {{forecast}}": (
            'sum by (symbol) (btc:outcome_qlike:mean6h{forecast="model",symbol="$symbol"}) / on (symbol) group_right '
            'btc:outcome_qlike:mean6h{forecast!="model",symbol="$symbol"}'
        )},
    ),
    Panel("Processes up", "short", "1 if Prometheus could scrape the process.", promql={"{{process}}": "up"}, kind="number"),
)  # fmt: skip


@dataclass(frozen=True)
class Alert:
    """Fires when `expr` has had a result for the duration `lasting`."""

    name: str
    expr: str
    lasting: str
    summary: str


@dataclass(frozen=True)
class TableAlert:
    """Fires when the result of the SQL query is below a bound. Only Grafana can query a table."""

    name: str
    sql: str
    below: float
    summary: str


def _counted(series: str, window: str, by: str = "") -> str:
    """The condition that a counter has grown, also by its first event: its series begins with that event, not with 0."""
    total = f"sum by ({by}) " if by else "sum"
    return f"{total}(increase({series}[{window}])) > 0 or {total}({series} unless {series} offset {window}) > 0"


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
    Alert("StreamSilent", "btc_forecast_age_seconds > 10 unless on(symbol) btc_forecast_starting == 1", "0s",
          "There has been no new forecast of {{ $labels.symbol }} for {{ $value }} s. Check the feed and the workers."),
    Alert("FeedSilent", "sum by (exchange) (increase(btc_frames_total[15s])) == 0", "10s",
          "The exchange {{ $labels.exchange }} has sent nothing for 15 s. Ingest reconnects automatically; `btc logs ingest` shows its attempts."),
    Alert("ProcessDown", 'up{process!="league"} == 0', "15s", "Prometheus cannot scrape {{ $labels.process }}. `btc status` shows the reason."),
    Alert("LoopStuck", "time() - btc_loop_timestamp_seconds > 60", "0s",
          "The main loop of {{ $labels.worker }} has not completed an iteration for {{ $value }} s. Restart the worker."),
    Alert("GapOpen", "btc_gaps_open > 0", "2m",
          "{{ $value }} gaps in the trade ids of {{ $labels.symbol }} are not repaired. See `btc logs repair`."),
    Alert("RepairRefused", 'btc_repair_gaps{state="refused"} > 0', "0s",
          "{{ $value }} gaps of {{ $labels.symbol }} are not repaired: REST does not know the symbol, or the gap is too large to be real."),
    Alert("RepairBehind", 'btc_repair_gaps{state="behind"} > 0', "1m",
          "REST shows no trade after {{ $value }} gaps of {{ $labels.symbol }} yet, so their trades stay missing."),
    Alert("NothingStored",
          'sum(increase(btc_frames_total{channel="trade"}[5m])) > 20 '
          'unless on() sum(increase(btc_rows_acked_total{table="bronze_trades"}[5m])) > 0 '
          'or sum(increase(btc_frames_total{channel="ticker"}[5m])) > 20 '
          'unless on() sum(increase(btc_rows_acked_total{table="bronze_ticks"}[5m])) > 0 '
          'or sum by (symbol) (increase(btc_trades_total{verdict="duplicate"}[5m])) > 20 '
          'unless on(symbol) sum by (symbol) (increase(btc_trades_total{verdict!="duplicate"}[5m])) > 0', "1m",
          "In five minutes {{ $value }} frames or trades {{ $labels.symbol }} came, and none of them became a row."),
    Alert("TradeIdsOdd", _counted("btc_odd_trades_total", "15m", by="symbol"), "0s",
          "{{ $value }} trades of {{ $labels.symbol }} have ids that jumped, restarted or came again with other values."),
    Alert("TableSuspended", "btc_questdb_suspended > 0", "0s",
          "QuestDB has suspended {{ $labels.table }}: it acknowledges rows and does not show them. Bronze resumes it and loses nothing."),
    Alert("WalBehind", "btc_questdb_wal_lag_transactions > 300", "1m",
          "QuestDB does not show the newest rows of {{ $labels.table }}: {{ $value }} transactions are not applied."),
    Alert("DiskLow", "btc_disk_saving_step > 0", "0s",
          "The disk of {{ $labels.path }} is nearly full. Order books are left out, then superseded quotes, then Kafka is stopped. Free some space."),
    Alert("DiskFilling", "btc_disk_days_left < 2", "15m",
          "The disk of {{ $labels.path }} is full in {{ $value }} days at the rate of the last day."),
    Alert("LatencyHigh", 'btc:stage_latency_seconds:p99{stage="forecast"} > 0.05', "5m",
          "One forecast in a hundred takes more than {{ $value }} s from the receipt of its frame until it is readable."),
    Alert("LagGrowing", "sum by (worker) (min_over_time(btc_consumer_lag_messages[1m])) > 1000", "1m",
          "The worker {{ $labels.worker }} has not written the rows of {{ $value }} messages."),
    Alert("RowsUnwritten", 'btc_unwritten_age_seconds{worker!="repair"} > 30', "0s",
          "The worker {{ $labels.worker }} has held rows for {{ $value }} s that it cannot write. See `btc logs {{ $labels.worker }}`."),
    Alert("RetriesRepeated", "sum by (worker) (increase(btc_retries_total[1m])) > 5", "1m",
          "The worker {{ $labels.worker }} made {{ $value }} retries in a minute. A server that it needs does not answer."),
    Alert("ConsumerReplaced", "sum by (worker) (increase(btc_consumer_rejoins_total[10m])) > 2", "0s",
          "The worker {{ $labels.worker }} joined its group again {{ $value }} times in ten minutes. Look for a second process with its name."),
    Alert("LogBroken", "sum by (worker, problem) (btc_log_breaks_total) > 0", "0s",
          "The log did not fit the offsets of {{ $labels.worker }} ({{ $labels.problem }}). The log of the worker says what it did."),
    Alert("CheckpointFailed", "sum by (worker) (increase(btc_checkpoint_failures_total[10m])) > 2", "0s",
          "The worker {{ $labels.worker }} cannot write its checkpoints. Check the disk: a restart now reads a day of the log."),
    Alert("ModelStale", "time() - btc_model_created_timestamp_seconds > 172800", "5m",
          "The model {{ $labels.model }} of {{ $labels.symbol }} is more than two days old. Check the training job."),
    Alert("MarketWithoutModel", "sum by (symbol) (increase(btc_rows_without_model_total[15m])) > 0", "2h",
          "{{ $labels.symbol }} has had no forecasts for two hours: it has too few minute bars for a model."),
    Alert("ForecastAtFloor",
          'sum by (symbol) (increase(btc_forecasts_total{at_floor="yes"}[1h])) / sum by (symbol) (increase(btc_forecasts_total[1h])) > 0.5', "0s",
          "Most volatility forecasts of {{ $labels.symbol }} are at their floor. Either the market stands still or its model is of another scale."),
    Alert("LeagueEntryFailing", "btc_league_entry_failing == 1", "15m",
          "The model {{ $labels.entry }} of the league has failed for 15 minutes. `btc models` shows the reason."),
    Alert("DeadLetters", _counted("btc_dead_letters_total", "5m", by="reason"), "0s",
          "There are {{ $value }} new dead letters with the reason {{ $labels.reason }}. `btc deadletters` lists them."),
    Alert("BookMismatch", _counted("btc_book_mismatches_total", "5m"), "0s",
          "The checksum of an order book does not match. Ingest renews the subscription; more than one mismatch a day is a bug."),
    Alert("BookUnverified", "btc_book_unverified == 1", "1m",
          "The order book of {{ $labels.symbol }} does not match its checksums however often it is renewed. Ingest continues without it."),
    Alert("SubscriptionDown",
          'max by (channel, symbol) (btc_subscription_state{btc_subscription_state=~"pending|acked|stale|refused"}) == 1', "1m",
          "The exchange does not deliver {{ $labels.channel }} of {{ $labels.symbol }}, or refuses it. `btc logs ingest` has its words."),
    Alert("ConnectionRefused", _counted('btc_connections_total{event=~"http_.*"}', "5m", by="exchange, event"), "0s",
          "The exchange {{ $labels.exchange }} refuses connections with {{ $labels.event }}. Ingest waits as long as the exchange says."),
    Alert("ApiErrors", _counted('btc_http_requests_total{status=~"500|502"}', "5m"), "1m",
          "The API answers with status 500 or 502. Its log has the reasons by request id."),
    Alert("DayUnsealed", 'btc_days_lacking{what="seal"} > 0', "5m",
          "{{ $value }} days of the past week are not sealed, twelve hours or more after their end. See the job seal_day in Dagster."),
    Alert("DayUncopied", 'btc_days_lacking{what="copy"} > 0', "5m",
          "{{ $value }} sealed days of the past week have no copy on the object store. See the asset lake_backups in Dagster."),
    Alert("SealOld", "time() - btc_sealed_until_timestamp_seconds > 172800", "5m",
          "The newest sealed day ended {{ $value }} s ago. Check Dagster and the feed."),
    Alert("BackupOld", "time() - btc_backup_timestamp_seconds > 129600", "5m",
          "The newest backup of the databases of Dagster and MLflow is {{ $value }} s old. See the asset system_backup in Dagster."),
    Alert("CopyOld", "time() - btc_offsite_copy_timestamp_seconds > 129600", "5m",
          "The newest copy at the second place of BTC_BACKUP_COPY_TO is {{ $value }} s old. See the asset offsite_copy in Dagster."),
    Alert("DrillOld", "time() - btc_restore_drill_timestamp_seconds > 1296000", "5m",
          "Copies were last restored as a test {{ $value }} s ago. See the job drill_restore in Dagster."),
    Alert("DrillFailed", "btc_restore_drill_failed > 0", "5m",
          "{{ $value }} copies could not be restored to the rows that were copied. See the check copies_restore in Dagster."),
    Alert("DaemonDown", "btc_dagster_daemon_up == 0", "5m",
          "Dagster's daemon does not work: no day is sealed, no model is trained and no backup is made. `btc status` shows the reason."),
    Alert("ModelDemoted", "time() - btc_model_demoted_timestamp_seconds < 86400", "0s",
          "The model {{ $labels.model }} of {{ $labels.symbol }} was bad and has been replaced by its baseline. `btc models` shows why."),
)  # fmt: skip

_HOURS = "six hours" if DEMOTE_COVERAGE_HOURS == 6 else f"{DEMOTE_COVERAGE_HOURS} hours"
TABLE_ALERTS = tuple(
    TableAlert(
        f"Coverage{name.title()}",
        f"SELECT min(share) AS coverage FROM (SELECT symbol, avg(CASE WHEN {name}_inside_90 THEN 1.0 ELSE 0.0 END) AS share "
        f"FROM gold_prediction_outcomes WHERE late = false AND {of_headline()} AND ts_event > dateadd('h', -{DEMOTE_COVERAGE_HOURS}, now()))",
        0.8,
        f"The 90 % intervals of the {name} of a market contained less than 80 % of the outcomes of {_HOURS}. A tree model that serves "
        "there will be demoted.",
    )
    for name in QUANTITIES
)
