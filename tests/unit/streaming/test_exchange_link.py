"""Everything between the socket and the publisher, without either: odd frames go in, messages and dead letters come out."""

from __future__ import annotations

import asyncio
import itertools
import json
import zlib
from typing import Any

import pytest
from prometheus_client import REGISTRY

from btc_core.errors import ServiceError
from btc_core.settings import Settings
from streaming.ingest import Ingest
from tests.link_sink import Sink, link_to
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.unit

BTC, ETH = "BTC/USD", "ETH/USD"


def book(symbol: str, price: str = "1.0", checksum: int = 1) -> bytes:
    return (
        f'{{"channel":"book","type":"snapshot","data":[{{"symbol":"{symbol}","bids":[{{"price":{price},"qty":1.0}}],'
        f'"asks":[],"checksum":{checksum}}}]}}'
    ).encode()


def instruments(*pairs: dict[str, Any]) -> bytes:
    return json.dumps({"channel": "instrument", "type": "snapshot", "data": {"assets": [], "pairs": pairs}}).encode()


def pair(symbol: str, price_precision: object = 1, qty_precision: object = 8) -> dict[str, Any]:
    return {"symbol": symbol, "status": "online", "price_precision": price_precision, "qty_precision": qty_precision}


def trade(symbol: str, trade_id: int | None) -> dict[str, Any]:
    return {"symbol": symbol, "side": "buy", "price": 1.5, "qty": 1.0, "trade_id": trade_id,
            "timestamp": "2026-01-01T00:00:00Z"}  # fmt: skip


def trades(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"channel": "trade", "type": "update", "data": entries}).encode()


CRASHERS = {
    "a book of a market that was not asked for": [book("XBT/USD")],
    "a price precision of 5,000": [instruments(pair(BTC, 5_000)), book(BTC)],
    "a price precision of ten million": [instruments(pair(BTC, 10_000_000)), book(BTC)],
    "a negative price precision": [instruments(pair(BTC, -3)), book(BTC, "1000")],
    "a message with a key of 800 kB": [b'{"' + b"k" * 800_000 + b'":1}'],
    "a pair of nulls": [instruments(pair(BTC), pair("ODD/USD", None, None))],
    "a price with ten thousand digits": [book(BTC, "1" * 10_000), book(BTC, "0." + "1" * 10_000)],
    "an answer to nothing": [b'{"method":"pong","req_id":-1,"time_in":"0001-01-01T00:00:00Z","time_out":"9999-12-31T23:59:59Z"}'],
    "nothing at all": [b"", b"null", b"{}", trades(), b'{"channel":"status","data":[]}'],
}  # fmt: skip


@pytest.mark.parametrize("name", CRASHERS)
def test_no_frame_ends_ingest_and_the_next_one_is_published(name: str) -> None:
    sink = Sink()
    link = link_to(sink)
    for raw in CRASHERS[name]:
        link.receive(raw)
    link.receive(trades(trade(BTC, 1)))
    assert sink.published[-1][1].channel == "trade"
    assert all(len(message) < 1_000 for _, message, _ in sink.letters)


def test_one_odd_pair_among_a_thousand_leaves_the_precision_of_the_others_and_no_letter() -> None:
    sink = Sink()
    link = link_to(sink, BTC, ETH)
    link.receive(instruments(pair("ODD/USD", None), *(pair(f"S{n}/USD") for n in range(1_000)), pair(ETH, 2)))
    link.receive(book(ETH, "2000.12", 3_397_606_917))
    assert sink.letters == []
    link.receive(instruments(pair(ETH, None), pair(BTC)))
    assert [reason for reason, *_ in sink.letters] == ["bad_field"]
    assert "entry 0" in sink.letters[0][1]


def test_frames_of_other_markets_are_counted_and_one_of_each_is_kept() -> None:
    sink = Sink()
    link = link_to(sink)
    before = REGISTRY.get_sample_value("btc_frames_foreign_total", {"exchange": "kraken", "channel": "trade"}) or 0.0
    for number in range(100):
        link.receive(trades(trade("XBT/USD", number)))
    assert sink.published == []
    assert [reason for reason, *_ in sink.letters] == ["foreign_market"]
    assert (
        REGISTRY.get_sample_value("btc_frames_foreign_total", {"exchange": "kraken", "channel": "trade"})
        == before + 100
    )


def test_a_frame_of_several_markets_is_divided_so_that_each_part_has_the_key_of_its_market() -> None:
    sink = Sink()
    raw = trades(trade(BTC, 1), trade("XBT/USD", 5), trade(ETH, 7), trade(BTC, 2)).replace(b"1.5", b"1.50")
    link_to(sink, BTC, ETH).receive(raw)
    found = [(key, [row["trade_id"] for row in json.loads(each.raw)["data"]]) for key, each in sink.published]
    assert found == [(BTC, [1, 2]), (ETH, [7])]
    assert all(b"1.50" in each.raw for _, each in sink.published), "the text of the exchange is kept"
    assert [reason for reason, *_ in sink.letters] == ["foreign_market"]


