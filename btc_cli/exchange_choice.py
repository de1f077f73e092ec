"""Which exchange `btc up` and `btc init` follow, and in which data directory when none is named.

What does not belong here: the adapters of exchanges (`btc_core.exchanges`) and the simulator (`exchange_simulator`).
"""

from __future__ import annotations

import socket
import ssl
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from btc_cli import screen
from btc_cli.options import open_stack
from btc_core.errors import InvalidInput, StackError
from btc_core.exchange_settings import PAIR, SIMULATED_EXCHANGES, ExchangeSettings
from btc_core.exchanges.adapters import exchange_of
from btc_core.settings import load_settings
from exchange_simulator.pairs import choose
from stack.layout import PERPETUAL, Layout, clone_data_dir, default_data_dir
from stack.supervisor import Supervisor

if TYPE_CHECKING:
    from stack.layout import Mode

TIMEOUT_S = 3.0
"""For each of the exchange's two addresses. An exchange answers within half a second from anywhere."""


class Exchange(StrEnum):
    """The values of `--exchange`."""

    AUTO = "auto"
    LIVE = "live"
    SIM = "sim"
    COINBASE = "coinbase"
    BINANCE = "binance"
    BINANCE_PERP = "binance-perp"

    @property
    def adapter(self) -> str:
        """The adapter of an exchange other than Kraken; "" for the rest."""
        return "" if self in {Exchange.AUTO, Exchange.LIVE, Exchange.SIM} else self.value


def running_data_dir() -> Path | None:
    """The data directory of the stack started last, if it is running."""
    try:
        current = open_stack(None)
    except StackError:
        return None
    return current.layout.data_dir if current.running else None


def warn_of_another(data_dir: Path) -> None:
    """Warn if the stack of the clone runs and the one in `data_dir`, which is about to start, is another one."""
    other = Layout(clone_data_dir().resolve())
    if not other.exists or other.data_dir == data_dir.resolve() or Supervisor(Layout(data_dir)).is_running():
        return
    if Supervisor(other).is_running():
        screen.warn(
            f"The stack in {other.data_dir} runs already, and this starts another one in {data_dir.resolve()}.\n"
            f"`btc status --data-dir {other.data_dir}` shows the first, and --ports-from gives the second ports of its own."
        )


def markets_of(exchange: Exchange, symbols: str, markets: str) -> tuple[str, ...]:
    """The value of `--symbols` or of `--markets` in parts; raises `InvalidInput` if the options contradict each other."""
    if markets and (symbols or exchange.adapter):
        other = "--symbols" if symbols else f"--exchange {exchange.value}"
        msg = f"--markets names the exchanges and their markets, so it cannot be combined with {other}"
        raise InvalidInput(msg)
    if markets:
        try:
            return ExchangeSettings(markets=markets).markets
        except ValidationError as error:
            msg = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidInput(msg) from None
    found = tuple(symbol.strip() for symbol in symbols.split(",") if symbol.strip())
    for symbol in found:
        if not PAIR.fullmatch(symbol):
            msg = f"--symbols: {symbol!r} is no pair of the form BASE/QUOTE in capital letters, such as BTC/USD"
            raise InvalidInput(msg)
    return found


def check_simulated(mode: Mode, markets: tuple[str, ...]) -> None:
    """Raise `InvalidInput` or `ConfigError` if a simulated stack is to follow an exchange or a pair that the simulator lacks."""
    unknown = {market.partition(":")[0] for market in markets if ":" in market}.difference(SIMULATED_EXCHANGES)
    if mode == "sim" and unknown:
        msg = (
            f"the simulator stands for {' and '.join(SIMULATED_EXCHANGES)}, not for {', '.join(sorted(unknown))}; follow "
            "the real exchanges with --exchange live, or choose other --markets"
        )
        raise InvalidInput(msg)
    if mode == "sim":
        choose(market.removeprefix("kraken:") for market in markets if not market.startswith(f"{PERPETUAL}:"))


def choose_mode(exchange: Exchange, data_dir: Path | None, markets: tuple[str, ...] = ()) -> Mode:
    """Live or simulated market data.

    `auto` keeps the mode of an existing data directory that the user named. Otherwise it is live if the home exchange
    (Kraken unless `markets` begin with another one) can be reached, and simulated, with a warning, if not.
    """
    if exchange is not Exchange.AUTO:
        return "sim" if exchange is Exchange.SIM else "live"
    named = data_dir or default_data_dir("sim")  # the latter differs from var/sim if BTC_DATA_DIR names a directory
    if (data_dir or named != Path("var") / "sim") and Layout(named).exists:
        return "sim" if Layout(named).settings().simulated else "live"
    chosen = ExchangeSettings(markets=markets) if markets else load_settings().exchange
    problem = connection_problem(chosen)
    if problem is None:
        return "live"
    screen.warn(
        f"The live exchange cannot be reached: {problem}.\n"
        "Starting on the SIMULATOR instead: real servers, a generated market, and a data directory of its own.\n"
        "Use `btc up --exchange live` to start on the live exchange anyway."
    )
    return "sim"


def connection_problem(exchange: ExchangeSettings) -> str | None:
    """Which address of the exchange does not answer and why; None if both answer."""
    return _rest_problem(exchange.rest_url, exchange_of(exchange).time_path) or _websocket_problem(exchange.ws_url)


def _rest_problem(url: str, path: str) -> str | None:
    try:
        httpx.get(url + path, timeout=TIMEOUT_S).raise_for_status()
    except (httpx.HTTPError, OSError) as error:
        return f"{url} does not answer ({error})"
    return None


def _websocket_problem(url: str) -> str | None:
    """Whether a TCP connection, with TLS where the URL asks for it, can be opened."""
    address = urlsplit(url)
    is_encrypted = address.scheme == "wss"
    endpoint = (address.hostname or "", address.port or (443 if is_encrypted else 80))
    try:
        with socket.create_connection(endpoint, TIMEOUT_S) as connection:
            if is_encrypted:
                context = ssl.create_default_context()
                context.wrap_socket(connection, server_hostname=address.hostname).close()
    except OSError as error:
        return f"{url} does not answer ({error})"
    return None
