"""Sums over windows are right for any size of coin, and do not depend on what was counted before the window."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btc_core.features.catalogue import ROW
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.state import EVENT, HIGH, WORD_BITS, new_state
from btc_core.market.events import MAX_QTY, QUOTE, TRADE

pytestmark = pytest.mark.unit

S = 1_000_000_000
BEGIN_S = 1_760_000_000
RINGS = {
    "trades": "trade_counts", "quotes": "quote_counts", "unchanged_mids": "unchanged_mid_counts", "volume": "volumes",
    "signed_volume": "signed_volumes", "notional": "notionals", "ofi": "ofis", "depth": "depths",
}  # fmt: skip
"""The ring of each count and sum."""


def buyers_market(qty: float, price: float, seconds: int) -> np.ndarray:
    """Every second a quote and a taker's buy, both of the quantity `qty`."""
    events = []
    for second in range(seconds):
        at_ns = (BEGIN_S + second) * S
        events.append((at_ns, QUOTE, price, qty, price * 1.001, qty, 0.0))
        events.append((at_ns, TRADE, price, qty, 1.0, 0.0, 0.0))
    return np.array(events, EVENT)


def rows_of(events: np.ndarray, state: np.ndarray) -> np.ndarray:
    rows = np.empty(len(events), ROW)
    assert fold(state, events, rows, EMIT_TICKS) == len(events)
    return rows


def counted_before(counts: int, words: int) -> np.ndarray:
    """Return a state that counted this much before its first event; `words` are the high words of its sums."""
    state = new_state()
    for total, ring in RINGS.items():
        for name in (total, ring):
            if state[name].shape[-1:] == (2,):
                state[name][..., HIGH] = words
            else:
                state[name] = counts
    state["volume_at_midnight"][..., HIGH] = words
    return state


@pytest.mark.parametrize("qty", [0.5, 3e12])
@pytest.mark.parametrize("before", [-1, 2**62, 2**63 - 1, 2**63 - 40])
def test_rows_do_not_depend_on_where_the_counters_began_although_they_wrap_around(before: int, qty: float) -> None:
    """A difference of two counters is right when the counter wrapped around between them."""
    events = buyers_market(qty, 100_000.0, 1_000)
    expected = rows_of(events, new_state())
    assert rows_of(events, counted_before(before, before)).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("qty", "price"),
    [
        (0.5, 100_000.0), (5e7, 1.2e-5), (1e9, 1e-5), (11e9, 1e-5), (5e13, 2e-9), (MAX_QTY, 1e-3),
        (70.0, 15e6), (25.0, 1.6e9),
    ],
    ids=["BTC/USD", "SHIB/USD", "PEPE/USD", "PEPE/USD large", "a coin of 2e-9 USD", "limit", "BTC/JPY", "BTC/IDR"],
)  # fmt: skip
def test_the_windows_of_any_coin_and_currency_hold_what_was_traded(qty: float, price: float) -> None:
    last = rows_of(buyers_market(qty, price, 7_300), new_state())[-1]
    for minutes in (1, 5, 15, 60):
        assert last[f"log_volume_{minutes}m"] == pytest.approx(math.log1p(60 * minutes * qty), rel=1e-12)
    for window_s in (30, 60, 300):
        assert last[f"trade_sign_imbalance_{window_s}s"] == 1.0
        assert last[f"ofi_{window_s}s"] == 0.0
    assert last["volume_change"] == 0.0
    assert last["vwap_diff"] == pytest.approx(0.0, abs=max(1e-9 * price, 1e-9 / qty))


def test_a_sum_of_several_words_is_exact() -> None:
    """The sums of a window of many words equal those that Python computes with its unbounded integers."""
    rng = np.random.default_rng(4)
    events = buyers_market(1.0, 1e-9, 3_000)
    trades = events["kind"] == TRADE
    qty = np.round(10.0 ** rng.uniform(0, 16, int(trades.sum())), 0)
    side = np.where(rng.random(len(qty)) < 0.5, 1.0, -1.0)
    events["slot_1"][trades], events["slot_2"][trades] = qty, side
    rows = rows_of(events, new_state())[trades]
    for end in (400, 1_234, 2_999):
        window = slice(end - 299, end + 1)
        units = [round(float(each) * 1e8) for each in qty[window]]
        signed = sum(unit if up > 0 else -unit for unit, up in zip(units, side[window], strict=True))
        assert rows["trade_sign_imbalance_300s"][end] == float(signed) / float(sum(units))
        assert rows["log_volume_5m"][end] == math.log1p(float(sum(units)) / 1e8)
        assert sum(units) > 2**64 > 2**WORD_BITS
