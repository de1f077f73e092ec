"""The code location loads quickly, and its graph has the assets and dependencies that it should have."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]

MATERIALIZABLE = {
    "minute_bars",
    "older_bars",
    "bronze_history",
    "sealed_bronze",
    "sealed_forecasts",
    "sealed_silver",
    "gold_1min_sealed",
    "gold_5min_sealed",
    "sealed_bars",
    "day_backup",
    "day_archive",
    "lake_backups",
    "restore_drill",
    "system_backup",
    "offsite_copy",
    "volatility_model",
    "bid_model",
    "volatility_champion",
    "bid_champion",
    "league_models",
    "league_champion",
    "gold_prediction_skill",
    "gold_feature_drift",
    "gold_forecast_roots",
    "demotions",
    "refused_in_shadow",
}


def test_the_definitions_validate() -> None:
    import dagster as dg

    from btc_assets.definitions import defs
    from btc_assets.jobs import daily_retrain

    dg.Definitions.validate_loadable(defs)
    assert defs.resolve_job_def("train_models").name == "train_models"
    assert (daily_retrain.cron_schedule, daily_retrain.execution_timezone) == ("10 0 * * *", "UTC")


def test_the_graph_reaches_from_the_exchange_to_the_api() -> None:
    import dagster as dg

    from btc_assets.definitions import defs
    from btc_core.tables.catalogue import TABLES

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
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == MATERIALIZABLE


def test_the_webserver_can_receive_the_definitions() -> None:
    """Dagster checks the types of groups, kinds and owners only when it sends the definitions to its webserver and daemon."""
    from dagster import serialize_value
    from dagster._core.remote_representation.external_data import RepositorySnap

    from btc_assets.definitions import defs

    assert serialize_value(RepositorySnap.from_def(defs.get_repository_def()))


def test_the_lineage_has_no_cycle() -> None:
    """Dagster accepts a cycle through live assets, and its lineage page then says "Cycle detected" and draws nothing. It
    says the same of groups that depend on each other in a circle."""
    from btc_assets.asset_metadata import GROUPS
    from btc_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    parents_of = {key: graph.get(key).parent_keys for key in graph.get_all_asset_keys()}
    assert len(list(TopologicalSorter(parents_of).static_order())) == len(parents_of)
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        parents = {graph.get(parent).group_name for parent in node.parent_keys}
        assert all(GROUPS.index(parent) <= GROUPS.index(node.group_name) for parent in parents), (key, parents)


def test_the_dependencies_of_the_assets_are_those_of_the_snapshot() -> None:
    """A snapshot of the assets that Dagster makes: a change of the graph must be repeated here."""
    from btc_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    parents = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.materializable_asset_keys
    }
    assert {name: parents[name] for name in MATERIALIZABLE - {"lake_backups", "sealed_silver"}} == {
        "minute_bars": ["exchange_feed", "market_events_topic"],
        "older_bars": ["minute_bars"],
        "bronze_history": ["exchange_feed"],
        "sealed_bronze": ["bronze_history", "bronze_ticks", "bronze_trades", "gap_marks", "market_events_topic"],
        "gold_1min_sealed": ["gold_1min", "sealed_silver", "silver_features"],
        "gold_5min_sealed": ["gold_1min_sealed", "gold_5min"],
        "sealed_bars": ["gold_1min_sealed"],
        "sealed_forecasts": [
            "gold_bid_price_prediction",
            "gold_forecast_roots",
            "gold_volatility_prediction",
            "sealed_silver",
        ],
        "day_backup": [
            "gold_1min_sealed",
            "gold_5min_sealed",
            "sealed_bars",
            "sealed_bronze",
            "sealed_forecasts",
            "sealed_silver",
        ],
        "day_archive": ["market_events_topic", "sealed_bronze"],
        "restore_drill": ["lake_backups"],
        "system_backup": ["bid_champion", "volatility_champion"],
        "offsite_copy": ["lake_backups", "system_backup"],
        "volatility_model": ["minute_bars", "older_bars", "sealed_bars"],
        "bid_model": ["minute_bars", "older_bars", "sealed_bars"],
        "league_models": ["minute_bars", "older_bars", "sealed_bars"],
        "league_champion": ["league_models"],
        "volatility_champion": ["volatility_model"],
        "bid_champion": ["bid_model"],
        "gold_prediction_skill": ["gold_prediction_outcomes"],
        "gold_feature_drift": ["silver_features"],
        "gold_forecast_roots": [
            "gold_bid_price_prediction",
            "gold_forecast_states",
            "gold_volatility_prediction",
            "market_events_topic",
            "silver_features",
        ],
        "demotions": ["gold_prediction_skill"],
        "refused_in_shadow": ["gold_prediction_outcomes"],
    }


def test_every_stored_table_has_checks_made_from_its_columns() -> None:
    from btc_assets import table_checks
    from btc_core.market.events import MAX_AHEAD_S
    from btc_core.tables.catalogue import STORED

    assert table_checks.MAX_AHEAD_S == MAX_AHEAD_S
    names = [spec.name for spec in table_checks.SPECS]
    assert len(names) == len(set(names))
    for table in STORED:
        assert {f"{table.name}_schema", f"{table.name}_nulls", f"{table.name}_keys"} <= set(names)


def test_a_missing_or_malformed_cursor_of_the_sealing_sensor_is_empty() -> None:
    from btc_assets.sealing import Cursor, read_cursor

    assert read_cursor('{"requested":{"2026-07-19":"abc"}}') == Cursor({"2026-07-19": "abc"})
    assert read_cursor(None) == read_cursor("nonsense") == read_cursor("[1]") == Cursor()
    assert read_cursor('{"2026-07-19":"abc"}') == Cursor(), "the form of an earlier release"


def test_nothing_is_materialized_eagerly() -> None:
    from btc_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    assert [key for key in graph.get_all_asset_keys() if graph.get(key).automation_condition is not None] == []


def test_every_table_shows_its_columns_and_every_lineage_names_an_existing_column() -> None:
    from btc_assets.definitions import defs
    from btc_core.tables.catalogue import TABLES

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
        "print([m for m in ('mlflow', 'xgboost', 'numba', 'scipy', 'pandas', 'boto3', 'matplotlib', 'redis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]"
