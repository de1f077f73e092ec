"""Faults of the simulated exchange over real sockets, compared with its ledger."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from btc_core.clock import NS_PER_S
from exchange_simulator.faults import schedule
from tests.service.exchange_client import ClientBook, ask, exchange, get, is_answer, is_data, run, until, ws

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

    from exchange_simulator.server import Exchange
    from tests.service.exchange_client import Message

pytestmark = pytest.mark.service
OUTAGE_S = 600
"""Longer than a test takes on a busy machine; the test ends the outage itself."""


async def inject(server: Exchange, kind: str, **arguments: Any) -> Message:
    query = "&".join(f"{name}={value}" for name, value in {"kind": kind, **arguments}.items())
    answer = await get(server, f"/faults/inject?{query}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def active(server: Exchange) -> list[str]:
    return [row["kind"] for row in (await get(server, "/faults")).json()["active"]]


async def rest_ids(server: Exchange, since_ns: int) -> set[int]:
    """The ids of all trades that REST has after this time."""
    ids: set[int] = set()
    since = str(since_ns)
    while True:
        result = (await get(server, f"/0/public/Trades?pair=XBTUSD&since={since}")).json()["result"]
        ids |= {row[6] for row in result["XXBTZUSD"]}
        if len(result["XXBTZUSD"]) < 900:
            return ids
        since = result["last"]


async def until_all_faults_end(server: Exchange) -> None:
    while await active(server):
        pass


async def end_outages(server: Exchange) -> None:
    """End them by request: a test that waits for their end must be faster than they are before it."""
    assert (await get(server, "/faults/end")).json()["ended"]
    assert await active(server) == []


async def subscribed(client: ClientConnection, *channels: str) -> None:
    for channel in channels:
        trigger: Message = {"event_trigger": "bbo"} if channel == "ticker" else {}
        await ask(client, channel=channel, symbol=["BTC/USD"], **trigger)
        await until(client, is_answer)


async def close_code(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        await until(client, lambda _: False)
    return client.close_code


def trade_ids(frame: Message) -> list[int]:
    return [row["trade_id"] for row in frame["data"]] if frame.get("channel") == "trade" else []


def test_connections_close_with_the_given_code_or_stay_half_open(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0) as server:
            for code in (1001, 1006):
                async with ws(server) as client:
                    await subscribed(client, "ticker")
                    assert (await inject(server, "close", code=code))["clients"] == 1
                    assert await close_code(client) == code

            async with ws(server) as staying, connect(f"ws://127.0.0.1:{server.port}/v2", close_timeout=0.2) as leaving:
                for client in (staying, leaving):
                    await subscribed(client, "ticker")
                await inject(server, "half_open", seconds=4)
                pong = asyncio.ensure_future(await staying.ping())
                await ask(staying, "ping", req_id=1)
                async with ws(server) as fresh:
                    await subscribed(fresh, "ticker")
                    await leaving.close()
                    while (await get(server, "/healthz")).json()["connections"] > 2:
                        pass
                    assert await active(server) == ["half_open"]
                    answered = asyncio.create_task(until(staying, is_answer))
                    await asyncio.wait([answered])
                    assert isinstance(answered.exception(), ConnectionClosed)
                    assert staying.close_code == 1006
                    assert pong.cancelled() or pong.exception() is not None
                    await until_all_faults_end(server)
                    await until(fresh, is_data("ticker", "update"))

    run(body)


def test_a_stall_delivers_everything_late_and_a_silence_lasts_until_the_client_subscribes_again(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0) as server, ws(server) as client:
            await subscribed(client, "ticker", "trade")
            ids = trade_ids(await until(client, is_data("trade", "update")))
            stalled_ns = (await inject(server, "stall", seconds=1))["at_ns"]
            await until_all_faults_end(server)
            while len(ids) < 60:
                ids += trade_ids(await until(client, is_data("trade", "update")))
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            await get(server, "/ledger")
            lines = (tmp_path / "ledger" / "ledger-000001.ndjson").read_text().splitlines()
            after_ns = min(
                sent_ns for sent_ns in (json.loads(line)["sent_ns"] for line in lines) if sent_ns > stalled_ns
            )
            assert after_ns - stalled_ns > 0.99e9

            await inject(server, "silence", channel="ticker")
            await ask(client, "ping", req_id=9)
            await until(client, is_answer)
            frames = [json.loads(await client.recv()) for _ in range(20)]
            assert {frame["channel"] for frame in frames} <= {"trade", "heartbeat"}
            assert await active(server) == ["silence"]
            await subscribed(client, "ticker")
            await until(client, is_data("ticker", "update"))
            assert await active(server) == []

    run(body)


def test_the_ledger_distinguishes_trades_that_were_not_sent_from_trades_that_never_existed(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0) as server, ws(server) as client:
            await subscribed(client, "trade")
            seen = [trade_ids(await until(client, is_data("trade", "update")))]
            book_frames: list[Message] = []

            async def read() -> None:
                while True:
                    frame = json.loads(await client.recv())
                    seen.append(trade_ids(frame))
                    book_frames.extend(frame["data"] if frame.get("channel") == "book" else [])

            reader = asyncio.create_task(read())
            await ask(client, channel="book", symbol=["BTC/USD"])
            kinds = {"skip_trades": 3, "void_trades": 4, "duplicate_trades": 5, "reorder_trades": 6, "merge_trades": 15}
            for kind, count in kinds.items():
                await inject(server, kind, count=count)
                await until_all_faults_end(server)
            await inject(server, "bad_checksum", count=2)
            await until_all_faults_end(server)
            ids = list(itertools.chain(*seen))
            published = (await get(server, "/ledger/published?symbol=BTC/USD")).json()["ranges"]
            sent = (await get(server, "/ledger/trades?symbol=BTC/USD")).json()
            in_rest = await rest_ids(server, server.clock.now_ns() - 60 * NS_PER_S)
            reader.cancel()

            existing = {number for first, last in published for number in range(first, last + 1)}
            missing = set(range(min(ids), max(ids) + 1)) - set(ids)
            assert len(missing & existing) == 3
            assert len(missing - existing) == 4
            assert missing & existing <= in_rest
            assert in_rest.isdisjoint(missing - existing)
            assert len(ids) - len(set(ids)) == sent["repeats"] == 5
            assert max(map(len, seen)) >= 15
            assert sum(later < earlier for earlier, later in itertools.pairwise(ids)) >= 5
            book = ClientBook(10)
            assert [book.apply(data) for data in book_frames].count(False) == 2

    run(body)


async def clock_offset_s(client: ClientConnection) -> float:
    """How far the exchange's clock is ahead: the least that the pings of a busy machine show, which is that of the fastest one."""
    found = []
    for _ in range(5):
        begin_s = time.time()
        await ask(client, "ping")
        pong = await until(client, is_answer)
        end_s = time.time()
        at_s = datetime.fromisoformat(pong["time_in"]).timestamp()
        found.append((end_s - begin_s, at_s - (begin_s + end_s) / 2.0))
    return min(found)[1]


