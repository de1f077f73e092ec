"""What came of each kind of fault of the exchange: the trades, frames and clients that it concerned, joined with the tables.

The simulator knows which trades and frames each kind changed. A fault that changes no single trade is joined with the trades
that were published while it lasted. When two faults overlap, both count what happened then.
What does not belong here: whether anything is wrong (`verdict`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from btc_core.clock import NS_PER_S
from btc_core.market.messages import DeadLetter
from btc_core.names import DEADLETTERS_TOPIC, exchange_in
from btc_core.stores.kafka import read_topic
from btc_core.stores.questdb import QuestDB
from exchange_simulator.faults.catalogue import CATALOGUE, PerpetualFault
from tests.faults.verdict import published

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

AFTERMATH_NS = 5 * NS_PER_S
"""How long after the end of a fault its consequences are still counted."""
SUBSCRIPTION_FAULTS = frozenset(
    [
        "close",
        "flap",
        "block",
        "half_open",
        "stall",
        "silence",
        "deaf",
        "delist",
        "refuse",
        "bad_checksum",
        "wrong_checksums",
    ]
)
"""Kinds that can cause new connections, and renewed or refused subscriptions."""
REST_FAULTS = frozenset(["rest_limit", "rest_error", "rest_throttle", "rest_unknown_pair"])
"""Kinds that can cause refused REST requests."""
CLIENT_WORDS = {
    "connected": "new connections",
    "renewed": "renewed subscriptions",
    "refused": "refused subscriptions",
    "rest_refused": "refused REST requests",
}
ORIGINS = {"ws": "stored live", "rest": "repaired from REST", "redrive": "sent again"}


class Market(msgspec.Struct, frozen=True):
    """What one market published and what is stored of it."""

    published: dict[int, int]
    """Time in ns by trade id, from the first to the last trade that is stored: ingest stops before the exchange does."""
    stored: dict[int, str]
    """How each trade was stored, by id."""
    corrections: Counter[int]
    """Kept corrections by trade id."""
    absent: list[tuple[int, int]]
    """Ranges of ids in gaps that ended as absent."""

    def outcome(self, trade_id: int) -> str:
        """What became of one id."""
        if trade_id in self.stored:
            return self.stored[trade_id]
        if trade_id in self.published:
            return "LOST"
        is_absent = any(first <= trade_id <= last for first, last in self.absent)
        return "confirmed absent" if is_absent else "never published, no gap"


class Outcome(msgspec.Struct):
    """What came of the faults of one kind."""

    trades: int = 0
    """The distinct trades that they concerned."""
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    """How often each thing came of them: ends of trades, dead letters by reason, new connections, and so on."""


def outcomes(settings: Settings) -> dict[str, Outcome]:
    """What came of the faults of the exchange, by kind; "" holds the dead letters that belong to no extra frame."""
    url = settings.exchange.rest_url
    faults = httpx.get(f"{url}/faults", timeout=30).json()["injected"]
    effects = httpx.get(f"{url}/faults/effects", timeout=30).json()
    markets = {symbol: _market(settings, symbol) for symbol in settings.exchange.symbols}
    perpetuals = [symbol for symbol in markets if exchange_in(symbol)]
    at_home = [symbol for symbol in markets if not exchange_in(symbol)]
    found: dict[str, Outcome] = defaultdict(Outcome)
    concerned: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for kind, by_symbol in effects["trades"].items():
        concerned[kind] |= {(symbol, trade_id) for symbol, ids in by_symbol.items() for trade_id in ids}
    for fault in faults:
        kind = fault["kind"]
        happened = _during(fault)
        if kind in effects["frames"]:
            found[kind].counts["extra frames sent"] += fault["clients"]
        found[kind].counts.update(
            CLIENT_WORDS[event]
            for event, ts_ns, symbol in effects["clients"]
            if kind in (REST_FAULTS if event == "rest_refused" else SUBSCRIPTION_FAULTS) and happened(ts_ns, symbol)
        )
        if not any(effects["trades"].get(kind, {}).values()) and kind not in effects["frames"]:
            concerned[kind] |= {
                (symbol, trade_id)
                for symbol in (perpetuals if issubclass(CATALOGUE[kind], PerpetualFault) else at_home)
                for trade_id, ts_ns in markets[symbol].published.items()
                if happened(ts_ns, symbol)
            }
    for kind, trades in concerned.items():
        found[kind].trades = len(trades)
        for symbol, trade_id in trades:
            found[kind].counts[markets[symbol].outcome(trade_id)] += 1
            if kind == "correct_trades":
                found[kind].counts["corrections kept"] += markets[symbol].corrections[trade_id]
    _count_dead_letters(settings, effects["frames"], found)
    return dict(found)


def _during(fault: dict[str, Any]) -> Callable[[int, str], bool]:
    """Whether something at a time, of a symbol (empty for none), happened during a fault or shortly after it."""
    begin_ns = fault["at_ns"]
    end_ns = (fault["ended_ns"] or begin_ns) + AFTERMATH_NS
    return lambda ts_ns, symbol: begin_ns <= ts_ns <= end_ns and (not symbol or fault.get("symbol", symbol) == symbol)


def _market(settings: Settings, symbol: str) -> Market:
    where = f"WHERE symbol = '{symbol}'"
    with QuestDB(settings.questdb) as db:
        trades = db.execute(f"SELECT trade_id, origin, mark::STRING, cast(ts_event AS LONG) FROM bronze_trades {where}")
        corrections = db.execute(f"SELECT trade_id, count() FROM bronze_trade_corrections {where}")
        absent = db.execute(f"SELECT first_id, last_id FROM gap_marks {where} AND state = 'absent'")
    times_ns = [ts_ns for *_, ts_ns in trades]
    tape = published(settings.exchange.rest_url, symbol, min(times_ns, default=0))
    return Market(
        published={trade.trade_id: trade.ts_ns for trade in tape if trade.ts_ns <= max(times_ns, default=0)},
        stored={
            trade_id: ORIGINS.get(origin, origin) + (f", marked {mark}" if mark else "")
            for trade_id, origin, mark, _ in trades
        },
        corrections=Counter(dict(corrections)),
        absent=[(first, last) for first, last in absent],
    )


def _count_dead_letters(settings: Settings, frames: dict[str, list[str]], found: dict[str, Outcome]) -> None:
    """Count the dead letters that hold a frame which a kind of fault sent."""
    for value, _, _ in read_topic(settings.kafka, DEADLETTERS_TOPIC):
        letter = msgspec.json.decode(value, type=DeadLetter)
        kind = next((kind for kind, heads in frames.items() if any(head.encode() in letter.raw for head in heads)), "")
        found[kind].counts[f"dead letters {letter.reason}"] += 1
