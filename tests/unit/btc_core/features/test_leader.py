"""The features of the leading market: a second implementation, the order of the log, restarts, and the replay of a day."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_S
from btc_core.days.day_replay import LOGGED, for_followers, in_log_order, orders, replay
from btc_core.errors import ConfigError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.decoding import events_of
from btc_core.features.catalogue import FEATURE_NAMES, LEADER_FEATURES, ROW
from btc_core.features.engine import FeatureEngine, run
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.state import EVENT, new_state, pack
from btc_core.market.events import LEAD_QUOTE, LEAD_TRADE, QUOTE, BarEvent, TradeEvent
from btc_core.market.messages import Envelope
from btc_core.settings import Settings, load_settings
from tests.book_frames import BookTape

pytestmark = pytest.mark.unit

S = NS_PER_S
NAN = math.nan
BEGIN_S = 1_700_438_400
BTC, ETH = "BTC/USD", "ETH/USD"
Message = tuple[Envelope, int, int]


# --- the second implementation --------------------------------------------------------------------------------------


def two_markets(seed: int, count: int, pace_s: float) -> np.ndarray:
    """Quotes of a market, with the quotes and trades of a leader between them."""
    rng = np.random.default_rng(seed)
    now, price, events = BEGIN_S * S + int(rng.integers(0, 60 * S)), 3_000.0, []
    for _ in range(count):
        now += int(rng.exponential(pace_s) * S)
        if rng.random() < 0.002:
            now += int(rng.choice([85, 95, 400]) * S)
        chance = rng.random()
        price *= math.exp(rng.normal(0, 1e-4))
        if chance < 0.4:
            events.append((now, QUOTE, price, 1.0, price + 0.1, 1.0, 0.0))
        elif chance < 0.8:
            events.append((now, LEAD_QUOTE, price * 20.0 * math.exp(rng.normal(0, 1e-4)), 0.0, 0.0, 0.0, 0.0))
        else:
            events.append((now, LEAD_TRADE, round(float(rng.exponential(0.3)), 8), 0.0, 0.0, 0.0, 0.0))
    return np.array(events, EVENT)


def expected_rows(events: np.ndarray) -> list[dict[str, float]]:
    """The features at each quote, computed from all events before it."""
    rows: list[dict[str, float]] = []
    since, last_lead, mids, trades = None, None, [], []
    basis: dict[int, float] = {}
    own, own_ns, minute = NAN, 0, 0
    for ts_ns, kind, value, _, ask, *_ in events.tolist():
        second = -(-ts_ns // S)
        if kind != QUOTE:
            if last_lead is None or ts_ns - last_lead > 90 * S:
                since, mids = second, []
            last_lead = ts_ns
            if kind == LEAD_QUOTE:
                mids.append((second, math.log(value)))
            else:
                trades.append((second, value))
            continue
        current = last_lead is not None and ts_ns - last_lead <= 90 * S
        lead = mids[-1][1] if mids and current else NAN
        if last_lead is not None and ts_ns // (60 * S) > minute:
            minute = ts_ns // (60 * S)
            if not math.isnan(lead - own) and ts_ns - own_ns <= 90 * S:
                basis[minute] = lead - own
        own, own_ns = math.log((value + ask) / 2), ts_ns
        rows.append(lead_row(ts_ns // S, since, mids, trades) if current else dict.fromkeys(LEADER_FEATURES, NAN))
        known = [(minute - at, sample) for at, sample in basis.items() if minute - at < 480]
        weights = np.array([0.5 ** (back / 60) for back, _ in known])
        enough = weights.sum() * (1 - 0.5 ** (1 / 60)) >= 0.5
        mean = np.average([sample for _, sample in known], weights=weights) if enough else NAN
        rows[-1]["lead_basis_bps"] = (lead - own - mean) * 1e4
    return rows


def lead_row(now: int, since: int, mids: list[tuple[int, float]], trades: list[tuple[int, float]]) -> dict[str, float]:
    def mid_at(second: int) -> float:
        known = [mid for at, mid in mids if at <= second]
        return known[-1] if known else NAN

    def volume(window: int) -> float:
        return sum(qty for at, qty in trades if at > now - window)

    row: dict[str, float] = {}
    for name, w in (("5s", 5), ("30s", 30), ("1m", 60), ("5m", 300)):
        covered = now - w >= since
        last = mids[-1][1] if mids else NAN
        path = np.array([mid_at(second) for second in range(now - w, now + 1)] + [last])
        rv = min(np.nansum(np.diff(path) ** 2), 1.0)
        row[f"lead_return_{name}_bps"] = (last - path[0]) * 1e4 if covered else NAN
        row[f"lead_log_rv_{name}"] = math.log(max(rv, 1e-10)) if covered and mids else NAN
        hour = volume(3_600)
        share = volume(w) * (3_600 / w) / hour if hour > 0 else NAN
        row[f"lead_volume_{name}"] = math.log(share + 0.01) if now - 3_600 >= since else NAN
    return row


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2_500), st.sampled_from((0.3, 3.0, 8.0)))
def test_every_feature_of_the_leader_equals_its_definition(seed: int, count: int, pace_s: float) -> None:
    events = two_markets(seed, count, pace_s)
    rows = np.empty(len(events), ROW)
    rows = rows[: fold(new_state(), events, rows, EMIT_TICKS)]
    expected = expected_rows(events)
    assert len(rows) == len(expected)
    for index in np.random.default_rng(seed).permutation(len(rows))[:40].tolist():
        for name in LEADER_FEATURES:
            assert rows[index][name] == pytest.approx(expected[index][name], rel=1e-6, abs=1e-6, nan_ok=True), (
                name,
                index,
            )


# --- two markets in the log -----------------------------------------------------------------------------------------


def merged(seed: int, count: int = 1_400, pace_s: float = 4.0) -> list[Message]:
    """The messages of BTC/USD and ETH/USD in one partition, in the order of receipt."""
    tapes = [BookTape(seed, BTC).run(count, pace_s), BookTape(seed + 1, ETH).run(count, pace_s)]
    envelopes = sorted((e for tape in tapes for e in tape.envelopes), key=lambda envelope: envelope.ts_recv_ns)
    end_ns = min(tape.now_ns for tape in tapes)
    return [(envelope, 0, offset) for offset, envelope in enumerate(envelopes) if envelope.ts_recv_ns < end_ns]


def rows_of(
    messages: list[Message], engine: FeatureEngine | None = None, symbol: str = ETH, size: int = 100
) -> np.ndarray:
    batches = run(engine or FeatureEngine(BTC), messages, size)
    return np.concatenate([np.empty(0, ROW), *(batch.values for batch in batches if batch.symbol == symbol)])


def equal(left: np.ndarray, right: np.ndarray) -> bool:
    return left.tobytes() == right.tobytes()


def test_only_the_other_markets_have_features_of_the_leader() -> None:
    messages = merged(1)
    followers, leader, alone = rows_of(messages), rows_of(messages, symbol=BTC), rows_of(messages, FeatureEngine())
    for name in LEADER_FEATURES:
        assert np.isfinite(followers[name][-20:]).all(), name
        assert np.isnan(leader[name]).all(), name
        assert np.isnan(alone[name]).all(), name
    for name in set(FEATURE_NAMES) - set(LEADER_FEATURES):
        assert followers[name].tobytes() == alone[name].tobytes(), name


def test_the_leader_in_another_partition_is_not_read_because_nothing_orders_the_two() -> None:
    messages = [(e, int(BTC.encode() in e.raw), offset) for e, _, offset in merged(2)]
    assert np.isnan(rows_of(messages)["lead_return_5s_bps"]).all()


@pytest.mark.parametrize("seed", range(3))
def test_later_messages_of_the_leader_do_not_change_earlier_rows(seed: int) -> None:
    messages = merged(seed)
    middle = len(messages) // 2
    kept = [m for m in messages[middle:] if BTC.encode() not in m[0].raw or m[2] % 3]
    changed = [*messages[:middle], *kept]
    left, right = rows_of(messages), rows_of(changed)
    same = len(rows_of(messages[:middle]))
    assert equal(left[:same], right[:same])
    assert not equal(left[same:], right[same:])


@pytest.mark.parametrize("size", [1, 9, 10_000])
def test_rows_do_not_depend_on_how_messages_are_batched(size: int) -> None:
    assert equal(rows_of(merged(3), size=size), rows_of(merged(3)))


def test_a_restart_from_a_checkpoint_gives_the_same_rows_also_for_a_market_that_appears_later() -> None:
    messages = merged(4)
    first_eth = 200
    messages = [m for m in messages if m[2] >= first_eth or BTC.encode() in m[0].raw]
    whole = rows_of(messages)
    assert np.isfinite(whole["lead_return_5m_bps"][0]), "the leader was known before the first row"
    for stop in range(0, len(messages), 251):
        first, second = FeatureEngine(BTC), FeatureEngine(BTC)
        before = rows_of(messages[:stop], first)
        second.load(first.save(0))
        assert equal(np.concatenate([before, rows_of(messages[stop:], second)]), whole), stop


def test_the_replay_of_stored_events_equals_the_stream() -> None:
    messages = merged(5)
    stored: dict[str, list[tuple[float, ...]]] = {BTC: [], ETH: []}
    for envelope, partition, offset in messages:
        for event in events_of(envelope):
            assert not isinstance(event, BarEvent | Exception)
            trade_id = event.trade_id if isinstance(event, TradeEvent) else 0
            place = (envelope.ts_recv_ns, partition, offset, event.item, trade_id, False)
            stored[event.symbol].append((*pack(event), *place))
    leads = for_followers(orders(np.array(stored[BTC], LOGGED)).streamed)
    ordered = orders(in_log_order(np.concatenate([np.array(stored[ETH], LOGGED), leads])))
    replayed = np.concatenate([rows for _, rows in replay(ordered.truth, 0, 2**62)])
    streamed = rows_of([m for m in messages if m[0].channel != "book"])
    assert equal(replayed, streamed)
    assert np.isfinite(replayed["lead_basis_bps"][-1])


def test_a_market_that_moves_to_another_partition_starts_again_there(caplog: pytest.LogCaptureFixture) -> None:
    messages = merged(6)
    middle = len(messages) // 2
    moved = [(e, int(offset >= middle), offset) for e, _, offset in messages]
    with caplog.at_level(logging.WARNING):
        rows = rows_of(moved)
    before, after = len(rows_of(messages[:middle])), rows_of(messages[middle:])
    assert equal(rows[:before], rows_of(messages[:middle]))
    assert equal(rows[before:], after)
    assert "ETH/USD is in partition 1 now, as BTC_LEADER" in caplog.text


# --- the setting ----------------------------------------------------------------------------------------------------


def test_a_leader_that_is_not_followed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_EXCHANGE_SYMBOLS", "ETH/USD,SOL/USD")
    monkeypatch.setenv("BTC_LEADER", "BTC/USD")
    with pytest.raises(
        ConfigError, match=r"BTC_LEADER is 'BTC/USD', which is not followed; name one of ETH/USD, SOL/USD"
    ):
        load_settings()


def test_all_markets_share_the_key_of_the_leader_and_have_their_own_without_one() -> None:
    exchange = ExchangeSettings(symbols=(BTC, ETH))
    assert [Settings(exchange=exchange).log_key(symbol) for symbol in (BTC, ETH)] == [BTC, ETH]
    led = Settings(exchange=exchange, leader=BTC)
    assert [led.log_key(symbol) for symbol in (BTC, ETH)] == [BTC, BTC]
