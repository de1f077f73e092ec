"""Write Grafana's dashboards and alerts and Prometheus's rules from `panels.py`: `make dashboards`.

With `--check` it writes nothing and fails if a file differs. Queries do not belong here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import GraphDrawStyle, LegendDisplayMode, LegendPlacement, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    VariableOption,
)
from panels import ALERTS, FORECASTS, MARKET, PIPELINE, RECORDED, TABLE_ALERTS, Panel, TableAlert

DEPLOY = Path(__file__).resolve().parents[1]
QUESTDB = DataSourceRef(type_val="grafana-postgresql-datasource", uid="questdb")
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
HEIGHT = 8
BOARDS = {"market": ("Market", MARKET), "forecasts": ("Forecasts", FORECASTS), "pipeline": ("Pipeline", PIPELINE)}
GENERATED = "# Written by `make dashboards` from deploy/grafana/panels.py.\n"
ANY_RESULT: dict[str, Any] = {
    "refId": "B",
    "datasourceUid": "__expr__",
    "model": {
        "refId": "B",
        "type": "threshold",
        "expression": "A",
        "conditions": [{"evaluator": {"type": "gt", "params": [-1e12]}}],
    },
}
"""The alert expression contains the comparison, so any result fires the alert, even 0."""

AnyPanel = timeseries.Panel | stat.Panel | table.Panel


class Sql(Builder[Dataquery], Dataquery):
    """A query of Grafana's PostgreSQL data source, which QuestDB answers. The SDK has no type for it."""

    def __init__(self, ref_id: str, sql: str, *, is_table: bool) -> None:
        self._json = {
            "refId": ref_id,
            "datasource": {"type": QUESTDB.type_val, "uid": QUESTDB.uid},
            "editorMode": "code",
            "format": "table" if is_table else "time_series",
            "rawQuery": True,
            "rawSql": sql,
        }

    def build(self) -> Dataquery:
        """Return the query itself, which needs no further building."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the query in Grafana's JSON form."""
        return self._json


def panel(one: Panel) -> AnyPanel:
    """Return the SDK's builder of a panel."""
    made = _shape(one)
    made = made.title(one.title).description(one.meaning).unit(one.unit).span(one.width).height(HEIGHT)
    made = made.datasource(PROMETHEUS if one.promql else QUESTDB)
    for index, sql in enumerate(one.sql):
        made = made.with_target(Sql("ABCD"[index], sql, is_table=one.kind == "table"))
    for index, (legend, expr) in enumerate(one.promql.items()):
        made = made.with_target(prometheus.Dataquery().ref_id("ABCD"[index]).expr(expr).legend_format(legend))
    return made


def _shape(one: Panel) -> AnyPanel:
    if one.kind == "number":
        return stat.Panel()
    if one.kind == "table":
        return table.Panel()
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    made = (
        timeseries.Panel()
        .line_width(1)
        .show_points(VisibilityMode.NEVER)
        .legend(legend.show_legend(True))
        .interval("1s")
    )
    if one.kind == "bars":
        made = made.draw_style(GraphDrawStyle.BARS).fill_opacity(60)
    for name in one.dashed:
        made = made.override_by_name(name, [_value("custom.lineStyle", {"fill": "dash", "dash": [6, 4]})])
    for high, low in one.filled:
        made = made.override_by_name(high, [_value("custom.fillBelowTo", low), _value("custom.lineWidth", 0)])
        made = made.override_by_name(low, [_value("custom.lineWidth", 0)])
    return made


def _value(name: str, value: object) -> DynamicConfigValue:
    return DynamicConfigValue(id_val=name, value=value)


def board(uid: str, title: str, panels: tuple[Panel, ...]) -> str:
    """Return one dashboard as JSON."""
    symbol = (
        dashboard.QueryVariable("symbol")
        .label("Market")
        .datasource(QUESTDB)
        .query("SELECT DISTINCT symbol FROM gold_1min")
        .current(VariableOption(selected=True, text="BTC/USD", value="BTC/USD"))
    )
    made = (
        dashboard.Dashboard(title)
        .uid(f"btc-{uid}")
        .tags(["btc-forecast"])
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(symbol)
    )
    for one in panels:
        made = made.with_panel(panel(one))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def rules() -> str:
    """Return Prometheus's recording and alerting rules as YAML."""
    recorded = [{"record": name, "expr": expr} for name, expr in RECORDED.items()]
    alerts = [
        {"alert": one.name, "expr": one.expr, "for": one.lasting, "annotations": _annotations(one.name, one.summary)}
        for one in ALERTS
    ]
    groups = [{"name": "btc-recorded", "rules": recorded}, {"name": "btc-alerts", "rules": alerts}]
    return GENERATED + yaml.safe_dump({"groups": groups}, sort_keys=False, width=120)


def alerting() -> str:
    """Return the alerts as Grafana alerts, so that Grafana shows them and notifies without an Alertmanager."""
    made = [
        {
            "uid": f"btc-{one.name.lower()}",
            "title": one.name,
            "condition": "B",
            "for": one.lasting,
            "noDataState": "OK",
            "execErrState": "Error",
            "annotations": _annotations(one.name, one.summary.replace("{{ $value }}", "{{ $values.A }}")),
            "data": [
                {
                    "refId": "A",
                    "datasourceUid": PROMETHEUS.uid,
                    "relativeTimeRange": {"from": 600, "to": 0},
                    "model": {"refId": "A", "instant": True, "expr": one.expr},
                },
                ANY_RESULT,
            ],
        }
        for one in ALERTS
    ]
    made += [_table_alert(one) for one in TABLE_ALERTS]
    group = {"orgId": 1, "name": "btc", "folder": "btc-forecast", "interval": "10s", "rules": made}
    return GENERATED + yaml.safe_dump({"apiVersion": 1, "groups": [group]}, sort_keys=False, width=120)


def _annotations(name: str, summary: str) -> dict[str, str]:
    """Return the texts of an alert. The runbook is named by its path in the repository, because the site has no public address."""
    return {"summary": summary, "runbook": f"docs/runbook.md#{name.lower()}"}


def _table_alert(one: TableAlert) -> dict[str, Any]:
    bound = {"evaluator": {"type": "lt", "params": [one.below]}}
    return {
        "uid": f"btc-{one.name.lower()}",
        "title": one.name,
        "condition": "B",
        "for": "5m",
        "noDataState": "OK",
        "execErrState": "Error",
        "annotations": _annotations(one.name, one.summary),
        "data": [
            {
                "refId": "A",
                "datasourceUid": QUESTDB.uid,
                "relativeTimeRange": {"from": 600, "to": 0},
                "model": Sql("A", one.sql, is_table=True).to_json(),
            },
            ANY_RESULT | {"model": ANY_RESULT["model"] | {"conditions": [bound]}},
        ],
    }


def files() -> dict[Path, str]:
    """Return the path and content of every generated file."""
    boards = {
        DEPLOY / "grafana" / "dashboards" / f"{uid}.json": board(uid, title, panels)
        for uid, (title, panels) in BOARDS.items()
    }
    return boards | {
        DEPLOY / "prometheus" / "rules.yml": rules(),
        DEPLOY / "grafana" / "provisioning" / "alerting" / "alerts.yml": alerting(),
    }


def main() -> int:
    """Write the files, or with `--check` return 1 if a file differs from what would be written."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, text in files().items():
        if check:
            stale += [path] if not path.exists() or path.read_text() != text else []
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        sys.stderr.write(f"{path} differs from what `make dashboards` writes\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
