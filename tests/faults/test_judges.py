"""The judges of a run find what is wrong: rows with another content, and trades that were lost."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from tests.faults.outcomes import Market
from tests.faults.verdict import PublishedTrade, overwritten

pytestmark = pytest.mark.unit

TAPE = [PublishedTrade(number, 1_000 * number, 60_000.1, 0.5, "buy") for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("change", "count"), [({}, 0), ({"price": 60_001.1}, 1), ({"qty": 1.5}, 1), ({"side": "sell"}, 1)]
)
def test_a_stored_trade_with_another_content_is_found(change: dict[str, float | str], count: int) -> None:
    rows = [trade._asdict() | {"ts_event": trade.ts_ns} for trade in TAPE]
    rows[1] |= change
    table = pa.Table.from_pylist(rows)
    stored = table.set_column(
        table.schema.get_field_index("ts_event"), "ts_event", table["ts_event"].cast(pa.timestamp("ns", "UTC"))
    )
    assert overwritten(stored, TAPE) == count


def test_a_trade_that_was_published_and_is_not_stored_is_lost_even_if_a_gap_calls_it_absent() -> None:
    market = Market(
        published={1: 1_000, 2: 2_000},
        stored={1: "stored live"},
        corrections=Counter(),
        absent=[(2, 3)],
    )
    assert [market.outcome(trade_id) for trade_id in (1, 2, 3, 4)] == [
        "stored live", "LOST", "confirmed absent", "never published, no gap"
    ]  # fmt: skip
