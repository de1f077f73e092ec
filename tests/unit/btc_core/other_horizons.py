"""What follows from `BTC_HORIZONS_MIN=2,10,30` after `1,2,3,4,5`; `test_horizons` runs this file in a process of its own."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import SchemaError
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS
from btc_core.league.contract import Rows, checked
from btc_core.league.rows import INPUTS_VERSION
from btc_core.market.messages import ForecastRow
from btc_core.models import gate, intervals, level, pretrained, targets
from btc_core.models.bundle import golden_rows, load_bundle, random_walk_model
from btc_core.models.manifest import new_manifest
from btc_core.names import APART_MIN, HEADLINE_MIN, HORIZONS_MIN
from btc_core.stores.redis_rows import forecast_fields, read_forecast
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BID_PREDICTION, PREDICTION_OUTCOMES, VOLATILITY_PREDICTION
from btc_core.tables.schema import compare
from streaming.outcomes import OUTCOME_WARM_UP_S, STATE_VERSION, OutcomeTracker, outcome_row

pytestmark = pytest.mark.unit

NORMAL = np.tile(np.asarray((-2.5758, *intervals.NORMAL[intervals.SCORED], 2.5758)), (3, 1))
START_NS = 1_700_000_100_000_000_000 // (30 * NS_PER_MIN) * 30 * NS_PER_MIN
SIGMA = [3.0, 7.0, 12.0]


def prices(count: int) -> np.ndarray:
    return 60_000.0 * np.exp(np.random.default_rng(1).normal(0.0, 3e-4, count).cumsum())


def forecast(ts_ns: int, bid: float) -> ForecastRow:
    bounds = np.tile(bid * (1.0 + np.array([-2e-3, *np.linspace(-1e-3, 1e-3, 6), 2e-3])), (3, 1)).tolist()
    sigma_bounds = [[each * share for share in (0.3, 0.5, 0.6, 0.8, 1.2, 1.5, 2.0, 3.0)] for each in SIGMA]
    return ForecastRow(
        "BTC/USD", ts_ns, ts_ns, 0, 1, 0, ts_ns, bid, [bid] * 3, SIGMA, SIGMA, "1", "random_walk", "2", "harx", "f",
        bounds, sigma_bounds, horizons_min=HORIZONS_MIN,
    )  # fmt: skip


def test_the_longest_horizon_is_the_headline_and_outcomes_are_judged_when_it_is_over() -> None:
    assert (HORIZONS_MIN, HEADLINE_MIN, APART_MIN) == ((2, 10, 30), 30, 30)
    assert targets.LABEL_SPAN_NS == 30 * NS_PER_MIN
    assert OUTCOME_WARM_UP_S == 32 * 60.0
    assert (gate.DEMOTE_HOURS, gate.DEMOTE_COVERAGE_HOURS, gate.MIN_OUTCOMES) == (144, 36, 360)
    assert STATE_VERSION.endswith("-2,10,30")
    assert INPUTS_VERSION.endswith("-2,10,30")


def test_labels_sum_every_minute_up_to_each_horizon() -> None:
    ts, close = START_NS + np.arange(60) * NS_PER_MIN, prices(60)
    squares = np.square(np.diff(np.log(close)))
    found = targets.realized_variance(ts, close)
    assert found.shape == (60, 3)
    assert found[7] == pytest.approx([squares[7 : 7 + h].sum() for h in HORIZONS_MIN])
    assert np.isnan(found[30:]).any(axis=1).all(), "the last half hour has no label of 30 minutes"
    assert targets.bid_path_bps(ts, close)[3] == pytest.approx(
        [1e4 * math.log(close[3 + h] / close[3]) for h in HORIZONS_MIN]
    )


def test_the_level_and_the_intervals_know_no_outcome_before_it_is_final() -> None:
    origins = START_NS + np.arange(24) * 5 * NS_PER_MIN
    ratio = np.full(24, 4.0)
    in_force = level.track(1.0, ratio, origins)
    assert (in_force[:6] == 1.0).all()
    assert (in_force[6:12] == level.update(1.0, 4.0)).all(), "one outcome in half an hour moves it"
    score = np.full((24, 3), 9.0)
    assert np.array_equal(intervals.track(NORMAL, score, origins)[5], NORMAL)


def test_an_outcome_has_the_moves_at_each_horizon_and_becomes_final_after_the_longest() -> None:
    tracker, bids = OutcomeTracker(NORMAL, NORMAL), prices(45).tolist()
    outcomes = []
    for minute, bid in enumerate(bids):
        ts_ns = START_NS + (minute + 1) * NS_PER_MIN - 2 * NS_PER_S
        outcomes += tracker.advance(ts_ns)
        tracker.observe(forecast(ts_ns, bid), ts_ns, bid, lambda: ({"har": 5.0}, 0.25), (1e-10,) * 3)
    first = outcomes[0]
    assert len(outcomes) == 45 - 31
    assert first.return_bps == pytest.approx([1e4 * math.log(bids[h] / bids[0]) for h in HORIZONS_MIN])
    squares = np.square(np.diff(np.log(bids)))
    assert first.realized == pytest.approx([squares[:h].sum() for h in HORIZONS_MIN])
    ratio = squares[:30].sum() / (12e-4) ** 2
    assert first.qlike["model"] == pytest.approx(ratio - math.log(ratio) - 1.0)
    row = table_rows.from_records(PREDICTION_OUTCOMES, [outcome_row(first)]).to_pylist()[0]
    assert row["qlike_model_30m"] == pytest.approx(first.qlike["model"])
    assert (row["qlike_model_5m"], row["sigma_1m_bps"]) == (None, None), "rows of now have no value at former horizons"
    assert row["sigma_2m_bps"] == SIGMA[0]


def test_the_tables_have_the_columns_of_both_sets_and_new_rows_leave_the_former_ones_empty() -> None:
    names = [column.name for column in VOLATILITY_PREDICTION.columns]
    assert [f"sigma_{h}m_bps" for h in (1, 2, 3, 4, 5, 10, 30)] == [
        name for name in names if name.startswith("sigma_") and "_q" not in name
    ]
    made = forecast(START_NS, 60_000.0)
    bid = table_rows.gold_bid_price_prediction([made]).to_pylist()[0]
    sigma = table_rows.gold_volatility_prediction([made]).to_pylist()[0]
    assert (bid["bid_2m_usd"], bid["bid_30m_q05_usd"], bid["bid_1m_usd"]) == (60_000.0, 60_000.0 * 0.999, None)
    assert (sigma["sigma_10m_bps"], sigma["sigma_5m_bps"], sigma["baseline_sigma_30m_bps"]) == (7.0, None, 12.0)
    assert "bid_3m_usd" in [column.name for column in BID_PREDICTION.columns]


class Columns:
    """A database whose table has these columns."""

    def __init__(self, names: list[str]) -> None:
        self._rows = [[name, "DOUBLE", False] for name in names]

    def execute(self, _sql: str) -> list[list[Any]]:
        return self._rows


def test_a_table_with_horizons_that_no_setting_names_is_refused_with_what_to_set() -> None:
    there = ["sigma_2m_bps", "sigma_10m_bps", "sigma_15m_bps", "qlike_model_15m"]
    _missing, differences = compare(Columns(there), PREDICTION_OUTCOMES)  # type: ignore[arg-type]
    assert "set BTC_FORMER_HORIZONS_MIN=1,2,3,4,5/2,10,15 beside it" in differences[0]
    known = [column.name for column in PREDICTION_OUTCOMES.columns]
    assert not [each for each in compare(Columns(known), PREDICTION_OUTCOMES)[1] if "BTC_FORMER" in each]  # type: ignore[arg-type]


def test_models_of_other_horizons_are_refused_with_the_reason(tmp_path: Any) -> None:
    model = random_walk_model()
    assert model.manifest.horizons_min == HORIZONS_MIN
    former = new_manifest(model.manifest.name, "random_walk", targets=tuple(f"bid_{h}m_bps" for h in range(1, 6)))
    model.manifest = former
    model.save(tmp_path, golden_rows(np.empty((0, len(MODEL_FEATURES) + len(COLUMNS)))))
    with pytest.raises(SchemaError, match="forecasts 1,2,3,4,5 minutes, and BTC_HORIZONS_MIN is 2,10,30; train again"):
        load_bundle(tmp_path)
    with pytest.raises(
        SchemaError, match="the pre-trained model forecasts 1,2,3,4,5 minutes, and BTC_HORIZONS_MIN is 2,10,30"
    ):
        pretrained.load(pretrained.SHIPPED)


class Redis:
    """A Redis with one hash."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def hgetall(self, _key: str) -> dict[bytes, bytes]:
        return {name.encode(): str(value).encode() for name, value in self._fields.items()}


