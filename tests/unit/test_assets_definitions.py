"""The code location loads, quickly, and its graph is what it should be."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


def test_the_definitions_validate() -> None:
    import dagster as dg

    from btc_assets.definitions import daily_retrain, defs

    dg.Definitions.validate_loadable(defs)
    assert defs.resolve_job_def("train_models").name == "train_models"
    assert (daily_retrain.cron_schedule, daily_retrain.execution_timezone) == ("10 0 * * *", "UTC")


def test_the_graph_reaches_from_the_exchange_to_the_api() -> None:
    import dagster as dg

    from btc_assets.definitions import defs
    from btc_core.tables import TABLES

    graph = defs.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert set(TABLES) <= keys
    reached, waiting = set(), [dg.AssetKey("exchange_feed")]
    while waiting:
        key = waiting.pop()
        if key not in reached:
            reached.add(key)
            waiting.extend(graph.get(key).child_keys)
    assert {key.to_user_string() for key in reached} == keys
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.group_name != "default", key
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == {
        "minute_bars",
        "older_bars",
        "volatility_model",
        "bid_model",
        "volatility_champion",
        "bid_champion",
        "gold_prediction_skill",
        "gold_feature_drift",
        "demotions",
    }


def test_nothing_is_materialized_eagerly() -> None:
    from btc_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    assert [key for key in graph.get_all_asset_keys() if graph.get(key).automation_condition is not None] == []


def test_every_table_shows_its_columns_and_every_lineage_names_an_existing_column() -> None:
    from btc_assets.definitions import defs
    from btc_core.tables import TABLES

    graph = defs.resolve_asset_graph()
    for node in (graph.get(key) for key in graph.get_all_asset_keys()):
        name = node.key.to_user_string()
        if name not in TABLES:
            continue
        schema, lineage = node.metadata["dagster/column_schema"], node.metadata["dagster/column_lineage"]
        assert [column.name for column in schema.columns] == [column.name for column in TABLES[name].columns]
        for deps in lineage.deps_by_column.values():
            for dep in deps:
                source = dep.asset_key.to_user_string()
                if source != name:
                    assert dep.asset_key in node.parent_keys, (name, source)


def test_loading_the_definitions_imports_no_heavy_library() -> None:
    code = (
        "import sys, btc_assets.definitions; "
        "print([m for m in ('mlflow', 'xgboost', 'numba', 'pandas', 'boto3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]"
