"""The adapters of Binance, spot (`binance`) and USDT-margined perpetuals (`binance-perp`); neither needs a key.

Both call their market BTC/USDT; the exchange's name tells them apart. What differs from Kraken:

- A subscription brings no snapshot, and the answer to a request names no stream: it confirms the whole request. Binance
  confirms streams of markets that do not exist, too, so `exchangeInfo` is asked before the first other REST request.
- No answer to a message of ours has Binance's clock. The difference between the clocks follows from the times in its
  frames and the round trip of WebSocket pings (`streaming.exchange_clock`).
- Binance sends ping frames, which the WebSocket library answers, and no other sign of life in a quiet market. The
  adapter therefore subscribes to figures of the busiest market as a heartbeat.
- Binance closes each connection after 24 hours, and ingest opens the next one. What is missed between the two is
  repaired (trades) or lost (quotes); `BTC_EXCHANGE_CONNECTIONS=2` avoids both.
- The book is not followed, as it has no checksums, so the precisions in `exchangeInfo` are not needed.
- REST limits a weight per minute and address: 6,000 for spot, 2,400 for perpetuals. The pauses keep a process at or below
  half of it. After 429 or 418 (a ban of up to three days), the request budget waits for `Retry-After`, and at most
  `RETRY_AFTER_MAX_S`.

REST finds trades by their ids, spot's with `historicalTrades` (which needs no key since 2023, and which
data-api.binance.vision does not have) and perpetuals' with `aggTrades`. `binance_frames` says which ids these are.

Nothing here was tried on Binance itself. It follows Binance's documentation as of 2026, and was tried on a stand-in.

What does not belong here: Binance's messages (`binance_frames`), or when to send a request (`streaming`, `btc_assets`).
"""

from __future__ import annotations

import time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_MS, from_ns, now_ns
from btc_core.errors import ConfigError, ExchangeError, NotOffered
from btc_core.exchanges import binance_frames
from btc_core.exchanges.binance_frames import AggregateTrade, Klines, MatchTrade, name_of, symbol_of
from btc_core.exchanges.decoding import BINANCE, BINANCE_PERPETUAL
from btc_core.exchanges.interface import GapSearch, PageTrade, TradePage
from btc_core.exchanges.rest import budget_of, closed_bars, fetch_json, retry_when_rate_limited, unexpected_form

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from btc_core.exchange_settings import ExchangeSettings
    from btc_core.market.frames import AnyFrame
    from btc_core.market.messages import GapNotice

Answer = TypeVar("Answer")

MAX_TRADES = 1_000
"""The largest number of trades in one answer."""
MAX_KLINES = 1_000
"""The largest number of klines in one answer of spot. Perpetuals allow 1,500, at twice the weight."""
MINUTES_A_DAY = 1_440
MAX_STREAMS = 1_024
"""The largest number of streams on one connection."""
UNKNOWN_MARKET = '"code":-1121'
"""What an answer contains whose status is 400 because the market does not exist."""
LISTING_MAX_AGE_S = 86_400.0
"""How long an answer of `exchangeInfo` is used: a name hardly ever changes its meaning."""
KLINES = "klines"
HEARTBEAT, BOOK_HEARTBEAT = "heartbeat", "book_heartbeat"


class MatchRow(msgspec.Struct, frozen=True):
    """A row of spot's answer `historicalTrades`."""

    id: int
    price: Decimal
    qty: Decimal
    time: int
    isBuyerMaker: bool  # noqa: N815 - Binance's name

    def message(self, name: str) -> MatchTrade:
        """Convert to the message that the WebSocket would have sent."""
        return MatchTrade(name, self.id, self.price, self.qty, self.time, self.isBuyerMaker)


class AggregateRow(msgspec.Struct, frozen=True):
    """A row of the perpetual's answer `aggTrades`."""

    a: int
    p: Decimal
    q: Decimal
    T: int
    m: bool

    def message(self, name: str) -> AggregateTrade:
        """Convert to the message that the WebSocket would have sent."""
        return AggregateTrade(name, self.a, self.p, self.q, self.T, self.m)


class KlineRow(msgspec.Struct, frozen=True, array_like=True):
    """The part of a row of `klines` that is used."""

    begin_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    end_ms: int
    quote_volume: float
    trades: int


class Listing(msgspec.Struct, frozen=True):
    """A market in the answer `exchangeInfo`. Spot has no `contractType`."""

    symbol: str
    baseAsset: str  # noqa: N815 - Binance's name
    quoteAsset: str  # noqa: N815 - Binance's name
    contractType: str = "PERPETUAL"  # noqa: N815 - Binance's name