def late_ids(ids: list[int]) -> list[int]:
    """The ids that came for the first time after a larger one, since the ids were restarted; none before that."""
    lowest = min(ids, default=0)
    restarted = ids[ids.index(lowest) :] if ids and lowest < ids[0] else []
    return [
        trade_id
        for place, trade_id in enumerate(restarted)
        if trade_id not in restarted[:place] and trade_id < max(restarted[:place], default=0)
    ]


def test_odd_ids_are_the_same_on_the_socket_and_in_rest_and_a_withheld_trade_comes_late(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0) as server, ws(server) as client:
            await subscribed(client, "trade")
            rows: list[Message] = []

            async def read() -> None:
                while True:
                    frame = json.loads(await client.recv())
                    rows.extend(frame["data"] if frame.get("channel") == "trade" else [])

            reader = asyncio.create_task(read())
            since_ns = server.clock.now_ns() - 60 * NS_PER_S
            for query in ({"kind": "jump_id"}, {"kind": "restart_ids"}, {"kind": "correct_trades", "count": 2}):
                await inject(server, **query)
                await until_all_faults_end(server)
            await inject(server, "late_trade", seconds=2)
            assert await active(server) == ["late_trade"]
            while not late_ids([row["trade_id"] for row in rows]):  # noqa: ASYNC110 - the client has no event for it
                await asyncio.sleep(0.05)
            in_rest = await rest_ids(server, since_ns)
            reader.cancel()
            tape = (await get(server, f"/ledger/tape?symbol=BTC/USD&since_ns={since_ns}")).json()["trades"]

            ids = [row["trade_id"] for row in rows]
            jumped = max(ids)
            assert jumped >= 10**15
            assert {jumped, min(ids)} <= in_rest
            assert set(ids) <= {trade_id for trade_id, *_ in tape}
            prices: dict[int, set[float]] = {}
            for row in rows:
                prices.setdefault(row["trade_id"], set()).add(row["price"])
            assert [len(each) for each in prices.values()].count(2) == 2, "two trades came with another price, too"
            assert len(late_ids(ids)) == 1, "one came late"
            assert (await get(server, "/ledger/tape?since_ns=x")).status_code == 400

    run(body)


