"""The events in a frame: quotes, trades and minute bars, with their checks.

Every reader of the log gets its events from here, so all readers refuse the same entries.
What does not belong here: the wire format (`frames`), or what a reader does with a refused entry.
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
"""An event is refused if its exchange time is more than this after its receive time.

The clock of the fold is the latest exchange time, so one event from the far future would stop it. The limit leaves
room for a machine whose clock is wrong. It must stay below the slack in `WARM_UP_S`, or a restart could change rows."""
MAX_PRICE_USD = 1e9
MAX_QTY = 1e10
MAX_NOTIONAL_USD = 1e9
"""An event beyond these limits could overflow an integer counter of the fold at once: the counters have 64 bits and
count units of 1e-8 BTC and 1e-9 USD."""
MAX_TRADE_ID = 2**63 - 1

QUOTE, TRADE, BAR = 0, 1, 2
"""The kind of an event as a number, as the fold and the topic `features` use it."""

EVENT_CHANNELS = frozenset({"ticker", "trade", "ohlc"})


class QuoteEvent(msgspec.Struct, frozen=True, gc=False):
    """A best bid and ask, and the 24-hour figures of the same frame entry."""

    symbol: str
    ts_event_ns: int
    item: int
    """The position of the entry in the frame."""
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
    """The position of the entry in the frame."""
    trade_id: int
    price: float
    qty: float
    side: str
    """The side of the taker, `buy` or `sell`."""
    ord_type: str

    @property
    def sign(self) -> float:
        """The sign of the taker's side: +1 for a buy, −1 for a sell."""
        return 1.0 if self.side == "buy" else -1.0


class BarEvent(msgspec.Struct, frozen=True, gc=False):
    """A one-minute bar that is closed."""

    symbol: str
    ts_event_ns: int
    """The time of the bar's open."""
    item: int
    """The position of the entry in the frame."""
    open: float
    high: float
    low: float
    close: float
    volume: float


Event = QuoteEvent | TradeEvent | BarEvent


def events_in(frame: AnyFrame, ts_recv_ns: int) -> Iterator[Event | BadFrame]:
    """Yield the events of a frame that was received at `ts_recv_ns`, in order; nothing for a channel without events.

    An entry that fails a check is yielded as a `BadFrame`, and the entries after it follow.
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
    error = _price_error("bid", quote.bid) or _price_error("ask", quote.ask)
    error = error or _qty_error("bid_qty", quote.bid_qty) or _qty_error("ask_qty", quote.ask_qty)
    if error is None and quote.bid > quote.ask:
        error = BadFrame("crossed_quote", f"{quote.symbol}: bid {quote.bid} is above ask {quote.ask}")
    error = error or _time_error(ts_ns, latest_ns)
    if error is not None:
        return error
    return QuoteEvent(
        quote.symbol,
        ts_ns,
        item,
        quote.bid,
        quote.bid_qty,
        quote.ask,
        quote.ask_qty,
        math.nan if quote.last is None else quote.last,
        math.nan if quote.volume is None else quote.volume,
        math.nan if quote.vwap is None else quote.vwap,
    )


def _trade_event(trade: Trade, item: int, ts_ns: int, latest_ns: int) -> TradeEvent | BadFrame:
    price, qty = _float_or_nan(trade.price), _float_or_nan(trade.qty)
    error = _price_error("price", price) or _traded_qty_error(qty) or _time_error(ts_ns, latest_ns)
    error = error or _notional_error(price, qty)
    if error is None and not 0 < trade.trade_id <= MAX_TRADE_ID:
        error = BadFrame("bad_trade_id", f"{trade.symbol}: trade_id {trade.trade_id} is not a positive int64")
    if error is None and trade.side not in ("buy", "sell"):
        error = BadFrame("bad_side", f"{trade.symbol}: side {trade.side[:16]!r} is neither buy nor sell")
    if error is not None:
        return error
    return TradeEvent(trade.symbol, ts_ns, item, trade.trade_id, price, qty, trade.side, trade.ord_type or "")


def _bar_event(bar: Candle, item: int, ts_ns: int, latest_ns: int) -> BarEvent | BadFrame:
    error = _time_error(ts_ns, latest_ns)
    for name in ("open", "high", "low", "close"):
        error = error or _price_error(name, getattr(bar, name))
    error = error or _qty_error("volume", bar.volume)
    if error is None and not bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high:
        error = BadFrame("bad_bar", f"{bar.symbol}: open and close must lie between low {bar.low} and high {bar.high}")
    if error is None and bar.interval != 1:
        error = BadFrame("bad_interval", f"{bar.symbol}: a bar must last one minute, not {bar.interval}")
    if error is None and ts_ns + NS_PER_MIN > latest_ns - FUTURE_S * NS_PER_S:
        error = BadFrame(
            "open_bar", f"{bar.symbol}: the bar that opens at {ts_ns} ns was not closed when it was received"
        )
    if error is not None:
        return error
    return BarEvent(bar.symbol, ts_ns, item, bar.open, bar.high, bar.low, bar.close, bar.volume)


def _float_or_nan(value: Decimal) -> float:
    return float(value) if value.is_finite() else math.nan


def _price_error(name: str, price: float) -> BadFrame | None:
    if 0.0 < price <= MAX_PRICE_USD:
        return None
    return BadFrame("bad_price", f"{name} is {price}; it must be above zero and at most {MAX_PRICE_USD:.0e}")


def _traded_qty_error(qty: float) -> BadFrame | None:
    if 0.0 < qty <= MAX_QTY:
        return None
    return BadFrame("bad_quantity", f"qty is {qty}; it must be above zero and at most {MAX_QTY:.0e}")


def _qty_error(name: str, qty: float) -> BadFrame | None:
    if 0.0 <= qty <= MAX_QTY:
        return None
    return BadFrame("bad_quantity", f"{name} is {qty}; it must be zero or more and at most {MAX_QTY:.0e}")


def _notional_error(price: float, qty: float) -> BadFrame | None:
    if price * qty <= MAX_NOTIONAL_USD:
        return None
    return BadFrame("bad_quantity", f"{qty} at the price {price} is more than {MAX_NOTIONAL_USD:.0e} USD")


def check_time(ts_ns: int, ts_recv_ns: int) -> None:
    """Raise `BadFrame` if no event received at `ts_recv_ns` may have the exchange time `ts_ns`."""
    error = _time_error(ts_ns, ts_recv_ns + FUTURE_S * NS_PER_S)
    if error is not None:
        raise error


def _time_error(ts_ns: int, latest_ns: int) -> BadFrame | None:
    if ts_ns <= 0:
        return BadFrame("no_timestamp", "the entry has no exchange time and its frame has no receive time")
    if ts_ns <= latest_ns:
        return None
    return BadFrame("future_timestamp", f"exchange time {ts_ns} ns is more than {FUTURE_S} s after the receive time")
