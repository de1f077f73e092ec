"""A forecast does not depend on the rows beside it, so it can be computed again alone and to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.msgpack import encode  # compares NaNs by their bits

from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.features.minute_columns import COLUMNS
from btc_core.market.events import QUOTE
from btc_core.market.messages import FeatureId
from btc_core.models import pretrained
from btc_core.models.bundle import bundle_files, random_walk_model, start_quantiles
from btc_core.models.row_forecasts import BID_COLUMN, MODEL_COLUMNS, TrackedState, forecasts_of
from btc_core.registry.served_models import digest_of, model_of, unzipped, zipped
from tests.unit.btc_core.features.test_minute_columns import market

pytestmark = pytest.mark.unit

MODELS = random_walk_model(), pretrained.model_of_bars(pretrained.shipped(), market(3 * 1440))
STATE = TrackedState(1.07, start_quantiles(MODELS[0]), start_quantiles(MODELS[1]))


def inputs(rows: int) -> tuple[list[FeatureId], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    values = rng.normal(-14.0, 1.0, (rows, len(FEATURE_NAMES)))
    values[:, BID_COLUMN] = 60_000.0 + rng.normal(0.0, 5.0, rows)
    columns = rng.normal(0.0, 1.0, (rows, len(COLUMNS))).astype(np.float32)
    return [FeatureId("BTC/USD", at, at, 0, at, 0, QUOTE) for at in range(rows)], values, columns


def test_a_forecast_is_the_same_alone_and_among_others() -> None:
    """The product of matrices in numpy has other last bits for another number of rows."""
    ids, values, columns = inputs(301)
    together = forecasts_of(ids, FEATURE_VERSION, values, columns, MODELS, STATE, 9)
    assert len(together) == 301
    for at in range(0, 301, 7):
        alone = forecasts_of(
            ids[at : at + 1], FEATURE_VERSION, values[at : at + 1], columns[at : at + 1], MODELS, STATE, 9
        )
        assert encode(alone[0]) == encode(together[at])


def test_a_model_that_is_kept_as_files_gives_the_same_bits() -> None:
    ids, values, columns = inputs(40)
    kept = tuple(model_of(unzipped(zipped(bundle_files(model))), model.version) for model in MODELS)
    assert [digest_of(bundle_files(model)) for model in kept] == [digest_of(bundle_files(model)) for model in MODELS]
    made = forecasts_of(ids, FEATURE_VERSION, values, columns, MODELS, STATE, 9)
    again = forecasts_of(ids, FEATURE_VERSION, values, columns, kept, STATE, 9)  # type: ignore[arg-type]
    assert encode(again) == encode(made)


def test_a_changed_model_does_not_keep_the_files_of_the_old_one() -> None:
    model = MODELS[1]
    assert digest_of(bundle_files(model.as_baseline())) != digest_of(bundle_files(model))
    assert model.with_harx(model.harx).files is None
    assert model.predict(inputs(3)[1][:, MODEL_COLUMNS]).shape == (3, 5)
