"""Write Grafana's dashboards and alerts and Prometheus's rules from `panels.py` and `alerts.py`: `make dashboards`.

The runbook becomes a dashboard, because the site of the documentation has no public address that a panel could link to, and
for the same reason a page of the API.
With `--check` it writes nothing and fails if a file differs. Queries do not belong here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.text import TextMode

from deploy.grafana import runbook_page
from deploy.grafana.alerts import ALERTS, RECORDED, TABLE_ALERTS, TableAlert
from deploy.grafana.panels import DECIMALS, FORECASTS, MARKET, MARKS, PIPELINE, Mark, Panel
from serving.alert_rules import RULES

DEPLOY = Path(__file__).resolve().parents[1]
QUESTDB = DataSourceRef(type_val="grafana-postgresql-datasource", uid="questdb")
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
HEIGHT = 8
BOARDS = {"market": ("Market", MARKET), "forecasts": ("Forecasts", FORECASTS), "pipeline": ("Pipeline", PIPELINE)}
PLACES = {one.title: (uid, number) for uid, (_, panels) in BOARDS.items() for number, one in enumerate(panels, 1)}
"""The dashboard of each panel and its number there, which its address contains."""
RUNBOOK = dict(
    re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", (DEPLOY.parent / "docs" / "runbook.md").read_text(), re.MULTILINE)
)
"""The sections of the runbook by title."""
LABELS = {one.name: {"severity": "critical" if one.is_severe else "warning", "service": one.part} for one in RULES}
"""The labels of each alert: the same severity and part of the system as in the API and in messages."""
GENERATED = "# Written by `make dashboards` from deploy/grafana.\n"
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


class Marks(Builder[AnnotationQuery], AnnotationQuery):
    """Marks in the charts. The SDK has no type for their queries."""

    def __init__(self, one: Mark) -> None:
        super().__init__(name=one.name, datasource=QUESTDB if one.sql else PROMETHEUS, icon_color=one.colour)
        self._more: dict[str, Any] = (
            {"target": Sql("Anno", one.sql, is_table=True).to_json()}
            if one.sql
            else {
                "target": {"refId": "Anno", "expr": one.promql, "interval": "15s"},
                "textFormat": one.text,
                "titleFormat": "",
                "useValueForTime": True,
            }
        )

    def build(self) -> AnnotationQuery:
        """Return the marks themselves, which need no further building."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the marks in Grafana's JSON form."""
        return super().to_json() | self._more


def panel(one: Panel) -> AnyPanel:
    """Return the SDK's builder of a panel."""
    made = _shape(one).id(PLACES[one.title][1]).links([_link(*each) for each in _links(one)])
    made = made.title(one.title).description(one.meaning).unit(one.unit).span(one.width).height(HEIGHT)
    made = made.datasource(PROMETHEUS if one.promql else QUESTDB)
    if one.unit in DECIMALS:
        made = made.decimals(DECIMALS[one.unit])
    for name, unit in one.columns.items():
        made = made.override_by_name(name, [_value("unit", unit)])
    if steps := _steps(one):
        made = made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    for index, sql in enumerate(one.sql):
        made = made.with_target(Sql("ABCD"[index], sql, is_table=one.kind == "table"))
    for index, (legend, expr) in enumerate(one.promql.items()):
        made = made.with_target(prometheus.Dataquery().ref_id("ABCD"[index]).expr(expr).legend_format(legend))
    return made


def _links(one: Panel) -> list[tuple[str, str]]:
    """The titles and addresses of a panel's links: sections of the runbook, then other panels with the same time and market."""
    kept = "${__url_time_range}&${__all_variables}"
    runbook = [(f"Runbook: {name}", _section(name)) for name in one.alerts]
    return runbook + [(title, f"{_address(*PLACES[title])}&{kept}") for title in one.see]


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url)


def _section(title: str) -> str:
    return _address("runbook", list(RUNBOOK).index(title) + 1)


def _address(uid: str, number: int) -> str:
    return f"/d/btc-{uid}?viewPanel=panel-{number}"


