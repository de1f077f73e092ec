"""The events in a frame: quotes, trades and minute bars, each of them checked.

Every reader of the log gets its events from here, so all of them refuse the same entries.
What does not belong here: the wire format (`frames`), or what happens to a refused entry.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import BadFrame
from btc_core.market.frames import OhlcFrame, TickerFrame, TradeFrame, timestamp_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from btc_core.market.frames import AnyFrame, Candle, Quote, Trade

FUTURE_S = 600
"""An exchange time further ahead of ours than this is refused: one such event would stop the clock of the fold.
Wide enough for a machine whose clock is off; more than the slack in `WARM_UP_S` would break equality after a restart."""
MAX_PRICE_USD = 1e9
MAX_QTY = 1e10
MAX_NOTIONAL_USD = 1e9
"""Beyond these the fold's integer counters (1e-8 of a coin, 1e-9 USD, 64 bits) would overflow in one step."""
MAX_TRADE_ID = 2**63 - 1

QUOTE, TRADE, BAR = 0, 1, 2
"""Kinds of event, where one stands as a number: in the fold and on the topic `features`."""

EVENT_CHANNELS = frozenset({"ticker", "trade", "ohlc"})


class QuoteEvent(msgspec.Struct, frozen=True, gc=False):
    """A best bid and ask, with the figures of the last 24 hours that came with it."""

    symbol: str
    ts_event_ns: int
    item: int
    """Position in the frame."""
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    last: float
    volume: float
    vwap: float


class TradeEvent(msgspec.Struct, frozen=True, gc=False):
    """A trade."""

    symbol: str
    ts_event_ns: int
    item: int
    """Position in the frame."""
    trade_id: int
    price: float
    qty: float
    side: str
    """`buy` or `sell`: what the taker did."""
    ord_type: str

    @property
    def sign(self) -> float:
        """+1 when the taker bought, −1 when the taker sold."""
        return 1.0 if self.side == "buy" else -1.0


class BarEvent(msgspec.Struct, frozen=True, gc=False):
    """A closed one-minute bar of trades."""

    symbol: str
    ts_event_ns: int
    """The open of the bar."""
    item: int
    """Position in the frame."""
    open: float
    high: float
    low: float
    close: float
    volume: float


Event = QuoteEvent | TradeEvent | BarEvent


def events_in(frame: AnyFrame, ts_recv_ns: int) -> Iterator[Event | BadFrame]:
    """The events of a frame that was received at `ts_recv_ns`, in order; none for a channel without events.

    An entry that cannot be used comes as its `BadFrame`, and the entries behind it follow.
    """
    latest_ns = ts_recv_ns + FUTURE_S * NS_PER_S
    if isinstance(frame, TickerFrame):
        for item, quote in enumerate(frame.data):
            yield _quote_event(quote, item, timestamp_ns(quote.timestamp, ts_recv_ns), latest_ns)
    elif isinstance(frame, TradeFrame):
        for item, trade in enumerate(frame.data):
            yield _trade_event(trade, item, timestamp_ns(trade.timestamp, ts_recv_ns), latest_ns)
    elif isinstance(frame, OhlcFrame):
        for item, candle in enumerate(frame.data):
            yield _bar_event(candle, item, timestamp_ns(candle.interval_begin, 0), latest_ns)


def _quote_event(quote: Quote, item: int, ts_ns: int, latest_ns: int) -> QuoteEvent | BadFrame:
    problem = _bad_price("bid", quote.bid) or _bad_price("ask", quote.ask)
    problem = problem or _bad_qty("bid_qty", quote.bid_qty) or _bad_qty("ask_qty", quote.ask_qty)
    if problem is None and quote.bid > quote.ask:
        problem = BadFrame("crossed_quote", f"{quote.symbol}: bid {quote.bid} above ask {quote.ask}")
    problem = problem or _bad_time(ts_ns, latest_ns)
    if problem is not None:
        return problem
    return QuoteEvent(
        quote.symbol,
        ts_ns,
        item,
        quote.bid,
        quote.bid_qty,
        quote.ask,
        quote.ask_qty,
        quote.last,
        quote.volume,
        quote.vwap,
    )