class ExchangeInfo(msgspec.Struct, frozen=True):
    """The answer `exchangeInfo`."""

    symbols: list[Listing]


# `strict=False` accepts text for a number, as Binance sends prices and quantities.
_matches_decoder = msgspec.json.Decoder(list[MatchRow])
_aggregates_decoder = msgspec.json.Decoder(list[AggregateRow])
_klines_decoder = msgspec.json.Decoder(list[KlineRow], strict=False)
_info_decoder = msgspec.json.Decoder(ExchangeInfo)


class Listings:
    """The markets that `exchangeInfo` has confirmed."""

    def __init__(self) -> None:
        self._expires_s: dict[str, float] = {}
        """When a symbol is looked up again (monotonic)."""

    def check(self, symbol: str, exchange_info: Callable[[], ExchangeInfo]) -> None:
        """Raise `NotOffered` unless Binance has a market of this base and quote asset; `exchange_info` asks Binance."""
        if time.monotonic() < self._expires_s.get(symbol, 0.0):
            return
        base, _, quote = symbol.partition("/")
        wanted = Listing(name_of(symbol), base, quote)
        if wanted not in exchange_info().symbols:
            raise NotOffered(
                f"Binance lists no market {wanted.symbol} of {base} in {quote}; check BTC_EXCHANGE_SYMBOLS"
            )
        self._expires_s[symbol] = time.monotonic() + LISTING_MAX_AGE_S


