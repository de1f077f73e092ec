"""What the stream adds is a paired figure with an error that counts days, and is refused on too few days."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.errors import InvalidInput
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS
from btc_core.models.dataset import Frame
from btc_core.models.evaluation import FORECASTERS, MonthForecasts, WalkForward
from btc_core.models.stream_value import check_days, paired, stream_value

pytestmark = pytest.mark.unit

BEGIN_NS = 20_000 * NS_PER_DAY


def frame(days: int, streamed_from_day: int) -> Frame:
    origin_ns = BEGIN_NS + np.arange(1, days * 288) * 5 * NS_PER_MIN
    count = len(origin_ns)
    return Frame(
        origin_ns,
        np.zeros((count, len(MODEL_FEATURES))),
        np.zeros((count, len(COLUMNS)), np.float32),
        np.full((count, 5), 1e-6),
        np.zeros((count, 5)),
        origin_ns >= BEGIN_NS + streamed_from_day * NS_PER_DAY,
    )


def walk(rows: Frame, factor: float) -> WalkForward:
    """Forecasts that are wrong by a factor that moves from day to day around `factor`."""
    count = len(rows.origin_ns)
    day = rows.origin_ns // NS_PER_DAY
    wrong = factor * (1.0 + 0.1 * np.sin(day))
    variances = dict.fromkeys(FORECASTERS, rows.realized * wrong[:, np.newaxis])
    month = MonthForecasts(
        "2024-10", rows.origin_ns, rows.realized, rows.bid_bps, variances, variances, np.full((count, 5), factor),
        np.zeros((count, 5)), np.full((count, 5), 8.0), {}, (0.0,) * 5, {},
    )  # fmt: skip
    return WalkForward([month], 30.0, "monthly")


def test_losses_are_compared_on_the_rows_of_the_stream_alone_and_paired() -> None:
    rows = frame(30, 10)
    test = rows.between(BEGIN_NS + 8 * NS_PER_DAY, BEGIN_NS + 30 * NS_PER_DAY)
    value = stream_value(rows, walk(test, 1.2), walk(test, 1.5))
    assert (value.tested_days, value.trained_days) == (20, 0)
    assert value.rows == int(test.is_streamed.sum())
    found = value.qlike["model"]
    assert found.difference == pytest.approx(found.with_stream - found.without_stream)
    assert found.difference < -3.0 * found.error < 0.0
    assert value.bid.difference == pytest.approx(1.2**2 - 1.5**2)


def test_the_error_of_a_difference_counts_days_and_not_rows() -> None:
    rng = np.random.default_rng(2)
    days = np.repeat(np.arange(40), 288)
    of_day = np.repeat(rng.normal(0.0, 1.0, 40), 288)
    found = paired(of_day, np.zeros(len(days)), days)
    assert found.error == pytest.approx(1.0 / math.sqrt(40), rel=0.3)
    assert math.isnan(paired(of_day[:288], np.zeros(288), days[:288]).error)


def test_too_few_sealed_days_are_refused_with_their_numbers() -> None:
    rows = frame(30, 10)
    with pytest.raises(
        InvalidInput, match=r"has 2 sealed days .* before 2024-10-16 and 18 from then on; 14 are needed"
    ):
        check_days(rows, BEGIN_NS + 12 * NS_PER_DAY, BEGIN_NS + 30 * NS_PER_DAY, "BTC/USD")
    with pytest.raises(InvalidInput, match="btc backfill"):
        check_days(rows, BEGIN_NS + 28 * NS_PER_DAY, BEGIN_NS + 30 * NS_PER_DAY, "BTC/USD")
    check_days(rows, BEGIN_NS + 24 * NS_PER_DAY, BEGIN_NS + 30 * NS_PER_DAY, "BTC/USD")


def test_without_the_stream_only_its_inputs_are_missing() -> None:
    rows = frame(12, 1)
    bare = rows.without_stream()
    assert not np.isnan(rows.matrix).any()
    assert np.isnan(bare.matrix).any(axis=0).sum() > 20
    assert np.isfinite(bare.matrix[:, MODEL_FEATURES.index("log_rv_5m")]).all()
    assert bare.streamed_days == 0
