"""Every setting of every process, read once and frozen.

A setting comes from the environment (`BTC_<SECTION>_<NAME>`) or from the env file that `BTC_ENV_FILE` names (the native
stack writes one, mode 0600). The environment wins. Every name carries its unit. The docstrings of the fields are the
reference documentation.

What does not belong here: a value that nobody would tune. It is a constant beside the code that uses it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from btc_core import horizons
from btc_core.api_settings import ApiSettings
from btc_core.errors import ConfigError, OtherHorizons
from btc_core.exchange_settings import ExchangeSettings
from btc_core.names import VolatilityTarget  # noqa: TC001 - pydantic reads the annotations
from btc_core.secret_files import with_secret_files
from btc_core.service_settings import (
    KafkaSettings,
    OffsiteSettings,
    PostgresSettings,
    QuestdbSettings,
    RedisSettings,
    StoreSettings,
)
from btc_core.settings_section import Section


class MlflowSettings(Section):
    """Model tracking and registry."""

    url: str = "http://127.0.0.1:5000"
    """Address of the tracking server."""
    keep_days: int = Field(30, ge=1)
    """Age from which versions of models are deleted with their files. The champion, its predecessor and the challenger stay, and
    so does everything that has ever served, in `served_models/` of the bucket of copies."""


class DagsterSettings(Section):
    """The Dagster webserver."""

    url: str = "http://127.0.0.1:3001"
    """Address of the webserver."""
    keep_days: int = Field(30, ge=1)
    """Age from which finished runs are deleted with their events. The newest run of each job and partition stays."""
    event_days: int = Field(7, ge=1)
    """Age from which events of live assets are deleted, some 14,000 a day of 2 kB each. The newest of each asset stays."""


class StreamSettings(Section):
    """The streaming workers."""

    instance: int = Field(1, ge=1)
    """Number of this process within its consumer group; every process of a group needs its own."""
    state_dir: Path = Path("var/state")
    """Directory of the workers' checkpoints. A worker without its checkpoint reads a day of the log when it starts."""
    batch_rows: int = Field(5_000, ge=1)
    """Largest number of messages that a worker takes at once. A larger batch takes more memory, and more time passes before
    its offsets are committed."""
    batch_wait_ms: int = Field(0, ge=0)
    """How long a worker waits for a batch to fill. It adds to the latency of every message; under load batches fill anyway."""
    table_flush_ms: int = Field(1_000, ge=0)
    """Time between two writes of a worker's tables, with which it commits its offsets. Redis and the topics do not wait for
    it. Each write costs QuestDB and the materialized views a fixed amount: a third of a core at 100 writes a second. With
    half the time, all processes of an idle system use a quarter more of a core."""
    data_deadline_s: float = Field(10.0, gt=0)
    """A connection on which no frame arrives for this long is closed, and a new one is opened."""
    subscription_deadline_s: float = Field(8.0, gt=0)
    """A subscription without data for this long is subscribed again, alone. In a quiet market the deadline doubles each
    time, up to one minute."""
    conflate_above_messages: int = Field(200_000, ge=1)
    """Number of messages waiting for Kafka above which ingest leaves out superseded quotes and book frames. The default is
    15 minutes of a busy market."""
    max_unwritten_rows: int = Field(100_000, ge=1)
    """Rows that a worker keeps while QuestDB is unavailable; with more it takes no further messages until they are written.
    Topics and Redis are served until then. 100,000 rows of features take about 100 MB."""
    max_frame_bytes: int = Field(1_000_000, ge=10_000, le=1_000_000)
    """Largest frame of the exchange; a larger one becomes a dead letter. Kafka takes no more than the default."""


class MetricsSettings(Section):
    """The endpoint of one process for Prometheus."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(0, ge=0, le=65_535)
    """Port to listen on; 0 serves no metrics. The stack gives every process a port of its own."""
    peers: str = ""
    """The workers whose metrics the API reads for its page for operators, as `NAME=HOST:PORT` separated by commas. If a host has
    several addresses, each is a process of its own. The native stack sets it. Empty: the page shows no workers."""
    servers: str = ""
    """Servers that no other setting names and that the API tries to reach for the alert ServerDown, such as Dagster's code server:
    `NAME=HOST:PORT`, or `NAME=PATH` of a socket, separated by commas. The native stack sets it."""


class ModelSettings(Section):
    """Training of the models, and how processes load them."""

    train_days: int = Field(1_400, ge=3)
    """Length of the training window; a shorter history is used whole. Trees and nets gain from years, see docs/decisions.md."""
    history_days: int = Field(120, ge=3)
    """How far back minute bars are fetched from the exchange automatically. At one page of trades per second, much more
    would take days; `btc import-bars` imports older bars from a file."""
    cache_dir: Path = Path("var/models")
    """Directory of the last valid bundle of each model, from which forecasts continue while MLflow is unavailable."""
    reload_s: float = Field(10.0, gt=0)
    """Time between two checks for a new champion in a process that forecasts."""
    trainer: Literal["memory", "dask"] = "memory"
    """Where trees are grown: in the memory of the process that trains, or on a Dask cluster."""
    volatility_target: VolatilityTarget = "minutes"
    """What new volatility models forecast: the variance of one-minute returns, or with `ticks` that of 5-second returns of the
    mid, which only sealed days and imported trades have."""
    dask_address: str = ""
    """Address of the scheduler of the Dask cluster, such as tcp://127.0.0.1:8786."""


