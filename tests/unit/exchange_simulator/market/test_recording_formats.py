"""Recordings of all three formats are read completely and in order."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import InvalidInput
from exchange_simulator.market import recording_formats
from exchange_simulator.market.recording import MarketEvent, RecordedFrame
from tests.paths import DATA

if TYPE_CHECKING:
    from pathlib import Path

    from exchange_simulator.market.events import Trade
    from exchange_simulator.market.recording import Recording

pytestmark = pytest.mark.unit


def recorded(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the recording ../shared/data/{name} does not exist")
    return path


def _trades(recording: Recording) -> list[Trade]:
    return [trade for event in recording.events(0) for trade in event.trades]


@pytest.mark.parametrize(
    ("name", "trades"),
    [("kraken_trades_btcusd_20190701_h00.csv", 2_672), ("binance_spot_raw_btcusdt_20240809.jsonl.gz", None)],
)
def test_a_recording_gives_every_trade_once_in_order_with_quotes_that_are_not_crossed(
    name: str, trades: int | None
) -> None:
    path = recorded(name)
    if trades is None:
        trades = gzip.decompress(path.read_bytes()).count(b"@trade")
    recording = recording_formats.read(path)
    events = list(recording.events(0))
    ids = [trade.trade_id for trade in _trades(recording)]
    assert ids == list(range(ids[0], ids[0] + trades))
    assert all(earlier.ts_ns <= later.ts_ns for earlier, later in itertools.pairwise(events))
    quotes = [event.quote for event in events if isinstance(event, MarketEvent) and event.quote]
    assert len(quotes) > 1_000
    assert all(0 < quote.bid < quote.ask for quote in quotes)


def test_recorded_frames_are_sent_unchanged_except_for_their_times() -> None:
    path = recorded("kraken_v2_book_btcusd_20260719.jsonl")
    recording = recording_formats.read(path)
    recorded_lines = [line for line in path.read_text().splitlines() if '"channel":"book","type"' in line]
    assert [event.text for event in recording.events(0) if isinstance(event, RecordedFrame)] == recorded_lines
    moved = next(iter(recording.events(1_000_000_000)))
    assert isinstance(moved, RecordedFrame)
    assert json.loads(moved.text)["data"][0]["timestamp"] == "2026-07-19T17:54:40.753424Z"
    assert recording.channels == {"book"}


def test_prices_that_the_pair_cannot_print_are_rounded_away_from_the_mid(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_text(
        '1000000000 {"stream":"x@bookTicker","data":{"b":"61685.99","B":"1.5","a":"61686.01","A":"2"}}\n'
        '1000000100 {"stream":"x@trade","data":{"t":9,"p":"61685.99","q":"0.00017","T":1001,"m":true}}\n'
        '1000000200 {"stream":"x@trade","data":{"t":11,"p":"61686.01","q":"0.1","T":1001,"m":false}}\n'
    )
    quote, trades = list(recording_formats.read(file).events(0))
    assert isinstance(quote, MarketEvent)
    assert quote.quote is not None
    assert (quote.quote.bid, quote.quote.ask) == (616_859, 616_861)
    assert [(trade.trade_id, trade.price, trade.qty, trade.buy) for trade in trades.trades] == [
        (1, 616_859, 17_000, False),
        (2, 616_861, 10**7, True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no"),
        ("rubbish\n", "line 1"),
        ('{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD"}]}\n', "line 1"),
        ("time_ms,timestamp,side,price,qty\n1,x,buy,1.0,1\n2,x,hold,1.0,1\n", "line 3"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        recording_formats.read(file)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        recording_formats.read(tmp_path / "none.csv")
