"""The simulated exchange over real sockets: WebSocket v2, REST, the ledger and replays."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from btc_core.clock import NS_PER_MIN
from btc_core.errors import ConfigError, StackError
from exchange_simulator.market.generated import GeneratedMarket
from exchange_simulator.pairs import BTC_USD, PAIRS
from exchange_simulator.server import Exchange, Options
from exchange_simulator.websocket.wire import Frame
from tests.paths import DATA
from tests.service.exchange_client import ClientBook, ask, exchange, get, is_answer, is_data, run, until, ws

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.exchange_client import Message

pytestmark = pytest.mark.service


def recorded(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the recording ../shared/data/{name} does not exist")
    return path


def test_a_connection_begins_with_status_and_every_symbol_of_a_request_gets_its_own_answer(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, symbols=("BTC/USD", "ETH/USD")) as server, ws(server) as client:
            status = json.loads(await client.recv())
            assert status["channel"] == "status"
            assert status["data"][0]["system"] == "online"
            assert status["data"][0]["connection_id"] > 2**63
            await ask(client, req_id=7, channel="trade", symbol=["BTC/USD", "XBT/USD", "ETH/USD"])
            answers = [await until(client, is_answer) for _ in range(3)]
            assert [answer["success"] for answer in answers] == [True, False, True]
            assert answers[0]["result"] == {"channel": "trade", "snapshot": False, "symbol": "BTC/USD"}
            assert answers[1]["error"] == "Currency pair not supported XBT/USD"
            assert answers[1]["symbol"] == "XBT/USD"
            assert all(a["req_id"] == 7 and a["time_in"] <= a["time_out"] for a in answers)

    run(body)


def test_invalid_requests_are_refused_and_the_connection_stays_open(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server, ws(server) as client:
            for text, error in (
                ("{not json", "Malformed request"),
                ('{"method":"dance"}', "Unsupported method"),
                (
                    '{"method":"subscribe","params":{"channel":"nope","symbol":["BTC/USD"]}}',
                    "Channel not supported nope",
                ),
                (
                    '{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":7}}',
                    "Subscription depth not supported",
                ),
                (
                    '{"method":"unsubscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}',
                    "Subscription Not Found",
                ),
            ):
                await client.send(text)
                answer = await until(client, is_answer)
                assert (answer["success"], answer["error"]) == (False, error)
            await ask(client, "ping", req_id=101)
            pong = await until(client, is_answer)
            assert (pong["method"], pong["req_id"]) == ("pong", 101)
            assert "time_in" in pong

    run(body)


def test_the_trade_snapshot_holds_the_last_fifty_trades_and_updates_follow_without_a_gap(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=100.0) as server, ws(server) as client:
            await ask(client, channel="trade", symbol=["BTC/USD"], snapshot=True)
            snapshot = (await until(client, is_data("trade", "snapshot")))["data"]
            assert len(snapshot) == 50
            ids = [row["trade_id"] for row in snapshot]
            while len(ids) < 100:
                ids += [row["trade_id"] for row in (await until(client, is_data("trade", "update")))["data"]]
            assert ids == list(range(ids[0], ids[0] + len(ids)))

    run(body)


def test_the_streamed_trades_are_those_of_the_generated_market(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=20.0, seed=11) as server, ws(server) as client:
            await ask(client, channel="trade", symbol=["BTC/USD"])
            rows: list[Message] = []
            while len(rows) < 40:
                rows += (await until(client, is_data("trade", "update")))["data"]
            market, now_ns = GeneratedMarket(BTC_USD, rate=20.0, seed=11), server.clock.now_ns()
        minutes = range(now_ns // NS_PER_MIN - 2, now_ns // NS_PER_MIN + 1)
        expected = {trade.trade_id: trade for minute in minutes for trade in market.trades(minute)}
        for row in rows:
            trade = expected[row["trade_id"]]
            assert (round(row["price"] * 10), round(row["qty"] * 1e8)) == (trade.price, trade.qty)

    run(body)


@pytest.mark.parametrize("depth", [10, 25, 100, 500, 1_000])
def test_every_book_checksum_verifies(tmp_path: Path, depth: int) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=20.0) as server, ws(server) as client:
            await ask(client, channel="book", symbol=["BTC/USD"], depth=depth)
            snapshot = (await until(client, is_data("book", "snapshot")))["data"][0]
            assert len(snapshot["bids"]) == len(snapshot["asks"]) == depth
            book = ClientBook(depth)
            assert book.apply(snapshot)
            for _ in range(200):
                assert book.apply((await until(client, is_data("book", "update")))["data"][0])
            assert max(book.sides["bids"]) < min(book.sides["asks"])

    run(body)


def test_a_ticker_follows_its_trigger_and_after_unsubscribing_only_heartbeats_come(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server, ws(server) as client:
            await ask(client, channel="instrument")
            assert (await until(client, is_data("instrument", "snapshot")))["data"]["pairs"][0]["symbol"] == "BTC/USD"
            await ask(client, channel="ticker", symbol=["BTC/USD"], event_trigger="bbo")
            ticker = (await until(client, is_data("ticker", "snapshot")))["data"][0]
            assert ticker["bid"] < ticker["ask"]
            assert ticker["low"] <= ticker["last"] <= ticker["high"]  # of trades: a bid may lie below all of them
            assert ticker["low"] <= ticker["vwap"] <= ticker["high"]
            await until(client, is_data("ticker", "update"))
            await ask(client, "unsubscribe", channel="ticker", symbol=["BTC/USD"], event_trigger="bbo")
            assert (await until(client, is_answer))["success"]
            following = [json.loads(await client.recv()) for _ in range(2)]
            assert following == [{"channel": "heartbeat"}] * 2

    run(body)


def test_one_connection_gets_updates_of_eight_symbols(tmp_path: Path) -> None:
    symbols = list(PAIRS)[:8]

    async def body() -> None:
        async with exchange(tmp_path, symbols=tuple(symbols)) as server, ws(server) as client:
            await ask(client, channel="ticker", symbol=symbols, event_trigger="bbo")
            updated: set[str] = set()
            while updated < set(symbols):
                updated.add((await until(client, is_data("ticker", "update")))["data"][0]["symbol"])

    run(body)


def test_more_than_twenty_requests_a_second_get_the_rate_limit_frame(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server, ws(server) as client:
            for number in range(30):
                await ask(client, "ping", req_id=number)
            await until(client, lambda frame: frame == {"Error": "Exceeded msg rate"})

    run(body)


def test_a_client_that_does_not_read_is_disconnected_and_others_stay_connected(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, queue_mb=1.0, ledger_mb=0.0) as server, ws(server) as good:
            await ask(good, channel="ticker", symbol=["BTC/USD"], event_trigger="bbo")
            reader = asyncio.create_task(until(good, is_data("never", "")))
            async with connect(f"ws://127.0.0.1:{server.port}/v2", max_queue=1) as slow:
                await slow.recv()
                connection = max(server.hub.connections, key=lambda each: each.number)
                large = Frame("book", "BTC/USD", json.dumps({"channel": "book", "fill": "x" * 250_000}))
                while connection in server.hub.connections:
                    connection.enqueue(large)
                    await asyncio.sleep(0.005)
                with pytest.raises(ConnectionClosedError):
                    await until(slow, lambda _: False)
            assert (await get(server, "/ledger")).json()["connections"]["open"] == 1
            assert not reader.done()
            reader.cancel()

    run(body)


def test_rest_pages_return_every_trade_once_and_agree_with_bars(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server:
            now_ns = server.clock.now_ns()
            begin_ns = (now_ns // NS_PER_MIN - 120) * NS_PER_MIN
            since, ids, volume = str(begin_ns - 1), [], 0.0
            while True:
                result = (await get(server, f"/0/public/Trades?pair=XBTUSD&since={since}&count=500")).json()["result"]
                rows = result["XXBTZUSD"]
                ids += [row[6] for row in rows]
                volume += sum(float(row[1]) for row in rows if row[2] * 1e9 < now_ns // NS_PER_MIN * NS_PER_MIN)
                since = result["last"]
                if len(rows) < 400:
                    break
            assert len(ids) > 1_000
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            lines = (await get(server, "/history/XBTUSD_1.csv?days=1")).text.splitlines()
            bars = [line.split(",") for line in lines if int(line.split(",")[0]) * 10**9 >= begin_ns]
            bars = [bar for bar in bars if int(bar[0]) * 10**9 < now_ns // NS_PER_MIN * NS_PER_MIN]
            assert sum(float(bar[5]) for bar in bars) == pytest.approx(volume)
            candles = (await get(server, "/0/public/OHLC?pair=XBTUSD&interval=1")).json()["result"]["XXBTZUSD"]
            by_time = {row[0]: row for row in candles}
            for bar in bars:
                assert [float(text) for text in by_time[int(bar[0])][1:5]] == [float(text) for text in bar[1:5]]
                assert by_time[int(bar[0])][7] == int(bar[6])

    run(body)


@pytest.mark.parametrize("interval_min", [5, 60, 1_440])
def test_candles_are_aligned_and_at_most_720(tmp_path: Path, interval_min: int) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server:
            result = (await get(server, f"/0/public/OHLC?pair=XBTUSD&interval={interval_min}")).json()["result"]
            times = [row[0] for row in result["XXBTZUSD"]]
            assert 100 < len(times) <= 720
            assert {b - a for a, b in itertools.pairwise(times)} == {interval_min * 60}
            assert result["last"] == times[-2]
            later = await get(server, f"/0/public/OHLC?pair=XBTUSD&interval={interval_min}&since={times[-3]}")
            assert [row[0] for row in later.json()["result"]["XXBTZUSD"]] == times[-2:]

    run(body)


def test_rest_errors_come_with_status_200(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rest_rate_limit=1.0) as server:
            for path, error in (
                ("Trades?pair=FOO", "EQuery:Unknown asset pair"),
                ("OHLC?pair=XBTUSD&interval=2", "EGeneral:Invalid arguments:interval"),
                ("Trades?pair=XBTUSD&count=abc", "EGeneral:Invalid arguments:count"),
                ("Trades?pair=XBTUSD", "EAPI:Rate limit exceeded"),
                ("Nothing", "EGeneral:Unknown method"),
            ):
                answer = await get(server, f"/0/public/{path}")
                assert (answer.status_code, answer.json()["error"]) == (200, [error])
            assert (await get(server, "/0/public/Time")).json()["error"] == []
            assert (await get(server, "/0/public/SystemStatus")).json()["result"]["status"] == "online"
            assert (await get(server, "/0/public/AssetPairs")).json()["result"]["XXBTZUSD"]["wsname"] == "XBT/USD"
            assert (await get(server, "/history/FOO_1.csv")).status_code == 404
            assert (await get(server, "/history/XBTUSD_1.csv?days=x")).status_code == 400
            assert (await get(server, "/nothing")).status_code == 404
            assert (await get(server, "/healthz")).json()["simulated"] is True

    run(body)


def test_the_ledger_holds_exactly_what_a_client_received(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=10.0) as server:
            got: list[str] = []
            async with ws(server) as client:
                await ask(client, channel="trade", symbol=["BTC/USD"], snapshot=True)
                await ask(client, channel="ticker", symbol=["BTC/USD"], event_trigger="bbo")
                while len(got) < 100:
                    got.append(str(await client.recv()))
            summary = (await get(server, "/ledger")).json()
            trades = (await get(server, "/ledger/trades")).json()
        lines = [
            json.loads(line)
            for file in sorted((tmp_path / "ledger").iterdir())
            for line in file.read_text().splitlines()
        ]
        assert [line["frame"] for line in lines][: len(got)] == got
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert summary["seq"] == len(lines)
        assert sum(summary["frames"].values()) == len(lines)
        ids = {row["trade_id"] for text in got for row in json.loads(text).get("data", []) if "trade_id" in row}
        assert trades["ranges"][0][0] == min(ids)
        assert len(ids) <= trades["count"] == summary["trades"]["BTC/USD"]["count"]

    run(body)


def test_a_transformer_changes_the_frames_of_one_connection_and_the_ledger_records_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=20.0) as server, ws(server) as client, ws(server) as other:
            for each in (client, other):
                await each.recv()
            first = min(server.hub.connections, key=lambda connection: connection.number)
            first.transformers.append(lambda frame: [frame, frame] if frame.channel == "trade" else [frame])
            for each in (client, other):
                await ask(each, channel="trade", symbol=["BTC/USD"])
            doubled = [await until(client, is_data("trade", "update")) for _ in range(4)]
            single = [await until(other, is_data("trade", "update")) for _ in range(4)]
            assert doubled[0] == doubled[1] != doubled[2] == doubled[3]
            assert len({row["data"][0]["trade_id"] for row in single}) == 4
            assert (await get(server, "/ledger/trades")).json()["repeats"] > 0

    run(body)


def test_market_time_can_run_faster_than_wall_time(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, speed=50.0) as server:
            first = (await get(server, "/0/public/Time")).json()["result"]["unixtime"]
            await asyncio.sleep(1.0)
            second = (await get(server, "/0/public/Time")).json()["result"]["unixtime"]
            assert second - first >= 45

    run(body)


def test_a_port_in_use_is_named_in_the_error(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server:
            with pytest.raises(StackError, match=str(server.port)):
                async with exchange(tmp_path / "second", port=server.port):
                    pass

    run(body)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("kraken_trades_btcusd_20190701_h00.csv", ("trade", "ticker", "book")),
        ("binance_spot_raw_btcusdt_20240809.jsonl.gz", ("trade", "ticker")),
    ],
)
def test_a_replay_as_fast_as_clients_read_sends_every_trade_once(
    tmp_path: Path, name: str, channels: tuple[str, ...]
) -> None:
    path = recorded(name)

    async def body() -> None:
        async with exchange(tmp_path, replay=path, speed=0.0, ledger_mb=0.0) as server, ws(server) as client:
            ids: list[int] = []
            kinds: set[str] = set()
            book = ClientBook(10)
            for channel in channels:
                trigger: Message = {"event_trigger": "bbo"} if channel == "ticker" else {}
                await ask(client, channel=channel, symbol=["BTC/USD"], **trigger)
            while True:
                frame = json.loads(await client.recv())
                kinds.add(frame.get("channel", ""))
                if frame.get("channel") == "book":
                    assert book.apply(frame["data"][0])
                if frame.get("channel") == "trade":
                    ids += [row["trade_id"] for row in frame["data"]]
                if frame.get("channel") == "heartbeat":
                    break
            summary = (await get(server, "/ledger")).json()
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            assert summary["finished"] is True
            assert summary["published"]["BTC/USD"]["count"] == len(ids)
            assert summary["trades"]["BTC/USD"] == {
                "count": len(ids), "first_id": ids[0], "last_id": ids[-1], "repeats": 0,
            }  # fmt: skip
            assert kinds >= set(channels)
            page = (await get(server, "/0/public/Trades?pair=XBTUSD&since=0")).json()["result"]["XXBTZUSD"]
            assert page[0][6] == ids[0]

    run(body)


def test_a_replay_of_recorded_frames_sends_them_with_valid_checksums(tmp_path: Path) -> None:
    path = recorded("kraken_v2_book_btcusd_20260719.jsonl")

    async def body() -> None:
        async with exchange(tmp_path, replay=path, speed=0.0, original_time=True) as server, ws(server) as client:
            await ask(client, channel="book", symbol=["BTC/USD"])
            book, frames = ClientBook(10), 0
            while True:
                frame = json.loads(await client.recv())
                if frame.get("channel") == "heartbeat":
                    break
                if frame.get("channel") == "book":
                    frames += 1
                    assert book.apply(frame["data"][0])
            assert frames == 1_254

    run(body)


def test_a_data_directory_refuses_a_market_whose_trade_ids_would_move_back(tmp_path: Path) -> None:
    async def body() -> None:
        for rate in (2.0, 2.0):
            async with exchange(tmp_path, rate=rate):
                pass
        with pytest.raises(ConfigError, match=r"--seed and --rate"):
            Exchange(Options(data_dir=tmp_path, rate=1.0))
        with pytest.raises(ConfigError, match=r"another --data-dir"):
            Exchange(Options(data_dir=tmp_path, rate=2.0, seed=2))
        with pytest.raises(ConfigError, match=r"no --speed"):
            Exchange(Options(data_dir=tmp_path, rate=2.0, speed=3.0))
        Exchange(Options(data_dir=tmp_path / "fast", speed=3.0))
        for speed in (3.0, 1.0):
            with pytest.raises(ConfigError, match=r"no --speed"):
                Exchange(Options(data_dir=tmp_path / "fast", speed=speed))

    run(body)
