"""A bundle with a user's model: what it stores, what it never does, and whose forecast a row has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from msgspec.msgpack import encode  # compares NaNs by their bits

from btc_core.errors import SchemaError
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS
from btc_core.models import bundle
from btc_core.models.bundle import VolatilityModel, bundle_files, golden_rows
from btc_core.models.manifest import new_manifest
from btc_core.models.row_forecasts import MODEL_COLUMNS, TrackedState, forecasts_of
from btc_core.models.user_model import no_sigma, stand_in_of, with_user
from btc_core.names import USER, VOLATILITY_MODEL
from btc_core.registry.served_models import digest_of, model_of
from tests.unit.btc_core.models.test_row_forecasts import MODELS, STATE, inputs
from tests.user_models import ENTRY, FACTOR, served, source

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.models.row_forecasts import Models

ROWS = golden_rows(np.empty((0, len(MODEL_FEATURES) + len(COLUMNS))))


def test_a_bundle_keeps_both_models_and_serves_as_the_user_s(tmp_path: Path) -> None:
    stand_in = MODELS[1]
    model = served(stand_in)
    model.save(tmp_path, ROWS)
    loaded = bundle.load_bundle(tmp_path, "12")
    assert isinstance(loaded, VolatilityModel)
    assert (loaded.kind, loaded.version, loaded.manifest.kind) == (USER, "12", stand_in.kind)
    assert loaded.manifest.user_entry == ENTRY
    assert loaded.user_files["entry.py"] == source()
    assert digest_of(bundle_files(loaded)) != digest_of(bundle_files(stand_in))
    _, values, columns = inputs(9)
    matrix = values[:, MODEL_COLUMNS]
    assert np.array_equal(loaded.predict(matrix, columns), stand_in.predict(matrix, columns), equal_nan=True)
    compiled = stand_in_of(loaded)
    assert (compiled.kind, compiled.version, compiled.user_files) == (stand_in.kind, "12", {})
    assert loaded.as_baseline().manifest.user_entry is None
    assert model_of(bundle_files(loaded), "12").kind == USER


def test_other_bundles_say_nothing_of_a_user() -> None:
    assert b'"user"' not in bundle_files(MODELS[1])["bundle.json"]
    assert stand_in_of(MODELS[1]) is MODELS[1]


def test_loading_a_bundle_never_loads_the_pickle_nor_runs_the_file(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = f"open({str(trace)!r}, 'w')\n"
    evil = b"cbuiltins\neval\n(S'" + text.strip().replace("'", '"').encode() + b"'\ntR."
    model = with_user(MODELS[1], ENTRY, text.encode(), evil)
    model.save(tmp_path / "bundle", ROWS)
    assert bundle.load_bundle(tmp_path / "bundle").kind == USER
    assert not trace.exists()


def test_a_bundle_without_the_file_of_the_user_is_refused(tmp_path: Path) -> None:
    model = served(MODELS[1])
    del model.user_files["model.pkl"]
    model.save(tmp_path, ROWS)
    with pytest.raises(SchemaError, match=r"model\.pkl"):
        bundle.load_bundle(tmp_path)


def test_rows_are_those_of_the_user_s_model_where_it_gave_a_number() -> None:
    ids, values, columns = inputs(20)
    models: Models = (MODELS[0], served(MODELS[1]))
    state: TrackedState = msgspec.structs.replace(STATE, level=1.2)
    given = no_sigma(20)
    given[::2] = np.arange(1.0, 6.0)
    made = forecasts_of(ids, FEATURE_VERSION, values, columns, models, state, 9, given)
    compiled = forecasts_of(ids, FEATURE_VERSION, values, columns, (MODELS[0], stand_in_of(models[1])), state, 9)
    for place, row in made.items():
        if place % 2:
            assert encode(row) == encode(compiled[place])
        elif np.isfinite(compiled[place].sigma_path_bps).all():
            assert (row.volatility_model_kind, row.sigma_path_bps) == (USER, [1.0, 2.0, 3.0, 4.0, 5.0])
            assert row.baseline_sigma_path_bps == compiled[place].baseline_sigma_path_bps
            low, high = row.sigma_bounds_bps[-1][1], row.sigma_bounds_bps[-1][-2]
            assert np.isnan(low) or low < 5.0 < high
    assert sum(row.volatility_model_kind == USER for row in made.values()) > 0
    assert {row.volatility_model_version for row in made.values()} == {models[1].version}


def test_a_row_whose_features_warm_up_has_no_number_of_the_user_either() -> None:
    model = served(VolatilityModel(new_manifest(VOLATILITY_MODEL, "harx"), MODELS[1].harx))
    ids, values, columns = inputs(3)
    values = values.copy()
    values[:, 5:] = np.nan
    places = forecasts_of(ids, FEATURE_VERSION, values, columns, (MODELS[0], model), STATE, 9, np.full((3, 5), FACTOR))
    assert all(row.volatility_model_kind != USER for row in places.values())
