"""Define every dashboard panel with its queries, unit, bounds and links, and the marks in the charts.

`generate.py` writes Grafana's files from them. Queries that are put together from parts are in `queries`.
The look of a panel and the alerts (`alerts`) do not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from btc_core.horizons import minutes_text
from btc_core.metrics import MAX_ITERATION_S
from btc_core.names import HEADLINE_MIN, HEADLINE_TEXT, HORIZONS_MIN, HORIZONS_TEXT, LEVELS_PCT, QUANTITIES
from btc_core.tables.sql import inside_share
from deploy.grafana import queries
from deploy.grafana.queries import SQL_RANGE, percentile

USD = "suffix:USD"
BPS = "suffix:bps"
"""Grafana writes what follows `suffix:` behind the value and does not scale it: its own `currencyUSD` shows 65432.1 as $65.4K,
and its own `bps` means bits per second."""
DECIMALS = {USD: 2}
"""Without a number of decimals Grafana shows two or three significant digits, and no decimals of 65432.1."""


@dataclass(frozen=True)
class Panel:
    """One panel. SQL queries go to QuestDB, and their columns name the series; PromQL queries go to Prometheus, each with a legend."""

    title: str
    unit: str
    """An id of Grafana's value formats."""
    meaning: str
    sql: tuple[str, ...] = ()
    promql: dict[str, str] = field(default_factory=dict)
    kind: Literal["lines", "bars", "number", "table"] = "lines"
    width: int = 12
    dashed: tuple[str, ...] = ()
    filled: tuple[tuple[str, str], ...] = ()
    """Pairs of columns; the area between the first and the second is filled."""
    columns: dict[str, str] = field(default_factory=dict)
    """The units of columns of a table that have another one."""
    red_above: float | None = None
    """The values that are bad: a number turns red there and is green elsewhere, and a chart has a red area."""
    red_below: float | None = None
    alerts: tuple[str, ...] = ()
    """The alerts about what it shows. It links to their sections of the runbook."""
    see: tuple[str, ...] = ()
    """Titles of panels that show more about it. It links to them."""


@dataclass(frozen=True)
class Mark:
    """Events that are marked in all charts: rows of a query with `time` and `text`, or values in ms since the epoch with a text."""

    name: str
    colour: str
    sql: str = ""
    promql: str = ""
    text: str = ""


MARKS = (
    Mark("Promotions", "purple", queries.PROMOTIONS),
    Mark("Gaps", "orange", queries.GAPS),
    Mark("Seals", "green", queries.SEALS),
    Mark("Restarts", "red", promql="process_start_time_seconds * 1000", text="{{process}} started"),
)

_H = HEADLINE_MIN
_IN_WORDS = minutes_text(_H)

