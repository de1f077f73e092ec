"""The data directory of one stack: the paths in it, and the settings and secrets in its `stack.env`.

A stack is one directory. Its `stack.env` (mode 0600) holds the settings of every process, so it is the only place where a
port is changed. What does not belong here: how a server is started (`stack/servers`).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shlex
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from dotenv import dotenv_values

from btc_core import horizons
from btc_core.clock import NS_PER_DAY, from_ns, now_ns
from btc_core.errors import ConfigError, StackError
from btc_core.settings import Settings, load_settings
from stack.files import write_secret
from stack.ports import DEFAULT_PORTS, HOST, InternalPorts, port_of
from stack.server_addresses import CONNECTION_VARIABLES, given_servers, given_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Mode = Literal["live", "sim"]
Durability = Literal["page-cache", "fsync"]
"""When Kafka and QuestDB acknowledge a write: once the kernel has it, or once it is on the disk."""
DURABILITY_MODES: tuple[Durability, ...] = get_args(Durability)
"""The first is the default; docs/decisions.md has the reason."""

LOG_BYTES, MIN_LOG_BYTES = 10 * 1024 * 1024, 10_000
"""The size at which the log of a component is rotated unless `BTC_STACK_LOG_BYTES` says otherwise, and the smallest."""
SECOND = "BTC_SECOND_"
"""How variables of `stack.env` begin that hold the second credentials of a server while they are being rotated."""
MARKETS = "BTC_EXCHANGE_MARKETS"
PERPETUAL = "binance-perp"
"""The exchange beside Kraken whose protocol the simulator uses."""

ROOT = Path(__file__).resolve().parents[1]
"""The folder with our programs (`streaming`, `serving`, `exchange_simulator`): a checkout, or `btc_programs` of an
installed wheel."""

MAX_SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux: `sun_path` has 108 bytes, the last of which is NUL."""
LONGEST_SOCKET_NAME = "supervisor.sock.4194304"
"""supervisord first binds `NAME.PID` and then renames it, so the digits of the PID count too."""

SUPERVISOR_CONF = "supervisord.conf"
"""The file that the command line of a stack's supervisord names, in the data directory."""

PATHS_OF_THE_USER = frozenset(
    {
        "BTC_ALERT_RULES",
        "BTC_API_AUDIT_LOG",
        "BTC_API_CERT_FILE",
        "BTC_API_KEY_FILE",
        "BTC_USER_DIR",
        "BTC_BACKUP_COPY_TO",
        "BTC_OFFSITE_CA_FILE",
        "BTC_OFFSITE_PROFILE",
    }
)

DAYS_BEFORE_CREATION = 30
"""Dagster's daily partitions of a new stack begin this many days before it; importing older data adds earlier days."""


