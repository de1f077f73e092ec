"""What Dagster shows of tables and models: names of assets, column schemas, column lineage, links.

What does not belong here: which tables exist and what their columns mean (`btc_core.tables.catalogue`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import dagster as dg

from btc_core import names
from btc_core.settings import settings
from btc_core.tables.catalogue import TABLES

if TYPE_CHECKING:
    from btc_core.names import Quantity
    from btc_core.tables.form import Column, Table

OWNERS = ["team:market-data"]
GROUPS = ("exchange", "bronze", "silver", "gold", "sealed", "models", "forecasts", "serving", "backups")
"""The groups of the lineage page. Each depends on earlier ones alone, because Dagster draws no groups in a circle."""
EXCHANGE_FEED = "exchange_feed"
EVENTS_TOPIC = "market_events_topic"
_KRAKEN = "kraken."
_GOLD_BARS = ("gold_1min", "gold_5min")


def market_suffix(symbol: str) -> str:
    """The end of names that are about one market's models: empty where the registered model has no market in its name.

    >>> market_suffix("BTC/USD"), market_suffix("ETH/USD"), market_suffix("BTC/USDT@binance-perp")
    ('', '_ETHUSD', '_BTCUSDT_binance_perp')
    """
    return names.market_suffix(symbol).replace("-", "_")


def model_asset(quantity: Quantity) -> str:
    """Name of the asset that trains the models of a quantity; its partitions are the markets."""
    return f"{quantity}_model"


def champion_asset(quantity: Quantity) -> str:
    """Name of the asset that is the champions of a quantity; its partitions are the markets."""
    return f"{quantity}_champion"


def group_of(table: Table) -> str:
    """The group of a table: its layer, unless models have a part in its rows."""
    return "forecasts" if table.layer == "gold" and table.name not in _GOLD_BARS else table.layer


def code_version(*parts: str) -> str:
    """The version of an asset whose rows follow from these texts; when it changes, Dagster shows the asset as outdated."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def table_metadata(table: Table) -> dict[str, Any]:
    """Metadata of the asset that is this table: its columns, their lineage, and links to its rows."""
    return {
        **_links(table),
        "dagster/table_name": table.name,
        "dagster/storage_kind": "questdb",
        "dagster/column_schema": _schema(table),
        "dagster/column_lineage": _lineage(table),
    }


def upstream_tables(table: Table) -> list[str]:
    """Names of the assets that this table's columns are made from, without the table itself."""
    sources = {
        asset for column in table.columns for upstream in column.upstream for asset, _ in _upstream_columns(upstream)
    }
    return sorted(sources - {table.name})


def _links(table: Table) -> dict[str, Any]:
    """Links to the newest rows in QuestDB's console, and to the dashboard that shows them."""
    links = settings().links
    query = urlencode({"query": f"SELECT * FROM {table.name} LIMIT -100", "executeQuery": "true"})  # noqa: S608 - a link
    found = {"questdb": dg.MetadataValue.url(f"{links.questdb_url or settings().questdb.http_url}/?{query}")}
    if links.grafana_url:
        board = "forecasts" if "predict" in table.name else "pipeline" if table.layer == "bronze" else "market"
        found["grafana"] = dg.MetadataValue.url(f"{links.grafana_url}/d/btc-{board}")
    return found


def _schema(table: Table) -> dg.TableSchema:
    columns = [
        dg.TableColumn(
            column.name,
            type=column.type,
            description=column.meaning,
            tags={"unit": _tag(column.unit)} if column.unit else {},
            constraints=dg.TableColumnConstraints(nullable=column.name not in table.keys),
        )
        for column in table.columns
    ]
    return dg.TableSchema(columns)


def _tag(unit: str) -> str:
    """A unit in the characters that Dagster allows in a tag."""
    spelled = unit.replace("%", "percent").replace("²", "2").replace("+", "plus").replace("(", "_").replace(")", "")
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in spelled)


def _lineage(table: Table) -> dg.TableColumnLineage:
    return dg.TableColumnLineage({column.name: _column_deps(column) for column in table.columns if column.upstream})


def _column_deps(column: Column) -> list[dg.TableColumnDep]:
    return [
        dg.TableColumnDep(asset_key=asset, column_name=name)
        for upstream in column.upstream
        for asset, name in _upstream_columns(upstream)
    ]


def _upstream_columns(upstream: str) -> list[tuple[str, str]]:
    """Assets and columns behind `table.column`, `kraken.channel.field`, `log.field` or `model.asset.field`.

    The last stands for the models of every market.
    """
    if upstream.startswith(_KRAKEN):
        return [(EXCHANGE_FEED, upstream.removeprefix(_KRAKEN))]
    table, _, column = upstream.partition(".")
    if table == "log":
        return [(EVENTS_TOPIC, column)]
    if table == "model":
        asset, _, field = column.partition(".")
        return [(asset, field)]
    if table not in TABLES:
        msg = f"the catalogue names {upstream} as an upstream column, and there is no table {table}"
        raise KeyError(msg)
    return [(table, column)]
