"""Forecasts and outcomes follow the order of the log: they do not depend on how rows are batched, or on a restart."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_MS, NS_PER_S
from btc_core.features.bar_features import bar_features
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.live_minutes import LiveMinutes
from btc_core.market.events import TRADE
from btc_core.market.messages import FeatureMessage, ForecastRow
from btc_core.models import pretrained
from btc_core.models.bundle import BidModel, VolatilityModel, random_walk_model, start_quantiles
from btc_core.models.dataset import make_frame
from btc_core.models.fitting import fit_volatility
from btc_core.names import LATE_FORECAST_S
from streaming.forecaster import Forecaster
from streaming.outcomes import Outcome, OutcomeTracker, outcome_row
from streaming.published_forecasts import place_of
from tests.unit.btc_core.features.test_minute_columns import market
from tests.unit.btc_core.models.test_recipe import SMALL

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.unit

START_NS = 1_760_000_100 * NS_PER_S // (5 * NS_PER_MIN) * 5 * NS_PER_MIN
BID, MID, PRICE = (FEATURE_NAMES.index(name) for name in ("bid", "mid", "price"))


class StoppedClock:
    """Our clock, which shows the same time until a test sets it."""

    def __init__(self, at_ns: int) -> None:
        self.at_ns = at_ns

    def now_ns(self) -> int:
        return self.at_ns

    def monotonic_s(self) -> float:
        return self.at_ns / NS_PER_S


class RowByRow(VolatilityModel):
    """A model that forecasts rows one by one: the last bits of a matrix product depend on the number of its rows."""

    def predict_both(self, matrix: np.ndarray, columns: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        rows = range(len(matrix))
        one = [None if columns is None else columns[place : place + 1] for place in rows]
        forecasts = [super(RowByRow, self).predict_both(matrix[place : place + 1], one[place]) for place in rows]
        model, baseline = zip(*forecasts, strict=True)
        return np.concatenate(model), np.concatenate(baseline)


@cache
def models_that_serve() -> tuple[BidModel, VolatilityModel]:
    """The random walk, and trees with a net; fitted by the first test that needs them, and not while tests are collected."""
    fitted = fit_volatility(make_frame(market(16 * 1440)), SMALL)
    assert fitted.kind == "xgboost"
    return random_walk_model(), RowByRow(fitted.manifest, fitted.harx, fitted.boosters, fitted.baselines, fitted.net)


BARS_BEFORE = market(2 * 1440, START_NS - 2 * NS_PER_DAY)
"""The minute bars that are stored when the first row comes."""


def test_a_market_with_an_hour_of_bars_is_forecast_by_the_pretrained_model() -> None:
    hour = market(70, START_NS - 70 * NS_PER_MIN)
    models = random_walk_model(), pretrained.model_of_bars(pretrained.shipped(), hour[:60])
    forecaster = Forecaster(
        lambda _symbol: models,
        lambda _symbol: OutcomeTracker(start_quantiles(models[0]), start_quantiles(models[1])),
        lambda _symbol, clock_ns: LiveMinutes(hour, clock_ns),
        lambda _row: None,
        StoppedClock(START_NS),
    )
    features = bar_features(hour)
    bid = float(hour["close"][-1])
    values = np.array([features[-1][name] for name in FEATURE_NAMES])
    values[BID], values[MID] = bid, bid + 0.05
    message = FeatureMessage("BTC/USD", START_NS, START_NS, 0, 1, 0, TRADE, FEATURE_VERSION, values.tobytes())
    results = forecaster.handle([message])
    (made,) = results.forecasts
    assert np.isnan(results.columns["BTC/USD"].columns).all(), "the columns need half a day of bars"
    assert made.volatility_model_kind == "xgboost"
    assert made.volatility_model_version == f"pretrained-{pretrained.shipped().digest}"
    assert np.isfinite(made.sigma_path_bps).all()
    assert made.sigma_path_bps != made.baseline_sigma_path_bps
    actual_bps = np.sqrt(np.mean(np.square(np.diff(np.log(hour["close"])))) * 5.0) * 1e4
    assert 0.3 < made.sigma_path_bps[-1] / actual_bps < 3.0


class World:
    """A forecaster, and everything that was published, stored and seen by the metrics."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self.clock = StoppedClock(now_ns)
        self.published: dict[tuple[str, int, int, int], ForecastRow] = {}
        self.forecasts: list[ForecastRow] = []
        self.outcomes: list[Outcome] = []
        self.restart()

    def restart(self) -> None:
        """Lose the memory of the forecaster; what was published stays."""
        models = models_that_serve()
        start = start_quantiles(models[0]), start_quantiles(models[1])
        self.forecaster = Forecaster(
            lambda _symbol: models,
            lambda _symbol: OutcomeTracker(*start),
            lambda _symbol, clock_ns: LiveMinutes(BARS_BEFORE, clock_ns),
            lambda row: self.published.get(place_of(row)),
            self.clock,
        )

    def handle(self, rows: Sequence[FeatureMessage]) -> None:
        results = self.forecaster.handle(rows)
        self.published |= {place_of(each): each for each in results.unpublished}
        self.forecasts += results.forecasts
        self.outcomes += results.outcomes

    def judged(self) -> list[dict[str, object]]:
        return [outcome_row(outcome) for outcome in self.outcomes]