class Layout:
    """The paths of one data directory and the settings that are kept in it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.env_file = self.data_dir / "stack.env"
        self.logs_dir = self.data_dir / "logs"
        self.supervisor_conf = self.data_dir / SUPERVISOR_CONF
        self.run_dir = _run_dir(self.data_dir)

    @property
    def exists(self) -> bool:
        """Whether `create` has run."""
        return self.env_file.is_file()

    @property
    def supervisor_socket(self) -> Path:
        """The socket on which supervisord listens."""
        return self.run_dir / "supervisor.sock"

    @property
    def code_socket(self) -> Path:
        """The socket on which the Dagster code server listens."""
        return self.run_dir / "code.sock"

    @property
    def redis_socket(self) -> Path:
        """The socket on which Valkey listens, in addition to its TCP port."""
        return self.run_dir / "redis.sock"

    def log(self, component: str) -> Path:
        """The log file of a component."""
        return self.logs_dir / f"{component}.log"

    def make_dirs(self) -> None:
        """Create the directories. With mode 0711 a server that gave up root can reach its files, but not list the directory."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.logs_dir.mkdir(exist_ok=True)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name in ("models", "features"):
            (self.data_dir / "user" / name).mkdir(parents=True, exist_ok=True)
        (self.data_dir / "alerts").mkdir(exist_ok=True)
        if self.run_dir.stat().st_uid != os.geteuid():
            msg = f"{self.run_dir} belongs to another user; remove it, or set TMPDIR to a directory of your own"
            raise StackError(msg)
        self.run_dir.chmod(0o700)

    def create(
        self,
        mode: Mode,
        ports: Mapping[str, int] | None = None,
        exchange_args: tuple[str, ...] = (),
        symbols: tuple[str, ...] = (),
        exchange: str = "",
    ) -> None:
        """Write `stack.env` with new random secrets; raises `StackError` when the file exists.

        The `symbols` are pairs of one exchange, or markets such as `kraken:BTC/USD`, of which the first has the home exchange.
        """
        if self.exists:
            msg = f"{self.env_file} exists already, and the servers' data in this directory needs the secrets in it"
            raise StackError(msg)
        if horizons.PROBLEM:
            raise ConfigError(horizons.PROBLEM)
        self.make_dirs()
        home = symbols[0].partition(":")[0] if markets_variable(symbols) == MARKETS else exchange
        values = self._secrets() | self._addresses(mode, ports or DEFAULT_PORTS, home)
        for name in ("BTC_ALERT_URLS", "BTC_ALERT_WATCHDOG_URL"):
            values[name] = os.environ.get(name, "")
        for name in (horizons.VARIABLE, horizons.FORMER_VARIABLE):
            if os.environ.get(name):
                values[name] = os.environ[name]
        values["BTC_SEAL_FIRST_DAY"] = from_ns(now_ns() - DAYS_BEFORE_CREATION * NS_PER_DAY).strftime("%Y-%m-%d")
        if exchange:
            values["BTC_EXCHANGE_NAME"] = exchange
        if symbols:
            values[markets_variable(symbols)] = ",".join(symbols)
        if exchange_args:
            values["BTC_STACK_EXCHANGE_ARGS"] = shlex.join(exchange_args)
        self._write(values)

    def change_ports(self, ports: Mapping[str, int]) -> None:
        """Give every server of the stack another port; external servers keep their addresses. It must be down."""
        old, given = self.values(), given_variables(self.settings())
        changed = {name: value for name, value in self._addresses_for(old, ports).items() if name not in given}
        self._write(old | changed)

    def adopt(self, saved: Mapping[str, str]) -> None:
        """Take over the settings of a backup, which has no secrets.

        The secrets, ports and paths of this directory stay, and so does how its servers are reached. Paths outside of the
        data directory, such as that of the user's alerts, are those of the lost machine and are left out.
        """
        kept = {key: value for key, value in self.values().items() if not key.startswith("BTC_EXCHANGE_")}
        adopted = {key: value for key, value in saved.items() if key not in CONNECTION_VARIABLES | PATHS_OF_THE_USER}
        given = {name: kept[name] for name in given_variables(self.settings()) if name in kept}
        self._write({**kept, **adopted, **self._addresses_for(saved, self.ports()), **given})

    def set_first_day(self, day: str) -> None:
        """Let Dagster's daily partitions begin at `day`, as 2026-07-19. Its processes read this when they start."""
        self._write(self.values() | {"BTC_SEAL_FIRST_DAY": day})

    def second_secrets(self) -> dict[str, str]:
        """The credentials that servers accept beside the present ones while they are being rotated, by variable."""
        values = self.values().items()
        return {f"BTC_{name.removeprefix(SECOND)}": value for name, value in values if name.startswith(SECOND)}

    def change_secrets(self, changed: Mapping[str, str], second: Mapping[str, str]) -> None:
        """Set secrets, and the `second` credentials in place of all earlier ones, each by the name of its variable."""
        kept = {name: value for name, value in self.values().items() if not name.startswith(SECOND)}
        beside = {f"{SECOND}{name.removeprefix('BTC_')}": value for name, value in second.items()}
        self._write({**kept, **changed, **beside})

    def give_new_broker_a_password(self) -> None:
        """Let clients of a broker that has never run authenticate, unless the settings say how they connect.

        `create` does not do this: the file that it writes is also used for containers and clusters, whose brokers have settings of their own.
        """
        settings, values = self.settings(), self.values()
        is_new = not (self.data_dir / "kafka" / "data").exists() and "kafka" not in given_servers(settings)
        described = {f"BTC_KAFKA_{name}" for name in ("SECURITY", "USER", "PASSWORD", "PASSWORD_FILE")}
        if is_new and not described & (values.keys() | os.environ.keys()):
            credentials = {"SECURITY": "sasl_plaintext", "MECHANISM": "PLAIN", "USER": "btc", "PASSWORD": new_secret()}
            self.change_secrets(
                {f"BTC_KAFKA_{name}": value for name, value in credentials.items()}, self.second_secrets()
            )

    def set_features_workers(self, workers: int) -> None:
        """Set how many processes share the symbols' features, 1 or 2, from the next start on."""
        self._write(self.values() | {"BTC_STACK_FEATURES_WORKERS": str(workers)})

    def set_durability(self, mode: Durability) -> None:
        """Set when Kafka and QuestDB acknowledge a write, from their next start on."""
        self._write(self.values() | {"BTC_STACK_DURABILITY": mode})

    def values(self) -> dict[str, str]:
        """The variables in `stack.env`, as written."""
        return {key: value or "" for key, value in dotenv_values(self.env_file, interpolate=False).items()}

    def environment(self) -> dict[str, str]:
        """The environment in which a command of Dagster or one of our programs finds this stack. It holds secrets."""
        home = self.data_dir / "dagster"
        known = {"DAGSTER_HOME": str(home)} if (home / "dagster.yaml").is_file() else {}
        return self.values() | known | {"BTC_ENV_FILE": str(self.env_file), "PYTHONPATH": python_path()}

    def settings(self) -> Settings:
        """The settings as this stack's processes see them; the watched disk is that of the data directory unless set."""
        if not self.exists:
            msg = f"there is no stack in {self.data_dir}; `btc up` or `btc init` creates one"
            raise StackError(msg)
        settings = load_settings(self.env_file)
        if settings.disk.path:
            return settings
        disk = settings.disk.model_copy(update={"path": str(self.data_dir)})
        return settings.model_copy(update={"disk": disk})

    def ports(self) -> dict[str, int]:
        """Every port of this stack, by the names of `DEFAULT_PORTS`; those of external servers are the defaults."""
        settings = self.settings()
        given = given_servers(settings)
        own: dict[str, Callable[[], dict[str, int]]] = {
            "questdb": lambda: {
                "questdb_http": port_of(settings.questdb.http_url),
                "questdb_pg": settings.questdb.pg_port,
            },
            "kafka": lambda: {"kafka": int(settings.kafka.bootstrap.rpartition(":")[2])},
            "valkey": lambda: {"redis": port_of(settings.redis.url)},
            "store": lambda: {"store": port_of(settings.store.endpoint_url)},
            "postgres": lambda: {"postgres": settings.postgres.port},
        }
        found = dict(DEFAULT_PORTS)
        for name, ports in own.items():
            found |= {} if name in given else ports()
        found |= {"mlflow": port_of(settings.mlflow.url), "dagster": port_of(settings.dagster.url)}
        return found | {"api": settings.api.port} | self.internal_ports().model_dump()

    def internal_ports(self) -> InternalPorts:
        """The ports that no other setting names."""
        return InternalPorts.model_validate_json(self.values().get("BTC_STACK_PORTS") or "{}")

    def features_workers(self) -> int:
        """How many processes share the symbols' features: 1 unless `BTC_STACK_FEATURES_WORKERS` is 2."""
        return int(self.values().get("BTC_STACK_FEATURES_WORKERS", "1"))

    def durability(self) -> Durability:
        """When a write counts as acknowledged, from `BTC_STACK_DURABILITY`. Raises `StackError` for another mode."""
        mode = self.values().get("BTC_STACK_DURABILITY", DURABILITY_MODES[0])
        for known in DURABILITY_MODES:
            if mode == known:
                return known
        msg = f"BTC_STACK_DURABILITY in {self.env_file} is {mode!r}; it can be {' or '.join(DURABILITY_MODES)}"
        raise StackError(msg)

    def log_bytes(self) -> int:
        """The size at which the log of a component is rotated, from `BTC_STACK_LOG_BYTES`. Raises `StackError`."""
        text = self.values().get("BTC_STACK_LOG_BYTES", str(LOG_BYTES))
        if not text.isdecimal() or int(text) < MIN_LOG_BYTES:
            msg = f"BTC_STACK_LOG_BYTES in {self.env_file} is {text!r}; it must be a number of bytes, at least {MIN_LOG_BYTES}"
            raise StackError(msg)
        return int(text)

    def exchange_args(self) -> tuple[str, ...]:
        """Additional arguments of the simulator. Raises `StackError` for a speed that does not fit a live stack."""
        given = tuple(shlex.split(self.values().get("BTC_STACK_EXCHANGE_ARGS", "")))
        reader = ArgumentParser(add_help=False)
        reader.add_argument("--speed", default="1")
        speed = reader.parse_known_args(given)[0].speed
        if speed not in {"0", "1", "0.0", "1.0"}:
            msg = (
                f"BTC_STACK_EXCHANGE_ARGS in {self.env_file} has --speed {speed}: market time would drift away from the "
                "clocks of this stack, which refuses data from the future, and a restart would set it back; use --speed 1, "
                "--rate for a busier market, or --speed 0 with --replay"
            )
            raise StackError(msg)
        return given

    def _write(self, values: Mapping[str, str]) -> None:
        lines = [
            "# Settings and secrets of this stack. Environment variables win over this file.",
            "# Change a port here while the stack is down; keep the file secret.",
            *(f"{key}={_quoted(value)}" for key, value in sorted(values.items())),
        ]
        write_secret(self.env_file, "\n".join(lines) + "\n")

    def _secrets(self) -> dict[str, str]:
        names = ("QUESTDB_PASSWORD", "QUESTDB_READER_PASSWORD", "REDIS_PASSWORD", "POSTGRES_PASSWORD", "STORE_SECRET_KEY", "API_TOKEN",
                 "GRAFANA_PASSWORD")  # fmt: skip
        return {f"BTC_{name}": new_secret() for name in names} | {"BTC_STORE_ACCESS_KEY": "btc"}

    def _addresses_for(self, values: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
        """The addresses of a stack with these settings. Those of a live exchange are left as they are."""
        mode: Mode = "sim" if values.get("BTC_EXCHANGE_MODE") == "sim" else "live"
        home = values.get(MARKETS, "").partition(":")[0] or values.get("BTC_EXCHANGE_NAME", "")
        addresses = self._addresses(mode, ports, home)
        if mode == "live":
            return {key: value for key, value in addresses.items() if not key.startswith("BTC_EXCHANGE_")}
        return addresses

    def _addresses(self, mode: Mode, ports: Mapping[str, int], home: str) -> dict[str, str]:
        internal = {name: ports[name] for name in InternalPorts.model_fields}
        values = {
            "BTC_QUESTDB_HTTP_URL": f"http://{HOST}:{ports['questdb_http']}",
            "BTC_QUESTDB_PG_PORT": str(ports["questdb_pg"]),
            "BTC_QUESTDB_USER": "btc",
            "BTC_KAFKA_BOOTSTRAP": f"{HOST}:{ports['kafka']}",
            "BTC_REDIS_URL": f"redis://{HOST}:{ports['redis']}/0",
            "BTC_POSTGRES_HOST": HOST,
            "BTC_POSTGRES_PORT": str(ports["postgres"]),
            "BTC_POSTGRES_USER": "btc",
            "BTC_POSTGRES_DAGSTER_DB": "dagster",
            "BTC_POSTGRES_MLFLOW_DB": "mlflow",
            "BTC_STORE_ENDPOINT_URL": f"http://{HOST}:{ports['store']}",
            "BTC_MLFLOW_URL": f"http://{HOST}:{ports['mlflow']}",
            "BTC_DAGSTER_URL": f"http://{HOST}:{ports['dagster']}",
            "BTC_API_HOST": HOST,
            "BTC_API_PORT": str(ports["api"]),
            "BTC_STREAM_STATE_DIR": str(self.data_dir / "state"),
            "BTC_MODEL_CACHE_DIR": str(self.data_dir / "models"),
            "BTC_STACK_PORTS": json.dumps(internal),
            "BTC_EXCHANGE_MODE": mode,
        }
        return values | _exchange_addresses(mode, ports["exchange"], home)


def new_secret() -> str:
    """A random secret in hexadecimal digits, which no configuration format needs to quote."""
    return secrets.token_hex(20)


def markets_variable(symbols: tuple[str, ...]) -> str:
    """The variable for these symbols: markets with their exchanges have one of their own.

    >>> markets_variable(("BTC/USD",)), markets_variable(("kraken:BTC/USD",))
    ('BTC_EXCHANGE_SYMBOLS', 'BTC_EXCHANGE_MARKETS')
    """
    return MARKETS if any(":" in symbol for symbol in symbols) else "BTC_EXCHANGE_SYMBOLS"


def _exchange_addresses(mode: Mode, port: int, home: str) -> dict[str, str]:
    if mode == "sim":
        sockets = {"kraken": f"ws://{HOST}:{port}/v2", PERPETUAL: f"ws://{HOST}:{port}/{PERPETUAL}"}
        rest = {"kraken": f"http://{HOST}:{port}", PERPETUAL: f"http://{HOST}:{port}/{PERPETUAL}"}
        home = home or "kraken"
        return {
            "BTC_EXCHANGE_WS_URL": sockets.get(home, ""),
            "BTC_EXCHANGE_REST_URL": rest.get(home, ""),
            "BTC_EXCHANGE_WS_URLS": ",".join(f"{name}={url}" for name, url in sockets.items()),
            "BTC_EXCHANGE_REST_URLS": ",".join(f"{name}={url}" for name, url in rest.items()),
            "BTC_EXCHANGE_HISTORY_URL": f"http://{HOST}:{port}/history" if home == "kraken" else "",
        }
    names = ("NAME", "MARKETS", "WS_URL", "WS_URLS", "REST_URL", "REST_URLS", "HISTORY_URL")
    variables = [f"BTC_EXCHANGE_{name}" for name in names]
    return {name: os.environ[name] for name in variables if os.environ.get(name)}


def python_path() -> str:
    """A `PYTHONPATH` with the folder of our programs before the folders that it names already."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def default_data_dir(market: str) -> Path:
    """`BTC_DATA_DIR` when it is set, else `var/live`, `var/sim` or `var/` and an exchange's name in the current directory."""
    named = os.environ.get("BTC_DATA_DIR")
    return Path(named) if named else Path("var") / market


def current_data_dir() -> Path:
    """The data directory of commands that name none: `BTC_DATA_DIR` when it is set, else what `var/current` points to.

    That is the `var` of the current directory, else the one of the clone that `btc` is installed from.
    """
    named = os.environ.get("BTC_DATA_DIR")
    path = Path(named or Path("var") / "current").absolute()
    candidates = (path,) if named else tuple(dict.fromkeys((path, clone_data_dir())))
    for candidate in candidates:
        if (candidate / "stack.env").is_file():
            return candidate.resolve()
    where = " or in ".join(map(str, candidates))
    msg = f"there is no stack in {where}; start one with `btc up`, or name its folder with --data-dir"
    raise StackError(msg)


def clone_data_dir() -> Path:
    """Where the stack that was started last is, in the clone that `btc` is installed from; there may be none."""
    return ROOT / "var" / "current"


def remember_current(data_dir: Path) -> None:
    """Point `var/current` to a data directory in `var`. Directories elsewhere must be named in each command."""
    var = Path("var").resolve()
    if data_dir.parent != var:
        return
    draft = var / f".current.{os.getpid()}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(data_dir.name)
    draft.replace(var / "current")


def _run_dir(data_dir: Path) -> Path:
    inside = data_dir / "run"
    if len(os.fsencode(inside / LONGEST_SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES:
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"btc-{os.geteuid()}-{digest}"


def _quoted(value: str) -> str:
    """A value as an env file needs it, for dotenv and for a shell."""
    if "'" in value:
        return json.dumps(value)
    return f"'{value}'" if any(mark in value for mark in ' #"{') else value
