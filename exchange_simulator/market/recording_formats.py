"""The three file formats of recordings, each read into one sequence of events.

- Kraken's trades as CSV (`time_ms,timestamp,side,price,qty`): quotes are derived from the trades, which are numbered
  from 1.
- Binance's messages as `local_ns json` lines: quotes (`bookTicker`) and trades. A price that the pair cannot print is
  rounded away from the mid (bids and sells down, asks and buys up), so that no quote becomes crossed.
- Kraken's v2 frames, one in each line, sent as they are with their times moved.

What does not belong here: what a recording is in memory (`recording`).
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.clock import NS_PER_MS, to_ns
from btc_core.errors import InvalidInput
from exchange_simulator.market.events import Quote, Trade
from exchange_simulator.market.recording import MarketEvent, RecordedFrame, Recording
from exchange_simulator.pairs import BTC_USD
from exchange_simulator.units import LOTS_PER_UNIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from exchange_simulator.market.recording import RecordedEvent

DATA_CHANNELS = ("ticker", "trade", "book")
"""The channels whose recorded frames are replayed."""


def read(path: Path) -> Recording:
    """Read a recording in any of the three formats; raises `InvalidInput` naming the line that cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"cannot read the recording {path}: {error.strerror}"
        raise InvalidInput(msg) from error
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    reader = _kraken_frames if text.startswith("{") else _kraken_csv if text.startswith("time_ms,") else _binance
    try:
        events = list(reader(lines))
    except _UnreadableLine as error:
        msg = f"{path} line {error.number}: {error.reason}"
        raise InvalidInput(msg) from error
    if not events:
        msg = f"{path} holds no quotes, trades or frames"
        raise InvalidInput(msg)
    return Recording(events)


class _UnreadableLine(Exception):
    def __init__(self, number: int, error: Exception) -> None:
        super().__init__(number)
        self.number = number
        self.reason = f"{type(error).__name__}: {error}"


_READ_ERRORS = (KeyError, ValueError, TypeError, IndexError, InvalidOperation, msgspec.DecodeError)
"""What parsing a line raises when the line does not have the expected form."""


def _ticks(price: str, *, up: bool) -> int:
    scaled = Decimal(price) * BTC_USD.ticks_per_unit
    return int(scaled.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))


def _lots(qty: str) -> int:
    return int(Decimal(qty) * LOTS_PER_UNIT)


def _grouped_by_time(trades: Iterable[Trade]) -> Iterator[MarketEvent]:
    for ts_ns, group in itertools.groupby(trades, key=lambda trade: trade.ts_ns):
        yield MarketEvent(ts_ns, BTC_USD.symbol, None, tuple(group))


def _kraken_csv(lines: Sequence[tuple[int, str]]) -> Iterator[RecordedEvent]:
    trades = []
    rows = csv.DictReader(io.StringIO("\n".join(line for _, line in lines)))
    for trade_id, row in enumerate(rows, 1):
        try:
            buy = {"buy": True, "sell": False}[row["side"]]
            ts_ns = int(row["time_ms"]) * NS_PER_MS
            trades.append(Trade(ts_ns, trade_id, _ticks(row["price"], up=buy), _lots(row["qty"]), buy, market=False))
        except _READ_ERRORS as error:
            raise _UnreadableLine(lines[trade_id][0], error) from error
    quote: Quote | None = None
    for event in _grouped_by_time(trades):
        if quote is None:
            quote = _quote_after(None, event.trades[0])
            yield MarketEvent(event.ts_ns, BTC_USD.symbol, quote)
        yield event
        before = quote
        for trade in event.trades:
            quote = _quote_after(quote, trade)
        if quote[1:] != before[1:]:
            yield MarketEvent(event.ts_ns, BTC_USD.symbol, quote)


def _quote_after(quote: Quote | None, trade: Trade) -> Quote:
    """The quote after a trade: the taken side is at the trade's price, the other side moves only if it would cross."""
    if trade.buy:
        bid = min(quote.bid, trade.price - 1) if quote else trade.price - 1
        return Quote(trade.ts_ns, bid, quote.bid_qty if quote else trade.qty, trade.price, trade.qty)
    ask = max(quote.ask, trade.price + 1) if quote else trade.price + 1
    return Quote(trade.ts_ns, trade.price, trade.qty, ask, quote.ask_qty if quote else trade.qty)