def _trade_event(trade: Trade, item: int, ts_ns: int, latest_ns: int) -> TradeEvent | BadFrame:
    price, qty = _number(trade.price), _number(trade.qty)
    problem = _bad_price("price", price) or _bad_price("qty", qty) or _bad_time(ts_ns, latest_ns)
    problem = problem or _bad_size(price, qty)
    if problem is None and not 0 < trade.trade_id <= MAX_TRADE_ID:
        problem = BadFrame("bad_trade_id", f"{trade.symbol}: trade_id {trade.trade_id} is not a positive int64")
    if problem is None and trade.side not in ("buy", "sell"):
        problem = BadFrame("bad_side", f"{trade.symbol}: side {trade.side[:16]!r} is neither buy nor sell")
    if problem is not None:
        return problem
    return TradeEvent(trade.symbol, ts_ns, item, trade.trade_id, price, qty, trade.side, trade.ord_type)


def _bar_event(bar: Candle, item: int, ts_ns: int, latest_ns: int) -> BarEvent | BadFrame:
    problem = _bad_time(ts_ns, latest_ns)
    for name in ("open", "high", "low", "close"):
        problem = problem or _bad_price(name, getattr(bar, name))
    problem = problem or _bad_qty("volume", bar.volume)
    if problem is None and not bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high:
        problem = BadFrame(
            "bad_bar", f"{bar.symbol}: open and close must lie between low {bar.low} and high {bar.high}"
        )
    if problem is None and bar.interval != 1:
        problem = BadFrame("bad_interval", f"{bar.symbol}: only one-minute bars are events, not {bar.interval}")
    if problem is None and ts_ns + NS_PER_MIN > latest_ns - FUTURE_S * NS_PER_S:
        problem = BadFrame("open_bar", f"{bar.symbol}: the bar that begins at {ts_ns} ns was still open at its receipt")
    if problem is not None:
        return problem
    return BarEvent(bar.symbol, ts_ns, item, bar.open, bar.high, bar.low, bar.close, bar.volume)


def _number(value: Decimal) -> float:
    return float(value) if value.is_finite() else math.nan


def _bad_price(name: str, value: float) -> BadFrame | None:
    if 0.0 < value <= (MAX_PRICE_USD if name != "qty" else MAX_QTY):
        return None
    return BadFrame(
        "bad_price" if name != "qty" else "bad_quantity", f"{name} is {value}; it must be above zero and sane"
    )


def _bad_qty(name: str, value: float) -> BadFrame | None:
    if 0.0 <= value <= MAX_QTY:
        return None
    return BadFrame("bad_quantity", f"{name} is {value}; it must be neither negative nor above {MAX_QTY:.0e}")


def _bad_size(price: float, qty: float) -> BadFrame | None:
    if price * qty <= MAX_NOTIONAL_USD:
        return None
    return BadFrame("bad_quantity", f"{qty} at {price} is more than {MAX_NOTIONAL_USD:.0e} USD")


def check_time(ts_ns: int, ts_recv_ns: int) -> None:
    """Raises `BadFrame` for an exchange time that no event may have."""
    problem = _bad_time(ts_ns, ts_recv_ns + FUTURE_S * NS_PER_S)
    if problem is not None:
        raise problem


def _bad_time(ts_ns: int, latest_ns: int) -> BadFrame | None:
    if ts_ns <= 0:
        return BadFrame("no_timestamp", "neither the exchange nor the recording says when this was")
    if ts_ns <= latest_ns:
        return None
    return BadFrame("future_timestamp", f"exchange time {ts_ns} ns is more than {FUTURE_S} s after its receipt")
