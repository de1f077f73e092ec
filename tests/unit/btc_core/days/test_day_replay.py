"""The orders of a day's events when trade ids jump, restart or come late: the replay folds what the stream folded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from btc_core.days.day_replay import LOGGED, orders
from btc_core.features.state import slot_of
from btc_core.market.continuity import TradeIntake, Verdict
from btc_core.market.events import QUOTE, TRADE
from tests.odd_trades import FAR_ID, FIRST_ID, odd_streams, run_of, trade

if TYPE_CHECKING:
    from btc_core.market.events import TradeEvent

pytestmark = pytest.mark.unit


def logged(trades: list[TradeEvent], *, quotes: bool = True) -> np.ndarray:
    """Trades as rows of bronze in the order of the log, each after a quote of the same time."""
    rows = []
    for number, each in enumerate(trades):
        if quotes:
            rows.append((each.ts_event_ns, QUOTE, 2 * number, 0, 0.0, 0.0))
        rows.append((each.ts_event_ns, TRADE, 2 * number + 1, each.trade_id, each.price, each.qty))
    events = np.zeros(len(rows), LOGGED)
    names = ("ts_ns", "kind", "offset", "trade_id", slot_of(TRADE, "price"), slot_of(TRADE, "qty"))
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        events[name] = column
    events["recv_ns"] = events["ts_ns"] + 50_000_000
    return events


def ids(events: np.ndarray) -> list[int]:
    return [int(event["trade_id"]) for event in events if event["kind"] == TRADE]


def test_an_absurd_id_moves_no_trade_of_the_day() -> None:
    events = logged([*run_of(FIRST_ID, 100, 0), trade(FAR_ID, 100), *run_of(FIRST_ID + 100, 300, 101)])
    ordered = orders(events)
    assert ordered.moved_trades == 0
    assert (ordered.truth == events).all()


def test_ids_that_restart_move_no_trade_of_the_day() -> None:
    events = logged([*run_of(FIRST_ID, 100, 0), *run_of(1, 100, 100)])
    ordered = orders(events)
    assert ordered.moved_trades == 0
    assert (ordered.truth == events).all()


def test_a_late_trade_goes_before_the_next_id_of_its_own_epoch() -> None:
    first = [trade(FIRST_ID, 0), trade(FIRST_ID + 1, 1), trade(FIRST_ID + 3, 3), trade(FIRST_ID + 4, 4)]
    second = [*run_of(FIRST_ID - 100, 200, 5)]
    late = trade(FIRST_ID + 2, 2)
    ordered = orders(logged([*first, *second[:150], late, *second[150:]], quotes=False))
    assert ordered.moved_trades == 1
    in_order = [*first[:2], late, *first[2:], *second]
    assert ids(ordered.truth) == [each.trade_id for each in in_order]
    assert ordered.largest_move_s == 0.0


def test_a_trade_whose_id_and_time_disagree_is_reported_with_the_distance() -> None:
    start = [trade(1, 0), trade(2, 10), trade(4, 20), *run_of(5, 3_000, 30)]
    ordered = orders(logged([*start, trade(3, 2_020)]))
    assert ordered.moved_trades == 1
    assert ordered.largest_move_s == pytest.approx(2_000.0)


def test_a_correction_is_in_neither_order() -> None:
    events = logged([trade(1, 0), trade(2, 1), trade(2, 1, price=50.0), trade(3, 2)], quotes=False)
    events["is_correction"][2] = True
    ordered = orders(events)
    assert ids(ordered.streamed) == ids(ordered.truth) == [1, 2, 3]
    assert ordered.moved_trades == 0


@given(stream=odd_streams())
@settings(max_examples=60, deadline=None)
def test_the_replay_in_the_order_of_the_log_folds_what_the_stream_folded(stream: list[TradeEvent]) -> None:
    intake = TradeIntake()
    stored, corrections, folded = [], [], []
    for each in stream:
        decision = intake.take(each, each.ts_event_ns + 50_000_000)
        if decision.verdict is not Verdict.DUPLICATE:
            stored.append(each)
            corrections.append(decision.verdict is Verdict.CORRECTS)
        if decision.folded:
            folded.append((each.ts_event_ns, each.trade_id))
    events = logged(stored, quotes=False)
    events["is_correction"] = corrections
    ordered = orders(events)
    assert [(int(event["ts_ns"]), int(event["trade_id"])) for event in ordered.streamed] == folded
    assert len(ordered.truth) == len(stored) - sum(corrections), "every trade is in the true order once"
