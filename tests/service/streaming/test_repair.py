"""Gaps in the trade ids, repaired from the REST API of the simulator with a real Kafka and QuestDB."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ExchangeError
from btc_core.exchanges.kraken import Kraken, trade_frame
from btc_core.market.messages import Envelope
from btc_core.stores.questdb import QuestDB
from exchange_simulator.server import Exchange, Options
from streaming import bronze, repair, repair_queue
from tests.real_alerts import Looks
from tests.service.workers import Running, publish
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from btc_core.market.frames import Trade
    from btc_core.settings import Settings

SYMBOL = "BTC/USD"
DOGE = "DOGE/USD"
ETH = "ETH/USD"
GONE = "MATIC/USD"
"""A symbol that the exchange does not list any more."""
TRADES = 60
LOST = {*range(20, 30), 40}
"""Indexes of the trades that the socket does not deliver."""


@contextmanager
def exchange(directory: Path) -> Iterator[str]:
    """A simulator of three pairs in a thread; its URL."""
    started, stop = threading.Event(), asyncio.Event()
    found: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = Exchange(Options(data_dir=directory, rest_rate_limit=0.0, rate=20.0, symbols=(SYMBOL, DOGE, ETH)))
        async with server.running():
            found.append(f"http://127.0.0.1:{server.port}")
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(30)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def stored(trade: Trade, *, repaired: bool) -> list[object]:
    """The row of a trade in `bronze_trades`."""
    return [trade.trade_id, float(trade.price), float(trade.qty), trade.side, "rest" if repaired else "ws"]


def test_missing_trades_are_fetched_and_those_the_exchange_never_had_are_confirmed_absent(
    servers: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = servers("questdb", "kafka")
    refusals = [ExchangeError("EAPI:Rate limit exceeded")]
    absent: set[int] = set()
    whole_page = Kraken.trades_since

    def page(kraken: Kraken, symbol: str, since_ns: int) -> tuple[list[Trade], int]:
        if refusals:
            raise refusals.pop()
        rows, cursor_ns = whole_page(kraken, symbol, since_ns)
        return [row for row in rows if row.trade_id not in absent], cursor_ns

    monkeypatch.setattr(Kraken, "trades_since", page)
    monkeypatch.setattr(repair_queue, "RECHECK_S", 0.1)
    with exchange(tmp_path) as url:
        settings = base.model_copy(update={"exchange": base.exchange.model_copy(update={"rest_url": url})})
        trades, _ = whole_page(Kraken(settings.exchange), SYMBOL, now_ns() - 600 * NS_PER_S)
        trades = trades[:TRADES]
        absent.add(trades[40].trade_id)
        delivered = [trade for index, trade in enumerate(trades) if index not in LOST]
        frames = [trade_frame(trade) for trade in delivered]
        publish(settings, SYMBOL, [Envelope(now_ns(), 1, n, "trade", "ws", raw) for n, raw in enumerate(frames)])
        first, last = trades[20].trade_id, trades[29].trade_id
        inside = f"WHERE symbol = '{SYMBOL}' AND trade_id BETWEEN {trades[0].trade_id} AND {trades[-1].trade_id}"
        with QuestDB(settings.questdb) as db, Running(bronze.build(settings)), Running(repair.build(settings)):
            marks = f"SELECT first_id, last_id, missing, absent, state FROM gap_marks WHERE symbol = '{SYMBOL}' AND first_id >= {first}"
            wait_for(
                lambda: (
                    sorted(db.execute(marks))
                    == [[first, last, 0, 0, "repaired"], [trades[40].trade_id, trades[40].trade_id, 0, 1, "absent"]]
                ),
                "both gaps settled",
            )
            wait_for(
                lambda: db.execute(f"SELECT count() FROM bronze_trades {inside}") == [[TRADES - 1]], "every trade once"
            )
            rows = db.execute(
                f"SELECT trade_id, price, qty, side, origin FROM bronze_trades {inside} ORDER BY trade_id"
            )
    assert rows == [stored(trade, repaired=index in LOST) for index, trade in enumerate(trades) if index != 40]


def inject(url: str, kind: str, **arguments: object) -> None:
    httpx.get(f"{url}/faults/inject", params={"kind": kind, **arguments}).raise_for_status()


def lose_trades(settings: Settings, symbol: str, trades: list[Trade]) -> list[int]:
    """Publish the trades as the socket would, without two in the middle; returns their ids."""
    kept = [*trades[:4], *trades[6:]]
    publish(
        settings, symbol, [Envelope(now_ns(), 1, trade.trade_id, "trade", "ws", trade_frame(trade)) for trade in kept]
    )
    return [trade.trade_id for trade in trades[4:6]]


def marks(db: QuestDB, symbol: str, ids: list[int]) -> list[list[object]]:
    return db.execute(f"SELECT state FROM gap_marks WHERE symbol = '{symbol}' AND first_id = {ids[0]}")


@pytest.mark.causes("GapOpen", "RepairBehind")
def test_trades_stay_missing_while_rest_is_behind_and_are_repaired_after_a_restart_of_the_worker(
    servers: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_queue, "MIN_GAP_AGE_S", 0.1)
    monkeypatch.setattr(repair_queue, "RECHECK_S", 0.1)
    monkeypatch.setattr(repair_queue, "BEHIND_FIRST_S", 0.2)
    monkeypatch.setattr(repair_queue, "BEHIND_MAX_S", 0.5)
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.05)
    fetch, fetched = Kraken.trade_page, list[str]()

    def fetch_and_note(kraken: Kraken, symbol: str, *place: Any) -> Any:
        page = fetch(kraken, symbol, *place)
        fetched.append(symbol)
        return page

    monkeypatch.setattr(Kraken, "trade_page", fetch_and_note)
    base = servers("questdb", "kafka")
    with exchange(tmp_path) as url, QuestDB(base.questdb) as db:
        settings = base.model_copy(update={"exchange": base.exchange.model_copy(update={"rest_url": url})})
        kraken = Kraken(settings.exchange)
        trades, _ = kraken.trades_since(DOGE, now_ns() - 60 * NS_PER_S)
        inject(url, "rest_lag", seconds=600, lag_s=600)
        ids = lose_trades(settings, DOGE, trades[:10])
        behind = metrics.REPAIR_GAPS.labels(DOGE, "behind")._value
        with Running(bronze.build(settings)):
            with Running(repair.build(settings)):
                wait_for(lambda: behind.get() == 1, "the gap waits for REST")
                looks = Looks()
                assert looks.find("RepairBehind", DOGE)
                assert looks.find("GapOpen", DOGE)
                inject(url, "rest_empty", seconds=600)
                before = len(fetched)
                wait_for(lambda: len(fetched) > before + 3, "REST is asked again and again, and has nothing")
                assert marks(db, DOGE, ids) == [["open"]]
            assert marks(db, DOGE, ids) == [["open"]], "the worker has stopped"
        with exchange(tmp_path / "healthy") as healthy:
            chosen = settings.model_copy(
                update={"exchange": settings.exchange.model_copy(update={"rest_url": healthy})}
            )
            with Running(bronze.build(chosen)), Running(repair.build(chosen)):
                wait_for(lambda: marks(db, DOGE, ids) == [["repaired"]], "the gap is repaired")


@pytest.mark.causes("RepairRefused")
def test_a_symbol_that_rest_refuses_is_visible_and_the_gaps_of_others_are_repaired(
    servers: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_queue, "MIN_GAP_AGE_S", 0.1)
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.05)
    base = servers("questdb", "kafka")
    with exchange(tmp_path) as url, QuestDB(base.questdb) as db:
        settings = base.model_copy(update={"exchange": base.exchange.model_copy(update={"rest_url": url})})
        trades, _ = Kraken(settings.exchange).trades_since(ETH, now_ns() - 60 * NS_PER_S)
        gone = [msgspec.structs.replace(trade, symbol=GONE) for trade in trades]
        lost = lose_trades(settings, GONE, gone[:10])
        with Running(bronze.build(settings)), Running(repair.build(settings)):
            wait_for(lambda: metrics.REPAIR_GAPS.labels(GONE, "refused")._value.get() == 1, "the refusal shows")
            assert Looks().find("RepairRefused", GONE)
            ids = lose_trades(settings, ETH, trades[:10])
            wait_for(lambda: marks(db, ETH, ids) == [["repaired"]], "the other symbol is repaired")
            assert marks(db, GONE, lost) == [["open"]]


def test_the_worker_ends_with_the_error_of_its_repairs(
    servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = servers("kafka")

    def fails(_repairs: repair.ExchangeRepairs, _stop: threading.Event) -> None:
        raise RuntimeError("the repairs failed")

    monkeypatch.setattr(repair.ExchangeRepairs, "repair_until", fails)
    with pytest.raises(RuntimeError, match="the repairs failed"):
        repair.build(settings).run()
