"""Ingest, bronze and repair when a process follows several exchanges."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from btc_cli import deadletters
from btc_core.errors import SubscriptionRefused
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.interface import GapSearch
from btc_core.exchanges.rest import budget_of
from btc_core.market.messages import DeadLetter, Envelope, GapNotice, encode_envelope
from btc_core.settings import Settings
from streaming import exchange_feed
from streaming.bronze_rows import BronzeReader
from streaming.handler import Record
from streaming.ingest import Ingest
from streaming.repair import RepairHandler
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIVED_NS = 1_785_000_000 * 10**9
PERPETUAL = "BTC/USDT@binance-perp"
SETTINGS = Settings(exchange=ExchangeSettings(markets="kraken:BTC/USD,binance-perp:BTC/USDT"))


@pytest.fixture
def _whole_budgets() -> Iterator[None]:
    """Leave no refusal of a test behind."""
    yield
    for name in ("kraken", "binance-perp"):
        vars(budget_of(name)).update(vars(type(budget_of(name))()))


def message(exchange: str, channel: str, frame: dict[str, object], *, qualified: bool, offset: int) -> Record:
    raw = json.dumps(frame).encode()
    envelope = Envelope(RECEIVED_NS, 1, offset, channel, "ws", raw, exchange=exchange, qualified=qualified)
    return Record(0, offset, encode_envelope(envelope))


def aggregate(trade_id: int) -> dict[str, object]:
    return {
        "e": "aggTrade",
        "s": "BTCUSDT",
        "a": trade_id,
        "p": "61685.9",
        "q": "0.5",
        "T": 1_785_000_000_000,
        "m": True,
    }


def test_the_trade_ids_of_the_same_pair_on_two_exchanges_do_not_mix() -> None:
    reader = BronzeReader()
    for offset, (qualified, trade_id) in enumerate(((False, 7), (True, 100), (False, 8), (True, 103))):
        reader.read(message("binance-perp", "trade", aggregate(trade_id), qualified=qualified, offset=offset))
    assert [(each.symbol, each.first_id, each.last_id) for each in reader.notices] == [(PERPETUAL, 101, 102)]
    assert [each.entry.symbol for each in reader.rows.trades] == ["BTC/USDT", PERPETUAL, "BTC/USDT", PERPETUAL]


def test_status_rows_say_which_exchange_sent_them() -> None:
    reader = BronzeReader()
    for offset, exchange in enumerate(("kraken", "binance-perp")):
        frame = {"channel": "status", "type": "update", "data": [{"system": "online"}]}
        shutdown = {"e": "serverShutdown"}
        sent = frame if exchange == "kraken" else shutdown
        reader.read(message(exchange, "status", sent, qualified=exchange != "kraken", offset=offset))
    assert [(each.entry.exchange, each.entry.system) for each in reader.rows.status] == [
        ("kraken", "online"),
        ("binance-perp", "server_shutdown"),
    ]


def notice(symbol: str, state: str = "open") -> Record:
    gap = GapNotice(symbol, 5, 6, state, RECEIVED_NS - 10**9, RECEIVED_NS, RECEIVED_NS)
    return Record(0, 1, msgspec.json.encode(gap))


def test_a_gap_is_repaired_by_the_adapter_of_its_exchange_and_by_no_other() -> None:
    handler = RepairHandler(SETTINGS)
    handler.handle([notice("BTC/USD"), notice(PERPETUAL)])
    for name, symbol in (("kraken", "BTC/USD"), ("binance-perp", PERPETUAL)):
        repairs = handler.followed[name]
        assert [each.symbol for each in repairs.notices(0)] == [symbol]
        request = repairs._queue.next_request()
        assert request is None or request.symbol == symbol
    search = handler.followed["binance-perp"]._exchange.gap_search(GapNotice(PERPETUAL, 5, 6, "open", 0, 0, 0))
    assert search == GapSearch((4, 0), 8), "Binance finds trades by id"


def test_gaps_of_an_exchange_that_is_no_longer_followed_are_kept_in_the_checkpoint() -> None:
    handler = RepairHandler(SETTINGS)
    handler.handle([notice("ETH/USD@coinbase"), notice(PERPETUAL)])
    assert set(handler.followed) == {"kraken", "binance-perp"}, "no thread asks the exchange"
    again = RepairHandler(SETTINGS)
    again.load(handler.save(0))
    assert again.save(0) == handler.save(0)
    again.handle([notice("ETH/USD@coinbase", "repaired")])
    assert b"coinbase" not in again.save(0)


def test_a_notice_of_an_unknown_exchange_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, letters = RepairHandler(SETTINGS), []
    monkeypatch.setattr(handler._refusals, "dead_letter", lambda *letter: letters.append(letter))
    handler.handle([notice("BTC/USD@nowhere")])
    assert [(reason, "nowhere" in text) for reason, text, *_ in letters] == [("bad_gap", True)]


class Link:
    """A link to an exchange that refuses everything, or that works; it counts its connections."""

    last_data_s = None

    def __init__(self, error: Exception | None = None) -> None:
        self.connections = 0
        self._error = error

    async def follow(self, *_: object) -> None:
        self.connections += 1
        if self._error is not None:
            raise self._error


def test_an_exchange_that_refuses_every_market_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_feed, "REFUSED_PAUSE_S", 0.05)

    async def no_history() -> None: ...

    async def run(settings: Settings) -> Link:
        ingest, link = Ingest(settings), Link(SubscriptionRefused("EQuery:Unknown pair"))
        feed = ingest.feeds[-1]
        monkeypatch.setattr(feed, "_fetch_missed_minutes", no_history)
        following = asyncio.create_task(feed.run_link(link))  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE_S):
            while link.connections < 2 and not following.done():  # noqa: ASYNC110 - the link has no event for it
                await asyncio.sleep(0.01)
        ingest.stop()
        await following
        return link

    assert asyncio.run(run(SETTINGS)).connections >= 2, "it is asked again"
    with pytest.raises(SubscriptionRefused):
        asyncio.run(run(Settings()))


@pytest.mark.usefixtures("_whole_budgets")
def test_a_banned_exchange_is_connected_to_without_waiting_for_its_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(exchange_feed, "recent_bars", lambda exchange, _symbol: asked.append(exchange.name) or [])
    budget_of("binance-perp").refused(600.0)

    async def run() -> None:
        for feed in Ingest(SETTINGS).feeds:
            await feed._fetch_missed_minutes()

    asyncio.run(run())
    assert asked == ["kraken"]


def test_an_exchange_without_symbols_is_not_connected_to() -> None:
    apart = Settings(exchange=ExchangeSettings(name="kraken", symbols=(PERPETUAL,)))
    assert [feed.exchange.name for feed in Ingest(apart).feeds] == ["binance-perp"]


def test_a_dead_letter_of_a_socket_is_sent_again_as_a_message_of_its_exchange() -> None:
    letters = [
        DeadLetter("bad_field", "", RECEIVED_NS, "ingest", raw=raw, size_bytes=len(raw), exchange=exchange)
        for raw, exchange in ((json.dumps(aggregate(7)).encode(), "binance-perp"), (b'{"channel":"heartbeat"}', ""))
    ]
    other, home = (deadletters._original(SETTINGS, letter) for letter in letters)
    assert (other.exchange, other.qualified, deadletters._checked_symbol(other)) == ("binance-perp", True, PERPETUAL)
    assert (home.exchange, home.qualified) == ("kraken", False)
