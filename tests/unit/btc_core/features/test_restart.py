"""After a restart with a warm-up, the fold gives the rows of a fold that never stopped, to the last bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from btc_core.features.catalogue import FEATURE_NAMES, FOLD_REVISION, ROW
from btc_core.features.fold import EMIT_NONE, EMIT_TICKS, fold
from btc_core.features.state import EVENT, WARM_UP_S, new_state
from btc_core.market.events import (
    BAR,
    BOOK_ASKS,
    BOOK_BIDS,
    BOOK_LOST,
    LEAD_QUOTE,
    LEAD_TRADE,
    MAX_AHEAD_S,
    QUOTE,
    TRADE,
)

pytestmark = pytest.mark.unit

S = 1_000_000_000
BEGIN_S = 1_700_438_400 + 80_000  # Monday, 2023-11-20 22:13:20 UTC
KINDS = (
    "plain", "rare_trades", "no_trades", "silent_quotes", "no_quotes", "rare_quotes", "silences", "long_silences", "future",
    "bars", "books", "leader", "all",
)  # fmt: skip


def share_of_trades(kind: str, now_s: int) -> float:
    """Return the share of the events that are trades; the others are quotes."""
    if kind in {"no_quotes", "no_trades"} and 3 * 3_600 < now_s - BEGIN_S < 50 * 3_600:
        return float(kind == "no_quotes")  # quotes or trades stop for longer than the memory of the fold
    if kind == "silent_quotes" and now_s // 2_000 % 3 == 0:
        return 1.0
    return {"rare_trades": 2e-4, "rare_quotes": 0.97}.get(kind, 0.3)


def market(kind: str, seed: int, hours: float = 56.0) -> tuple[np.ndarray, np.ndarray]:
    """Return events, about one every 8 s, and their receive times. Each kind of market tests another part of the state."""
    rng = np.random.default_rng(seed)
    now, end, price, events, received = BEGIN_S * S, int((BEGIN_S + hours * 3_600) * S), 60_000.0, [], []
    jumps = {"silences": 0.003, "long_silences": 0.0006, "future": 0.002, "bars": 0.002, "all": 0.001}.get(kind, 0.0)
    while now < end:
        now += int(rng.exponential(8.0) * S)
        stamp = now
        chance = rng.random()
        if chance < 0.1:
            stamp = now = -(-now // S) * S
        elif chance < 0.15:
            stamp = now - int(rng.exponential(20.0) * S)
        if rng.random() < jumps:
            if kind in {"silences", "long_silences"} or (kind == "all" and rng.random() < 0.5):
                now += int(rng.choice([60, 89, 90, 91, 600, 5_000] if kind != "long_silences" else [95_000, 7_000]) * S)
                stamp = now
            elif kind == "future" or rng.random() < 0.5:
                stamp = now + int(rng.integers(1, MAX_AHEAD_S) * S)
            else:  # bars after a new connection: they overlap the events so far and end a little later
                begin = now // (60 * S) * 60 * S
                begins = [begin - back * 60 * S for back in range(int(rng.integers(1, 2_000)), -2, -1)]
                events += [(at, BAR, price, price + 9.0, price - 9.0, price + 1.0, 2.5) for at in begins]
                now = begin + 121 * S
                stamp = now - int(rng.integers(0, 200) * S)
        if rng.random() < share_of_trades(kind, now // S):
            side = 1.0 if rng.random() < 0.5 else -1.0
            events.append((stamp, TRADE, price, round(float(rng.exponential(0.2)), 8), side, 0.0, 0.0))
        else:
            price = round(price * float(np.exp(rng.normal(0, 1e-4))), 1)
            qty = np.round(rng.exponential(1.0, 2), 8)
            events.append((stamp, QUOTE, price, qty[0], price + 0.1, qty[1], 0.0))
        events += side_events(kind, rng, stamp, price)
        received += [now] * (len(events) - len(received))
    return np.array(events, EVENT), np.array(received)


def side_events(kind: str, rng: np.random.Generator, stamp: int, price: float) -> list[tuple[float, ...]]:
    """Return events that give no row: those of the order book and of the leading market."""
    events: list[tuple[float, ...]] = []
    if kind in {"books", "all"} and stamp // (3_000 * S) % 5:  # no frames for 50 minutes, every few hours
        events += book_events(rng, stamp - int(rng.integers(-S, 3 * S)))
    if kind in {"leader", "all"} and stamp // (2_500 * S) % 9 > 1:  # no events for 83 minutes, every few hours
        at = stamp - int(rng.integers(-2 * S, 9 * S))
        events.append((at, LEAD_QUOTE, price * 1.001 + float(rng.normal()), 0.0, 0.0, 0.0, 0.0))
        if rng.random() < 0.3:
            events.append((at, LEAD_TRADE, round(float(rng.exponential(0.2)), 8), 0.0, 0.0, 0.0, 0.0))
    return events


def book_events(rng: np.random.Generator, ts_ns: int) -> list[tuple[float, ...]]:
    """Return the events of one frame of an order book, or that the book is lost."""
    if rng.random() < 0.02:
        return [(ts_ns, BOOK_LOST, 0.0, 0.0, 0.0, 0.0, 0.0)]
    sides = np.round(rng.exponential(5.0, (2, 5)) + 1e-8, 8).tolist()
    return [(ts_ns, kind, *side) for kind, side in zip((BOOK_BIDS, BOOK_ASKS), sides, strict=True)]


def gives_row(events: np.ndarray) -> np.ndarray:
    return (events["kind"] == QUOTE) | (events["kind"] == TRADE)


def warmed_up(events: np.ndarray, received: np.ndarray, stop: int, warm_up_s: int = WARM_UP_S) -> np.ndarray:
    """Return the state of a worker that starts at `stop`, after it has folded the warm-up window by receive time."""
    since = int(np.searchsorted(received, received[stop] - warm_up_s * S))
    state = new_state()
    fold(state, events[since:stop], np.empty(0, ROW), EMIT_NONE)
    return state


def rows_of(state: np.ndarray, events: np.ndarray) -> np.ndarray:
    rows = np.empty(len(events), ROW)
    return rows[: fold(state, events, rows, EMIT_TICKS)]


def different(left: np.ndarray, right: np.ndarray) -> dict[str, int]:
    """Return the names of the features that are not equal to the last bit, with the number of such rows."""
    assert len(left) == len(right)
    counts = {name: int((left[name].view("u8") != right[name].view("u8")).sum()) for name in FEATURE_NAMES}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_after_a_restart_equal_the_rows_of_a_fold_that_never_stopped(kind: str, seed: int) -> None:
    events, received = market(kind, seed)
    rows = rows_of(new_state(), events)
    row_of = np.concatenate([[0], np.cumsum(gives_row(events))])
    late_enough = np.flatnonzero(received > received[0] + WARM_UP_S * S)
    assert len(late_enough) > 100
    for stop in np.random.default_rng(seed).choice(late_enough, 12, replace=False).tolist():
        again = rows_of(warmed_up(events, received, stop), events[stop : stop + 3_000])
        assert different(rows[row_of[stop] :][: len(again)], again) == {}, stop


@pytest.mark.parametrize("kind", ["plain", "bars", "long_silences"])
def test_a_restart_around_midnight_keeps_the_volume_of_the_day(kind: str) -> None:
    events, received = market(kind, 11)
    midnight = ((BEGIN_S // 86_400) + 2) * 86_400 * S
    rows = rows_of(new_state(), events)
    row_of = np.concatenate([[0], np.cumsum(gives_row(events))])
    for step in (-9, -1, 0, 1, 9, 3_600, 7_000):
        stop = int(np.searchsorted(received, midnight + step * S))
        again = rows_of(warmed_up(events, received, stop), events[stop : stop + 500])
        assert different(rows[row_of[stop] :][: len(again)], again) == {}


def test_half_of_the_warm_up_is_not_enough_for_the_windows_of_a_day() -> None:
    """This shows that the tests above can fail."""
    events, received = market("plain", 5)
    stop = len(events) - 1_000
    state = warmed_up(events, received, stop, WARM_UP_S // 2)
    changed = different(rows_of(new_state(), events)[stop:], rows_of(state, events[stop:]))
    assert {"log_rv_1440m", "log_ewma_120m"} <= set(changed)
    assert not {"log_rv_240m", "log_volume_240m", "log_trades_240m"} & set(changed)


@pytest.mark.parametrize("size", [1, 7, 1_000])
@pytest.mark.parametrize("kind", ["all", "bars"])
def test_rows_do_not_depend_on_how_events_are_batched(kind: str, size: int) -> None:
    events, _ = market(kind, 3, hours=8.0)
    state = new_state()
    parts = [rows_of(state, events[at : at + size]) for at in range(0, len(events), size)]
    assert different(rows_of(new_state(), events), np.concatenate(parts)) == {}


def test_an_event_without_a_row_leaves_the_same_state_as_one_with_a_row() -> None:
    events, _ = market("all", 4, hours=8.0)
    rng = np.random.default_rng(0)
    state, at, parts = new_state(), 0, []
    rows = rows_of(new_state(), events)
    row_of = np.concatenate([[0], np.cumsum(gives_row(events))])
    while at < len(events):
        stop = at + int(rng.integers(1, 40))
        if rng.random() < 0.5:
            fold(state, events[at:stop], np.empty(0, ROW), EMIT_NONE)
        else:
            parts.append((at, rows_of(state, events[at:stop])))
        at = stop
    for begin, part in parts:
        assert different(rows[row_of[begin] :][: len(part)], part) == {}


@pytest.mark.parametrize("seed", range(5))
def test_later_events_do_not_change_earlier_rows(seed: int) -> None:
    events, _ = market("all", seed, hours=5.0)
    middle = len(events) // 2
    changed = events.copy()
    changed["slot_0"][middle:] *= 1.5
    changed["slot_1"][middle:] += 3.0
    changed["ts_ns"][middle:] += np.random.default_rng(seed).integers(0, 300 * S)
    n = int(gives_row(events[:middle]).sum())
    left, right = rows_of(new_state(), events), rows_of(new_state(), changed)
    assert different(left[:n], right[:n]) == {}
    assert different(left[n:], right[n:]) != {}


def seeded_events() -> np.ndarray:
    """Return bars, quotes and trades from a generator that gives the same numbers on every machine:
    x ← 6364136223846793005 x + 1442695040888963407 (mod 2⁶⁴).
    """
    x, events, price, now = 42, [], 60_000.0, (1_700_438_400 - 3_600) * S

    def draw() -> float:
        nonlocal x
        x = (x * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        return (x >> 11) / 2**53

    for i in range(1_500):
        close = round(price + 60.0 * (draw() - 0.5), 1)
        high, low = max(price, close) + round(9 * draw(), 1), min(price, close) - round(9 * draw(), 1)
        events.append((now - (1_500 - i) * 60 * S, BAR, price, high, low, close, round(5 * draw(), 8)))
        price = close
    for _ in range(20_000):
        now += int(draw() * 1.6 * S)
        if draw() < 0.7:
            price = round(price + 2.0 * (draw() - 0.5), 1)
            events.append((now, QUOTE, price, round(3 * draw(), 8), price + 0.1, round(3 * draw(), 8), 0.0))
        else:
            events.append((now, TRADE, price, round(draw(), 8) + 1e-8, 1.0 if draw() < 0.5 else -1.0, 0.0, 0.0))
        if draw() < 0.5:
            sides = [[round(9 * draw(), 8) + 1e-8 for _ in range(5)] for _ in range(2)]
            events += [(now, BOOK_BIDS, *sides[0]), (now, BOOK_ASKS, *sides[1])]
            events += [(now, LEAD_QUOTE, round(price * (1.0 + 1e-5 * draw()), 1), 0.0, 0.0, 0.0, 0.0)]
            events += [(now, LEAD_TRADE, round(draw(), 8), 0.0, 0.0, 0.0, 0.0)]
    return np.array(events, EVENT)


GOLDEN = (6, "e946e7c757f9bc8e")
"""The `FOLD_REVISION` and the digest of the rows of `seeded_events`."""


def test_rows_with_other_numbers_need_a_new_fold_revision() -> None:
    """The digest uses nine digits, because the last bits of a logarithm depend on the C library."""
    rows = rows_of(new_state(), seeded_events())
    assert [name for name in FEATURE_NAMES if not np.isfinite(rows[-1][name])] == []
    text = "\n".join(" ".join(f"{value:.8e}" for value in row.tolist()) for row in rows[::50])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (FOLD_REVISION, digest) == GOLDEN, (
        f"the rows of the same events have changed. If you only added a feature, set GOLDEN to ({FOLD_REVISION}, "
        f"{digest!r}). If an existing feature gives other numbers, raise FOLD_REVISION in "
        "btc_core/features/catalogue.py first"
    )