class UserSettings(Section):
    """What the user brings."""

    dir: str = ""
    """Folder with the user's files: models of the league are its `models/NAME.py`, and features are its `features/NAME.py`.
    Empty: the folder `user` beside `BTC_STREAM_STATE_DIR`, which in the native stack is `user` in the data directory."""


class LeagueSettings(Section):
    """The league of the user's models, and how much each of them may take."""

    predict_s: float = Field(2.0, gt=0)
    """Longest time for one forecast of a model. The process of a model that takes longer is killed and started again later."""
    serve_s: float = Field(0.025, gt=0)
    """Longest time that a batch of served forecasts waits for the user's model that serves. Its stand-in forecasts what has not come by
    then. The model is asked for one row after the other during half of this time."""
    fit_s: float = Field(1_800.0, gt=0)
    """Longest time for one fit of a model."""
    memory_bytes: int = Field(1_000_000_000, ge=100_000_000)
    """Memory that the process of one model may allocate while it forecasts."""
    fit_memory_bytes: int = Field(4_000_000_000, ge=100_000_000)
    """Memory that the process of one model may allocate while it is fitted. The data set itself is mapped and does not count."""
    max_entries: int = Field(8, ge=1)
    """Most models in the league. Each has a process that takes 33 MB with numpy alone, and more with larger libraries; the
    worker beside them takes 190 MB once there is a model, and does not run before."""