def test_a_frame_with_a_bad_entry_is_published_for_its_good_ones() -> None:
    sink = Sink()
    raw = trades(trade(BTC, 1), trade(BTC, None), trade(BTC, 3))
    link_to(sink).receive(raw)
    assert [each.raw for _, each in sink.published] == [raw]
    assert sink.letters == [], "the readers of the log report the bad entry with its place"


def test_a_frame_that_kafka_does_not_take_becomes_a_dead_letter() -> None:
    sink = Sink(ServiceError("too large"))
    link_to(sink).receive(trades(trade(BTC, 1)))
    assert [reason for reason, *_ in sink.letters] == ["not_published"]


def test_frames_carry_the_offset_of_the_exchange_clock_once_it_is_measured() -> None:
    sink = Sink()
    link = link_to(sink)
    link.receive(trades(trade(BTC, 1)))
    link._exchange_clock.measure(0, 500, 500, 1_000)
    link.receive(trades(trade(BTC, 2)))
    assert [each.clock_offset_ns for _, each in sink.published] == [None, 0]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param([80_000_000, 9_000_000_000_000_000_000, 80_000_001], id="after one odd id far ahead"),
        pytest.param([80_000_000, 1], id="after ids that restarted"),
        pytest.param([80_000_000, 80_000_002, 80_000_001], id="after trades out of order"),
    ],
)
def test_a_snapshot_is_new_data_if_it_ends_with_another_trade_whatever_the_ids_are(
    first: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = link_to(Sink())
    found: list[bool] = []
    monkeypatch.setattr(link._subscriptions, "heard", lambda *_, is_new: found.append(is_new))
    for trade_id in first:
        link.receive(trades(trade(BTC, trade_id)))
    snapshot = [trade(BTC, trade_id) for trade_id in first]
    new = trade(BTC, first[-1] + 1) | {"timestamp": "2026-01-01T00:00:01Z"}
    for data in (snapshot, snapshot, [*snapshot, new], [*snapshot, new]):
        link.receive(trades(*data).replace(b'"update"', b'"snapshot"'))
    assert found == [True] * len(first) + [False, False, True, False]


def test_a_snapshot_with_a_reused_id_is_new_data(monkeypatch: pytest.MonkeyPatch) -> None:
    link = link_to(Sink())
    found: list[bool] = []
    monkeypatch.setattr(link._subscriptions, "heard", lambda *_, is_new: found.append(is_new))
    link.receive(trades(trade(BTC, 7)))
    again = trades(trade(BTC, 7) | {"timestamp": "2026-01-02T00:00:00Z"})
    link.receive(again.replace(b'"update"', b'"snapshot"'))
    assert found == [True, True]


class FullSink(Sink):
    """A sink that is full after the first frame."""

    polls = 0

    @property
    def full(self) -> bool:  # type: ignore[override]
        return bool(self.published)

    def poll(self) -> None:
        self.polls += 1


class Burst:
    """A socket that always has another frame."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)

    async def recv(self, *, decode: bool) -> bytes:
        assert not decode
        return trades(trade(BTC, next(self.numbers)))


def test_no_frame_is_read_once_the_sink_is_full_even_within_a_burst() -> None:
    sink, socket = FullSink(), Burst()

    async def run() -> None:
        reading = asyncio.create_task(link_to(sink)._read(socket))  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE_S):
            while sink.polls < 3:  # noqa: ASYNC110 - the sink has no event for it
                await asyncio.sleep(0.01)
        reading.cancel()

    asyncio.run(run())
    assert len(sink.published) == 1
    assert sink.polls >= 3, "Kafka's acknowledgements are processed meanwhile"


def test_ingest_opens_no_connection_while_the_queue_to_kafka_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [True, True, False]
    monkeypatch.setattr(Ingest, "full", property(lambda _: answers.pop(0)))
    monkeypatch.setattr("streaming.exchange_feed.FULL_PAUSE_S", 0.01)
    seen: list[int] = []

    class Link:
        last_data_s = None

        async def follow(self, *_: object) -> None:
            seen.append(len(answers))
            ingest.stop()

    async def no_history() -> None: ...

    ingest = Ingest(Settings())
    monkeypatch.setattr(ingest.feeds[0], "_fetch_missed_minutes", no_history)
    asyncio.run(ingest.feeds[0].run_link(Link()))  # type: ignore[arg-type]
    assert seen == [0]


def test_a_book_frame_that_is_left_out_of_the_log_is_followed_by_a_request_for_a_snapshot() -> None:
    sink = Sink()
    sink.leaves_out = ("book",)
    link = link_to(sink)
    link.receive(book(BTC, "1.0", zlib.crc32(b"10100000000")))
    link._requests = asyncio.Queue()
    link._renew_books(link._last_frame_s + 9.0)
    assert link._requests.empty()
    link._renew_books(link._last_frame_s + 11.0)
    requests = [link._requests.get_nowait() for _ in range(link._requests.qsize())]
    assert [request["method"] for request in requests] == ["unsubscribe", "subscribe"]
    assert REGISTRY.get_sample_value(
        "btc_resubscriptions_total", {"channel": "book", "symbol": BTC, "reason": "left_out"}
    )