MARKET = (
    Panel(
        "Bid and ask", USD, "Best bid and best ask.",
        (f"SELECT ts_event AS time, last(bid) AS bid, last(ask) AS ask FROM silver_features WHERE {SQL_RANGE}",),
        alerts=("FeedSilent", "SubscriptionDown"), see=("Spread", "Exchange to receipt"),
    ),
    Panel(
        "Bid and moving averages", USD, "Bid, with the means of the last 5 and 14 bids and an exponential mean.",
        (f"SELECT ts_event AS time, last(bid) AS bid, last(ma_5) AS ma_5, last(ma_14) AS ma_14, last(ema_5) AS ema_5 "
         f"FROM silver_features WHERE {SQL_RANGE}",),
        see=("Bid and ask", f"Bid and its forecast of {_IN_WORDS} ago"),
    ),
    Panel(
        "Spread", BPS, "Ask minus bid, divided by mid: mean and maximum.",
        (f"SELECT ts_event AS time, avg(spread_bps) AS mean_bps, max(spread_bps) AS widest_bps FROM silver_features "
         f"WHERE {SQL_RANGE}",),
        see=("Bid and ask",),
    ),
    Panel(
        "Order flow", "none", "Order-flow imbalance over 30 s and 5 min, in units of the mean depth at the best bid and ask.",
        (f"SELECT ts_event AS time, last(ofi_30s) AS ofi_30s, last(ofi_300s) AS ofi_300s FROM silver_features "
         f"WHERE {SQL_RANGE}",),
        alerts=("BookMismatch", "BookUnverified"), see=("Trade and order-book imbalance",),
    ),
    Panel(
        "Trade and order-book imbalance", "none",
        "(bought − sold) / traded by the taker's side over 60 s, and the imbalance of the quantities at the best bid and ask.",
        (f"SELECT ts_event AS time, last(trade_sign_imbalance_60s) AS taker_balance_60s, last(top_imbalance) AS top_imbalance "
         f"FROM silver_features WHERE {SQL_RANGE}",),
        see=("Order flow",),
    ),
    Panel(
        "Volume per minute", "none", "Traded quantity of each minute, in the base asset of the market.",
        ("SELECT ts AS time, volume FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
        kind="bars", see=("Trades and quotes per minute",),
    ),
    Panel(
        "Realized volatility of each minute", BPS, "Square root of the sum of squared 5-second log-mid returns.",
        ("SELECT ts AS time, realized_volatility_bps FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
        see=(f"Volatility over {_IN_WORDS}",),
    ),
    Panel(
        "Trades and quotes per minute", "none", "Number of trades and quotes in each minute.",
        ("SELECT ts AS time, trades, quotes FROM gold_1min WHERE $__timeFilter(ts) AND symbol = '$symbol'",),
        alerts=("NothingStored",), see=("Frames per second", "Rows per second"),
    ),
)  # fmt: skip

FORECASTS = (
    Panel(
        f"Bid and its forecast of {_IN_WORDS} ago", USD,
        f"The bid, and the forecast that was made {_IN_WORDS} earlier, with its 50 and 90 % intervals.",
        (
            f"SELECT ts_event AS time, last(bid) AS bid FROM gold_bid_price_prediction WHERE {SQL_RANGE}",
            queries.BID_FORECASTS,
        ),
        width=24, dashed=("forecast",), filled=(("high_90", "low_90"), ("high_50", "low_50")),
        alerts=("StreamSilent",), see=("Coverage", "Bid: loss relative to the baselines"),
    ),
    Panel(
        "Forecast change of the bid", BPS, "Forecast change for each horizon; 0 is the forecast of the random walk.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"10000 * ln(last(bid_{h}m_usd) / last(bid)) AS in_{h}m" for h in HORIZONS_MIN)
         + f" FROM gold_bid_price_prediction WHERE {SQL_RANGE}",),
        see=("Bid: loss relative to the baselines",),
    ),
    Panel(
        f"Volatility over {_IN_WORDS}", BPS,
        f"Forecast at the start of each {_H}-minute interval, the forecast of HARX, and the realized volatility of the interval.",
        (queries.FORECAST_AND_REALIZED,),
        dashed=("harx",), alerts=("ForecastAtFloor",), see=(f"QLIKE over {_IN_WORDS}, model and HARX", "Serving models"),
    ),
    Panel(
        "Volatility by horizon", BPS, f"Forecast volatility over the next {HORIZONS_TEXT}.",
        ("SELECT ts_event AS time, " + ", ".join(f"last(sigma_{h}m_bps) AS over_{h}m" for h in HORIZONS_MIN)
         + f" FROM gold_volatility_prediction WHERE {SQL_RANGE}",),
        see=(f"Volatility over {_IN_WORDS}",),
    ),
    Panel(
        f"QLIKE over {_IN_WORDS}, model and HARX", "none",
        f"RV/F − ln(RV/F) − 1 of each {_H}-minute interval{', with RV from 5-second returns' if _H == 5 else ''}. Lower is better; 0 is perfect.",
        (queries.QLIKE,),
        see=("Volatility: loss relative to the baselines",),
    ),
    Panel(
        "Volatility: loss relative to the baselines", "none",
        "Mean QLIKE of each half hour, divided by that of each baseline. Below 1, the model is better.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"avg(qlike_model_{_H}m) / avg(qlike_{name}_{_H}m) AS over_{name}" for name in ("harx", "har", "ewma", "naive"))
         + f" {queries.OUTCOMES}",),
        red_above=1.0, alerts=("ModelDemoted",), see=("Live loss relative to the baselines", "League of the user's models"),
    ),
    Panel(
        "Bid: loss relative to the baselines", "none",
        "Mean squared error of each half hour, divided by that of the random walk and of the autoregression. Below 1, the model is better.",
        (queries.BID_LOSSES,),
        red_above=1.0, alerts=("ModelDemoted",), see=("Coverage",),
    ),
    Panel(
        "Coverage", "percentunit", "Share of outcomes inside the 50, 80, 90 and 99 % intervals of bid and volatility.",
        ("SELECT ts_event AS time, "
         + ", ".join(f"{inside_share(name, level)} AS {name}_{level}"
                     for name in QUANTITIES for level in LEVELS_PCT)
         + f" {queries.OUTCOMES}",),
        alerts=("CoverageBid", "CoverageVolatility"), see=("Serving models",),
    ),
    Panel(
        "Serving models", "none", "Volatility models that made the forecasts of the selected time range, the newest last.",
        ("SELECT model_kind AS volatility_model, model_version AS version, count() AS forecasts, max(made_at) AS last_made "
         "FROM gold_volatility_prediction WHERE $__timeFilter(ts_event) AND symbol = '$symbol' ORDER BY last_made",),
        kind="table", alerts=("ModelStale", "MarketWithoutModel", "ModelDemoted", "StandInServes"), see=("Model age",),
    ),
    Panel(
        "League of the user's models", "none",
        f"The champion, the baselines and the user's models over {_IN_WORDS}, the best first, ranked as `/v1/league` ranks them: "
        "loss (QLIKE) beside that of the champion at the same closes, the "
        f"Diebold–Mariano t of the difference over closes {_H} minutes apart (below −1.64 is better at the 5 % level), CRPS, the share of "
        "outcomes inside the 90 % interval, and the time of a forecast (median and 99 %), which only users' models have. Less than an hour of forecasts "
        "has no rank.",
        (queries.LEAGUE,),
        kind="table", width=24,
        columns={"crps": BPS, "coverage_90": "percentunit", "predict_p50": "s", "predict_p99": "s"},
        alerts=("LeagueEntryFailing",), see=("Volatility: loss relative to the baselines", "Coverage"),
    ),
    Panel(
        "Forecast age", "s", "Age of the newest frame that the newest forecast is based on. Above 10 s the API refuses to serve it.",
        promql={"{{symbol}}": 'btc_forecast_age_seconds{symbol="$symbol"}'}, kind="number", width=6,
        red_above=10.0, alerts=("StreamSilent",), see=("Receipt to readable result", "Loop age"),
    ),
    Panel(
        "Forecasts at the floor", "percentunit",
        f"Share of the forecasts of {HEADLINE_TEXT} in which HARX was raised to its floor, the second percentile of what came in training.",
        promql={"{{symbol}}": 'sum by (symbol) (rate(btc_forecasts_total{symbol="$symbol",at_floor="yes"}[5m])) '
                              '/ sum by (symbol) (rate(btc_forecasts_total{symbol="$symbol"}[5m]))'},
        red_above=0.5, alerts=("ForecastAtFloor",), see=(f"Volatility over {_IN_WORDS}",),
    ),
    Panel(
        "Model age", "h", "Time since the serving model was trained.",
        promql={"{{model}} ({{kind}})": '(time() - btc_model_created_timestamp_seconds{symbol="$symbol"}) / 3600'}, kind="number", width=6,
        red_above=48.0, alerts=("ModelStale",), see=("Serving models",),
    ),
)  # fmt: skip