def test_a_row_of_redis_is_read_and_one_of_former_horizons_counts_as_none() -> None:
    fields = forecast_fields(forecast(START_NS, 60_000.0))
    assert {"sigma_2m_bps", "sigma_10m_bps", "sigma_30m_bps"} <= fields.keys()
    assert "horizons_min" not in fields
    found = read_forecast(Redis(fields), "BTC/USD")  # type: ignore[arg-type]
    assert found is not None
    assert found.sigma_path_bps == SIGMA
    del fields["sigma_30m_bps"]
    assert read_forecast(Redis(fields), "BTC/USD") is None  # type: ignore[arg-type]


def test_a_published_forecast_says_its_horizons_and_one_without_them_has_the_default() -> None:
    made = forecast(START_NS, 60_000.0)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=ForecastRow)
    assert again.is_of_these_horizons
    assert not msgspec.structs.replace(made, horizons_min=msgspec.UNSET).is_of_these_horizons


def test_a_model_of_the_user_learns_the_horizons_and_must_keep_to_them() -> None:
    rows = Rows(("a",), np.zeros((4, 1)), np.arange(4))
    assert rows.horizons_min == (2, 10, 30)
    assert checked(np.ones((4, 3)), 4)[0].shape == (4, 3)
    with pytest.raises(Exception, match=r"the shape \(4, 5\) for the σ of 4 rows; \(4, 3\) is needed"):
        checked(np.ones((4, 5)), 4)