def row(offset: int, ts_ns: int, bid: float, *, symbol: str = "BTC/USD", known: bool = True) -> FeatureMessage:
    """A feature row; without `known` features its forecast is NaN, and with a NaN bid it has none."""
    values = np.full(len(FEATURE_NAMES), -14.0 + math.sin(offset) if known else math.nan)
    values[BID], values[MID], values[PRICE] = bid, bid + 0.05, bid
    return FeatureMessage(symbol, ts_ns, ts_ns, 0, offset, 0, TRADE, FEATURE_VERSION, values.tobytes())


def rough_rows(seed: int, minutes: int = 14) -> list[FeatureMessage]:
    """Rows of two symbols; some come late, some have no quote or no forecast, and some minutes have no row at their end."""
    rng = np.random.default_rng(seed)
    rows, bids = [], {"BTC/USD": 60_000.0, "ETH/USD": 3_000.0}
    at_ns = START_NS
    while at_ns < START_NS + minutes * NS_PER_MIN:
        at_ns += int(rng.choice([50, 900, 4_000, 11_000], p=[0.1, 0.5, 0.38, 0.02]) * NS_PER_MS)
        symbol = "ETH/USD" if rng.random() < 0.4 else "BTC/USD"
        bids[symbol] *= math.exp(rng.normal(0.0, 2e-4))
        late_ns = int(rng.exponential(2.0) * NS_PER_S) if rng.random() < 0.3 else 0
        bid = math.nan if rng.random() < 0.03 else bids[symbol]
        rows.append(row(len(rows), at_ns - late_ns, bid, symbol=symbol, known=rng.random() > 0.05))
    return rows


def test_rough_rows_have_rows_of_every_kind() -> None:
    world, rows = World(), rough_rows(4)
    world.handle(rows)
    assert len(world.outcomes) > 10
    assert len(rows) - len(world.forecasts) > 0, "some rows have no quote"
    assert any(math.isnan(each.sigma_path_bps[0]) for each in world.forecasts)
    assert any(later.ts_event_ns < earlier.ts_event_ns for earlier, later in itertools.pairwise(rows))


@given(seed=st.integers(0, 10_000), ends=st.lists(st.integers(1, 400), max_size=40))
@settings(max_examples=40, deadline=None)
def test_forecasts_and_outcomes_do_not_depend_on_how_rows_are_batched(seed: int, ends: list[int]) -> None:
    rows = rough_rows(seed)
    single, split = World(), World()
    for each in rows:
        single.handle([each])
    cuts = sorted({0, *(end for end in ends if end < len(rows)), len(rows)})
    for begin, end in itertools.pairwise(cuts):
        split.handle(rows[begin:end])

    def in_order(world: World) -> list[ForecastRow]:
        return sorted(world.forecasts, key=lambda each: each.offset)

    def by_symbol(world: World) -> list[bytes]:
        ordered = sorted(world.judged(), key=lambda each: (str(each["symbol"]), each["ts_event"]))
        return [msgspec.msgpack.encode(each) for each in ordered]

    assert by_symbol(split) == by_symbol(single)
    assert list(map(msgspec.msgpack.encode, in_order(split))) == list(map(msgspec.msgpack.encode, in_order(single)))