def _steps(one: Panel) -> list[Threshold]:
    """The colours from each value on. A chart has none where the value is good.

    A number without bounds gets one colour, because Grafana would otherwise show each above 80 in red.
    """
    good = "green" if one.kind == "number" else "transparent"
    if one.red_above is not None:
        return [Threshold(None, good), Threshold(one.red_above, "red")]
    if one.red_below is not None:
        return [Threshold(None, "red"), Threshold(one.red_below, good)]
    return [Threshold(None, "blue")] if one.kind == "number" else []


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
    if _steps(one):
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.AREA))
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
        .query("SELECT DISTINCT symbol FROM gold_1min ORDER BY symbol")
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .current(VariableOption(selected=True, text="BTC/USD", value="BTC/USD"))
    )
    made = (
        _empty_board(uid, title)
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(symbol)
    )
    for mark in MARKS:
        made = made.annotation(Marks(mark))
    for one in panels:
        made = made.with_panel(panel(one))
    return _json(made)


def runbook() -> str:
    """Return the runbook as a dashboard with a text panel for each section, in which links lead to its own sections."""
    made = _empty_board("runbook", "Runbook")
    addresses = {title.lower().replace(" ", "-"): _section(title) for title in RUNBOOK}
    for number, (title, words) in enumerate(RUNBOOK.items(), 1):
        linked = re.sub(r"\]\(#([\w-]+)\)", lambda found: f"]({addresses[found[1]]})", words.strip())
        linked = re.sub(r"\[([^]]+)\]\(((?!https?:|/d/)[^)]+)\)", r"\1 (\2 in the documentation)", linked)
        shown = text.Panel().id(number).title(title).content(linked).mode(TextMode.MARKDOWN)
        made = made.with_panel(shown.span(24).height(2 * HEIGHT))
    return _json(made)


def _empty_board(uid: str, title: str) -> dashboard.Dashboard:
    """A dashboard that links to the others."""
    others = dashboard.DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags(["btc-forecast"])
    others = others.include_vars(True).keep_time(True)
    return dashboard.Dashboard(title).uid(f"btc-{uid}").tags(["btc-forecast"]).link(others)


def _json(made: dashboard.Dashboard) -> str:
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def rules() -> str:
    """Return Prometheus's recording and alerting rules as YAML."""
    recorded = [{"record": name, "expr": expr} for name, expr in RECORDED.items()]
    alerts = [
        {"alert": one.name, "expr": one.expr, "for": one.lasting, "labels": LABELS[one.name],
         "annotations": _annotations(one.name, one.summary)}
        for one in ALERTS
    ]  # fmt: skip
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
            "labels": LABELS[one.name],
            **_shown_by(one.name),
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


def _shown_by(name: str) -> dict[str, Any]:
    """The panel that shows what the alert is about, to which Grafana links; empty if there is none."""
    places = [
        (uid, PLACES[one.title][1]) for uid, (_, panels) in BOARDS.items() for one in panels if name in one.alerts
    ]
    return {"dashboardUid": f"btc-{places[0][0]}", "panelId": places[0][1]} if places else {}


def _table_alert(one: TableAlert) -> dict[str, Any]:
    bound = {"evaluator": {"type": "lt", "params": [one.below]}}
    return {
        "uid": f"btc-{one.name.lower()}",
        "title": one.name,
        "condition": "B",
        "for": "5m",
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": LABELS[one.name],
        **_shown_by(one.name),
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
        DEPLOY / "grafana" / "dashboards" / "runbook.json": runbook(),
        DEPLOY / "prometheus" / "rules.yml": rules(),
        DEPLOY / "grafana" / "provisioning" / "alerting" / "alerts.yml": alerting(),
        runbook_page.TARGET: runbook_page.content(),
    }


def main() -> int:
    """Write the files, or with `--check` return 1 if a file differs from what would be written."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, content in files().items():
        if check:
            stale += [path] if not path.exists() or path.read_text() != content else []
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for path in stale:
        sys.stderr.write(f"{path} differs from what `make dashboards` writes\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
