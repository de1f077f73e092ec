"""The messages of Binance's perpetuals as text, and the rows of its REST answers.

What does not belong here: when a message is sent (`streams`), or what a request asks for (`rest`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_MS
from exchange_simulator.units import qty_text

if TYPE_CHECKING:
    from exchange_simulator.market.events import Bars, Quote, Trade
    from exchange_simulator.perpetual.tape import PerpetualTape

FUNDING_RATE = "0.00010000"
FUNDING_INTERVAL_NS = 8 * 60 * NS_PER_MIN
MS_PER_MIN = NS_PER_MIN // NS_PER_MS


def combined(stream: str, data: dict[str, Any]) -> str:
    """A message of a combined stream."""
    return msgspec.json.encode({"stream": stream, "data": data}).decode()


def aggregate_trade(tape: PerpetualTape, trade: Trade) -> str:
    """A message of `aggTrade`."""
    time_ms = trade.ts_ns // NS_PER_MS
    data = {"e": "aggTrade", "E": time_ms, "s": tape.name} | aggregate_row(tape, trade)
    return combined(f"{tape.name.lower()}@aggTrade", data)


def aggregate_row(tape: PerpetualTape, trade: Trade) -> dict[str, Any]:
    """A row of the REST answer `aggTrades`; each match is an aggregate of its own."""
    return {
        "a": trade.trade_id,
        "p": tape.pair.price_text(trade.price),
        "q": qty_text(trade.qty),
        "f": trade.trade_id,
        "l": trade.trade_id,
        "T": trade.ts_ns // NS_PER_MS,
        "m": not trade.buy,
    }


def book_ticker(tape: PerpetualTape, quote: Quote) -> str:
    """A message of `bookTicker`."""
    price, time_ms = tape.pair.price_text, quote.ts_ns // NS_PER_MS
    data = {
        "e": "bookTicker",
        "u": quote.ts_ns,
        "s": tape.name,
        "E": time_ms,
        "T": time_ms,
        "b": price(quote.bid),
        "B": qty_text(quote.bid_qty),
        "a": price(quote.ask),
        "A": qty_text(quote.ask_qty),
    }
    return combined(f"{tape.name.lower()}@bookTicker", data)


def mark_price(tape: PerpetualTape, now_ns: int) -> str:
    """A message of `markPrice@1s`; the mark price is the mid."""
    decimals, unit = tape.pair.price_decimals, tape.pair.ticks_per_unit
    funding_ms = (now_ns // FUNDING_INTERVAL_NS + 1) * FUNDING_INTERVAL_NS // NS_PER_MS
    data = {
        "e": "markPriceUpdate",
        "E": now_ns // NS_PER_MS,
        "s": tape.name,
        "r": FUNDING_RATE,
        "T": funding_ms,
        "p": f"{tape.mid_ticks(now_ns) / unit:.{decimals + 2}f}",
        "i": f"{tape.index_ticks(now_ns) / unit:.{decimals + 2}f}",
    }
    return combined(f"{tape.name.lower()}@markPrice@1s", data)


def heartbeat(stream: str) -> str:
    """A message of a stream whose content no client here uses."""
    event = "24hrMiniTicker" if stream.endswith("@miniTicker") else "depthUpdate"
    return combined(stream, {"e": event, "s": stream.partition("@")[0].upper()})


def kline_rows(tape: PerpetualTape, bars: Bars) -> list[list[Any]]:
    """Rows of the REST answer `klines`; minutes without trades are left out."""
    price = tape.pair.price_text
    return [
        [minute * MS_PER_MIN, price(opened), price(high), price(low), price(close), qty_text(volume),
         (minute + 1) * MS_PER_MIN - 1, "0", count]
        for minute, (opened, high, low, close, volume, count) in zip(
            bars.start_min.tolist(), bars.columns.tolist(), strict=True
        )
        if count
    ]  # fmt: skip
