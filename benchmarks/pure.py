"""Benchmarks of the core, without servers: decoding, the order book, the fold and replay.

What does not belong here: anything with a server (`servers`).
"""

from __future__ import annotations

import json
import math
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd

from benchmarks.registry import Figure, Plan, benchmark, seconds
from btc_core.clock import NS_PER_S, from_ns
from btc_core.features.catalogue import ROW
from btc_core.features.engine import FeatureEngine, run
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.state import EVENT, new_state, slot_of
from btc_core.market.book import OrderBook
from btc_core.market.events import QUOTE, TRADE
from btc_core.market.frames import BookData, BookFrame, Level, decode
from btc_core.market.messages import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

BEGIN_NS = 1_700_000_000 * NS_PER_S
TICKER = (
    b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":60108.6,"bid_qty":2.84311954,"ask":60108.7,'
    b'"ask_qty":0.00138853,"last":60108.7,"volume":4473.99704028,"vwap":59460.1,"low":58033,"high":61858.8,'
    b'"change":-1497.7,"change_pct":-2.43,"timestamp":"2026-06-26T06:41:22.476797Z"}]}'
)


def market(count: int, per_second: float, seed: int = 1) -> np.ndarray:
    """Quotes (80 %) and trades (20 %) with a random walk as the price, dtype `EVENT`."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT)
    events["ts_ns"] = BEGIN_NS + np.cumsum(rng.exponential(NS_PER_S / per_second, count).astype(np.int64))
    is_trade = rng.random(count) < 0.2
    price = np.round(60_000 * np.exp(np.cumsum(rng.normal(0, 1e-5, count))), 1)
    events["kind"] = np.where(is_trade, TRADE, QUOTE)
    events["slot_0"] = price
    events["slot_1"] = np.round(rng.exponential(1, count) + 1e-6, 8)
    events["slot_2"] = np.where(is_trade, np.where(rng.random(count) < 0.5, 1.0, -1.0), np.round(price + 0.1, 1))
    events["slot_3"] = np.where(is_trade, 0.0, np.round(rng.exponential(1, count) + 1e-6, 8))
    return events


def frames(events: np.ndarray, trade_id: int = 0) -> list[Envelope]:
    """The events as frames from the socket, one each; `trade_id` is that of the last trade before them."""
    envelopes = []
    for number, (ts_ns, kind, a, b, c, d, _) in enumerate(events.tolist(), start=1):
        if kind == TRADE:
            trade_id += 1
            side = "buy" if c > 0 else "sell"
            data = {"symbol": "BTC/USD", "side": side, "price": a, "qty": b, "ord_type": "limit", "trade_id": trade_id}
        else:
            data = {
                "symbol": "BTC/USD", "bid": a, "bid_qty": b, "ask": c, "ask_qty": d, "last": a, "volume": 4473.99704028,
                "vwap": 59460.1, "low": 58033.0, "high": 61858.8, "change": -1497.7, "change_pct": -2.43,
            }  # fmt: skip
        channel = "trade" if kind == TRADE else "ticker"
        frame = {"channel": channel, "type": "update", "data": [data | {"timestamp": from_ns(ts_ns)}]}
        envelopes.append(Envelope(ts_ns, 1, number, channel, "ws", msgspec.json.encode(frame)))
    return envelopes


@benchmark("decode")
def decode_ticker(plan: Plan) -> list[Figure]:
    """One ticker frame into a checked, frozen struct."""
    count = plan.size(100_000)

    def each(read: Callable[[bytes], object]) -> float:
        def work() -> None:
            for _ in range(count):
                read(TICKER)

        return seconds(work, plan.repeats) / count * 1e6

    return [
        Figure(
            "decode a ticker frame", each(decode), "µs", 1.0, "lower", "json.loads, without types, times and checks",
            each(json.loads),
        )
    ]  # fmt: skip


@benchmark("fold-one")
def fold_one(plan: Plan) -> list[Figure]:
    """One event folded and its row of all features computed, in one call from Python."""
    events = market(plan.size(50_000), per_second=10.0)
    rows = np.zeros(1, ROW)
    singles = [events[i : i + 1] for i in range(len(events))]

    def work() -> None:
        state = new_state()
        for event in singles:
            fold(state, event, rows, EMIT_TICKS)

    ours = seconds(work, plan.repeats) / len(events) * 1e6
    quotes = pd.DataFrame(events[events["kind"] == QUOTE][:600])
    asked = 20

    def naive() -> None:
        for end in range(len(quotes) - asked, len(quotes)):
            pandas_columns(quotes.iloc[end - 300 : end])

    way = "pandas: 12 of the columns recomputed over 300 quotes"
    return [Figure("fold an event and make its row", ours, "µs", 5.0, "lower", way, seconds(naive, 3) / asked * 1e6)]


def pandas_columns(quotes: pd.DataFrame) -> object:
    """What a worker computes that keeps the last quotes in a data frame: a few columns, recomputed for each quote."""
    bid = quotes[slot_of(QUOTE, "bid")]
    move = bid.pct_change().map(math.log1p)
    columns = {
        "ma_5": bid.rolling(5).mean(), "ma_14": bid.rolling(14).mean(), "ema_5": bid.ewm(span=5).mean(),
        "std_14": bid.rolling(14).std(), "price_change": bid.diff(), "price_change_pct": bid.pct_change() * 100,
        "max_14": bid.rolling(14).max(), "min_14": bid.rolling(14).min(), "log_return": move,
        "momentum": bid.diff(14), "volatility": move.rolling(14).std(),
        "bid_ask_spread": quotes[slot_of(QUOTE, "ask")] - bid,
    }  # fmt: skip
    return pd.DataFrame(columns).iloc[-1]


@benchmark("replay-fold")
def replay_fold(plan: Plan) -> list[Figure]:
    """Events in arrays through the fold, with a row of all features for each; at two densities of events."""
    figures = []
    for per_second in (100.0, 10.0):
        events = market(plan.size(1_000_000), per_second)
        rows = np.zeros(len(events), ROW)
        few = events[: plan.size(50_000)]

        def work(events: np.ndarray = events, rows: np.ndarray = rows) -> None:
            fold(new_state(), events, rows, EMIT_TICKS)

        def naive(few: np.ndarray = few, rows: np.ndarray = rows) -> None:
            state = new_state()
            for i in range(len(few)):
                fold(state, few[i : i + 1], rows[i : i + 1], EMIT_TICKS)

        figures.append(
            Figure(
                "replay: fold arrays, a row per event", len(events) / seconds(work, plan.repeats), "events/s", 1_000_000,
                "higher", "a call per event", len(few) / seconds(naive, 3), f"{per_second:.0f} events/s of market time",
            )
        )  # fmt: skip
    return figures


@benchmark("replay-engine")
def replay_engine(plan: Plan) -> list[Figure]:
    """The whole engine from raw frames to rows: decoding, checks, trade continuity and the fold."""
    envelopes = frames(market(plan.size(50_000), 100.0))
    messages = [(envelope, 0, number) for number, envelope in enumerate(envelopes)]

    def work() -> None:
        run(FeatureEngine(), messages)

    def naive() -> None:
        run(FeatureEngine(), messages[: len(messages) // 5], batch_rows=1)

    rate = len(messages) / seconds(work, plan.repeats)
    slow = len(messages) // 5 / seconds(naive, 3)
    return [Figure("replay: raw frames to rows", rate, "events/s", None, "higher", "a flush per frame", slow)]


class DecimalBook:
    """The order book as the exchange's documentation describes it: sorted decimals, formatted as text for the checksum."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def apply(self, data: BookData) -> int:
        """Update and truncate the book; returns its checksum."""
        for side, levels in ((self.bids, data.bids), (self.asks, data.asks)):
            for level in levels:
                if level.qty == 0:
                    side.pop(level.price, None)
                else:
                    side[level.price] = level.qty
        self.bids = dict(sorted(self.bids.items(), reverse=True)[:10])
        self.asks = dict(sorted(self.asks.items())[:10])
        best = [*self.asks.items(), *self.bids.items()]
        text = "".join(
            f"{price:.1f}".replace(".", "").lstrip("0") + f"{qty:.8f}".replace(".", "").lstrip("0")
            for price, qty in best
        )
        return zlib.crc32(text.encode())


