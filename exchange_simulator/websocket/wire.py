"""Every frame of Kraken's WebSocket v2 as the text that goes over the wire.

Prices are printed with the pair's decimals, quantities with eight, times in RFC 3339 with microseconds.
What does not belong here: which frames an event causes (`channels`), or which client gets a frame (`hub`).
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from btc_core.clock import NS_PER_MIN
from exchange_simulator.units import LOTS_PER_UNIT, qty_text, time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exchange_simulator.market.events import Bar, Quote, Trade
    from exchange_simulator.pairs import Pair

CHECKSUM_LEVELS = 10
API_VERSION = "2.0.10"
_CHECKSUM = re.compile(r'("checksum":)(\d+)')


class Frame(NamedTuple):
    """One frame on its way to a client."""

    channel: str
    """The channel; `method` for an answer to a request."""
    symbol: str
    """Empty for a frame that concerns no single symbol."""
    text: str
    trade_ids: tuple[int, ...] = ()
    """The ids of the trades in a `trade` frame."""


class DayStatistics(NamedTuple):
    """What `ticker` says about the last 24 hours: prices in ticks, volume in lots, `value` in ticks times lots."""

    open: int
    high: int
    low: int
    volume: int
    value: float


HEARTBEAT = Frame("heartbeat", "", '{"channel":"heartbeat"}')
RATE_EXCEEDED = Frame("method", "", '{"Error":"Exceeded msg rate"}')


def checksum(bids: Mapping[int, int], asks: Mapping[int, int]) -> int:
    """The unsigned CRC-32 of the ten best levels of each side. Both sides are ordered from the best price outward.

    The protocol wants the printed numbers without the dot and without leading zeros: those are ticks and lots.
    """
    parts: list[str] = []
    for side in (asks, bids):
        for _, (price, qty) in zip(range(CHECKSUM_LEVELS), side.items(), strict=False):
            parts.append(f"{price}{qty}")
    return zlib.crc32("".join(parts).encode())


def ticker(pair: Pair, kind: str, quote: Quote, last: int, day: DayStatistics) -> Frame:
    """A `ticker` frame of type `kind`; `last` is the price of the last trade in ticks."""
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
    """A `trade` frame of type `kind` with one or more trades."""
    rows, ids = [], []
    for each in trades:
        ids.append(each.trade_id)
        rows.append(
            f'{{"symbol":"{pair.symbol}","side":"{"buy" if each.buy else "sell"}",'
            f'"price":{pair.price_text(each.price)},"qty":{qty_text(each.qty)},'
            f'"ord_type":"{"market" if each.market else "limit"}","trade_id":{each.trade_id},'
            f'"timestamp":"{time_text(each.ts_ns)}"}}'
        )
    text = f'{{"channel":"trade","type":"{kind}","data":[{",".join(rows)}]}}'
    return Frame("trade", pair.symbol, text, tuple(ids))


def _levels(pair: Pair, side: Mapping[int, int]) -> str:
    return ",".join(f'{{"price":{pair.price_text(price)},"qty":{qty_text(qty)}}}' for price, qty in side.items())


def book(pair: Pair, kind: str, sides: tuple[Mapping[int, int], Mapping[int, int]], crc: int, ts_ns: int) -> Frame:
    """A `book` frame of type `kind`; `sides` are the bids and asks to send, where quantity 0 deletes a level."""
    bids, asks = sides
    text = (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{pair.symbol}","bids":[{_levels(pair, bids)}],'
        f'"asks":[{_levels(pair, asks)}],"checksum":{crc},"timestamp":"{time_text(ts_ns)}"}}]}}'
    )
    return Frame("book", pair.symbol, text)


def with_wrong_checksum(frame: Frame) -> Frame:
    """A book frame like this one with one bit of its checksum flipped."""
    return frame._replace(text=_CHECKSUM.sub(lambda match: f"{match[1]}{int(match[2]) ^ 1}", frame.text))


def candle(pair: Pair, kind: str, bar: Bar, ts_ns: int) -> Frame:
    """An `ohlc` frame of type `kind` with one one-minute candle, sent because of an event at `ts_ns`."""
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
    """A `status` frame with the state of the exchange's engine. Every connection begins with one."""
    text = (
        f'{{"channel":"status","type":"update","data":[{{"version":"{API_VERSION}","system":"{system}",'
        f'"api_version":"v2","connection_id":{connection_id}}}]}}'
    )
    return Frame("status", "", text)


def instrument(pairs: Iterable[Pair]) -> Frame:
    """The `instrument` snapshot: reference data of the assets and the pairs."""
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
    """An answer to a request: `body` with the times of request and answer, and the id of the request when it had one."""
    times = {"time_in": time_text(time_in_ns), "time_out": time_text(time_out_ns)}
    full = body | times | ({} if req_id is None else {"req_id": req_id})
    return Frame("method", "", msgspec.json.encode(full).decode())
