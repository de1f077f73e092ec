"""Faults of single frames: trades skipped, doubled, held back; wrong checksums; frames that should not be.

An alteration takes an update on its way to all its listeners and gives what is sent in its place, until it is spent.
Trades stay the texts they were, so a recording's frames keep their digits.
What does not belong here: who gets a frame (`hub`), or when a fault begins (`injector`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from exchange_simulator.faults.catalogue import (
    BadChecksum,
    BadQuote,
    DuplicateTrades,
    Malformed,
    MergeTrades,
    Oversized,
    ReorderTrades,
    SkipTrades,
    Unknown,
)
from exchange_simulator.websocket.wire import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INJECTED = "injected"
"""The channel under which the ledger counts frames that the market never made."""
CROSSED_SHARE = 1.01
"""A crossed bid is this much above the ask."""
_ROW = re.compile(r"\{[^{}]*\}")
_CHECKSUM = re.compile(r'("checksum":)(\d+)')
_BID = re.compile(r'"bid":[^,}]+')
_ASK = re.compile(r'"ask":([^,}]+)')


class Row(NamedTuple):
    """One trade of a frame: its id, and the object as it is printed."""

    trade_id: int
    text: str


class Alteration(Protocol):
    """What changes updates until it is spent."""

    @property
    def spent(self) -> bool:
        """Whether it changes nothing any more."""
        ...

    def __call__(self, frame: Frame) -> list[Frame]:
        """The frames to send in place of this one."""
        ...

    def flush(self) -> list[Frame]:
        """Give up: the frames it still holds back."""
        ...


def trade_rows(frame: Frame) -> list[Row]:
    """The trades of a trade frame."""
    texts = _ROW.findall(frame.text, frame.text.index("["))
    return [Row(trade_id, text) for trade_id, text in zip(frame.trade_ids, texts, strict=True)]


def with_rows(frame: Frame, rows: Sequence[Row]) -> Frame:
    """This trade frame with other trades in it."""
    head, tail = frame.text[: frame.text.index("[") + 1], frame.text[frame.text.rindex("]") :]
    return frame._replace(
        text=f"{head}{','.join(row.text for row in rows)}{tail}", trade_ids=tuple(row.trade_id for row in rows)
    )


class TradeAlteration:
    """Lays hands on the next `count` trades of a symbol; what is done to them is up to `treat`."""

    def __init__(self, symbol: str, count: int, treat: Callable[[Frame, list[Row]], list[Frame]]) -> None:
        self._symbol = symbol
        self._left = count
        self._treat = treat

    @property
    def spent(self) -> bool:
        """Whether all of them came."""
        return self._left == 0

    def __call__(self, frame: Frame) -> list[Frame]:
        """The frames to send in place of this one."""
        if frame.channel != "trade" or frame.symbol != self._symbol or self.spent:
            return [frame]
        rows = trade_rows(frame)
        taken, rest = rows[: self._left], rows[self._left :]
        self._left -= len(taken)
        return self._treat(frame, taken) + ([with_rows(frame, rest)] if rest else [])

    def flush(self) -> list[Frame]:
        """Nothing is held back."""
        return []


def _skipped(_frame: Frame, _rows: list[Row]) -> list[Frame]:
    return []


def _doubled(frame: Frame, rows: list[Row]) -> list[Frame]:
    return [with_rows(frame, rows)] * 2


class HeldTrades(TradeAlteration):
    """Holds trades back until all are there, and sends them in one frame or newest first, a frame each."""

    def __init__(self, symbol: str, count: int, *, merge: bool) -> None:
        super().__init__(symbol, count, self._hold)
        self._merge = merge
        self._frame: Frame | None = None
        self._rows: list[Row] = []

    def _hold(self, frame: Frame, rows: list[Row]) -> list[Frame]:
        self._frame = frame
        self._rows += rows
        return self._release() if self.spent else []

    def _release(self) -> list[Frame]:
        rows, self._rows = self._rows, []
        if self._frame is None or not rows:
            return []
        if self._merge:
            return [with_rows(self._frame, rows)]
        return [with_rows(self._frame, [row]) for row in reversed(rows)]

    def flush(self) -> list[Frame]:
        """What it has, though more were wanted; it takes no more."""
        self._left = 0
        return self._release()


class WrongChecksums:
    """The next `count` book updates of a symbol carry a checksum with one bit flipped."""

    def __init__(self, symbol: str, count: int) -> None:
        self._symbol = symbol
        self._left = count

    @property
    def spent(self) -> bool:
        """Whether all of them came."""
        return self._left == 0

    def __call__(self, frame: Frame) -> list[Frame]:
        """The frames to send in place of this one."""
        if frame.channel != "book" or frame.symbol != self._symbol or self.spent:
            return [frame]
        self._left -= 1
        return [frame._replace(text=_CHECKSUM.sub(lambda match: f"{match[1]}{int(match[2]) ^ 1}", frame.text))]

    def flush(self) -> list[Frame]:
        """Nothing is held back."""
        return []


Altering = SkipTrades | DuplicateTrades | ReorderTrades | MergeTrades | BadChecksum
Extra = Malformed | Oversized | Unknown | BadQuote


def alteration(fault: Altering, symbol: str) -> Alteration:
    """What a fault does to the updates of a symbol."""
    match fault:
        case SkipTrades():
            return TradeAlteration(symbol, fault.count, _skipped)
        case DuplicateTrades():
            return TradeAlteration(symbol, fault.count, _doubled)
        case ReorderTrades() | MergeTrades():
            return HeldTrades(symbol, fault.count, merge=isinstance(fault, MergeTrades))
        case BadChecksum():
            return WrongChecksums(symbol, fault.count)


def extra_frame(fault: Extra, ticker: Frame | None) -> Frame:
    """The frame that is sent on top of the real ones; `bad_quote` is made of the current `ticker`."""
    match fault:
        case Malformed():
            text = '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":60'
        case Oversized():
            head, tail = '{"channel":"oversized","type":"update","data":["', '"]}'
            text = f"{head}{'x' * (fault.size_bytes - len(head) - len(tail))}{tail}"
        case Unknown():
            text = '{"channel":"weather","type":"update","data":[{"symbol":"BTC/USD","outlook":"stormy"}]}'
        case BadQuote():
            text = _bad_quote(fault, ticker.text if ticker else "")
    return Frame(INJECTED, "", text)


def _bad_quote(fault: BadQuote, ticker: str) -> str:
    ask = _ASK.search(ticker)
    above = float(ask[1]) * CROSSED_SHARE if ask else 0.0
    price = {"null": "null", "nan": "NaN", "negative": "-1.0", "crossed": f"{above:.1f}"}[fault.price]
    return _BID.sub(f'"bid":{price}', ticker).replace('"type":"snapshot"', '"type":"update"')
