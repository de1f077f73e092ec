"""Recorded markets: three file formats read into one sequence of quotes, trades and raw frames.

- Kraken trades as CSV (`time_ms,timestamp,side,price,qty`): quotes are derived, trades numbered from 1 in order.
- Binance `local_ns json` lines: quotes (`bookTicker`) and trades; prices that the pair cannot print are rounded away
  from the middle (bids and sells down, asks and buys up), so that no quote becomes crossed.
- Kraken v2 frames, one a line: sent as they are, with times moved.

What does not belong here: pacing (`feeds`).
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
from bisect import bisect_right
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_MS, to_ns
from btc_core.errors import InvalidInput
from exchange_simulator.market.generated import Bars, Quote, Trade
from exchange_simulator.pairs import BTC_USD, LOTS_PER_UNIT, Pair
from exchange_simulator.websocket.wire import time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

DATA_CHANNELS = ("ticker", "trade", "book")
_TIMES = re.compile(r'"timestamp":"([^"]+)"')


class Moment(msgspec.Struct, frozen=True):
    """One event: a quote, or trades of one moment."""

    ts_ns: int
    symbol: str
    quote: Quote | None = None
    trades: tuple[Trade, ...] = ()


class RawFrame(msgspec.Struct, frozen=True):
    """One recorded frame, and the trades in it."""

    ts_ns: int
    symbol: str
    channel: str
    text: str
    trades: tuple[Trade, ...] = ()

    @property
    def trade_ids(self) -> tuple[int, ...]:
        """The ids of its trades."""
        return tuple(trade.trade_id for trade in self.trades)


Event = Moment | RawFrame


class RecordedTape:
    """The trades told so far, for REST; nothing of the future is in it."""

    def __init__(self) -> None:
        self._trades: list[Trade] = []

    def tell(self, trades: Iterable[Trade]) -> None:
        """These trades have happened."""
        self._trades.extend(trades)

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades later than `since_ns`, up to and with `until_ns`."""
        first = bisect_right(self._trades, since_ns, key=lambda trade: trade.ts_ns)
        end = bisect_right(self._trades, until_ns, key=lambda trade: trade.ts_ns)
        return self._trades[first : min(end, first + count)]

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades up to and with `until_ns`, oldest first."""
        end = bisect_right(self._trades, until_ns, key=lambda trade: trade.ts_ns)
        return self._trades[max(0, end - count) : end]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970; minutes before the first trade are left out."""
        trades = self._trades
        first = max(first_min, trades[0].ts_ns // NS_PER_MIN) if trades else end_min
        columns, value = np.zeros((max(0, end_min - first), 6), np.int64), np.zeros(max(0, end_min - first))
        start = bisect_right(trades, first * NS_PER_MIN - 1, key=lambda trade: trade.ts_ns)
        for trade in itertools.islice(trades, start, None):
            row = trade.ts_ns // NS_PER_MIN - first
            if row >= len(columns):
                break
            old = columns[row].tolist()
            price, count = trade.price, old[5] + 1
            if count == 1:
                old[:4] = [price] * 4
            columns[row] = old[0], max(old[1], price), min(old[2], price), price, old[4] + trade.qty, count
            value[row] += float(price) * trade.qty
        return Bars(np.arange(first, max(first, end_min)), columns, value)


class Recording:
    """A file in memory; `pair` is always BTC/USD."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.pair: Pair = BTC_USD
        self.tape = RecordedTape()
        self._events = events
        self.first_ns = events[0].ts_ns
        raw = {event.channel for event in events if isinstance(event, RawFrame)}
        self.raw = bool(raw)
        """Whether it holds frames as they were sent, not events."""
        self.channels = frozenset(raw & set(DATA_CHANNELS)) if raw else frozenset({"ticker", "trade"})
        """What a client must have subscribed to before the replay starts."""
        self.trades_total = sum(len(event.trades) for event in events)

    def events(self, shift_ns: int) -> Iterator[Event]:
        """All events in order, `shift_ns` later than recorded."""
        for event in self._events:
            ts_ns = event.ts_ns + shift_ns
            trades = tuple(trade._replace(ts_ns=trade.ts_ns + shift_ns) for trade in event.trades)
            if isinstance(event, RawFrame):
                text = _TIMES.sub(lambda match: _moved(match, shift_ns), event.text) if shift_ns else event.text
                yield RawFrame(ts_ns, event.symbol, event.channel, text, trades)
            else:
                quote = event.quote and event.quote._replace(ts_ns=ts_ns)
                yield Moment(ts_ns, event.symbol, quote, trades)


def _moved(match: re.Match[str], shift_ns: int) -> str:
    return f'"timestamp":"{time_text(to_ns(datetime.fromisoformat(match[1])) + shift_ns)}"'


def read(path: Path) -> Recording:
    """Read a recording of any of the three formats; raises `InvalidInput` with the line that cannot be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"cannot read the recording {path}: {error.strerror}"
        raise InvalidInput(msg) from error
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    reader = _raw_frames if text.startswith("{") else _kraken_csv if text.startswith("time_ms,") else _binance
    try:
        events = list(reader(lines))
    except _BadLine as error:
        msg = f"{path} line {error.number}: {error.reason}"
        raise InvalidInput(msg) from error
    if not events:
        msg = f"{path} holds no quotes, trades or frames"
        raise InvalidInput(msg)
    return Recording(events)


class _BadLine(Exception):
    def __init__(self, number: int, error: Exception) -> None:
        super().__init__(number)
        self.number = number
        self.reason = f"{type(error).__name__}: {error}"


_UNUSABLE = (KeyError, ValueError, TypeError, IndexError, InvalidOperation, msgspec.DecodeError)


def _ticks(price: str, *, up: bool) -> int:
    scaled = Decimal(price) * BTC_USD.ticks_per_unit
    return int(scaled.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))


