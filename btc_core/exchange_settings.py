"""The settings that say which exchanges and markets are followed, and the addresses of the exchanges.

What does not belong here: all other settings, and how settings are read (`settings`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from btc_core.names import exchange_in, qualified
from btc_core.settings_section import Section

PUBLIC_URLS = {
    "kraken": {"ws_url": "wss://ws.kraken.com/v2", "rest_url": "https://api.kraken.com"},
    "coinbase": {"ws_url": "wss://ws-feed.exchange.coinbase.com", "rest_url": "https://api.exchange.coinbase.com"},
    "binance": {"ws_url": "wss://stream.binance.com", "rest_url": "https://api.binance.com"},
    "binance-perp": {"ws_url": "wss://fstream.binance.com", "rest_url": "https://fapi.binance.com"},
}
"""The public addresses of every exchange that has an adapter (`exchanges.adapters.EXCHANGES`)."""
USDT_EXCHANGES = ("binance", "binance-perp")
"""Exchanges without a market in US dollars: they follow BTC/USDT unless the settings name other markets."""
SIMULATED_EXCHANGES = ("kraken", "binance-perp")
"""Exchanges whose protocols the simulator uses."""
PAIR = re.compile(r"[A-Z0-9.]+/[A-Z0-9.]+")
"""A pair as this project writes it."""


class ExchangeSettings(Section):
    """The exchanges that are followed, their addresses, and the symbols.

    The home exchange is the only one, or the first one of `markets`. The symbols of its markets are plain pairs
    (`BTC/USD`); those of the other exchanges name the exchange (`BTC/USDT@binance-perp`).
    """

    mode: Literal["live", "sim"] = "live"
    """`sim` when the data comes from the simulator: every page then says SIMULATED. The stack sets this. The simulator uses
    the protocols of `kraken` and `binance-perp`."""
    name: str = "kraken"
    """The exchange: `kraken`, `coinbase`, `binance` (spot) or `binance-perp` (USDT-margined perpetuals). A data directory
    keeps its home exchange, because the trade ids of two exchanges do not mix. To follow several exchanges, set
    `BTC_EXCHANGE_MARKETS` instead."""
    markets: Annotated[tuple[str, ...], NoDecode] = ()
    """Markets of several exchanges, separated by commas, each with its exchange:
    `BTC_EXCHANGE_MARKETS=kraken:BTC/USD,kraken:ETH/USD,binance-perp:BTC/USDT`. The first exchange is the home exchange.
    Replaces `BTC_EXCHANGE_NAME` and `BTC_EXCHANGE_SYMBOLS`, which are the short form for one exchange."""
    ws_url: str = ""
    """Address of the home exchange's WebSocket. Empty: the public one."""
    rest_url: str = ""
    """Address of the home exchange's REST API. Empty: the public one."""
    ws_urls: Annotated[dict[str, str], NoDecode] = {}  # noqa: RUF012 - pydantic copies it
    """Addresses of the WebSockets of other exchanges, where they differ from the public ones:
    `BTC_EXCHANGE_WS_URLS=binance-perp=wss://…,coinbase=wss://…`."""
    rest_urls: Annotated[dict[str, str], NoDecode] = {}  # noqa: RUF012 - pydantic copies it
    """Addresses of the REST APIs of other exchanges, in the form of `BTC_EXCHANGE_WS_URLS`."""
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(("BTC/USD",), min_length=1)
    """The markets to follow, separated by commas: `BTC_EXCHANGE_SYMBOLS=BTC/USD,ETH/USD`. Each has models
    of its own. A request that names no market is about the first. Binance follows BTC/USDT by default."""
    connections: int = Field(1, ge=1, le=2)
    """Connections to each exchange. With 2, each message is taken from whichever brings it first, so a stall or a restart of
    one connection costs no quote."""
    history_url: str = ""
    """Address that serves months of minute bars of the home exchange as CSV (`time,open,high,low,close,volume,trades`,
    without a header). Empty: there is none, and bars come from the exchange's REST API."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill in the home exchange, the symbols and the public addresses."""
        markets = _listed(values.get("markets", ()))
        if markets:
            values = values | _of_markets(markets, values)
        name = values.get("name", "kraken")
        _check_exchange(name, "BTC_EXCHANGE_NAME is")
        others = {exchange_in(symbol) for symbol in _listed(values.get("symbols", ()))} - {""}
        for other in others:
            _check_exchange(other, "BTC_EXCHANGE_SYMBOLS has a symbol of the exchange")
        if name in others:
            msg = f"BTC_EXCHANGE_SYMBOLS has a symbol with @{name}, but the symbols of the home exchange do not name it"
            raise ValueError(msg)
        default = {"symbols": ("BTC/USDT",)} if name in USDT_EXCHANGES else {}
        return default | values | {key: values.get(key) or url for key, url in PUBLIC_URLS[name].items()}

    @model_validator(mode="after")
    def _check_simulated(self) -> Self:
        """Refuse an exchange that the simulator does not stand for: its data would come from the real exchange."""
        if self.mode != "sim":
            return self
        if unknown := sorted(set(self.names).difference(SIMULATED_EXCHANGES)):
            msg = (
                f"the simulator uses the protocols of {' and '.join(SIMULATED_EXCHANGES)}, and BTC_EXCHANGE_NAME or "
                f"BTC_EXCHANGE_MARKETS has {', '.join(unknown)}"
            )
            raise ValueError(msg)
        if missing := [name for name in self.names[1:] if not (self.ws_urls.get(name) and self.rest_urls.get(name))]:
            msg = f"BTC_EXCHANGE_WS_URLS and BTC_EXCHANGE_REST_URLS need the simulator's addresses for {', '.join(missing)}"
            raise ValueError(msg)
        return self

    @field_validator("symbols", "markets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Split the text from the environment at its commas."""
        return _listed(value)

    @field_validator("ws_urls", "rest_urls", mode="before")
    @classmethod
    def _by_exchange(cls, value: object) -> object:
        """Read `exchange=address` pairs from the text of the environment."""
        if not isinstance(value, str):
            return value
        urls = {}
        for part in _listed(value):
            name, found, url = part.partition("=")
            if not found or not url:
                msg = f"{part!r} is not of the form exchange=address, such as binance-perp=wss://fstream.binance.com"
                raise ValueError(msg)
            _check_exchange(name, "an address is given for")
            urls[name] = url
        return urls

    @property
    def names(self) -> tuple[str, ...]:
        """The exchanges that are followed, the home exchange first."""
        return tuple(dict.fromkeys((self.name, *(exchange_in(symbol) or self.name for symbol in self.symbols))))

    @property
    def origin(self) -> str:
        """Whose market data this is; every store is marked with it. It can be part of the name of a file or a topic.

        It has the mode, the home exchange, and the host if the exchange is live at another address than the public one.

        >>> ExchangeSettings(mode="sim").origin, ExchangeSettings(name="coinbase").origin
        ('sim-kraken', 'live-coinbase')
        >>> ExchangeSettings(ws_url="ws://127.0.0.1:8765/v2").origin
        'live-kraken-127.0.0.1-8765'
        """
        is_public = self.mode == "sim" or self.ws_url == PUBLIC_URLS[self.name]["ws_url"]
        address = () if is_public else (urlsplit(self.ws_url).netloc,)
        return re.sub(r"[^A-Za-z0-9.]", "-", "-".join((self.mode, self.name, *address)))

    def only(self, name: str) -> Self:
        """The settings of one exchange alone; of one that is not followed, without symbols and with public addresses."""
        symbols = tuple(symbol for symbol in self.symbols if (exchange_in(symbol) or self.name) == name)
        if name == self.name:
            return self.model_copy(update={"symbols": symbols, "markets": ()})
        urls = {
            "ws_url": self.ws_urls.get(name) or PUBLIC_URLS[name]["ws_url"],
            "rest_url": self.rest_urls.get(name) or PUBLIC_URLS[name]["rest_url"],
        }
        return self.model_copy(update={"name": name, "symbols": symbols, "markets": (), "history_url": "", **urls})


def _listed(value: Any) -> Any:
    """The parts of a text between its commas; another value as it is."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_exchange(name: str, what: str) -> None:
    if name not in PUBLIC_URLS:
        msg = f"{what} {name!r}; there are adapters for {', '.join(PUBLIC_URLS)}"
        raise ValueError(msg)


def _of_markets(markets: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    """The home exchange and the symbols of a list of markets; raises `ValueError` for a market that cannot be followed."""
    found = []
    for market in markets:
        name, colon, pair = market.partition(":")
        if not colon:
            msg = f"BTC_EXCHANGE_MARKETS: {market!r} names no exchange; write it as exchange:pair, such as kraken:{market}"
            raise ValueError(msg)
        _check_exchange(name, f"BTC_EXCHANGE_MARKETS: {market!r} is of the exchange")
        if not PAIR.fullmatch(pair):
            msg = f"BTC_EXCHANGE_MARKETS: {market!r} has no pair of the form BASE/QUOTE in capital letters, such as {name}:BTC/USD"
            raise ValueError(msg)
        if (name, pair) in found:
            msg = f"BTC_EXCHANGE_MARKETS: {market!r} is named twice"
            raise ValueError(msg)
        found.append((name, pair))
    home = found[0][0]
    symbols = tuple(pair if name == home else qualified(pair, name) for name, pair in found)
    given = _listed(values.get("symbols", symbols))
    if values.get("name", home) != home or tuple(given) != symbols:
        msg = (
            f"BTC_EXCHANGE_MARKETS={','.join(markets)} and BTC_EXCHANGE_NAME or BTC_EXCHANGE_SYMBOLS name different markets; remove "
            "BTC_EXCHANGE_NAME and BTC_EXCHANGE_SYMBOLS"
        )
        raise ValueError(msg)
    return {"name": home, "symbols": symbols}