class SealSettings(Section):
    """When a day is complete, and which days are sealed."""

    first_day: str = Field("2022-01-01", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """First daily partition of the Dagster assets, a UTC day; older days cannot be sealed."""
    grace_s: int = Field(300, ge=0)
    """How long after midnight UTC the sealing of a day waits for data that is still on its way."""
    gap_wait_h: float = Field(6.0, ge=0)
    """How long after midnight UTC the sealing of a day waits for the repair of its gaps. It is then sealed with them, and
    sealed again once they are repaired."""
    lookback_days: int = Field(7, ge=1)
    """How many past days are checked for late data. The log keeps a week (`BTC_KAFKA_RETENTION_HOURS`)."""


class BackupSettings(Section):
    """The copies of sealed days, the archives of the log, and the backups of the databases on the object store."""

    keep_days: int = Field(3_650, ge=31)
    """Age from which copies are removed."""
    log_days: int = Field(365, ge=0)
    """Age in days from which archives of the log are removed. A day of one market takes 46 MB at the simulator's rate of 20
    messages a second, so a year takes 17 GB. With 0, no day is archived."""
    system_days: int = Field(30, ge=1)
    """Age from which backups of the databases of Dagster and MLflow, the settings and the user's models are removed. The newest
    always stays."""
    copy_to: str = ""
    """Where Dagster copies everything every day: a directory on another disk, or s3://BUCKET/PREFIX of the store that BTC_OFFSITE_*
    names. Empty: nothing is copied to a second place unless you run `btc backup --to`."""
    copy_days: int = Field(30, ge=1)
    """Age from which copies at a second place are removed, with the objects that no newer copy names. The newest always stays."""


class DiskSettings(Section):
    """The disk that holds the servers' data, and what is given up before it is full. Trades are always recorded."""

    path: str = ""
    """A directory on that disk. The native stack sets it to its data directory. Empty: no disk is watched."""
    books_below_bytes: int = Field(2_000_000_000, ge=0)
    """With less free space, ingest leaves out order-book frames."""
    quotes_below_bytes: int = Field(1_000_000_000, ge=0)
    """With less free space, ingest also leaves out superseded quotes: it keeps the newest one of each
    `BTC_DISK_QUOTE_INTERVAL_S`, and the one before each trade."""
    kafka_stops_below_bytes: int = Field(300_000_000, ge=0)
    """With less free space, the native stack stops Kafka until there is more, because a Kafka that meets a full disk can lose
    its topics. Meanwhile frames wait in the memory of ingest."""
    quote_interval_s: float = Field(1.0, gt=0)
    """Time between two quotes of a symbol while quotes are left out."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        """Refuse bounds that would give up the more valuable data first."""
        if self.kafka_stops_below_bytes <= self.quotes_below_bytes <= self.books_below_bytes:
            return self
        msg = (
            "BTC_DISK_BOOKS_BELOW_BYTES, BTC_DISK_QUOTES_BELOW_BYTES and BTC_DISK_KAFKA_STOPS_BELOW_BYTES must not increase "
            f"in this order, and are {self.books_below_bytes}, {self.quotes_below_bytes} and {self.kafka_stops_below_bytes}"
        )
        raise ValueError(msg)


class AlertSettings(Section):
    """Who gets a message when an alert fires. The process `alerts` reads it; without a contact it only logs the alerts."""

    urls: SecretStr = SecretStr("")
    """Addresses of the contacts in the form of Apprise, separated by commas or spaces: `ntfy://TOPIC`, `slack://…`, `tgram://…`,
    `mailto://…`, or `json://HOST/PATH` for a webhook (`jsons://` with TLS)."""
    rules: str = ""
    """Path of a TOML file with alerts of your own about the market and its forecasts; the API reads it when it starts."""
    watchdog_url: SecretStr = SecretStr("")
    """An address that the process `alerts` requests every minute while the API answers. A service outside of this machine that
    expects these requests, such as healthchecks.io, tells you once they stop. Empty: none."""
    wait_s: float = Field(30.0, ge=0)
    """How long a message waits for further alerts after the first one, so that one fault gives one message."""
    repeat_h: float = Field(4.0, gt=0)
    """Time after which an alert that still fires is sent again."""
    resolve_s: float = Field(120.0, ge=0)
    """How long an alert must have stopped before it is called resolved, so that one that comes and goes does not send a message
    each time."""


class LinksSettings(Section):
    """Addresses for a person's browser, where they differ from those that the processes use."""

    questdb_url: str = ""
    """Address of the QuestDB console. Empty: `BTC_QUESTDB_HTTP_URL`."""
    mlflow_url: str = ""
    """Address of the MLflow pages. Empty: `BTC_MLFLOW_URL`."""
    grafana_url: str = ""
    """Address of Grafana. Empty: there is none, and no page links to it."""
    runbook_url: str = ""
    """Address of the runbook: in the built documentation, or `/runbook` of the API as others reach it. Empty: pages link to
    `/runbook`, and answers and messages name its place in the repository."""

    def runbook(self, section: str) -> str:
        """Where a section of the runbook is."""
        return f"{self.runbook_url or 'docs/runbook.md'}#{section.lower()}"


class Settings(BaseSettings):
    """All settings, by section; built by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="BTC_", env_nested_delimiter="_", env_nested_max_split=1, frozen=True, extra="ignore"
    )

    leader: str = ""
    """The market whose returns, variance, volume and basis are inputs of the others; one of `BTC_EXCHANGE_SYMBOLS`. Empty: none.
    All markets then share one partition of the log, because only messages of one partition have an order, and so one features
    worker. A change moves markets to another partition, where their windows start again: make it at midnight UTC, because the
    features of a day are proven for one leader."""
    horizons_min: Annotated[tuple[int, ...], NoDecode] = horizons.DEFAULT_MIN
    """The horizons of every forecast in minutes, ascending and separated by commas: up to 12 from 1 to 60, such as `2,10,30`. The
    longest is the headline: scores, gates and alerts are about it. Every process reads them once, so change them while the stack
    is down."""
    former_horizons_min: Annotated[tuple[tuple[int, ...], ...], NoDecode] = ()
    """The horizons from before a change, separated by a slash if there were several changes: `1,2,3,4,5/2,10,30`. The tables keep
    their columns, so that older forecasts stay in the copies of days and can be verified."""
    exchange: ExchangeSettings = ExchangeSettings()
    kafka: KafkaSettings = KafkaSettings()
    questdb: QuestdbSettings = QuestdbSettings()
    redis: RedisSettings = RedisSettings()
    postgres: PostgresSettings = PostgresSettings()
    store: StoreSettings = StoreSettings()
    offsite: OffsiteSettings = OffsiteSettings()
    mlflow: MlflowSettings = MlflowSettings()
    dagster: DagsterSettings = DagsterSettings()
    api: ApiSettings = ApiSettings()
    stream: StreamSettings = StreamSettings()
    metrics: MetricsSettings = MetricsSettings()
    model: ModelSettings = ModelSettings()
    user: UserSettings = UserSettings()
    league: LeagueSettings = LeagueSettings()
    seal: SealSettings = SealSettings()
    backup: BackupSettings = BackupSettings()
    disk: DiskSettings = DiskSettings()
    alert: AlertSettings = AlertSettings()
    links: LinksSettings = LinksSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic passes it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read secrets from the files that variables name; see `secret_files`."""
        sources = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        for source in sources:
            if isinstance(source, EnvSettingsSource):
                source.env_vars = with_secret_files(source.env_vars, secret_variables())
        return sources

    @field_validator("horizons_min", mode="before")
    @classmethod
    def _horizons(cls, value: object) -> object:
        """Read the horizons from the text of the environment."""
        return horizons.parse(value) if isinstance(value, str) else value

    @field_validator("former_horizons_min", mode="before")
    @classmethod
    def _former_horizons(cls, value: object) -> object:
        """Read sets of horizons from the text of the environment."""
        return horizons.parse_former(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _leader_is_followed(self) -> Self:
        """Refuse a leader whose messages would never come."""
        if self.leader and self.leader not in self.exchange.symbols:
            msg = (
                f"BTC_LEADER is {self.leader!r}, which is not followed; name one of {', '.join(self.exchange.symbols)} "
                "(BTC_EXCHANGE_SYMBOLS), or none"
            )
            raise ValueError(msg)
        return self

    def log_key(self, symbol: str) -> str:
        """Return the key of a market's messages on `market.events`, which decides their partition.

        With a leader it is the leader for every market, so that the log orders the leader's events and those of the others.
        """
        return self.leader or symbol

    @property
    def user_models(self) -> Path:
        """The folder of the user's models."""
        return self._user_dir / "models"

    @property
    def user_features(self) -> Path:
        """The folder of the user's features."""
        return self._user_dir / "features"

    @property
    def _user_dir(self) -> Path:
        return Path(self.user.dir) if self.user.dir else self.stream.state_dir.parent / "user"

    @property
    def simulated(self) -> bool:
        """Whether the market data comes from the simulator; every page and status line then says so."""
        return self.exchange.mode == "sim"


def variables() -> dict[str, bool]:
    """The variables of all settings, in lower case, and whether each is a secret."""
    found: dict[str, bool] = {}
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= {f"btc_{name}_{inner}": _is_secret(each.annotation) for inner, each in kind.model_fields.items()}
        else:
            found[f"btc_{name}"] = _is_secret(kind)
    return found


def _is_secret(annotation: object) -> bool:
    return SecretStr in (annotation, *getattr(annotation, "__args__", ()))


def secret_variables() -> list[str]:
    """The names of the variables of all secrets, in lower case."""
    return [name for name, is_secret in variables().items() if is_secret]


def load_settings(env_file: Path | None = None) -> Settings:
    """Read the settings from the environment and from the env file: `env_file`, else the one that `BTC_ENV_FILE` names.

    Raises `ConfigError`, which names each bad setting by its variable, and `OtherHorizons` if the settings have other horizons
    than this process.
    """
    path = env_file or (Path(os.environ["BTC_ENV_FILE"]) if os.environ.get("BTC_ENV_FILE") else None)
    if path is not None and not path.is_file():
        msg = f"the env file {path} does not exist; run `btc init`, or unset BTC_ENV_FILE"
        raise ConfigError(msg)
    try:
        found = Settings(_env_file=path)
    except ValidationError as error:
        lines = [
            f"  BTC_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        msg = "bad settings:\n" + "\n".join(lines)
        raise ConfigError(msg) from None
    _check_horizons(found)
    return found


def _check_horizons(found: Settings) -> None:
    """Refuse settings with other horizons than this process, whose tables and arrays follow from its own."""
    if (found.horizons_min, found.former_horizons_min) == (horizons.HORIZONS_MIN, horizons.FORMER_MIN):
        return
    wanted = _horizon_variables(found.horizons_min, found.former_horizons_min)
    own = _horizon_variables(horizons.HORIZONS_MIN, horizons.FORMER_MIN)
    wanted_text, own_text = (" ".join(f"{name}={text}" for name, text in each.items()) for each in (wanted, own))
    msg = (
        f"the settings say {wanted_text}, and this process was started with {own_text}. A process reads its horizons only at its "
        f"start. Start it again with {wanted_text} in its environment; for a whole stack, run `btc down` and then `btc up`"
    )
    raise OtherHorizons(msg, wanted)


def _horizon_variables(horizons_min: tuple[int, ...], former_min: tuple[tuple[int, ...], ...]) -> dict[str, str]:
    """The variables with which a process gets horizons and former horizons."""
    return {
        horizons.VARIABLE: horizons.text_of(horizons_min),
        horizons.FORMER_VARIABLE: horizons.former_text(former_min),
    }


@cache
def settings() -> Settings:
    """The settings of this process; they are read at the first call."""
    return load_settings()