def _lots(qty: str) -> int:
    return int(Decimal(qty) * LOTS_PER_UNIT)


def _grouped(trades: Iterable[Trade]) -> Iterator[Moment]:
    for ts_ns, group in itertools.groupby(trades, key=lambda trade: trade.ts_ns):
        yield Moment(ts_ns, BTC_USD.symbol, None, tuple(group))


def _kraken_csv(lines: Sequence[tuple[int, str]]) -> Iterator[Event]:
    trades = []
    rows = csv.DictReader(io.StringIO("\n".join(line for _, line in lines)))
    for trade_id, row in enumerate(rows, 1):
        try:
            buy = {"buy": True, "sell": False}[row["side"]]
            ts_ns = int(row["time_ms"]) * NS_PER_MS
            trades.append(Trade(ts_ns, trade_id, _ticks(row["price"], up=buy), _lots(row["qty"]), buy, market=False))
        except _UNUSABLE as error:
            raise _BadLine(lines[trade_id][0], error) from error
    quote: Quote | None = None
    for moment in _grouped(trades):
        if quote is None:
            quote = _quote_after(None, moment.trades[0])
            yield Moment(moment.ts_ns, BTC_USD.symbol, quote)
        yield moment
        before = quote
        for trade in moment.trades:
            quote = _quote_after(quote, trade)
        if quote[1:] != before[1:]:
            yield Moment(moment.ts_ns, BTC_USD.symbol, quote)


def _quote_after(quote: Quote | None, trade: Trade) -> Quote:
    """The quote that a trade leaves: it stands at the side that was taken, the other side gives way if it must."""
    if trade.buy:
        other = min(quote.bid, trade.price - 1) if quote else trade.price - 1
        return Quote(trade.ts_ns, other, quote.bid_qty if quote else trade.qty, trade.price, trade.qty)
    other = max(quote.ask, trade.price + 1) if quote else trade.price + 1
    return Quote(trade.ts_ns, trade.price, trade.qty, other, quote.ask_qty if quote else trade.qty)


def _binance(lines: Sequence[tuple[int, str]]) -> Iterator[Event]:
    rows: list[tuple[int, int, dict[str, Any]]] = []
    for number, line in lines:
        try:
            local_ns, body = line.split(" ", 1)
            message = msgspec.json.decode(body)
            if message["stream"].endswith(("@bookTicker", "@trade")):
                rows.append((number, int(local_ns), message["data"]))
        except _UNUSABLE as error:
            raise _BadLine(number, error) from error
    lags_ns = [data["T"] * NS_PER_MS - local_ns for _, local_ns, data in rows if "T" in data]
    correction_ns = int(median(lags_ns)) if lags_ns else 0
    ids = [data["t"] for _, _, data in rows if "t" in data]
    gapless = all(later == earlier + 1 for earlier, later in itertools.pairwise(ids))
    trade_ids = iter(ids if gapless else range(1, len(ids) + 1))
    last_ns, pending = 0, list[Trade]()
    for number, seen_ns, data in rows:
        try:
            is_trade = "t" in data
            ts_ns = max(last_ns, data["T"] * NS_PER_MS if is_trade else seen_ns + correction_ns)
            if pending and (not is_trade or ts_ns != pending[0].ts_ns):
                yield Moment(pending[0].ts_ns, BTC_USD.symbol, None, tuple(pending))
                pending.clear()
            if is_trade:
                buy = not data["m"]
                price_ticks, qty_lots = _ticks(data["p"], up=buy), _lots(data["q"])
                pending.append(Trade(ts_ns, next(trade_ids), price_ticks, qty_lots, buy, market=False))
            else:
                bid, ask = _ticks(data["b"], up=False), _ticks(data["a"], up=True)
                yield Moment(ts_ns, BTC_USD.symbol, Quote(ts_ns, bid, _lots(data["B"]), ask, _lots(data["A"])))
            last_ns = ts_ns
        except _UNUSABLE as error:
            raise _BadLine(number, error) from error
    if pending:
        yield Moment(pending[0].ts_ns, BTC_USD.symbol, None, tuple(pending))


def _raw_frames(lines: Sequence[tuple[int, str]]) -> Iterator[Event]:
    last_ns = 0
    waiting: list[tuple[str, str, str]] = []
    for number, line in lines:
        try:
            body = msgspec.json.decode(line)
            channel = body.get("channel")
            if channel not in DATA_CHANNELS:
                continue
            rows = body["data"]
            times = [to_ns(datetime.fromisoformat(row["timestamp"])) for row in rows if "timestamp" in row]
            trades = tuple(_raw_trade(row) for row in rows) if channel == "trade" else ()
            symbol = rows[0]["symbol"]
        except _UNUSABLE as error:
            raise _BadLine(number, error) from error
        last_ns = max([last_ns, *times[-1:]])
        if last_ns == 0:
            waiting.append((symbol, channel, line))
            continue
        for early_symbol, early_channel, early_line in waiting:
            yield RawFrame(last_ns, early_symbol, early_channel, early_line)
        waiting.clear()
        yield RawFrame(last_ns, symbol, channel, line, trades)
    for symbol, channel, line in waiting:
        yield RawFrame(0, symbol, channel, line)


def _raw_trade(row: dict[str, Any]) -> Trade:
    ts_ns = to_ns(datetime.fromisoformat(row["timestamp"]))
    price, qty = round(row["price"] * BTC_USD.ticks_per_unit), round(row["qty"] * LOTS_PER_UNIT)
    return Trade(ts_ns, row["trade_id"], price, qty, row["side"] == "buy", row["ord_type"] == "market")