class Binance:
    """The adapter of spot; `interface.Exchange` describes its attributes and methods."""

    name = BINANCE
    channels: tuple[str, ...] = ("trade", "ticker")
    side_channels: tuple[str, ...] = (HEARTBEAT,)
    routes: Mapping[str, tuple[str, ...]] = {"/stream": ("trade", "ticker", HEARTBEAT)}
    requests_per_s = 2.0
    """Binance disconnects a client that sends more than five messages in a second; answers to its pings count, too."""
    sends_snapshots = False
    rest_path = "/api/v3"
    time_path = "/api/v3/time"
    rest_pause_s = 0.5
    """`historicalTrades` has a weight of 25, and 6,000 a minute are allowed."""
    klines_pause_s = 0.1
    """`klines` has a weight of 2."""
    streams: Mapping[str, str] = {
        "trade": "{market}@trade",
        "ticker": "{market}@bookTicker",
        HEARTBEAT: "btcusdt@miniTicker",
    }
    """The stream of each channel. The figures of the last 24 hours come once a second if anything was traded."""
    decode: Callable[[bytes | str], AnyFrame] = staticmethod(binance_frames.decode_spot)

    def __init__(self, settings: ExchangeSettings) -> None:
        for symbol in settings.symbols:
            if symbol_of(name_of(symbol)) != symbol:
                msg = f"BTC_EXCHANGE_SYMBOLS has {symbol}, which is not read as such from Binance's name {name_of(symbol)}"
                raise ConfigError(msg)
        streams = len(settings.symbols) * len(self.channels) + len(self.side_channels)
        if streams > MAX_STREAMS:
            msg = (
                f"BTC_EXCHANGE_SYMBOLS needs {streams} streams, and Binance sends at most {MAX_STREAMS} on a connection"
            )
            raise ConfigError(msg)
        self._settings = settings
        self.budget = budget_of(self.name)
        self._listings = Listings()

    def request(self, method: str, channel: str, symbols: Sequence[str], number: int) -> dict[str, Any]:
        """Return the message with one stream for each symbol."""
        stream = self.streams[channel]
        params = list(dict.fromkeys(stream.format(market=name_of(symbol).lower()) for symbol in symbols))
        return {"method": method.upper(), "params": params, "id": number}

    def ping(self, number: int) -> None:
        """Return None: no answer of Binance's streams contains its clock."""

    def minute_bars(self, symbol: str, days: int) -> tuple[np.ndarray, str]:
        """Fetch all requested days, a thousand minutes in each request; Binance keeps them since the market was listed."""
        end_ns = now_ns() // NS_PER_MIN * NS_PER_MIN
        rows: list[KlineRow] = []
        for minute in range(-days * MINUTES_A_DAY, 0, MAX_KLINES):
            begin_ns = end_ns + minute * NS_PER_MIN
            rows += retry_when_rate_limited(partial(self._klines, symbol, begin_ns), self.rest_pause_s)
        bars = [
            (row.begin_ms / 1_000, row.open, row.high, row.low, row.close, row.volume, row.trades)
            for row in {row.begin_ms: row for row in rows}.values()
        ]
        try:
            return closed_bars(bars, "klines"), "rest"
        except ValueError as error:
            raise unexpected_form("klines", error) from error

    def bars_frame(self, symbol: str, bars: np.ndarray) -> bytes:
        """Encode the bars as a `klines` message."""
        rows = [
            (ts_ns // NS_PER_MS, opened, high, low, close, volume)
            for ts_ns, opened, high, low, close, volume, _trades in bars.tolist()
        ]
        return msgspec.json.encode(Klines(name_of(symbol), rows))

    def gap_search(self, gap: GapNotice) -> GapSearch:
        """Search from the trade before the gap to the trade after it; a cursor is the first id of a page.

        If Binance does not have the trade before the gap, the search begins a page earlier.
        """
        return GapSearch((max(0, gap.first_id - 1), max(0, gap.first_id - MAX_TRADES)), gap.last_id + 2)

    def trade_page(self, symbol: str, cursor: int) -> TradePage:
        """Request the `MAX_TRADES` trades from an id on. A page less than half full is the last one."""
        messages = self._trades(symbol, cursor)
        found = [
            PageTrade(message.trade_id, message.time_ms * NS_PER_MS, msgspec.json.encode(message))
            for message in messages
            if message.trade_id >= cursor
        ]
        return TradePage(found, None if len(found) < MAX_TRADES // 2 else max(trade.trade_id for trade in found) + 1)

    def trades_since(self, symbol: str, since_ns: int) -> NoReturn:
        """Raise `NotOffered`: the trades that have the ids of the stream are found by them only."""
        raise NotOffered(
            f"Binance finds trades by trade id, not by time; import the trades of {symbol} since "
            f"{from_ns(since_ns):%Y-%m-%d} from a file with `btc import-trades`"
        )

    def _trades(self, symbol: str, first_id: int) -> Sequence[MatchTrade]:
        rows = self._get(symbol, "historicalTrades", _matches_decoder, fromId=first_id, limit=MAX_TRADES)
        return [row.message(name_of(symbol)) for row in rows]

    def _klines(self, symbol: str, begin_ns: int) -> list[KlineRow]:
        return self._get(
            symbol, KLINES, _klines_decoder, interval="1m", startTime=begin_ns // NS_PER_MS, limit=MAX_KLINES
        )

    def _get(self, symbol: str, path: str, decoder: msgspec.json.Decoder[Answer], **params: str | int) -> Answer:
        name: dict[str, str | int] = {"symbol": name_of(symbol)}
        self._listings.check(symbol, partial(self._fetch, "exchangeInfo", _info_decoder, name))
        return self._fetch(path, decoder, name | params)

    def _fetch(self, path: str, decoder: msgspec.json.Decoder[Answer], params: dict[str, str | int]) -> Answer:
        url = f"{self._settings.rest_url}{self.rest_path}/{path}"
        try:
            pause_s = self.klines_pause_s if path == KLINES else self.rest_pause_s
            answer = fetch_json(url, params, decoder, self.budget, pause_s)
        except ExchangeError as error:
            if UNKNOWN_MARKET in str(error):
                raise NotOffered(str(error)) from error
            raise
        self.budget.answered()
        return answer


class BinancePerpetual(Binance):
    """The adapter of USDT-margined perpetuals.

    Since April 2026 Binance sends best quotes and depth on one path and everything else on another, so each of the two
    takes a connection of its own. The mark price comes with the funding, once a second.
    """

    name = BINANCE_PERPETUAL
    channels: tuple[str, ...] = ("trade", "ticker", "mark_price")
    side_channels: tuple[str, ...] = (HEARTBEAT, BOOK_HEARTBEAT)
    routes: Mapping[str, tuple[str, ...]] = {
        "/public/stream": ("ticker", BOOK_HEARTBEAT),
        "/market/stream": ("trade", "mark_price", HEARTBEAT),
    }
    rest_path = "/fapi/v1"
    time_path = "/fapi/v1/time"
    rest_pause_s = 1.0
    """`aggTrades` has a weight of 20, and 2,400 a minute are allowed."""
    klines_pause_s = 0.25
    """`klines` of 1,000 minutes has a weight of 5."""
    streams: Mapping[str, str] = {
        "trade": "{market}@aggTrade",
        "ticker": "{market}@bookTicker",
        "mark_price": "{market}@markPrice@1s",
        HEARTBEAT: "btcusdt@miniTicker",
        BOOK_HEARTBEAT: "btcusdt@depth5@500ms",
    }
    decode: Callable[[bytes | str], AnyFrame] = staticmethod(binance_frames.decode_perpetual)

    def _trades(self, symbol: str, first_id: int) -> Sequence[MatchTrade]:
        rows = self._get(symbol, "aggTrades", _aggregates_decoder, fromId=first_id, limit=MAX_TRADES)
        return [row.message(name_of(symbol)) for row in rows]
