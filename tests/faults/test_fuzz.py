"""A million mutated frames: none of them ends ingest or the reader of the log, and no impossible row is made."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_S
from btc_core.market.events import FUTURE_S
from btc_core.market.messages import Envelope, encode_envelope
from streaming.bronze_rows import BronzeReader, BronzeRows
from streaming.handler import Record
from tests.link_sink import Sink, link_to
from tests.service.workers import quote_frame, trade_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)

FRAMES = 1_000_000
FRAMES_PER_CHECK = 1_000
"""Frames whose rows are made and checked together."""
NOW_NS = 1_700_000_000_000_000_000
SYMBOL = "BTC/USD"
PIECES = (
    b"null", b"NaN", b"-", b"1e999", b"-0.0", b"0", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\xff",
    b"9999999999999999999999", b"1e-400", b"true", b"update", b"snapshot", b"1970-01-01T00:00:00Z", b"buy", b"",
)  # fmt: skip
BASES = (
    quote_frame(SYMBOL, NOW_NS, 60_000.0),
    trade_frame(SYMBOL, NOW_NS, 60_000.0, 7, 8, 9),
    (
        b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":60000.1,"qty":1.5}],"asks":'
        b'[{"price":60000.2,"qty":0.5}],"checksum":1,"timestamp":"2023-11-14T22:13:20.000000Z"}]}'
    ),
    (
        b'{"channel":"ohlc","type":"update","data":[{"symbol":"BTC/USD","open":1.0,"high":2.0,"low":0.5,"close":1.5,'
        b'"trades":3,"volume":1.0,"vwap":1.2,"interval_begin":"2023-11-14T22:10:00Z","interval":1}]}'
    ),
    (
        b'{"channel":"status","type":"update","data":[{"version":"2","system":"online","api_version":"v2",'
        b'"connection_id":18446744073709551615}]}'
    ),
    b'{"symbol":"BTC/USD","first_id":3,"last_id":5}',
    (
        b'{"channel":"instrument","type":"snapshot","data":{"assets":[],"pairs":[{"symbol":"BTC/USD","status":"online",'
        b'"price_precision":1,"qty_precision":8},{"symbol":"ETH/USD","status":"online","price_precision":2,'
        b'"qty_precision":8}]}}'
    ),
    (
        b'{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":60000.1,"qty":1.5}],"asks":'
        b'[{"price":60000.2,"qty":0.5}],"checksum":2938102823,"timestamp":"2023-11-14T22:13:20.000000Z"}]}'
    ),
    (
        b'{"method":"subscribe","success":true,"result":{"channel":"trade","symbol":"BTC/USD","snapshot":true},"req_id":2,'
        b'"time_in":"2023-11-14T22:13:20.000000Z","time_out":"2023-11-14T22:13:20.000001Z"}'
    ),
    b'{"method":"subscribe","success":false,"error":"Currency pair not supported BTC/USD","symbol":"BTC/USD","req_id":3}',
    b'{"method":"pong","req_id":1000000000,"time_in":"2023-11-14T22:13:20.000000Z","time_out":"2023-11-14T22:13:20.000001Z"}',
)
CHANNELS = (
    "ticker", "trade", "book", "ohlc", "status", "absent", "instrument", "book", "method", "method", "method",
)  # fmt: skip
ACKNOWLEDGEMENT = BASES[8]


def mutated(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Frames with bytes removed, repeated, overwritten or replaced by one of `PIECES`; some with a wrong channel."""
    draws = rng.integers(0, 2**31, (FRAMES, 5))
    for which, how, at, length, piece in draws.tolist():
        base = BASES[which % len(BASES)]
        channel = CHANNELS[which % len(BASES)] if how % 16 else CHANNELS[piece % len(CHANNELS)]
        begin = at % len(base)
        end = min(len(base), begin + length % 12)
        new = (PIECES[piece % len(PIECES)], b"", base[begin:end] * 2, bytes([piece % 256]))[how % 4]
        yield channel, base[:begin] + new + base[end:]


def stored(rows: BronzeRows) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row with the name of its table; times as nanoseconds since the epoch."""
    for table, chunk, _ in rows.tables(chunk_rows=FRAMES_PER_CHECK * 10):
        plain = pa.schema(
            [(each.name, pa.int64() if pa.types.is_timestamp(each.type) else each.type) for each in chunk.schema]
        )
        for row in chunk.cast(plain).to_pylist():
            yield table.name, row


def impossible(table: str, row: dict[str, Any]) -> list[str]:
    """The names of the fields that are impossible."""
    prices = [name for name in ("price", "bid", "ask", "open", "high", "low", "close") if name in row]
    amounts = [name for name in ("qty", "bid_qty", "ask_qty") if name in row]
    stamp = row.get("ts_event", row.get("ts"))
    checks = {
        "symbol": isinstance(row.get("symbol", ""), str),
        "time": isinstance(stamp, int) and stamp <= NOW_NS + FUTURE_S * NS_PER_S,
        "crossed": table != "bronze_ticks" or row["bid"] <= row["ask"],
        "trade_id": table != "bronze_trades" or 0 < row["trade_id"] < 2**63,
        **{name: math.isfinite(row[name]) and row[name] > 0 for name in prices},
        **{name: math.isfinite(row[name]) and row[name] >= 0 for name in amounts},
    }
    return [name for name, good in checks.items() if not good]


def test_a_million_mutated_frames_cause_no_crash_and_no_impossible_row(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    reader, sink = BronzeReader(), Sink()
    link = link_to(sink, SYMBOL, "ETH/USD")
    link.receive(ACKNOWLEDGEMENT)
    published = 0
    refused: dict[str, int] = {}
    kept = 0
    for offset, (channel, raw) in enumerate(mutated(np.random.default_rng(20_231_114))):
        reader.read(Record(0, offset, encode_envelope(Envelope(NOW_NS, 1, offset, channel, "ws", raw))))
        link.receive(raw)
        for letter in reader.refused:
            refused[letter.reason] = refused.get(letter.reason, 0) + 1
        reader.refused.clear()
        reader.notices.clear()
        if offset % FRAMES_PER_CHECK == FRAMES_PER_CHECK - 1:
            for table, row in stored(reader.rows):
                kept += 1
                assert not impossible(table, row), (table, row)
            reader.rows = BronzeRows()
            assert {key for key, _ in sink.published} <= {SYMBOL, "ETH/USD"}
            assert all(len(reason) < 32 and len(message) < 1_000 for reason, message, _ in sink.letters)
            published += len(sink.published)
            sink.published.clear()
            sink.letters.clear()
    assert kept > FRAMES / 100, "harmless mutations are kept"
    assert sum(refused.values()) > FRAMES / 2
    assert {"malformed_json", "bad_field", "bad_price", "unknown_channel"} <= set(refused)
    assert published > FRAMES / 100
