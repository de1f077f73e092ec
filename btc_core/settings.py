"""Every setting of every process, read once, frozen.

A setting comes from the environment (`BTC_<SECTION>_<NAME>`) or from the env file named by `BTC_ENV_FILE`
(the native stack writes one, mode 0600). The environment wins. Every name carries its unit.

What does not belong here: a value nobody would tune. That is a constant beside the code it steers.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from btc_core.errors import ConfigError


class Section(BaseModel):
    """A frozen group of settings that refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


PUBLIC_URLS = {
    "kraken": {"ws_url": "wss://ws.kraken.com/v2", "rest_url": "https://api.kraken.com"},
    "coinbase": {"ws_url": "wss://ws-feed.exchange.coinbase.com", "rest_url": "https://api.exchange.coinbase.com"},
}
"""Of each exchange that has an adapter (`exchange.EXCHANGES`)."""


class ExchangeSettings(Section):
    """Which exchange and which markets are followed, and where it is."""

    mode: Literal["live", "sim"] = "live"
    """`sim` for a market that is no real exchange's: then every page says SIMULATED. The stack sets it. The simulator speaks
    as Kraken does."""
    name: str = "kraken"
    """Trade ids of two exchanges do not mix: each needs a data directory of its own."""
    ws_url: str = ""
    """Empty: the exchange's own, as `rest_url`."""
    rest_url: str = ""
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(("BTC/USD",), min_length=1)
    """With commas: `BTC_EXCHANGE_SYMBOLS=BTC/USD,ETH/USD`. The first is the one that models are trained on."""
    history_url: str = ""
    """Where months of minute bars are published as CSV (`time,open,high,low,close,volume,trades`, no header); "" when nowhere."""

    @property
    def modelled_symbols(self) -> tuple[str, ...]:
        """Markets that have models of their own. The others are forecast by those of the first."""
        return self.symbols[:1]

    @model_validator(mode="before")
    @classmethod
    def _own_urls(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Another exchange lives at another address."""
        name = values.get("name", "kraken")
        if name not in PUBLIC_URLS:
            msg = f"BTC_EXCHANGE_NAME is {name!r}; there are adapters for {', '.join(PUBLIC_URLS)}"
            raise ValueError(msg)
        if name != "kraken" and values.get("mode") == "sim":
            msg = f"the simulator speaks as Kraken does, and BTC_EXCHANGE_NAME is {name!r}"
            raise ValueError(msg)
        return values | {key: values.get(key) or url for key, url in PUBLIC_URLS[name].items()}

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Text from the environment is a list with commas."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class KafkaSettings(Section):
    """The log and what it keeps."""

    bootstrap: str = "127.0.0.1:9092"
    partitions: int = Field(4, ge=1)
    """Of every topic. One symbol uses one; more are for more symbols. Raising it later moves symbols to other partitions."""
    retention_hours: int = Field(168, ge=26)
    """Must outlast the 24 h 30 min warm-up of the features."""


class QuestdbSettings(Section):
    """The time-series database."""

    http_url: str = "http://127.0.0.1:9000"
    pg_port: int = 8812
    user: str = "admin"
    password: SecretStr = SecretStr("")
    ttl_bronze_days: int = Field(30, ge=2)
    """How long a day of bronze stays; the next two say the same of silver and gold."""
    ttl_silver_days: int = Field(30, ge=2)
    ttl_gold_days: int = Field(365, ge=2)
    ttl_bars_days: int = Field(3_650, ge=30)
    """Of `minute_bars`, 70 MB a year: models train on them, and trees like long windows."""


class RedisSettings(Section):
    """The newest features and forecasts."""

    url: str = "redis://127.0.0.1:6379/0"
    """May be `unix:///path/to/socket?db=0`, which is a little faster."""
    password: SecretStr = SecretStr("")
    ttl_s: int = Field(300, ge=1)
    """Of a row that no newer one replaces."""


class PostgresSettings(Section):
    """Metadata of Dagster and MLflow."""

    host: str = "127.0.0.1"
    port: int = 5432
    user: str = "btc"
    password: SecretStr = SecretStr("")
    dagster_db: str = "dagster"
    mlflow_db: str = "mlflow"


class StoreSettings(Section):
    """The S3-compatible object store."""

    endpoint_url: str = "http://127.0.0.1:9010"
    access_key: str = "btc"
    secret_key: SecretStr = SecretStr("")
    mlflow_bucket: str = "mlflow"
    lake_bucket: str = "data-lake"


class MlflowSettings(Section):
    """Model tracking and registry."""

    url: str = "http://127.0.0.1:5000"


class DagsterSettings(Section):
    """The Dagster webserver."""

    url: str = "http://127.0.0.1:3001"


class ApiSettings(Section):
    """The HTTP API."""

    host: str = "127.0.0.1"
    port: int = Field(5050, ge=1, le=65_535)
    token: SecretStr = SecretStr("")
    """Bearer token of `/retrain` and `/reload`; while it is empty both answer 401. Changed in the env file it holds at once."""
    threads: int = Field(4, ge=1)
    """For requests that wait for QuestDB, MLflow or Dagster; forecasts are answered by the thread that reads requests, or
    by two others while Redis is slow."""
    max_body_bytes: int = Field(1_048_576, ge=1_024)
    max_feature_age_s: float = Field(10.0, gt=0)
    """A forecast from older features is refused with 503."""
    rate_limit_per_s: float = Field(0.0, ge=0)
    """Requests a second of one address, as many again at once, then 429; 0 is no limit, which is right on loopback."""
    max_streams: int = Field(16, ge=0)
    """Open `/v1/stream` connections; each holds a thread of its own that mostly sleeps."""
    stream_interval_ms: int = Field(250, ge=20)
    """Least time between two events of a stream; 5 kB an event and client."""


class StreamSettings(Section):
    """The workers."""

    instance: int = Field(1, ge=1)
    """Tells the processes of one consumer group apart; each needs its own number."""
    state_dir: Path = Path("var/state")
    """Where workers keep checkpoints of their state; a restart without them reads a day of the log."""
    batch_rows: int = Field(5_000, ge=1)
    """Most messages a worker takes at once; bounds its memory and the time to the next commit."""
    batch_wait_ms: int = Field(0, ge=0)
    """How long a worker waits for a batch to fill. Adds to the latency of every message; under load batches fill anyway."""
    table_flush_ms: int = Field(500, ge=0)
    """How often a worker writes its tables and commits. Redis and topics do not wait for it; QuestDB and the
    materialized views cost a fixed amount a write, a third of a core at 100 writes a second."""
    data_deadline_s: float = Field(10.0, gt=0)
    """A connection without any frame for this long is closed and opened again."""
    subscription_deadline_s: float = Field(8.0, gt=0)
    """A subscription without data for this long is made anew, alone; a quiet market doubles it up to a minute."""
    conflate_above_messages: int = Field(200_000, ge=1)
    """More frames than this waiting for Kafka: superseded quotes and books are left out. 15 minutes of a busy market."""
    max_unwritten_rows: int = Field(100_000, ge=1)
    """Rows a worker keeps while QuestDB is away, about 100 MB of features; then it takes no more until they are
    written. Topics and Redis go on until then."""
    max_frame_bytes: int = Field(1_000_000, ge=10_000)
    """A larger frame is a dead letter."""


class MetricsSettings(Section):
    """Prometheus metrics of one process."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535)
    """0: none. The stack gives every worker a port of its own."""


class ModelSettings(Section):
    """Training and the bundle cache."""

    train_days: int = Field(700, ge=3)
    """Length of the training window, of what there is; trees want long ones, see docs/decisions.md."""
    history_days: int = Field(120, ge=3)
    """How far back bars are fetched from the exchange by itself: at a page of trades a second more takes days.
    `btc import-bars` brings older ones."""
    cache_dir: Path = Path("var/models")
    """Where the last good bundle of each model lies, so that forecasts go on while MLflow is away."""
    reload_s: float = Field(5.0, gt=0)
    """How often a serving process looks for a new champion."""
    trainer: Literal["memory", "dask"] = "memory"
    """Where trees are grown: in the process that trains, or on a Dask cluster."""
    dask_address: str = ""
    """Address of the scheduler of the Dask cluster, for example tcp://127.0.0.1:8786."""


class SealSettings(Section):
    """When a day is complete."""

    first_day: str = Field("2022-01-01", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Oldest day that Dagster knows; its assets have one partition a day from here on."""
    grace_s: int = Field(300, ge=0)
    """After midnight, for what is still on its way."""
    gap_wait_h: float = Field(6.0, ge=0)
    """A gap in the trades may still be repaired for so long; then the day is sealed with it, and sealed again when it is repaired."""
    lookback_days: int = Field(7, ge=1)
    """Days before today that are looked at for late data; the log keeps a week."""


class BackupSettings(Section):
    """Copies on the object store."""

    keep_days: int = Field(3_650, ge=31)
    """Older copies are removed."""


class LinksSettings(Section):
    """Where a person's browser finds the other pages, when that is not where the processes find the servers."""

    questdb_url: str = ""
    """Empty: the same as `BTC_QUESTDB_HTTP_URL`."""
    mlflow_url: str = ""
    """Empty: the same as `BTC_MLFLOW_URL`."""
    grafana_url: str = ""
    """Empty: there is no Grafana, and no link to it."""


class Settings(BaseSettings):
    """All settings; build it with `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="BTC_", env_nested_delimiter="_", env_nested_max_split=1, frozen=True, extra="ignore"
    )

    exchange: ExchangeSettings = ExchangeSettings()
    kafka: KafkaSettings = KafkaSettings()
    questdb: QuestdbSettings = QuestdbSettings()
    redis: RedisSettings = RedisSettings()
    postgres: PostgresSettings = PostgresSettings()
    store: StoreSettings = StoreSettings()
    mlflow: MlflowSettings = MlflowSettings()
    dagster: DagsterSettings = DagsterSettings()
    api: ApiSettings = ApiSettings()
    stream: StreamSettings = StreamSettings()
    metrics: MetricsSettings = MetricsSettings()
    model: ModelSettings = ModelSettings()
    seal: SealSettings = SealSettings()
    backup: BackupSettings = BackupSettings()
    links: LinksSettings = LinksSettings()

    @property
    def simulated(self) -> bool:
        """True when the market data does not come from a real exchange; every page and status line says so."""
        return self.exchange.mode == "sim"


def load_settings(env_file: Path | None = None) -> Settings:
    """Read the environment and the env file (`env_file`, else the one named by `BTC_ENV_FILE`).

    Raises `ConfigError` naming each bad setting as the variable a person would set.
    """
    path = env_file or (Path(os.environ["BTC_ENV_FILE"]) if os.environ.get("BTC_ENV_FILE") else None)
    if path is not None and not path.is_file():
        msg = f"the env file {path} does not exist; run `btc init`, or unset BTC_ENV_FILE"
        raise ConfigError(msg)
    try:
        return Settings(_env_file=path)
    except ValidationError as error:
        lines = [
            f"  BTC_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        msg = "bad settings:\n" + "\n".join(lines)
        raise ConfigError(msg) from None


@cache
def settings() -> Settings:
    """The settings of this process, read at the first call."""
    return load_settings()