def test_trees_and_net_serve_with_the_level_of_the_outcomes_so_far() -> None:
    world = World()
    rows = quiet_rows(30)
    for each in rows:
        world.handle([each])
    assert {each.volatility_model_kind for each in world.forecasts} == {"xgboost"}
    assert all(each.sigma_path_bps != each.baseline_sigma_path_bps for each in world.forecasts)
    factors = [outcome.origin.sigma_factor for outcome in world.outcomes]
    assert factors[0] == 1.0
    assert factors[-1] > 1.01, "the moves of these rows are far larger than the forecasts"
    uncorrected = World()
    uncorrected.handle(rows[-1:])
    again = uncorrected.forecasts[0]
    assert again.sigma_path_bps[-1] < world.forecasts[-1].sigma_path_bps[-1]


def test_without_a_day_of_minutes_harx_serves_and_every_forecast_says_so() -> None:
    world = World()
    world.forecaster._new_minutes = lambda _symbol, clock_ns: LiveMinutes(BARS_BEFORE[:0], clock_ns)
    world.handle(quiet_rows(8))
    assert {each.volatility_model_kind for each in world.forecasts} == {"harx"}
    assert all(each.sigma_path_bps == each.baseline_sigma_path_bps for each in world.forecasts)
    assert all(outcome.origin.sigma_factor == 1.0 for outcome in world.outcomes)


@pytest.mark.parametrize("batch", [1, 3, 1_000])
def test_a_late_row_belongs_to_the_minute_in_which_it_comes(batch: int) -> None:
    """In one batch, a row that came late became the close of a minute that was over, with a price of the next minute."""
    rows: list[FeatureMessage] = []
    for minute in range(20):
        at_ns, bid = START_NS + minute * NS_PER_MIN, 60_000.0 + 100 * minute
        stamps = [200, -100, 30_000, 59_500] if minute else [200, 30_000, 59_500]
        rows += [row(len(rows) + n, at_ns + ms * NS_PER_MS, bid) for n, ms in enumerate(stamps)]
    world = World()
    for begin in range(0, len(rows), batch):
        world.handle(rows[begin : begin + batch])
    assert [each["ts_event"] for each in world.judged()] == [START_NS + k * NS_PER_MIN for k in range(1, 15)]
    assert [each["bid"] for each in world.judged()] == [60_000.0 + 100 * k for k in range(14)]
    first = world.outcomes[0]
    assert first.return_bps == pytest.approx([1e4 * math.log((60_000 + 100 * k) / 60_000) for k in range(1, 6)])


def test_a_late_row_at_the_end_of_a_minute_is_as_fresh_as_the_row_before_it() -> None:
    rows: list[FeatureMessage] = []
    for minute in range(8):
        at_ns = START_NS + minute * NS_PER_MIN
        rows += [row(len(rows) + n, at_ns + ms * NS_PER_MS, 60_000.0) for n, ms in enumerate([55_000, 42_000])]
    world = World()
    world.handle(rows)
    assert [each["ts_event"] for each in world.judged()] == [START_NS + NS_PER_MIN, START_NS + 2 * NS_PER_MIN]


def quiet_rows(minutes: int) -> list[FeatureMessage]:
    """One row two seconds before the end of each minute, with moves of the bid that are far outside of the intervals."""
    return [
        row(minute, START_NS + (minute + 1) * NS_PER_MIN - 2 * NS_PER_S, 60_000.0 * math.exp(0.01 * (minute % 2)))
        for minute in range(minutes)
    ]


