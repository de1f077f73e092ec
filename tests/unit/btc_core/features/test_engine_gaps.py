"""The trade ids of the feature engine: its state stays bounded, and it knows what bronze knows about a gap."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from btc_core.clock import NS_PER_S
from btc_core.features.engine import FeatureEngine, SavedMarket
from btc_core.market.continuity import KEPT_ABSENT_GAPS
from btc_core.market.messages import AbsentTrades, Envelope
from tests.odd_trades import BEGIN_NS, trade
from tests.unit.streaming.test_odd_ids import frame

if TYPE_CHECKING:
    from btc_core.market.continuity import IntakeState

pytestmark = pytest.mark.unit

SYMBOL = "BTC/USD"


def push(engine: FeatureEngine, second: int, channel: str, raw: bytes, origin: str = "ws") -> None:
    envelope = Envelope(BEGIN_NS + second * NS_PER_S + 50_000_000, 1, second, channel, origin, raw)
    engine.push(envelope, 0, second)
    engine.flush()


def state_of(engine: FeatureEngine) -> IntakeState:
    (saved,) = msgspec.msgpack.decode(engine.save(0), type=list[SavedMarket])
    return saved.trades


def test_the_engine_forgets_absent_gaps_but_the_newest_ones_which_late_trades_may_correct() -> None:
    engine = FeatureEngine()
    sizes = []
    for second in range(3 * KEPT_ABSENT_GAPS):
        push(engine, 2 * second, "trade", frame(trade(1 + 3 * second, 2 * second)))
        absent = AbsentTrades(SYMBOL, 3 * second - 1, 3 * second, BEGIN_NS + 2 * second * NS_PER_S)
        push(engine, 2 * second + 1, "absent", msgspec.json.encode(absent))
        sizes.append(len(state_of(engine).gaps))
    assert max(sizes) == KEPT_ABSENT_GAPS
    gaps = state_of(engine).gaps
    assert {gap.state for gap in gaps} == {"absent"}
    newest = gaps[-1]
    late = frame(trade(newest.first_id, newest.before_ns / NS_PER_S - BEGIN_NS / NS_PER_S - 0.5))
    push(engine, 10_000, "trade", late, "rest")
    assert state_of(engine).gaps[-1].absent == [(newest.last_id, newest.last_id)]


@pytest.mark.parametrize(("origin", "left"), [("rest", []), ("ws", [(3, 3)])])
def test_a_trade_that_rest_repeats_in_a_refused_form_closes_its_gap_as_it_does_in_bronze(
    origin: str, left: list[tuple[int, int]]
) -> None:
    engine = FeatureEngine()
    for second, trade_id in enumerate((1, 2, 4, 5)):
        push(engine, second, "trade", frame(trade(trade_id, second)))
    push(engine, 10, "trade", frame(trade(3, 1.5, qty=0.0)), origin)
    (gap,) = state_of(engine).gaps
    assert gap.missing == left


def test_each_row_says_how_many_gaps_were_open_when_it_was_made_also_after_a_restart() -> None:
    engine, counts = FeatureEngine(), []
    for second, trade_id in enumerate((1, 2, 4, 5, 7, 3, 8, 6, 9)):
        envelope = Envelope(BEGIN_NS + second * NS_PER_S, 1, second, "trade", "ws", frame(trade(trade_id, second)))
        engine.push(envelope, 0, second)
        counts += [event.open_gaps for rows in engine.flush() for event in rows.ids]
        restarted = FeatureEngine()
        restarted.load(engine.save(0))
        engine = restarted
    assert counts == [0, 0, 1, 1, 2, 1, 0], "3 and 6 come late and have no rows"


def test_rows_after_a_quote_that_replaced_others_say_so_until_the_next_quote() -> None:
    engine, found = FeatureEngine(), []
    for second, conflated in enumerate((False, True, None, False)):
        if conflated is None:
            channel, raw = "trade", frame(trade(1, second))
        else:
            at = datetime.fromtimestamp((BEGIN_NS + second * NS_PER_S) / NS_PER_S, UTC).isoformat()
            quote = {"symbol": SYMBOL, "bid": 1.0, "bid_qty": 1.0, "ask": 2.0, "ask_qty": 1.0, "timestamp": at}
            channel, raw = "ticker", msgspec.json.encode({"channel": "ticker", "type": "update", "data": [quote]})
        received_ns = BEGIN_NS + second * NS_PER_S
        engine.push(Envelope(received_ns, 1, second, channel, "ws", raw, conflated=bool(conflated)), 0, second)
        found += [event.conflated for rows in engine.flush() for event in rows.ids]
    assert found == [False, True, True, False]