def _binance(lines: Sequence[tuple[int, str]]) -> Iterator[RecordedEvent]:
    """Trades have the exchange's times, quotes only local ones; these are corrected by the median difference."""
    rows: list[tuple[int, int, dict[str, Any]]] = []
    for number, line in lines:
        try:
            local_ns, body = line.split(" ", 1)
            message = msgspec.json.decode(body)
            if message["stream"].endswith(("@bookTicker", "@trade")):
                rows.append((number, int(local_ns), message["data"]))
        except _READ_ERRORS as error:
            raise _UnreadableLine(number, error) from error
    differences_ns = [data["T"] * NS_PER_MS - local_ns for _, local_ns, data in rows if "T" in data]
    correction_ns = int(median(differences_ns)) if differences_ns else 0
    ids = [data["t"] for _, _, data in rows if "t" in data]
    gapless = all(later == earlier + 1 for earlier, later in itertools.pairwise(ids))
    trade_ids = iter(ids if gapless else range(1, len(ids) + 1))
    last_ns, pending = 0, list[Trade]()
    for number, received_ns, data in rows:
        try:
            is_trade = "t" in data
            ts_ns = max(last_ns, data["T"] * NS_PER_MS if is_trade else received_ns + correction_ns)
            if pending and (not is_trade or ts_ns != pending[0].ts_ns):
                yield MarketEvent(pending[0].ts_ns, BTC_USD.symbol, None, tuple(pending))
                pending.clear()
            if is_trade:
                buy = not data["m"]
                price_ticks, qty_lots = _ticks(data["p"], up=buy), _lots(data["q"])
                pending.append(Trade(ts_ns, next(trade_ids), price_ticks, qty_lots, buy, market=False))
            else:
                bid, ask = _ticks(data["b"], up=False), _ticks(data["a"], up=True)
                yield MarketEvent(ts_ns, BTC_USD.symbol, Quote(ts_ns, bid, _lots(data["B"]), ask, _lots(data["A"])))
            last_ns = ts_ns
        except _READ_ERRORS as error:
            raise _UnreadableLine(number, error) from error
    if pending:
        yield MarketEvent(pending[0].ts_ns, BTC_USD.symbol, None, tuple(pending))


def _kraken_frames(lines: Sequence[tuple[int, str]]) -> Iterator[RecordedEvent]:
    """Frames before the first one with a time (a book snapshot has none) get the time of that frame."""
    last_ns = 0
    untimed: list[tuple[str, str, str]] = []
    for number, line in lines:
        try:
            body = msgspec.json.decode(line)
            channel = body.get("channel")
            if channel not in DATA_CHANNELS:
                continue
            rows = body["data"]
            times = [to_ns(datetime.fromisoformat(row["timestamp"])) for row in rows if "timestamp" in row]
            trades = tuple(_trade(row) for row in rows) if channel == "trade" else ()
            symbol = rows[0]["symbol"]
        except _READ_ERRORS as error:
            raise _UnreadableLine(number, error) from error
        last_ns = max([last_ns, *times[-1:]])
        if last_ns == 0:
            untimed.append((symbol, channel, line))
            continue
        for early_symbol, early_channel, early_line in untimed:
            yield RecordedFrame(last_ns, early_symbol, early_channel, early_line)
        untimed.clear()
        yield RecordedFrame(last_ns, symbol, channel, line, trades)
    for symbol, channel, line in untimed:
        yield RecordedFrame(0, symbol, channel, line)


def _trade(row: dict[str, Any]) -> Trade:
    """The trade of one row of a recorded `trade` frame."""
    ts_ns = to_ns(datetime.fromisoformat(row["timestamp"]))
    price, qty = round(row["price"] * BTC_USD.ticks_per_unit), round(row["qty"] * LOTS_PER_UNIT)
    return Trade(ts_ns, row["trade_id"], price, qty, row["side"] == "buy", row["ord_type"] == "market")