def book_tape(count: int) -> list[BookData]:
    """A snapshot, then updates of one level each around a fixed price, with correct checksums."""
    rng, book = np.random.default_rng(3), DecimalBook()
    tape = []
    for number in range(count):
        bids: list[Level] = []
        asks: list[Level] = []
        for _ in range(20 if number == 0 else 1):
            offset, size = int(rng.integers(0, 12)), Decimal(int(rng.integers(0, 10**8))).scaleb(-8)
            is_bid = bool(rng.random() < 0.5)
            price = Decimal(600_000 - offset if is_bid else 600_001 + offset).scaleb(-1)
            (bids if is_bid else asks).append(Level(price, Decimal(0) if rng.random() < 0.2 else size))
        data = BookData("BTC/USD", bids, asks, 0)
        tape.append(msgspec.structs.replace(data, checksum=book.apply(data)))
    return tape


@benchmark("book")
def book_checksum(plan: Plan) -> list[Figure]:
    """One book update applied, truncated and verified by its checksum."""
    tape = book_tape(plan.size(10_000))

    def work() -> None:
        book = OrderBook("BTC/USD")
        for number, data in enumerate(tape):
            book.apply(data, snapshot=number == 0)

    def naive() -> None:
        book = DecimalBook()
        for data in tape:
            book.apply(data)

    per_update = 1e6 / len(tape)
    ours, slow = seconds(work, plan.repeats) * per_update, seconds(naive, 3) * per_update
    return [Figure("book update with checksum", ours, "µs", None, "lower", "decimals formatted as text", slow)]