def test_each_trade_has_one_fault_and_the_exchange_says_what_its_faults_changed(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0) as server, ws(server) as client:
            await subscribed(client, "trade")
            for kind in ("correct_trades", "skip_trades", "void_trades"):
                await inject(server, kind, count=3)
            await inject(server, "unknown")
            await until_all_faults_end(server)
            effects = (await get(server, "/faults/effects")).json()
            changed = {kind: set(by_symbol["BTC/USD"]) for kind, by_symbol in effects["trades"].items()}
            assert {kind: len(ids) for kind, ids in changed.items()} == dict.fromkeys(changed, 3)
            assert not set.intersection(*changed.values())
            assert "weather" in effects["frames"]["unknown"][0]
            ids: list[int] = []
            while not ids or ids[-1] <= max(set.union(*changed.values())) + 5:
                ids += trade_ids(await until(client, is_data("trade", "update")))
            twice = {trade_id for trade_id in ids if ids.count(trade_id) == 2}
            assert twice == changed["correct_trades"]
            assert not set(ids) & (changed["skip_trades"] | changed["void_trades"])
            await ask(client, channel="trade", symbol=["NO/PAIR"])
            await until(client, is_answer)
            effects = (await get(server, "/faults/effects")).json()
            assert [event for event, _, _ in effects["clients"]] == ["connected", "refused"]

    run(body)


def test_outages_skewed_clocks_and_extra_frames_reach_the_client_and_end(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0) as server, ws(server) as client:
            await subscribed(client, "ticker")
            for kind, text in (("malformed", "{"), ("unknown", "weather"), ("oversized", "xxx"), ("bad_quote", "null")):
                await inject(server, kind)
                while text not in (frame := str(await client.recv())) or frame.startswith('{"channel":"ticker"') == (
                    kind in {"unknown", "oversized"}
                ):
                    pass
            await inject(server, "status", system="cancel_only", seconds=OUTAGE_S)
            assert (await until(client, is_data("status", "update")))["data"][0]["system"] == "cancel_only"
            answer = (await get(server, "/0/public/SystemStatus")).json()
            assert answer["result"]["status"] == "cancel_only"
            await end_outages(server)
            assert (await until(client, is_data("status", "update")))["data"][0]["system"] == "online"

            await inject(server, "rest_limit", seconds=OUTAGE_S)
            assert (await get(server, "/0/public/Time")).json() == {"error": ["EAPI:Rate limit exceeded"]}
            await inject(server, "rest_error", seconds=OUTAGE_S)
            answer = await get(server, "/0/public/Trades?pair=XBTUSD")
            assert (answer.status_code, answer.json()) == (503, {"error": ["EService:Unavailable"]})
            await inject(server, "refuse", seconds=OUTAGE_S)
            await ask(client, channel="trade", symbol=["BTC/USD"], req_id=3)
            refusal = await until(client, is_answer)
            assert (refusal["success"], refusal["error"], refusal["req_id"]) == (False, "EService:Unavailable", 3)
            await inject(server, "refuse", seconds=OUTAGE_S, error="rate_limit")
            await ask(client, channel="trade", symbol=["BTC/USD"])
            await until(client, lambda frame: frame == {"Error": "Exceeded msg rate"})
            await end_outages(server)
            await subscribed(client, "trade")
            assert (await get(server, "/0/public/Time")).json()["error"] == []

            ahead = (await inject(server, "clock_skew", seconds=2))["number"]
            assert await clock_offset_s(client) == pytest.approx(2.0, abs=0.5)
            behind = (await inject(server, "clock_skew", seconds=-2))["number"]
            assert await clock_offset_s(client) == pytest.approx(-2.0, abs=0.5)
            assert await active(server) == ["clock_skew"]
            await inject(server, "clock_skew", seconds=0)
            listing = (await get(server, f"/faults?after={ahead - 1}")).json()
            assert [row["number"] for row in listing["injected"]] == [ahead, behind, behind + 1]
            assert listing["active"] == []
            ledger = (await get(server, "/ledger")).json()
            assert ledger["frames"]["injected"] == listing["extra_frames_sent"] == 4
            assert ledger["quotes"]["BTC/USD"]["update"] + 1 == ledger["frames"]["ticker"]
            assert ledger["faults"]["clock_skew"] == 3

    run(body)


