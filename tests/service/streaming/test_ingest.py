"""Ingest with a real Kafka and an exchange played by the tests, whose socket misbehaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import REGISTRY
from websockets.asyncio.server import ServerConnection, serve

import streaming.conflation
import streaming.exchange_feed
import streaming.ingest
from btc_core.clock import from_ns, now_ns
from btc_core.errors import InvalidInput, SubscriptionRefused
from btc_core.market.messages import DeadLetter
from btc_core.names import DEADLETTERS_TOPIC
from btc_core.stores.kafka import read_all, read_topic
from btc_core.stores.kafka_connection import connection
from btc_core.stores.kafka_topics import missing_topics
from streaming.ingest import Ingest
from streaming.order_books import UNVERIFIED_MISMATCHES
from tests.real_alerts import Looks
from tests.waiting import PATIENCE_S, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.http11 import Request, Response

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

Talk = "Callable[[ServerConnection, list[dict[str, Any]]], Awaitable[None]]"


def quote(symbol: str) -> str:
    data = {"symbol": symbol, "bid": 1.0, "bid_qty": 1.0, "ask": 2.0, "ask_qty": 1.0, "last": 1.0, "volume": 1.0,
            "vwap": 1.0, "low": 1.0, "high": 1.0, "change": 0.0, "change_pct": 0.0}  # fmt: skip
    return json.dumps({"channel": "ticker", "type": "update", "data": [data]})


def counted(name: str, **labels: str) -> float:
    """A sample of this process about Kraken; other tests have counted as well."""
    return REGISTRY.get_sample_value(name, {"exchange": "kraken", **labels}) or 0.0


async def until(condition: Callable[[], object], what: str) -> None:
    """As `wait_for`, while the event loop goes on."""
    await asyncio.to_thread(wait_for, condition, what)


async def send_quote(socket: ServerConnection, symbol: str) -> None:
    """Send a quote, and wait until ingest has taken it: frames that were sent before have then been taken, too."""
    before = counted("btc_frames_total", channel="ticker")
    await socket.send(quote(symbol))
    await until(lambda: counted("btc_frames_total", channel="ticker") > before, "the quote is taken")


async def requests(socket: ServerConnection, number: int) -> list[dict[str, Any]]:
    """The next requests of ingest. A ping may come between them at any time."""
    found: list[dict[str, Any]] = []
    while len(found) < number:
        request = json.loads(await socket.recv())
        if request["method"] != "ping":
            found.append(request)
    return found


def settings_for(settings: Settings, url: str, symbol: str, **stream: Any) -> Settings:
    exchange = settings.exchange.model_copy(
        update={"ws_url": url, "rest_url": "http://127.0.0.1:1", "history_url": "", "symbols": tuple(symbol.split(","))}
    )
    return settings.model_copy(update={"exchange": exchange, "stream": settings.stream.model_copy(update=stream)})


async def play(settings: Settings, symbol: str, talk: Talk, process_request: Any = None, **stream: Any) -> None:
    """Run ingest against a server on which `talk` handles each connection, until `talk` returns; symbols have commas between them."""
    done = asyncio.Event()

    async def connection(socket: ServerConnection) -> None:
        await talk(socket, await requests(socket, 4))
        done.set()

    async with serve(connection, "127.0.0.1", 0, process_request=process_request) as server:
        port = server.sockets[0].getsockname()[1]
        ingest = Ingest(settings_for(settings, f"ws://127.0.0.1:{port}", symbol, **stream))
        running = asyncio.create_task(ingest.run())
        waiting = asyncio.create_task(done.wait())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            ingest.stop()
            waiting.cancel()
            await running


def frames(settings: Settings, symbol: str) -> list[str]:
    return [envelope.channel for envelope, _, _ in read_all(settings.kafka) if symbol.encode() in envelope.raw]


def reasons(settings: Settings, since_ns: int) -> list[str]:
    """Reasons of the dead letters that ingest wrote since `since_ns`."""
    letters = [
        msgspec.json.decode(value, type=DeadLetter) for value, *_ in read_topic(settings.kafka, DEADLETTERS_TOPIC)
    ]
    return [letter.reason for letter in letters if letter.source == "ingest" and letter.ts_ns >= since_ns]


@pytest.fixture(scope="module")
def kafka(servers: Callable[..., Settings]) -> Settings:
    return servers("kafka")


@pytest.fixture(autouse=True)
def no_pause_before_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """The played exchange has no REST API, so ingest starts without history."""
    monkeypatch.setattr(streaming.exchange_feed, "HISTORY_PAUSE_S", 0.0)


def test_ingest_subscribes_to_every_channel_with_snapshots(kafka: Settings) -> None:
    seen: list[dict[str, Any]] = []

    async def talk(socket: ServerConnection, asked: list[dict[str, Any]]) -> None:
        seen.extend(asked)
        await send_quote(socket, "SUB/USD")

    asyncio.run(play(kafka, "SUB/USD", talk))
    wanted = {request["params"]["channel"]: request["params"] for request in seen}
    assert set(wanted) == {"instrument", "trade", "ticker", "book"}
    assert wanted["ticker"]["event_trigger"] == "bbo"
    assert wanted["trade"]["snapshot"] is True
    assert wanted["book"]["depth"] == 10


@pytest.mark.parametrize("answer", ["never comes", "is nonsense"])
def test_quotes_do_not_wait_for_a_rest_api_that_fails(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    symbol, over = f"REST{now_ns()}/USD", threading.Event()

    def bars(*_: object) -> list[bytes]:
        if answer == "never comes":
            over.wait(PATIENCE_S)
        raise InvalidInput("bar 1 has a high below its low")

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        await send_quote(socket, symbol)
        over.set()

    monkeypatch.setattr(streaming.exchange_feed, "recent_bars", bars)
    monkeypatch.setattr(streaming.exchange_feed, "HISTORY_DEADLINE_S", 0.3)
    asyncio.run(play(kafka, symbol, talk))
    assert frames(kafka, symbol) == ["ticker"]


@pytest.mark.causes("DeadLetters")
def test_frames_that_cannot_be_read_become_dead_letters_and_the_others_are_in_the_log(kafka: Settings) -> None:
    since_ns, looks = now_ns(), Looks()
    symbol = f"MIX{since_ns}/USD"

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        for raw in ("{", "[]", '{"channel":"weather"}', '{"a":1}', '{"channel":"ticker","type":"update","data":[{}]}',
                    '{"channel":"ticker","pad":"' + "x" * 1_100_000 + '"}'):  # fmt: skip
            await socket.send(raw)
        await send_quote(socket, symbol)

    asyncio.run(play(kafka, symbol, talk))
    assert sorted(reasons(kafka, since_ns)) == sorted(
        ["malformed_json", "not_an_object", "unknown_channel", "unknown_message", "bad_field", "oversized"]
    )
    assert looks.find("DeadLetters", "of ingest: bad_field")
    assert frames(kafka, symbol) == ["ticker"]


def test_a_refused_subscription_stops_ingest_with_the_words_of_the_exchange(kafka: Settings) -> None:
    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        refusal = {"method": "subscribe", "success": False, "error": "Currency pair not supported NO/SUCH"}
        await socket.send(json.dumps(refusal))
        await socket.wait_closed()

    with pytest.raises(SubscriptionRefused, match=r"Currency pair not supported NO/SUCH.*BTC_EXCHANGE_SYMBOLS"):
        asyncio.run(play(kafka, "NO/SUCH", talk))


@pytest.mark.causes("FeedSilent")
def test_a_silent_connection_is_replaced_and_subscribed_again(kafka: Settings) -> None:
    connections, looks, silent = 0, Looks(), list[list[str]]()

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            silent.append(await asyncio.to_thread(looks.find, "FeedSilent", "kraken"))
        if connections == 1 or not silent:
            await socket.wait_closed()  # connected, but nothing is ever sent
            raise asyncio.CancelledError
        await send_quote(socket, "SILENT/USD")

    asyncio.run(play(kafka, "SILENT/USD", talk, data_deadline_s=0.5))
    assert connections >= 2
    assert silent == [["the exchange kraken sends nothing"]]
    assert "ticker" in frames(kafka, "SILENT/USD")


def test_a_server_that_sends_a_snapshot_and_closes_is_not_stormed(kafka: Settings) -> None:
    symbol, opened, closed = f"FLAP{now_ns()}/USD", list[float](), list[float]()

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        opened.append(time.monotonic())
        await send_quote(socket, symbol)
        if len(opened) < 4:
            closed.append(time.monotonic())
            await socket.close(1013, "try again later")
            raise asyncio.CancelledError

    asyncio.run(play(kafka, symbol, talk))
    pauses = [later - earlier for earlier, later in zip(closed, opened[1:], strict=True)]
    assert all(pause >= 0.5 for pause in pauses), pauses
    assert frames(kafka, symbol).count("ticker") == 4


@pytest.mark.causes("ConnectionRefused")
def test_a_handshake_that_is_refused_is_repeated_when_the_exchange_says(kafka: Settings) -> None:
    attempts, looks, refused = list[float](), Looks(), counted("btc_connections_total", event="http_429")

    def refuse_once(socket: ServerConnection, _request: Request) -> Response | None:
        attempts.append(time.monotonic())
        if len(attempts) > 1:
            return None
        response = socket.respond(429, "slow down")
        response.headers["Retry-After"] = "2"
        return response

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        await socket.send(quote("LIMIT/USD"))

    asyncio.run(play(kafka, "LIMIT/USD", talk, process_request=refuse_once))
    assert attempts[1] - attempts[0] >= 2.0
    assert counted("btc_connections_total", event="http_429") - refused == 1
    assert looks.find("ConnectionRefused", "http_429")


@pytest.mark.causes("SubscriptionDown")
def test_one_refused_market_does_not_disturb_the_others_and_is_marked(kafka: Settings) -> None:
    good, gone = f"GOOD{now_ns()}/USD", f"GONE{now_ns()}/USD"

    async def talk(socket: ServerConnection, asked: list[dict[str, Any]]) -> None:
        for request in asked[1:]:
            words = f"Currency pair not supported {gone}"
            refusal = {"method": "subscribe", "success": False, "error": words, "symbol": gone}
            await socket.send(json.dumps(refusal | {"req_id": request["req_id"]}))
        await send_quote(socket, good)

    asyncio.run(play(kafka, f"{good},{gone}", talk))
    assert frames(kafka, good) == ["ticker"]
    assert f"ticker of {gone} is refused" in Looks().find("SubscriptionDown", gone)


def test_a_connection_that_acknowledges_and_then_sends_no_data_is_replaced(kafka: Settings) -> None:
    symbol, sockets = f"DEAF{now_ns()}/USD", []
    replaced = counted("btc_connections_total", event="SubscriptionSilent")

    async def heartbeats(socket: ServerConnection) -> None:
        while True:
            await socket.send('{"channel":"heartbeat"}')
            await asyncio.sleep(0.1)

    async def talk(socket: ServerConnection, asked: list[dict[str, Any]]) -> None:
        sockets.append(socket)
        if len(sockets) > 1:
            await send_quote(socket, symbol)
            return
        beating = asyncio.create_task(heartbeats(socket))
        for request in asked[1:]:
            result = {"channel": request["params"]["channel"], "symbol": symbol}
            await socket.send(json.dumps({"method": "subscribe", "success": True, "result": result}))
        await socket.wait_closed()
        beating.cancel()
        raise asyncio.CancelledError

    asyncio.run(play(kafka, symbol, talk, subscription_deadline_s=0.5))
    assert frames(kafka, symbol) == ["ticker"]
    assert counted("btc_connections_total", event="SubscriptionSilent") - replaced >= 1


def test_ingest_waits_for_its_topics(kafka: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    symbol = f"TOPIC{now_ns()}/USD"
    absent, looks, ready = f"absent.{now_ns()}", list[list[str]](), list[bool]()
    monkeypatch.setattr(streaming.ingest, "EVENTS_TOPIC", absent)
    monkeypatch.setattr(streaming.conflation, "EVENTS_TOPIC", absent)

    def look(*arguments: Any) -> list[str]:
        """What ingest finds; its topic is created after the second look."""
        looks.append(missing_topics(*arguments))
        if len(looks) == 2:
            admin = AdminClient(connection(kafka.kafka, "test"))
            admin.create_topics([NewTopic(absent, kafka.kafka.partitions, 1)])[absent].result()
        return looks[-1]

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        ready.append(looks[-1] == [])
        await send_quote(socket, symbol)

    monkeypatch.setattr(streaming.ingest, "missing_topics", look)
    asyncio.run(play(kafka, symbol, talk))
    assert looks[:2] == [[absent], [absent]]
    assert ready == [True], "nothing is read before there is a topic to write to"
    assert len([value for value, *_ in read_topic(kafka.kafka, absent)]) == 1


@pytest.mark.causes("BookMismatch", "BookUnverified")
def test_only_a_book_that_does_not_match_is_subscribed_again_and_its_frame_is_marked(kafka: Settings) -> None:
    symbol, looks, found = f"BOOK{now_ns()}/USD", Looks(), list[list[str]]()
    book = {"symbol": symbol, "bids": [{"price": 1.0, "qty": 1.0}], "asks": [{"price": 2.0, "qty": 1.0}], "checksum": 1}
    again: list[dict[str, Any]] = []

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        before = counted("btc_frames_total", channel="book")
        await socket.send(json.dumps({"channel": "book", "type": "snapshot", "data": [book]}))
        again.extend(await requests(socket, 2))
        for _ in range(UNVERIFIED_MISMATCHES - 1):
            await socket.send(json.dumps({"channel": "book", "type": "snapshot", "data": [book]}))
        taken = before + UNVERIFIED_MISMATCHES
        await until(lambda: counted("btc_frames_total", channel="book") == taken, "the books are taken")
        for name in ("BookMismatch", "BookUnverified"):
            found.append(await asyncio.to_thread(looks.find, name, symbol))

    asyncio.run(play(kafka, symbol, talk))
    assert [request["method"] for request in again] == ["unsubscribe", "subscribe"]
    assert {request["params"]["channel"] for request in again} == {"book"}
    assert all(found), found
    marks = [envelope.book_ok for envelope, _, _ in read_all(kafka.kafka) if symbol.encode() in envelope.raw]
    assert marks == [False] * UNVERIFIED_MISMATCHES


def test_only_the_channel_that_fell_silent_is_subscribed_again(kafka: Settings) -> None:
    symbol = f"QUIET{now_ns()}/USD"
    again: list[dict[str, Any]] = []

    async def quotes_and_books(socket: ServerConnection) -> None:
        book = {"symbol": symbol, "bids": [], "asks": [], "checksum": 0}
        while True:
            await socket.send(quote(symbol))
            await socket.send(json.dumps({"channel": "book", "type": "update", "data": [book]}))
            await asyncio.sleep(0.1)

    async def talk(socket: ServerConnection, asked: list[dict[str, Any]]) -> None:
        for request in asked[1:]:
            result = {"channel": request["params"]["channel"], "symbol": symbol}
            await socket.send(json.dumps({"method": "subscribe", "success": True, "result": result}))
        sending = asyncio.create_task(quotes_and_books(socket))
        again.extend(await requests(socket, 2))
        sending.cancel()

    asyncio.run(play(kafka, symbol, talk, subscription_deadline_s=3.0))
    assert [request["method"] for request in again] == ["unsubscribe", "subscribe"]
    assert {request["params"]["channel"] for request in again} == {"trade"}


@pytest.mark.causes("ClockOff")
def test_the_offset_of_the_exchange_clock_is_measured_with_pings(kafka: Settings) -> None:
    ahead_s, before_s = 600.0, time.monotonic()
    pings = counted("btc_round_trip_seconds_count")

    async def talk(socket: ServerConnection, _asked: list[dict[str, Any]]) -> None:
        while True:
            request = json.loads(await socket.recv())
            if request["method"] == "ping":
                break
        at = (from_ns(now_ns()) + timedelta(seconds=ahead_s)).isoformat()
        await socket.send(json.dumps({"method": "pong", "req_id": request["req_id"], "time_in": at, "time_out": at}))
        await until(lambda: counted("btc_round_trip_seconds_count") > pings, "the answer is taken")

    asyncio.run(play(kafka, "CLOCK/USD", talk))
    longest_s = time.monotonic() - before_s  # the error of an offset is at most half of the round trip
    assert counted("btc_clock_offset_seconds") == pytest.approx(ahead_s, abs=longest_s / 2)
    assert Looks().find("ClockOff", "kraken")
