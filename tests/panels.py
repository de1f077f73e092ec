"""Grafana's files as tests see them: every panel, its queries with the macros filled in, the metrics they name.

What does not belong here: tests.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg2
import yaml

from btc_core.clock import from_ns, now_ns
from tests.paths import ROOT

if TYPE_CHECKING:
    from btc_core.settings import Settings

DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\bbtc_[a-z_]+\b")


@dataclass(frozen=True)
class Query:
    """One query of one panel."""

    board: str
    panel: str
    text: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}"


def sql() -> list[Query]:
    """Every query to QuestDB."""
    shown = [
        Query(board, panel["title"], target["rawSql"]) for board, panel, target in _targets() if "rawSql" in target
    ]
    alerts = yaml.safe_load((DEPLOY / "grafana/provisioning/alerting/alerts.yml").read_text())["groups"][0]["rules"]
    models = [(alert["title"], alert["data"][0]["model"]) for alert in alerts]
    return (
        shown
        + _marks("rawSql")
        + [Query("alert", title, model["rawSql"]) for title, model in models if "rawSql" in model]
    )


def promql() -> list[Query]:
    """Every query to Prometheus."""
    return _marks("expr") + [
        Query(board, panel["title"], target["expr"]) for board, panel, target in _targets() if "expr" in target
    ]


def boards() -> dict[str, dict[str, Any]]:
    """Every dashboard by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))}


def charts() -> list[tuple[str, dict[str, Any]]]:
    """Every panel that shows figures, with its dashboard. The panels of the runbook show text."""
    return [(name, panel) for name, board in boards().items() for panel in board["panels"] if panel["type"] != "text"]


def _marks(key: str) -> list[Query]:
    """The queries of the marks in the charts that have this key."""
    return [
        Query("marks", f"{board}: {mark['name']}", mark["target"][key])
        for board, content in boards().items()
        for mark in content["annotations"].get("list", [])
        if key in mark["target"]
    ]


def _targets() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [(name, panel, target) for name, panel in charts() for target in panel["targets"]]


def expanded(text: str, hours: float = 1.0, interval: str = "5s", symbol: str = "BTC/USD") -> str:
    """What Grafana sends for a query: its macros filled in for the last hours."""
    now = from_ns(now_ns()).astimezone(UTC) + timedelta(minutes=1)
    first, last = (f"'{_stamp(moment)}'" for moment in (now - timedelta(hours=hours), now))
    text = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {first} AND {last}", text)
    text = text.replace("$__interval", interval).replace("$symbol", symbol)
    assert "$" not in text, text
    return text


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def run(settings: Settings, query: Query, symbol: str = "BTC/USD", hours: float = 1.0) -> tuple[list[str], list[tuple]]:
    """Columns and rows, over the protocol, with the text and as the user that Grafana uses."""
    questdb = settings.questdb
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=questdb.pg_port,
        user=questdb.reader_user,
        password=questdb.reader_password.get_secret_value(),
        dbname="qdb",
    )
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(expanded(query.text, hours, symbol=symbol))
            return [column.name for column in cursor.description or ()], cursor.fetchall()
    finally:
        connection.close()
