"""Frames, book updates, requests and ledger of the simulated exchange."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_core.errors import ConfigError
from exchange_simulator import pairs
from exchange_simulator.market.generated import Quote, Trade
from exchange_simulator.pairs import BTC_USD
from exchange_simulator.websocket import subscriptions, wire
from exchange_simulator.websocket.channels import Stream, announce
from exchange_simulator.websocket.connection import RateLimit
from exchange_simulator.websocket.ledger import IdRanges, Ledger

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

SIDES = st.dictionaries(st.integers(1, 60), st.integers(1, 10**10), min_size=12, max_size=40)


def _best(levels: dict[int, int], depth: int, outward: int) -> dict[int, int]:
    return dict(sorted(levels.items(), key=lambda level: outward * level[0])[:depth])


@given(SIDES, SIDES, st.sampled_from([1, -1]))
def test_a_client_that_applies_and_truncates_arrives_at_the_exchanges_side(
    old: dict[int, int], new: dict[int, int], outward: int
) -> None:
    depth = 10
    before, after = _best(old, depth, outward), _best(new, depth, outward)
    client = dict(before)
    for price, qty in announce(before, after, outward=outward).items():
        if qty:
            client[price] = qty
        else:
            client.pop(price, None)
    assert _best(client, depth, outward) == after


@given(SIDES, SIDES)
def test_a_level_that_falls_out_of_the_depth_is_not_announced(old: dict[int, int], new: dict[int, int]) -> None:
    before, after = _best(old, 10, 1), _best(new, 10, 1)
    deleted = {price for price, qty in announce(before, after, outward=1).items() if qty == 0}
    assert all(price < max(after) for price in deleted)


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
    sides = _best(bids, 25, -1), _best(asks, 25, 1)
    frame = wire.book(BTC_USD, "snapshot", sides, wire.checksum(*sides), 0)
    data = json.loads(frame.text)["data"][0]
    assert data["checksum"] == _reference_checksum(data)


def test_a_ticker_prints_each_number_with_the_pairs_digits() -> None:
    quote = Quote(1_721_000_000_123_456_789, 600_001, 37_711, 600_002, 100_000_000)
    frame = wire.ticker(
        BTC_USD, "update", quote, 600_001, wire.DayFigures(610_000, 620_000, 590_000, 5 * 10**8, 3.0e14)
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


@pytest.mark.parametrize(
    "text", ["{bad", "[1]", '"x"', "{}", '{"method":1}', '{"method":"ping","req_id":"a"}', b"\xff"]
)
def test_what_is_not_a_request_is_refused(text: str | bytes) -> None:
    with pytest.raises(subscriptions.Refusal, match="Malformed request"):
        subscriptions.parse(text)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"channel": "ticker", "symbol": ["FOO/BAR"]}, "Currency pair not supported FOO/BAR"),
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": 11}, "Subscription depth not supported"),
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": "10"}, "Subscription depth not supported"),
        ({"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 2}, "Subscription ohlc interval not supported"),
        ({"channel": "ticker", "symbol": ["BTC/USD"], "event_trigger": "x"}, "Event trigger not supported"),
        ({"channel": "tickers", "symbol": ["BTC/USD"]}, "Channel not supported tickers"),
        ({"channel": "trade"}, "Symbol"),
        ({"channel": "trade", "symbol": "BTC/USD"}, "Symbol"),
        ({"channel": "trade", "symbol": ["BTC/USD"], "snapshot": 1}, "Malformed request"),
    ],
)
def test_a_subscription_that_cannot_be_is_refused_in_words(params: dict[str, Any], message: str) -> None:
    request = subscriptions.Request("subscribe", None, params)
    with pytest.raises(subscriptions.Refusal, match=message):
        [subscriptions.wish(request, symbol, {"BTC/USD"}) for symbol in subscriptions.symbols(request)]


def test_defaults_are_the_exchanges() -> None:
    def wish(**params: object) -> subscriptions.Wish:
        request = subscriptions.Request("subscribe", None, {"symbol": ["BTC/USD"], **params})
        return subscriptions.wish(request, "BTC/USD", {"BTC/USD"})

    assert wish(channel="ticker").stream == Stream("ticker", "BTC/USD", "trades")
    assert wish(channel="book").stream == Stream("book", "BTC/USD", 10)
    assert not wish(channel="trade").snapshot
    assert wish(channel="ticker").snapshot


def test_a_rate_limit_allows_its_burst_and_then_its_rate() -> None:
    limit = RateLimit(20, 20)
    assert sum(limit.allows(100.0) for _ in range(30)) == 20
    assert not limit.allows(100.01)
    assert limit.allows(100.06)


@given(st.lists(st.integers(0, 60)))
def test_id_ranges_are_a_set(numbers: list[int]) -> None:
    ids = IdRanges()
    for number in numbers:
        ids.add(number)
    listed = [number for first, last in ids.ranges() for number in range(first, last + 1)]
    assert listed == sorted(set(numbers))
    assert len(ids) == len(set(numbers))
    assert ids.repeats == len(numbers) - len(set(numbers))
    assert all(later[0] > earlier[1] + 1 for earlier, later in zip(ids.ranges(), ids.ranges()[1:], strict=False))


def test_the_ledger_keeps_every_frame_and_stays_within_its_bound(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, limit_mb=0.04)
    for number in range(1_000):
        ledger.record(1, wire.Frame("trade", "BTC/USD", '{"n":"' + "x" * 50 + '"}', (number,)), number)
    ledger.close()
    files = sorted(tmp_path.iterdir())
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sum(file.stat().st_size for file in files) < 41_000
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], 1_001))
    assert lines[-1]["frame"] == '{"n":"' + "x" * 50 + '"}'
    assert ledger.summary()["trades"]["BTC/USD"] == {"count": 1_000, "first_id": 0, "last_id": 999, "repeats": 0}


def test_an_unlisted_symbol_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="FOO/BAR"):
        pairs.choose(["FOO/BAR"])