@pytest.mark.parametrize(
    ("after_s", "late"), [(LATE_FORECAST_S - 3, False), (LATE_FORECAST_S, False), (3 * 3_600, True)]
)
def test_outcomes_of_forecasts_made_from_a_backlog_are_late_and_do_not_move_the_intervals(
    after_s: int, *, late: bool
) -> None:
    world = World()
    for each in quiet_rows(12):
        world.clock.at_ns = each.ts_recv_ns + after_s * NS_PER_S
        world.handle([each])
    assert [each["late"] for each in world.judged()] == [late] * 6
    moved = {each["bid_quantiles"] for each in world.judged()}
    assert (len(moved) == 1) == late, "an origin on the five-minute grid moves the quantiles, unless it is late"


def test_rows_that_are_handled_again_keep_the_forecast_that_was_served() -> None:
    """After `kill -9`, a forecast that was made again overwrote the one that had been served, with a later time."""
    rows = quiet_rows(20)
    world = World()
    for each in rows:
        world.clock.at_ns = each.ts_recv_ns + NS_PER_MS
        world.handle([each])
    served, judged = list(world.forecasts), world.judged()
    world.restart()
    world.forecasts, world.outcomes = [], []
    world.clock.at_ns += 60 * NS_PER_MIN
    world.handle(rows[:7])
    world.handle(rows[7:])
    assert world.forecasts == served
    assert world.judged() == judged
    assert not any(each["late"] for each in world.judged())


def test_a_warm_up_keeps_the_forecasts_that_were_served() -> None:
    """A warm-up made the forecasts of open outcomes again, with the time of the restart."""
    rows = rough_rows(5, minutes=20)
    whole, restarted = World(), World()
    for world in (whole, restarted):
        world.handle(rows[:300])
    restarted.restart()
    restarted.clock.at_ns += 60 * NS_PER_MIN
    restarted.outcomes, whole.outcomes = [], []
    restarted.forecaster.warm(rows[:100])
    restarted.forecaster.warm(rows[100:300])
    restarted.clock.at_ns = whole.clock.at_ns
    for world in (whole, restarted):
        world.handle(rows[300:])
    assert restarted.judged() == whole.judged()
    assert len(whole.outcomes) > 3


def test_only_forecasts_that_are_made_now_are_published() -> None:
    rows = quiet_rows(6)
    world = World()
    world.handle(rows[:3])
    world.restart()
    again = world.forecaster.handle(rows)
    assert [each.offset for each in again.unpublished] == [3, 4, 5]
    assert [each.offset for each in again.forecasts] == [0, 1, 2, 3, 4, 5]


def test_every_forecast_has_the_quality_of_its_row_and_of_the_outcomes_so_far() -> None:
    world = World()
    rows = quiet_rows(80)
    world.clock.at_ns = rows[0].ts_recv_ns
    world.handle([msgspec.structs.replace(rows[0], open_gaps=2)])
    for each in rows[1:]:
        world.clock.at_ns = each.ts_recv_ns + 2 * NS_PER_S
        world.handle([each])
    judged = [each.quality for each in world.forecasts]
    assert all(each is not None for each in judged)
    first, last = judged[0], judged[-1]
    assert first is not None
    assert last is not None
    assert "gaps_open" in first.reasons
    assert "made_late" not in first.reasons
    assert "gaps_open" not in last.reasons
    assert {"made_late", "volatility_coverage_low"} <= set(last.reasons), "the moves are far outside of the intervals"
    assert first.outcomes == 0
    assert last.outcomes == len(world.outcomes) > 60
    assert last.regime is None, "no third of them is enough"
    inside = [outcome.volatility_inside[90] for outcome in world.outcomes]
    assert last.volatility_coverage_90 == pytest.approx(sum(inside) / len(inside))
    assert first.bars_age_s == 58.0, "the stored bars end with the minute before"
    assert last.bars_age_s == 58.0


def test_a_forecast_of_harx_in_place_of_the_model_is_degraded() -> None:
    world = World()
    world.forecaster._new_minutes = lambda _symbol, clock_ns: LiveMinutes(BARS_BEFORE[:0], clock_ns)
    world.handle(quiet_rows(2))
    assert all(each.quality is not None and "history_short" in each.quality.reasons for each in world.forecasts)
