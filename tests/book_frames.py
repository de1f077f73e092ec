"""Frames of a made-up market with an order book, as Kraken sends them: quotes, trades, and a book with right checksums."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_S, from_ns
from btc_core.market.messages import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN_NS = 1_700_438_400 * NS_PER_S
LEVELS = 10
Sides = tuple[list[tuple[float, float]], list[tuple[float, float]]]


class BookTape:
    """One market that changes at random; `envelopes` are its messages, and `sides` the book after each book frame."""

    def __init__(self, seed: int, symbol: str = "BTC/USD") -> None:
        self.symbol = symbol
        self.envelopes: list[Envelope] = []
        self.sides: dict[int, Sides] = {}
        """By the index of its envelope."""
        self.now_ns = BEGIN_NS
        self._rng = np.random.default_rng(seed)
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._mid_ticks = 600_000
        self._trade_id = 0

    def run(self, count: int, pace_s: float = 0.5) -> BookTape:
        """Add this many messages: frames of the book, quotes and trades."""
        for _ in range(count):
            self.now_ns += int(self._rng.exponential(pace_s) * NS_PER_S) // 1_000 * 1_000
            chance = self._rng.random()
            if not self._bids or chance < 0.01:
                self.snapshot()
            elif chance < 0.6:
                self.update()
            elif chance < 0.85:
                self.quote()
            else:
                self.trade()
        return self

    def snapshot(self) -> None:
        """Add a snapshot of a new book."""
        self._mid_ticks += int(self._rng.integers(-50, 51))
        self._bids = {self._mid_ticks - self._gap(k): self._lots() for k in range(LEVELS)}
        self._asks = {self._mid_ticks + self._gap(k): self._lots() for k in range(LEVELS)}
        self._add_book("snapshot", self._bids, self._asks)

    def update(self, *, wrong_checksum: bool = False) -> None:
        """Add an update that changes, adds or removes a level."""
        side, sign = (self._bids, -1) if self._rng.random() < 0.5 else (self._asks, 1)
        changed: dict[int, int] = {}
        if self._rng.random() < 0.3 and len(side) > 2:
            changed[list(side)[int(self._rng.integers(0, len(side)))]] = 0
        changed[self._mid_ticks + sign * self._gap(int(self._rng.integers(0, LEVELS)))] = self._lots()
        for price, lots in changed.items():
            if lots:
                side[price] = lots
            else:
                side.pop(price, None)
        for price in sorted(side, key=lambda price: sign * price)[LEVELS:]:
            del side[price]
        bids, asks = (changed, {}) if sign < 0 else ({}, changed)
        self._add_book("update", bids, asks, wrong=wrong_checksum)

    def quote(self) -> None:
        """Add a quote of the best levels."""
        bid, ask = max(self._bids), min(self._asks)
        entry = {
            "symbol": self.symbol, "bid": bid / 10, "bid_qty": self._bids[bid] / 1e8, "ask": ask / 10,
            "ask_qty": self._asks[ask] / 1e8, "last": 1.0, "volume": 1.0, "vwap": 1.0, "timestamp": self._time(),
        }  # fmt: skip
        self._add("ticker", json.dumps({"channel": "ticker", "type": "update", "data": [entry]}))

    def trade(self) -> None:
        """Add a trade at the best price of one side."""
        self._trade_id += 1
        is_buy = bool(self._rng.random() < 0.5)
        price = min(self._asks) if is_buy else max(self._bids)
        entry = {
            "symbol": self.symbol, "side": "buy" if is_buy else "sell", "price": price / 10, "qty": self._lots() / 1e8,
            "ord_type": "limit", "trade_id": self._trade_id, "timestamp": self._time(),
        }  # fmt: skip
        self._add("trade", json.dumps({"channel": "trade", "type": "update", "data": [entry]}))

    def messages(self) -> Iterator[tuple[Envelope, int, int]]:
        """The messages with a place in the log."""
        for offset, envelope in enumerate(self.envelopes):
            yield envelope, 0, offset

    def _gap(self, level: int) -> int:
        return 1 + level * 7 + int(self._rng.integers(0, 7))

    def _lots(self) -> int:
        return 1 + int(self._rng.exponential(1e8))

    def _time(self) -> str:
        return from_ns(self.now_ns).isoformat()

    def _add_book(self, kind: str, bids: dict[int, int], asks: dict[int, int], *, wrong: bool = False) -> None:
        best_bids, best_asks = sorted(self._bids.items(), reverse=True), sorted(self._asks.items())
        crc = zlib.crc32("".join(f"{price}{lots}" for price, lots in best_asks + best_bids).encode()) ^ wrong
        text = ",".join(
            f'"{name}":[{",".join(f"""{{"price":{p // 10}.{p % 10},"qty":{q / 1e8:.8f}}}""" for p, q in side.items())}]'
            for name, side in (("bids", bids), ("asks", asks))
        )
        self.sides[len(self.envelopes)] = (
            [(price / 10, lots / 1e8) for price, lots in best_bids],
            [(price / 10, lots / 1e8) for price, lots in best_asks],
        )
        data = f'{{"symbol":"{self.symbol}",{text},"checksum":{crc},"timestamp":"{self._time()}"}}'
        self._add("book", f'{{"channel":"book","type":"{kind}","data":[{data}]}}')

    def _add(self, channel: str, text: str) -> None:
        received_ns = self.now_ns + 20_000_000
        self.envelopes.append(Envelope(received_ns, 1, len(self.envelopes), channel, "ws", text.encode()))
