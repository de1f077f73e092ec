"""The features of minute bars: their values, the size of a chunk, and the matrix of a model."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from btc_core.clock import column_ns
from btc_core.errors import InvalidInput
from btc_core.features.bar_features import bar_features
from btc_core.features.catalogue import BAR_FEATURES, FEATURES, MODEL_FEATURES, model_matrix
from btc_core.market.bars import BARS
from tests.paths import DATA

pytestmark = pytest.mark.unit


def test_recorded_bars_give_every_bar_feature_and_no_feature_of_quotes() -> None:
    file = DATA / "btcusdt_1m_2024_2025h1.parquet"
    if not file.is_file():
        pytest.skip(f"{file} is missing; the recorded market data is not part of the project")
    table = pq.read_table(file).slice(0, 20_000)
    bars = np.zeros(len(table), BARS)
    bars["ts_ns"] = column_ns(table["ts"])
    for name in ("open", "high", "low", "close", "volume"):
        bars[name] = table[name].to_numpy()
    rows = bar_features(bars)
    assert np.isfinite(model_matrix(rows, BAR_FEATURES)[1_500:]).all()
    quote_features = [feature.name for feature in FEATURES if feature.group == "microstructure"]
    assert np.isnan(model_matrix(rows, tuple(quote_features))).all()
    moves = np.diff(np.log(bars["close"][-1_441:]))
    assert rows[-1]["log_rv_1440m"] == pytest.approx(np.log((moves**2).sum()), rel=1e-9)
    assert rows[-1]["log_volume_60m"] == pytest.approx(np.log1p(bars["volume"][-60:].sum()), rel=1e-9)


def test_rows_of_bars_do_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    bars = np.zeros(3_000, BARS)
    bars["ts_ns"] = np.arange(3_000) * 60 * 10**9
    for name in ("open", "high", "low", "close", "volume"):
        bars[name] = 10.0 + rng.random(3_000)
    whole = bar_features(bars)
    monkeypatch.setattr("btc_core.features.bar_features.CHUNK_BARS", 701)
    assert bar_features(bars).tobytes() == whole.tobytes()


def test_bars_that_are_not_sorted_are_refused() -> None:
    bars = np.zeros(2, BARS)
    with pytest.raises(InvalidInput, match="sorted"):
        bar_features(bars)


def test_a_matrix_has_the_named_columns_in_the_given_order() -> None:
    bars = np.zeros(3, BARS)
    bars["ts_ns"] = np.arange(1, 4) * 60 * 10**9
    for name in ("open", "high", "low", "close"):
        bars[name] = 10.0
    rows = bar_features(bars)
    assert model_matrix(rows).shape == (3, len(MODEL_FEATURES))
    assert (model_matrix(rows, ("mid", "weekday")) == np.array([[10.0, 3.0]] * 3)).all()