PIPELINE = (
    Panel(
        "Receipt to readable result", "s", "Time until features and forecasts are readable in Redis, and bronze rows in their table.",
        promql={"{{stage}} p50": percentile(0.5, "btc_stage_latency_seconds", "stage"),
                "{{stage}} p99": "btc:stage_latency_seconds:p99"},
        red_above=0.05, alerts=("LatencyHigh",), see=("Exchange to receipt", "Consumer lag"),
    ),
    Panel(
        "Exchange to receipt", "s", "Time from an exchange to the receipt, by channel, corrected by the clock offset.",
        promql={"{{exchange}} {{channel}} p50": percentile(0.5, "btc_feed_latency_seconds", "exchange, channel"),
                "{{exchange}} {{channel}} p99": percentile(0.99, "btc_feed_latency_seconds", "exchange, channel"),
                "{{exchange}} clock offset": "btc_clock_offset_seconds"},
        alerts=("LatencyHigh",), see=("Exchange to forecast, from the tables",),
    ),
    Panel(
        "Exchange to forecast, from the tables", "ms", "`made_at` minus the time of the exchange: mean and maximum.",
        (f"SELECT ts_event AS time, avg(made_at::long - ts_event::long) / 1e6 AS mean_ms, "
         f"max(made_at::long - ts_event::long) / 1e6 AS longest_ms FROM gold_bid_price_prediction WHERE {SQL_RANGE}",),
        see=("Exchange to receipt", "Receipt to readable result"),
    ),
    Panel(
        "Consumer lag", "suffix:messages", "Messages whose rows a worker has not written yet.",
        promql={"{{worker}}": "sum by (worker) (btc_consumer_lag_messages)"},
        red_above=1000.0, alerts=("LagGrowing",), see=("Age of unwritten rows", "Loop age"),
    ),
    Panel(
        "Age of unwritten rows", "s", "Time since a worker took the oldest message whose rows are not written yet.",
        promql={"{{worker}}": "btc_unwritten_age_seconds"},
        red_above=30.0, alerts=("RowsUnwritten",), see=("Write time p99", "Rows not applied"),
    ),
    Panel(
        "Frames per second", "suffix:frames/s", "Frames received from the exchanges, by channel.",
        promql={"{{exchange}} {{channel}}": "sum by (exchange, channel) (rate(btc_frames_total[1m]))"},
        alerts=("FeedSilent", "ConnectionRefused"), see=("Rows per second",),
    ),
    Panel(
        "Rows per second", "suffix:rows/s", "Rows acknowledged by QuestDB, by table.",
        promql={"{{table}}": "sum by (table) (rate(btc_rows_acked_total[1m]))"},
        alerts=("NothingStored",), see=("Frames per second", "Write time p99"),
    ),
    Panel(
        "Open gaps", "none", "Open gaps in the trade ids, the number of missing ids in them, and the gaps of the repair worker by state.",
        promql={"open gaps": "sum(btc_gaps_open)", "missing trades": "sum(btc_trades_missing)",
                "repair {{state}}": "sum by (state) (btc_repair_gaps)"},
        alerts=("GapOpen", "RepairRefused", "RepairBehind"), see=("Gap marks", "Trades that are not the next"),
    ),
    Panel(
        "Trades that are not the next", "suffix:trades/s",
        "Trades by what their ids showed: late (fills_gap), repeated, corrected, or the beginning of another numbering.",
        promql={"{{symbol}} {{verdict}}": 'sum by (symbol, verdict) (rate(btc_trades_total{verdict!="next"}[5m]))',
                "{{symbol}} {{kind}}": "sum by (symbol, kind) (rate(btc_odd_trades_total[5m]))"},
        alerts=("TradeIdsOdd",), see=("Open gaps",),
    ),
    Panel(
        "Dead letters, conflation, retries", "suffix:events/s",
        "Dead letters by reason, frames that were left out under overload, and retries.",
        promql={"dead letter {{reason}}": "sum by (reason) (rate(btc_dead_letters_total[5m]))",
                "conflated {{channel}}": "sum by (channel) (rate(btc_conflated_total[5m]))",
                "retry {{worker}}": "sum by (worker) (rate(btc_retries_total[5m]))"},
        alerts=("DeadLetters", "RetriesRepeated"), see=("Frames per second",),
    ),
    Panel(
        "Write time p99", "s", "Duration of one acknowledged write, by table.",
        promql={"{{table}}": percentile(0.99, "btc_write_seconds", "table")},
        alerts=("RowsUnwritten",), see=("Rows not applied",),
    ),
    Panel(
        "Rows not applied", "suffix:transactions", "Transactions of each table that QuestDB has acknowledged and does not show yet.",
        promql={"{{table}}": "btc_questdb_wal_lag_transactions"},
        red_above=300.0, alerts=("WalBehind", "TableSuspended"), see=("Age of unwritten rows",),
    ),
    Panel(
        "Frames left out for the disk", "suffix:frames/s", "Frames that ingest leaves out while the disk is nearly full.",
        promql={"{{channel}}": "sum by (channel) (rate(btc_disk_left_out_total[5m]))"},
        alerts=("DiskLow",), see=("Free disk",),
    ),
    Panel(
        "Free disk", "bytes", "Free bytes of the disk that holds the servers' data.",
        promql={"{{path}}": "btc_disk_free_bytes"}, kind="number", width=6,
        alerts=("DiskLow",), see=("Disk lasts",),
    ),
    Panel(
        "Disk lasts", "d", "Time until the disk is full at the rate of the last day.",
        promql={"{{path}}": "btc_disk_days_left"}, kind="number", width=6,
        red_below=2.0, alerts=("DiskFilling",), see=("Free disk",),
    ),
    Panel(
        "Loop age", "s", "Time since the last iteration of a worker's main loop.",
        promql={"{{worker}}": "time() - btc_loop_timestamp_seconds"},
        red_above=MAX_ITERATION_S, alerts=("LoopStuck",), see=("Processes up", "Consumer lag"),
    ),
    Panel(
        "API requests", "reqps", "Requests by route and status.",
        promql={"{{path}} {{status}}": "sum by (path, status) (rate(btc_http_requests_total[1m]))"},
        alerts=("ApiErrors",), see=("API latency p99",),
    ),
    Panel(
        "API latency p99", "s", "Time from reading a request to its response.",
        promql={"{{path}}": percentile(0.99, "btc_http_request_seconds", "path")},
        alerts=("ApiErrors",), see=("API requests", "Open streams"),
    ),
    Panel(
        "Open streams", "none", "Connections of the API that receive server-sent events, by market.",
        promql={"{{symbol}}": "sum by (symbol) (btc_http_streams_open)"}, see=("API requests",),
    ),
    Panel(
        "Gap marks", "none", "Gaps of the selected time range and their state.",
        ("SELECT ts_event AS time, first_id, last_id, state FROM gap_marks "
         "WHERE $__timeFilter(ts_event) AND symbol = '$symbol' ORDER BY ts_event DESC LIMIT 50",),
        kind="table", alerts=("GapOpen",), see=("Open gaps",),
    ),
    Panel(
        "Seal age", "h", "Time since the end of the newest sealed day. A day is sealed within twelve hours of its end, so up to 36 h are usual.",
        ("SELECT now() AS time, (now()::long - (max(ts)::long / 1000 + 60000000)) / 3.6e9 AS hours FROM gold_1min_sealed",),
        kind="number", width=6, red_above=48.0, alerts=("SealOld", "DayUnsealed"), see=("Processes up",),
    ),
    Panel(
        "Live loss relative to the baselines", "none",
        f"QLIKE of the model at {HEADLINE_TEXT}, divided by that of each baseline, over six hours. Below 1, the model is better.",
        promql={"against {{forecast}}": (
            'sum by (symbol) (btc:outcome_qlike:mean6h{forecast="model",symbol="$symbol"}) / on (symbol) group_right '
            'btc:outcome_qlike:mean6h{forecast!="model",symbol="$symbol"}'
        )},
        red_above=1.0, alerts=("ModelDemoted",), see=("Volatility: loss relative to the baselines",),
    ),
    Panel(
        "Processes up", "none", "1 if Prometheus could scrape the process.", promql={"{{process}}": "up"}, kind="number",
        red_below=1.0, alerts=("ProcessDown",), see=("Loop age",),
    ),
)  # fmt: skip
