"""The text of frames."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange_simulator.market.events import Quote, Trade
from exchange_simulator.pairs import BTC_USD
from exchange_simulator.websocket import wire

pytestmark = pytest.mark.unit

SIDES = st.dictionaries(st.integers(1, 60), st.integers(1, 10**10), min_size=12, max_size=40)


def _reference_checksum(frame: dict[str, Any]) -> int:
    """Kraken's recipe over the printed numbers."""
    text = ""
    for side in ("asks", "bids"):
        for level in frame[side][:10]:
            text += f"{level['price']:.1f}".replace(".", "").lstrip("0")
            text += f"{level['qty']:.8f}".replace(".", "").lstrip("0")
    return zlib.crc32(text.encode()) & 0xFFFFFFFF


@given(SIDES, SIDES)
def test_the_checksum_is_that_of_the_printed_levels(bids: dict[int, int], asks: dict[int, int]) -> None:
    sides = dict(sorted(bids.items(), reverse=True)[:25]), dict(sorted(asks.items())[:25])
    frame = wire.book(BTC_USD, "snapshot", sides, wire.checksum(*sides), 0)
    data = json.loads(frame.text)["data"][0]
    assert data["checksum"] == _reference_checksum(data)


def test_a_ticker_prints_each_number_with_the_pairs_digits() -> None:
    quote = Quote(1_721_000_000_123_456_789, 600_001, 37_711, 600_002, 100_000_000)
    frame = wire.ticker(
        BTC_USD, "update", quote, 600_001, wire.DayStatistics(610_000, 620_000, 590_000, 5 * 10**8, 3.0e14)
    )
    assert frame.text == (
        '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":60000.1,"bid_qty":0.00037711,'
        '"ask":60000.2,"ask_qty":1.00000000,"last":60000.1,"volume":5.00000000,"vwap":60000.0,"low":59000.0,'
        '"high":62000.0,"change":-999.9,"change_pct":-1.64,"timestamp":"2024-07-14T23:33:20.123456Z"}]}'
    )


def test_a_trade_frame_carries_all_trades_and_their_ids() -> None:
    frame = wire.trade(BTC_USD, "update", [Trade(0, 7, 600_001, 1, True, False), Trade(0, 8, 600_000, 2, False, True)])
    data = json.loads(frame.text)["data"]
    assert frame.trade_ids == (7, 8)
    assert [(row["side"], row["ord_type"], row["trade_id"]) for row in data] == [
        ("buy", "limit", 7),
        ("sell", "market", 8),
    ]


def test_a_connection_id_exceeds_int64() -> None:
    assert json.loads(wire.status(15_564_437_896_659_189_083).text)["data"][0]["connection_id"] > 2**63