def test_connections_flap_are_blocked_or_stay_deaf(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0) as server:
            await inject(server, "flap", seconds=OUTAGE_S)
            async with ws(server) as client:
                await ask(client, channel="ticker", symbol=["BTC/USD"], event_trigger="bbo")
                await until(client, is_data("ticker", "snapshot"))
                assert await close_code(client) == 1013
            await end_outages(server)

            await inject(server, "block", status=429, seconds=OUTAGE_S)
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{server.port}/v2")
            assert refused.value.response.status_code == 429
            assert int(refused.value.response.headers["Retry-After"]) > 0
            await end_outages(server)

            async with ws(server) as client:
                await subscribed(client, "ticker")
                await until(client, is_data("ticker", "update"))
                await inject(server, "deaf", seconds=OUTAGE_S)
                async with ws(server) as later:
                    for each in (client, later):
                        await subscribed(each, "trade", "ticker")
                    await end_outages(server)
                    frames = [json.loads(await each.recv()) for each in (client, later) for _ in range(2)]
                    assert {frame.get("channel", "answer") for frame in frames} <= {"heartbeat", "answer", "status"}
            async with ws(server) as client:
                await subscribed(client, "ticker")
                await until(client, is_data("ticker", "update"))

    run(body)


def test_a_delisted_pair_is_refused_and_every_checksum_of_a_pair_is_wrong(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, rate=50.0, symbols=("BTC/USD", "ETH/USD")) as server, ws(server) as client:
            await inject(server, "delist", symbol="ETH/USD", seconds=OUTAGE_S)
            await ask(client, channel="ticker", symbol=["BTC/USD", "ETH/USD"])
            answers = [await until(client, is_answer) for _ in range(2)]
            assert [answer["success"] for answer in answers] == [True, False]
            assert answers[1]["error"] == "Currency pair not supported ETH/USD"
            await end_outages(server)
            await ask(client, channel="ticker", symbol=["ETH/USD"])
            assert (await until(client, is_answer))["success"] is True

            await inject(server, "wrong_checksums", symbol="BTC/USD", seconds=OUTAGE_S)
            await ask(client, channel="book", symbol=["BTC/USD"])
            snapshot = await until(client, is_data("book", "snapshot"))
            update = await until(client, is_data("book", "update"))
            book = ClientBook(10)
            assert [book.apply(frame["data"][0]) for frame in (snapshot, update)] == [False, False]
            await end_outages(server)
            await until(client, is_data("book", "update"))
            await ask(client, channel="book", symbol=["BTC/USD"])
            snapshot = await until(client, is_data("book", "snapshot"))
            assert ClientBook(10).apply(snapshot["data"][0]) is True

            for kind in ("long_key", "foreign_book", "odd_pair"):
                assert (await inject(server, kind))["clients"] == 1
                await until(
                    client, lambda frame: "kkk" in str(frame) or "XBT/USD" in str(frame) or "ODD/USD" in str(frame)
                )

    run(body)


