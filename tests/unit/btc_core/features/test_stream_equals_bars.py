"""At the close of a minute, the trades of a stream and the minute bars made of them give the same features.

Models learn from bars where nothing was streamed, so a feature that exists in both must have one definition.
"""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.exchanges.history import TRADES, bars_of_trades
from btc_core.features.bar_features import bar_features
from btc_core.features.catalogue import BAR_FEATURES, ROW
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.live_minutes import LiveMinutes
from btc_core.features.minute_columns import COLUMNS, minute_columns
from btc_core.features.state import EVENT, new_state
from btc_core.market.events import QUOTE, TRADE
from btc_core.models.targets import realized_variance
from tests.paths import DATA

pytestmark = pytest.mark.unit

BEGIN_NS = 1_625_097_600 * NS_PER_S  # 2021-07-01 00:00 UTC
SETTLED_MIN = 65
"""A history of bars knows the open of its first minute and a stream does not, so the first hour is not compared."""
SHORT = tuple(
    name for name in BAR_FEATURES if not name.endswith(("240m", "1440m", "ewma_10m", "ewma_30m", "ewma_120m"))
)


def quotes_and_trades(minutes: int, seed: int, trades_per_min: float, spread_bps: float) -> np.ndarray:
    """A market whose mid moves between trades, with trades at the bid and at the ask, and a quote at each close."""
    rng = np.random.default_rng(seed)
    quote_ns = np.arange(1, minutes * 120 + 1) * (NS_PER_S // 2)
    mid = 2_000.0 * np.exp(np.cumsum(rng.normal(0.0, 6e-5, len(quote_ns))))
    half = 0.5 * spread_bps / 1e4 * mid
    quotes = np.zeros(len(quote_ns), EVENT)
    quotes["ts_ns"], quotes["kind"] = BEGIN_NS + quote_ns, QUOTE
    quotes["slot_0"], quotes["slot_2"] = mid - half, mid + half
    quotes["slot_1"], quotes["slot_3"] = rng.exponential(1.0, (2, len(mid)))
    count = int(minutes * trades_per_min)
    at_ns = np.sort(rng.integers(NS_PER_S, minutes * NS_PER_MIN, count))
    at_ns += (at_ns % NS_PER_MIN == 0) * 1_000
    sign = rng.choice([-1.0, 1.0], count)
    known = np.searchsorted(quote_ns, at_ns, side="right") - 1
    trades = np.zeros(count, EVENT)
    trades["ts_ns"], trades["kind"] = BEGIN_NS + at_ns, TRADE
    trades["slot_0"] = mid[known] + half[known] * sign
    trades["slot_1"], trades["slot_2"] = np.round(rng.exponential(0.5, count), 8) + 1e-8, sign
    return in_order(quotes, trades)


def in_order(quotes: np.ndarray, trades: np.ndarray) -> np.ndarray:
    """Both in the order of time; a quote at the close of a minute comes before a trade at that time, as bars have it."""
    events = np.concatenate([quotes, trades])
    return events[np.argsort(events["ts_ns"], kind="stable")]


def bars_of(events: np.ndarray) -> np.ndarray:
    trades = events[events["kind"] == TRADE]
    made = np.zeros(len(trades), TRADES)
    made["ts_ns"], made["price"], made["qty"] = trades["ts_ns"], trades["slot_0"], trades["slot_1"]
    return bars_of_trades(made)


def stream_rows(events: np.ndarray) -> np.ndarray:
    rows = np.empty(len(events), ROW)
    assert fold(new_state(), events, rows, EMIT_TICKS) == len(events)
    return rows


def differences(events: np.ndarray, *, at_close: bool) -> dict[str, np.ndarray]:
    """For each feature, stream minus bars over all minutes that have a bar.

    `at_close` takes the row of the quote at the close, else the newest row before it.
    """
    bars = bars_of(events)
    close_ns = bars["ts_ns"] + NS_PER_MIN
    of_bars = bar_features(bars)
    if at_close:
        quotes = np.flatnonzero(events["kind"] == QUOTE)
        place = quotes[np.searchsorted(events["ts_ns"][quotes], close_ns).clip(0, len(quotes) - 1)]
        exact = events["ts_ns"][place] == close_ns
    else:
        place = np.searchsorted(events["ts_ns"], close_ns) - 1
        exact = np.ones(len(bars), bool)
    settled = exact & (bars["ts_ns"] >= bars["ts_ns"][0] + SETTLED_MIN * NS_PER_MIN)
    rows = stream_rows(events)[place[settled]]
    return {name: rows[name] - of_bars[name][settled] for name in BAR_FEATURES}


@pytest.mark.parametrize(("trades_per_min", "spread_bps"), [(40.0, 1.0), (3.0, 8.0)])
def test_at_the_close_trades_and_bars_of_a_simulated_market_give_the_same_features(
    trades_per_min: float, spread_bps: float
) -> None:
    found = differences(quotes_and_trades(600, 1, trades_per_min, spread_bps), at_close=True)
    for name in SHORT:
        assert len(found[name]) > 450
        assert np.isfinite(found[name]).mean() > 0.95, name
        assert np.nanmax(np.abs(found[name])) < 1e-6, name


def test_a_window_of_a_day_is_the_same_in_both() -> None:
    found = differences(quotes_and_trades(1_700, 2, 6.0, 2.0), at_close=True)
    for name in BAR_FEATURES:
        assert np.isfinite(found[name][-100:]).all(), name
        # the window of a day still holds the open of the first bar, and nothing else differs
        assert np.nanmax(np.abs(found[name][-100:])) < 1e-6, name


def test_the_newest_row_before_the_close_is_not_biased() -> None:
    """Its windows end at the last whole second, so single values differ a little; their mean must not."""
    found = differences(quotes_and_trades(1_200, 3, 40.0, 2.0), at_close=False)
    for name in ("log_rv_5m", "log_parkinson_1m", "log_parkinson_5m", "log_parkinson_30m", "log_volume_5m"):
        assert abs(float(np.nanmean(found[name]))) < 0.02, name


def gemini() -> np.ndarray:
    """Two days of trades and best quotes, at most one a second; sources in the README of the data."""
    files = [DATA / f"gemini_ethusd_{kind}_20210701_20210702.parquet" for kind in ("trades", "bbo")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"{files[0]} is missing; the recorded market data is not part of the project")
    traded, quoted = (pq.read_table(file) for file in files)

    def ns(column: list[str]) -> np.ndarray:
        return np.array([round(float(text) * 1_000) for text in column], np.int64) * 1_000_000

    trades = np.zeros(len(traded), EVENT)
    trades["ts_ns"], trades["kind"] = ns(traded["time_seconds"].to_pylist()), TRADE
    for slot, name in (("slot_0", "price"), ("slot_1", "size")):
        trades[slot] = [float(text) for text in traded[name].to_pylist()]
    trades["slot_2"] = [-1.0 if text == "1" else 1.0 for text in traded["is_buyer_maker"].to_pylist()]
    quotes = np.zeros(len(quoted), EVENT)
    quotes["ts_ns"], quotes["kind"] = ns(quoted["time_seconds"].to_pylist()), QUOTE
    for slots, name in ((("slot_0", "slot_1"), "bid_price_bid_size"), (("slot_2", "slot_3"), "ask_price_ask_size")):
        for slot, values in zip(
            slots, zip(*(parts(text) for text in quoted[name].to_pylist()), strict=True), strict=True
        ):
            quotes[slot] = values
    quotes = quotes[(quotes["slot_0"] > 0.0) & (quotes["slot_2"] > 0.0)]
    trades = trades[trades["ts_ns"] % NS_PER_MIN != 0]  # two trades at a close, which bars count in the next minute
    return in_order(*(each[np.argsort(each["ts_ns"], kind="stable")] for each in (quotes, trades)))


def parts(text: str) -> tuple[float, float]:
    """Price and size of one side of the book."""
    price, size = text.split("_")
    return float(price), float(size)


def test_at_the_close_recorded_trades_and_their_bars_give_the_same_features() -> None:
    found = differences(gemini(), at_close=True)
    for name in SHORT:
        assert len(found[name]) > 2_000
        assert np.nanmax(np.abs(found[name])) < 1e-6, name


def test_minutes_of_the_stream_have_the_columns_of_its_bars() -> None:
    """A minute without a trade is unknown in both; the volume of a minute of the stream lacks its last part of a second."""
    events = quotes_and_trades(800, 4, 4.0, 4.0)
    bars = bars_of(events)
    assert len(bars) < 800, "some minutes have no trade"
    rows = stream_rows(events)
    live = LiveMinutes(bars[:0], int(events["ts_ns"][0]))
    values = rows.view(np.float64).reshape(len(rows), -1)
    found = live.columns(events["ts_ns"].tolist(), values, (events["kind"] == TRADE).tolist())
    expected = minute_columns(bars)
    close_ns = bars["ts_ns"] + NS_PER_MIN
    after = np.searchsorted(events["ts_ns"], close_ns, side="right")
    exact = np.array(["volume" not in name for name in COLUMNS])
    for k in np.flatnonzero((close_ns > close_ns[0] + 760 * NS_PER_MIN) & (after < len(events))):
        row = found[after[k]]
        assert np.allclose(row[exact], expected[k][exact], rtol=1e-4, atol=1e-4, equal_nan=True)
        assert np.nanmedian(np.abs(row[~exact] - expected[k][~exact])) < 0.2


def realized(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances of the next five minutes, ln²: of the closes of bars, as in training, and of the mids at the closes, as outcomes are."""
    bars = bars_of(events)
    close_ns = bars["ts_ns"] + NS_PER_MIN
    quotes = events[events["kind"] == QUOTE]
    newest = quotes[np.searchsorted(quotes["ts_ns"], close_ns, side="right") - 1]
    prices = bars["close"], 0.5 * (newest["slot_0"] + newest["slot_2"])
    of_closes, of_mids = (realized_variance(close_ns, price)[:, -1] for price in prices)
    known = np.isfinite(of_closes)
    return of_closes[known], of_mids[known]


def test_the_variance_of_closes_is_above_that_of_mids_by_the_bounce_between_bid_and_ask() -> None:
    """A close is half a spread from the mid, on either side: two half spreads squared in each minute (Roll 1984)."""
    of_closes, of_mids = realized(quotes_and_trades(2_000, 6, 40.0, 8.0))
    assert len(of_closes) > 1_900
    assert (of_closes - of_mids).mean() / 5 == pytest.approx(2 * (4.0e-4) ** 2, rel=0.1)
    of_closes, of_mids = realized(quotes_and_trades(2_000, 5, 40.0, 0.1))
    assert of_closes.mean() / of_mids.mean() == pytest.approx(1.0, abs=0.02), "a narrow spread has no bounce"


def test_recorded_closes_vary_as_much_more_than_mids_as_the_documentation_says() -> None:
    """In a market with a wide spread; `docs/concepts/forecasting.md` has the figure."""
    of_closes, of_mids = realized(gemini())
    assert len(of_closes) > 2_000
    assert of_closes.mean() / of_mids.mean() == pytest.approx(1.10, abs=0.02)
