"""The events in a frame: quotes, trades and minute bars, with their checks.

Every reader of the log gets its events from here, so all readers refuse the same entries.
What does not belong here: the wire format (`frames`), or what a reader does with a refused entry.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import BadFrame, RefusedTrade
from btc_core.market.frames import OhlcFrame, TickerFrame, TradeFrame, timestamp_ns
from btc_core.names import pair_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from btc_core.market.frames import AnyFrame, Candle, Quote, Trade

FUTURE_S = 5
"""An event is refused if its exchange time is more than this after the time that the exchange's clock showed when the
event was received.

The clock of the fold is the latest exchange time, so an event from the future ends every window early until the market
has caught up. After 90 s without other events the windows would start again, and their features would be empty for
hours. A right stamp is never ahead: the limit only covers the error of the measured clock offset, which is at most half
of a round trip, and a clock that is stepped between two measurements."""
MAX_AHEAD_S = 600
"""The largest difference between exchange time and receive time: a clock offset beyond `MAX_AHEAD_S - FUTURE_S` is not
believed. It must stay below the slack in `WARM_UP_S`, or a restart could change rows."""
MAX_PRICE = 1e15
MAX_QTY = 1e16
MAX_NOTIONAL = 1e16
"""Limits in the quote currency, the base currency and the quote currency. No market has a price, a quantity or a trade
beyond them: a coin that costs 1e-9 USD has about 1e17 units, and 1e9 USD are about 1e14 in the weakest quote currency.
The sums of the fold hold 4e9 events at the limits."""
STRONG_QUOTES = ("USD", "USDT", "USDC", "EUR", "GBP", "CHF", "CAD", "AUD", "JPY", "BTC", "ETH")
"""Assets of which a unit is worth a cent or more."""
MAX_STRONG_PRICE = 1e9
"""The limit of prices in these assets. `MAX_PRICE` leaves room for currencies that are worth a millionth."""
MAX_TRADE_ID = 2**63 - 1

QUOTE, TRADE, BAR = 0, 1, 2
"""The kind of an event as a number, as the fold and the topic `features` use it."""
BOOK_BIDS, BOOK_ASKS, BOOK_LOST = 3, 4, 5
"""What the fold learns of the order book: the bids after a frame, then the asks, or that the book is not known any more.
These kinds give no row."""
LEAD_QUOTE, LEAD_TRADE = 6, 7
"""A quote and a trade of the leading market, as the fold of another market reads them. These kinds give no row."""

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


def events_in(frame: AnyFrame, ts_recv_ns: int, clock_offset_ns: int | None = None) -> Iterator[Event | BadFrame]:
    """Yield the events of a frame that was received at `ts_recv_ns`, in order; nothing for a channel without events.

    `clock_offset_ns` is the exchange's clock minus ours, or None if it was not measured. An entry that fails a check is yielded as a
    `BadFrame` (of a trade, as a `RefusedTrade` if its id can be read), and the entries after it follow.
    """
    latest_ns = latest_time_ns(ts_recv_ns, clock_offset_ns)
    if isinstance(frame, TickerFrame):
        for item, quote in enumerate(frame.data):
            yield _quote_event(quote, item, timestamp_ns(quote.timestamp, ts_recv_ns), latest_ns)
    elif isinstance(frame, TradeFrame):
        for item, trade in enumerate(frame.data):
            yield trade_event(trade, item, timestamp_ns(trade.timestamp, ts_recv_ns), latest_ns)
    elif isinstance(frame, OhlcFrame):
        for item, candle in enumerate(frame.data):
            yield _bar_event(candle, item, timestamp_ns(candle.interval_begin, 0), latest_ns)


def _quote_event(quote: Quote, item: int, ts_ns: int, latest_ns: int) -> QuoteEvent | BadFrame:
    error = quote_error(quote, ts_ns, latest_ns)
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


def quote_error(quote: Quote, ts_ns: int, latest_ns: int) -> BadFrame | None:
    """What is wrong with a quote of this exchange time; None if it passes. `latest_ns` is what `latest_time_ns` returned."""
    is_fine = (
        0.0 < quote.bid <= quote.ask <= max_price(quote.symbol)
        and 0.0 <= quote.bid_qty <= MAX_QTY
        and 0.0 <= quote.ask_qty <= MAX_QTY
        and 0 < ts_ns <= latest_ns
    )
    return None if is_fine else _quote_error(quote, ts_ns, latest_ns)


def _quote_error(quote: Quote, ts_ns: int, latest_ns: int) -> BadFrame | None:
    error = _price_error(quote.symbol, "bid", quote.bid) or _price_error(quote.symbol, "ask", quote.ask)
    error = error or _qty_error("bid_qty", quote.bid_qty) or _qty_error("ask_qty", quote.ask_qty)
    if error is None and quote.bid > quote.ask:
        error = BadFrame("crossed_quote", f"{quote.symbol}: bid {quote.bid} is above ask {quote.ask}")
    return error or _time_error(ts_ns, latest_ns)


def trade_event(trade: Trade, item: int, ts_ns: int, latest_ns: int) -> TradeEvent | BadFrame:
    """The event of a trade, or what is wrong with it; `latest_ns` is what `latest_time_ns` returned."""
    price, qty = _float_or_nan(trade.price), _float_or_nan(trade.qty)
    is_fine = (
        0.0 < price <= max_price(trade.symbol)
        and 0.0 < qty <= MAX_QTY
        and price * qty <= MAX_NOTIONAL
        and 0 < ts_ns <= latest_ns
        and 0 < trade.trade_id <= MAX_TRADE_ID
        and trade.side in _SIDES
    )
    error = None if is_fine else _trade_error(trade, price, qty, ts_ns, latest_ns)
    if error is not None:
        return error
    return TradeEvent(trade.symbol, ts_ns, item, trade.trade_id, price, qty, trade.side, trade.ord_type or "")


_SIDES = ("buy", "sell")


def _trade_error(trade: Trade, price: float, qty: float, ts_ns: int, latest_ns: int) -> BadFrame | None:
    if not 0 < trade.trade_id <= MAX_TRADE_ID:
        return BadFrame("bad_trade_id", f"{trade.symbol}: trade_id {trade.trade_id} is not a positive int64")
    error = _price_error(trade.symbol, "price", price) or _traded_qty_error(qty) or _time_error(ts_ns, latest_ns)
    error = error or _notional_error(price, qty)
    if error is None and trade.side not in _SIDES:
        error = BadFrame("bad_side", f"{trade.symbol}: side {trade.side[:16]!r} is neither buy nor sell")
    return None if error is None else RefusedTrade(error, trade.symbol, trade.trade_id)


def _bar_event(bar: Candle, item: int, ts_ns: int, latest_ns: int) -> BarEvent | BadFrame:
    error = _time_error(ts_ns, latest_ns)
    for name in ("open", "high", "low", "close"):
        error = error or _price_error(bar.symbol, name, getattr(bar, name))
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


@lru_cache(1_024)
def max_price(symbol: str | None) -> float:
    """The highest price that a market may have, in its quote currency.

    >>> max_price("BTC/USD") == max_price("BTC/USDT@binance-perp") < max_price("BTC/IDR") == max_price(None)
    True
    """
    return MAX_STRONG_PRICE if pair_of(symbol or "").partition("/")[2] in STRONG_QUOTES else MAX_PRICE


def _price_error(symbol: str, name: str, price: float) -> BadFrame | None:
    most = max_price(symbol)
    if 0.0 < price <= most:
        return None
    return BadFrame("bad_price", f"{symbol}: {name} is {price}; it must be above zero and at most {most:.0e}")


def _traded_qty_error(qty: float) -> BadFrame | None:
    if 0.0 < qty <= MAX_QTY:
        return None
    return BadFrame("bad_quantity", f"qty is {qty}; it must be above zero and at most {MAX_QTY:.0e}")


def _qty_error(name: str, qty: float) -> BadFrame | None:
    if 0.0 <= qty <= MAX_QTY:
        return None
    return BadFrame("bad_quantity", f"{name} is {qty}; it must be zero or more and at most {MAX_QTY:.0e}")


def _notional_error(price: float, qty: float) -> BadFrame | None:
    if price * qty <= MAX_NOTIONAL:
        return None
    return BadFrame("bad_quantity", f"{qty} at the price {price} is worth more than {MAX_NOTIONAL:.0e}")


def check_time(ts_ns: int, ts_recv_ns: int, clock_offset_ns: int | None = None) -> None:
    """Raise `BadFrame` if no event received at `ts_recv_ns` may have the exchange time `ts_ns`, as `events_in`."""
    error = _time_error(ts_ns, latest_time_ns(ts_recv_ns, clock_offset_ns))
    if error is not None:
        raise error


def latest_time_ns(ts_recv_ns: int, clock_offset_ns: int | None) -> int:
    """Return the latest exchange time of an event that was received at `ts_recv_ns`.

    An exchange behind our clock does not make the limit stricter: right after our clock is set back, the last measured
    offset is wrong by the whole step, and every event would be refused until the next measurement.
    """
    offset_ns = min(max(clock_offset_ns or 0, 0), (MAX_AHEAD_S - FUTURE_S) * NS_PER_S)
    return ts_recv_ns + offset_ns + FUTURE_S * NS_PER_S


def _time_error(ts_ns: int, latest_ns: int) -> BadFrame | None:
    if ts_ns <= 0:
        return BadFrame("no_timestamp", "the entry has no exchange time and its frame has no receive time")
    if ts_ns <= latest_ns:
        return None
    ahead_s = (ts_ns - latest_ns) / NS_PER_S + FUTURE_S
    return BadFrame(
        "future_timestamp",
        f"exchange time {ts_ns} ns is {ahead_s:.1f} s ahead of the exchange's clock; at most {FUTURE_S} s are accepted",
    )
