"""Metrics of faults, and the alerts that fire on them, for the tests of Prometheus's rules and of those of the API.

Series and values are written as in the tests of `promtool`. What does not belong here: tests.
"""

from __future__ import annotations

AT_S = 900
"""When alerts are judged, in seconds since the epoch, where promtool begins; older times are negative."""
INTERVAL_S = 15
LATER_S = {"MarketWithoutModel": 8_400, "ForecastAtFloor": 3_900, "forecasts at their floor for twenty minutes": 3_900}
"""Cases of alerts that last longer are judged later."""


def judged_at_s(name: str) -> int:
    """When a case is judged, in seconds since the epoch."""
    return LATER_S.get(name, AT_S)


def _ago(age_s: int) -> str:
    """A time that lies this long before the moment of the judgement."""
    return f"{AT_S - age_s}x60"


FAULTS: dict[str, dict[str, str]] = {
    "StreamSilent": {
        'btc_forecast_age_seconds{symbol="BTC/USD"}': "11x60",
        'btc_forecast_starting{symbol="BTC/USD"}': "0x60",
    },
    "FeedSilent": {'btc_frames_total{exchange="kraken",channel="trade"}': "7x60"},
    "ProcessDown": {'up{process="bronze"}': "0x60"},
    "ServerDown": {'btc_server_up{server="kafka"}': "0x60", 'btc_server_up{server="questdb"}': "1x60"},
    "LoopStuck": {'btc_loop_timestamp_seconds{worker="bronze"}': _ago(61)},
    "GapOpen": {'btc_gaps_open{symbol="BTC/USD"}': "1x60"},
    "RepairRefused": {'btc_repair_gaps{symbol="BTC/USD",state="refused"}': "1x60"},
    "RepairBehind": {'btc_repair_gaps{symbol="BTC/USD",state="behind"}': "1x60"},
    "NothingStored": {
        'btc_frames_total{exchange="kraken",channel="trade"}': "0+5x60",
        'btc_rows_acked_total{table="bronze_trades"}': "9x60",
    },
    "TradeIdsOdd": {'btc_odd_trades_total{symbol="BTC/USD",kind="outlier"}': "_x40 1x20"},
    "TableSuspended": {'btc_questdb_suspended{table="bronze_trades"}': "1x60"},
    "WalBehind": {'btc_questdb_wal_lag_transactions{table="bronze_trades"}': "301x60"},
    "DiskLow": {'btc_disk_saving_step{path="/data"}': "1x60"},
    "DiskFilling": {'btc_disk_days_left{path="/data"}': "1.9x60"},
    "LatencyHigh": {
        'btc_stage_latency_seconds_bucket{stage="forecast",le="0.05"}': "0x60",
        'btc_stage_latency_seconds_bucket{stage="forecast",le="0.1"}': "0+9x60",
        'btc_stage_latency_seconds_bucket{stage="forecast",le="+Inf"}': "0+9x60",
    },
    "LagGrowing": {'btc_consumer_lag_messages{worker="bronze",partition="0"}': "1001x60"},
    "RowsUnwritten": {'btc_unwritten_age_seconds{worker="bronze"}': "31x60"},
    "RetriesRepeated": {'btc_retries_total{worker="bronze"}': "0+2x60"},
    "ConsumerReplaced": {'btc_consumer_rejoins_total{worker="bronze"}': "0+1x60"},
    "LogBroken": {'btc_log_breaks_total{worker="bronze",problem="expired"}': "1x60"},
    "CheckpointFailed": {'btc_checkpoint_failures_total{worker="bronze"}': "0+1x60"},
    "ModelStale": {'btc_model_created_timestamp_seconds{symbol="BTC/USD",model="m",kind="harx"}': _ago(174_000)},
    "MarketWithoutModel": {'btc_rows_without_model_total{symbol="BTC/USD"}': "0+1x600"},
    "ForecastAtFloor": {
        'btc_forecasts_total{symbol="BTC/USD",at_floor="yes"}': "0+2x260",
        'btc_forecasts_total{symbol="BTC/USD",at_floor="no"}': "0+1x260",
    },
    "LeagueEntryFailing": {'btc_league_entry_failing{entry="mine"}': "1x60"},
    "StandInServes": {
        'btc_user_model_rows_total{symbol="BTC/USD",by="user"}': "0+1x60",
        'btc_user_model_rows_total{symbol="BTC/USD",by="failing"}': "0+2x60",
    },
    "DeadLetters": {'btc_dead_letters_total{worker="bronze",reason="bad"}': "_x45 1x15"},
    "BookMismatch": {'btc_book_mismatches_total{symbol="BTC/USD"}': "_x45 1x15"},
    "BookUnverified": {'btc_book_unverified{symbol="BTC/USD"}': "1x60"},
    "SubscriptionDown": {
        'btc_subscription_state{channel="trade",symbol="BTC/USD",btc_subscription_state="stale"}': "1x60"
    },
    "ConnectionRefused": {'btc_connections_total{exchange="kraken",event="http_429"}': "_x45 1x15"},
    "ClockOff": {'btc_clock_offset_seconds{exchange="kraken"}': "-0.6x60"},
    "ApiErrors": {'btc_http_requests_total{path="/x",method="GET",status="500"}': "0+1x60"},
    "DayUnsealed": {'btc_days_lacking{what="seal"}': "1x60"},
    "DayUncopied": {'btc_days_lacking{what="copy"}': "1x60"},
    "SealOld": {'btc_sealed_until_timestamp_seconds{table="gold_1min_sealed"}': _ago(174_000)},
    "BackupOld": {'btc_backup_timestamp_seconds{backup="system"}': _ago(130_000)},
    "CopyOld": {'btc_offsite_copy_timestamp_seconds{place="second"}': _ago(130_000)},
    "DrillOld": {'btc_restore_drill_timestamp_seconds{copies="days"}': _ago(1_297_000)},
    "DrillFailed": {'btc_restore_drill_failed{copies="days"}': "1x60"},
    "DaemonDown": {'btc_dagster_daemon_up{daemon="dagster"}': "0x60"},
    "ModelDemoted": {'btc_model_demoted_timestamp_seconds{symbol="BTC/USD",model="m"}': _ago(80_000)},
}
"""The metrics of each fault: the alert fires, and no other."""
HEALTHY: tuple[dict[str, str], ...] = (
    {'btc_forecast_age_seconds{symbol="BTC/USD"}': "60x60", 'btc_forecast_starting{symbol="BTC/USD"}': "1x60"},
    {'btc_forecast_age_seconds{symbol="BTC/USD"}': "9x60"},
    {'btc_days_lacking{what="seal"}': "0x60", 'btc_days_lacking{what="copy"}': "0x60"},
    {'btc_sealed_until_timestamp_seconds{table="gold_1min_sealed"}': _ago(100_000)},
    {'btc_backup_timestamp_seconds{backup="system"}': _ago(100_000)},
    {'btc_offsite_copy_timestamp_seconds{place="second"}': _ago(100_000)},
    {
        'btc_restore_drill_timestamp_seconds{copies="days"}': _ago(700_000),
        'btc_restore_drill_failed{copies="days"}': "0x60",
    },
    {'btc_dagster_daemon_up{daemon="dagster"}': "1x60"},
    {'btc_model_demoted_timestamp_seconds{symbol="BTC/USD",model="m"}': _ago(87_400)},
    {'btc_dead_letters_total{worker="bronze",reason="bad"}': "4x60"},
)
"""Metrics on which no alert fires."""
EDGES: dict[str, tuple[dict[str, str], set[str]]] = {
    "one of two exchanges is silent": (
        {
            'btc_frames_total{exchange="kraken",channel="trade"}': "0+1x60",
            'btc_frames_total{exchange="binance",channel="trade"}': "7x60",
            'btc_rows_acked_total{table="bronze_trades"}': "0+1x60",
        },
        {"FeedSilent"},
    ),
    "one channel of an exchange is silent": (
        {
            'btc_frames_total{exchange="kraken",channel="trade"}': "7x60",
            'btc_frames_total{exchange="kraken",channel="heartbeat"}': "0+1x60",
        },
        set(),
    ),
    "a league that has models and does not run": (
        {"btc_league_entries": "2x60", 'up{process="league"}': "0x60", 'up{process="bronze"}': "1x60"},
        {"ProcessDown"},
    ),
    "a league that runs its models": ({"btc_league_entries": "2x60", 'up{process="league"}': "1x60"}, set()),
    "a league that nobody uses": ({'up{process="league"}': "0x60", 'up{process="bronze"}': "1x60"}, set()),
    "a lag that is spread over partitions": (
        {
            'btc_consumer_lag_messages{worker="bronze",partition="0"}': "600x60",
            'btc_consumer_lag_messages{worker="bronze",partition="1"}': "600x60",
        },
        {"LagGrowing"},
    ),
    "a lag that falls again and again": (
        {'btc_consumer_lag_messages{worker="bronze",partition="0"}': "5000 0 " * 30 + "5000"},
        set(),
    ),
    "an old random walk, which every training would make again": (
        {'btc_model_created_timestamp_seconds{symbol="BTC/USD",model="m",kind="random_walk"}': _ago(174_000)},
        set(),
    ),
    "repair holds what it looks for": ({'btc_unwritten_age_seconds{worker="repair"}': "900x60"}, set()),
    "two processes of a worker retry": (
        {
            'btc_retries_total{worker="features",instance="features-1"}': "0+1x60",
            'btc_retries_total{worker="features",instance="features-2"}': "0+1x60",
        },
        {"RetriesRepeated"},
    ),
    "a redirection instead of a WebSocket": (
        {'btc_connections_total{exchange="kraken",event="http_302"}': "_x45 1x15"},
        {"ConnectionRefused"},
    ),
    "other connections": ({'btc_connections_total{exchange="kraken",event="opened"}': "0+1x60"}, set()),
    "gaps that are repaired, each in time": (
        {
            'btc_gaps_open{symbol="BTC/USD"}': "1x4 0x4 " * 6 + "1",
            'btc_gaps_open{symbol="ETH/USD"}': "0x4 1x4 " * 6 + "0",
        },
        set(),
    ),
    "duplicates while no frame is counted": (
        {'btc_trades_total{symbol="BTC/USD",verdict="duplicate"}': "0+5x60"},
        {"NothingStored"},
    ),
    "forecasts at their floor for twenty minutes": (
        {
            'btc_forecasts_total{symbol="BTC/USD",at_floor="yes"}': "0x180 1+1x80",
            'btc_forecasts_total{symbol="BTC/USD",at_floor="no"}': "0+1x180 180x80",
        },
        set(),
    ),
    "a worker that counted before it stopped": (
        {
            'up{process="bronze"}': "1x24 0x35",
            'btc_dead_letters_total{process="bronze",worker="bronze",reason="bad"}': "0x19 1x4 _x36",
        },
        {"ProcessDown"},
    ),
    "one API of two does not reach a server": (
        {
            'btc_server_up{server="kafka",instance="api-1"}': "1x60",
            'btc_server_up{server="kafka",instance="api-2"}': "0x60",
        },
        {"ServerDown"},
    ),
    "a clock that is a little off": ({'btc_clock_offset_seconds{exchange="kraken"}': "0.4x60"}, set()),
    "some errors that are no faults": (
        {'btc_http_requests_total{path="/x",method="GET",status="503"}': "0+1x60"},
        set(),
    ),
}
"""Metrics at the edge of a condition, and the alerts that fire on them."""
