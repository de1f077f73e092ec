"""Recorded files through the engine that the stream uses: their rows, and the lines that are refused."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import from_ns
from btc_core.errors import InvalidInput
from btc_core.exchanges.recorded_lines import BadLine, RecordedMessage, envelope_line, read_lines
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.features.engine import FeatureEngine, Rows, run
from btc_core.features.file_replay import replay_file, rows_table
from btc_core.market.events import TRADE
from btc_core.market.messages import Envelope
from tests.paths import DATA

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def recorded(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is missing; the recorded market data is not part of the project")
    return path


def ticker(
    timestamp: str | None, bid: float, ask: float, bid_qty: float = 1.0, ask_qty: float = 1.0
) -> dict[str, object]:
    figures = dict.fromkeys(("last", "volume", "vwap", "low", "high", "change", "change_pct"), 1.0)
    quote = {"symbol": "BTC/USD", "bid": bid, "bid_qty": bid_qty, "ask": ask, "ask_qty": ask_qty, **figures}
    return {"channel": "ticker", "type": "update", "data": [quote | ({"timestamp": timestamp} if timestamp else {})]}


def trade(timestamp: str, trade_id: int, price: float, qty: float, side: str = "buy") -> dict[str, object]:
    entry = {"symbol": "BTC/USD", "side": side, "price": price, "qty": qty, "ord_type": "limit", "trade_id": trade_id}
    return {"channel": "trade", "type": "update", "data": [entry | {"timestamp": timestamp}]}


def binance_frames() -> list[tuple[int, dict[str, object]]]:
    """Convert the quotes and trades of the recording to frames of Kraken; a quote has a receive time only."""
    frames = []
    with gzip.open(recorded("binance_spot_raw_btcusdt_20240809.jsonl.gz"), "rb") as file:
        for line in file:
            ts_recv_ns, _, text = line.partition(b" ")
            data = json.loads(text)["data"]
            if "e" not in data:
                frames.append((int(ts_recv_ns), ticker(None, *(float(data[name]) for name in ("b", "a", "B", "A")))))
            elif data["e"] == "trade":
                timestamp = from_ns(data["T"] * 1_000_000).isoformat()
                side = "sell" if data["m"] else "buy"
                frames.append((int(ts_recv_ns), trade(timestamp, data["t"], float(data["p"]), float(data["q"]), side)))
    return frames


def as_envelopes(frames: list[tuple[int, dict[str, object]]]) -> list[Envelope]:
    return [
        Envelope(ts_recv_ns, 1, number, str(frame["channel"]), "ws", json.dumps(frame).encode())
        for number, (ts_recv_ns, frame) in enumerate(frames, start=1)
    ]


def row_bytes(batches: list[Rows]) -> bytes:
    return np.concatenate([batch.values for batch in batches]).tobytes()


def test_a_recording_gives_a_row_for_each_quote_and_trade_whatever_the_batch_size(tmp_path: Path) -> None:
    envelopes = as_envelopes(binance_frames())
    assert len(envelopes) > 10_000
    messages = [(envelope, 0, number) for number, envelope in enumerate(envelopes, start=1)]
    engine = FeatureEngine()
    rows = run(engine, messages)
    assert engine.rejected == {}
    assert engine.skipped_trades == 0
    assert sum(len(batch.ids) for batch in rows) == len(envelopes)
    assert row_bytes(rows) == row_bytes(run(FeatureEngine(), messages, batch_rows=333))
    path = tmp_path / "binance.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.writelines(envelope_line(*message) for message in messages)
    replay = replay_file(path)
    assert replay.bad == []
    assert row_bytes(replay.rows) == row_bytes(rows)
    last = rows[-1].values[-1]
    since_ns = (rows[-1].ids[-1].ts_event_ns // 10**9 - 60) * 10**9
    assert np.isnan(last["cumulative_volume"])  # the recording begins just after midnight
    traded = [row.trade_qty for batch in rows for row in batch.ids if row.kind == TRADE and row.ts_event_ns >= since_ns]
    assert last["log_volume_1m"] == pytest.approx(np.log1p(sum(traded)), rel=1e-3)
    assert 0.0 < last["spread_bps"] < 1.0
    assert -20.0 < last["log_rv_5s_1m"] < -8.0


def test_a_receive_clock_behind_the_exchange_still_gives_rows() -> None:
    """The clock of the recording was 1.27 s behind, so the exchange times of trades are after their receive times."""
    envelopes = as_envelopes(binance_frames())[:2_000]
    rows = run(FeatureEngine(), [(envelope, 0, i) for i, envelope in enumerate(envelopes)])
    ids = [row for batch in rows for row in batch.ids]
    assert all(row.ts_event_ns > row.ts_recv_ns for row in ids if row.kind == TRADE)
    assert all(row["since_quote_s"] >= 0.0 for row in rows[0].values[1_000:])


def test_a_recording_of_the_book_gives_no_bad_line_and_no_row() -> None:
    replay = replay_file(recorded("kraken_v2_book_btcusd_20260719.jsonl"))
    assert (replay.frames, replay.bad, replay.rows) == (1_376, [], [])


def test_a_quote_without_any_time_is_refused_with_its_line_number() -> None:
    replay = replay_file(recorded("kraken_v2_single_frames.jsonl"))
    assert replay.frames == 11
    assert [(line.line, line.reason) for line in replay.bad] == [(4, "no_timestamp")]
    assert sum(len(batch.ids) for batch in replay.rows) == 4


def test_recorded_trades_give_the_volume_of_their_hour(tmp_path: Path) -> None:
    lines = recorded("kraken_trades_btcusd_20190701_h00.csv").read_text().splitlines()[1:]
    path, total = tmp_path / "trades.jsonl", 0.0
    with path.open("w") as file:
        for number, line in enumerate(lines, start=1):
            _, timestamp, side, price, qty = line.split(",")
            total += float(qty)
            print(json.dumps(trade(timestamp, number, float(price), float(qty), side)), file=file)
    (rows,) = replay_file(path).rows
    assert len(rows.ids) == len(lines) == 2_672
    assert sum(row.trade_qty for row in rows.ids) == pytest.approx(total)
    known = ~np.isnan(rows.values["log_volume_15m"])
    assert known.sum() > 1_000
    assert np.expm1(rows.values["log_volume_15m"][known]).max() < total


def test_lines_may_have_a_receive_time_and_bad_lines_are_returned_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    good = json.dumps(ticker("2026-07-19T18:00:00Z", 10.0, 11.0)).encode()
    lines = [b"5 " + good, good, b"", b"not json", b"9" * 5_000 + b" " + good, b'{"channel":"level9"}', b"-5 " + good]
    path.write_bytes(b"\n".join(lines))
    lines_read = list(read_lines(path))
    received = [(number, line.envelope.ts_recv_ns) for number, line in lines_read if isinstance(line, RecordedMessage)]
    at_ns = int(datetime(2026, 7, 19, 18, tzinfo=UTC).timestamp()) * 10**9
    assert received == [(1, 5), (2, at_ns)]
    bad = [(line.line, line.reason) for _, line in lines_read if isinstance(line, BadLine)]
    assert bad == [(4, "malformed_json"), (5, "not_an_object"), (6, "unknown_channel"), (7, "not_an_object")]


@pytest.mark.parametrize("received", [1_784_484_000, 1_784_484_000_000, 1_784_484_000_000_000])
def test_a_receive_time_in_another_unit_than_ns_is_named(tmp_path: Path, received: int) -> None:
    """It would make every event of the line one from the far future."""
    path = tmp_path / "recorded.jsonl"
    path.write_text(f"{received} {json.dumps(ticker('2026-07-19T18:00:00Z', 10.0, 11.0))}\n")
    (bad,) = replay_file(path).bad
    assert (bad.line, bad.message) == (1, f"the receive time {received} is not in ns since 1970")


@pytest.mark.parametrize("ahead_ns", [0, 30 * 10**9, -(10**9)])
def test_a_recorded_line_keeps_how_far_the_clock_of_the_exchange_was_ahead(tmp_path: Path, ahead_ns: int) -> None:
    """Without it, the recording of a machine whose clock is behind would be refused as being from the future."""
    at_ns = int(datetime(2026, 7, 19, 18, tzinfo=UTC).timestamp()) * 10**9
    raw = json.dumps(ticker("2026-07-19T18:00:20Z", 10.0, 11.0)).encode()
    sent = Envelope(at_ns, 1, 1, "ticker", "ws", raw, clock_offset_ns=ahead_ns)
    path = tmp_path / "recorded.jsonl"
    path.write_bytes(envelope_line(sent, 0, 1))
    ((_, line),) = read_lines(path)
    assert isinstance(line, RecordedMessage)
    read = line.envelope
    assert (read.ts_recv_ns, read.clock_offset_ns or 0, read.raw) == (at_ns, max(0, ahead_ns), raw)
    assert [bad.reason for bad in replay_file(path).bad] == ([] if ahead_ns > 0 else ["future_timestamp"])


def test_recorded_bars_without_a_receive_time_count_as_closed(tmp_path: Path) -> None:
    begin = datetime(2026, 7, 19, 17, tzinfo=UTC)
    prices = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 1.0, "interval": 1}
    data = [
        {"symbol": "BTC/USD", **prices, "interval_begin": (begin + timedelta(minutes=i)).isoformat()} for i in range(3)
    ]
    path = tmp_path / "bars.jsonl"
    path.write_text(json.dumps({"channel": "ohlc", "type": "snapshot", "data": data}) + "\n")
    assert replay_file(path).bad == []


@pytest.mark.parametrize("content", [b"not gzip at all", gzip.compress(b"{}\n" * 1_000, mtime=0)[:-9]])
def test_the_error_for_a_damaged_or_missing_file_has_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"broken\.jsonl\.gz"):
        replay_file(path)
    with pytest.raises(InvalidInput, match="not a file"):
        replay_file(tmp_path / "absent.jsonl")


def test_the_table_of_rows_has_every_feature_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    frames = [ticker(f"2026-07-19T18:00:{i:02d}Z", 10.0 + i, 11.0 + i) for i in range(40)]
    frames.insert(20, trade("2026-07-19T18:00:19.5Z", 1, 10.5, 0.25, "sell"))
    path.write_text("\n".join(map(json.dumps, frames)))
    batches = replay_file(path).rows
    table = rows_table(batches)
    assert table.num_rows == 41
    assert table["kind"].to_pylist().count(TRADE) == 1
    assert table["trade_side"][20].as_py() == -1.0
    for name in FEATURE_NAMES:
        assert table[name].to_numpy().tobytes() == np.ascontiguousarray(batches[0].values[name]).tobytes()
    assert rows_table([]).num_rows == 0


def test_a_recorded_line_keeps_the_whole_message_and_its_place_in_the_log(tmp_path: Path) -> None:
    raw = json.dumps(trade("2026-07-19T18:00:00Z", 7, 10.0, 1.0)).encode()
    at_ns = int(datetime(2026, 7, 19, 18, tzinfo=UTC).timestamp()) * 10**9
    messages = [
        RecordedMessage(Envelope(at_ns, 3, 9, "trade", "rest", raw, None, "coinbase", 5), 2, 1_234),
        RecordedMessage(Envelope(at_ns, 3, 10, "book", "ws", b'{"channel":"book"}', False), 2, 1_235),
        RecordedMessage(Envelope(at_ns, 3, 11, "book", "ws", b'{"channel":"book"}', True), 2, 1_236),
        RecordedMessage(
            Envelope(at_ns, 0, 0, "absent", "rest", b'{"symbol":"BTC/USD","first_id":1,"last_id":2}'), 2, 1_237
        ),
    ]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(envelope_line(each.envelope, each.partition, each.offset) for each in messages))
    assert [message for _, message in read_lines(path)] == messages


def test_a_line_whose_place_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'1784484000000000000@0:x:1:1:ws:ticker:kraken: {"channel":"ticker"}\n')
    assert [(bad.line, bad.reason) for bad in replay_file(path).bad] == [(1, "bad_place")]


def test_a_line_break_within_a_frame_does_not_divide_its_line(tmp_path: Path) -> None:
    pretty = json.dumps(ticker("2026-07-19T18:00:00Z", 10.0, 11.0), indent=1).encode()
    at_ns = int(datetime(2026, 7, 19, 18, tzinfo=UTC).timestamp()) * 10**9
    path = tmp_path / "log.jsonl"
    path.write_bytes(envelope_line(Envelope(at_ns, 1, 1, "ticker", "ws", pretty), 0, 5))
    replay = replay_file(path)
    assert (replay.frames, replay.bad) == (1, [])
    assert [row.offset for row in replay.rows[0].ids] == [5]
