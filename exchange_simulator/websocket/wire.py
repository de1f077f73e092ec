"""Every frame of Kraken's WebSocket v2 as the text that goes over the wire.

Prices are printed with the pair's decimals, quantities with eight, times in RFC 3339 with microseconds.
What does not belong here: which frame goes to whom (`hub`), or what has to be said (`channels`).
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_S, NS_PER_US, from_ns
from exchange_simulator.pairs import LOTS_PER_UNIT, qty_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exchange_simulator.market.generated import Bar, Quote, Trade
    from exchange_simulator.pairs import Pair

CHECKSUM_LEVELS = 10
API_VERSION = "2.0.10"


class Frame(NamedTuple):
    """One frame on its way to a client; what a frame transformer takes and gives."""

    channel: str
    """The channel, or `status`, `heartbeat`, `method` (an answer to a request)."""
    symbol: str
    text: str
    trade_ids: tuple[int, ...] = ()


class DayFigures(NamedTuple):
    """The rolling 24 hours of `ticker`; prices in ticks, volume in lots, `value` in ticks times lots."""

    open: int
    high: int
    low: int
    volume: int
    value: float


HEARTBEAT = Frame("heartbeat", "", '{"channel":"heartbeat"}')
RATE_EXCEEDED = Frame("method", "", '{"Error":"Exceeded msg rate"}')


@lru_cache(256)
def _second_text(second: int) -> str:
    return from_ns(second * NS_PER_S).strftime("%Y-%m-%dT%H:%M:%S")


def time_text(ts_ns: int) -> str:
    """RFC 3339 with microseconds.

    >>> time_text(1_500_000_000)
    '1970-01-01T00:00:01.500000Z'
    """
    second, rest_ns = divmod(ts_ns, NS_PER_S)
    return f"{_second_text(second)}.{rest_ns // NS_PER_US:06d}Z"


def checksum(bids: Mapping[int, int], asks: Mapping[int, int]) -> int:
    """The unsigned CRC-32 over the ten best levels of each side; both are ordered from the best outward.

    A price in ticks and a quantity in lots are already what the protocol wants: no dot, no leading zeros.
    """
    parts: list[str] = []
    for side in (asks, bids):
        for _, (price, qty) in zip(range(CHECKSUM_LEVELS), side.items(), strict=False):
            parts.append(f"{price}{qty}")
    return zlib.crc32("".join(parts).encode())


def ticker(pair: Pair, kind: str, quote: Quote, last: int, day: DayFigures) -> Frame:
    """A `ticker` frame; `last` is the price of the last trade in ticks."""
    price = pair.price_text
    vwap = int(day.value / day.volume) if day.volume else last
    change = last - day.open
    sign = "-" if change < 0 else ""
    percent = 100.0 * change / day.open if day.open else 0.0
    text = (
        f'{{"channel":"ticker","type":"{kind}","data":[{{"symbol":"{pair.symbol}",'
        f'"bid":{price(quote.bid)},"bid_qty":{qty_text(quote.bid_qty)},'
        f'"ask":{price(quote.ask)},"ask_qty":{qty_text(quote.ask_qty)},"last":{price(last)},'
        f'"volume":{qty_text(day.volume)},"vwap":{price(vwap)},"low":{price(day.low)},"high":{price(day.high)},'
        f'"change":{sign}{price(abs(change))},"change_pct":{percent:.2f},"timestamp":"{time_text(quote.ts_ns)}"}}]}}'
    )
    return Frame("ticker", pair.symbol, text)


def trade(pair: Pair, kind: str, trades: Iterable[Trade]) -> Frame:
    """A `trade` frame with one or more trades."""
    rows, ids = [], []
    for item in trades:
        ids.append(item.trade_id)
        rows.append(
            f'{{"symbol":"{pair.symbol}","side":"{"buy" if item.buy else "sell"}",'
            f'"price":{pair.price_text(item.price)},"qty":{qty_text(item.qty)},'
            f'"ord_type":"{"market" if item.market else "limit"}","trade_id":{item.trade_id},'
            f'"timestamp":"{time_text(item.ts_ns)}"}}'
        )
    text = f'{{"channel":"trade","type":"{kind}","data":[{",".join(rows)}]}}'
    return Frame("trade", pair.symbol, text, tuple(ids))


def _levels(pair: Pair, side: Mapping[int, int]) -> str:
    return ",".join(f'{{"price":{pair.price_text(price)},"qty":{qty_text(qty)}}}' for price, qty in side.items())


def book(pair: Pair, kind: str, sides: tuple[Mapping[int, int], Mapping[int, int]], crc: int, ts_ns: int) -> Frame:
    """A `book` frame; `sides` are the bids and asks to announce, quantity 0 deletes."""
    bids, asks = sides
    text = (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{pair.symbol}","bids":[{_levels(pair, bids)}],'
        f'"asks":[{_levels(pair, asks)}],"checksum":{crc},"timestamp":"{time_text(ts_ns)}"}}]}}'
    )
    return Frame("book", pair.symbol, text)


def candle(pair: Pair, kind: str, bar: Bar, ts_ns: int) -> Frame:
    """An `ohlc` frame of one one-minute candle."""
    price = pair.price_text
    vwap = int(bar.value / bar.volume) if bar.volume else bar.close
    text = (
        f'{{"channel":"ohlc","type":"{kind}","timestamp":"{time_text(ts_ns)}","data":[{{"symbol":"{pair.symbol}",'
        f'"open":{price(bar.open)},"high":{price(bar.high)},"low":{price(bar.low)},"close":{price(bar.close)},'
        f'"trades":{bar.trades},"volume":{qty_text(bar.volume)},"vwap":{price(vwap)},'
        f'"interval_begin":"{time_text(bar.start_min * NS_PER_MIN)}","interval":1,'
        f'"timestamp":"{time_text((bar.start_min + 1) * NS_PER_MIN)}"}}]}}'
    )
    return Frame("ohlc", pair.symbol, text)


def status(connection_id: int, system: str = "online") -> Frame:
    """The unsolicited frame that opens every connection."""
    text = (
        f'{{"channel":"status","type":"update","data":[{{"version":"{API_VERSION}","system":"{system}",'
        f'"api_version":"v2","connection_id":{connection_id}}}]}}'
    )
    return Frame("status", "", text)


def instrument(pairs: Iterable[Pair]) -> Frame:
    """The reference data: `data` is an object with assets and pairs."""
    names = sorted({name for pair in pairs for name in pair.symbol.split("/")})
    asset_rows = [
        {"id": name, "status": "enabled", "precision": 10, "precision_display": 5, "borrowable": False}
        for name in names
    ]
    pair_rows = [
        {
            "symbol": pair.symbol,
            "base": pair.symbol.split("/")[0],
            "quote": pair.symbol.split("/")[1],
            "status": "online",
            "qty_precision": 8,
            "qty_increment": 1 / LOTS_PER_UNIT,
            "price_precision": pair.price_decimals,
            "price_increment": 1 / pair.ticks_per_unit,
            "cost_precision": 5,
            "cost_min": 0.5,
            "qty_min": 0.00005,
            "marginable": False,
            "has_index": True,
        }
        for pair in pairs
    ]
    body = {"channel": "instrument", "type": "snapshot", "data": {"assets": asset_rows, "pairs": pair_rows}}
    return Frame("instrument", "", msgspec.json.encode(body).decode())


def answer(body: dict[str, Any], req_id: int | None, time_in_ns: int, time_out_ns: int) -> Frame:
    """An answer to a request, with both times and the request's id when it had one."""
    times = {"time_in": time_text(time_in_ns), "time_out": time_text(time_out_ns)}
    full = body | times | ({} if req_id is None else {"req_id": req_id})
    return Frame("method", "", msgspec.json.encode(full).decode())
