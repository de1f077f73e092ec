"""Every feature, compared with a slow second implementation that follows the definitions in the catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from btc_core.features.catalogue import DEPTH_FEATURES, FEATURE_NAMES, LEADER_FEATURES, ROW
from btc_core.features.fold import EMIT_BARS, EMIT_TICKS, fold
from btc_core.features.state import EVENT, new_state
from btc_core.market.events import BAR, QUOTE, TRADE

pytestmark = pytest.mark.unit

S = 1_000_000_000
MAX_SILENCE_NS, PRICE_MEMORY_NS, LATE_TRADE_NS, DAY_NS = 90 * S, 300 * S, 600 * S, 86_400 * S
NEVER = math.inf
FLOOR = 1e-10
MONDAY_S = 1_700_438_400  # 2023-11-20 00:00 UTC
NAN = math.nan


# --- random markets -------------------------------------------------------------------------------------------------


def random_market(seed: int, ticks: int, bars: int, *, rough: bool, pace_s: float = 0.4) -> np.ndarray:
    """Return bars followed by quotes and trades (ticks).

    A rough market has silences, late and simultaneous events, events at whole seconds, and bars between the ticks.
    """
    rng = np.random.default_rng(seed)
    now = (MONDAY_S + int(rng.integers(-3, 3)) * 1_800) * S + int(rng.integers(0, 60 * S))
    price, events = 60_000.0, []

    def add_bars(count: int) -> None:
        nonlocal now, price
        begin = -(-now // (60 * S)) * 60 * S
        for _ in range(count):
            begin += 60 * S * int(rough and rng.random() < 0.03)
            close = price * math.exp(rng.normal(0, 5e-4)) if rng.random() < 0.9 else price
            high, low = max(price, close) * (1 + rng.random() * 3e-4), min(price, close) * (1 - rng.random() * 3e-4)
            events.append((begin, BAR, price, high, low, close, round(float(rng.exponential(3)), 8)))
            price, begin = close, begin + 60 * S
        now = begin

    add_bars(bars)
    for _ in range(ticks):
        kind = rng.random()
        if rough and kind < 0.01 * min(1.0, 200 / ticks):
            now += int(rng.choice([59, 89, 90, 91, 95, 300, 7_200]) * S)
        elif rough and 0.01 < kind < 0.01 + 0.003 * min(1.0, 200 / ticks):
            add_bars(int(rng.integers(1, 4)))
        elif rough and 0.02 < kind < 0.1:
            now = -(-now // S) * S
        elif kind < 0.9:
            now += int(rng.exponential(pace_s) * S)
        stamp = now - int(rng.integers(0, 5 * S)) if rough and rng.random() < 0.05 else now
        if rng.random() < 0.7:
            price = price if rng.random() < 0.3 else round(price * math.exp(rng.normal(0, 2e-5)), 1)
            bid = round(price, 1)
            ask = bid + (round(float(rng.exponential(0.5)), 1))
            qty = [round(float(rng.exponential(1)), 8) for _ in range(2)]
            events.append((stamp, QUOTE, bid, qty[0], ask, qty[1], 0.0))
        else:
            side = 1.0 if rng.random() < 0.5 else -1.0
            events.append((stamp, TRADE, price, round(float(rng.exponential(0.2)), 8) + 1e-8, side, 0.0, 0.0))
    return np.array(events, EVENT)


# --- the second implementation --------------------------------------------------------------------------------------


@dataclass
class Snapshot:
    """The values that a row needs in addition to the observations up to its event."""

    clock: int
    n_mids: int
    n_obs: int
    n_trades: int
    n_quotes: int
    ticks_since: float
    volume_since: float
    quotes_from: int
    """The index of the first quote that counts for the moving averages."""
    top: tuple[float, float, float, float]
    mid: float
    price: float
    """The price of the last trade, or the close of a later bar."""
    last_price: float
    since_quote: float
    since_trade: float
    grid: int


@dataclass
class Reference:
    """The observations in the order of the log, each with the number ⌈t⌉ of its second; and one `Snapshot` per event."""

    mids: list[tuple[int, int, float]] = field(default_factory=list)  # second, clock, log mid
    obs: list[tuple[int, int, float, float, float]] = field(default_factory=list)  # second, clock, close, high, low
    opens: dict[int, float] = field(default_factory=dict)  # seconds whose price is the open of the next bar
    trades: list[tuple[int, float, float, float]] = field(default_factory=list)  # second, signed, price, bar volume
    quotes: list[tuple[int, float, float, float, float, float, bool]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def read(self, events: np.ndarray) -> Reference:
        clock = last_event = mid_at = price_at = quote_at = trade_at = bar_end = 0
        ticks_since = volume_since = NEVER
        quotes_from, top, mid, price, last_price, grid = 0, (NAN,) * 4, NAN, NAN, NAN, 0
        for ts, kind, a, b, c, d, e in events.tolist():
            if kind == BAR and clock > ts:
                self._add_snapshot(
                    clock, ticks_since, volume_since, quotes_from, top, mid, price, last_price, quote_at, trade_at, grid
                )
                continue
            first = clock == 0
            clock = max(clock, ts + 60 * S if kind == BAR else ts)
            second = -(-clock // S)
            if first:
                last_event, grid = clock, (second - 1) // 5 * 5
            between_bars = kind == BAR and last_event == bar_end
            if clock - last_event > (PRICE_MEMORY_NS - S if between_bars else MAX_SILENCE_NS):
                ticks_since = volume_since = NEVER
            last_event = clock
            if clock - mid_at > MAX_SILENCE_NS:
                mid, top, quotes_from = NAN, (NAN,) * 4, len(self.quotes)
            price = price if clock - price_at < PRICE_MEMORY_NS else NAN
            before = (quote_at, trade_at)
            if kind == BAR:
                if math.isnan(price):
                    self.opens[second - 60] = math.log(a)
                volume_since = min(volume_since, second - 60)
                ticks_since, bar_end, mid_at, mid, price_at, price = NEVER, clock, clock, d, clock, d
                top, quotes_from = (NAN,) * 4, len(self.quotes)
                self.mids.append((second, clock, math.log(d)))
                self.obs.append((second, clock, math.log(d), math.log(b), math.log(c)))
                self.trades.append((second, 0.0, NAN, e))
            elif kind == QUOTE:
                ticks_since, volume_since = min(ticks_since, second), min(volume_since, second)
                new_mid = (a + c) / 2
                flow = 0.0 if math.isnan(top[0]) else self._bid_flow(top, a, b) - self._ask_flow(top, c, d)
                self.quotes.append((second, a, b, d, flow, (b + d) / 2, not math.isnan(top[0]) and new_mid == mid))
                top, mid, mid_at, quote_at = (a, b, c, d), new_mid, clock, clock
                self.mids.append((second, clock, math.log(mid)))
            else:
                trade_at = clock
                if ts >= bar_end or clock - bar_end > LATE_TRADE_NS:
                    ticks_since, volume_since = min(ticks_since, second), min(volume_since, second)
                    self.trades.append((second, math.copysign(b, c), a, 0.0))
                    last_price = price = a
                    price_at = clock
                    self.obs.append((second, clock, math.log(a), math.log(a), math.log(a)))
            self._add_snapshot(
                clock, ticks_since, volume_since, quotes_from, top, mid, price, last_price, *before, grid
            )
            grid = (second - 1) // 5 * 5
        self.table = np.array(self.obs or np.empty((0, 5)))
        self.clocks = np.array([clock for _, clock, *_ in self.obs])
        self.mid_table = np.array(self.mids or np.empty((0, 3)))
        self.mid_clocks = np.array([clock for _, clock, _ in self.mids])
        return self

    def _add_snapshot(self, clock, ticks, volume, quotes_from, top, mid, price, last_price, quote_at, trade_at, grid):  # noqa: ANN001, ANN202, PLR0917 - the local variables of `read`
        since = [(clock - at) / 1e9 if at > 0 and clock - at <= DAY_NS else NAN for at in (quote_at, trade_at)]
        self.snapshots.append(
            Snapshot(
                clock, len(self.mids), len(self.obs), len(self.trades), len(self.quotes), ticks, volume, quotes_from, top,
                mid, price, last_price, since[0], since[1], grid,
            )
        )  # fmt: skip

    @staticmethod
    def _bid_flow(top: tuple[float, ...], bid: float, qty: float) -> float:
        return (qty if bid >= top[0] else 0.0) - (top[1] if bid <= top[0] else 0.0)

    @staticmethod
    def _ask_flow(top: tuple[float, ...], ask: float, qty: float) -> float:
        return (qty if ask <= top[2] else 0.0) - (top[3] if ask >= top[2] else 0.0)

    def log_mid(self, snapshot: Snapshot, seconds: np.ndarray) -> np.ndarray:
        """Return the log mid at the end of each second, as far as it is known in the snapshot."""
        if snapshot.n_mids == 0:
            return np.full(len(seconds), NAN)
        index = np.searchsorted(self.mid_table[: snapshot.n_mids, 0], seconds, "right") - 1
        stale = (index < 0) | (seconds * S - self.mid_clocks[index] > MAX_SILENCE_NS)
        return np.where(stale, NAN, self.mid_table[index, 2])

    def log_price(self, snapshot: Snapshot, seconds: np.ndarray, *, opens: bool = True) -> np.ndarray:
        """Return the log price at the end of each second, as far as it is known in the snapshot."""
        if snapshot.n_obs == 0:
            return np.full(len(seconds), NAN)
        known = self.table[: snapshot.n_obs]
        index = np.searchsorted(known[:, 0], seconds, "right") - 1
        values = known[index, 2]
        stale = (index < 0) | (seconds * S - self.clocks[index] >= PRICE_MEMORY_NS)
        values = np.where(stale, NAN, values)
        for at, value in self.opens.items():
            if opens and at + 60 <= known[-1, 0]:
                values[seconds == at] = value
        return values

    def row(self, i: int) -> dict[str, float]:
        m = self.snapshots[i]
        now = m.clock // S
        return {
            **self._volatility(m, now),
            **self._clock(now),
            **self._activity(m, now),
            **self._top(m),
            **self._chart(m),
            "since_quote_s": m.since_quote,
            "since_trade_s": m.since_trade,
            "rv_5s_step": self._rv_step(m),
            # these markets have no order book and no leader; see `test_depth` and `test_leader`
            **dict.fromkeys((*DEPTH_FEATURES, *LEADER_FEATURES), NAN),
        }

    def _volatility(self, m: Snapshot, now: int) -> dict[str, float]:
        path = self.log_price(m, now - 60 * np.arange(1_441))
        moves = path[:-1] - path[1:]
        squares, known = moves**2, ~np.isnan(moves)
        out = {f"log_rv_{w}m": log_sum(squares[:w], w) for w in (1, 5, 15, 30, 60, 240, 1440)}
        for h in (3, 10, 30, 120):
            decay = 0.5 ** (1 / h)
            weights = np.where(known, decay ** np.arange(1_440), 0.0)
            enough = (1 - decay) * weights.sum() >= 0.5
            mean = np.nansum(weights * squares) / weights.sum() if enough else NAN
            out[f"log_ewma_{h}m"] = math.log(max(mean, FLOOR)) if enough else NAN
        ranges = np.array([self._range(m, now - 60 * k) for k in range(30)]) ** 2 / (4 * math.log(2))
        out |= {f"log_parkinson_{w}m": log_sum(ranges[:w], w) for w in (1, 5, 30)}
        for w in (15, 60):
            out[f"log_bipower_{w}m"] = log_sum(np.abs(moves[: w - 1] * moves[1:w]) * math.pi / 2, w)
        hour = moves[:60][known[:60]]
        share = (hour[hour < 0] ** 2).sum() / (hour**2).sum() if (hour**2).sum() > 0 else 0.5
        out["downside_share_60m"] = share if len(hour) >= 30 else NAN
        out |= {f"return_{w}m_bps": (path[0] - path[w]) * 1e4 for w in (1, 2, 3, 5, 10, 15, 30, 60)}
        for w in (1, 5):
            grid = np.diff(self.log_mid(m, now - 5 * np.arange(12 * w + 1)))
            covered = now - 60 * w >= m.ticks_since and not np.isnan(grid).any()
            out[f"log_rv_5s_{w}m"] = math.log(max((grid**2).sum(), FLOOR)) if covered else NAN
        return out

    def _range(self, m: Snapshot, end: int) -> float:
        seconds = np.arange(end - 60, end + 1)
        prices = self.log_price(m, seconds, opens=False)
        carried = prices[:-1][~np.isnan(prices[:-1]) & ~np.isnan(prices[1:])]
        inside = self.table[: m.n_obs]
        inside = inside[(inside[:, 0] > end - 60) & (inside[:, 0] <= end)] if m.n_obs else np.empty((0, 5))
        values = [*carried, *inside[:, 3], *inside[:, 4]]
        return max(values) - min(values) if values else NAN

    @staticmethod
    def _clock(now: int) -> dict[str, float]:
        stamp = pd.Timestamp(now, unit="s", tz="UTC")
        angle = 2 * math.pi * (stamp.hour * 60 + stamp.minute) / 1440
        there = stamp.tz_convert("America/New_York")
        return {
            "minute_of_day_sin": math.sin(angle), "minute_of_day_cos": math.cos(angle), "weekday": float(stamp.weekday()),
            "minute_of_hour": float(stamp.minute), "new_york_minute": float(there.hour * 60 + there.minute),
        }  # fmt: skip

    def _activity(self, m: Snapshot, now: int) -> dict[str, float]:
        trades = pd.DataFrame(self.trades[: m.n_trades], columns=["second", "signed", "price", "bar"])
        quotes = pd.DataFrame(
            self.quotes[: m.n_quotes], columns=["second", "bid", "bid_qty", "ask_qty", "flow", "depth", "unchanged"]
        )
        out = {}
        for w in (1, 5, 15, 60, 240):
            recent = trades[trades.second > now - 60 * w]
            volume = recent.signed.abs().sum() + recent.bar.sum()
            out[f"log_volume_{w}m"] = math.log1p(volume) if now - 60 * w >= m.volume_since else NAN
        for name, table, windows in (
            ("trades", trades[trades.bar == 0.0], (1, 5, 60, 240)),
            ("quotes", quotes, (1, 5, 60)),
        ):
            for w in windows:
                count = (table.second > now - 60 * w).sum()
                covered = now - 60 * w >= m.ticks_since and (name == "trades" or (quotes.second > now - 3_600).any())
                out[f"log_{name}_{w}m"] = math.log1p(count) if covered else NAN
        for w in (5, 30, 60, 300):
            recent = quotes[quotes.second > now - w]
            covered = now - w >= m.ticks_since and len(recent) > 0 and recent.depth.sum() > 0
            out[f"ofi_{w}s"] = recent.flow.sum() / recent.depth.mean() if covered else NAN
        for w in (60, 300):
            recent = quotes[quotes.second > now - w]
            out[f"zero_move_share_{w}s"] = recent.unchanged.mean() if now - w >= m.ticks_since and len(recent) else NAN
        for w in (30, 60, 300):
            recent = trades[trades.second > now - w]
            traded = recent.signed.abs().sum()
            share = recent.signed.sum() / traded if traded > 0 else 0.0
            out[f"trade_sign_imbalance_{w}s"] = share if now - w >= m.ticks_since else NAN
        return out | self._volumes(m, now, trades)

    @staticmethod
    def _volumes(m: Snapshot, now: int, trades: pd.DataFrame) -> dict[str, float]:
        volume = trades.signed.abs() + trades.bar
        midnight = now // 86_400 * 86_400
        today = volume[trades.second > midnight].sum()
        newer = volume[trades.second > now - 60].sum()
        older = volume[(trades.second > now - 120) & (trades.second <= now - 60)].sum()
        hour = trades[trades.second > now - 3_600]
        traded = hour.signed.abs().sum()
        vwap = (hour.price * hour.signed.abs()).sum() / traded if traded > 0 else NAN
        return {
            "cumulative_volume": today if midnight >= m.volume_since else NAN,
            "volume_change": newer - older if now - 120 >= m.volume_since else NAN,
            "vwap_diff": m.last_price - vwap if now - 3_600 >= m.ticks_since else NAN,
        }

    @staticmethod
    def _top(m: Snapshot) -> dict[str, float]:
        bid, bid_qty, ask, ask_qty = m.top
        both = bid_qty + ask_qty
        micro = (ask * bid_qty + bid * ask_qty) / both if both > 0 else NAN
        return {
            "bid": bid, "bid_qty": bid_qty, "ask": ask, "ask_qty": ask_qty, "mid": m.mid, "price": m.price, "bid_ask_spread": ask - bid,
            "spread_bps": (ask - bid) / m.mid * 1e4,
            "top_imbalance": (bid_qty - ask_qty) / both if both > 0 else NAN,
            "microprice_minus_mid_bps": (micro - m.mid) / m.mid * 1e4,
        }  # fmt: skip

    def _chart(self, m: Snapshot) -> dict[str, float]:
        recent = self.quotes[m.quotes_from : m.n_quotes][-64:]
        bids = pd.Series([NAN] + [quote[1] for quote in recent])
        logs = bids.map(math.log).diff()
        sizes = pd.DataFrame([(NAN, NAN)] + [(quote[2], quote[3]) for quote in recent]).rolling(14).mean().iloc[-1]
        change = bids.diff().iloc[-1]
        means = [
            rolled.iloc[-1] for rolled in (bids.rolling(5).mean(), bids.rolling(14).mean(), bids.rolling(14).std())
        ]
        if math.isnan(m.top[0]):
            change = NAN
        return {
            "ma_5": means[0], "ma_14": means[1], "std_14": means[2],
            "ema_5": bids[1:].ewm(span=5).mean().iloc[-1] if len(recent) == 64 else NAN,
            "price_change": change, "price_change_pct": change / bids.shift().iloc[-1] * 100,
            "log_return": logs.iloc[-1], "momentum": bids.diff(14).iloc[-1], "volatility": logs.rolling(14).std().iloc[-1],
            "max_14": bids.rolling(14).max().iloc[-1], "min_14": bids.rolling(14).min().iloc[-1],
            "mean_bid_qty": sizes[0], "mean_ask_qty": sizes[1],
        }  # fmt: skip

    def _rv_step(self, m: Snapshot) -> float:
        if m.ticks_since == NEVER:
            return NAN
        ends = np.arange(m.grid + 5, (-(-m.clock // S) - 1) // 5 * 5 + 1, 5)
        ends = ends[ends - 5 >= m.ticks_since]
        return float(np.nansum((self.log_mid(m, ends) - self.log_mid(m, ends - 5)) ** 2)) if len(ends) else 0.0


def log_sum(parts: np.ndarray, steps: int) -> float:
    """Return the log of a sum, scaled up from the known parts to all steps; NaN if less than half are known."""
    known = parts[~np.isnan(parts)]
    if len(known) * 2 < steps or len(known) == 0:
        return NAN
    return math.log(max(known.sum() * steps / len(known), FLOOR))


# --- the comparison -------------------------------------------------------------------------------------------------


def fold_rows(events: np.ndarray, emit: int) -> np.ndarray:
    rows = np.full(len(events), NAN, ROW)
    return rows[: fold(new_state(), events, rows, emit)]


def compare(events: np.ndarray, emit: int, indices: list[int]) -> None:
    rows = fold_rows(events, emit)
    gives_row = events["kind"] == BAR if emit == EMIT_BARS else events["kind"] != BAR
    row_of = np.cumsum(gives_row) - 1
    reference = Reference().read(events)
    for i in indices:
        if not gives_row[i]:
            continue
        expected, row = reference.row(i), rows[row_of[i]]
        assert set(expected) == set(FEATURE_NAMES)
        for name in FEATURE_NAMES:
            tolerance = 2e-9 * max(1.0, abs(expected[name])) if "log_" in name else 1e-7
            assert row[name] == pytest.approx(expected[name], rel=1e-9, abs=tolerance, nan_ok=True), (name, i)


def sample(events: np.ndarray, seed: int, count: int) -> list[int]:
    picked = np.random.default_rng(seed).choice(len(events), min(count, len(events)), replace=False)
    return sorted({*picked.tolist(), len(events) - 1})


PACES = st.sampled_from((0.4, 4.0, 15.0))
"""Mean seconds between ticks. With a slow pace, few events cover a long time."""
RANDOM = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RANDOM
@given(st.integers(0, 2**32), st.integers(1, 3_000), PACES)
@example(884, 881, 15.0)  # the mid becomes unknown in the second of the next quote
def test_every_feature_of_a_smooth_market_equals_its_definition(seed: int, ticks: int, pace_s: float) -> None:
    events = random_market(seed, ticks, 0, rough=False, pace_s=pace_s)
    compare(events, EMIT_TICKS, sample(events, seed, 12))


@RANDOM
@given(st.integers(0, 2**32), st.integers(1, 3_000), st.integers(0, 90), PACES)
def test_every_feature_of_a_rough_market_equals_its_definition(seed: int, ticks: int, bars: int, pace_s: float) -> None:
    events = random_market(seed, ticks, bars, rough=True, pace_s=pace_s)
    compare(events, EMIT_TICKS, sample(events, seed, 12))


@settings(RANDOM, max_examples=8)
@given(seed=st.integers(0, 2**32), bars=st.integers(1, 3_000), rough=st.booleans())
def test_every_feature_of_minute_bars_equals_its_definition(seed: int, bars: int, *, rough: bool) -> None:
    events = random_market(seed, 0, bars, rough=rough)
    compare(events, EMIT_BARS, sample(events, seed, 20))


def test_a_long_window_of_a_quote_contains_earlier_bars() -> None:
    events = random_market(7, 2_000, 1_700, rough=False)
    compare(events, EMIT_TICKS, sample(events[-2_000:], 7, 30) + sample(events, 1, 10))
    last = fold_rows(events, EMIT_TICKS)[-1]
    assert not math.isnan(last["log_rv_1440m"])
    assert not math.isnan(last["log_ewma_120m"])


def test_the_steps_of_the_realized_variance_add_up_to_the_realized_variance() -> None:
    events = random_market(3, 20_000, 0, rough=False)
    rows = fold_rows(events, EMIT_TICKS)
    reference = Reference().read(events)
    last = reference.snapshots[-1]
    first_s, end_s = -(-events["ts_ns"][0] // S), (-(-last.clock // S) - 1) // 5 * 5
    grid = np.arange(-(-first_s // 5) * 5, end_s + 1, 5)
    steps = np.diff(reference.log_mid(last, grid))
    assert np.nansum(rows["rv_5s_step"]) == pytest.approx(np.nansum(steps**2), rel=1e-12)
