"""Define every alert, and the series that Prometheus records.

`generate.py` writes Grafana's and Prometheus's files from them. `serving/alert_rules.py` has the same alerts for a system without
Prometheus, with their severity. What does not belong here: panels (`panels`).
"""

from __future__ import annotations

from dataclasses import dataclass

from btc_core.metrics import MAX_ITERATION_S
from btc_core.models.gate import DEMOTE_COVERAGE_HOURS, MIN_OUTCOMES
from btc_core.names import QUANTITIES
from btc_core.tables.sql import of_headline
from deploy.grafana.queries import percentile


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
    "btc:stage_latency_seconds:p99": percentile(0.99, "btc_stage_latency_seconds", "stage"),
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
    Alert("ProcessDown",
          'up{process!="league"} == 0 '
          'or label_replace(max(btc_league_entries) > 0 unless on() max(up{process="league"}) == 1, "process", "league", "", "")', "15s",
          "Prometheus cannot scrape {{ $labels.process }}. `btc status` shows the reason."),
    Alert("ServerDown", "min by (server) (btc_server_up) == 0", "1m",
          "The server {{ $labels.server }} does not answer the API. `btc status` shows the reason."),
    Alert("LoopStuck", f"time() - btc_loop_timestamp_seconds > {MAX_ITERATION_S:g}", "0s",
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
    Alert("ModelStale", 'time() - btc_model_created_timestamp_seconds{kind!="random_walk"} > 172800', "5m",
          "The model {{ $labels.model }} of {{ $labels.symbol }} is more than two days old. Check the training job."),
    Alert("MarketWithoutModel", "sum by (symbol) (increase(btc_rows_without_model_total[15m])) > 0", "2h",
          "{{ $labels.symbol }} has had no forecasts for two hours: it has too few minute bars for a model."),
    Alert("ForecastAtFloor",
          'sum by (symbol) (increase(btc_forecasts_total{at_floor="yes"}[15m])) / sum by (symbol) (increase(btc_forecasts_total[15m])) > 0.5', "45m",
          "Most volatility forecasts of {{ $labels.symbol }} are at their floor. Either the market stands still or its model is of another scale."),
    Alert("LeagueEntryFailing", "btc_league_entry_failing == 1", "15m",
          "The model {{ $labels.entry }} of the league has failed for 15 minutes. `btc models` shows the reason."),
    Alert("StandInServes",
          'sum by (symbol) (increase(btc_user_model_rows_total{by!="user"}[5m])) '
          "> 0.5 * sum by (symbol) (increase(btc_user_model_rows_total[5m]))", "10m",
          "For ten minutes, a stand-in has made most forecasts of {{ $labels.symbol }}, because the user's model that serves there is too slow or fails."),
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
    Alert("ClockOff", "abs(btc_clock_offset_seconds) > 0.5", "5m",
          "The clock of {{ $labels.exchange }} is {{ $value }} s ahead of this machine's. Check the time synchronization of this machine."),
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
          "The forecasts of the model {{ $labels.model }} of {{ $labels.symbol }} were bad or worse than those of a baseline, which has taken over. `btc models` shows why."),
)  # fmt: skip

_HOURS = "six hours" if DEMOTE_COVERAGE_HOURS == 6 else f"{DEMOTE_COVERAGE_HOURS} hours"
TABLE_ALERTS = tuple(
    TableAlert(
        f"Coverage{name.title()}",
        "SELECT min(share) AS coverage FROM ("
        f"SELECT symbol, count() AS outcomes, avg(CASE WHEN {name}_inside_90 THEN 1.0 ELSE 0.0 END) AS share "
        f"FROM gold_prediction_outcomes WHERE late = false AND {of_headline()} AND ts_event > dateadd('h', -{DEMOTE_COVERAGE_HOURS}, now())) "
        f"WHERE outcomes >= {MIN_OUTCOMES}",
        0.8,
        f"The 90 % intervals of the {name} of a market contained less than 80 % of the outcomes of {_HOURS}. A tree model that serves "
        "there will be demoted.",
    )
    for name in QUANTITIES
)