def test_rest_may_throttle_be_behind_be_empty_and_deny_a_pair(tmp_path: Path) -> None:
    async def body() -> None:
        # Half a minute of trades fits into a page of 1,000 also in a burst; a full page would end before the newest trade.
        async with exchange(tmp_path, rate=20.0, rest_rate_limit=0.0, symbols=("BTC/USD", "DOGE/USD")) as server:

            async def trades(pair: str = "XBTUSD") -> Message:
                since_ns = server.clock.now_ns() - 30 * NS_PER_S
                return dict((await get(server, f"/0/public/Trades?pair={pair}&since={since_ns}")).json())

            names = (await get(server, "/0/public/AssetPairs")).json()["result"]["XDGUSD"]
            assert (names["wsname"], names["altname"]) == ("XDG/USD", "XDGUSD")
            assert (await trades("DOGEUSD"))["error"] == ["EQuery:Unknown asset pair"]

            await inject(server, "rest_throttle", seconds=OUTAGE_S)
            answer = await get(server, "/0/public/Time")
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= OUTAGE_S
            assert answer.json() == {"error": ["EGeneral:Too many requests"]}
            await end_outages(server)
            assert (await get(server, "/0/public/Time")).status_code == 200

            await inject(server, "rest_lag", seconds=OUTAGE_S, lag_s=10)
            newest_s = (await trades())["result"]["XXBTZUSD"][-1][2]
            assert 10.0 <= server.clock.now_ns() / NS_PER_S - newest_s < 25.0
            await inject(server, "rest_empty", seconds=OUTAGE_S)
            assert (await trades())["result"]["XXBTZUSD"] == []
            await end_outages(server)
            await inject(server, "rest_unknown_pair", seconds=OUTAGE_S, symbol="DOGE/USD")
            assert (await trades("XDGUSD"))["error"] == ["EQuery:Unknown asset pair"]
            assert (await trades())["error"] == []
            await end_outages(server)
            newest_s = (await trades())["result"]["XXBTZUSD"][-1][2]
            assert server.clock.now_ns() / NS_PER_S - newest_s < 10.0
            assert len((await trades("XDGUSD"))["result"]["XDGUSD"]) > 0

    run(body)


def test_wrong_faults_are_refused_with_a_reason_and_the_command_line_injects_faults(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server:
            for query, named in (
                ("kind=explode", "explode"),
                ("kind=stall&seconds=x", "seconds"),
                ("kind=silence&symbol=DOGE/USD", "symbol"),
                ("", "kind"),
            ):
                answer = await get(server, f"/faults/inject?{query}")
                assert answer.status_code == 400
                assert named in answer.json()["error"]
            assert (await get(server, "/faults?after=x")).status_code == 400
            assert (await get(server, "/faults")).json()["count"] == 0

            async def fault(*arguments: str) -> tuple[int | None, str]:
                done = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "btc_cli", "fault", *arguments),
                    *("--url", f"http://127.0.0.1:{server.port}"),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                text = (await done.communicate())[0].decode()
                return done.returncode, text

            status, text = await fault("stall", "seconds=30")
            assert status == 0
            assert "stall seconds=30.0" in text
            assert await active(server) == ["stall"]
            status, text = await fault("stall", "hours=1")
            assert status == 1
            assert "hours" in text
            assert "stall seconds=30.0" in (await fault())[1]
            await fault("rest_error", f"seconds={OUTAGE_S}")
            status, text = await fault("end")
            assert (status, "rest_error" in text, "stall" in text) == (0, True, False)

    run(body)


def test_a_schedule_injects_the_faults_of_its_seed(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, faults_every=0.02, faults_seed=3, faults="unknown,status,clock_skew") as server:
            while (listing := (await get(server, "/faults")).json())["count"] < 9:
                pass
        expected = schedule.sequence(3, 0.02, ("unknown", "status", "clock_skew"), ("BTC/USD",))
        for row, (_, fault) in zip(listing["injected"], expected, strict=False):
            assert (row["kind"], row["scheduled"]) == (fault.kind, True)
            assert row.get("seconds") == getattr(fault, "seconds", None)

    run(body)