def book_envelopes(count: int) -> list[Envelope]:
    """The frames of `book_tape` as messages of the log, a millisecond apart."""
    return [
        Envelope(
            BEGIN_NS + number * 1_000_000, 1, number, "book", "ws",
            (
                f'{{"channel":"book","type":"{"update" if number else "snapshot"}","data":[{{"symbol":"BTC/USD",'
                f'"bids":[{_level_texts(data.bids)}],"asks":[{_level_texts(data.asks)}],"checksum":{data.checksum}}}]}}'
            ).encode(),
        )
        for number, data in enumerate(book_tape(count))
    ]  # fmt: skip


@benchmark("book-features")
def book_features(plan: Plan) -> list[Figure]:
    """One frame of the order book through the engine: decoding, the book, its checksum, its measures and the fold."""
    envelopes = book_envelopes(plan.size(10_000))
    messages = [(envelope, 0, number) for number, envelope in enumerate(envelopes)]

    def work() -> None:
        engine = FeatureEngine()
        run(engine, messages)
        assert engine.rejected == {}

    def without_features() -> None:
        book = OrderBook("BTC/USD")
        for number, envelope in enumerate(envelopes):
            frame = decode(envelope.raw)
            assert isinstance(frame, BookFrame)
            book.apply(frame.data[0], snapshot=number == 0)

    per_frame = 1e6 / len(messages)
    ours, before = seconds(work, plan.repeats) * per_frame, seconds(without_features, plan.repeats) * per_frame
    return [Figure("book frame to features", ours, "µs", None, "lower", "decoded and verified only", before)]


def _level_texts(levels: list[Level]) -> str:
    last = {level.price: level.qty for level in levels}
    return ",".join(f'{{"price":{price:.1f},"qty":{qty:.8f}}}' for price, qty in last.items())
