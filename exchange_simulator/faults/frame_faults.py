"""Faults of single frames: trades dropped, duplicated or held back, wrong checksums, and frames that the market never sent.

An interceptor gets each update on its way to all subscribers and returns the frames to send instead, until it is done.
It copies the text of each trade instead of formatting it again, so the frames of a recording keep their digits.
What does not belong here: who gets a frame (`websocket.hub`), or when a fault begins (`injector`).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from btc_core.clock import to_ns
from exchange_simulator.faults.catalogue import (
    BadChecksum,
    BadQuote,
    CorrectTrades,
    DuplicateTrades,
    ForeignBook,
    FutureQuote,
    LongKey,
    Malformed,
    MergeTrades,
    OddPair,
    OddTrades,
    Oversized,
    ReorderTrades,
    SkipTrades,
    Unknown,
)
from exchange_simulator.units import time_text
from exchange_simulator.websocket.wire import Frame, with_wrong_checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exchange_simulator.websocket.hub import FrameInterceptor

INJECTED = "injected"
"""The channel under which the ledger counts frames that the market never sent."""
CROSSED_RATIO = 1.01
"""The bid of a crossed quote is this many times its ask."""
_TRADE = re.compile(r"\{[^{}]*\}")
_INTEGER_PRICE = re.compile(r'("price":)(\d+)')
_INTEGER_QTY = re.compile(r'("qty":)(\d+)')
_TIME = re.compile(r'("timestamp":")([^"]+)')
EARLIER_S = -60.0
"""By how much the time of a corrected trade changes."""
_BID = re.compile(r'"bid":[^,}]+')
_PRICE = re.compile(r'"price":[^,}]+')
_ORD_TYPE = re.compile(r'"ord_type":"[a-z]+",')
_LONG_KEY_REST = '{"":1}'
_ASK = re.compile(r'"ask":([^,}]+)')

UpdateFault = SkipTrades | DuplicateTrades | ReorderTrades | MergeTrades | CorrectTrades | BadChecksum
"""Faults that change the updates of one symbol."""
ExtraFrameFault = Malformed | Oversized | Unknown | LongKey | ForeignBook | OddPair | OddTrades | BadQuote | FutureQuote
"""Faults that send a frame beside the real ones."""


class PrintedTrade(NamedTuple):
    """One trade of a frame: its id, and its JSON object as text."""

    trade_id: int
    text: str


def printed_trades(frame: Frame) -> list[PrintedTrade]:
    """The trades of a trade frame."""
    texts = _TRADE.findall(frame.text, frame.text.index("["))
    return [PrintedTrade(trade_id, text) for trade_id, text in zip(frame.trade_ids, texts, strict=True)]


def with_trades(frame: Frame, trades: Sequence[PrintedTrade]) -> Frame:
    """A trade frame like this one with other trades in it."""
    head, tail = frame.text[: frame.text.index("[") + 1], frame.text[frame.text.rindex("]") :]
    return frame._replace(
        text=f"{head}{','.join(trade.text for trade in trades)}{tail}",
        trade_ids=tuple(trade.trade_id for trade in trades),
    )


class TradeInterceptor:
    """Sends the next `count` trades of a symbol in the frames that `replace` returns for them."""

    def __init__(self, symbol: str, count: int, replace: Callable[[Frame, list[PrintedTrade]], list[Frame]]) -> None:
        self._symbol = symbol
        self._left = count
        self._replace = replace
        self.trade_ids: list[int] = []
        """The trades that it dropped, repeated, held back or changed."""

    @property
    def done(self) -> bool:
        """Whether all of the trades have come."""
        return self._left == 0

    def __call__(self, frame: Frame) -> list[Frame]:
        """The frames to send in place of this one."""
        if frame.channel != "trade" or frame.symbol != self._symbol or self.done:
            return [frame]
        trades = printed_trades(frame)
        taken, rest = trades[: self._left], trades[self._left :]
        self._left -= len(taken)
        self.trade_ids += [trade.trade_id for trade in taken]
        return self._replace(frame, taken) + ([with_trades(frame, rest)] if rest else [])

    def flush(self) -> list[Frame]:
        """No frames, because this fault holds nothing back."""
        return []


def _dropped(_frame: Frame, _trades: list[PrintedTrade]) -> list[Frame]:
    return []


def _duplicated(frame: Frame, trades: list[PrintedTrade]) -> list[Frame]:
    return [with_trades(frame, trades)] * 2


def _shifted(text: str, seconds: float) -> str:
    """A text whose times are this much later."""

    def later(match: re.Match[str]) -> str:
        return f"{match[1]}{time_text(to_ns(datetime.fromisoformat(match[2]) + timedelta(seconds=seconds)))}"

    return _TIME.sub(later, text)


def _changed(fault: CorrectTrades, trade: PrintedTrade) -> PrintedTrade:
    """A trade whose price or quantity is one higher, or whose time is a minute earlier."""
    if fault.field == "time":
        return trade._replace(text=_shifted(trade.text, EARLIER_S))
    number = _INTEGER_PRICE if fault.field == "price" else _INTEGER_QTY
    return trade._replace(text=number.sub(lambda match: f"{match[1]}{int(match[2]) + 1}", trade.text))


def _corrected(fault: CorrectTrades, frame: Frame, trades: list[PrintedTrade]) -> list[Frame]:
    """The trades as they are, then again as the fault changes them."""
    changed = [_changed(fault, trade) for trade in trades]
    return [with_trades(frame, trades), with_trades(frame, changed)]


class TradeHolder(TradeInterceptor):
    """Holds trades back until all have come, then sends them in one frame, or newest first, each in its own frame."""

    def __init__(self, symbol: str, count: int, *, merge: bool) -> None:
        super().__init__(symbol, count, self._hold)
        self._merge = merge
        self._frame: Frame | None = None
        self._trades: list[PrintedTrade] = []

    def _hold(self, frame: Frame, trades: list[PrintedTrade]) -> list[Frame]:
        self._frame = frame
        self._trades += trades
        return self._release() if self.done else []

    def _release(self) -> list[Frame]:
        trades, self._trades = self._trades, []
        if self._frame is None or not trades:
            return []
        if self._merge:
            return [with_trades(self._frame, trades)]
        return [with_trades(self._frame, [trade]) for trade in reversed(trades)]

    def flush(self) -> list[Frame]:
        """Stop early and send the trades that are held, merged or reordered."""
        self._left = 0
        return self._release()


class ChecksumInterceptor:
    """Flips one bit of the checksum in the next `count` book updates of a symbol."""

    def __init__(self, symbol: str, count: int) -> None:
        self._symbol = symbol
        self._left = count
        self.trade_ids: list[int] = []
        """Always empty: it changes no trade."""

    @property
    def done(self) -> bool:
        """Whether all of the updates have come."""
        return self._left == 0

    def __call__(self, frame: Frame) -> list[Frame]:
        """The frames to send in place of this one."""
        if frame.channel != "book" or frame.symbol != self._symbol or self.done:
            return [frame]
        self._left -= 1
        return [with_wrong_checksum(frame)]

    def flush(self) -> list[Frame]:
        """No frames, because this fault holds nothing back."""
        return []


def interceptor(fault: UpdateFault, symbol: str) -> FrameInterceptor:
    """The interceptor that carries out a fault on the updates of a symbol."""
    match fault:
        case SkipTrades():
            return TradeInterceptor(symbol, fault.count, _dropped)
        case DuplicateTrades():
            return TradeInterceptor(symbol, fault.count, _duplicated)
        case CorrectTrades():
            return TradeInterceptor(symbol, fault.count, partial(_corrected, fault))
        case ReorderTrades() | MergeTrades():
            return TradeHolder(symbol, fault.count, merge=isinstance(fault, MergeTrades))
        case BadChecksum():
            return ChecksumInterceptor(symbol, fault.count)


def extra_frame(fault: ExtraFrameFault, source: Frame | None) -> Frame:
    """The frame that is sent beside the real ones.

    `source` is the frame that it is made of: the ticker for `bad_quote` and
    `future_quote`, the snapshot of the trades for `odd_trades`, the
    list of pairs for `odd_pair`.
    """
    text = source.text if source else ""
    match fault:
        case Malformed():
            text = '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":60'
        case Oversized():
            head, tail = '{"channel":"oversized","type":"update","data":["', '"]}'
            text = f"{head}{'x' * (fault.size_bytes - len(head) - len(tail))}{tail}"
        case Unknown():
            text = '{"channel":"weather","type":"update","data":[{"symbol":"BTC/USD","outlook":"stormy"}]}'
        case LongKey():
            text = f'{{"{"k" * (fault.size_bytes - len(_LONG_KEY_REST))}":1}}'
        case ForeignBook():
            text = (
                '{"channel":"book","type":"snapshot","data":[{"symbol":"XBT/USD","bids":[{"price":1.0,"qty":1.0}],'
                '"asks":[],"checksum":1}]}'
            )
        case OddPair():
            precision = {"null": '"price_precision":null,', "absent": "", "negative": '"price_precision":-3,',
                         "huge": '"price_precision":5000,'}[fault.precision]  # fmt: skip
            odd = f'{{"symbol":"ODD/USD","status":"online",{precision}"qty_precision":8}},'
            text = text.replace('"pairs":[', f'"pairs":[{odd}')
        case OddTrades():
            text = _PRICE.sub('"price":null', _ORD_TYPE.sub("", text, count=1), count=1)
        case BadQuote():
            text = _bad_quote(fault, text)
        case FutureQuote():
            text = _shifted(text, fault.seconds).replace('"type":"snapshot"', '"type":"update"')
    return Frame(INJECTED, "", text)


def _bad_quote(fault: BadQuote, ticker: str) -> str:
    ask = _ASK.search(ticker)
    crossed = float(ask[1]) * CROSSED_RATIO if ask else 0.0
    bid = {"null": "null", "nan": "NaN", "negative": "-1.0", "crossed": f"{crossed:.1f}"}[fault.price]
    return _BID.sub(f'"bid":{bid}', ticker).replace('"type":"snapshot"', '"type":"update"')
